"""What a distillation will cost, foreseen: memory, as `lsd-train --dry-run` prints it."""

import resource
import sys

from ..denoisers.sizes import ModelSize
from ..sampling.logit_rows import HEAD_ELEMENTS
from .config import DistillConfig


def process_bytes() -> int:
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_needed(size: ModelSize, config: DistillConfig, length: int, num_states: int) -> dict[str, int]:
    """Peak memory of a distillation on one device, in bytes, by what needs it; an estimate.

    - `weights`: the denoiser's.
    - `activations`: about three times the widest layer, at each position of a batch.
    - `logits`: those that exist at once: of a deferred head some rows, else two whole outputs (the one that is read,
      and the next); and what `lsd` on log-scores keeps of the student's while it solves.
    - `kept`: what lies between steps (see `distill`).

    Args:
        size ([`ModelSize`]): of the denoiser.
        config ([`DistillConfig`]): the run.
        length (`int`): positions of a canvas.
        num_states (`int`): states of the step-error table, for `path_kl`.
    """
    sequences = config.resolved_num_sequences
    # lsd's teacher and student share a batch
    batch = 2 * sequences if config.is_paired else min(config.batch_size, sequences)
    itemsize, output = max(4, int(size.bytes_per_parameter)), batch * length * size.columns
    logits = itemsize * (3 * min(output, max(HEAD_ELEMENTS, size.columns)) if size.defers_head else 2 * output)
    solves = config.domain == "log_score" or (config.domain is None and size.prediction_type == "logits")
    if solves and config.method == "lsd":
        logits += 5 * sequences * length * size.columns
    if config.method == "jys":  # the rows of the beginning of an interval
        logits += 2 * itemsize * output
    kept = {
        "path_kl": 13 * sequences * length + 16 * num_states * length,
        "lsd": sequences * length * (13 + 8 * config.nfe[-1]),
    }.get("lsd" if config.is_paired else config.resolved_method, 13 * sequences * length)
    return {
        "weights": size.weight_bytes,
        "activations": 3 * batch * length * size.widest * itemsize,
        "logits": logits,
        "kept": kept,
    }
