"""What a solver remembers of the rows of a call, such as the laws of the masked positions.

Shape suffixes: B batch, L positions, V vocabulary, R rows.
"""

from dataclasses import dataclass

import torch

from ..logit_rows import DeferredLogits


@dataclass(frozen=True)
class Rows:
    """Numbers of some positions of a call.

    Args:
        value_RV (`torch.DoubleTensor` of shape `(num_rows, vocab_size)`): the numbers.
        row_BL (`torch.LongTensor` of shape `(batch_size, seq_len)`): the row of each position; -1 where there is none.
    """

    value_RV: torch.Tensor
    row_BL: torch.Tensor

    @classmethod
    def of(cls, value_RV: torch.Tensor, at_BL: torch.Tensor) -> "Rows":
        """One row for each of these positions, in the order of `at_BL.nonzero()`."""
        row_BL = at_BL.flatten().cumsum(0).view(at_BL.shape) - 1
        return cls(value_RV, row_BL.masked_fill(~at_BL, -1))

    def where(self, choose_B1: torch.Tensor, other: "Rows") -> "Rows":
        """These rows in some sequences, the other ones elsewhere, and no more of them than are used."""
        mine_BL, other_BL = (self.row_BL >= 0) & choose_B1, (other.row_BL >= 0) & ~choose_B1
        at_BL = mine_BL | other_BL
        value_RV = self.value_RV.new_empty(int(at_BL.sum()), self.value_RV.shape[1])
        for rows, theirs_BL in ((self, mine_BL), (other, other_BL)):
            value_RV[theirs_BL[at_BL]] = rows.value_RV[rows.row_BL[theirs_BL]]
        return Rows.of(value_RV, at_BL)

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
