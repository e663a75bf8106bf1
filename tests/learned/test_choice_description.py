"""What card and terminal say of a learned choice of positions."""

from dataclasses import replace

import torch
from helpers.choosing_sampler import F64, RECORDS, choosing_sampler, choosing_steps

from lsd_sampler.learned.choice_description import describe_choice
from lsd_sampler.learned.description import describe_sampler
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps


def test_a_row_and_a_line_for_each_number_of_calls() -> None:
    said = describe_choice("forced_kl", choosing_sampler(), RECORDS)
    assert said.method == "forced_kl"
    assert said.heading == ("network calls", "nats per sequence", "mean share of tokens known after each call")
    assert said.rows == (("2", "11.0000", "0.5000 1.0000"), ("3", "8.7500", "0.2500 0.6250 1.0000"))
    assert said.table().splitlines()[1] == "|--:|--:|:--|"
    assert said.lines == (
        "   2 calls: 11.0000 nats/sequence; known after: 0.5000 1.0000; halton 1; free below 0 nats; shares of open"
        " positions: 0.4375 1.0000",
        "   3 calls: 8.7500 nats/sequence; known after: 0.2500 0.6250 1.0000; own 0.5, redundancy 0.125, gain 0.75,"
        " halton 0.0625; free below 0.03 nats; shares of open nats: 0.2500 0.3750 1.0000",
    )


def test_nats_of_each_call_are_told_as_such() -> None:
    """They leave no share that could be drawn; what was measured is."""
    learned = LearnedSampler({3: choosing_steps([1, 0, 0, 0, 0], [0.5, 2.0, 1], 0.03, "entropy_bounds")})
    said = describe_choice("forced_kl", learned, RECORDS)
    assert said.lines[0].endswith("own 1; free below 0.03 nats; nats of each call: 0.5000 2.0000 all")
    assert said.open_after == {} and said.units == {3: "nats a call"} and said.masked_after == {3: [0.75, 0.375, 0.0]}


def test_what_is_drawn_is_what_the_shares_leave_and_what_was_measured() -> None:
    for describe in (describe_choice, describe_sampler):  # also a method of one's own
        said = describe("mine", choosing_sampler(), RECORDS)
        assert said.open_after == {2: [1.0, 0.5625, 0.0], 3: [1.0, 0.75, 0.46875, 0.0]}
        assert said.units == {2: "positions", 3: "nats"}
        assert said.masked_after == {2: [0.5, 0.0], 3: [0.75, 0.375, 0.0]}
        assert said.times == {} and said.coefficients == {}
        assert "which positions" in said.gain


def test_answers_have_their_share_right_and_a_temperature_that_is_not_1() -> None:
    def said(temperature: float) -> tuple[tuple[str, ...], ...]:
        record = {"event": "schedule", "nfe": 2, "objective": "answers", "right": 0.875, "temperature": temperature}
        description = describe_choice("forced_kl", choosing_sampler(), [record])
        assert f"{'temperature 0.5' if temperature != 1 else '0.8750 right'};" in description.lines[0]
        return (description.heading, *description.rows)

    assert said(0.5) == (("network calls", "share right", "temperature"), ("2", "0.8750", "0.5"), ("3", "", ""))
    assert said(1.0) == (("network calls", "share right"), ("2", "0.8750"), ("3", ""))


def test_coefficients_are_told_once() -> None:
    """Here, unless the records have a section of their own for them."""
    steps = replace(
        choosing_steps([1, 0, 0, 0, 0], [0.5, 1]), log_score_coefficients=torch.tensor([1, 1.5], dtype=F64)
    )
    learned = LearnedSampler({2: steps})
    said = describe_choice("forced_kl", learned, [])
    assert said.heading[-1] == "`log_score_coefficients`" and said.rows == (("2", "1.0000 1.5000"),)
    assert said.lines[0].endswith("; log_score_coefficients: 1.0000 1.5000")
    assert said.coefficients == {2: [1.0, 1.5]}
    told = describe_choice("forced_kl", learned, [{"event": "log_score_coefficients", "nfe": 2}])
    assert told.heading == ("network calls",) and "log_score" not in told.lines[0]


def test_without_a_choice_it_is_the_description_of_any_sampler() -> None:
    learned = LearnedSampler({1: LearnedSteps.plain(torch.tensor([1.0, 0.5], dtype=F64))})
    said = describe_choice("forced_kl", learned, [{"event": "schedule", "nfe": 1, "known_after_step": [4]}])
    assert said == describe_sampler("forced_kl", learned, said.records)
    assert said.times == {1: [1.0, 0.5]} and said.open_after == {} and said.masked_after == {}
