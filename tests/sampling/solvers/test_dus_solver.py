"""DUS: tokens of a level that are not confident enough stay masked until a later level."""

import torch
from helpers.sampler_runs import MASK

from lsd_sampler import LSDScheduler


def revealed(top: list[float], steps: int, **options: float) -> list[list[int]]:
    """The positions that each step reveals, where the likeliest token of each has this probability."""
    scheduler = LSDScheduler(mask_token_id=MASK, solver="dus", solver_options=options)
    scheduler.set_timesteps(steps)
    p = torch.tensor(top, dtype=torch.float64)
    logits = torch.stack([p, *[(1 - p) / (MASK - 1)] * (MASK - 1)], dim=-1).log()[None]
    sample, found = torch.full((1, len(top)), MASK), []
    for t in scheduler.timesteps:
        out = scheduler.step(logits, t, sample, temperature=0.0)
        found.append(out.transfer_index[0].nonzero()[:, 0].tolist())
        sample = out.prev_sample
    return found


TOP = [0.9, 0.9, 0.9, 0.9, 0.4, 0.9, 0.9, 0.4]


def test_a_level_a_call() -> None:
    assert revealed(TOP, 3) == [[0, 4], [2, 6], [1, 3, 5, 7]]
    assert revealed(TOP, 5) == [[0, 4], [2, 6], [1, 3, 5, 7], [], []]
    assert revealed(TOP, 2) == [[0, 4], [1, 2, 3, 5, 6, 7]]


def test_what_is_unsure_waits_but_not_for_ever() -> None:
    """Position 4 joins the next levels, and the last one reveals all."""
    assert revealed(TOP, 3, remask_below=0.5) == [[0], [2, 6], [1, 3, 4, 5, 7]]
    assert revealed(TOP, 6, remask_below=0.5) == [[0], [2, 6], [1, 3, 4, 5, 7], [], [], []]
    assert revealed(TOP, 3, remask_below=0.39) == revealed(TOP, 3)
