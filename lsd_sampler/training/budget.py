"""An estimate of the memory that a distillation needs, as `lsd-train --dry-run` prints it."""

import resource
import sys

from ..denoisers.sizes import ModelSize
from ..sampling.logit_rows import HEAD_ELEMENTS


def process_bytes() -> int:
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_needed(size: ModelSize, length: int, batch: int, kept: int) -> dict[str, int]:
    """An estimate of the peak memory of a distillation on one device, in bytes, by what needs it.

    - `weights`: the denoiser's.
    - `activations`: about three times the widest layer, at each position of a batch.
    - `logits`: those that exist at once: some rows with a deferred head, otherwise two whole outputs (the one that is
      read, and the next).
    - `kept`: what is kept between steps (see `distill`).

    Args:
        size ([`ModelSize`]): the denoiser's size.
        length (`int`): positions of a canvas.
        batch (`int`): rows of the largest batch.
        kept (`int`): bytes that are kept between steps.
    """
    itemsize, output = itemsize_of(size), batch * length * size.columns
    logits = itemsize * (3 * min(output, max(HEAD_ELEMENTS, size.columns)) if size.defers_head else 2 * output)
    return {
        "weights": size.weight_bytes,
        "activations": 3 * batch * length * size.widest * itemsize,
        "logits": logits,
        "kept": kept,
    }


def itemsize_of(size: ModelSize) -> int:
    """Bytes of a number that a denoiser puts out."""
    return max(4, int(size.bytes_per_parameter))
