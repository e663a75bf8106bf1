"""Any finite set of sequences: denoisers whose law is a table, so that all error of a generation is the sampler's."""

import math
import re
from pathlib import Path
from typing import Any, Self

import torch

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401

from .files import Checkpoint, read_tensors
from .oracle import Oracle, draw, uniforms


ENTRIES_AT_ONCE = 2**23
"""Entries that are compared, or summed, at a time: bounds the memory of a call."""
SCATTER_COST = 100
"""The cost of adding one weight by its index, in multiplications."""


class TableDenoiser(Oracle):
    r"""
    Exact posteriors of a finite set of sequences: `p(x_i = y | known)` is the weight of the sequences that have y at i
    among those that agree with everything known.

    Parallel draws may leave no sequence that agrees. The sequences that disagree with the fewest known tokens then
    take their place, so that every row is a distribution. (The sample is wrong in any case; this keeps it near.)

    A call compares each different canvas with each sequence: `batch_size * num_sequences * seq_len` comparisons.

    Args:
        sequences (`torch.LongTensor` of shape `(num_sequences, length)`): the set. Equal ones count together.
        weights (`torch.Tensor` of shape `(num_sequences,)`, *optional*): their probabilities, up to a factor; default:
            equal. Whole numbers are summed without rounding, so that equal probabilities stay equal.
        vocab_size (`int`, *optional*): number of tokens; default: the largest token of `sequences`, plus 1.

    Raises:
        ValueError: if an argument is no such thing, or no sequence has a weight.
    """

    sequences: torch.Tensor
    weights: torch.Tensor
    _columns_LN: torch.Tensor

    def __init__(self, sequences: torch.Tensor, weights: torch.Tensor | None = None, vocab_size: int | None = None):
        sequences = _check_sequences(sequences)
        V = int(sequences.max()) + 1 if vocab_size is None else vocab_size
        if V <= int(sequences.max()):
            raise ValueError(f"`vocab_size` must be above the largest token, {int(sequences.max())}, got {V}.")
        super().__init__(V, sequences.shape[1])
        sequences, weights = _merged(sequences, _check_weights(weights, sequences))
        self.register_buffer("sequences", sequences)
        self.register_buffer("weights", weights)
        narrow = torch.int16 if V < 2**15 else torch.int32
        self.register_buffer("_columns_LN", sequences.T.to(narrow).contiguous(), persistent=False)
        self.num_valid = len(sequences)
        self.collision_probability = float(self.probabilities.square().sum())

    @property
    def probabilities(self) -> torch.Tensor:
        """Probabilities of the sequences, `(num_sequences,)`."""
        return self.weights / self.weights.sum()

    def _posterior(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        rows = max(1, ENTRIES_AT_ONCE // len(self.sequences))
        return torch.cat([self._weights_by_token(some_BL) for some_BL in tokens_BL.split(rows)])

    def _weights_by_token(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Weights of the nearest sequences, summed by the token that they have at each position. `(B, L, V)`."""
        near_BN = self._nearest(tokens_BL)
        few = int(near_BN.sum()) * SCATTER_COST < near_BN.numel() * self.vocab_size
        return (self._scattered if few else self._multiplied)(near_BN, tokens_BL.shape[1])

    def _nearest(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Whether each sequence agrees with the most known tokens (with all of them, where possible). `(B, N)`."""
        canvas_BL = tokens_BL.to(self._columns_LN.dtype)
        agree_BN = torch.zeros(len(tokens_BL), len(self.sequences), dtype=torch.int16, device=tokens_BL.device)
        for i in (tokens_BL != self.mask_token_id).any(0).nonzero()[:, 0].tolist():
            agree_BN += canvas_BL[:, i, None] == self._columns_LN[i]  # a mask equals none
        return agree_BN == agree_BN.max(1, keepdim=True).values

    def _scattered(self, near_BN: torch.Tensor, L: int) -> torch.Tensor:
        """The sums, one sequence after the other."""
        B, V = len(near_BN), self.vocab_size
        out_R = self.weights.new_zeros(B * L * V)
        column_L = torch.arange(L, device=near_BN.device) * V
        for pairs_K2 in near_BN.nonzero().split(max(1, ENTRIES_AT_ONCE // L)):
            row_K, sequence_K = pairs_K2.T
            index_KL = row_K[:, None] * (L * V) + column_L + self.sequences[sequence_K, :L]
            out_R.index_add_(0, index_KL.flatten(), self.weights[sequence_K].repeat_interleave(L))
        return out_R.view(B, L, V)

    def _multiplied(self, near_BN: torch.Tensor, L: int) -> torch.Tensor:
        """The sums, as products with the one-hot sequences."""
        V, out_BR = self.vocab_size, self.weights.new_zeros(len(near_BN), L * self.vocab_size)
        column_L = torch.arange(L, device=near_BN.device) * V
        size = max(1, ENTRIES_AT_ONCE // (L * V))
        for near_Bn, weight_n, x_nL in zip(
            near_BN.split(size, dim=1), self.weights.split(size), self.sequences[:, :L].split(size), strict=True
        ):
            one_hot_nR = weight_n.new_zeros(len(x_nL), L * V).scatter_(1, x_nL + column_L, 1.0)
            out_BR += (near_Bn * weight_n) @ one_hot_nR
        return out_BR.view(-1, L, V)

    @torch.no_grad()
    def sample(self, num: int, generator: torch.Generator | None = None) -> torch.Tensor:
        return self.sequences[draw(self.weights, uniforms((num,), generator, self.device))]

    def log_prob(self, sequences: torch.Tensor) -> torch.Tensor:
        self._check_length(sequences)
        table_NL = self.sequences[:, : sequences.shape[1]]
        different, place = torch.cat([table_NL, sequences.to(self.device)]).unique(dim=0, return_inverse=True)
        mass_U = self.weights.new_zeros(len(different)).index_add_(0, place[: len(table_NL)], self.probabilities)
        return mass_U[place[len(table_NL) :]].log()

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        return checkpoint.config.get("_class_name") == cls.__name__

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, variant: str | None = None) -> Self:
        file = checkpoint.weights_file(variant)
        tensors, vocab_size = read_tensors(file), checkpoint.config.get("vocab_size")
        if not isinstance(vocab_size, int):
            raise ValueError(f"{checkpoint.config_file} must hold an integer 'vocab_size', got {vocab_size!r}.")
        if missing := {"sequences", "weights"} - tensors.keys():
            raise ValueError(f"{file} lacks tensors: {', '.join(sorted(missing))}.")
        try:
            return cls(tensors["sequences"], tensors["weights"], vocab_size)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def _config(self) -> dict[str, Any]:
        return {"_class_name": type(self).__name__, "vocab_size": self.vocab_size, "length": self.length}


def _check_sequences(sequences: torch.Tensor) -> torch.Tensor:
    sequences = torch.as_tensor(sequences).detach()
    if sequences.ndim != 2 or not sequences.numel():
        raise ValueError(f"`sequences` must have shape (num_sequences, length), got {tuple(sequences.shape)}.")
    if sequences.is_floating_point() or sequences.dtype == torch.bool or int(sequences.min()) < 0:
        raise ValueError("`sequences` must hold token ids, integers of at least 0.")
    return sequences.long()


def _check_weights(weights: torch.Tensor | None, sequences: torch.Tensor) -> torch.Tensor:
    if weights is None:
        return torch.ones(len(sequences), dtype=torch.float64, device=sequences.device)
    weights = torch.as_tensor(weights).detach().double()
    if weights.shape != sequences.shape[:1]:
        raise ValueError(f"`weights` must have shape ({len(sequences)},), got {tuple(weights.shape)}.")
    if not bool((weights >= 0).all()) or not 0 < float(weights.sum()) < math.inf:
        raise ValueError("`weights` must be finite and not negative, and one of them above 0.")
    return weights


def _merged(sequences: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Different sequences of positive weight, and their weights."""
    sequences, place = sequences[weights > 0].unique(dim=0, return_inverse=True)
    return sequences, weights.new_zeros(len(sequences)).index_add_(0, place, weights[weights > 0])


def read_table(path: str | Path) -> TableDenoiser:
    """Reads a set of sequences from a text file, one a line: ids (`3 1 2`) or characters (`cab`), all of one length.

    A line may end in a tab and a weight; without one it weighs 1. Ids are recognised by the spaces between them: every
    line then holds at least two whole numbers. Characters become ids in the order of their code points, and the
    denoiser has a tokenizer for them. Empty lines are left out.

    Raises:
        OSError: if the file is missing.
        ValueError: if it holds no such set; the message names file and line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text in UTF-8: {error}.") from error
    entries = [(i, *_entry(f"{path}, line {i}", line)) for i, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise ValueError(f"{path} holds no sequence: write one a line.")
    numbers, texts, weights = zip(*entries, strict=True)
    of_ids = [re.fullmatch(r"\s*\d+(\s+\d+)+\s*", text) is not None for text in texts]
    are_ids = of_ids[0]
    rows = [text.split() for text in texts] if are_ids else texts
    for i, row, same in zip(numbers, rows, (is_ids == are_ids for is_ids in of_ids), strict=True):
        if not same:
            raise ValueError(f"{path}: line {numbers[0]} holds {_kind(are_ids)}, line {i} {_kind(not are_ids)}.")
        if len(row) != len(rows[0]):
            raise ValueError(f"{path}, line {i}: {len(row)} tokens, but {len(rows[0])} in line {numbers[0]}.")
    letters = [] if are_ids else sorted(set("".join(texts)))
    ids = {letter: i for i, letter in enumerate(letters)}
    try:
        table = torch.tensor([[int(token) if are_ids else ids[token] for token in row] for row in rows])
        made = TableDenoiser(table, torch.tensor(weights, dtype=torch.float64))
    except (ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error
    made.tokenizer = _tokenizer(letters) if letters else None
    return made


def _kind(are_ids: bool) -> str:
    return "ids between spaces" if are_ids else "characters"


def _entry(where: str, line: str) -> tuple[str, float]:
    text, tab, weight = line.rstrip("\r").rpartition("\t")
    if not tab:
        return weight, 1.0
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not text or not 0 <= number < math.inf:
        raise ValueError(f"{where}: after the tab there must be a weight of at least 0, got {weight!r}.")
    return text, number


def _tokenizer(letters: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend)
