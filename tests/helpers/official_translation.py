"""The golden files of DNDM's translation models: `<model>.*` for each of two checkpoints, and recorded generations."""

import json
from functools import cache
from typing import Any

import torch
from safetensors.torch import load_file

from lsd_sampler import DNDMScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.denoisers.translation import TranslationDenoiser

from .golden_files import FIXTURES, fixture_path


FOLDER = "dndm_translation"
MODELS = ("absorbing", "multinomial")


def case_names() -> list[str]:
    """The recorded generations; a placeholder where the files are not here, whose test is then skipped."""
    file = FIXTURES / FOLDER / "cases.json"
    return [*json.loads(file.read_text())] if file.is_file() else ["absorbing.none"]


@cache
def _tensors() -> dict[str, torch.Tensor]:
    return load_file(fixture_path(FOLDER, "expected.safetensors"))


def golden(prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): x for name, x in _tensors().items() if name.startswith(prefix)}


def official(model: str, **options: Any) -> TranslationDenoiser:
    denoiser = load_denoiser(fixture_path(FOLDER, f"{model}.pt"), **options)
    assert isinstance(denoiser, TranslationDenoiser)
    return denoiser


def official_pipeline(model: str) -> MaskedDiffusionPipeline:
    pipeline = MaskedDiffusionPipeline.from_pretrained(fixture_path(FOLDER, f"{model}.pt"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sources(model: str) -> list[str]:
    """The source texts, in the order of the golden rows."""
    texts = json.loads(fixture_path(FOLDER, "config.json").read_text())["source_text"]
    return [texts[i] for i in golden(f"{model}.")["sentence"].tolist()]


def case(name: str) -> dict[str, Any]:
    return json.loads(fixture_path(FOLDER, "cases.json").read_text())[name]


def scheduler_of(denoiser: TranslationDenoiser, case: dict[str, Any]) -> DNDMScheduler:
    weights = "beta" if case["schedule"] == "Beta" else case["schedule"]
    options = {name: case[name] for name in ("alpha", "beta", "continuous")}
    return DNDMScheduler(**denoiser.dndm_config(top_k=not case["not_topk"], weights=weights, **options))
