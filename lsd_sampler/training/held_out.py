"""What held-out sequences cost a sampler: one yardstick for all schedules, coefficients and orders.

A sampler's own noise decides in which step each position is revealed, and the tokens of a step are drawn
independently. Given that noise `u`, the probability that it generates x is the product of `softmax(beta_k logits_k)`
at the tokens of x, each in the step that reveals its position, on canvases that hold tokens of x. So

    nats(x, u) = -sum_k sum_{i revealed in step k} log softmax(beta_k logits_k)[x_i]

is the cost of x in that order. Its mean over u is an upper bound of `-log p_sampler(x)`. Its mean over x and u differs
between samplers only by the KL from `p_x` times the law of u to their law of (x, u). If tokens come one at a time from
an exact denoiser, it is the chain rule, and exact.

If a teacher drew x, `u` must not be the teacher's: x would fit that order by construction.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch

from ..sampling.canvas import StepInput
from ..sampling.left_out import is_predicted
from ..sampling.orders import ORDERS, Order
from ..sampling.pipeline_runs import PipelineRuns
from ..sampling.solvers import SOLVERS
from ..scheduling_lsd import LSDScheduler
from .cross_entropy import cross_entropy
from .recording import Recorder, fits


HeldOutBatch = tuple[Sequence[int], list[torch.Tensor]]
"""Indices of some sequences; and for each canvas of their run the final tokens, `(B, L)`."""


class HeldOutRecorder(Recorder):
    """A sampler that reveals positions as usual, but always with the held-out tokens; it adds up their cost.

    Tokens in `never_predicted` cost nothing.
    """

    never_predicted: Sequence[int] = ()

    def force(self, finals: list[torch.Tensor]) -> None:
        """Sets the final tokens of the canvases of the next run, `(B, L)` each."""
        self.finals = finals
        self.nats_B = torch.zeros(len(finals[0]), dtype=torch.float64)

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        final_BL = self._final(x)
        revealed_BL = self.reveals(x)
        row_R, position_R = (revealed_BL & is_predicted(final_BL, self.never_predicted)).nonzero(as_tuple=True)
        token_R, beta = final_BL[row_R, position_R], float(self.steps.log_score_coefficients[x.k])
        nats_R = cross_entropy(x.logits_BLV, row_R, position_R, token_R, x.mask_token_id, beta)
        self.nats_B += x.spread(row_R, position_R, nats_R, 0.0).sum(1).cpu()
        return torch.where(revealed_BL, final_BL, x.sample_BL), revealed_BL.float()

    def reveals(self, x: StepInput) -> torch.Tensor:
        """Where the sampler reveals tokens, `(B, L)`. Which ones is known."""
        assert isinstance(self.rule, Order)
        return self.rule.reveals(x, self.plan)[0]

    def _final(self, x: StepInput) -> torch.Tensor:
        if self.canvas_index >= len(self.finals) or self.finals[self.canvas_index].shape != x.sample_BL.shape:
            raise ValueError(
                f"The held-out sequences have canvases of shapes {[tuple(final.shape) for final in self.finals]}; the"
                f" pipeline's canvas {self.canvas_index} has {tuple(x.sample_BL.shape)}: use sequences of the same"
                " call."
            )
        final_BL = self.finals[self.canvas_index].to(x.sample_BL.device)
        if x.k == 0 and not fits(final_BL, x):
            raise ValueError(
                "The held-out sequences do not fit the pipeline's canvas: where that is masked they must hold a token,"
                " elsewhere what it holds."
            )
        return final_BL


def first_of(batches: Sequence[HeldOutBatch], num: int) -> list[HeldOutBatch]:
    """The first `num` sequences, batch by batch."""
    kept: list[HeldOutBatch] = []
    for sequences, finals in batches:
        if num > 0:
            kept.append((sequences[:num], [final_BL[:num] for final_BL in finals]))
            num -= len(sequences)
    return kept


def rest_of(batches: Sequence[HeldOutBatch], num: int) -> list[HeldOutBatch]:
    """All but the first `num` sequences, batch by batch."""
    kept: list[HeldOutBatch] = []
    for sequences, finals in batches:
        skipped = min(max(num, 0), len(sequences))
        if skipped < len(sequences):
            kept.append((sequences[skipped:], [final_BL[skipped:] for final_BL in finals]))
        num -= len(sequences)
    return kept


def with_other_noise(runs: PipelineRuns) -> PipelineRuns:
    """The same runs, with noise that does not depend on a teacher's."""
    other = copy.copy(runs)
    other.seed = int(np.random.SeedSequence([runs.seed, 1]).generate_state(1, np.uint64)[0])
    return other


def held_out_nats(
    runs: PipelineRuns,
    scheduler: LSDScheduler,
    num_inference_steps: int,
    batches: Sequence[HeldOutBatch],
    never_predicted: Sequence[int] = (),
) -> torch.Tensor:
    """What each held-out sequence costs a sampler, in nats per sequence. M network calls for each batch.

    Args:
        runs ([`PipelineRuns`]): runs the pipeline, with noise that the sequences do not depend on.
        scheduler ([`LSDScheduler`]): the sampler, learned or plain, in any order that does not look at the tokens
            that it draws.
        num_inference_steps (`int`): M.
        batches: the sequences, as [`HeldOutBatch`].
        never_predicted (sequence of `int`): tokens that are left out of the sum.

    Returns:
        `torch.DoubleTensor` of shape `(num_sequences,)`, in the order of `batches`.

    Raises:
        ValueError: if the sampler cannot be forced along a sequence exactly, or the sequences do not fit the pipeline.
    """
    check_can_be_forced(scheduler)
    recorder = HeldOutRecorder.from_config(scheduler.config)
    recorder.never_predicted = never_predicted
    recorder.set_learned_sampler(scheduler.learned_sampler)
    nats = []
    for sequences, finals in batches:
        recorder.force(finals)
        runs.run(recorder, num_inference_steps, sequences)
        nats.append(recorder.nats_B)
    return torch.cat(nats)


def check_can_be_forced(scheduler: LSDScheduler) -> None:
    """Raises `ValueError` unless the law of a sampler's tokens, given when it reveals them, is known."""
    config = scheduler.config
    if ORDERS[config.order].looks_at_tokens:
        raise ValueError(
            f"`order` {config.order!r} looks at the tokens that it draws: the cost of other tokens is unknown."
        )
    if not SOLVERS[config.solver].distillable:
        raise ValueError(f"`solver` {config.solver!r} chooses positions itself: held-out tokens have no known cost.")
    if config.corruption != "absorbing":
        raise ValueError(f"Under {config.corruption} noise a token may move at every step: none is revealed for good.")
    if config.draws != "exact":
        raise ValueError(f"`draws` {config.draws!r} do not follow the denoiser's probabilities: use 'exact'.")
