"""What is kept of a distillation that was stopped."""

from pathlib import Path

import pytest
import torch
from helpers.small_distillations import pipeline_of
from safetensors import safe_open
from safetensors.torch import save_file

from lsd_sampler import DistillConfig, distill
from lsd_sampler.denoisers import random_chain
from lsd_sampler.training.progress import Progress


def test_time_goes_on_from_what_was_kept(tmp_path: Path) -> None:
    """So a card tells the time of the whole work, not that of its last run; nor that of other work."""
    Progress(tmp_path, {"seed": 0}).save("part", {"x": torch.zeros(1)})
    path = tmp_path / "progress-part.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({"x": torch.zeros(1)}, path, metadata={**metadata, "seconds": "1000000.5"})
    again = Progress(tmp_path, {"seed": 0}, resume=True)
    assert again.seconds >= 1000000.5 and again.part("later").seconds >= 1000000.5
    again.save("next", {"x": torch.zeros(1)})
    path.unlink()
    assert Progress(tmp_path, {"seed": 0}, resume=True).seconds >= 1000000.5
    assert Progress(tmp_path, {"seed": 1}, resume=True).seconds < 1000000
    (tmp_path / "progress-damaged.safetensors").write_bytes(b"no tensors")
    assert Progress(tmp_path, {"seed": 0}, resume=True).seconds >= 1000000.5
    assert Progress(tmp_path, {"seed": 0}).seconds < 1000000  # it begins anew


def test_what_was_kept_of_another_model_is_refused(tmp_path: Path) -> None:
    """Models of one class and size, and of one name, differ in their weights."""
    config = DistillConfig(method="path_kl", nfe=(2,), num_sequences=4)
    distill(pipeline_of(random_chain(4, 16, seed=1)), config, checkpoint_dir=tmp_path)
    distill(pipeline_of(random_chain(4, 16, seed=1)), config, checkpoint_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="begun with other options, another model"):
        distill(pipeline_of(random_chain(4, 16, seed=2)), config, checkpoint_dir=tmp_path, resume=True)
    halved = random_chain(4, 16, seed=1)
    halved.transition = halved.transition.float()
    with pytest.raises(ValueError, match="begun with other options, another model"):
        distill(pipeline_of(halved), config, checkpoint_dir=tmp_path, resume=True)
