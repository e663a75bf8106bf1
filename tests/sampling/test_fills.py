"""How fills of one canvas vary, and the law that they obey. Seeds are fixed; each test of a law states how often a
right sampler would fail with another one.
"""

import math

import pytest
import torch

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.denoisers import Oracle
from lsd_sampler.evaluation import two_fill_disagreement
from lsd_sampler.sampling.fills import differing, fill_pairs, fill_shares


def test_the_share_by_hand() -> None:
    """Masked positions count, all together: 1 of 2 in the first canvas and 0 of 1 in the second."""
    one = torch.tensor([[0, 1, 2], [0, 1, 2]])
    other = torch.tensor([[0, 2, 1], [1, 1, 2]])
    masked = torch.tensor([[True, True, False], [False, True, False]])
    assert two_fill_disagreement(one, other, masked) == two_fill_disagreement(other, one, masked) == 1 / 3
    assert two_fill_disagreement(one, one, masked) == 0
    assert [counts.tolist() for counts in differing(one, other, masked)] == [[1, 0], [2, 1]]


def test_what_has_no_share() -> None:
    fills = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="`masked` must hold a position"):
        two_fill_disagreement(fills, fills, torch.zeros(2, 3, dtype=torch.bool))
    for others, masked in ((fills[:1], fills == 0), (fills, (fills == 0)[:1]), (fills[0], (fills == 0))):
        with pytest.raises(ValueError, match="one shape"):
            two_fill_disagreement(fills, others, masked)


def test_pairs_are_fills_of_one_canvas() -> None:
    a, b, c = [9, 0], [9, 1], [9, 9]
    assert fill_pairs(torch.tensor([a, a, b, b, c])).tolist() == [[0, 1], [2, 3]]
    assert fill_pairs(torch.tensor([a, b, c, a, b])).tolist() == [[0, 3], [1, 4]]
    assert fill_pairs(torch.tensor([b, a, a, a, b, a, a])).tolist() == [[0, 4], [1, 2], [3, 5]]
    assert fill_pairs(torch.tensor([a, b])).shape == (0, 2)


def two_fills(name: str, num: int, **options: float) -> tuple[torch.Tensor, ...]:
    """Two fills of each of the oracle's canvases, one token a call; the truth; and what is masked."""
    oracle = load_denoiser(name)
    assert isinstance(oracle, Oracle)
    pipe = MaskedDiffusionPipeline(oracle, LSDScheduler(**oracle.scheduler_config()))
    pipe.set_progress_bar_config(disable=True)
    canvases_NL, truth_NL = oracle.canvases(num, torch.Generator().manual_seed(0))
    steps = oracle.length - oracle.clues
    fills = (
        pipe(
            input_ids=canvases_NL, num_inference_steps=steps, generator=torch.Generator().manual_seed(seed),
            output_type="ids", **options,
        ).sequences
        for seed in (1, 2)
    )  # fmt: skip
    return *fills, truth_NL, canvases_NL == oracle.hole_id


def z_of_lost_variety(first: torch.Tensor, second: torch.Tensor, truth: torch.Tensor, masked: torch.Tensor) -> float:
    """By how many standard errors, over canvases, two fills differ more than a fill differs from the truth."""
    pairs = ((first, second), (first, truth), (second, truth))
    differ_N, *errors_N = (differing(one, other, masked)[0] for one, other in pairs)
    excess_N = differ_N - (errors_N[0] + errors_N[1]) / 2
    return float(excess_N.mean() / (excess_N.std() / math.sqrt(len(excess_N))))


ORACLES = ["sudoku4:clues=4", "sudoku4:clues=9", "colouring:H=3,W=3,clues=2", "countdown:V=6,L=8,clues=2",
           "markov2:V=3,L=8,clues=3", "hmm:S=3,V=4,L=8,clues=1"]  # fmt: skip


@pytest.mark.parametrize("name", ORACLES)
def test_two_exact_fills_differ_as_much_as_a_fill_and_the_truth(name: str) -> None:
    """Whatever the law and the clues. 5 standard errors: a right sampler fails 6 times in 10 million."""
    assert abs(z_of_lost_variety(*two_fills(name, 400))) < 5


@pytest.mark.parametrize("name", ["hmm:S=3,V=4,L=8,clues=1", "markov2:V=3,L=8,clues=3"])
def test_sharper_draws_lose_variety(name: str) -> None:
    assert z_of_lost_variety(*two_fills(name, 400, temperature=0.3)) < -5


# ---- as a run records it ----


def test_shares_of_a_record_by_hand() -> None:
    one = torch.tensor([[0, 1, 2], [0, 1, 2]])
    other = torch.tensor([[0, 2, 1], [1, 1, 2]])
    masked = torch.tensor([[True, True, False], [False, True, False]])
    found = fill_shares(one, other, masked, torch.tensor([[0, 1, 1], [1, 1, 2]]))
    assert (found["sequences"], found["fills_differ"], found["fill_differs_from_truth"]) == (2, 1 / 3, 1 / 6)
    assert found["fills_differ_error"] == pytest.approx(2 / 9)
    assert found["fill_differs_from_truth_error"] == pytest.approx(1 / 9)
    assert found["fills_differ"] == two_fill_disagreement(one, other, masked)
    assert set(fill_shares(one, other, masked)) == {"sequences", "fills_differ", "fills_differ_error"}
    with pytest.raises(ValueError, match="`masked`"):
        fill_shares(one, other, masked & False)


def test_standard_errors_are_those_over_canvases() -> None:
    """400 sets of 50 canvases of a few exact fills: the shares of the sets scatter as their standard errors say. The
    scatter of 400 is known to 3.5 %, and that of 50 canvases to 10 % (to 0.5 % on average): 20 % is 5 standard
    deviations.
    """
    first, second, truth, masked = two_fills("markov2:V=3,L=8,clues=3", 20_000)
    sets = [fill_shares(*parts) for parts in zip(*(x.split(50) for x in (first, second, masked, truth)), strict=True)]
    for name in ("fills_differ", "fill_differs_from_truth"):
        shares, errors = (torch.tensor([found[key] for found in sets]) for key in (name, f"{name}_error"))
        assert float(shares.std()) == pytest.approx(float(errors.mean()), rel=0.2)
