"""Every family with a mask, from its files through `lsd-train` to `lsd-sample`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import make
from helpers.reference_language_models import DREAM, GPT2, LLADA, diffugpt_tensors, dream_tensors, llada_tensors, save
from helpers.tiny_language_models import save_bert, save_esm, save_modernbert, save_roberta

from lsd_sampler import LSDScheduler, load_denoiser
from lsd_sampler.cli import sample, train
from lsd_sampler.denoisers import SHORT_NAMES, MaskGITDenoiser
from lsd_sampler.denoisers.sizes import ModelSize
from lsd_sampler.training import DistillConfig
from lsd_sampler.training.cost import memory
from lsd_sampler.training.teacher_plan import TeacherPlan


def save_maskgit(folder: Path) -> None:
    sizes = {"input_size": 3, "hidden_dim": 12, "codebook_size": 7, "depth": 1, "heads": 3, "nclass": 4}
    MaskGITDenoiser(sizes).save_pretrained(folder)


def save_diffugpt(folder: Path) -> None:
    """With its mask where the published small one has it: a token of the vocabulary."""
    config = {**GPT2, "masked_diffusion": {"mask_token_id": 5, "shifted": True, "reused_mask": True}}
    save(folder, config, diffugpt_tensors())


FAMILIES: dict[str, Callable[[Path], Any]] = {
    "radd": lambda folder: make("radd").save_pretrained(folder),
    "sedd": lambda folder: make("sedd").save_pretrained(folder),
    "mdlm": lambda folder: make("mdlm").save_pretrained(folder),
    "mdlm-time": lambda folder: make("mdlm-time").save_pretrained(folder),
    "mdlm-repository": lambda folder: make("mdlm-repository").save_pretrained(folder),
    "maskgit": save_maskgit,
    "bert": save_bert,
    "modernbert": save_modernbert,
    "esm": save_esm,
    "roberta": save_roberta,
    "llada": lambda folder: save(folder, {**LLADA, "max_sequence_length": 12}, llada_tensors()),
    "dream": lambda folder: save(folder, {**DREAM, "max_position_embeddings": 12}, dream_tensors()),
    "diffugpt": save_diffugpt,
}


@pytest.mark.parametrize("name", list(FAMILIES))
def test_from_files_to_samples(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With both methods; the sampler's config says what the model is, and all calls were foreseen."""
    model = tmp_path / "model"
    model.mkdir()
    FAMILIES[name](model)
    common = ["--model", str(model), "--nfe", "2", "3", "--num-sequences", "2", "--teacher-steps", "6"]
    for method in ("path_kl", "lsd"):
        argv = [*common, "--method", method, "--output-dir", str(tmp_path / method)]
        assert train.main([*argv, "--dry-run"]) == 0
        planned = json.loads(capsys.readouterr().out)
        assert train.main(argv) == 0, capsys.readouterr().err
        done = json.loads((tmp_path / method / "metrics.jsonl").read_text().splitlines()[-1])
        assert done["network_calls"] <= planned["network_calls"] and planned["memory_bytes"]["total"] > 0
        out = tmp_path / f"{method}.jsonl"
        argv = ["--model", str(model), "--sampler", str(tmp_path / method), "--nfe", "3", "--output", str(out)]
        assert sample.main([*argv, "--num-samples", "2"]) == 0, capsys.readouterr().err
        capsys.readouterr()
        ids = torch.tensor([json.loads(line)["ids"] for line in out.read_text().splitlines()])
        denoiser, config = load_denoiser(model), LSDScheduler.from_pretrained(tmp_path / method).config
        assert ids.shape == (2, denoiser.length) and not bool((ids == denoiser.mask_token_id).any())
        assert config.mask_token_id == denoiser.mask_token_id and config.prediction_type == denoiser.prediction_type


# ---- what is known of published models before they are there ----


def test_memory_grows_with_what_needs_it() -> None:
    size = SHORT_NAMES["sedd-small"].size
    config = DistillConfig(method="path_kl", num_sequences=4, nfe=(4, 8), num_states=16)

    def total(size: ModelSize = size, length: int = 1024, **options: Any) -> int:
        changed = DistillConfig(**{**config.to_dict(), **options})
        return sum(memory(size, changed.resolve(TeacherPlan(length, 1, length, 0))).values())

    assert total() < total(num_sequences=8) < total(num_sequences=8, method="lsd")
    assert total(batch_size=2) < total() and total(length=128) < total()
    whole = ModelSize(**{**vars(size), "defers_head": False})
    assert total(whole) - total() > 4 * 1024 * 50258 * 4  # at least a whole output more
    assert total(method="lsd", domain="log_score") > total(method="lsd")
