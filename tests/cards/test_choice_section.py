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
