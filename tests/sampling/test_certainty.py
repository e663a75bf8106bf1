"""How sure the denoiser is of a position: its own probability says so, whatever changes the draws; others by name."""

import math
from typing import Any

import pytest
import torch

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps


L, V = 16, 12
SURE = [
    {"solver": "fast_dllm_threshold"},
    {"solver": "fast_dllm_factor"},
    {"solver": "dndm_k"},
    {"solver": "remdm_conf"},
    {"solver": "entropy_bounded", "solver_options": {"gamma": 4.0}},
    {"solver": "entropy_bounded", "solver_options": {"gamma": 4.0, "proxy": "confidence"}},
    {"solver": "entropy_bounded", "solver_options": {"gamma": 4.0, "proxy": "margin"}},
    {"order": "confidence", "confidence_temperature": 0.0},
    {"order": "margin", "confidence_temperature": 0.0},
    {"order": "entropy", "confidence_temperature": 0.0},
]
EACH = pytest.mark.parametrize("config", SURE, ids=lambda c: "-".join(map(str, c.values())))
SHARPER = [{"temperature": 1e-3}, {"temperature": 1.0, "top_k": 1}, {"temperature": 1.0, "top_p": 1e-6}]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unsure_logits(batch: int = 4, seed: int = 0) -> torch.Tensor:
    """Of 16 positions the surest has a token of probability 0.63; the order of their certainty is random."""
    top_BL = torch.linspace(0.15, 0.63, L).expand(batch, L).clone()
    for row, p_L in enumerate(top_BL):
        top_BL[row] = p_L[torch.randperm(L, generator=seeded(seed + row))]
    p_BLV = ((1 - top_BL) / (V - 1))[..., None].repeat(1, 1, V)
    token_BL = torch.randint(V, (batch, L), generator=seeded(seed + 100))
    return p_BLV.scatter(2, token_BL[..., None], top_BL[..., None]).log()


def generate(logits: torch.Tensor, steps: int, config: dict[str, Any], **draws: Any) -> list[torch.Tensor]:
    scheduler = LSDScheduler(mask_token_id=V, **config)
    scheduler.set_timesteps(steps)
    canvases, generator = [torch.full(logits.shape[:2], V)], seeded(5)
    for t in scheduler.timesteps:
        canvases.append(scheduler.step(logits, t, canvases[-1], generator=generator, **draws).prev_sample)
    return canvases


@EACH
@pytest.mark.parametrize("draws", SHARPER, ids=str)
def test_draws_that_are_all_but_greedy_reveal_what_greedy_ones_do(config: dict[str, Any], draws: Any) -> None:
    """Temperature, `top_p` and `top_k` say how a token is drawn, not how sure the denoiser is of it."""
    logits = unsure_logits()
    greedy, sharp = generate(logits, 6, config, temperature=0.0), generate(logits, 6, config, **draws)
    assert all(torch.equal(a, b) for a, b in zip(greedy, sharp, strict=True))


@pytest.mark.parametrize("draws", [{"temperature": t} for t in (0.0, 1e-3, 0.1, 1.0, 5.0)] + SHARPER, ids=str)
def test_a_threshold_that_no_probability_reaches_lets_one_token_through(draws: Any) -> None:
    """The surest of 16 positions has p = 0.63: nothing reaches 0.9, at any temperature."""
    canvas = generate(unsure_logits(), 4, {"solver": "fast_dllm_threshold"}, **draws)[1]
    assert ((canvas != V).sum(1) == 1).all()


@pytest.mark.parametrize("temperature", [0.0, 0.01, 0.1, 0.3])
def test_the_surest_positions_come_first_at_low_temperatures(temperature: float) -> None:
    """At these temperatures all but one draw in a thousand are the most likely token, or the position is unsure."""
    logits = unsure_logits(batch=1) * 4  # top probabilities from 0.9 up to all but 1
    first = generate(logits, 4, {"order": "confidence", "confidence_temperature": 0.0}, temperature=temperature)[1]
    surest = logits.log_softmax(-1).amax(-1).topk(4).indices.sort().values
    assert torch.equal((first != V).nonzero()[:, 1], surest[0])


def test_a_learned_coefficient_sharpens_the_draws_alone() -> None:
    """A log-score coefficient is an inverse temperature of the draws: the order is as without it."""
    logits, grid = unsure_logits(), torch.linspace(1, 1e-4, 5, dtype=torch.float64)
    revealed = []
    for beta in (1e6, 1.0):
        scheduler = LSDScheduler(mask_token_id=V, order="confidence", confidence_temperature=0.0)
        steps = LearnedSteps(grid, torch.ones(4).double(), torch.full((4,), beta, dtype=torch.float64))
        scheduler.set_learned_sampler(LearnedSampler({4: steps}))
        scheduler.set_timesteps(4)
        temperature = 1.0 if beta > 1 else 0.0
        canvas = torch.full((4, L), V)
        revealed.append(scheduler.step(logits, 0, canvas, temperature=temperature, generator=seeded()).prev_sample)
    assert torch.equal(*revealed)


@pytest.mark.parametrize("config", [c for c in SURE if c.get("solver") != "remdm_conf"], ids=str)
def test_the_tempered_rule_has_a_name(config: dict[str, Any]) -> None:
    """Under it certainty is what is left after temperature, `top_p` and `top_k`: one token, so everything is sure."""
    logits = unsure_logits()
    plain = generate(logits, 6, config, temperature=1.0, top_k=1)
    tempered = generate(logits, 6, {**config, "certainty": "tempered"}, temperature=1.0, top_k=1)
    assert not all(torch.equal(a, b) for a, b in zip(plain, tempered, strict=True))
    if str(config.get("solver")).startswith(("fast_dllm", "entropy")):
        assert not (tempered[1] == V).any()


def test_probabilities_of_the_output_are_those_of_the_draws() -> None:
    logits = unsure_logits()
    for certainty in ("untempered", "tempered"):
        scheduler = LSDScheduler(mask_token_id=V, order="confidence", certainty=certainty)
        scheduler.set_timesteps(1)
        out = scheduler.step(logits, 0, torch.full((4, L), V), temperature=0.5, generator=seeded())
        law = (logits / 0.5).softmax(-1).gather(2, out.prev_sample[..., None])[..., 0]
        torch.testing.assert_close(out.sampled_probs, law)


@EACH
@pytest.mark.parametrize("certainty", ["untempered", "tempered"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_mask_column_and_impossible_tokens_are_never_drawn(config: Any, certainty: str, dtype: Any) -> None:
    """At any temperature, and whatever the logit of the mask."""
    logits = torch.cat([torch.randn(3, L, V, generator=seeded()), torch.full((3, L, 1), 50.0)], dim=2)
    logits[:, :, 0] = -torch.inf
    for draws in ({"temperature": math.inf}, {"temperature": 0.0}, {"temperature": 2.0, "top_p": 0.7, "top_k": 4}):
        last = generate(logits.to(dtype), 5, {**config, "certainty": certainty}, **draws)[-1]
        assert 1 <= int(last.min()) <= int(last.max()) < V


def test_an_unknown_certainty_is_named() -> None:
    with pytest.raises(ValueError, match="`certainty`.*'untempered'"):
        LSDScheduler(mask_token_id=1, certainty="hot")
