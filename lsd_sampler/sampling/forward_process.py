"""The forward process of a scheduler, as pipelines ask for it."""

from typing import TYPE_CHECKING, Any

import torch

from .corruptions import Corruption, make_corruption
from .draws import Generators
from .moves import TokenMoves
from .noise import NoiseSchedule
from .plan import StepPlan
from .step_rule import StepRule


class ForwardProcess:
    """A scheduler's forward process: the corruption, the canvas that a generation begins with, and `add_noise`."""

    noise: NoiseSchedule
    rule: StepRule
    plan: StepPlan
    _follows_amused: bool
    _times: list[float]

    if TYPE_CHECKING:  # diffusers types it too loosely

        @property
        def config(self) -> Any: ...

    @property
    def corruption(self) -> Corruption:
        """The forward process.

        Raises:
            ValueError: if it needs a constant that the config lacks, such as `mask_token_id`.
        """
        return self.rule.corruption if isinstance(self.rule, TokenMoves) else make_corruption(self.config)

    def add_noise(
        self,
        original_samples: torch.Tensor,
        timesteps: float | torch.Tensor,
        generator: Generators = None,
    ) -> torch.Tensor:
        """The forward process: corrupts each token; absorbing noise masks it with probability `1 - alpha(t)`.

        Args:
            original_samples (`torch.LongTensor` of shape `(batch_size, ...)`): token ids.
            timesteps (`float`, or `torch.Tensor` of shape `()` or `(batch_size,)`): times in [0, 1]. From aMUSEd's
                pipelines, which set a temperature by position, one of `timesteps` means the state after that step, as
                this sampler has it: the state before the first, for the last of them.
            generator: as for `step`.

        Raises:
            ValueError: if `mask_token_id` is missing or a time lies outside [0, 1].
        """
        corruption, B = self.corruption, original_samples.shape[0]
        times = torch.as_tensor(timesteps, dtype=torch.float64, device=original_samples.device).reshape(-1)
        if times.numel() not in (1, B) or not bool(((times >= 0) & (times <= 1)).all()):
            raise ValueError(f"`timesteps` must be one time in [0, 1], or one per row, got {timesteps}.")
        total, k = self.noise.total(times), self._step_of(timesteps)
        if k is not None:
            total = self._noise_before((k + 1) % len(self._times)).to(times)
        flat = original_samples.reshape(B, -1)
        return corruption.corrupt(flat, total, generator).view_as(original_samples)

    def _step_of(self, timesteps: Any) -> int | None:
        """The step that an aMUSEd pipeline means by one of `timesteps`; None if it is a time."""
        if not (self._follows_amused and isinstance(timesteps, torch.Tensor) and timesteps.ndim == 0):
            return None
        return next((k for k, t in enumerate(self._times) if abs(t - float(timesteps)) <= 1e-6), None)

    def _noise_before(self, k: int) -> torch.Tensor:
        """Total noise on the canvas as this sampler has it at the start of step k. `(1,)`."""
        if not self.rule.has_mask:
            return self.noise.total(self.plan.steps.timesteps[k : k + 1])
        return -torch.log1p(-torch.tensor([self.plan.masked_before(k)], dtype=torch.float64))

    def sample_prior(
        self, batch_size: int, seq_len: int, generator: Generators = None, device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """The canvas that a generation begins with: masks, or random tokens. `(batch_size, seq_len)`."""
        return self.corruption.sample_prior(batch_size, seq_len, generator, device)
