"""`lsd-sample` end to end: samples of learned and plain samplers, whatever the batch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import MODEL, TINY, fails, records

from lsd_sampler.cli import sample, train
from lsd_sampler.denoisers import MarkovDenoiser


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.mark.parametrize("method", ["path_kl", "lsd"])
def test_sample(folders: dict[str, Path], method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--model", MODEL, "--sampler", str(folders[method]), "--nfe", "4", "--num-samples", "3"]
    output = tmp_path / "new" / "samples.jsonl"
    outs = []
    for seed in ("0", "0", "1"):
        assert sample.main([*argv, "--seed", seed, "--output", str(output)]) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1] != outs[2]
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert "\n\n".join(line["text"] for line in lines) + "\n" == outs[2]
    assert all(len(line["ids"]) == 32 and 0 <= min(line["ids"]) <= max(line["ids"]) < 8 for line in lines)
    assert len(lines) == 3


@pytest.mark.parametrize("name", ["path_kl", "lsd", "plain"])
def test_samples_do_not_depend_on_the_batch_size(
    folders: dict[str, Path],
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has noise of its own; and no batch is larger than asked for."""
    argv = ["--model", MODEL, "--nfe", "8", "--num-samples", "5", "--output", str(tmp_path / "samples")]
    argv += ["--sampler", str(folders[name])] if name in folders else ["--temperature", "0.7"]
    found, sizes, forward = [], [], MarkovDenoiser.forward

    def watched(self: MarkovDenoiser, tokens: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        sizes.append(len(tokens))
        return forward(self, tokens, *args, **kwargs)

    monkeypatch.setattr(MarkovDenoiser, "forward", watched)
    for size in ("64", "5", "2", "1"):
        sizes.clear()
        assert sample.main([*argv, "--batch-size", size]) == 0
        found.append((capsys.readouterr().out, (tmp_path / "samples").read_text()))
        assert max(sizes) == min(int(size), 5)
    assert found == [found[0]] * 4 and len(set(found[0][1].splitlines())) == 5


def test_sample_without_a_sampler_is_the_base_solver(capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main(["--model", MODEL, "--num-samples", "1", "--length", "10", "--temperature", "0"]) == 0
    assert len(capsys.readouterr().out.split()) == 10


def test_path_kl_can_do_any_number_of_steps(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main(["--model", MODEL, "--sampler", str(folders["path_kl"]), "--nfe", "11"]) == 0
    assert len(capsys.readouterr().out.split()) == 4 * 32


def test_more_steps_than_a_table_has_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Card and error say how many there are; the error, how to have more."""
    out = tmp_path / "out"
    assert train.main([*TINY, "--num-states", "8", "--output-dir", str(out)]) == 0
    states = next(r["states"] for r in records(out) if r["event"] == "step_error")
    assert f"for any number of calls up to {states} follows" in (out / "README.md").read_text()
    argv = ["--model", MODEL, "--sampler", str(out), "--nfe"]
    assert sample.main([*argv, str(states)]) == 0
    capsys.readouterr()
    advice = "distil again with a larger `--num-states`."
    fails(capsys, "lsd-sample", [*argv, str(states + 1)], f"[1, {states}]", f"got {states + 1}: {advice}")


def test_known_mistakes_of_sample(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lsd, table = str(folders["lsd"]), str(folders["path_kl"])
    base = ["--model", MODEL]
    fails(capsys, "lsd-sample", ["--model", "radx"], "'radx'", "Did you mean 'radd'?")
    fails(capsys, "lsd-sample", [*base, "--sampler", lsd, "--nfe", "16"], "[4, 8]", "16", "lsd-train --nfe")
    fails(capsys, "lsd-sample", [*base, "--sampler", table, "--nfe", "33"], "33", "32", "only 32 tokens")
    missing = str(tmp_path / "no" / "such" / "sampler")
    fails(capsys, "lsd-sample", [*base, "--sampler", missing], "--sampler", missing)
    fails(capsys, "lsd-sample", [*base, "--sampler", str(tmp_path)], "scheduler_config.json")
    fails(capsys, "lsd-sample", ["--model", "countdown:V=9,L=32", "--sampler", lsd], "mask_token_id")
    fails(capsys, "lsd-sample", [*base, "--prefix", "once"], "prefix", "tokenizer")
    fails(capsys, "lsd-sample", [*base, "--temperature", "-1"], "temperature")
    fails(capsys, "lsd-sample", [*base, "--output", str(tmp_path)], str(tmp_path))
    assert not list(tmp_path.iterdir())
