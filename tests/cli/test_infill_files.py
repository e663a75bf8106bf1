"""Files of canvases: texts and ids of any lengths, filled in in the order of the file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import RADD
from helpers.json_lines import write
from helpers.tiny_language_models import BERT_TOKENS
from tokenizers import Tokenizer, models

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.cli import evaluate, sample
from lsd_sampler.cli.infill_files import read_canvases
from lsd_sampler.denoisers import RADDDenoiser


CHAIN = "countdown:V=4,L=16"


MASK = 4


def ids_of(words: str) -> list[int]:
    return [BERT_TOKENS.index(word) for word in words.split()]


def sampled(model: str | Path, file: Path, *more: str) -> list[dict[str, Any]]:
    out = file.with_suffix(".out")
    arguments = ["--model", str(model), "--infill", str(file), "--output", str(out), "--nfe", "3", *more]
    assert sample.main(arguments) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_texts_of_unequal_lengths_are_filled_in_in_their_order(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["the [MASK] sat", "on a [MASK] [MASK] then it [MASK]", "[MASK] cat sat", "me"]
    rows = sampled(bert, write(tmp_path / "some.txt", *texts, ""))
    assert [len(row["ids"]) for row in rows] == [3, 7, 3, 1]
    for text, row in zip(texts, rows, strict=True):
        canvas = torch.tensor(ids_of(text))
        ids = torch.tensor(row["ids"])
        assert torch.equal(ids[canvas != MASK], canvas[canvas != MASK])
        assert bool((ids > MASK).all()) and row["text"].split() == [BERT_TOKENS[i] for i in row["ids"]]
    assert capsys.readouterr().out == "\n\n".join(row["text"] for row in rows) + "\n"


def test_ids_need_no_tokenizer(tmp_path: Path) -> None:
    canvases = [[3, 4, 4, 0], [4, -1], [4] * 6, [3, 2, 1, 0]]
    expected = {"lines": [" ".join(map(str, c)) for c in canvases], "lists": canvases}
    expected["objects"] = [{"ids": c} for c in canvases]
    found = []
    for kind, lines in expected.items():
        rows = sampled(CHAIN, write(tmp_path / f"{kind}.{'txt' if kind == 'lines' else 'jsonl'}", *lines))
        found.append([row["ids"] for row in rows])
    assert found[0] == found[1] == found[2]
    for canvas, ids in zip(canvases, found[0], strict=True):
        assert len(ids) == len(canvas) and all(0 <= i < 4 for i in ids)
        assert all(i == c for i, c in zip(ids, canvas, strict=True) if c not in (4, -1))


def test_a_sample_depends_on_its_place_in_the_file_alone(bert: Path, tmp_path: Path) -> None:
    """Neither on the batch, nor on what else has its length."""
    file = write(tmp_path / "some.txt", *["the [MASK] sat on", "[MASK] [MASK] it", "it [MASK] to me"] * 3)
    rows = sampled(bert, file, "--num-samples", "2")
    assert len(rows) == 18 and rows == sampled(bert, file, "--num-samples", "2", "--batch-size", "4")
    assert [len(row["ids"]) for row in rows] == [4, 4, 3, 3, 4, 4] * 3
    assert len({row["text"] for row in rows}) > 9


def test_a_mask_may_be_written_as_usual(tmp_path: Path) -> None:
    """Of a tokenizer without a mask; the space before it belongs to the word in its place."""
    RADDDenoiser(RADD | {"tokens": 7}).save_pretrained(tmp_path / "model")
    letters = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate("abcdef ")}, merges=[]))
    letters.save(str(tmp_path / "model" / "tokenizer.json"))
    pipe = MaskedDiffusionPipeline.from_pretrained(tmp_path / "model")
    hole = pipe.denoiser.hole_id
    file = write(tmp_path / "some.txt", "ab [MASK]c<mask> d")
    assert read_canvases(file, pipe)[0].tolist() == [0, 1, hole, 2, hole, 6, 3]


def test_a_canvas_with_its_frame_keeps_it(bert: Path, tmp_path: Path) -> None:
    (framed,) = sampled(bert, write(tmp_path / "a.jsonl", {"ids": [2, *ids_of("the [MASK] sat"), 3]}))
    (plain,) = sampled(bert, write(tmp_path / "b.jsonl", {"text": "the [MASK] sat"}))
    assert framed["ids"] == [2, *plain["ids"], 3]


@pytest.mark.parametrize(
    ("name", "lines", "words"),
    [
        ("a.txt", ["the cat"], "nothing to fill in: write [MASK]"),
        ("a.txt", [""], "nothing to fill in"),
        ("a.txt", ["[MASK]", " ".join(["[MASK]"] * 13)], "line 2: `length` must be at most 12"),
        ("a.jsonl", [{"words": "a"}], "line 1: must be as"),
        ("a.jsonl", ["[1, 2"], "line 1: must be as"),
        ("a.jsonl", [[4, 99]], "line 1: `input_ids` must be token ids in [0, 16]"),
        ("a.jsonl", [[4, "a"]], "line 1: `input_ids`"),
    ],
)
def test_lines_that_are_no_canvas_are_named(
    bert: Path, tmp_path: Path, name: str, lines: list[Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / name, *lines)
    for command in (sample, evaluate):
        arguments = ["--model", str(bert), "--infill", str(file)]
        arguments += ["--output-dir", str(tmp_path / "out")] if command is evaluate else []
        assert command.main(arguments) == 1
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("Error: `--infill`") and words in last


def test_canvases_that_are_mostly_unknown_are_told(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sampled(bert, write(tmp_path / "a.txt", "THE CAT [MASK]", "ON the MAT"))
    assert "4 of 6 tokens are [UNK]" in capsys.readouterr().err
