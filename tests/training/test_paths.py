"""Where the sequences of a distillation come from: the teacher (and its cache on disk), data, or a bootstrap."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.learned_tensors import same_learned
from helpers.small_distillations import pipeline_of, seen_by
from safetensors.torch import load_file

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.cli import train
from lsd_sampler.denoisers import RADDDenoiser, countdown, random_chain
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.training.recording import TeacherRecorder


L = 16
SMALL = {"nfe": (2, 4), "num_sequences": 6, "batch_size": 4}


def table(scheduler: LSDScheduler) -> torch.Tensor:
    assert scheduler.learned_sampler.step_error is not None
    return scheduler.learned_sampler.step_error.table


def final_sequences(pipe: MaskedDiffusionPipeline, order: str, steps: int, num: int) -> torch.Tensor:
    """How the sequences of seed 0 end."""
    sampler = TeacherRecorder.from_config(pipe.scheduler.config, order=order)
    PipelineRuns(pipe, 0, {}).run(sampler, steps, range(num))
    return sampler.canvases[0].final_BL


# ---- data and bootstrap ----


@pytest.mark.parametrize("order", ["random", "halton"])
def test_what_counts_of_a_path_is_how_it_ends(order: str) -> None:
    """Data that are the teacher's final sequences give the teacher's table, bit for bit, without the teacher."""
    pipe = pipeline_of(random_chain(4, L))
    finals = final_sequences(pipe, order, L, 6)
    by_teacher = distill(pipe, DistillConfig(method="path_kl", order=order, paths="teacher", **SMALL))
    canvases = seen_by(pipe.denoiser)
    by_data = distill(pipe, DistillConfig(method="path_kl", order=order, **SMALL), data=finals)
    assert torch.equal(table(by_data), table(by_teacher))
    assert len(canvases) == 1 + 2 * L


@pytest.mark.parametrize("order", ["random", "halton"])
def test_a_bootstrap_is_the_base_solver_in_low_discrepancy_order(order: str) -> None:
    pipe = pipeline_of(random_chain(4, L))
    finals = final_sequences(pipe, "halton", 5, 6)
    records: list[dict[str, Any]] = []
    config = DistillConfig(method="path_kl", order=order, paths="bootstrap", bootstrap_steps=5, **SMALL)
    bootstrapped = distill(pipe, config, log=records.append)
    assert torch.equal(
        table(bootstrapped), table(distill(pipe, DistillConfig(method="path_kl", order=order, **SMALL), data=finals))
    )
    assert records[-1]["network_calls"] == 1 + 2 * (5 + L)
    assert next(r["source"] for r in records if r["event"] == "teacher") == "bootstrap"


# ---- the cache ----


def test_teacher_paths_are_made_once_for_all_methods_and_numbers_of_calls(tmp_path: Path) -> None:
    """The result is the same, and so is the cost that is told; the teacher makes no second run."""
    pipe = pipeline_of(random_chain(4, L))
    runs = [
        {"method": "lsd", "order": "random", "nfe": (2,)},
        {"method": "lsd+", "nfe": (2, 4), "epochs": 2},
        {"method": "jys", "nfe": (2,)},
        {"method": "path_kl", "order": "random", "nfe": (3,)},
    ]
    canvases = seen_by(pipe.denoiser)
    for first, options in enumerate(runs):
        config, told, made = DistillConfig(num_sequences=6, batch_size=4, **options), [], []
        for folder in (None, tmp_path):
            before, records = len(canvases), []
            learned = distill(pipe, config, log=records.append, cache_dir=folder)
            made.append(len(canvases) - before)
            told.append((records[-1]["network_calls"], learned))
        assert made[0] - made[1] == (2 * L if first else 0)
        assert told[0][0] == told[1][0] == made[0]
        assert same_learned(told[0][1], told[1][1])
    files = list(tmp_path.iterdir())
    assert len(files) == 2  # a batch each
    assert all(not t.is_floating_point() for file in files for t in load_file(file).values())


def test_another_teacher_is_never_taken_for_it(tmp_path: Path) -> None:
    """Other weights, seed, call, order or steps: other files."""
    model = {"hidden_size": 8, "n_heads": 2, "n_blocks": 1, "length": L, "dropout": 0.0, "type": "ddit_wot"}
    network = RADDDenoiser({"tokens": 5, "noise": {"type": "loglinear"}, "model": model})
    pipe, options = pipeline_of(network), {"method": "lsd", "order": "random", "nfe": (2,), "num_sequences": 2}

    def files(call: dict[str, Any] | None = None, **others: Any) -> int:
        distill(pipe, DistillConfig(**{**options, **others}), cache_dir=tmp_path, **(call or {}))
        return len(list(tmp_path.iterdir()))

    assert files() == files() == 1
    assert files(seed=1) == 2
    assert files(order="halton") == 3
    assert files(teacher_steps=8) == 4
    assert files(call={"prefix": [1]}) == 5
    with torch.no_grad():
        next(network.parameters()).flatten()[0] += 1e-3
    assert files() == 6 == files()


def test_a_cache_that_cannot_be_used_is_done_without(tmp_path: Path) -> None:
    pipe, config = pipeline_of(countdown(4, L)), DistillConfig(method="lsd", nfe=(2,), num_sequences=2)
    want = distill(pipe, config).steps_for(2)
    (tmp_path / "file").write_text("in the way")
    distill(pipe, config, cache_dir=tmp_path / "cache")
    (stored,) = (tmp_path / "cache").iterdir()
    stored.write_bytes(stored.read_bytes()[:-7])
    for folder in ("file", "cache"):
        got = distill(pipe, config, cache_dir=tmp_path / folder).steps_for(2)
        assert torch.equal(got.log_score_coefficients, want.log_score_coefficients)


# ---- lsd-train ----


def test_lsd_train_takes_ids_of_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The card says what it was; a damaged file is named, with the line."""
    chain, file = countdown(4, L), tmp_path / "data.jsonl"
    rows = chain.sample(8, torch.Generator().manual_seed(0)).tolist()
    file.write_text("".join(json.dumps({"ids": row}) + "\n" for row in rows))
    argv = ["--model", f"countdown:V=4,L={L}", "--method", "path_kl", "--nfe", "2", "--num-sequences", "4"]
    argv += ["--data", str(file), "--output-dir", str(tmp_path / "out")]
    assert train.main([*argv, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert train.main(argv) == 0
    done = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert done["network_calls"] == planned["network_calls"] == 1 + L
    assert "4 real sequences, seed 0" in (tmp_path / "out" / "README.md").read_text()
    argv.append("--overwrite")
    for text, words in (
        ('{"ids": [1]}\n{"ids": "x"}', "line 2"),
        ("", "rows of ids"),
        ('{"ids": [1]}\n{"ids": []}', "one"),
    ):
        file.write_text(text)
        assert train.main(argv) == 1
        assert words in capsys.readouterr().err
    assert train.main([*argv, "--data", str(tmp_path / "text.txt")]) == 1
    assert "no tokenizer" in capsys.readouterr().err
