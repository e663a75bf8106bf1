"""The section of a card on the choice of positions says what the tensors and the records hold."""

import dataclasses

import pytest
import torch
from helpers.choosing_sampler import F64, RECORDS, choosing_sampler

from lsd_sampler.cards.positions_section import OBJECTIVES, positions_section
from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps


def tables_of(section: str) -> list[list[list[str]]]:
    """The cells of each table, without its rule."""
    blocks = [block.splitlines() for block in section.split("\n\n") if block.startswith("|")]
    rows = [[line.strip("|").split("|") for line in block if not line.startswith("|--:")] for block in blocks]
    return [[[cell.strip() for cell in row] for row in block] for block in rows]


def test_a_sampler_without_a_choice_has_no_such_section() -> None:
    plain = LearnedSampler({1: LearnedSteps.plain(torch.tensor([1.0, 0.5], dtype=F64))})
    assert positions_section(plain, RECORDS) == positions_section(LearnedSampler(), RECORDS) == ""


def test_the_table_holds_the_tensors() -> None:
    learned = choosing_sampler()
    (head, *rows), _ = tables_of(positions_section(learned, RECORDS))
    assert head[:7] == ["network calls", "own", "redundancy", "gain", "random", "halton", "free below (nats)"]
    assert head[7:] == ["budget", "share or nats of each call"] and [row[0] for row in rows] == ["2", "3"]
    for row in rows:
        choice = learned.steps[int(row[0])].choice
        assert choice is not None
        assert [*map(float, row[1:6])] == choice.weights.tolist()
        assert float(row[6]) == float(choice.free_below)
        assert row[7] == {"position_shares": "positions", "entropy_shares": "nats"}[choice.budget]
        assert [*map(float, row[8].split())] == choice.shares.tolist()


def test_each_candidate_has_a_row_of_what_it_cost() -> None:
    _, (head, *rows) = tables_of(positions_section(choosing_sampler(), RECORDS))
    assert head[5:7] == ["nats per sequence", "more than the best simple order"]
    assert rows == [
        ["2", "random", "0 0 0 1 0", "0", "positions", "11.5000 (0.2500)", "+0.5000 (0.1250)", ""],
        ["2", "halton", "0 0 0 0 1", "0", "positions", "11.0000 (0.2500)", "+0.0000 (0.1250)", "chosen"],
        ["3", "halton", "0 0 0 0 1", "0", "positions", "9.5000 (0.2500)", "+0.0000 (0.1250)", ""],
        ["3", "found", "0.5 0.125 0.75 0 0.0625", "0", "nats", "8.7500 (0.2500)", "-0.7500 (0.1250)", "chosen"],
    ]
    without = [r for r in RECORDS if r["event"] != "position_candidate"]
    assert len(tables_of(positions_section(choosing_sampler(), without))) == 1


def test_right_answers_are_not_told_as_nats() -> None:
    """Where wrong answers decide, the table holds their shares and says so."""
    shares = [{("wrong" if key == "nats" else key): value for key, value in r.items()} for r in RECORDS]
    section = positions_section(choosing_sampler(), shares)
    _, (head, *rows) = tables_of(section)
    assert head[5] == "share wrong" and rows[0][5] == "11.5000 (0.2500)"
    assert "Share wrong: " in section and "Nats per sequence" not in section and "nats per sequence" not in section


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objective_is_named(name: str) -> None:
    records = [{**r, "objective": name} if r["event"] == "schedule" else r for r in RECORDS]
    section = positions_section(choosing_sampler(), records)
    assert [other for other in OBJECTIVES if OBJECTIVES[other] in section] == [name]
    assert section.count("The objective was") == 1
    assert "The objective was" not in positions_section(choosing_sampler(), [])


def test_the_dependence_is_told_where_it_was_learned() -> None:
    section = positions_section(choosing_sampler(), RECORDS, has_plot=True)
    assert "measured by distance, in 2 buckets" in section and "(mean 0.2812, 34 network calls so far)." in section
    assert section.count("![dependence between positions](dependence.png)") == 1
    assert "dependence.png" not in positions_section(choosing_sampler(), RECORDS)
    one = Dependence(torch.zeros(1, 4, 4, dtype=F64), "matrix")
    assert "measured by each pair of positions.\n" in positions_section(choosing_sampler(one), []) + "\n"
    without = dataclasses.replace(choosing_sampler(), dependence=None)
    assert "kappa" not in positions_section(without, RECORDS, has_plot=False)
