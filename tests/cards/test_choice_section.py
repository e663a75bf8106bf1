"""The section of a card on the choice of method and order."""

from typing import Any

import torch
from helpers.small_distillations import pipeline_of

from lsd_sampler import DistillConfig, LSDScheduler, distill
from lsd_sampler.cards.choice_section import choice_section
from lsd_sampler.denoisers import countdown, random_chain
from lsd_sampler.training import METHODS


def choose(
    chain: torch.nn.Module, call: dict[str, Any] | None = None, **options: Any
) -> tuple[LSDScheduler, list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    options.setdefault("coefficients", "plain")
    return distill(pipeline_of(chain), DistillConfig(**options), log=records.append, **(call or {})), records


def test_a_card_of_one_method_has_no_such_section() -> None:
    _, records = choose(countdown(4, 8), nfe=(2,), num_sequences=4, method="lsd")
    assert choice_section(records) == ""
    assert all(METHODS[name].winner(records) is None for name in METHODS.names())


def test_a_card_names_what_was_left_out() -> None:
    _, records = choose(random_chain(4, 8), nfe=(3,), num_sequences=4, candidates=("jys:random", "lsd:random"))
    section = choice_section(records)
    assert "No other candidate" in section and "`jys` in `random` order was left out: `nfe` must be powers" in section


def test_a_candidate_may_cost_less_than_the_chosen_one() -> None:
    """By no more than chance, the simplest is taken; the table says what it is."""
    row = {"event": "candidate", "nfe": 4, "standard_error": 0.05, "network_calls": 9}
    section = choice_section(
        [
            {**row, "method": "path_kl", "order": "halton", "nats_per_token": 1.5, "difference": 0.0,
             "difference_error": 0.0},
            {**row, "method": "forced_kl", "order": "adaptive", "nats_per_token": 1.4375, "difference": -0.0625,
             "difference_error": 0.0475},
            {"event": "choice", "method": "path_kl", "order": "halton", "reason": "The simplest one within chance."},
        ]
    )  # fmt: skip
    assert "The simplest one within chance." in section and "or by no more than chance" in section
    assert "| `path_kl` | `halton` | 4 | 1.5000 (0.0500) | (chosen) | 9 |" in section
    assert "| `forced_kl` | `adaptive` | 4 | 1.4375 (0.0500) | -0.0625 (0.0475) | 9 |" in section
