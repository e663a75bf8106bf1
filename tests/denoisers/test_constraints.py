"""Sets of sequences that satisfy constraints."""

import pytest
import torch

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import colouring, linear_code, sudoku4


def test_sudoku_grids() -> None:
    grids = sudoku4().sequences.view(-1, 4, 4)
    assert len(grids) == len(grids.unique(dim=0)) == 288
    for r, c in ((0, 0), (0, 2), (2, 0), (2, 2)):
        block = grids[:, r : r + 2, c : c + 2].flatten(1)
        assert (block.sort(-1).values == torch.arange(4)).all()
    for lines in (grids, grids.transpose(1, 2)):
        assert (lines.sort(-1).values == torch.arange(4)).all()


def test_linear_codes_are_closed_under_addition() -> None:
    words = linear_code(10, 4, seed=3).sequences
    sums = (words[:, None] ^ words).flatten(0, 1)
    assert len(words) == 16 == len(torch.cat([words, sums]).unique(dim=0))


def test_colourings_of_a_grid() -> None:
    """Numbers of 3-colourings of small grids, from their chromatic polynomials."""
    assert [colouring(n, n, 3).num_valid for n in (1, 2, 3)] == [3, 18, 246]
    assert colouring(2, 2, 4).num_valid == 84


# tokens a call, share right of an ideal model that reveals at random (https://arxiv.org/abs/2510.04767, section 4)
@pytest.mark.parametrize(
    ("name", "tokens_a_call", "share"),
    [
        ("shuffle:L=4", 4, 24 / 4**4),
        ("shuffle:L=4", 2, 3 / 8),
        ("shuffle:L=6", 2, 15 / 48),
        ("replace_one:L=4", 4, (3 / 4) ** 3),
        ("replace_one:L=4", 2, 1 / 2 * 3 / 4 + (3 / 4) ** 2 / 2),
        ("replace_one:L=6", 1, 1.0),
        ("shuffle:L=5", 1, 1.0),
    ],
)
def test_closed_forms_of_parallelbench(name: str, tokens_a_call: int, share: float) -> None:
    """False alarm: 6e-5 a case (4 standard errors)."""
    pipe, num = MaskedDiffusionPipeline.from_pretrained(name), 4000
    pipe.scheduler = LSDScheduler(**pipe.denoiser.scheduler_config())
    steps, generator = pipe.denoiser.length // tokens_a_call, torch.Generator().manual_seed(0)
    found = pipe(num_samples=num, num_inference_steps=steps, generator=generator, output_type="ids").sequences
    right = pipe.denoiser.log_prob(found).isfinite().double().mean()
    assert abs(right - share) <= 4 * (share * (1 - share) / num) ** 0.5


@pytest.mark.parametrize(("threshold", "share"), [(0.4, 0.0), (0.6, 1.0)])
def test_a_threshold_above_a_half_never_repeats_a_word(threshold: float, share: float) -> None:
    """The last two words of a shuffle are likely at 1/2 each: a threshold below reveals both, greedily the same."""
    pipe = MaskedDiffusionPipeline.from_pretrained("shuffle:L=4")
    solver = {"solver": "fast_dllm_threshold", "solver_options": {"threshold": threshold}}
    pipe.scheduler = LSDScheduler(**pipe.denoiser.scheduler_config(), **solver)
    found = pipe(num_samples=8, num_inference_steps=4, temperature=0.0, output_type="ids")
    assert pipe.denoiser.log_prob(found.sequences).isfinite().double().mean() == share
