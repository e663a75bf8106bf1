"""An estimate of memory, by what needs it."""

from dataclasses import replace

from lsd_sampler.denoisers.sizes import ModelSize
from lsd_sampler.sampling.logit_rows import HEAD_ELEMENTS
from lsd_sampler.training.budget import memory_needed, process_bytes


SIZE = ModelSize(1000, 2, length=16, columns=50_000, widest=8, defers_head=False)


def test_parts_of_a_small_model_by_hand() -> None:
    """Weights in their own precision, all else in float32; two whole outputs without a deferred head."""
    assert memory_needed(SIZE, 10, 3, 7) == {
        "weights": 2000,
        "activations": 3 * (3 * 10 * 8) * 4,
        "logits": 2 * (3 * 10 * 50_000) * 4,
        "kept": 7,
    }


def test_a_deferred_head_bounds_the_logits() -> None:
    """However large the batch, and never by more than there are."""
    deferred = replace(SIZE, defers_head=True)
    many, more = (memory_needed(deferred, 1024, batch, 0)["logits"] for batch in (64, 128))
    assert many == more == 3 * HEAD_ELEMENTS * 4 < memory_needed(SIZE, 1024, 64, 0)["logits"]
    assert memory_needed(deferred, 1, 1, 0)["logits"] == 3 * 50_000 * 4


def test_memory_of_the_process_is_in_bytes() -> None:
    block = b"x" * 2**26
    assert process_bytes() > len(block)
