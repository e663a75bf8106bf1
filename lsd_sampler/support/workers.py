"""Several processes that distil, sample or evaluate together, each on a share: `accelerate launch -m
lsd_sampler.cli.train`.

Everything that is learned depends on sums over sequences. Each process measures a share, and the sums are added up.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed


@dataclass(frozen=True)
class Workers:
    """The processes of this run, and which one this is. All processes must make the same calls of its methods.

    Args:
        rank (`int`): number of this process, from 0.
        size (`int`): number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> "Workers":
        """The processes of `torch.distributed`'s process group, if there is one; else this process alone."""
        if not distributed.is_available() or not distributed.is_initialized():
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def share(self, num_sequences: int) -> range:
        """The sequences of this process. All shares are equal, so that all processes make the same steps.

        Raises:
            ValueError: if the sequences cannot be shared equally.
        """
        if num_sequences % self.size:
            raise ValueError(
                f"`num_sequences` {num_sequences} must be a multiple of the {self.size} processes, such as"
                f" {self.multiple(num_sequences)}."
            )
        each = num_sequences // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def multiple(self, number: int) -> int:
        """The least multiple of the number of processes that is at least `number`."""
        return -(-number // self.size) * self.size

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over processes, on the CPU."""
        return self._gather(tensor).sum(0)

    def concatenate(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows of all processes in their order, on the CPU. Each process has the same number of rows."""
        return self._gather(tensor).flatten(0, 1)

    def logsumexp(self, value: float) -> float:
        """`log sum exp` over processes."""
        return float(self._gather(torch.tensor(value, dtype=torch.float64)).logsumexp(0))

    def broadcast(self, value: Any) -> Any:
        """The main process's value."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in their order."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Waits until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def _gather(self, tensor: torch.Tensor) -> torch.Tensor:
        # gathered, not reduced, so that the order of a sum does not depend on how processes are connected
        if self.size == 1:
            return tensor.cpu()[None]
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        here = tensor.to(device)
        gathered = [torch.empty_like(here) for _ in range(self.size)]
        distributed.all_gather(gathered, here)
        return torch.stack(gathered).cpu()
