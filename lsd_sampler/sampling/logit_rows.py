"""Rows of logits: how a step reads the model's output, without touching the rows that it does not need.

Shape suffixes: B batch, L positions, V columns, D hidden width, R chosen rows.
"""

from collections.abc import Callable, Iterator

import torch


class DeferredLogits:
    """Logits that are computed row by row, when they are asked for: hidden states, and the head that maps them.

    The vocabulary projection is a large part of a masked model's work, and a step needs it only at the positions that
    it reveals. Takes the place of a `(B, L, V)` tensor in `LSDScheduler.step`.

    Args:
        hidden_BLD (`torch.Tensor` of shape `(batch_size, seq_len, hidden_size)`): the trunk's output.
        head: maps hidden states `(..., hidden_size)` to logits `(..., num_columns)`.
        num_columns (`int`): V.
        offset_B (`torch.Tensor` of shape `(batch_size,)`, *optional*): added to all logits of a sequence.
    """

    def __init__(
        self,
        hidden_BLD: torch.Tensor,
        head: Callable[[torch.Tensor], torch.Tensor],
        num_columns: int,
        offset_B: torch.Tensor | None = None,
    ):
        self.hidden_BLD, self.head, self.offset_B = hidden_BLD, head, offset_B
        self.shape = torch.Size((*hidden_BLD.shape[:2], num_columns))
        self.ndim, self.dtype, self.device = 3, hidden_BLD.dtype, hidden_BLD.device

    def is_floating_point(self) -> bool:
        """Whether the logits are floating point, as for a tensor."""
        return self.hidden_BLD.is_floating_point()

    def __getitem__(self, index: slice | tuple[slice, slice]) -> "DeferredLogits":
        """The logits of some sequences of the batch, at all or some positions."""
        offset_B = self.offset_B
        if offset_B is not None:
            offset_B = offset_B[index[0] if isinstance(index, tuple) else index]
        return DeferredLogits(self.hidden_BLD[index], self.head, self.shape[-1], offset_B)

    def clone(self) -> "DeferredLogits":
        """The same logits, on a copy of the hidden states."""
        return DeferredLogits(self.hidden_BLD.clone(), self.head, self.shape[-1], self.offset_B)

    def edited(self, edit: Callable[[torch.Tensor], torch.Tensor]) -> "DeferredLogits":
        """The logits that `edit` makes of rows of these, `(..., V)`."""
        head = self.head
        return DeferredLogits(self.hidden_BLD, lambda hidden: edit(head(hidden)), self.shape[-1], self.offset_B)

    def rows(self, row_R: torch.Tensor, position_R: torch.Tensor) -> torch.Tensor:
        """The logits of these rows, `(R, V)`."""
        logits_RV = self.head(self.hidden_BLD[row_R, position_R])
        return logits_RV if self.offset_B is None else logits_RV + self.offset_B[row_R, None]


ModelOutput = torch.Tensor | DeferredLogits

READ_DTYPES = (torch.float32, torch.float64)
"""What rows of logits are read in; those of any other dtype are read in float32."""

HEAD_ELEMENTS = 2**23
"""Approximate number of logits that a deferred head computes at a time: every call reads all of its weights."""


def rows_per_chunk(num_columns: int, device: torch.device) -> int:
    """How many rows of logits to work on at a time: cache-sized on CPU, large enough to fill a GPU."""
    return max(1, (2**18 if device.type == "cpu" else 2**25) // num_columns)


def edit_rows(edit: Callable[..., None], logits_BLV: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """`edit(logits, *others)`, which changes rows of logits in place, for all rows; returns `logits_BLV`.

    It gets a slab of rows at a time, because the logits of a long batch are the largest tensor of a generation. It
    gets all rows at once if autograd or a compiler would have to follow each slab.

    Args:
        edit: takes `(..., V)`, and one entry of `others` for each row.
        logits_BLV (`torch.Tensor` of shape `(batch_size, seq_len, vocab_size)`): contiguous.
        others (`torch.Tensor` of shape `(batch_size, seq_len)`): what else an edit reads.
    """
    if logits_BLV.requires_grad or torch.compiler.is_compiling():
        edit(logits_BLV, *others)
        return logits_BLV
    size = rows_per_chunk(logits_BLV.shape[-1], logits_BLV.device)
    columns = (logits_BLV.view(-1, logits_BLV.shape[-1]), *(other.reshape(-1) for other in others))
    for rows in zip(*(x.split(size) for x in columns), strict=True):
        edit(*rows)
    return logits_BLV


def row_chunks(
    logits_BLV: ModelOutput,
    row_R: torch.Tensor,
    position_R: torch.Tensor,
    excluded: int | None,
    size: int | None = None,
    *,
    reuse: bool = False,
) -> Iterator[torch.Tensor]:
    """The chosen rows in order, some at a time, `(r, V)`: copies in float32 (float64 stays).

    Args:
        logits_BLV (`torch.Tensor` of shape `(batch_size, seq_len, vocab_size)` or [`DeferredLogits`]): in any floating
            dtype, of any strides.
        row_R, position_R (`torch.LongTensor` of shape `(R,)`): which rows.
        excluded (`int`, *optional*): a column that is never drawn (the mask); it is set to -inf.
        size (`int`, *optional*): rows at a time; default: [`rows_per_chunk`].
        reuse (`bool`): whether a chunk may overwrite the one before, and carries no gradient. Fresh memory for each
            chunk costs about as much as the arithmetic on it.
    """
    size = rows_per_chunk(logits_BLV.shape[-1], logits_BLV.device) if size is None else size
    if isinstance(logits_BLV, DeferredLogits):
        batch, buffers = max(size, HEAD_ELEMENTS // logits_BLV.shape[-1]), None
    else:
        batch, buffers = size, _Buffers(logits_BLV, min(size, len(row_R))) if reuse else None
    for row_r, position_r in zip(row_R.split(batch), position_R.split(batch), strict=True):
        yield from _gather(logits_BLV, row_r, position_r, excluded, buffers).split(size)


class _Buffers:
    """Memory for one chunk of rows: in the dtype of the logits, and in the one that a step reads them in."""

    def __init__(self, logits_BLV: torch.Tensor, size: int):
        self.own_RV = logits_BLV.new_empty(size, logits_BLV.shape[-1])
        is_read = logits_BLV.dtype in READ_DTYPES
        self.read_RV = self.own_RV if is_read else torch.empty_like(self.own_RV, dtype=torch.float32)


def _gather(
    logits_BLV: ModelOutput,
    row_R: torch.Tensor,
    position_R: torch.Tensor,
    excluded: int | None,
    buffers: _Buffers | None,
) -> torch.Tensor:
    if isinstance(logits_BLV, DeferredLogits):
        x_RV = logits_BLV.rows(row_R, position_R)
    elif logits_BLV.is_contiguous():
        own_RV = None if buffers is None else buffers.own_RV[: len(row_R)]
        flat_RV = logits_BLV.view(-1, logits_BLV.shape[-1])
        x_RV = torch.index_select(flat_RV, 0, row_R * logits_BLV.shape[1] + position_R, out=own_RV)
    else:  # image logits are (B, V, H, W) in memory
        x_RV = logits_BLV[row_R, position_R]
    if x_RV.dtype not in READ_DTYPES:
        x_RV = x_RV.float() if buffers is None else buffers.read_RV[: len(row_R)].copy_(x_RV)
    if excluded is not None and 0 <= excluded < x_RV.shape[1]:
        x_RV[:, excluded] = -torch.inf
    return x_RV


def check_row_maximum(maximum_R: torch.Tensor) -> None:
    """Raises `ValueError` when a row of logits holds NaN or +inf, or is -inf throughout."""
    if not bool(torch.isfinite(maximum_R).all()):
        bad = maximum_R[~torch.isfinite(maximum_R)][0].item()
        what = "are all -inf" if bad == -torch.inf else "hold NaN or +inf"
        raise ValueError(f"`model_output` is unusable: the logits of a masked position {what}.")
