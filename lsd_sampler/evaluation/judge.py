"""Likelihood of samples under a causal language model, the judge. It means nothing without the samples' entropy."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError

from ..denoisers.tokenizer_files import check_backend, check_tokenizer_files
from ..support.lfs import check_no_pointer
from ..support.out_of_memory import is_out_of_memory
from ..support.validation import check_number
from .tokens import encode, load_tokenizer_file, present, same_token_ids


Rows = torch.Tensor | Sequence[torch.Tensor] | Sequence[Sequence[int]]
"""Token ids: a tensor of shape `(num_samples, length)`, or ragged rows."""


class JudgeError(RuntimeError):
    """The judge cannot go on; what was measured before is kept."""


class JudgeInputError(JudgeError, ValueError):
    """The judge cannot score some samples; the message says which ones, and what to do."""


@dataclass(frozen=True)
class JudgeScores:
    """Likelihoods in nats.

    Attributes:
        nll: (`torch.DoubleTensor` of shape `(num_samples,)`), negative log-likelihood of tokens 1..L-1 given those
            before them.
        num_tokens: (`torch.LongTensor` of shape `(num_samples,)`), how many tokens that is.
    """

    nll: torch.Tensor
    num_tokens: torch.Tensor

    @property
    def per_sequence(self) -> torch.Tensor:
        """Mean per token of each sequence, `nan` for one of less than two tokens."""
        return self.nll / self.num_tokens

    @property
    def mean(self) -> float:
        """Mean over all tokens of all sequences."""
        return self.per_unit(int(self.num_tokens.sum()))

    def per_unit(self, num_units: int) -> float:
        """The whole negative log-likelihood divided by a number of units: tokens, or the words of the texts."""
        return float(self.nll.sum()) / num_units


def perplexity(nll: float) -> float:
    """`exp` of a mean negative log-likelihood in nats: the number of equally likely choices that surprise as much."""
    return math.exp(nll) if nll < 700 else math.inf


def count_words(text: str) -> int:
    """Words between white space, at least 1: the unit of word-level perplexity, which knows no tokenizer."""
    return max(len(text.split()), 1)


class JudgeNLL:
    """Mean negative log-likelihood per token under any causal language model of transformers.

    Position i is scored given positions 0..i-1. The first position is not scored, and no BOS is put in front of it.
    Sequences longer than the judge's context are scored in windows: each moves on by `stride` positions and scores
    the positions that no earlier window has scored.

    Args:
        model: a causal language model, called as `model(ids).logits`.
        tokenizer: the judge's tokenizer (`tokenizers.Tokenizer` or transformers), needed to score texts.
        autocast_dtype (`torch.dtype`, *optional*): for example `torch.bfloat16`: run the network in autocast.
            Log-probabilities are taken in float32 and summed in float64 in any case.
        max_logits (`int`, *optional*): largest number of logits held at once; it sets the batch size. Default: what
            fits into the caches of a CPU, 0.5 GB on an accelerator.
        batch_size (`int`, *optional*): largest number of sequences scored at once, within `max_logits`.
        stride (`int`, *optional*): of the windows; a small stride is exact and slow. Default: half the context.

    Raises:
        ValueError: if the model's context holds less than two tokens, or an argument is out of range.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Any | None = None,
        *,
        autocast_dtype: torch.dtype | None = None,
        max_logits: int | None = None,
        batch_size: int | None = None,
        stride: int | None = None,
    ):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.autocast_dtype = autocast_dtype
        self.max_logits = max_logits or (1 << 22 if self._device.type == "cpu" else 1 << 27)
        self.batch_size, self.stride = batch_size, stride
        config: Any = model.config
        self.vocab_size: int = config.vocab_size
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        if self.context is not None and self.context < 2:
            raise ValueError(f"`model` must have a context of at least two tokens, got {self.context}.")
        check_number("batch_size", batch_size, integer=True, optional=True, low=1)
        check_number("stride", stride, integer=True, optional=True, low=1, high=(self.context or math.inf) - 1)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> "JudgeNLL":
        """Loads a judge from a local folder or the Hub. Code from the repository is never run.

        Args:
            dtype (`torch.dtype`, *optional*): of the weights; default: as stored.
            options: further arguments of the constructor.

        Raises:
            OSError: if there is no such folder or repository, or it holds no causal language model.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        name_or_path = os.path.expanduser(name_or_path)
        where: dict[str, Any] = {"trust_remote_code": False} | ({"revision": revision} if revision else {})
        try:
            _check_files(Path(name_or_path))
            model: Any = AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype or "auto", **where)
            tokenizer = load_tokenizer_file(name_or_path)
            if tokenizer is None:
                tokenizer = AutoTokenizer.from_pretrained(name_or_path, **where)
        except (OSError, ValueError, ImportError, SafetensorError) as error:  # their messages have several lines
            raise OSError(f"The judge {name_or_path!r} cannot be loaded: {_first_line(error)}") from error
        return cls(model.to(device) if device else model, tokenizer, **options)

    @property
    def identity(self) -> dict[str, Any]:
        """Which judge it is, as far as it knows: `name`, `commit`, `dtype`, `autocast`, and `stride` as given."""
        config: Any = self.model.config
        dtypes = {"dtype": next(self.model.parameters()).dtype, "autocast": self.autocast_dtype}
        named = {name: dtype and str(dtype).removeprefix("torch.") for name, dtype in dtypes.items()}
        where = {"name": getattr(config, "_name_or_path", None), "commit": getattr(config, "_commit_hash", None)}
        return {**where, **named, "stride": self.stride}

    def shares_tokenizer(self, tokenizer: Any) -> bool:
        """Whether token ids of `tokenizer` are token ids of the judge."""
        return self.tokenizer is not None and same_token_ids(self.tokenizer, tokenizer)

    def score(self, sequences: Rows, texts: Sequence[str], tokenizer: Any | None = None) -> JudgeScores:
        """Scores `sequences` by id if their `tokenizer` is also the judge's; otherwise tokenises and scores `texts`.

        Raises:
            JudgeInputError: as [`~JudgeNLL.score_ids`].
        """
        if tokenizer is not None and self.shares_tokenizer(tokenizer):
            return self.score_ids(sequences)
        return self.score_texts(texts)

    def score_texts(self, texts: Sequence[str]) -> JudgeScores:
        """Scores texts in the judge's own tokens.

        Raises:
            ValueError: if the judge has no tokenizer, or no text has two tokens.
        """
        if self.tokenizer is None:
            raise ValueError("`tokenizer` of the judge is needed to score texts, and it has none.")
        return self._score(encode(self.tokenizer, texts), "its own tokenizer is larger than it: give another judge.")

    def score_ids(self, sequences: Rows) -> JudgeScores:
        """Scores token ids of the judge, a tensor of shape `(num_samples, length)` or ragged lists.

        Raises:
            JudgeInputError: a `ValueError`: if an id is not in the judge's vocabulary, or no sequence has two tokens.
        """
        advice = "give a judge that has it, or load the model with `excluded_token_ids`: those without a token."
        return self._score(sequences, advice)

    def _score(self, sequences: Rows, advice: str) -> JudgeScores:
        rows = [torch.as_tensor(row, dtype=torch.long) for row in sequences]
        lengths = torch.tensor([len(row) for row in rows])
        if not len(rows) or lengths.max() < 2:
            raise JudgeInputError("`sequences` must hold at least one sequence of two tokens.")
        self._check_ids(rows, advice)
        nll = torch.zeros(len(rows), dtype=torch.float64)
        for chosen, padded in self._batches(rows, lengths):
            with _in_a_sentence(len(chosen)):
                nll[chosen] = self._score_batch(padded, lengths[chosen])
        return JudgeScores(nll, (lengths - 1).clamp(min=0))

    def features(self, sequences: torch.Tensor, texts: Sequence[str], tokenizer: Any | None = None) -> torch.Tensor:
        """The judge's last hidden states, averaged over the positions of a sample: an embedding space for `energy` and
        MAUVE. Only the beginning of a sample longer than the judge's context is read.

        Args:
            sequences, texts, tokenizer: as for [`~JudgeNLL.score`].

        Returns:
            `torch.FloatTensor` of shape `(num_samples, hidden_size)`, on the CPU.

        Raises:
            JudgeInputError: a `ValueError`: if a sample has no token, or one that the judge does not have.
        """
        by_id = tokenizer is not None and self.shares_tokenizer(tokenizer)
        ids = [present(row) for row in sequences] if by_id else encode(self.tokenizer, texts)
        self._check_ids([torch.as_tensor(row, dtype=torch.long) for row in ids], "give another judge.")
        rows = [torch.as_tensor(row, dtype=torch.long)[: self.context] for row in ids]
        lengths = torch.tensor([len(row) for row in rows])
        if lengths.min() < 1:
            empty = int(lengths.argmin())
            raise JudgeInputError(f"`texts` must hold a token each to have features: sample {empty} has none.")
        means: dict[int, torch.Tensor] = {}
        for chosen, padded in self._batches(rows, lengths):
            with _in_a_sentence(len(chosen)):
                means |= zip(chosen.tolist(), self._mean_states(padded, lengths[chosen]), strict=True)
        return torch.stack([means[i] for i in range(len(rows))])

    def _check_ids(self, rows: Sequence[torch.Tensor], advice: str) -> None:
        for i, row in enumerate(rows):
            bad = row[(row < 0) | (row >= self.vocab_size)].tolist()
            if bad:
                raise JudgeInputError(
                    f"`sequences` must hold ids in [0, {self.vocab_size}), the vocabulary of the judge, and sample {i}"
                    f" holds {bad[0]}: {advice}"
                )

    def _batches(
        self, rows: Sequence[torch.Tensor], lengths: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Indices of rows, and those rows padded at the end; neighbours of like length waste little padding."""
        order = lengths.argsort(stable=True)
        while len(order):
            width = int(lengths[order[-1]])
            size = max(1, self.max_logits // (min(width, self.context or width) * self.vocab_size))
            size = min(size, self.batch_size or size)
            chosen, order = order[-size:], order[:-size]
            yield chosen, torch.nn.utils.rnn.pad_sequence([rows[i] for i in chosen.tolist()], batch_first=True)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, self.autocast_dtype) if self.autocast_dtype else nullcontext()

    @torch.inference_mode()
    def _score_batch(self, ids_BL: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """Sums of one batch, float64 of shape `(B,)`. Padding lies at the end, where a causal model cannot see it."""
        device = self._device
        ids_BL, lengths_B = ids_BL.to(device), lengths_B.to(device)
        length = ids_BL.shape[1]
        context = min(self.context or length, length)
        stride = self.stride or context // 2
        nll_B = torch.zeros(len(ids_BL), dtype=torch.float64, device=device)
        begin, scored = 0, 1
        while scored < length:
            end = min(begin + context, length)
            with self._autocast(device):
                logits = self.model(ids_BL[:, begin:end]).logits
            logits = logits[:, scored - 1 - begin : end - 1 - begin].float()
            loss = F.cross_entropy(logits.flatten(0, 1), ids_BL[:, scored:end].flatten(), reduction="none")
            real_BL = torch.arange(scored, end, device=device) < lengths_B[:, None]
            nll_B += (loss.view(real_BL.shape).double() * real_BL).sum(1)
            begin, scored = begin + stride, end
        return nll_B.cpu()

    @torch.inference_mode()
    def _mean_states(self, ids_BL: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        device = self._device
        body: Any = getattr(self.model, "base_model", self.model)  # the network without its head
        with self._autocast(device):
            states_BLD = body(ids_BL.to(device)).last_hidden_state.float()
        real_BL = torch.arange(ids_BL.shape[1], device=device) < lengths_B.to(device)[:, None]
        return ((states_BLD * real_BL[..., None]).sum(1) / real_BL.sum(1, keepdim=True)).cpu()


@contextmanager
def _in_a_sentence(batch_size: int) -> Iterator[None]:
    """Turns an out-of-memory error into a `JudgeError` that says what to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        smaller = f"`--judge-batch-size {batch_size // 2}`" if batch_size > 1 else "a smaller judge"
        raise JudgeError(
            f"The judge ran out of memory on {batch_size} sequences: try {smaller} or `--judge-dtype bfloat16`."
        ) from error


def _check_files(folder: Path) -> None:
    """Raises `ValueError`, naming the file, if one of a local folder is damaged."""
    if folder.is_dir():
        check_tokenizer_files(folder)
        check_backend(folder)
        for file in folder.glob("*.safetensors"):
            check_no_pointer(file)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
