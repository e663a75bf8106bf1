"""Solvers that choose positions themselves: what they reveal and mask again, and what contradicts them."""

from typing import Any

import pytest
import torch
from helpers.sampler_runs import MASK, seeded

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.canvas import Canvas, DrawOptions, StepInput
from lsd_sampler.sampling.solvers.own_step import exchange


def exchanged(reveal: float, remask: float, is_last: bool = False) -> list[int]:
    """Of `given, revealed before, masked, masked`, with a network that predicts token 2."""
    masked_at_first = torch.tensor([[False, True, True, True]])
    canvas = Canvas.draw(masked_at_first, None, (4,), seeded(), start=0)
    sample, logits = torch.tensor([[0, 1, MASK, MASK]]), torch.tensor([-torch.inf, -torch.inf, 0.0, -torch.inf])
    x = StepInput(
        1, is_last, logits.expand(1, 4, 4), sample, sample == MASK, MASK, canvas, DrawOptions(), generator=seeded(1)
    )
    next_BL, probability_BL = exchange(x, reveal, remask)
    assert torch.equal(probability_BL > 0, (sample == MASK) & (next_BL != MASK))
    return next_BL[0].tolist()


def test_what_was_given_is_never_masked() -> None:
    assert exchanged(0.0, 0.0) == [0, 1, MASK, MASK]
    assert exchanged(0.0, 1.0) == [0, MASK, MASK, MASK]
    assert exchanged(1.0, 1.0) == [0, MASK, 2, 2]


def test_the_last_step_reveals_all_and_masks_none() -> None:
    assert exchanged(0.0, 1.0, is_last=True) == [0, 1, 2, 2]


@pytest.mark.parametrize(
    "config", [{"order": "halton"}, {"count": "llada"}, {"corruption": "uniform", "vocab_size": 3}], ids=str
)
def test_what_contradicts_it_is_named(config: dict[str, Any]) -> None:
    name, value = next(iter(config.items()))
    with pytest.raises(ValueError, match=value):
        LSDScheduler(mask_token_id=None if name == "corruption" else MASK, solver="remdm_cap", **config)
