"""Orders by levels: one level a call with `count="levels"`, the same order in any number of calls otherwise."""

import pytest
import torch
from helpers.sampler_runs import MASK, fixed_model, generate, seeded

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.orders.levels import dilated_levels, level_sizes


BY_LEVELS = [name for name in ORDERS.names() if ORDERS[name].has_levels]
EACH = pytest.mark.parametrize("order", BY_LEVELS)
# numbers of positions of each level, from the papers' constructions
SIZES = {
    "dus": {1: [1], 3: [3], 8: [2, 2, 4], 12: [2, 2, 8], 20: [2, 2, 8, 8], 32: [2, 2, 4, 8, 16]},
    "bisection": {1: [1], 3: [1, 2], 8: [1, 2, 4, 1], 12: [1, 2, 4, 5], 20: [1, 2, 4, 8, 5], 32: [1, 2, 4, 8, 16, 1]},
}


def revealed(order: str, canvas: torch.Tensor, steps: int, count: str = "levels") -> list[list[list[int]]]:
    """The positions that each step reveals in each row."""
    scheduler = LSDScheduler(mask_token_id=MASK, order=order, count=count)
    path = generate(scheduler, fixed_model(canvas, MASK), canvas, steps, generator=seeded())
    changed = [(a == MASK) & (b != MASK) for a, b in zip(path, path[1:], strict=False)]
    return [[row.nonzero()[:, 0].tolist() for row in step] for step in changed]


@pytest.mark.parametrize(("order", "length"), [(order, n) for order in BY_LEVELS for n in SIZES[order]])
def test_a_call_reveals_a_level(order: str, length: int) -> None:
    """More calls than levels are not needed, and with fewer the last one reveals the rest."""
    sizes, canvas = SIZES[order][length], torch.full((2, length), MASK)
    for steps in (len(sizes), len(sizes) + 3, max(1, len(sizes) - 1)):
        found = [len(row[0]) for row in revealed(order, canvas, steps)]
        expected = [*sizes[: steps - 1], sum(sizes[steps - 1 :])]
        expected += [0] * (steps - len(expected))
        assert found == expected


@EACH
def test_other_counts_cut_the_same_order(order: str) -> None:
    """Exactly M calls of equal size, and no position of a level before one of the level before."""
    canvas = torch.full((3, 24), MASK)
    level = {i: j for j, row in enumerate(revealed(order, canvas, 8)) for i in row[0]}
    for steps in (4, 6, 12, 24):
        parts = revealed(order, canvas, steps, count="exact")
        assert [len(part[0]) for part in parts] == [24 // steps] * steps
        for row in range(3):
            levels = [level[i] for part in parts for i in sorted(part[row], key=lambda i: level[i])]
            assert levels == sorted(levels)


@EACH
def test_rows_have_levels_of_their_own(order: str) -> None:
    """Each row is revealed as if it were alone; one with fewer levels is done before the others."""
    canvas = torch.full((4, 17), MASK)
    canvas[1, :9], canvas[2, ::3], canvas[3, 2:] = 0, 1, 2
    together = revealed(order, canvas, 6)
    for i in range(4):
        alone = revealed(order, canvas[i : i + 1], 6)
        assert [step[i] for step in together] == [step[0] for step in alone]
    assert together[-1][3] == []


@EACH
def test_the_pipeline_reports_fewer_calls_than_it_was_allowed(order: str) -> None:
    denoiser = load_denoiser("markov:V=3,L=16")
    config = {**denoiser.scheduler_config(), "order": order, "count": "levels"}
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**config))
    pipe.set_progress_bar_config(disable=True)
    out = pipe(num_samples=3, num_inference_steps=20, generator=seeded())
    assert out.network_calls == {"dus": 4, "bisection": 5}[order]
    assert out.sequence_calls.tolist() == [out.network_calls] * 3


def test_a_base_and_a_skip_of_the_dilated_grid() -> None:
    masked = torch.ones(1, 32, dtype=torch.bool)
    assert level_sizes(dilated_levels(masked, base=4), masked)[0].tolist() == [4, 12, 16]
    assert level_sizes(dilated_levels(masked, base=1), masked)[0].tolist() == [32]
    assert level_sizes(dilated_levels(masked, skip=3), masked)[0].tolist() == [8, 8, 16]
    assert level_sizes(dilated_levels(masked, skip=60), masked)[0].tolist() == [32]  # no grid so fine: all is left


def test_levels_belong_to_orders_that_have_them() -> None:
    for order in set(ORDERS.names()) - set(BY_LEVELS):
        with pytest.raises(ValueError, match=f"`count` 'levels'.*`order` '{order}' has none"):
            LSDScheduler(mask_token_id=MASK, order=order, count="levels")
    with pytest.raises(ValueError, match="`count` 'levels'.*`solver` 'dndm'"):
        LSDScheduler(mask_token_id=MASK, solver="dndm", count="levels")


@EACH
def test_nothing_is_learned_for_levels(order: str) -> None:
    steps = LearnedSteps.plain(torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64))
    with pytest.raises(ValueError, match="`count` 'levels'"):
        LSDScheduler(mask_token_id=MASK, order=order, count="levels").set_learned_sampler(LearnedSampler({2: steps}))
