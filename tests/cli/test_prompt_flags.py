"""Prompts, blocks and caches in the three commands, on a small network of LLaDA's kind."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import fails, records
from helpers.tiny_answerers import tiny_answerer, tiny_denoiser

from lsd_sampler import LSDScheduler
from lsd_sampler.cli import evaluate, sample, train
from lsd_sampler.cli.sample import NOT_OF_TRAINING
from lsd_sampler.denoisers import MaskedLMDenoiser
from lsd_sampler.denoisers.key_values import KeyValueCache
from lsd_sampler.sampling.draws import row_generators


pytestmark = pytest.mark.usefixtures("no_plots")
PROMPTS = ["a b", "c d e", "f", "g h i j k"]
BLOCKS = ["--max-new-tokens", "8", "--block-length", "4"]


def save(folder: Path, family: str = "llada") -> str:
    tiny_denoiser(family, seed=2).save_pretrained(folder)
    tiny_answerer().tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("llada"))


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n\n")
    return str(path)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def noise(*numbers: int) -> list[torch.Generator]:
    return row_generators(0, numbers, NOT_OF_TRAINING)


# ---- lsd-sample ----


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_answers_are_those_of_the_pipeline(model: str, prompts: str, cache: str, tmp_path: Path) -> None:
    """Whatever the batch; two for each prompt; --nfe counts the calls of a block."""
    found = []
    for size in ("64", "3", "1"):
        out = tmp_path / "out.jsonl"
        argv = ["--model", model, "--prompts", prompts, *BLOCKS, "--cache", cache, "--nfe", "2", "--num-samples", "2"]
        assert sample.main([*argv, "--batch-size", size, "--output", str(out), "--guidance-scale", "0.5"]) == 0
        found.append(lines(out))
    assert found[0] == found[1] == found[2]
    pipe = tiny_answerer(seed=2)
    call = {"max_new_tokens": 8, "block_length": 4, "cache": cache, "num_inference_steps": 4, "guidance_scale": 0.5}
    twice = [prompt for prompt in PROMPTS for _ in range(2)]
    expected = pipe(prompt=twice, generator=noise(*range(8)), **call)
    assert [row["prompt"] for row in found[0]] == twice
    assert [row["text"] for row in found[0]] == expected.texts
    assert [row["ids"] for row in found[0]] == expected.sequences[:, -8:].tolist()


def test_conversations(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A text with --use-chat-template is what a user says; a file holds whole conversations."""
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS[:2]]
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    argv = ["--model", model, *BLOCKS, "--nfe", "3"]
    assert sample.main([*argv, "--prompts", str(file)]) == 0
    from_file = capsys.readouterr().out
    flags = [part for prompt in PROMPTS[:2] for part in ("--prompt", prompt)]
    assert sample.main([*argv, *flags, "--use-chat-template"]) == 0
    assert capsys.readouterr().out == from_file
    assert sample.main([*argv, *flags]) == 0
    assert capsys.readouterr().out != from_file
    call = {"max_new_tokens": 8, "block_length": 4, "num_inference_steps": 6, "generator": noise(0, 1)}
    assert from_file.rstrip("\n").split("\n\n") == tiny_answerer(seed=2)(messages=chats, **call).texts


def test_an_early_stop_saves_calls_and_changes_no_text(
    model: str, prompts: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, hidden_states = [0], MaskedLMDenoiser.hidden_states

    def counted(self: MaskedLMDenoiser, tokens: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        rows[-1] += len(tokens)
        return hidden_states(self, tokens, *args, **kwargs)

    monkeypatch.setattr(MaskedLMDenoiser, "hidden_states", counted)
    argv = ["--model", model, "--prompts", prompts, "--max-new-tokens", "32", "--block-length", "4", "--nfe", "4"]
    outs = []
    for stop in ([], ["--eos-early-stop"]):
        rows.append(0)
        assert sample.main([*argv, *stop, "--eos-token-id", "1", "6"]) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1] and rows[2] < rows[1]


def test_a_default_length_is_that_of_all_prompts(model: str, prompts: str, tmp_path: Path) -> None:
    """What the longest leaves room for."""
    assert (
        sample.main(["--model", model, "--prompts", prompts, "--batch-size", "1", "--output", f"{tmp_path}/out"]) == 0
    )
    assert {len(row["ids"]) for row in lines(tmp_path / "out")} == {48 - 5}


def test_a_family_without_a_cache_says_so_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from helpers.tiny_language_models import save_bert

    save_bert(tmp_path)
    argv = ["--model", str(tmp_path), "--prompt", "the cat", "--max-new-tokens", "4", "--nfe", "2", "--cache", "dual"]
    assert sample.main(argv) == 0
    assert capsys.readouterr().err.count("keeps no keys and values") == 1


def test_known_mistakes_of_prompts(
    model: str, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, broken = ["--model", model], tmp_path / "broken.jsonl"
    fails(capsys, "lsd-sample", [*base, "--prompt", "a", "--prompts", prompts], "--prompt", "--prompts")
    fails(capsys, "lsd-sample", [*base, "--block-length", "4"], "--block-length", "--prompt")
    fails(capsys, "lsd-sample", [*base, "--prompt", "a", "--prefix", "b"], "--prompt", "--prefix")
    fails(capsys, "lsd-sample", [*base, "--prompt", "a", "--length", "9"], "--length", "--max-new-tokens")
    fails(capsys, "lsd-sample", [*base, "--prompts", str(tmp_path / "none")], "none")
    for content in ('{"question": "a"}', '["a"]', "a", '{"messages": [{"content": "a"}]}'):
        broken.write_text('"a"\n' + content + "\n")
        fails(capsys, "lsd-sample", [*base, "--prompts", str(broken)], "--prompts", "line 2", "messages")
    broken.write_text('"a"\n{"messages": [{"role": "user", "content": "a"}]}\n')
    fails(capsys, "lsd-sample", [*base, "--prompts", str(broken)], "--prompts", "one kind")
    broken.write_text("\n")
    fails(capsys, "lsd-sample", [*base, "--prompts", str(broken)], "holds no prompt")
    fails(capsys, "lsd-sample", [*base, "--prompt", "a", "--max-new-tokens", "99"], "max_new_tokens", "48")
    fails(capsys, "lsd-sample", [*base, "--prompt", "a", "--resume"], "--resume", "--output")
    fails(capsys, "lsd-train", [*base, "--block-length", "4"], "--block-length", "--prompt")
    fails(capsys, "lsd-train", [*base, "--tasks", "x", "--cache", "dual"], "--tasks", "--cache")
    fails(capsys, "lsd-train", [*base, "--prompt", "a", "--given", "0.5"], "--prompt", "--given")
    fails(capsys, "lsd-train", ["--pipeline", model, "--prompt", "a", *BLOCKS], "--max-new-tokens", "--model")
    fails(capsys, "lsd-eval", [*base, "--block-length", "4"], "--block-length", "--tasks")
    fails(capsys, "lsd-eval", [*base, "--tasks", "x", "--length", "9", *BLOCKS], "--length", "--max-new-tokens")


# ---- what is kept of a run that was stopped ----


def test_a_stopped_run_goes_on(
    model: str, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was drawn is drawn no more, a line cut short is; the result is that of one run."""
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    argv = ["--model", model, "--prompts", prompts, *BLOCKS, "--nfe", "2", "--batch-size", "1"]
    assert sample.main([*argv, "--output", str(whole)]) == 0
    printed = capsys.readouterr().out
    asked, call = [], sample.call

    def watched(args: Any, pipeline: Any, samples: Any, **kwargs: Any) -> Any:
        if len(asked) == 3 and not out.exists():
            raise KeyboardInterrupt
        asked.append(samples)
        return call(args, pipeline, samples, **kwargs)

    monkeypatch.setattr(sample, "call", watched)
    assert sample.main([*argv, "--output", str(out)]) == 130
    part = tmp_path / "out.jsonl.part"
    assert len(part.read_text().splitlines()) == 4 and not out.exists()
    part.write_text(part.read_text()[:-9])
    capsys.readouterr()
    fails(capsys, "lsd-sample", [*argv, "--output", str(out)], "unfinished run", "--resume", "--overwrite")
    other = [*argv, "--seed", "1", "--output", str(out), "--resume"]
    fails(capsys, "lsd-sample", other, "other options", "--overwrite")
    asked.clear()
    asked.extend([[9], [9]])
    monkeypatch.setattr(sample, "call", lambda *args, **kwargs: (asked.append(args[2]), call(*args, **kwargs))[1])
    assert sample.main([*argv, "--output", str(out), "--resume", "--batch-size", "2"]) == 0
    assert asked[2:] == [[2, 3]]
    assert out.read_bytes() == whole.read_bytes() and not part.exists()
    assert capsys.readouterr().out == printed


def test_overwrite_starts_over(model: str, prompts: str, tmp_path: Path) -> None:
    (tmp_path / "out.part").write_text("whatever\n")
    argv = ["--model", model, "--prompts", prompts, *BLOCKS, "--nfe", "2", "--output", str(tmp_path / "out")]
    assert sample.main([*argv, "--overwrite"]) == 0
    assert len(lines(tmp_path / "out")) == 4 and not (tmp_path / "out.part").exists()


# ---- lsd-train ----


TINY = ["--method", "path_kl", "--nfe", "2", "4", "--num-sequences", "4", "--order", "halton"]


def test_a_sampler_is_learned_for_a_block(
    model: str, prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cache its costs are others. It is used with the same flags, and its card says how it was made."""
    found = {}
    for cache in ("none", "dual"):
        out = tmp_path / cache
        argv = ["--model", model, "--prompts", prompts, "--max-new-tokens", "16", "--block-length", "8"]
        argv += ["--cache", cache, *TINY, "--cache-dir", str(tmp_path / "paths"), "--output-dir", str(out)]
        assert train.main(argv) == 0
        found[cache] = [r["path_kl"] for r in records(out) if r["event"] == "schedule"]
        scheduler = LSDScheduler.from_pretrained(out)
        assert scheduler.learned_sampler.step_error is not None
        argv = ["--model", model, "--sampler", str(out), "--prompt", "a b", "--nfe", "4", "--block-length", "8"]
        assert sample.main([*argv, "--max-new-tokens", "16", "--cache", cache]) == 0
    assert found["none"] != found["dual"]
    run = json.loads((tmp_path / "dual" / "config.json").read_text())["run"]
    assert (run["block_length"], run["max_new_tokens"], run["cache"], run["prompts"]) == (8, 16, "dual", prompts)
    assert "cache" not in json.loads((tmp_path / "none" / "config.json").read_text())["run"]
    card = (tmp_path / "dual" / "README.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # as many steps as the blocks need


def test_no_sampler_is_learned_with_a_cache_of_shifted_rows(
    prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dream = save(tmp_path / "dream", "dream")
    argv = ["--model", dream, "--prompts", prompts, *BLOCKS, *TINY, "--cache", "dual"]
    fails(capsys, "lsd-train", argv, "--cache", "first token of a block")


@pytest.mark.parametrize("guidance", [None, "1.5"])
@pytest.mark.parametrize("family", ["llada", "dream framed"])
def test_a_dry_run_says_the_memory_of_the_cache(
    family: str, guidance: str | None, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is that of the tensors that the pipeline's calls keep."""
    model = save(tmp_path / "model", family)
    argv = ["--model", model, "--prompts", prompts, *BLOCKS, *TINY, "--dry-run"]
    argv += [] if guidance is None else ["--guidance-scale", guidance]
    pipe = tiny_answerer(family, seed=2)
    call: dict[str, Any] = {"max_new_tokens": 8, "block_length": 4, "cache": "dual"}
    call["guidance_scale"] = None if guidance is None else 1.5
    kept = watched_bytes(pipe, prompt=PROMPTS, **call)
    assert pipe.cache_bytes({"prompt": PROMPTS, **call}, len(PROMPTS)) == kept > 0
    if family == "llada":
        assert train.main([*argv, "--cache", "dual"]) == 0
        memory = json.loads(capsys.readouterr().out)["memory_bytes"]
        assert memory["cache"] == kept and memory["total"] == sum(memory.values()) - memory["total"]
    assert train.main(argv) == 0
    assert "cache" not in json.loads(capsys.readouterr().out)["memory_bytes"]


def watched_bytes(pipe: Any, **call: Any) -> int:
    """The most that the cache of a call holds."""
    seen, update = [0], KeyValueCache.update

    def watched(self: KeyValueCache, *args: Any, **kwargs: Any) -> Any:
        result = update(self, *args, **kwargs)
        seen.append(self.nbytes)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeyValueCache, "update", watched)
        pipe(**call)
    return max(seen)


@pytest.mark.parametrize(("name", "layers", "heads"), [("llada-8b", 32, 32), ("dream-7b", 28, 4)])
def test_a_dry_run_of_a_model_that_is_not_loaded(
    name: str, layers: int, heads: int, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """8 blocks of 32 masks; a cache of 16-bit keys and values of width 128."""
    argv = ["--model", name, "--prompts", prompts, "--max-new-tokens", "256", "--block-length", "32"]
    assert train.main([*argv, "--cache", "dual", "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["canvases"] == 8 and told["masked_positions"] == [32, 32]
    assert told["cache_bytes_per_position"] == 2 * layers * heads * 128 * 2


# ---- lsd-eval ----


def test_tasks_are_answered_in_blocks(model: str, tmp_path: Path) -> None:
    """Right answers and calls are those of the pipeline by hand."""
    pipe = tiny_answerer(seed=2)
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    call = {"max_new_tokens": 8, "block_length": 4, "cache": "dual", "temperature": 0.0, "eos_early_stop": True}
    made = pipe(messages=chats, num_inference_steps=4, generator=torch.Generator().manual_seed(0), **call)
    answers = [text if i % 2 else "nothing" for i, text in enumerate(made.texts)]
    items = [{"prompt": prompt, "answer": answer} for prompt, answer in zip(PROMPTS, answers, strict=True)]
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps(item) + "\n" for item in items))
    argv = ["--model", model, "--tasks", str(tasks), *BLOCKS, "--cache", "dual", "--eos-early-stop", "--nfe", "2"]
    argv += [
        "--use-chat-template",
        "--temperatures",
        "0",
        "--headline-limit",
        "2",
        "--output-dir",
        str(tmp_path / "out"),
    ]
    assert evaluate.main(argv) == 0
    (row,) = lines(tmp_path / "out" / "metrics.jsonl")
    assert row["right_share"] == 0.5 and row["length"] == 8
    assert row["network_calls"] == float(made.sequence_calls.double().mean())
    summary = (tmp_path / "out" / "summary.json").read_text()
    assert "blocks of 4 tokens" in summary and "cache: dual" in summary


def test_blocks_are_of_prompts(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"prompt": "a", "answer": "b"}\n{"canvas": "a [MASK]", "answer": "a b"}\n')
    argv = ["--model", model, "--tasks", str(tasks), *BLOCKS, "--output-dir", str(tmp_path / "out")]
    fails(capsys, "lsd-eval", argv, "--tasks", "item 1", "canvas")
