"""Lack of memory: of an accelerator, of torch's CPU allocator, of Python; and the batch that it came with."""

import errno

import torch


# where torch has no class of error for it, it says so in words only
_WORDS = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


class BatchTooLarge(MemoryError):
    """Memory ran out while a pipeline ran on a batch.

    Args:
        num_rows (`int`): of the batch.
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
