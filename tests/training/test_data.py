"""Real sequences: what can be learned from, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_distillations import pipeline_of

from lsd_sampler import DistillConfig, distill
from lsd_sampler.denoisers import random_chain


L = 16
SMALL = {"nfe": (2, 4), "num_sequences": 6, "batch_size": 4}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch.zeros(6, L), "`data` must be token ids of shape .num, seq_len., integers, got torch.float32"),
        (torch.zeros(6, dtype=torch.int64), "`data` must be token ids of shape"),
        (torch.zeros(6, L + 1, dtype=torch.int64), f"`data` has {L + 1} tokens in a sequence"),
        (torch.zeros(5, L, dtype=torch.int64), "`data` has 5 sequences, fewer than `num_sequences` 6"),
        (torch.full((6, L), 4), "without the mask 4"),
        (torch.full((6, L), -1), "got -1"),
        (torch.full((6, L), 9), "`data` must be token ids below 4, got 9"),
    ],
)
def test_unusable_data_are_refused(data: torch.Tensor, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        distill(
            pipeline_of(random_chain(4, L)),
            DistillConfig(method="path_kl", **SMALL),
            data=data,
            checkpoint_dir=tmp_path / "p",
        )
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32])
@pytest.mark.parametrize(
    "options",
    [
        {"method": "path_kl"},
        {
            "candidates": ("path_kl:halton", "forced_kl:entropy"),
            "held_out_sequences": 2,
            "coefficients": "plain",
            "search_evaluations": 500,
        },
    ],
)
def test_data_may_be_of_any_integer_type(dtype: torch.dtype, options: dict[str, Any], tmp_path: Path) -> None:
    """The same result, and so the same work to go on with."""
    chain = random_chain(4, L)
    data, config = chain.sample(8, torch.Generator().manual_seed(0)), DistillConfig(**SMALL, **options)
    want = distill(pipeline_of(chain), config, data=data, checkpoint_dir=tmp_path)
    got = distill(pipeline_of(chain), config, data=data.to(dtype), checkpoint_dir=tmp_path, resume=True)
    assert torch.equal(got.steps_for(4).timesteps, want.steps_for(4).timesteps)
    fresh = distill(pipeline_of(chain), config, data=data.to(dtype))
    assert torch.equal(fresh.steps_for(4).timesteps, want.steps_for(4).timesteps)


def test_data_go_with_path_kl() -> None:
    pipe, data = pipeline_of(random_chain(4, L)), torch.zeros(6, L, dtype=torch.int64)
    with pytest.raises(ValueError, match="`data` is for `method` 'path_kl'"):
        distill(pipe, DistillConfig(method="lsd", **SMALL), data=data)
    with pytest.raises(ValueError, match="`paths` 'data' needs `data`"):
        distill(pipe, DistillConfig(method="path_kl", paths="data", **SMALL))
    with pytest.raises(ValueError, match="`paths` 'bootstrap' goes with `method` 'path_kl'"):
        DistillConfig(method="jys", paths="bootstrap", **SMALL)
