"""What one call of a pipeline asks of a sampler."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..sampling.diffusers_calls import NO_MASK


@dataclass(frozen=True)
class TeacherPlan:
    """What one call of the pipeline asks of a sampler.

    Args:
        num_masked (`int`): masked positions at the start of a canvas, in the row with most of them.
        num_canvases (`int`): canvases in one run.
        num_steps (`int`): the teacher's steps on each.
        mask_token_id (`int`): the mask.
        num_columns (`int`, *optional*): of the network's output.
        row_length (`int`): width of a canvas that is an image, else 0.
        never_predicted (sequence of `int`): tokens that data may hold, and that the network never predicts.
        is_whole (`bool`): whether every sequence is known to have one canvas, all of it masked.
        fewest_masked (`int`): masked positions at the start of a canvas, in the row with fewest of them; 0 if unknown.
    """

    num_masked: int
    num_canvases: int
    num_steps: int
    mask_token_id: int
    num_columns: int | None = None
    row_length: int = 0
    never_predicted: Sequence[int] = ()
    is_whole: bool = True
    fewest_masked: int = 0

    @property
    def is_image(self) -> bool:
        """Whether a canvas has height and width."""
        return self.row_length > 0

    @property
    def has_mask(self) -> bool:
        """Whether the noise masks tokens, which are then revealed; under other noise they move."""
        return self.mask_token_id != NO_MASK

    def for_nfe(self, nfe: Sequence[int]) -> "TeacherPlan":
        """The same plan with a teacher that has no fewer steps than its students."""
        return replace(self, num_steps=max(self.num_steps, *nfe))
