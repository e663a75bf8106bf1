"""PUNT: which positions survive its tests, and how many calls that takes."""

import pytest
import torch
from helpers.sampler_runs import fixed_model, seeded

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser


MASK = V = 3


class Pairs:
    """Positions 2i and 2i + 1 hold the same token; pairs do not depend on each other. It counts its calls."""

    def __init__(self, confidence: list[float]):
        self.confidence, self.calls = confidence, 0

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        first = torch.tensor(self.confidence, dtype=torch.float64)
        p = torch.stack([first, *[(1 - first) / (V - 1)] * (V - 1)], dim=-1).repeat(len(canvas), 1, 1)
        partner = canvas.unflatten(1, (-1, 2)).flip(2).flatten(1)
        known = partner != MASK
        p[known] = torch.nn.functional.one_hot(partner[known], V).double()
        return p.log()


def run(model: Pairs, steps: int, batch: int = 1, temperature: float = 1.0) -> list[torch.Tensor]:
    scheduler = LSDScheduler(mask_token_id=MASK, solver="punt", solver_options={"epsilon": 0.01})
    scheduler.set_timesteps(steps)
    path, generator = [torch.full((batch, len(model.confidence)), MASK)], seeded(1)
    for t in scheduler.timesteps:
        out = scheduler.step(model(path[-1]), t, path[-1], generator=generator, temperature=temperature)
        path.append(out.prev_sample)
    return path


CONFIDENCE = [0.9, 0.5, 0.8, 0.55, 0.7, 0.6, 0.85, 0.45]


def test_one_of_each_pair_survives() -> None:
    """8 masks: a base call and 3 tests; then the survivors stand, and the next call sees them."""
    path = run(Pairs(CONFIDENCE), 12, temperature=0.0)
    shown = [(x[0] != MASK).nonzero()[:, 0].tolist() for x in path[1:5]]
    # ranks of positions: 0 6 2 4 5 3 1 7. Tests of bit 0 drop 4 (next to 5) and 3 (next to 2), of bit 1 1 and 7
    assert shown == [[0, 1, 2, 5], [0, 5, 6], [0, 2, 6], [0, 2, 5, 6]]


def test_pairs_agree_if_calls_allow_it() -> None:
    """Drawn at once, each pair disagrees in about half of the cases; 64 sequences of 4 pairs."""
    agree = [int((path[:, ::2] == path[:, 1::2]).sum()) for path in (run(Pairs(CONFIDENCE), 12, 64)[-1],)]
    assert agree == [64 * 4]
    assert int((run(Pairs(CONFIDENCE), 1, 64)[-1].unflatten(1, (-1, 2)).diff(dim=2) != 0).sum()) > 64


def test_without_dependence_all_survive() -> None:
    canvas = torch.full((1, 8), MASK)
    model = fixed_model(canvas, V)
    scheduler = LSDScheduler(mask_token_id=MASK, solver="punt", solver_options={"epsilon": 0.0})
    scheduler.set_timesteps(6)
    sample = canvas
    for t in scheduler.timesteps[:4]:
        sample = scheduler.step(model(sample), t, sample).prev_sample
    assert not (sample == MASK).any()


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_too_few_calls_for_a_test(steps: int) -> None:
    """Equal shares, the most confident first."""
    path = run(Pairs(CONFIDENCE), steps, temperature=0.0)
    assert [(x[0] != MASK).sum().item() for x in path] == [8 * k // steps if 8 % steps == 0 else -(-8 * k // steps)
                                                           for k in range(steps + 1)]  # fmt: skip
    if steps == 4:
        assert (path[1][0] != MASK).nonzero()[:, 0].tolist() == [0, 6]


def test_rows_are_where_they_are() -> None:
    """Sequences with other numbers of masks make their tests in other calls."""
    canvas = torch.full((4, 8), MASK)
    canvas[1, 3:], canvas[2, ::2] = 0, 1
    denoiser = load_denoiser("markov:V=3,L=8")
    scheduler = LSDScheduler(**denoiser.scheduler_config(), solver="punt", solver_options={"epsilon": 0.1})
    pipe = MaskedDiffusionPipeline(denoiser, scheduler)
    pipe.set_progress_bar_config(disable=True)

    def sequences(rows: list[int], steps: int) -> torch.Tensor:
        generators = [seeded(i) for i in rows]
        return pipe(input_ids=canvas[rows], num_inference_steps=steps, generator=generators).sequences

    for steps in (3, 6, 9, 14):
        together = sequences([0, 1, 2, 3], steps)
        assert torch.equal(together, torch.cat([sequences([i], steps) for i in range(4)]))
        assert torch.equal(together[canvas != MASK], canvas[canvas != MASK])
