"""The size of a denoiser, from which the memory of a run is foreseen."""

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class ModelSize:
    """Numbers of a denoiser, known before it is loaded or read from it.

    Args:
        parameters (`int`): their number.
        bytes_per_parameter (`float`): bytes in the precision that they are stored in.
        length (`int`): the longest canvas.
        columns (`int`): columns of the logits.
        widest (`int`): the most features that a layer gives for each position, logits left out.
        key_value_bytes (`int`): bytes of the keys and values of one position; 0 where none are kept.
        prediction_type (`str`), time_conditioned (`bool`), defers_head (`bool`): those of the denoiser.
    """

    parameters: int
    bytes_per_parameter: float
    length: int
    columns: int
    widest: int
    prediction_type: str = "logits"
    time_conditioned: bool = False
    defers_head: bool = True
    key_value_bytes: int = 0

    @property
    def weight_bytes(self) -> int:
        return int(self.parameters * self.bytes_per_parameter)

    @classmethod
    def of(cls, denoiser: Any) -> Self:
        """The numbers of a denoiser that is loaded."""
        parameters = list(denoiser.parameters())
        count = sum(p.numel() for p in parameters)
        columns = denoiser.vocab_size + 1
        widths = [p.shape[0] for p in parameters if p.ndim >= 2 and p.shape[0] < columns - 1]
        return cls(
            parameters=count,
            bytes_per_parameter=sum(p.nbytes for p in parameters) / max(count, 1),
            length=denoiser.length,
            columns=columns,
            widest=max(widths, default=columns),
            prediction_type=denoiser.prediction_type,
            time_conditioned=denoiser.time_conditioned,
            defers_head=denoiser.defers_head,
            key_value_bytes=getattr(denoiser, "key_value_bytes", 0),
        )
