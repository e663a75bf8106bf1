"""Sources and canvases of a translation: lengths, first canvases, and the best of several candidates.

Shape suffixes: B sources, R canvases (several candidates for each source), S source positions, N columns.
"""

import logging
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..sampling.draws import draw_uniforms, gumbel
from .piece_tokenizer import BOS, EOS, PAD, UNK
from .translation import TranslationDenoiser
from .vocabulary import unknown_share


logger = logging.getLogger(__name__)

SHORTEST = 3
"""Tokens of the shortest canvas: `<s>`, one token, `</s>`."""


def read_sources(prompt: Any, denoiser: TranslationDenoiser) -> list[list[int]]:
    """The token ids of each source, `<s>` and `</s>` included.

    Args:
        prompt: a text in pieces, token ids (with or without `<s>` and `</s>`), or a list of either.

    Raises:
        ValueError: if there is none, or one that cannot be read.
    """
    if not hasattr(prompt, "__len__") or getattr(prompt, "ndim", 1) == 0:
        raise ValueError(f"`prompt` must be a text, token ids, or a list of either, got {prompt!r}.")
    is_one = isinstance(prompt, str) or (len(prompt) > 0 and isinstance(_first(prompt), numbers.Integral))
    listed = [prompt] if is_one else list(prompt)
    if not listed:
        raise ValueError("`prompt` holds no text.")
    sources = [_source(entry, denoiser) for entry in listed]
    most = denoiser.encoder.max_positions
    for i, ids in enumerate(sources):
        if len(ids) > most:
            raise ValueError(
                f"`prompt` {i} has {len(ids)} tokens (`<s>` and `</s>` included), but the encoder has {most}"
                " positions: split the text."
            )
    return sources


def _first(prompt: Any) -> Any:
    first = prompt[0]
    return first.item() if isinstance(first, torch.Tensor) and first.ndim == 0 else first


def _source(entry: Any, denoiser: TranslationDenoiser) -> list[int]:
    if isinstance(entry, str):
        assert denoiser.tokenizer is not None
        ids = denoiser.tokenizer.encode(entry)
        if said := unknown_share(denoiser.tokenizer, ids[1:-1]):
            logger.warning("`prompt` is to be split into the pieces of the dictionary, with blanks between: %s", said)
        return ids
    ids, size = _integers(entry), denoiser.config["source_vocabulary"]
    if ids is None or any(not 0 <= i < size for i in ids):
        raise ValueError(f"`prompt` must be a text, token ids in [0, {size - 1}], or a list of either, got {entry!r}.")
    ids = [i for i in ids if i != PAD]
    return [*([] if ids[:1] == [BOS] else [BOS]), *ids, *([] if ids[-1:] == [EOS] else [EOS])]


def _integers(entry: Any) -> list[int] | None:
    try:
        tensor = torch.as_tensor(entry)
    except (TypeError, ValueError, RuntimeError):
        return None
    is_integer = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
    return tensor.tolist() if tensor.ndim == 1 and tensor.numel() and is_integer else None


def padded_sources(sources: Sequence[Sequence[int]], left: bool) -> torch.Tensor:
    """Sources of one length, `(B, S)`, with padding on the left or right."""
    longest = max(map(len, sources))
    padding = [[PAD] * (longest - len(ids)) for ids in sources]
    pairs = zip(padding, map(list, sources), strict=True)
    return torch.tensor([pad + ids if left else ids + pad for pad, ids in pairs])


@dataclass(frozen=True)
class LengthBeam:
    """How many lengths are tried for each source, and how often each.

    Args:
        lengths (`int`): b: from `b // 2` below the predicted length on.
        within (`int`): how many candidates each length has.

    Raises:
        ValueError: if one is no positive integer.
    """

    lengths: int = 5
    within: int = 1

    def __post_init__(self) -> None:
        for name, value in (("length_beam", self.lengths), ("beam_within_length", self.within)):
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")

    @property
    def candidates(self) -> int:
        """Candidates for each source."""
        return self.lengths * self.within

    def around(self, length_B: torch.Tensor, most: int) -> torch.Tensor:
        """The lengths of the candidates, `(B, candidates)`, at least 3 and at most `most`."""
        offset = torch.arange(self.lengths, device=length_B.device) - self.lengths // 2
        length_BC = (length_B[:, None] + offset).repeat(1, self.within).clamp(min=SHORTEST)
        if bool((length_BC > most).any()):
            logger.warning("Predicted lengths up to %d are cut to %d, the longest canvas.", int(length_BC.max()), most)
        return length_BC.clamp(max=most)


def longest_canvas(denoiser: TranslationDenoiser) -> int:
    """Columns of the longest canvas. The tokens of multinomial noise are all different, so there are no more of them
    than in the vocabulary.
    """
    return denoiser.length if denoiser.mask_token_id is not None else min(denoiser.length, denoiser.vocab_size)


def framed(length_R: torch.Tensor, num_columns: int, inside_RN: torch.Tensor | int) -> torch.Tensor:
    """Canvases of these lengths: `<s>`, what is inside, `</s>`, padding. `(R, N)`."""
    column_N = torch.arange(num_columns, device=length_R.device)
    inside_RN = torch.as_tensor(inside_RN, device=length_R.device)
    canvas_RN = torch.where(column_N < length_R[:, None] - 1, inside_RN, PAD)
    canvas_RN[:, 0] = BOS
    return canvas_RN.scatter(1, length_R[:, None] - 1, EOS)


def first_canvases(
    denoiser: TranslationDenoiser,
    length_R: torch.Tensor,
    columns_R: Sequence[int],
    num_columns: int,
    generators: Sequence[torch.Generator] | None,
) -> torch.Tensor:
    """What a generation begins with: `<unk>` under absorbing noise; under multinomial noise random tokens, all
    different in a row. `(R, N)`.

    Args:
        denoiser ([`TranslationDenoiser`]): the model.
        length_R (`torch.LongTensor` of shape `(num_rows,)`): lengths, `<s>` and `</s>` included.
        columns_R (sequence of `int`): how many tokens are drawn for each row, of which the first ones are taken.
        num_columns (`int`): N.
        generators (sequence of `torch.Generator`, *optional*): one for each row.
    """
    if denoiser.mask_token_id is not None:
        return framed(length_R, num_columns, UNK)
    own = [None] * len(length_R) if generators is None else generators
    log_prob_V = denoiser.vocab_log_prob.double().to(length_R.device)
    token_RN = torch.full((len(length_R), num_columns), PAD, device=length_R.device)
    for row_N, columns, generator in zip(token_RN, columns_R, own, strict=True):
        row_N[:columns] = _different_tokens(log_prob_V, columns, generator)
    return framed(length_R, num_columns, token_RN)


def _different_tokens(log_prob_V: torch.Tensor, number: int, generator: torch.Generator | None) -> torch.Tensor:
    """Tokens drawn without replacement, in random order. `(number,)`."""
    V = len(log_prob_V)
    uniform_1U = draw_uniforms(1, V + number, generator, log_prob_V.device)
    drawn = (gumbel(uniform_1U[0, :V]) + log_prob_V).topk(number).indices
    return drawn[uniform_1U[0, V:].argsort()]


def candidate_scores(score_RN: torch.Tensor, canvas_RN: torch.Tensor) -> torch.Tensor:
    """The mean score of the tokens of each canvas, padding left out, `<s>` and `</s>` with a score of 0. `(R,)`."""
    real_RN = canvas_RN != PAD
    return score_RN.masked_fill(~real_RN, 0).sum(1) / real_RN.sum(1)


def best_candidates(score_R: torch.Tensor, num_candidates: int) -> torch.Tensor:
    """The row of the best candidate of each source, the first of several. `(B,)`."""
    score_BC = score_R.nan_to_num(nan=-math.inf).view(-1, num_candidates)
    return score_BC.argmax(1) + torch.arange(len(score_BC), device=score_R.device) * num_candidates
