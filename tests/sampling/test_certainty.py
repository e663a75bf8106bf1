"""How sure the denoiser is of a position: its own probability says so, whatever changes the draws; others by name."""

import math
from typing import Any

import pytest
import torch

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.certainty import entropy, margin, of_rows, of_tokens, top_probability
from lsd_sampler.sampling.draws import draw_tokens, log_mass
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


DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
WIDTHS = (1, 2, 1000, 32001, 126464)


def hard_rows(columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows of logits, `(3, 3, V)`: flat, random, far from 0, sharp, and with one possible token or half of them."""
    noise = torch.randn(9, columns, generator=seeded(), dtype=torch.float64)
    noise[0] = 0.3
    noise[2:5] *= torch.tensor([[3.0], [30.0], [300.0]])
    noise[5] += 1000
    noise[6, 1:] = -torch.inf
    noise[7, : columns // 2] = -torch.inf
    noise[8, 0] = 40
    return noise.to(dtype).view(3, 3, columns)


def everything(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return logits.new_ones(logits.shape[:2], dtype=torch.bool).nonzero(as_tuple=True)


def law(logits: torch.Tensor, excluded: int | None) -> torch.Tensor:
    """The softmax in float64, a row each."""
    x_RV = logits.double().flatten(0, 1).clone()
    if excluded is not None and excluded < x_RV.shape[1]:
        x_RV[:, excluded] = -torch.inf
    return x_RV.softmax(-1)


@pytest.mark.parametrize("is_excluded", [False, True])
@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_certainty_is_that_of_the_softmax_in_float64(dtype: torch.dtype, columns: int, is_excluded: bool) -> None:
    excluded = columns // 3 if is_excluded and columns > 2 else columns
    logits = hard_rows(columns, dtype)
    before, p_RV = logits.clone(), law(logits, excluded)
    rows = (*everything(logits), excluded)
    found_R, right_R = of_rows(entropy, logits, *rows), torch.special.entr(p_RV).sum(-1)
    assert found_R.dtype == torch.float64 and bool((found_R >= 0).all())
    eps = 3e-6 if dtype != torch.float64 else 1e-12
    assert bool(((found_R - right_R).abs() <= eps * (1 + right_R)).all())
    assert found_R[6] <= 1e-6  # one possible token
    two_R2 = torch.cat([p_RV, torch.zeros(9, 1)], dim=1).topk(2, -1).values
    accuracy = {"rtol": 0, "atol": 1e-4 if dtype != torch.float64 else 1e-12}
    torch.testing.assert_close(of_rows(top_probability, logits, *rows), two_R2[:, 0], **accuracy)
    torch.testing.assert_close(of_rows(margin, logits, *rows), two_R2[:, 0] - two_R2[:, 1], **accuracy)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_confidence_of_a_token_is_its_log_probability_in_float64(dtype: torch.dtype) -> None:
    logits = hard_rows(126464, dtype)
    token_R = torch.tensor([0, 1, 2, 3, 4, 126463, 0, 126463, 5])
    row_R, position_R = everything(logits)
    found_R = of_tokens(logits, row_R, position_R, token_R, None)
    right_R = logits.double().flatten(0, 1).log_softmax(-1).gather(1, token_R[:, None])[:, 0]
    torch.testing.assert_close(found_R, right_R, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("columns", [2, 5, 1000, 40007])
def test_the_margin_is_that_of_the_two_largest_wherever_they_are(columns: int) -> None:
    """Also if they are equal: of the 2 x 20 rows, every second one has its largest logit twice."""
    logits = torch.randn(2, 20, columns, generator=seeded())
    for row, x_V in enumerate(logits.view(-1, columns)):
        first, second = torch.randperm(columns, generator=seeded(row))[:2]
        if row < 4:
            first, second = columns - 1, columns - 2
        x_V[first], x_V[second] = 9.0, 9.0 if row % 2 else 8.5
    right_R2 = logits.double().softmax(-1).flatten(0, 1).topk(2, -1).values
    found_R = of_rows(margin, logits, *everything(logits), None)
    torch.testing.assert_close(found_R, right_R2[:, 0] - right_R2[:, 1], rtol=0, atol=1e-5)
    assert bool((found_R[1::2] == 0).all())


def test_a_measure_of_ones_own_may_return_a_part_of_the_law() -> None:
    """Of float64 logits, whose laws need no conversion; two rows fill a chunk."""
    logits = torch.randn(1, 5, 2**17, generator=seeded(), dtype=torch.float64)
    found_R = of_rows(lambda p_RV: p_RV[:, 3], logits, *everything(logits), None)
    torch.testing.assert_close(found_R, logits[0].softmax(-1)[:, 3], rtol=1e-12, atol=0)


READS = {
    "entropy": lambda logits, *rows: of_rows(entropy, logits, *rows, None),
    "margin": lambda logits, *rows: of_rows(margin, logits, *rows, None),
    "top probability": lambda logits, *rows: of_rows(top_probability, logits, *rows, None),
    "draw": lambda logits, *rows: draw_tokens(
        logits, *rows, torch.full(rows[0].shape, 0.5).double().to(logits.device)
    ),
    "log mass": lambda logits, *rows: log_mass(logits, *rows),
}


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize(("bad", "what"), [(math.nan, "hold NaN or"), (math.inf, "or .inf"), (-math.inf, "all -inf")])
@pytest.mark.parametrize("read", READS.values(), ids=list(READS))
def test_an_unusable_row_is_reported_wherever_it_is(read: Any, bad: float, what: str, place: int) -> None:
    """Two rows fill a chunk."""
    logits = torch.randn(1, 5, 2**17, generator=seeded())
    logits[0, place, slice(None) if bad == -math.inf else 7] = bad
    with pytest.raises(ValueError, match=f"`model_output` is unusable: .*{what}"):
        read(logits, *everything(logits))


@pytest.mark.gpu
@pytest.mark.parametrize("read", READS.values(), ids=list(READS))
def test_a_gpu_is_waited_for_once_however_many_chunks_are_read(read: Any) -> None:
    waits = []
    for num_rows in (4, 40):  # 8 rows fill a chunk
        logits = torch.randn(1, num_rows, 2**22, device="cuda", dtype=torch.bfloat16)
        rows = everything(logits)
        read(logits, *rows)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with pytest.warns(UserWarning, match="synchroniz") as caught:
                read(logits, *rows)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(len(caught))
    assert waits[0] == waits[1]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_certainty_on_a_gpu_is_that_of_the_softmax_in_float64(dtype: torch.dtype) -> None:
    logits = hard_rows(126464, dtype)
    found_R = of_rows(entropy, logits.cuda(), *(i.cuda() for i in everything(logits)), 5).cpu()
    right_R = torch.special.entr(law(logits, 5)).sum(-1)
    assert bool((found_R >= 0).all()) and found_R[6] <= 1e-6
    torch.testing.assert_close(found_R, right_R, rtol=1e-5, atol=1e-5)
