"""Sources make the tasks that they are asked for, the same with the same seed; what they cannot make is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch

from lsd_sampler.support.task_sources import load_tasks
from lsd_sampler.support.tasks import share_right


def test_sudokus_have_so_many_clues_and_their_own_grid_is_right() -> None:
    tasks = load_tasks("sudoku:clues=6,size=4", 20, seed=3)
    assert len(tasks.items) == 20
    assert all(sum(i >= 0 for i in item["canvas"]) == 6 for item in tasks.items)
    grids = torch.tensor([item["solution"] for item in tasks.items])
    assert bool(share_right(grids, tasks.items, tasks.checker).all())
    others = grids.roll(1, 0)  # grids too, but of other clues
    assert not bool(share_right(others, tasks.items, tasks.checker).any())
    assert load_tasks("sudoku:clues=6,size=4", 20, seed=3).items == tasks.items
    assert load_tasks("sudoku:clues=6,size=4", 20, seed=4).items != tasks.items


def test_a_file_is_read_with_the_checker_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{i}", "answer": str(i)}) + "\n" for i in range(5)))
    assert len(load_tasks(str(file)).items) == 5 and len(load_tasks(str(file), 3).items) == 3
    item = {"prompt": "?", "answer": "4"}
    assert not load_tasks(str(file)).checker("so 4", item)
    assert load_tasks(str(file), checker="contains").checker("so 4", item)


def test_halves_share_no_item(tmp_path: Path) -> None:
    tasks = load_tasks("sudoku:clues=6,size=4", 9)
    first, second = tasks.halves()
    assert len(first.items) == 5 and len(second.items) == 4
    assert sorted(map(str, first.items + second.items)) == sorted(map(str, tasks.items))
    with pytest.raises(ValueError, match="at least 2 items"):
        load_tasks("sudoku:clues=6,size=4", 1).halves()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("sudok:clues=3", "Did you mean 'sudoku'"), ("nothing.jsonl", "is neither a file nor a source"),
        ("sudoku:clues=81", "`clues`"), ("sudoku:size=5", "`size`"), ("sudoku:clue=3", "Did you mean 'clues'"),
        ("sudoku:clues=x", "`clues` must be a whole number"), ("sudoku:clues", "`clues` must be a whole number"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_by_argument(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"`--tasks` '{name}'") as raised:
        load_tasks(name)
    assert says in str(raised.value)


def test_the_checker_is_refused_by_its_own_argument() -> None:
    with pytest.raises(ValueError, match="`--checker`"):
        load_tasks("sudoku:clues=6,size=4", 2, checker="nearly")


def test_reasoning_gym_has_its_own_scorer() -> None:
    """Its own answers are right, also with white space around them; other items' answers are not."""
    pytest.importorskip("reasoning_gym")
    tasks = load_tasks("reasoning-gym:mini_sudoku,min_empty=8,max_empty=9", 4, seed=1)
    for item, other in zip(tasks.items, [*tasks.items[1:], tasks.items[0]], strict=True):
        assert "Sudoku" in item["prompt"] and item["entry"]["metadata"]["num_empty"] in (8, 9)
        assert tasks.checker(f"\n{item['answer']} ", item) and not tasks.checker(other["answer"], item)
    assert load_tasks("reasoning-gym:mini_sudoku,min_empty=8,max_empty=9", 4, seed=1).items == tasks.items


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("mini_sudok", "Did you mean 'mini_sudoku'"), ("mini_sudoku,empty=3", "'empty' is none of its options"),
        ("mini_sudoku,min_empty=99", "cannot make it"), ("mini_sudoku,seed=3", "'seed' is none of its options"),
    ],
)  # fmt: skip
def test_options_of_reasoning_gym_are_checked(options: str, says: str) -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(ValueError, match="`--tasks` 'reasoning-gym:") as raised:
        load_tasks(f"reasoning-gym:{options}", 2)
    assert says in str(raised.value)


def test_reasoning_gym_is_imported_where_it_is_asked_for_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    assert load_tasks("sudoku:clues=6,size=4", 2).items
    with pytest.raises(ImportError, match=r"pip install lsd_sampler\[tasks\]"):
        load_tasks("reasoning-gym:mini_sudoku", 2)
