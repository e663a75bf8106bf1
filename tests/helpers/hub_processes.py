"""What tests of the Hub run in processes of their own, and those processes.

`huggingface_hub` reads `HF_ENDPOINT` when it is imported, so what talks to the Hub runs in a fresh process.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from helpers.hub_server import TOKEN, HubServer
from helpers.tiny_pipelines import IMAGE_MASK

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.support.hub import upload_sampler


Run = Callable[..., Any]


@contextmanager
def process(hub: HubServer, cache: Path, **variables: str) -> Iterator[Run]:
    """A new Python process that knows this Hub and this cache; runs functions of this module there."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - environment(hub, cache).keys():
                patch.delenv(name)
            for name, value in {**environment(hub, cache), **variables}.items():
                patch.setenv(name, value)
            pool.submit(os.getpid).result()
        yield lambda function, *args, **kwargs: pool.submit(function, *args, **kwargs).result(timeout=120)


def environment(hub: HubServer, cache: Path) -> dict[str, str]:
    """Of this process, without what concerns the Hub."""
    foreign = ("HF_", "HUGGING", "TRANSFORMERS_", "DIFFUSERS_", "DISABLE_TELEMETRY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    hub_only = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
    return {**kept, **direct, **hub_only, **quiet}


# ---- what runs there ----


def make(number: int | None) -> LSDScheduler:
    """A plain sampler (`None`), or a learned one; different numbers differ in config and tensors."""
    scheduler = LSDScheduler(mask_token_id=IMAGE_MASK, block_length=1 + (number or 0))
    if number is not None:
        ones = torch.ones(2, dtype=torch.float64)
        times = torch.tensor([1.0, 0.5 + number / 1000, 1e-4], dtype=torch.float64)
        scheduler.set_learned_sampler(LearnedSampler({2: LearnedSteps(times, ones, ones)}))
    return scheduler


def contents(scheduler: LSDScheduler) -> dict[str, bytes]:
    """Its files: equal for samplers that are equal."""
    with tempfile.TemporaryDirectory() as folder:
        scheduler.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def load(name: str, **options: Any) -> dict[str, bytes]:
    return contents(LSDScheduler.from_pretrained(name, **options))


def push(number: int | None, repo_id: str, **options: Any) -> str:
    return make(number).push_to_hub(repo_id, **{"token": TOKEN, **options})


def push_saved(number: int | None, folder: str, **options: Any) -> None:
    make(number).save_pretrained(folder, push_to_hub=True, token=TOKEN, **options)


def push_folder(folder: Path, repo_id: str) -> str:
    return upload_sampler(folder, repo_id, token=TOKEN)


def describe_denoiser(name: str, **options: Any) -> dict[str, Any]:
    denoiser = load_denoiser(name, **options)
    weights = {key: value.tolist() for key, value in denoiser.state_dict().items()}
    return {"name": denoiser.name_or_path, "commit": denoiser.commit_hash, "weights": weights}


def sequences(name: str, scheduler: str | None = None, **options: Any) -> list[list[int]]:
    """What a pipeline of ours generates, with its own scheduler or another one."""
    pipe = MaskedDiffusionPipeline.from_pretrained(name, **options)
    if scheduler is not None:
        pipe.scheduler = LSDScheduler.from_pretrained(scheduler, **options)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe(num_samples=3, num_inference_steps=2, generator=generator).sequences.tolist()


def any_sequences(name: str) -> list[list[int]]:
    """The same, where diffusers itself finds out what kind of pipeline it is."""
    pipe: Any = DiffusionPipeline.from_pretrained(name)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe(num_samples=3, num_inference_steps=2, generator=generator).sequences.tolist()


def image(name: str, sampler: str | None = None, **options: Any) -> bytes:
    if sampler is not None:
        options["scheduler"] = LSDScheduler.from_pretrained(sampler, subfolder="scheduler")
    return draw(DiffusionPipeline.from_pretrained(name, **options))


def draw(pipe: Any) -> bytes:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    out = pipe("a", num_inference_steps=2, generator=generator, output_type="np")
    return np.asarray(out.images).tobytes()


def command(main: Callable[[list[str]], int], *argv: str) -> str:
    """What a command prints; its error as `OSError`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(argv))
    if code:
        raise OSError(err.getvalue().strip().splitlines()[-1])
    return out.getvalue()
