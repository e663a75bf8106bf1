"""Constants of solvers: read, saved, loaded and overridden."""

import json
from pathlib import Path
from typing import Any

import torch

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chain(solver: str, length: int = 12, seed: int = 0, **config: Any) -> MaskedDiffusionPipeline:
    denoiser = load_denoiser(f"markov:V=4,L={length},seed={seed}")
    pipeline = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config(), solver=solver, **config))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_options_are_saved_loaded_and_overridden(tmp_path: Path) -> None:
    pipeline = chain("remdm_loop", solver_options={"eta": 1, "t_on": 0.7})
    scheduler, call = pipeline.scheduler, {"num_samples": 16, "num_inference_steps": 12}
    assert scheduler.config.solver_options == {"eta": 1.0, "t_on": 0.7}
    scheduler.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "scheduler_config.json").read_text())["solver_options"] == {"eta": 1.0, "t_on": 0.7}
    drawn = pipeline(generator=seeded(), **call).sequences
    for again in (LSDScheduler.from_pretrained(tmp_path), LSDScheduler.from_config(scheduler.config)):
        assert again.config.solver_options == {"eta": 1.0, "t_on": 0.7}
        pipeline.scheduler = again
        assert torch.equal(pipeline(generator=seeded(), **call).sequences, drawn)
    other = LSDScheduler.from_pretrained(tmp_path, solver="dndm", solver_options={"greedy": True})
    assert other.config.solver_options == {"greedy": True}
    assert LSDScheduler.from_config(scheduler.config, solver="euler", solver_options=None).config.solver == "euler"
