"""The canvases that real sequences complete: which of their tokens the pipeline gives, and which it asks for.

The trainer sees a canvas only when a scheduler is in the pipeline. So partly given canvases are looked at before the
work begins, in runs of one step, and everything that does not fit is refused then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..sampling.pipeline_runs import PipelineRuns
from ..scheduling_lsd import LSDScheduler
from .data import check_complete
from .paths import TeacherPath
from .recipe import Recipe
from .recording import RecordedCanvas, TeacherRecorder, check_num_canvases
from .teacher_plan import TeacherPlan


@dataclass(frozen=True)
class DataCanvases:
    """What the pipeline asks for, of the first `N` real sequences.

    Args:
        masked_NL (`torch.BoolTensor` of shape `(N, seq_len)`): the positions that are masked at the start, canvases of
            a run one after another.
        lengths (`list[int]`): the length of each canvas of a run.
    """

    masked_NL: torch.Tensor
    lengths: Sequence[int]

    def paths(self, data: torch.Tensor, sequences: range) -> list[TeacherPath]:
        """The path of each canvas of a run of these sequences.

        Raises:
            ValueError: if some of them were not looked at.
        """
        rows = slice(sequences.start, sequences.stop)
        if sequences.stop > len(self.masked_NL):
            raise ValueError(f"`data`: {sequences.stop} sequences are needed, and {len(self.masked_NL)} are there.")
        both = self.masked_NL[rows].to(data.device), data[rows]
        parts = (x.split([*self.lengths], dim=1) for x in both)
        return [
            TeacherPath(masked_BL, final_BL, torch.where(masked_BL, 0, -1).int())
            for masked_BL, final_BL in zip(*parts, strict=True)
        ]

    def asked_for(self, data: torch.Tensor) -> torch.Tensor:
        """The tokens of the data at masked positions, `(num,)`."""
        return data[: len(self.masked_NL)][self.masked_NL.to(data.device)]


def look_at_canvases(
    runs: PipelineRuns,
    base: LSDScheduler,
    recipe: Recipe,
    data: torch.Tensor,
    num: int,
    frame: int = 0,
) -> tuple[DataCanvases, TeacherPlan]:
    """The canvases of the first `num` real sequences, from runs of one step; and the plan, in which only those tokens
    count as never predicted that are impossible on all of these canvases.

    Args:
        runs ([`PipelineRuns`]), base ([`LSDScheduler`]), recipe ([`Recipe`]): those of the distillation.
        data (`torch.LongTensor` of shape `(num_sequences, seq_len)`): the real sequences.
        num (`int`): how many of them are used.
        frame (`int`): the number of tokens that were cut off at the beginning of each, for messages.

    Raises:
        ValueError: unless sequence i completes the canvases of sequence i.
    """
    masked, lengths, never = [], [], set(recipe.plan.never_predicted)
    size = recipe.config.batch_size
    for first in range(0, num, size):
        recorder = TeacherRecorder.from_config(base.config)
        recorder.watches_tokens = True
        sequences = range(first, min(first + size, num))
        runs.run(recorder, 1, sequences)
        check_num_canvases(len(recorder.canvases), recipe.plan.num_canvases)
        lengths = lengths or [canvas.final_BL.shape[1] for canvas in recorder.canvases]
        masked.append(_masked(recorder.canvases, data[first : sequences.stop], sequences, lengths, frame))
        never &= set(recorder.never_predicted)
    return DataCanvases(torch.cat(masked), lengths), replace(recipe.plan, never_predicted=sorted(never))


def _masked(
    canvases: Sequence[RecordedCanvas], data_BL: torch.Tensor, sequences: range, lengths: Sequence[int], frame: int
) -> torch.Tensor:
    """Where the canvases of some sequences are masked, `(B, L)`, if the data complete them."""
    if [canvas.final_BL.shape[1] for canvas in canvases] != [*lengths] or data_BL.shape[1] != sum(lengths):
        shown = " + ".join(str(canvas.final_BL.shape[1]) for canvas in canvases)
        raise ValueError(
            f"`data` has {data_BL.shape[1]} tokens in a sequence, but this call of the pipeline has canvases of"
            f" {shown}: give whole canvases (of a run one after another), with all that they give, prompt included."
        )
    masked_BL = torch.cat([canvas.masked_BL for canvas in canvases], dim=1).cpu()
    given_BL = torch.cat([canvas.final_BL for canvas in canvases], dim=1).cpu()
    check_complete(data_BL.cpu(), given_BL, masked_BL, sequences.start, frame)
    return masked_BL
