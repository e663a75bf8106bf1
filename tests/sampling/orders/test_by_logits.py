"""Orders that look at the logits: which positions come first, and how many in a step."""

import math

import pytest
import torch
from helpers.golden_files import fixture_path
from safetensors.torch import load_file

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.schedules import grid_from_counts


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("certainty", ["untempered", "tempered"])
@pytest.mark.parametrize("temperature", [0.0, 0.5, math.inf])
def test_the_order_by_margin_and_entropy_goes_by_the_law_that_is_named(certainty: str, temperature: float) -> None:
    """First step, no noise: the position revealed is that of the largest margin, or least entropy, of that law."""
    generator = seeded(3)
    logits = torch.randn(1, 8, 5, generator=generator) * torch.rand(1, 8, 1, generator=generator) * 4
    law = logits if certainty == "untempered" or not temperature else logits / temperature
    filtered = law.masked_fill(law < law.topk(3, -1).values[..., -1:], -torch.inf) if certainty == "tempered" else law
    p = filtered.softmax(-1)
    scores = {"margin": p.topk(2, -1).values.diff(dim=-1)[0, :, 0].neg(), "entropy": -torch.special.entr(p).sum(-1)[0]}
    for order, score_L in scores.items():
        scheduler = LSDScheduler(mask_token_id=5, order=order, confidence_temperature=0.0, certainty=certainty)
        scheduler.set_timesteps(8)
        draws = {"temperature": temperature, "top_k": 3}
        out = scheduler.step(logits, 0, torch.full((1, 8), 5), generator=seeded(), **draws)
        if temperature < math.inf or certainty == "untempered":  # all are equally unsure otherwise
            assert int(out.transfer_index[0].nonzero()) == int(score_L.argmax())


@pytest.mark.parametrize("curve", ["arccos", "cosine", "linear", "root", "square"])
@pytest.mark.parametrize(("size", "steps"), [(4, 4), (4, 12), (8, 12), (16, 4), (16, 32), (24, 12)])
def test_official_confidence_counts(size: int, steps: int, curve: str) -> None:
    """Any counts are met by the grid that is made from them; the authors reveal at least one token in each step."""
    key = f"confidence_count.size{size}.step{steps}.{curve}"
    counts = load_file(fixture_path("transitions", "halton.safetensors"))[key].tolist()
    counts = [0, *(max(count, k) for k, count in enumerate(counts, start=1))]
    scheduler = LSDScheduler(mask_token_id=2, order="confidence", confidence_temperature=4.5)
    grid = grid_from_counts(counts, scheduler.noise, scheduler.config.sampling_eps)
    scheduler.set_learned_sampler(LearnedSampler({steps: LearnedSteps.plain(grid)}))
    scheduler.set_timesteps(steps)
    sample, known = torch.full((1, size, size), 2), [0]
    for t in scheduler.timesteps:
        sample = scheduler.step(torch.randn(1, size * size, 2), t, sample).prev_sample
        known.append(int((sample != 2).sum()))
    assert known == counts
