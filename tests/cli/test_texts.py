"""Files of texts: what ends a line, what a file begins with, one text a line; and frames that are there already."""

import json
import logging
import lzma
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_language_models import BERT_TOKENS, MASKED_LMS

from lsd_sampler import DistillConfig, MaskedDiffusionPipeline, distill
from lsd_sampler.cli import train
from lsd_sampler.cli.prompt_flags import read_prompts
from lsd_sampler.cli.texts import cut_texts, read_sequences, read_texts
from lsd_sampler.denoisers.files import read_json
from lsd_sampler.evaluation import read_jsonl


BOM = b"\xef\xbb\xbf"
CLS, SEP, MASK = 2, 3, 4


@pytest.fixture
def pipe(tmp_path: Path) -> MaskedDiffusionPipeline:
    torch.manual_seed(0)
    MASKED_LMS["bert"](tmp_path / "bert")
    pipe = MaskedDiffusionPipeline.from_pretrained(tmp_path / "bert")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def ids_of(words: str) -> list[int]:
    return [BERT_TOKENS.index(word) for word in words.split()]


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    file = tmp_path / "some.txt"
    file.write_bytes(BOM + b"the cat\nsat\n")
    assert read_prompts(file) == ["the cat", "sat"]
    assert read_texts(file) == ["the cat\nsat\n"] and read_texts(file, by_lines=True) == ["the cat", "sat"]
    ids = tmp_path / "ids.jsonl"
    ids.write_bytes(BOM + b'{"ids": [1, 2]}\n{"ids": [3, 4]}\n')
    assert sorted(read_sequences(ids, None, None).tolist()) == [[1, 2], [3, 4]]
    assert read_jsonl(ids) == [{"ids": [1, 2]}, {"ids": [3, 4]}]
    config = tmp_path / "config.json"
    config.write_bytes(BOM + b'{"a": 1}')
    assert read_json(config) == {"a": 1}


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_nothing_but_a_newline_ends_a_line(tmp_path: Path, inside: str, newline: str) -> None:
    lines = [f"one{inside}two", "three"]
    file = tmp_path / "some.txt"
    file.write_bytes(newline.join(["", *lines, " ", ""]).encode())
    assert read_prompts(file) == lines == read_texts(file, by_lines=True)
    ids = tmp_path / "ids.jsonl"
    rows = [json.dumps({"text": line, "ids": [1, 2]}, ensure_ascii=False) for line in lines]
    ids.write_bytes(newline.join(rows).encode())
    assert len(read_sequences(ids, None, None)) == 2


def test_lines_are_not_joined(
    pipe: MaskedDiffusionPipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.txt"
    file.write_text("the cat sat\non a mat and then it ran\nto me\n")
    joined = cut_texts(file, "--data", pipe.tokenizer, 3)
    assert len(joined) == 4 and ids_of("ran to me") in joined.tolist()
    windows = cut_texts(file, "--data", pipe.tokenizer, 3, by_lines=True)
    assert sorted(windows.tolist()) == sorted([ids_of("the cat sat"), ids_of("on a mat"), ids_of("and then it")])
    assert "1 of 3 texts are shorter than 3 tokens and left out" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no text of 8 tokens.*2 to 7, half of them 3 or more.*`--length`"):
        cut_texts(file, "--data", pipe.tokenizer, 8, by_lines=True)


def test_molecules_are_one_a_line_with_their_names_beside_them(tmp_path: Path) -> None:
    (tmp_path / "some.smi").write_text("CCO ethanol\nC\tmethane\n\nO\n")
    assert read_texts(tmp_path / "some.smi") == ["CCO", "C", "O"] == read_texts(tmp_path)
    with lzma.open(tmp_path / "more.smi.xz", "wt") as file:
        file.write("CN methylamine\nN\n")
    assert read_texts(tmp_path / "more.smi.xz") == ["CN", "N"]
    assert read_texts(tmp_path) == ["CN", "N", "CCO", "C", "O"]


def test_texts_that_are_mostly_unknown_are_told(
    pipe: MaskedDiffusionPipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some.txt").write_text("THE CAT sat ON the MAT")
    cut_texts(tmp_path / "some.txt", "--data", pipe.tokenizer, 2)
    assert "4 of 6 tokens are [UNK]" in capsys.readouterr().err


def test_a_run_learns_from_lines_and_leaves_out_what_is_unknown(
    pipe: MaskedDiffusionPipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """3 of 32 tokens are unknown: at 100 nats each, they would add 9 nats a token."""
    lines = ["the cat sat on", "a mat and then", "it ran to me", "the HORSE sat on"] * 8
    (tmp_path / "some.txt").write_text("\n".join(lines))
    where = ["--model", str(tmp_path / "bert"), "--output-dir", str(tmp_path / "out"), "--cache-dir", str(tmp_path)]
    what = ["--data", str(tmp_path / "some.txt"), "--data-lines", "--length", "4", "--method", "path_kl"]
    assert train.main([*where, *what, "--nfe", "2", "--num-sequences", "32"]) == 0
    assert "`data`: 6.2% of the tokens (8 of 128)" in caplog.text and "'[UNK]'" in caplog.text
    run = json.loads((tmp_path / "out" / "config.json").read_text())["run"]
    assert run["data_lines"] is True


# ---- frames ----


def test_a_frame_that_is_there_is_not_put_there_again(pipe: MaskedDiffusionPipeline) -> None:
    """As a tokenizer gives a text with masks."""
    inner = [*ids_of("the cat"), MASK, MASK, *ids_of("ran"), MASK]
    outputs = []
    for before, after in (([], []), ([CLS], [SEP]), ([CLS], []), ([], [SEP])):
        generator = torch.Generator().manual_seed(0)
        ids = torch.tensor([[*before, *inner, *after]] * 3)
        sequences = pipe(input_ids=ids, num_inference_steps=2, generator=generator).sequences
        assert sequences.shape == ids.shape and torch.equal(sequences[ids != MASK], ids[ids != MASK])
        outputs.append(sequences[:, len(before) : len(before) + len(inner)])
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_a_framed_canvas_may_be_as_long_as_the_network_reads(pipe: MaskedDiffusionPipeline) -> None:
    longest = pipe.denoiser.length
    ids = [CLS, *[MASK] * longest, SEP]
    assert pipe(input_ids=ids, num_inference_steps=1).sequences.shape == (1, longest + 2)
    with pytest.raises(ValueError, match=f"at most {longest}"):
        pipe(input_ids=[CLS, *[MASK] * (longest + 1), SEP], num_inference_steps=1)


def test_framed_data_are_those_without(pipe: MaskedDiffusionPipeline, caplog: pytest.LogCaptureFixture) -> None:
    data = torch.randint(5, len(BERT_TOKENS), (16, 6), generator=torch.Generator().manual_seed(0))
    framed = torch.nn.functional.pad(torch.nn.functional.pad(data, (1, 0), value=CLS), (0, 1), value=SEP)
    tables: list[Any] = []
    with caplog.at_level(logging.WARNING):
        for rows in (data, framed):
            config = DistillConfig(method="path_kl", nfe=(2,), paths="data", num_sequences=16)
            tables.append(distill(pipe, config, data=rows, length=6).learned_sampler.step_error.table)  # pyright: ignore
    assert torch.equal(*tables) and not caplog.records
