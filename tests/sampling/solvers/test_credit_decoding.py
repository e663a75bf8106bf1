"""CreditDecoding, against its formulas: credit, bonus and threshold."""

import torch
from helpers.sampler_runs import revealed_under

from lsd_sampler import LSDScheduler


MASK, ALPHA, BETA, GAMMA = 3, 0.7, 0.8, 0.2


def run(laws: list[list[list[float]]], threshold: float, steps: int = 10) -> tuple[list[list[int]], torch.Tensor]:
    """The positions that each call reveals, and the last canvas."""
    scheduler = LSDScheduler(mask_token_id=MASK, solver="credit_decoding", solver_options={"threshold": threshold})
    return revealed_under(scheduler, laws, steps)


def fused(p: list[float], credit: list[float]) -> list[float]:
    weights = [q * (1 + c) ** ALPHA for q, c in zip(p, credit, strict=True)]
    return [w / sum(weights) for w in weights]


SURE, WEAK = [0.98, 0.01, 0.01], [0.5, 0.3, 0.2]


def test_the_bonus_of_the_first_call() -> None:
    confidence = fused(WEAK, [0.5**GAMMA, 0, 0])[0]
    assert 0.5 < confidence < 0.65
    assert run([[SURE, WEAK]], confidence - 1e-6)[0] == [[0, 1]]
    assert run([[SURE, WEAK]], confidence + 1e-6)[0] == [[0]]


def test_credit_grows_from_call_to_call() -> None:
    """A weak position passes a threshold in the second call that it did not pass in the first."""
    once, twice = 0.5**GAMMA, (1 + BETA) * 0.5**GAMMA
    confidence = [fused(WEAK, [credit, 0, 0])[0] for credit in (once, twice)]
    between = sum(confidence) / 2
    sure = [[0.98 - 0.01 * i, 0.01 + 0.01 * i, 0.01] for i in range(2)]
    assert confidence[0] < between < confidence[1]
    assert run([[*sure, WEAK]] * 2, between)[0] == [[0, 1], [2]]
    # the surest always goes; so that the weak one is not the surest, another one is left to the second call
    late = [[*sure, WEAK, [0.34, 0.33, 0.33]], [*sure, WEAK, SURE]]
    assert run(late, between)[0] == [[0, 1], [2, 3]]
    assert run(late, confidence[1] + 1e-6)[0] == [[0, 1], [3]]


def test_credit_may_decide_for_an_earlier_favourite() -> None:
    """Token 0 led twice; then token 1 leads by a little, which its own credit of one call does not make up for."""
    change = [0.45, 0.47, 0.08]
    history = [[SURE, WEAK], [SURE, WEAK], [SURE, change]]
    before = BETA * (BETA * 0.5**GAMMA + 0.5**GAMMA)
    assert fused(change, [before, 0.47**GAMMA, 0])[0] > fused(change, [before, 0.47**GAMMA, 0])[1]
    scheduler = LSDScheduler(mask_token_id=MASK, solver="credit_decoding", solver_options={"threshold": 0.99})
    scheduler.set_timesteps(10)
    sample = torch.full((1, 3), MASK)  # the surest two are revealed in the first two calls
    laws = [[[0.98 - 0.01 * i, 0.01 + 0.01 * i, 0.01] for i in range(2)] + [law[1]] for law in history]
    for t, law in zip(scheduler.timesteps, laws, strict=False):
        sample = scheduler.step(torch.tensor([law], dtype=torch.float64).log(), t, sample, temperature=0.0).prev_sample
    assert sample.tolist() == [[0, 0, 0]]


def test_those_as_sure_as_the_surest_go_together() -> None:
    assert run([[WEAK, WEAK, [0.45, 0.35, 0.2]]], 0.9)[0] == [[0, 1]]
