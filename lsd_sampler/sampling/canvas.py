"""The canvas of a generation: the noise that is drawn when it arrives, and the input of one step.

Shape suffixes: B batch, L positions, V vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..support.validation import check_number
from . import certainty
from .draws import Generators, draw_tokens, draw_uniforms, keep_likely, log_mass
from .logit_rows import DeferredLogits, ModelOutput


Keys = Callable[[torch.Tensor, torch.Tensor, tuple[int, ...]], torch.Tensor]
"""Sort keys of positions: [`~lsd_sampler.sampling.step_rule.StepRule.keys`]."""


@dataclass
class Canvas:
    """The noise that is drawn for a canvas when it arrives, and what is remembered of it until it is complete.

    Args:
        masked_BL (`torch.BoolTensor` of shape `(batch_size, seq_len)`): what was masked at the start.
        rank_BL (`torch.LongTensor` of that shape): place in the order of revealing; masked positions come first.
        u_BL (`torch.DoubleTensor`): when a position is revealed, sorted into that order; inf where nothing was masked.
        v_BL (`torch.DoubleTensor`): which token it gets.
        drawn_u_BL (`torch.DoubleTensor`): `u` as it was drawn, independent of the order.
        shape: `(seq_len,)` or `(height, width)`.
        start, last (`int`): indices of the first step, and of the latest.
        generator: the generator that it was drawn from.
        survival_BL (`torch.DoubleTensor`): probability of still being masked, under an unnormalised denoiser.
        state: what a solver that takes its own steps remembers from one step to the next.
    """

    masked_BL: torch.Tensor
    rank_BL: torch.Tensor
    u_BL: torch.Tensor
    v_BL: torch.Tensor
    drawn_u_BL: torch.Tensor
    shape: tuple[int, ...]
    start: int
    last: int
    generator: Generators = None
    survival_BL: torch.Tensor = field(default_factory=lambda: torch.ones((), dtype=torch.float64))
    state: Any = None

    @classmethod
    def draw(
        cls, masked_BL: torch.Tensor, keys: Keys | None, shape: tuple[int, ...], generator: Generators, start: int
    ) -> "Canvas":
        """Draws L uniforms for `u`, L for `v`, and two for the keys in each row; none at all if there are no keys."""
        B, L = masked_BL.shape
        if keys is None:
            nothing = torch.empty(0, dtype=torch.float64)
            return cls(masked_BL, nothing.long(), nothing, nothing, nothing, shape, start, start, generator)
        drawn_u_BL, v_BL, shift_B2 = draw_uniforms(B, 2 * L + 2, generator, masked_BL.device).split([L, L, 2], dim=1)
        masked_u_BL = drawn_u_BL.masked_fill(~masked_BL, torch.inf)
        keys_BL = keys(masked_u_BL, shift_B2, shape).masked_fill(~masked_BL, torch.inf)
        rank_BL = keys_BL.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        u_BL = masked_u_BL.sort(dim=1).values.gather(1, rank_BL)
        v_BL = v_BL.contiguous()
        return cls(masked_BL, rank_BL, u_BL, v_BL, drawn_u_BL, shape, start=start, last=start, generator=generator)

    def survive(self, jump_BL: torch.Tensor) -> None:
        """Updates the survival by one more step, in which each masked position jumps with this probability."""
        self.survival_BL = self.survival_BL * (1 - jump_BL)

    def goes_on(self, k: int, masked_BL: torch.Tensor, generator: Generators) -> bool:
        """Whether step k, on a canvas masked like this, belongs to the generation that this canvas was drawn for."""
        if k <= self.last or masked_BL.shape != self.masked_BL.shape:
            return False
        return generator is None or _same(generator, self.generator)


def _same(first: Generators, second: Generators) -> bool:
    """Whether these are the very same generators."""
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))
    return first is second


@dataclass(frozen=True)
class DrawOptions:
    """How a pipeline wants tokens drawn: `temperature` (0: the most likely), `top_p` and `top_k` (None: all). The
    solver decides whether `top_p` keeps the token with which it is passed (`keeps_crossing`).

    Raises:
        ValueError: for a `top_p` or `top_k` out of range.
    """

    temperature: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    keeps_crossing: bool = True

    def __post_init__(self) -> None:
        check_number("top_p", self.top_p, optional=True, low=0)
        check_number("top_k", self.top_k, integer=True, optional=True)
        if self.top_p == 0:
            raise ValueError("`top_p` must be in (0, 1], got 0.")

    def draw(
        self,
        logits_BLV: ModelOutput,
        row_R: torch.Tensor,
        position_R: torch.Tensor,
        v_R: torch.Tensor,
        beta: float = 1.0,
        excluded: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and their log-probabilities, as [`~lsd_sampler.sampling.draws.draw_tokens`], at inverse temperature
        beta on top of what the pipeline wants.
        """
        inverse_temperature = beta / self.temperature if self.temperature and beta < math.inf else math.inf
        return draw_tokens(
            logits_BLV,
            row_R,
            position_R,
            v_R,
            inverse_temperature=inverse_temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            keeps_crossing=self.keeps_crossing,
            excluded=excluded,
        )

    def are_plain(self, beta: float = 1.0) -> bool:
        """Whether tokens are drawn from the denoiser's own law, or are its most likely ones."""
        if self.temperature == 0 or beta == math.inf:
            return True
        return beta / self.temperature == 1 and not self.top_k and (self.top_p is None or self.top_p >= 1)

    def shaped(self, logits_BLV: ModelOutput, beta: float, excluded: int | None) -> DeferredLogits:
        """Logits of the law that tokens are drawn from, row by row. If the most likely token is taken, they are those
        at temperature 1 (as in Dream).
        """
        num_columns = logits_BLV.shape[-1]
        if not isinstance(logits_BLV, DeferredLogits):
            logits_BLV = DeferredLogits(logits_BLV, lambda row_RV: row_RV, num_columns)
        head = logits_BLV.head
        inverse_temperature = 1.0 if beta == math.inf else beta / (self.temperature or 1.0)

        def law(hidden_RD: torch.Tensor) -> torch.Tensor:
            x_RV = head(hidden_RD)
            x_RV = x_RV if x_RV.dtype == torch.float64 else x_RV.float()
            if excluded is not None and 0 <= excluded < num_columns:
                x_RV[:, excluded] = -torch.inf
            weight_RV = (inverse_temperature * (x_RV - x_RV.amax(-1, keepdim=True))).exp()
            weight_RV.masked_fill_(x_RV == -torch.inf, 0)  # also where the inverse temperature is 0
            keep_likely(weight_RV, self.top_p, self.top_k, keeps_crossing=self.keeps_crossing)
            return weight_RV.log()

        return DeferredLogits(logits_BLV.hidden_BLD, law, num_columns)


@dataclass
class StepInput:
    """The input of one step.

    Args:
        k (`int`): index of the step; `is_last`: whether everything must be revealed.
        logits_BLV, sample_BL, masked_BL: the network's output, the tokens now, and which of them are masks.
        mask_token_id (`int`): the mask.
        canvas ([`Canvas`]): what was drawn for this generation, and is remembered of it.
        draws ([`DrawOptions`]), generator: as given to `LSDScheduler.step`.
        tempered_certainty (`bool`): whether certainty is judged by the law that tokens are drawn from, with its
            temperature, `top_p`, `top_k` and log-score coefficient; otherwise it is judged by the denoiser's own law.
        shadow_BLV (*optional*): logits of each position from all tokens but its own, for solvers that read them.
    """

    k: int
    is_last: bool
    logits_BLV: ModelOutput
    sample_BL: torch.Tensor
    masked_BL: torch.Tensor
    mask_token_id: int
    canvas: Canvas
    draws: DrawOptions
    generator: Generators
    tempered_certainty: bool = False
    shadow_BLV: ModelOutput | None = None

    def uniforms(self, num: int) -> tuple[torch.Tensor, ...]:
        """`num` fresh uniforms for each position, as tensors `(B, L)`, float64; row i comes from generator i."""
        B, L = self.sample_BL.shape
        return draw_uniforms(B, num * L, self.generator, self.sample_BL.device).split(L, dim=1)

    def draw(self, at_BL: torch.Tensor, v_BL: torch.Tensor, beta: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """The canvas with tokens drawn at these positions, by the inverse CDF at `v`, and the log-probability of each,
        float64, -inf elsewhere. Both `(B, L)`.
        """
        row_R, position_R = at_BL.nonzero(as_tuple=True)
        v_R, mask = v_BL[row_R, position_R], self.mask_token_id
        if not len(row_R):  # unusable logits must not go unnoticed until something is revealed
            log_mass(self.logits_BLV, *(i[:1] for i in self.masked_BL.nonzero(as_tuple=True)), excluded=mask)
        token_R, log_prob_R = self.draws.draw(self.logits_BLV, row_R, position_R, v_R, beta, mask)
        canvas_BL = self.sample_BL.index_put((row_R, position_R), token_R)
        return canvas_BL, self.spread(row_R, position_R, log_prob_R, -torch.inf)

    def reveal(self, at_BL: torch.Tensor, v_BL: torch.Tensor, beta: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """As `draw`, but with probabilities, float32, 0 elsewhere, as a step returns them."""
        canvas_BL, log_prob_BL = self.draw(at_BL, v_BL, beta)
        return canvas_BL, log_prob_BL.exp().float()

    def rated_logits(self, beta: float = 1.0) -> ModelOutput:
        """Logits of the law that says how sure the denoiser is."""
        if not self.tempered_certainty:
            return self.logits_BLV
        return self.draws.shaped(self.logits_BLV, beta, self.mask_token_id)

    def shadow_logits(self) -> ModelOutput:
        """Logits of each position from all tokens but its own.

        Raises:
            ValueError: if the step was not given any.
        """
        if self.shadow_BLV is None:
            raise ValueError(
                "This solver asks how likely a token is without itself, so `step` needs `shadow_output`, which"
                " MaskedDiffusionPipeline passes for denoisers that compute it. Take another `solver` in other"
                " pipelines."
            )
        return self.shadow_BLV

    def confidence(self, at_BL: torch.Tensor, canvas_BL: torch.Tensor, beta: float = 1.0) -> torch.Tensor:
        """How sure the denoiser is of the tokens at these positions: their log-probability, float64, -inf elsewhere.
        `(B, L)`.
        """
        row_R, position_R = at_BL.nonzero(as_tuple=True)
        token_R, logits_BLV = canvas_BL[row_R, position_R], self.rated_logits(beta)
        rated_R = certainty.of_tokens(logits_BLV, row_R, position_R, token_R, self.mask_token_id)
        return self.spread(row_R, position_R, rated_R, -torch.inf)

    def draw_rated(
        self, at_BL: torch.Tensor, v_BL: torch.Tensor, beta: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `draw`, and the `confidence` of each token drawn. All `(B, L)`."""
        canvas_BL, log_prob_BL = self.draw(at_BL, v_BL, beta)
        return canvas_BL, log_prob_BL, self.confidence_of_draws(at_BL, canvas_BL, log_prob_BL, beta)

    def confidence_of_draws(
        self, at_BL: torch.Tensor, canvas_BL: torch.Tensor, log_prob_BL: torch.Tensor, beta: float = 1.0
    ) -> torch.Tensor:
        """As `confidence`, for tokens drawn with these log-probabilities. Rows are only read again if it differs."""
        draws_by_chance = self.draws.temperature > 0 and beta < math.inf
        is_law = draws_by_chance if self.tempered_certainty else self.draws.are_plain(beta)
        return log_prob_BL if is_law else self.confidence(at_BL, canvas_BL, beta)

    def spread(
        self, row_R: torch.Tensor, position_R: torch.Tensor, value_R: torch.Tensor, elsewhere: float
    ) -> torch.Tensor:
        """Values of chosen positions on the canvas, `(B, L)`."""
        canvas_BL = torch.full(self.sample_BL.shape, elsewhere, dtype=value_R.dtype, device=value_R.device)
        return canvas_BL.index_put((row_R, position_R), value_R)


def as_rows(
    model_output: ModelOutput, sample: torch.Tensor, mask_token_id: int, vocab_size: int | None
) -> tuple[ModelOutput, torch.Tensor]:
    """The logits as `(B, L, V)` and the canvas as `(B, L)`: views, nothing is copied.

    Raises:
        ValueError: if shapes, dtypes or the vocabulary do not fit.
    """
    if sample.dtype != torch.int64:
        raise ValueError(f"`sample` must hold int64 token ids, got {sample.dtype}.")
    if not model_output.is_floating_point():
        raise ValueError(f"`model_output` must be floating point, got {model_output.dtype}.")
    is_image, shape, wanted = sample.ndim == 3, tuple(model_output.shape), tuple(sample.shape)
    fits = len(shape) == 3 and shape[:2] == (wanted[0], math.prod(wanted[1:]))
    logits_BLV = model_output
    if is_image and isinstance(model_output, torch.Tensor) and len(shape) == 4:
        fits, logits_BLV = (shape[0], *shape[2:]) == wanted, model_output.flatten(2).transpose(1, 2)
    if sample.ndim not in (2, 3) or not fits:
        raise ValueError(
            "`model_output` and `sample` must have shapes (B, L, V) and (B, L), or (B, V, H, W) or (B, H * W, V) and"
            f" (B, H, W), got {shape} and {wanted}."
        )
    columns = logits_BLV.shape[-1]
    if vocab_size is not None:
        # one column more than the vocabulary is the mask's
        fits = columns == vocab_size or (columns == vocab_size + 1 and mask_token_id <= vocab_size)
    else:
        # image models (aMUSEd) keep ids between their codebook and their mask; text models do not
        fits = is_image or mask_token_id <= columns
    if not fits:
        raise ValueError(
            f"`model_output` has {columns} columns, which does not fit `vocab_size` {vocab_size} and `mask_token_id`"
            f" {mask_token_id}: vocabulary mismatch."
        )
    return logits_BLV, sample.reshape(sample.shape[0], -1)


def check_known_tokens(known: torch.Tensor, columns: int) -> None:
    """Raises `ValueError` if a given token is not in the vocabulary."""
    if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < columns:
        raise ValueError(
            f"`sample` holds token ids outside the {columns} columns of `model_output`: vocabulary mismatch."
        )
