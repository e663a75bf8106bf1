"""What a solver remembers of the rows of a call, such as the laws of the masked positions.

Shape suffixes: B batch, L positions, V vocabulary, R rows.
"""

from dataclasses import dataclass

import torch

from ..canvas import StepInput
from ..logit_rows import DeferredLogits


@dataclass(frozen=True)
class Rows:
    """Numbers of the positions that were masked in a call.

    Args:
        value_RV (`torch.DoubleTensor` of shape `(num_rows, vocab_size)`): the numbers.
        row_BL (`torch.LongTensor` of shape `(batch_size, seq_len)`): the row of each position; -1 where there is none.
    """

    value_RV: torch.Tensor
    row_BL: torch.Tensor

    @classmethod
    def of_masked(cls, value_RV: torch.Tensor, x: StepInput) -> "Rows":
        """One row for each masked position of a step, in the order of `x.masked_BL.nonzero()`."""
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        return cls(value_RV, x.spread(row_R, position_R, torch.arange(len(row_R), device=row_R.device), -1))

    def at(self, row_R: torch.Tensor, position_R: torch.Tensor) -> torch.Tensor:
        """The numbers of these positions, `(r, V)`; 0 where there is no row."""
        at_R = self.row_BL[row_R, position_R]
        if not len(self.value_RV):
            return self.value_RV.new_zeros(len(at_R), self.value_RV.shape[1])
        return self.value_RV[at_R.clamp(min=0)] * (at_R >= 0)[:, None]

    def as_logits(self) -> DeferredLogits:
        """The same numbers as logits, for steps that read no other positions."""
        return DeferredLogits(
            self.row_BL[..., None].double(), lambda row: self.value_RV[row[..., 0].long()], self.value_RV.shape[1]
        )
