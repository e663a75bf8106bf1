"""Names of exact oracles, and their options."""

import pytest

from lsd_sampler import load_denoiser
from lsd_sampler.denoisers import ORACLES, Oracle


def test_every_oracle_can_be_loaded_by_its_example() -> None:
    for name in ORACLES.names():
        for example in ORACLES[name].example.replace(" or ", ", ").split(", "):
            if "FILE" not in example:
                oracle = load_denoiser(example)
                assert isinstance(oracle, Oracle) and oracle.name_or_path == example
                assert oracle.sample(2).shape == (2, oracle.length)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sudoku4:clues=16", "`clues`"),
        ("sudoku4:clues=-1", "`clues`"),
        ("sudoku4:clue=4", "'clue' is none of clues.*Did you mean 'clues'"),
        ("sudoku4:grids.txt", "form is sudoku4"),
        ("table", "form is table:FILE"),
        ("hmm:V=1", "`V`"),
        ("hmm:V=4,K=5", "`K`"),
        ("hmm:eps=1", "`eps`"),
        ("hmm:V=4,V=5", "form is hmm"),
        ("hmm:S=2,V=3,L=0", "`length`"),
        ("markov2:V=17", "`V`"),
        ("brackets:L=7", "`L` must be even"),
        ("brackets:L=8,depth=0", "`depth`"),
        ("colouring:V=1", "no colouring"),
        ("colouring:H=8,W=8,V=4", "more than"),
        ("linear_code:L=4,K=5", "`K`"),
        ("shuffle:L=9", "`L`"),
        ("replace_one:L=1", "`L`"),
    ],
)
def test_bad_names(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_denoiser(name)
