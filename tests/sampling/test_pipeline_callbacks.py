"""Callbacks: what they are shown, and what they may change."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lsd_sampler.sampling.pipeline_callbacks import Callbacks


PIPELINE = SimpleNamespace(_callback_tensor_inputs=["sample"])
T, SAMPLE = torch.tensor(0.5), torch.tensor([[1, 2, 3]])


def test_steps_and_blocks_are_counted() -> None:
    seen: list[tuple[Any, ...]] = []
    callbacks = Callbacks(
        PIPELINE,
        lambda *given: seen.append(given),
        ["sample"],
        lambda *given: seen.append(given),  # fmt: skip
    )
    for _ in range(2):
        assert callbacks.on_step(T, SAMPLE) is SAMPLE
        callbacks.on_block(SAMPLE, slice(1, 3))
    assert [(given[0] is PIPELINE, given[1]) for given in seen] == [(True, 0), (True, 0), (True, 1), (True, 1)]
    assert seen[0][2] is T and seen[0][3] == {"sample": SAMPLE}
    assert seen[1][2]["sample"] is SAMPLE and seen[1][2]["block_tokens"].tolist() == [[2, 3]]


@pytest.mark.parametrize("tensors", [None, [], ["sample"]])
def test_a_changed_sample_is_taken(tensors: list[str] | None) -> None:
    def change(_: Any, step: int, t: torch.Tensor, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert list(given) == (tensors or [])
        return {"sample": SAMPLE + 1}

    assert Callbacks(PIPELINE, change, tensors, None).on_step(T, SAMPLE).tolist() == [[2, 3, 4]]


def test_bad_callbacks_are_named() -> None:
    with pytest.raises(ValueError, match="`callback_on_step_end` must be a function"):
        Callbacks(PIPELINE, 3, None, None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`callback_on_block_end` must be a function"):
        Callbacks(PIPELINE, None, None, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="must be among .'sample'., got .'logits'."):
        Callbacks(PIPELINE, None, ["logits"], None)
