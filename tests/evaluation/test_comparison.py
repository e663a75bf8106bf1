"""Samplers compared: temperatures chosen on other samples, and the base measured further."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.evaluation_fakes import FakePipeline, FakeSampler, text_metrics

from lsd_sampler.evaluation import Harness, best_per_sampler, compare, measure_further, read_jsonl
from lsd_sampler.evaluation.html import render
from lsd_sampler.evaluation.report import as_json, as_text, make_report


def harness(pipeline: Any, samplers: dict[str, Any] | None = None, **options: Any) -> Harness:
    samplers = samplers or {"good": FakeSampler(10), "narrow": FakeSampler(5)}
    defaults: dict[str, Any] = {"num_samples": 40, "batch_size": 16, "length": 50, "progress": False}
    return Harness(pipeline, samplers, text_metrics(), **defaults | options)


def test_temperatures_are_chosen_on_other_samples_than_are_judged() -> None:
    found = compare(harness(FakePipeline()), [4, 8], [0.5, 1.0, 2.0], seed=3)
    chosen = {(row["sampler"], row["nfe"]): row["temperature"] for row in found.judged}
    assert chosen == {("good", 4): 1.0, ("good", 8): 1.0, ("narrow", 4): 2.0, ("narrow", 8): 2.0}
    assert len(found.sweep) == 2 * 2 * 3
    seeds = {row["seed"] + batch for row in found.sweep for batch in range(3)}
    assert not seeds & {row["seed"] + batch for row in found.judged for batch in range(3)}
    assert {row["num_samples"] for row in found.judged + found.sweep} == {40}
    assert "js_char_3gram" in found.judged[0] and "js_char_3gram" not in found.sweep[0]


def test_choosing_at_one_number_of_calls_makes_fewer_samples() -> None:
    pipeline = FakePipeline()
    found = compare(harness(pipeline), [4, 8, 16], [1.0, 2.0], choose_at=8)
    assert {row["nfe"] for row in found.sweep} == {8}
    assert pipeline.calls == 3 * (2 * 2 + 2 * 3)
    assert {row["temperature"] for row in found.judged if row["sampler"] == "narrow"} == {2.0}
    learned = {"plain": FakeSampler(10), "learned": FakeSampler(10, [4])}
    for frontier, nfe, words in ((False, [4], "8: learned"), (True, [4, 8], "8: learned"), (True, [4], "among `nfe`")):
        pipeline = FakePipeline()
        with pytest.raises(ValueError, match=f"`choose_at` .*{words}"):
            compare(harness(pipeline, learned), nfe, [1.0, 2.0], choose_at=8, frontier=frontier)
        assert not pipeline.calls


@pytest.mark.parametrize("temperatures", [[1.0], [1.0, 2.0]])
def test_samplers_that_lack_rows_are_named_below_the_table(temperatures: list[float]) -> None:
    made = harness(FakePipeline(), {"plain": FakeSampler(10), "learned": FakeSampler(10, [8])})
    found = compare(made, [4, 8, 16], temperatures)
    assert found.left_out == {"learned": [4, 16]}
    report, note = make_report("x", found, made.metrics), "learned has no numbers for 4, 16 calls: left out."
    assert as_text(report).rstrip().endswith(note)
    assert note in json.loads(as_json(report))["sentences"] and note in render(report)


def test_one_temperature_needs_no_choice() -> None:
    pipeline = FakePipeline()
    found = compare(harness(pipeline), [4], [1.0])
    assert not found.sweep and pipeline.calls == 3 * 2


def test_a_frontier_measures_all_along_the_sweep(tmp_path: Path) -> None:
    path, pipeline = tmp_path / "rows.jsonl", FakePipeline()
    found = compare(harness(pipeline, output=path), [4], [0.5, 1.0], frontier=True)
    assert all("unigram_entropy_replicates" in row for row in found.sweep)
    assert len(read_jsonl(path)) == len(found.sweep) + len(found.judged) == 6
    calls = pipeline.calls
    again = compare(harness(pipeline, output=path, resume=True), [4], [0.5, 1.0], frontier=True)
    assert pipeline.calls == calls
    assert best_per_sampler(again.judged, "js_char_sum") == best_per_sampler(found.judged, "js_char_sum")


def test_a_row_of_a_choice_does_not_pass_for_a_measured_one(tmp_path: Path) -> None:
    path, pipeline = tmp_path / "rows.jsonl", FakePipeline()
    compare(harness(pipeline, output=path), [4], [0.5, 1.0])
    calls = pipeline.calls
    found = compare(harness(pipeline, output=path, resume=True), [4], [0.5, 1.0], frontier=True)
    assert pipeline.calls == calls + 3 * 4
    assert all("unigram_entropy" in row for row in found.sweep)


# ---- the base at more calls ----


class Late(FakeSampler):
    """As good as the reference at `letters` calls, and the worse the fewer."""

    def set_timesteps(self, num_inference_steps: int) -> None:
        super().set_timesteps(num_inference_steps)
        self.letters = 10 if num_inference_steps >= self.needed else 2

    needed = 0


def late(needed: int) -> Late:
    sampler = Late(10)
    sampler.needed = needed
    return sampler


def further(made: Harness, nfe: list[int], temperatures: tuple[float, ...] = (1.0,), **options: Any) -> Any:
    found = compare(made, nfe, temperatures)
    return measure_further(made, found, "base", nfe=min(nfe), temperatures=temperatures, **options)


@pytest.mark.parametrize(
    ("needed", "nfe", "limit", "expected"),
    [
        (1, [4, 8], None, []),  # as good already
        (9, [4, 8], None, [16]),
        (20, [4], None, [8, 16, 32]),
        (45, [4, 8], None, [16, 32, 50]),  # one token a call
        (99, [4, 8], None, [16, 32, 50]),  # not even then
        (99, [4, 8], 40, [16, 32, 40]),
        (99, [4, 8], 8, []),
        (99, [4, 50], None, []),
    ],
)
def test_the_base_is_measured_further_until_it_is_as_good(
    needed: int, nfe: list[int], limit: int | None, expected: list[int], tmp_path: Path
) -> None:
    samplers = {"base": late(needed), "ours": FakeSampler(9)}
    path, pipeline = tmp_path / "rows.jsonl", FakePipeline()
    found = further(harness(pipeline, samplers, output=path), nfe, limit=limit)
    assert [(row["sampler"], row["nfe"]) for row in found.further] == [("base", steps) for steps in expected]
    assert all("unigram_entropy_replicates" in row for row in found.further)
    assert [row["sampler"] for row in found.rows] == ["base"] * (len(nfe) + len(expected)) + ["ours"] * len(nfe)
    calls = pipeline.calls
    kept = path.read_bytes()
    again = further(harness(pipeline, samplers, output=path, resume=True), nfe, limit=limit)
    assert pipeline.calls == calls and path.read_bytes() == kept
    assert [row["nfe"] for row in again.further] == expected


def test_further_rows_have_a_temperature_of_their_own() -> None:
    samplers = {"base": FakeSampler(5), "ours": FakeSampler(10)}
    for choose_at in (None, 4):
        made = harness(FakePipeline(), samplers)
        found = compare(made, [4], [1.0, 1.5], choose_at=choose_at)
        options: dict[str, Any] = {"temperatures": (1.0, 1.5), "choose_at": choose_at, "limit": 8}
        found = measure_further(made, found, "base", nfe=4, **options)
        assert [(row["nfe"], row["temperature"], row["seed"]) for row in found.further] == [(8, 1.5, 0)]


def test_the_headline_is_about_ours() -> None:
    """A baseline that the base never equals is no reason to measure on, and not the headline."""
    samplers = {"base": late(16), "ours": FakeSampler(9), "other": FakeSampler(10)}
    made = harness(FakePipeline(), samplers)
    found = further(made, [4], ours=["ours"])
    assert [row["nfe"] for row in found.further] == [8, 16]
    report = make_report("x", found, made.metrics, base="base", headline_nfe=4, ours=["ours"])
    text, kept = as_text(report), json.loads(as_json(report))
    assert report.headline is not None and report.headline.sampler == "ours"
    assert 8 < report.headline.calls <= 16 and report.headline.low > 4
    ratio = report.headline.calls / 4
    interval = f"{report.headline.low / 4:.1f} to {report.headline.high / 4:.1f}"
    assert kept["headline"] == f"{ratio:.1f}× fewer calls ({interval})"
    assert f"ours at 4 calls: {kept['headline']}.\n" in text and kept["headline"] in render(report)
    assert [(row["sampler"], row["nfe"]) for row in kept["rows"]][:3] == [("base", 4), ("base", 8), ("base", 16)]


@pytest.mark.parametrize(
    ("limit", "headline"),
    [(None, "not even at one token a call"), (32, "> 8.0× fewer calls"), (4, None)],
)
def test_a_headline_without_an_end_says_how_far_it_was_looked(limit: int | None, headline: str | None) -> None:
    made = harness(FakePipeline(), {"base": FakeSampler(2), "ours": FakeSampler(10)})
    report = make_report("x", further(made, [4], limit=limit), made.metrics, base="base", headline_nfe=4)
    assert (report.headline and report.headline.headline()) == headline
    page, sentences = render(report), " ".join(report.sentences())
    assert "1.0×" not in page
    if headline is not None:
        assert headline in page.replace("&gt;", ">") and headline in as_text(report)
        assert ("even at one token a call, 50 calls," in sentences) == (limit is None)
