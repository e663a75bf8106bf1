"""Data with tokens that a model never predicts: left out of every sum, and said once; too many are refused."""

import logging
from typing import Any

import pytest
import torch
from helpers.small_distillations import pipeline_of

from lsd_sampler import DistillConfig, distill
from lsd_sampler.denoisers import Denoiser, MarkovDenoiser, random_chain


V, L, UNKNOWN = 3, 8, 3


class WithUnknown(Denoiser):
    """A chain whose network also has a token that it never predicts, and that says nothing as context."""

    def __init__(self, chain: MarkovDenoiser, logit: float = -torch.inf):
        super().__init__()
        self.chain, self.logit = chain, logit
        self.vocab_size, self.mask_token_id, self.length = V + 1, V + 1, L

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:  # pyright: ignore
        logits = self.chain(tokens.masked_fill(tokens >= V, V))
        return torch.cat([logits, torch.full_like(logits[..., :1], self.logit)], dim=-1)


CHAIN = random_chain(V, L, seed=1)


def sequences(num: int, share: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences of the chain, and the same with some tokens unknown."""
    generator = torch.Generator().manual_seed(seed)
    data = CHAIN.sample(num, generator)
    return data, data.masked_fill(torch.rand(data.shape, generator=generator) < share, UNKNOWN)


def learned(denoiser: Denoiser, data: torch.Tensor, **options: Any) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    config = DistillConfig(**{"method": "path_kl", "nfe": (2, 4), "paths": "data", "num_sequences": 512, **options})
    distill(pipeline_of(denoiser), config, data=data, log=records.append)
    return records


def path_kls(records: list[dict[str, Any]]) -> list[float]:
    return [record["path_kl"] for record in records if record["event"] == "schedule"]


@pytest.mark.parametrize("order", ["random", "halton"])
@pytest.mark.parametrize("logit", [-torch.inf, -1e4, float(torch.finfo(torch.float32).min)])
def test_they_cost_nothing_and_are_said_once(order: str, logit: float, caplog: pytest.LogCaptureFixture) -> None:
    """At 100 nats each, 5 % of them would add 40 nats to a sequence; what is left differs by the context that they
    take away, of which there is little in 5 %.
    """
    whole, partly = sequences(512, 0.05)
    clean = path_kls(learned(CHAIN, whole, order=order))
    with caplog.at_level(logging.WARNING):
        found = path_kls(learned(WithUnknown(CHAIN, logit), partly, order=order))
    assert found == pytest.approx(clean, abs=0.15)
    number = int((partly == UNKNOWN).sum())
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 1 and f"({number} of {partly.numel()})" in said[0] and "`data`" in said[0]


def test_without_them_nothing_changes_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    whole, _ = sequences(512, 0.0)
    assert path_kls(learned(WithUnknown(CHAIN), whole)) == pytest.approx(path_kls(learned(CHAIN, whole)), abs=1e-9)
    assert not caplog.records


def test_of_few_sequences_no_rank_is_free() -> None:
    """Where all tokens of a rank were left out, it is not taken as known."""
    data = CHAIN.sample(2, torch.Generator().manual_seed(0))
    data[:, ::4] = UNKNOWN
    for order in ("random", "halton"):
        config = DistillConfig(method="path_kl", nfe=(2,), paths="data", num_sequences=2, order=order)
        table = distill(pipeline_of(WithUnknown(CHAIN)), config, data=data).learned_sampler.step_error  # pyright: ignore
        masked = torch.arange(L) >= table.grid[:, None]  # pyright: ignore[reportOptionalMemberAccess]
        assert bool((table.table[masked] > 0).all()) and bool((table.table[~masked] == 0).all())  # pyright: ignore


def test_held_out_cost_is_that_of_what_can_be_predicted(caplog: pytest.LogCaptureFixture) -> None:
    options = {"method": "auto", "num_sequences": 256, "held_out_sequences": 256, "coefficients": "plain", "nfe": (4,)}
    options |= {"candidates": ["path_kl:random", "path_kl:halton"]}
    costs = []
    for denoiser, data in zip((CHAIN, WithUnknown(CHAIN)), sequences(512, 0.05), strict=True):
        records = learned(denoiser, data, **options)
        costs.append([r["nats_per_token"] for r in records if r["event"] == "candidate" and "nats_per_token" in r])
    assert len(costs[0]) == 2 and costs[1] == pytest.approx(costs[0], abs=0.05)
    assert len(caplog.records) == 1


def test_coefficients_are_those_of_what_can_be_predicted() -> None:
    """The distance of samples from real sequences: with 5 % unknown tokens it is that without, up to chance."""
    distances = []
    for denoiser, data in zip((CHAIN, WithUnknown(CHAIN)), sequences(2048, 0.05), strict=True):
        options = {"num_sequences": 64, "coefficients": "two_sided", "coefficient_sequences": 128, "nfe": (2,)}
        records = learned(denoiser, data, reference_sequences=1024, **options)
        distances += [r["distance_before"] for r in records if r["event"] == "log_score_coefficients"]
    assert distances[1] == pytest.approx(distances[0], abs=0.01)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_too_many_are_refused(share: float) -> None:
    _, data = sequences(64, share)
    with pytest.raises(ValueError, match="`data`.*never predicted.*25%"):
        learned(WithUnknown(CHAIN), data, num_sequences=64)


def test_what_is_only_impossible_here_still_costs() -> None:
    """A chain that never goes back: a token is impossible after another, and not at all."""
    forward = MarkovDenoiser(torch.tensor([[0.5, 0.5], [0.5, 0.5]]).double(), torch.tensor([0.5, 0.5]).double(), 4)
    stuck = MarkovDenoiser(torch.eye(2).double(), torch.tensor([0.5, 0.5]).double(), 4)
    data = forward.sample(256, torch.Generator().manual_seed(0))
    records = learned(stuck, data, num_sequences=256, nfe=(4,))
    assert not any("left out" in str(r) for r in records)
    table_cost = distill(
        pipeline_of(stuck), DistillConfig(method="path_kl", nfe=(4,), paths="data", num_sequences=256), data=data
    ).learned_sampler.step_error  # pyright: ignore
    assert float(table_cost.table.max()) > 10  # pyright: ignore


def test_a_run_that_goes_on_says_the_same(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, data = sequences(64, 0.05)
    config = DistillConfig(method="path_kl", nfe=(2,), paths="data", num_sequences=64)
    tables = []
    for resume in (False, True):
        denoiser = WithUnknown(CHAIN)
        sampler = distill(pipeline_of(denoiser), config, data=data, checkpoint_dir=tmp_path, resume=resume)
        tables.append(sampler.learned_sampler.step_error.table)  # pyright: ignore
    assert torch.equal(*tables) and len({r.getMessage() for r in caplog.records}) == 1
