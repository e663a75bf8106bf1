"""Items are read whole or refused by file, line and key; checkers say what is right; nothing is imported unasked."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.json_lines import write
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lsd_sampler.denoisers import sudoku4
from lsd_sampler.support.tasks import CHECKERS, keeps_clues, make_checker, outputs_of, read_tasks, share_right


WORDS = ["<eos>", "[MASK]", "2", "+", "=", "4", "5", "so"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    backend: Any = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="so"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", mask_token="[MASK]")


def ids(words: str, length: int = 8) -> list[int]:
    found = [WORDS.index(word) for word in words.split()]
    return found + [-1] * (length - len(found))


# ---- items ----


def test_a_file_gives_its_items_with_all_that_they_hold(tmp_path: Path) -> None:
    items = [
        {"prompt": "2 + 2 =", "answer": "4", "difficulty": {"level": 3}},
        {"canvas": "2 + [MASK] = 4", "answer": "2 + 2 = 4"},
        {"canvas": [1, None, -1, 0], "answer": [1, 2, 3, 0]},
        {"prompt": ""},
    ]
    assert read_tasks(write(tmp_path / "tasks.jsonl", "", *items, " ")) == items


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("{", "JSON"), ("[1, 2]", "item"), ('{"question": "2 + 2"}', "item"), ('{"promt": "2"}', "'prompt'"),
        ('{"prompt": "a", "canvas": "b"}', "both"), ('{"prompt": [1]}', "prompt"), ('{"prompt": null}', "prompt"),
        ('{"canvas": []}', "canvas"), ('{"canvas": [true]}', "canvas"), ('{"canvas": [1.5]}', "canvas"),
        ('{"canvas": [-2]}', "canvas"), ('{"canvas": {}}', "canvas"), ('{"prompt": "a", "answer": 4}', "answer"),
        ('{"prompt": "a", "answer": [null]}', "answer"), ('{"prompt": "a", "answer": null}', "answer"),
        ("[" * 100_000, "JSON"), ("{}", "neither"),
    ],
)  # fmt: skip
def test_what_is_no_item_is_refused_by_file_line_and_key(line: str, key: str, tmp_path: Path) -> None:
    path = write(tmp_path / "some.jsonl", {"prompt": "fine"}, "", line)
    with pytest.raises(ValueError, match=r"`--tasks` .*some\.jsonl.*line 3") as raised:
        read_tasks(path)
    assert key in str(raised.value)


def test_a_file_without_items_or_of_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`--mine` .* holds no item"):
        read_tasks(write(tmp_path / "empty.jsonl", "", ""), "--mine")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        read_tasks(tmp_path / "bytes.jsonl")
    with pytest.raises(OSError, match="absent"):
        read_tasks(tmp_path / "absent.jsonl")


# ---- checkers ----


@pytest.mark.parametrize(
    ("name", "output", "answer", "right"),
    [
        ("exact", " 4\n", "4", True), ("exact", "4.", "4", False), ("exact", [1, 2], [1, 2], True),
        ("exact", [1, 2, 3], [1, 2], False), ("contains", "it is 4, I think", "4", True),
        ("contains", "five", "4", False), ("contains", [7, 1, 2], [1, 2], True),
        ("contains", [1, 7, 2], [1, 2], False),
        ("last_number", "3 and so 1,000.0", "1000", True), ("last_number", "10-3=7", "7", True),
        ("last_number", "x = -7", "7", False), ("last_number", "10-7", "7", True), ("last_number", "none", "0", False),
        ("last_number", "It is 7.", "so #### 7", True), ("last_number", "0.1", ".1", True),
    ],
)  # fmt: skip
def test_built_in_checkers(name: str, output: Any, answer: Any, right: bool) -> None:
    assert make_checker(name)(output, {"prompt": "?", "answer": answer}) is right


def test_without_a_name_a_checker_compares_with_the_answer() -> None:
    assert make_checker()("4", {"prompt": "2 + 2 =", "answer": "4"})
    assert not make_checker()("5", {"prompt": "2 + 2 =", "answer": "4"})


def test_valid_is_the_law_of_an_oracle_and_the_clues() -> None:
    """Every grid of the set is right, each with one changed cell is wrong, and so is one that has other clues."""
    oracle = sudoku4()
    checker, grids = make_checker("valid", oracle=oracle), oracle.sequences[:40]
    free = [{"canvas": [None] * 16}] * len(grids)
    assert bool(share_right(grids, free, checker).all())
    assert not bool(share_right((grids + (torch.arange(16) == 5)) % 4, free, checker).any())
    assert not bool(share_right(torch.full_like(grids, oracle.vocab_size), free, checker).any())
    clued = [{"canvas": [int(grid[0]), *[None] * 14, oracle.hole_id]} for grid in grids]
    others = [{"canvas": [(int(grid[0]) + 1) % 4, *[-1] * 15]} for grid in grids]
    assert bool(share_right(grids, clued, checker).all())
    assert not bool(share_right(grids, others, checker).any())
    with pytest.raises(ValueError, match="`--checker` valid needs an exact oracle"):
        make_checker("valid")


def test_the_rule_of_sudoku_is_the_law_of_its_oracle() -> None:
    """On all grids of 4 x 4, and on as many broken ones."""
    oracle, generator = sudoku4(), torch.Generator().manual_seed(0)
    grids = oracle.sequences
    place = torch.randint(16, (len(grids), 1), generator=generator)
    broken = grids.scatter(1, place, (grids.gather(1, place) + 1) % 4)
    free = [{"canvas": [None] * 16}] * len(grids)
    for rows in (grids, broken):
        by_law = share_right(rows, free, make_checker("valid", oracle=oracle))
        assert torch.equal(share_right(rows, free, make_checker("sudoku")), by_law)


@pytest.mark.parametrize(("size", "height", "width"), [(6, 2, 3), (9, 3, 3)])
def test_the_rule_of_sudoku_knows_boxes(size: int, height: int, width: int) -> None:
    row, column = torch.arange(size)[:, None], torch.arange(size)
    right = (width * (row % height) + row // height + column) % size
    latin = (row + column) % size  # rows and columns are right, boxes are not
    free = [{"canvas": [None] * size * size}] * 2
    assert share_right(torch.stack([right, latin]).flatten(1), free, make_checker("sudoku")).tolist() == [True, False]
    given = [{"canvas": [1, *[None] * (size * size - 1)]}]  # 0 stands there
    assert share_right(right.flatten()[None], given, make_checker("sudoku")).tolist() == [False]


def test_clues_are_compared_where_they_are_ids() -> None:
    assert keeps_clues([1, 2], {"canvas": [1, None]}) and keeps_clues([1, 2], {"canvas": [1, 9]}, holes=[9])
    assert not keeps_clues([1, 2], {"canvas": [1, 3]}) and not keeps_clues([1, 2], {"canvas": [1]})
    assert keeps_clues([1, 2], {"canvas": "a [MASK]"}) and keeps_clues([1, 2], {"prompt": "a"})


@pytest.mark.parametrize("name", ["exakt", "exact ", "os.system", "mymodule:", ":f", "a:b:c", "a/b:c", "..a:b"])
def test_unknown_checkers_are_refused_by_argument(name: str) -> None:
    with pytest.raises(ValueError, match="`answer_checker`"):
        make_checker(name, argument="answer_checker")


# ---- the user's own checkers, and nothing else, are imported ----

OWN = """
from pathlib import Path
Path("imported").write_text("yes")

def long(output, item):
    return len(output) > item["least"]

def fails(output, item):
    return output["nothing"]

def score(output, item):
    return 0.5

number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_checks_for_tests.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "own_checks_for_tests", raising=False)
    return tmp_path


def test_a_checker_of_ones_own_is_imported_from_the_current_folder(here: Path) -> None:
    path = list(sys.path)
    checker = make_checker("own_checks_for_tests:long")
    items = [{"canvas": [None], "least": 2}, {"canvas": [None], "least": 3}]
    assert share_right(torch.tensor([[1, 2, 3], [1, 2, 3]]), items, checker).tolist() == [True, False]
    assert sys.path == path


def test_nothing_is_imported_unless_it_is_named(here: Path) -> None:
    """Items that ask for a checker are items like others."""
    own = "own_checks_for_tests:long"
    items = read_tasks(write(here / "t.jsonl", {"canvas": [None], "answer": [1], "checker": own, "module": own}))
    for name in (None, *CHECKERS.names()):
        make_checker(name)
    assert share_right(torch.tensor([[1]]), items, make_checker()).tolist() == [True]
    assert not (here / "imported").exists() and "own_checks_for_tests" not in sys.modules


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own_checks_for_tests:lonk", "Did you mean 'long'"), ("own_checks_for_tests:number", "no function 'number'"),
        ("no_such_module_here:f", "cannot be imported"), ("broken_checks:f", "SyntaxError"),
    ],
)  # fmt: skip
def test_a_checker_that_is_not_there_is_named(name: str, says: str, here: Path) -> None:
    (here / "broken_checks.py").write_text("def f(:")
    with pytest.raises(ValueError, match=f"`--checker` '{name}'") as raised:
        make_checker(name)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [("own_checks_for_tests:fails", "TypeError"), ("own_checks_for_tests:score", "True or False, got 0.5")],
)
def test_a_checker_that_fails_names_the_item(name: str, says: str, here: Path) -> None:
    with pytest.raises(ValueError, match="`checker` .*item 0 .*'the prompt'") as raised:
        share_right(torch.tensor([[1]]), [{"prompt": "the prompt"}], make_checker(name))
    assert says in str(raised.value)


@pytest.mark.parametrize("item", [{"prompt": "a"}, {"prompt": "a", "answer": "4"}])
def test_an_answer_that_cannot_be_compared_is_an_error_of_the_item(item: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="item 0 .*'answer'"):
        share_right(torch.tensor([[1]]), [item], make_checker())


# ---- batches ----


def test_text_behind_the_prompt_and_before_the_end_is_checked(tokenizer: Any) -> None:
    items = [{"prompt": "2 + 2 =", "answer": "4"}] * 5
    rows = ["2 + 2 = 4 <eos> 5", "2 + 2 = 4", "2 + 2 = 5 <eos> 4", "<eos> 2 + 2 = 4 <eos>", "2 + 2 = 4 4"]
    made = share_right(torch.tensor([ids(row) for row in rows]), items, make_checker(), tokenizer)
    assert made.tolist() == [True, True, False, True, False]
    assert made.dtype == torch.bool


def test_a_canvas_is_checked_whole(tokenizer: Any) -> None:
    items = [{"canvas": "2 + [MASK] = 4", "answer": "2 + 2 = 4"}] * 2
    rows = torch.tensor([ids("2 + 2 = 4"), ids("2 + 5 = 4")])
    assert share_right(rows, items, make_checker(), tokenizer).tolist() == [True, False]


def test_checkers_of_ids_and_models_without_tokenizer_get_ids(tokenizer: Any) -> None:
    rows, items = torch.tensor([[2, 3, -1]]), [{"canvas": [None, 3]}]
    assert outputs_of(rows, items) == [[2, 3]]
    assert outputs_of(rows, items, tokenizer, reads_ids=True) == [[2, 3]]
    assert outputs_of(rows, items, tokenizer)[0].split() == ["2", "+"]
    assert outputs_of(rows, items, tokenizer.backend_tokenizer) == outputs_of(rows, items, tokenizer)


def test_there_is_an_item_for_each_sequence() -> None:
    with pytest.raises(ValueError, match="`sequences` must be 1 rows"):
        share_right(torch.zeros(2, 3, dtype=torch.int64), [{"prompt": "a"}], make_checker())
