"""The relaxed start (https://huggingface.co/papers/2509.19962, eq. 9-10): in training, the student begins from a
canvas within a Hamming distance of the teacher's.

A pipeline makes the first canvas and calls its network on it before any scheduler sees it. So the first prediction is
made on the teacher's canvas. The chosen positions are filled in on the canvas that the student's first step returns,
and count as known from then on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..support.validation import check_number
from .options import MethodOptions, option
from .recipe import Recipe


FILLERS = ("teacher", "random")


def relaxation_option(default: float) -> Any:
    """The option for how much of the student's canvas is relaxed; each method has its own default."""
    text = f"share of the masked positions that are filled in for the student at its start (default: {default:g})"
    return option(None, text, float, unset=default, own=True)


@dataclass(frozen=True)
class RelaxationOptions(MethodOptions):
    """Options of a method whose student may begin from a relaxed start."""

    relaxation: float | None = relaxation_option(0.0)
    relaxation_filler: str = option(
        "teacher", "what `relaxation` fills in: the teacher's final tokens, or random ones", choices=FILLERS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("relaxation", self.relaxation, low=0, high=1)


@dataclass(frozen=True)
class RelaxedStart:
    """Positions of the student's canvas that are filled in for it.

    Args:
        chosen_BL (`torch.BoolTensor` of shape `(batch_size, seq_len)`): which positions.
        token_BL (`torch.LongTensor` of that shape, *optional*): the tokens to fill in; None: random tokens.
        uniform_BL (`torch.DoubleTensor` of that shape): uniforms that decide random tokens.
    """

    chosen_BL: torch.Tensor
    token_BL: torch.Tensor | None
    uniform_BL: torch.Tensor

    @classmethod
    def draw(
        cls,
        masked_BL: torch.Tensor,
        final_BL: torch.Tensor,
        sequences: Sequence[int],
        canvas: int,
        recipe: Recipe,
    ) -> "RelaxedStart":
        """Chooses a share `relaxation` of each sequence's masked positions, rounded down, whatever the batch.

        Args:
            masked_BL, final_BL (`torch.Tensor` of shape `(batch_size, seq_len)`): of the teacher's canvas: what was
                masked, how it ended.
            sequences: the index of each row's sequence.
            canvas (`int`): index of the canvas in its run.
            recipe ([`Recipe`]): share, filler and seed.
        """
        seed, options = recipe.config.seed, recipe.options
        seeds = [np.random.SeedSequence(seed, spawn_key=(i, canvas)).generate_state(1)[0] for i in sequences]
        draws = [
            torch.rand(2, masked_BL.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(int(seed)))
            for seed in seeds
        ]
        key_BL, uniform_BL = torch.stack(draws).to(masked_BL.device).unbind(1)
        rank_BL = key_BL.masked_fill(~masked_BL, torch.inf).argsort(1).argsort(1)
        allowed_B1 = (masked_BL.sum(1, keepdim=True).double() * options.relaxation).floor()
        token_BL = final_BL if options.relaxation_filler == "teacher" else None
        return cls(rank_BL < allowed_B1, token_BL, uniform_BL)

    def fill(self, canvas_BL: torch.Tensor, num_columns: int, mask_token_id: int) -> torch.Tensor:
        """The canvas with these positions filled in; a random token is any column of the logits but the mask's."""
        token_BL = self.token_BL
        if token_BL is None:
            has_mask = 0 <= mask_token_id < num_columns
            token_BL = (self.uniform_BL * (num_columns - has_mask)).long()
            if has_mask:
                token_BL += token_BL >= mask_token_id
        device = canvas_BL.device
        return torch.where(self.chosen_BL.to(device), token_BL.to(device), canvas_BL)


def relaxed_starts(
    canvases: list[tuple[torch.Tensor, torch.Tensor]], sequences: Sequence[int], recipe: Recipe
) -> list[RelaxedStart] | None:
    """How each canvas of a student's run is relaxed, given the teacher's (what was masked, how it ended); None if no
    canvas is relaxed.
    """
    if not recipe.options.relaxation:
        return None
    return [RelaxedStart.draw(*canvas, sequences, c, recipe) for c, canvas in enumerate(canvases)]
