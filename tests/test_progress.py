"""What is kept of a distillation that was stopped."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

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
