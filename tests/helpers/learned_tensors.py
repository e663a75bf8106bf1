"""All that was learned, as it is kept in a file."""

import torch
from safetensors.torch import load

from lsd_sampler import LSDScheduler
from lsd_sampler.learned.tensor_file import dump_learned


def learned_tensors(scheduler: LSDScheduler) -> dict[str, torch.Tensor]:
    """The tensors by their names in `scheduler_model.safetensors`."""
    return load(dump_learned(scheduler.learned_sampler, "learned"))


def same_learned(first: LSDScheduler, second: LSDScheduler) -> bool:
    """Whether both learned the same, bit for bit."""
    a, b = learned_tensors(first), learned_tensors(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
