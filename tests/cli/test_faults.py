"""Faults that stop `lsd-train`: what was kept, and which flag to lower."""

from pathlib import Path

import pytest

from lsd_sampler import DistillConfig
from lsd_sampler.cli.faults import batch_flag, keeping_progress


def test_the_flag_of_a_batch() -> None:
    config = DistillConfig(method="lsd", num_sequences=64, batch_size=64)
    assert batch_flag(config, 64) == ("--batch-size", 64)
    assert batch_flag(config, 128) == ("--num-sequences", 64)


def test_a_full_disk_says_what_is_kept(tmp_path: Path) -> None:
    """An interrupt says how to go on, if there is something to go on from; other errors are as they were."""
    config = DistillConfig()

    def said(error: BaseException) -> str:
        with pytest.raises(type(error)) as caught, keeping_progress(tmp_path, config, None):
            raise error
        return str(caught.value)

    assert said(KeyboardInterrupt()) == "" and said(OSError("full")) == "full."
    for i in range(2):
        (tmp_path / f"progress-{i}.safetensors").touch()
    assert said(KeyboardInterrupt()) == "go on with `--resume`"
    assert said(OSError("full.")) == f"full. 2 finished parts are kept in {tmp_path}: go on with `--resume`."
    assert said(RuntimeError("a shape")) == "a shape"
