"""Lack of memory, on an accelerator or on the CPU, and the batch that it came with."""

import errno

import torch


# some of torch's errors say it in words only
_WORDS = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


class BatchTooLarge(MemoryError):
    """Memory ran out while a pipeline ran on a batch.

    Args:
        num_rows (`int`): rows of the batch.
    """

    def __init__(self, num_rows: int):
        super().__init__(f"Out of memory on a batch of {num_rows} sequences.")
        self.num_rows = num_rows


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)
