"""Memory that a distillation needs, foreseen, as `lsd-train --dry-run` prints it."""

import resource
import sys

from ..denoisers.sizes import ModelSize
from ..sampling.logit_rows import HEAD_ELEMENTS


def process_bytes() -> int:
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_needed(size: ModelSize, length: int, batch: int, kept: int) -> dict[str, int]:
    """Peak memory of a distillation on one device, in bytes, by what needs it; an estimate.

    - `weights`: the denoiser's.
    - `activations`: about three times the widest layer, at each position of a batch.
    - `logits`: those that exist at once: of a deferred head some rows, else two whole outputs (the one that is read,
      and the next).
    - `kept`: what lies between steps (see `distill`).

    Args:
        size ([`ModelSize`]): of the denoiser.
        length (`int`): positions of a canvas.
        batch (`int`): rows of the largest batch.
        kept (`int`): bytes that lie between steps.
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
