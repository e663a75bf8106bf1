"""Calls of the denoiser during a generation, which compute no more than the sampler reads.

Shape suffixes: B batch, L positions.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..sampling.logit_rows import ModelOutput
from ..scheduling_lsd import LSDScheduler
from .base import Denoiser
from .shadow import check_shadow


class BasePredictor:
    """What a generation knows of its denoiser and of what its scheduler reads.

    Args:
        denoiser ([`~lsd_sampler.denoisers.Denoiser`]): the network.
        scheduler (`SchedulerMixin`): reads the predictions. Only for this library's schedulers is it known which rows.
        excluded (sequence of `int`): tokens whose logits become -inf.
        device (`torch.device`, *optional*): where the network runs; default: where it is.

    Attributes:
        shadow (*optional*): the shadow rows of the last prediction, for a scheduler that reads them.

    Raises:
        ValueError: if the scheduler reads shadow rows, and the denoiser has none.
    """

    def __init__(
        self, denoiser: Denoiser, scheduler: Any, excluded: Sequence[int] = (), device: torch.device | None = None
    ):
        self.denoiser, self.device = denoiser, denoiser.device if device is None else device
        self.excluded = torch.tensor(excluded, dtype=torch.int64, device=self.device)
        is_ours = isinstance(scheduler, LSDScheduler)
        self.defer_head = is_ours and denoiser.defers_head
        self.skips_complete = is_ours and scheduler.skips_complete
        # a concrete score depends on time, whether the network sees it or not
        self.reuse = denoiser.prediction_type == "logits" and not denoiser.time_conditioned
        self.reads_shadow, self.shadow = check_shadow(denoiser, scheduler), None
        self.passes = 0
        """Network calls, each on the sequences that needed one."""

    def _split(self, output: ModelOutput) -> ModelOutput:
        """The rows of the canvas; those of the shadow behind them are put aside."""
        if not self.reads_shadow:
            return output
        every, num = slice(None), output.shape[1] // 2
        self.shadow = output[every, num:]
        return output[every, :num]

    def _exclude(self, logits: torch.Tensor) -> torch.Tensor:
        if not len(self.excluded):
            return logits
        ids = self.excluded[self.excluded < logits.shape[-1]]
        return logits.index_fill(-1, ids.to(logits.device), -torch.inf)


class Predictor(BasePredictor):
    """Calls a denoiser step by step, and leaves out the work that a step does not need.

    - A time-free denoiser is not called for a sequence whose tokens did not change since its last call: the prediction
      is kept (RADD, https://huggingface.co/papers/2406.03736, section 3.3).
    - A sequence without a mask is not sent to the network if the step reads none of its logits: it is done, or a
      sampler that masks again needs no logits for that.
    - A denoiser that can stop before its head does so, and the head runs for the rows that the step reads.

    Args:
        denoiser ([`~lsd_sampler.denoisers.Denoiser`]): the network.
        scheduler (`SchedulerMixin`): reads the predictions. Only for this library's schedulers is it known which rows.
        conditioning (`dict`): further arguments of the denoiser; a tensor holds an entry for each sequence.
        excluded (sequence of `int`): tokens whose logits become -inf.
    """

    def __init__(self, denoiser: Denoiser, scheduler: Any, conditioning: dict[str, Any], excluded: Sequence[int] = ()):
        super().__init__(denoiser, scheduler, excluded)
        self.conditioning = conditioning
        self.calls_B: torch.Tensor | None = None
        """Network calls for each sequence, `torch.LongTensor` of shape `(batch_size,)`."""
        self._tokens_BL: torch.Tensor | None = None
        self._output: torch.Tensor

    def __call__(self, sample_BL: torch.Tensor, t: torch.Tensor) -> ModelOutput:
        """The prediction for each sequence at time t (0-d)."""
        t_B, B = t.expand(len(sample_BL)), len(sample_BL)
        if self.calls_B is None:
            self.calls_B = torch.zeros(B, dtype=torch.long)
        stale_R = self._stale(sample_BL).nonzero()[:, 0]
        if len(stale_R) == B:
            self._output, self._tokens_BL = self._call(sample_BL, t_B, torch.arange(B)), sample_BL
        elif len(stale_R):
            assert self._tokens_BL is not None  # at first all are stale
            self._output.index_copy_(0, stale_R, self._call(sample_BL[stale_R], t_B[stale_R], stale_R))
            self._tokens_BL = self._tokens_BL.index_copy(0, stale_R, sample_BL[stale_R])
        if not self.defer_head:
            return self._split(self._output)
        logits = self.denoiser.deferred_logits(self._output, t_B)
        return self._split(logits.edited(self._exclude) if len(self.excluded) else logits)

    def _stale(self, sample_BL: torch.Tensor) -> torch.Tensor:
        """Whether each sequence needs another prediction than its last one. `(B,)`, bool."""
        stale_B = torch.ones(len(sample_BL), dtype=torch.bool, device=sample_BL.device)
        if self._tokens_BL is None:
            return stale_B
        if self.skips_complete:
            stale_B &= (sample_BL == self.denoiser.mask_token_id).any(1)
        return stale_B & (sample_BL != self._tokens_BL).any(1) if self.reuse else stale_B

    def _call(self, tokens_RL: torch.Tensor, t_R: torch.Tensor, row_R: torch.Tensor) -> torch.Tensor:
        assert self.calls_B is not None
        self.passes += 1
        self.calls_B[row_R.cpu()] += 1
        kwargs = {k: v[row_R.to(v.device)] if isinstance(v, torch.Tensor) else v for k, v in self.conditioning.items()}
        if self.defer_head:
            kwargs["return_hidden_states"] = True
        if self.reads_shadow:
            kwargs["shadow"] = slice(0, tokens_RL.shape[1])
        output = self.denoiser(tokens_RL, t_R, **kwargs)
        return output if self.defer_head else self._exclude(output)
