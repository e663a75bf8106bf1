"""Saving and loading an LSDScheduler, alone and within a pipeline."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AmusedScheduler, DiffusionPipeline
from helpers.sampler_runs import MASK, fixed_model, generate, seeded, step_error, uneven

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.learned.tensor_file import TENSORS_NAME
from lsd_sampler.sampling.learned_numbers import LearnedSampler


@pytest.mark.parametrize("subfolder", [None, "scheduler"])
def test_save_and_load(tmp_path: Path, subfolder: str | None) -> None:
    canvas = torch.full((2, 16), MASK)
    model = fixed_model(canvas, MASK)
    for numbers in (None, uneven(), LearnedSampler(uneven().steps, step_error())):
        scheduler = LSDScheduler(mask_token_id=MASK, order="halton", solver="euler", vocab_size=MASK, base_model="a/b")
        if numbers:
            scheduler.set_learned_sampler(numbers)
        scheduler.save_pretrained(tmp_path / (subfolder or ""))
        assert (tmp_path / (subfolder or "") / TENSORS_NAME).exists() == bool(numbers)
        loaded = LSDScheduler.from_pretrained(tmp_path, subfolder=subfolder)
        options = [{k: v for k, v in s.config.items() if k[0] != "_"} for s in (scheduler, loaded)]
        assert options[0] == options[1]
        assert loaded.config.learned == bool(numbers)
        paths = [generate(s, model, canvas, 3, generator=seeded()) for s in (scheduler, loaded)]
        assert all(torch.equal(a, b) for a, b in zip(*paths, strict=True))


def test_saving_a_plain_sampler_over_a_learned_one(tmp_path: Path) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK)
    scheduler.set_learned_sampler(uneven())
    scheduler.save_pretrained(tmp_path)
    LSDScheduler(mask_token_id=MASK).save_pretrained(tmp_path)
    assert not (tmp_path / TENSORS_NAME).exists()
    assert not LSDScheduler.from_pretrained(tmp_path).learned_sampler


def test_options_may_be_overridden_on_load(tmp_path: Path) -> None:
    LSDScheduler(mask_token_id=MASK).save_pretrained(tmp_path)
    kwargs = {"count": "bernoulli", "colour": "red"}
    scheduler, unused = LSDScheduler.from_pretrained(tmp_path, return_unused_kwargs=True, **kwargs)
    assert (scheduler.config.count, unused["colour"]) == ("bernoulli", "red")
    assert "count" not in unused


def test_from_config_gives_the_plain_sampler() -> None:
    """Tensors do not travel in a config."""
    scheduler = LSDScheduler(mask_token_id=MASK, order="halton", solver="euler")
    scheduler.set_learned_sampler(uneven())
    plain = LSDScheduler.from_config(scheduler.config)
    assert (plain.config.order, plain.config.solver, plain.config.learned) == ("halton", "euler", False)
    assert not plain.learned_sampler
    plain.set_timesteps(12)
    foreign = LSDScheduler.from_config(AmusedScheduler(mask_token_id=77).config)
    assert foreign.config.mask_token_id == 77
    assert foreign.config.solver == LSDScheduler().config.solver


@pytest.mark.parametrize(("theirs", "ours"), [("cosine", "cosine"), ("linear", "uniform")])
def test_the_grid_of_amused_is_kept(
    theirs: str, ours: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a scheduler that is swapped in reveals as many tokens a step, up to rounding."""
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    amused = AmusedScheduler(mask_token_id=MASK, masking_schedule=theirs)
    amused.save_pretrained(tmp_path)
    swapped = LSDScheduler.from_config(amused.config)
    for scheduler in (swapped, LSDScheduler.from_pretrained(tmp_path)):
        assert (scheduler.config.schedule, scheduler.config.mask_token_id) == (ours, MASK)
    assert not [record for record in caplog.records if "masking_schedule" in record.getMessage()]
    assert LSDScheduler.from_config(amused.config, schedule="arccos").config.schedule == "arccos"
    assert LSDScheduler.from_config(swapped.config).config.schedule == ours
    left = []
    for scheduler in (amused, swapped):
        sample = torch.full((1, 8, 8), MASK)
        scheduler.set_timesteps(6)
        for t in scheduler.timesteps:
            logits = torch.zeros(1, MASK, 8, 8)
            sample = scheduler.step(logits, t, sample, generator=torch.Generator().manual_seed(0)).prev_sample
            left.append(int((sample == MASK).sum()))
    assert max(abs(a - b) for a, b in zip(left[:6], left[6:], strict=True)) <= 1


def test_saved_pipeline_reloads_in_another_process(tmp_path: Path) -> None:
    """diffusers finds our classes after a bare `import lsd_sampler`, tensors included."""
    pipe = MaskedDiffusionPipeline(load_denoiser("markov:V=5,L=8"), LSDScheduler(mask_token_id=MASK, vocab_size=MASK))
    pipe.scheduler.set_learned_sampler(uneven())
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path)
    code = (
        "import sys, torch, lsd_sampler\n"
        "from diffusers import DiffusionPipeline\n"
        "pipe = DiffusionPipeline.from_pretrained(sys.argv[1])\n"
        "pipe.set_progress_bar_config(disable=True)\n"
        "assert pipe.scheduler.available_num_inference_steps == [3]\n"
        "out = pipe(num_samples=4, num_inference_steps=3, generator=torch.Generator().manual_seed(0))\n"
        "print(out.sequences.tolist())\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    expected = pipe(num_samples=4, num_inference_steps=3, generator=seeded()).sequences
    assert json.loads(run.stdout.splitlines()[-1]) == expected.tolist()
    assert isinstance(DiffusionPipeline.from_pretrained(tmp_path).scheduler, LSDScheduler)


def test_what_the_numbers_were_learned_for_cannot_be_overridden(tmp_path: Path) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, order="halton")
    scheduler.set_learned_sampler(uneven(2))
    scheduler.save_pretrained(tmp_path)
    assert LSDScheduler.from_pretrained(tmp_path, confidence_temperature=2.0).config.order == "halton"
    with pytest.raises(ValueError, match="`order` cannot be overridden"):
        LSDScheduler.from_pretrained(tmp_path, order="random")
    config = json.loads((tmp_path / "scheduler_config.json").read_text())
    del config["learned"]
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="scheduler_config.json.*`learned`"):
        LSDScheduler.from_pretrained(tmp_path)


def test_missing_folder_is_one_sentence() -> None:
    with pytest.raises(FileNotFoundError, match="no folder '/no/such/sampler'"):
        LSDScheduler.from_pretrained("/no/such/sampler")
