"""What `forced_kl` may use: every option keeps the search to a part of the family, wherever it looks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.small_distillations import pipeline_of

from lsd_sampler import DistillConfig, distill
from lsd_sampler.cli import train
from lsd_sampler.denoisers import sudoku4
from lsd_sampler.sampling.dependence import LAYOUTS
from lsd_sampler.sampling.position_choice import BUDGETS, WEIGHTS
from lsd_sampler.training.config import all_options
from lsd_sampler.training.forced_figure import ForcedFigure
from lsd_sampler.training.position_space import FREE_BELOW


Seen = list[tuple[dict[str, float], str, float]]
"""Weights that are not 0, budget and threshold of each candidate that was measured."""
BASE = [{"random"}, {"halton"}]


def is_simple(weights: dict[str, float], budget: str, free_below: float) -> bool:
    return set(weights) in BASE and budget == "position_shares" and free_below == 0


def measured(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Seen, Any, list[dict[str, Any]]]:
    """All candidates that a small search measures besides simple orders, what it learns, and the records."""
    seen, call = [], ForcedFigure.__call__

    def kept(self: ForcedFigure, candidate: Any, part: str, num: int | None = None) -> Any:
        weights = {term: w for term, w in zip(WEIGHTS, candidate.weights, strict=True) if w}
        seen.append((weights, candidate.budget, candidate.free_below))
        return call(self, candidate, part, num)

    monkeypatch.setattr(ForcedFigure, "__call__", kept)
    options = {"nfe": (2,), "search_evaluations": 10_000, **options}
    config = DistillConfig(method="forced_kl", num_sequences=64, **options)
    records: list[dict[str, Any]] = []
    data = sudoku4().sample(64, torch.Generator().manual_seed(0))
    learned = distill(pipeline_of(sudoku4()), config, log=records.append, data=data).learned_sampler
    return [each for each in seen if not is_simple(*each)], learned, records


KEPT: dict[str, tuple[dict[str, Any], Callable[[set[str], str, float], bool]]] = {
    "neither own nor halton, positions": (
        {"terms": ("redundancy", "gain", "random"), "budgets": ("position_shares",)},
        lambda terms, budget, free: terms <= {"redundancy", "gain", "random"} and budget == "position_shares",
    ),
    "no base order, nothing free": (
        {"terms": ("own", "redundancy", "gain"), "free_below": (0,)},
        lambda terms, budget, free: terms <= {"own", "redundancy", "gain"} and free == 0,
    ),
    "no pairs, nats": (
        {"terms": ("own", "halton"), "budgets": ("entropy_shares",)},
        lambda terms, budget, free: terms <= {"own", "halton"} and budget == "entropy_shares",
    ),
    "no redundancy": ({"terms": ("own", "gain", "random", "halton")}, lambda terms, *_: "redundancy" not in terms),
    "no gain, own thresholds": (
        {"terms": ("own", "redundancy", "random", "halton"), "free_below": (0.2, 0.05)},
        lambda terms, budget, free: "gain" not in terms and free in (0.05, 0.2),
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_no_candidate_leaves_the_space(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, keeps = KEPT[name]
    seen, learned, records = measured(monkeypatch, **options)
    assert len(seen) > 10  # tables, constant shares, and changes of them
    assert [each for each in seen if not keeps(set(each[0]), *each[1:])] == []
    with_pairs = any(term in options["terms"] for term in ("redundancy", "gain"))
    assert any(record["event"] == "dependence" for record in records) == with_pairs
    choice = learned.steps[2].choice
    weights = {term: choice.weight(term) for term in WEIGHTS if choice.weight(term)}
    found = weights, choice.budget, float(choice.free_below)
    assert is_simple(*found) or keeps(set(weights), *found[1:])


def test_the_whole_space_is_searched_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many evaluations as in the tests above, so that these can fail."""
    seen, _, _ = measured(monkeypatch)
    assert {term for weights, _, _ in seen for term in weights} == set(WEIGHTS)
    assert {budget for _, budget, _ in seen} == set(BUDGETS)
    assert {free for _, _, free in seen if free} == set(FREE_BELOW)


def test_shares_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is left to measure but simple orders, which are always compared with."""
    options = {"terms": ("random", "halton"), "budgets": ("position_shares",), "free_below": (0,)}
    seen, learned, records = measured(monkeypatch, **options)
    assert seen == [] and learned.dependence is None
    assert [record for record in records if record["event"] == "dependence"] == []
    choice = learned.steps[2].choice
    assert is_simple({t: choice.weight(t) for t in WEIGHTS if choice.weight(t)}, choice.budget, choice.free_below)


@pytest.mark.parametrize("layout", ["offset", "matrix"])
def test_layout_of_kappa(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, learned, records = measured(monkeypatch, layouts=(layout,), nfe=(3,))
    assert {record["layout"] for record in records if record["event"] == "dependence"} == {layout}
    assert learned.dependence is not None and learned.dependence.layout == layout


def test_right_answers_are_searched_in_the_same_space() -> None:
    """All finalists, on an oracle whose valid sequences are right."""
    records: list[dict[str, Any]] = []
    space = {"terms": ("own", "gain", "random"), "budgets": ("entropy_shares",), "free_below": (0.1,)}
    options = {"nfe": (2,), "num_sequences": 32, "search_evaluations": 4000, "objective": "answers", **space}
    distill(pipeline_of(sudoku4()), DistillConfig(method="forced_kl", **options), log=records.append)
    found = [record for record in records if record["event"] == "position_candidate"]
    assert len(found) > 1 and all(0 <= record["wrong"] <= 1 and "nats" not in record for record in found)
    for record in found:
        weights = {term: w for term, w in zip(WEIGHTS, record["weights"], strict=True) if w}
        kept = set(weights) <= {"own", "gain", "random"} and record["budget"] == "entropy_shares"
        assert is_simple(weights, record["budget"], record["free_below"]) or (kept and record["free_below"] == 0.1)


def test_a_layout_that_the_canvas_does_not_admit_is_refused() -> None:
    config = DistillConfig(method="forced_kl", nfe=(2,), num_sequences=8, layouts=("offset_2d",))
    with pytest.raises(ValueError, match="`layouts` must name one that these canvases admit"):
        distill(pipeline_of(sudoku4()), config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("terms", ()),
        ("terms", ("own", "entropy")),
        ("terms", "own"),
        ("terms", None),
        ("layouts", ("grid",)),
        ("layouts", ()),
        ("budgets", ("nats",)),
        ("budgets", 3),
        ("free_below", ()),
        ("free_below", 0.1),
        ("free_below", (-0.1,)),
        ("free_below", (float("nan"),)),
        ("free_below", ("0.1",)),
        ("free_below", (True,)),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        DistillConfig(method="forced_kl", **{name: value})


def test_order_and_repetition_mean_nothing() -> None:
    given = DistillConfig(method="forced_kl", terms=["gain", "own", "gain"], free_below=[0.3, 0, 0.3])
    assert given.terms == ("own", "gain") and given.free_below == (0.0, 0.3)
    assert DistillConfig(method="forced_kl", layouts=LAYOUTS[::-1]).layouts == LAYOUTS


def test_each_is_a_flag() -> None:
    line = "--model sudoku4 --terms gain own --layouts matrix --budgets entropy_shares --free-below 0 0.05"
    args = train.build_parser().parse_args(line.split())
    options = {option.name: getattr(args, option.name) for option in all_options()}
    config = DistillConfig(**{**options, "method": "forced_kl", "nfe": (4,)})
    assert (config.terms, config.layouts, config.budgets) == (("own", "gain"), ("matrix",), ("entropy_shares",))
    assert config.free_below == (0.0, 0.05)
