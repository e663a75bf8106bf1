"""k-Gillespie: the counts of the schedule, at the positions whose scores are the largest."""

import torch
from helpers.goodness_of_fit import p_value
from helpers.sampler_runs import MASK, fixed_model, generate, seeded
from helpers.tiny_oracle import FALSE_ALARM, NUM_SAMPLES

from lsd_sampler import LSDScheduler


def test_its_counts_are_the_exact_ones() -> None:
    canvas = torch.full((4, 11), MASK)
    counts = []
    for solver in ("k_gillespie", "tweedie"):
        scheduler = LSDScheduler(mask_token_id=MASK, solver=solver, schedule="cosine")
        path = generate(scheduler, fixed_model(canvas, MASK), canvas, 5, generator=seeded())
        counts.append([(x == MASK).sum(1).tolist() for x in path])
    assert counts[0] == counts[1]


def test_the_first_to_ring_are_drawn_in_proportion_to_their_scores() -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, solver="k_gillespie", prediction_type="log_score")
    scheduler.set_timesteps(3)
    rates = torch.tensor([1.0, 2.0, 5.0])
    logits = rates.log()[None, :, None].expand(NUM_SAMPLES, 3, MASK)
    out = scheduler.step(logits, 0, torch.full((NUM_SAMPLES, 3), MASK), generator=seeded())
    assert bool((out.transfer_index.sum(1) == 1).all())
    assert p_value(out.transfer_index.sum(0).numpy(), (rates / 8).double().numpy()) > FALSE_ALARM
