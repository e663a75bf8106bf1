"""Tables of sequences, read from files."""

from pathlib import Path

import pytest

from lsd_sampler import MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.denoisers import Oracle, TableDenoiser


def test_tables_of_characters_and_of_ids(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("cab\t2\n\nbac\ncab\n")
    (tmp_path / "b.txt").write_text("2 0 1\t3\r\n1 0 2\r\n")
    first, second = load_denoiser(f"table:{tmp_path}/a.txt,clues=1"), load_denoiser(f"table:{tmp_path}/b.txt")
    for oracle in (first, second):
        assert isinstance(oracle, TableDenoiser) and (oracle.vocab_size, oracle.length) == (3, 3)
        assert oracle.sequences.tolist() == [[1, 0, 2], [2, 0, 1]] and oracle.probabilities.tolist() == [0.25, 0.75]
    assert isinstance(first, Oracle) and first.clues == 1
    pipe = MaskedDiffusionPipeline.from_pretrained(f"table:{tmp_path}/a.txt")
    assert set(pipe(num_samples=8, num_inference_steps=3).texts or ()) <= {"cab", "bac"}
    assert pipe(prefix="c", num_inference_steps=2).texts == ["cab"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no sequence"),
        ("ab\nabc\n", "line 2: 3 tokens, but 2 in line 1"),
        ("0 1\n0 1 2\n", "line 2: 3 tokens, but 2 in line 1"),
        ("0 1\n0 -1\n", "line 1 holds ids between spaces, line 2 characters"),
        ("ab\tx\n", "line 1: after the tab"),
        ("ab\t-1\n", "line 1: after the tab"),
        ("ab\t0\n", "`weights`"),
        ("0 99999999999999999999\n", "a.txt"),
    ],
)
def test_bad_tables(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=f"a.txt.*{words}" if words != "a.txt" else words):
        load_denoiser(f"table:{tmp_path}/a.txt")
    with pytest.raises(OSError, match="none.txt"):
        load_denoiser(f"table:{tmp_path}/none.txt")
