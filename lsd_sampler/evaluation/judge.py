"""Likelihood of samples under a causal language model, the judge. It means nothing without the samples' entropy."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .tokens import encode, load_tokenizer_file, same_token_ids


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
        return float(self.nll.sum() / self.num_tokens.sum())


class JudgeNLL:
    """Mean negative log-likelihood per token under any causal language model of transformers.

    Position i is scored given positions 0..i-1; the first has nothing before it and is not scored, and no BOS is put
    in front. Sequences longer than the judge's context are scored in windows that overlap by half.

    Args:
        model: a causal language model, called as `model(ids).logits`.
        tokenizer: the judge's tokenizer (`tokenizers.Tokenizer` or transformers), needed to score texts.
        autocast_dtype (`torch.dtype`, *optional*): for example `torch.bfloat16`: run the network in autocast.
            Log-probabilities are taken in float32 and summed in float64 in any case.
        max_logits (`int`, *optional*): largest number of logits held at once; it sets the batch size. Default: what
            fits into the caches of a CPU, 0.5 GB on an accelerator.

    Raises:
        ValueError: if the model's context holds less than two tokens.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Any | None = None,
        *,
        autocast_dtype: torch.dtype | None = None,
        max_logits: int | None = None,
    ):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.autocast_dtype = autocast_dtype
        self.max_logits = max_logits or (1 << 22 if self._device.type == "cpu" else 1 << 27)
        config: Any = model.config
        self.vocab_size: int = config.vocab_size
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        if self.context is not None and self.context < 2:
            raise ValueError(f"`model` must have a context of at least two tokens, got {self.context}.")

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        autocast_dtype: torch.dtype | None = None,
    ) -> "JudgeNLL":
        """Loads a judge from a local folder or the Hub. Code from the repository is never run.

        Raises:
            OSError: if there is no such folder or repository.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options: dict[str, Any] = {"revision": revision} if revision else {}
        weights = options | ({"dtype": dtype} if dtype else {})
        model: Any = AutoModelForCausalLM.from_pretrained(name_or_path, trust_remote_code=False, **weights)
        tokenizer = load_tokenizer_file(name_or_path)
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False, **options)
        return cls(model.to(device) if device else model, tokenizer, autocast_dtype=autocast_dtype)

    def shares_tokenizer(self, tokenizer: Any) -> bool:
        """Whether token ids of `tokenizer` are token ids of the judge."""
        return self.tokenizer is not None and same_token_ids(self.tokenizer, tokenizer)

    def score(self, sequences: torch.Tensor, texts: Sequence[str], tokenizer: Any | None = None) -> JudgeScores:
        """Scores `sequences` by id where their `tokenizer` is the judge's too, otherwise `texts`, tokenised anew."""
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
        return self.score_ids(encode(self.tokenizer, texts))

    def score_ids(self, sequences: torch.Tensor | Sequence[Sequence[int]]) -> JudgeScores:
        """Scores token ids of the judge, a tensor of shape `(num_samples, length)` or ragged lists.

        Raises:
            ValueError: if an id is not in the judge's vocabulary, or no sequence has two tokens.
        """
        rows = [torch.as_tensor(row, dtype=torch.long) for row in sequences]
        lengths = torch.tensor([len(row) for row in rows])
        if not len(rows) or lengths.max() < 2:
            raise ValueError("`sequences` must hold at least one sequence of two tokens.")
        ids = torch.cat(rows)
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            raise ValueError(f"`sequences` must hold ids in [0, {self.vocab_size}), the vocabulary of the judge.")
        nll = torch.zeros(len(rows), dtype=torch.float64)
        order = lengths.argsort(stable=True)  # neighbours of like length waste little padding
        while len(order):
            width = int(lengths[order[-1]])
            size = max(1, self.max_logits // (min(width, self.context or width) * self.vocab_size))
            chosen, order = order[-size:], order[:-size]
            padded = torch.nn.utils.rnn.pad_sequence([rows[i] for i in chosen], batch_first=True)
            nll[chosen] = self._score_batch(padded, lengths[chosen])
        return JudgeScores(nll, (lengths - 1).clamp(min=0))

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
            begin, scored = begin + context // 2, end
        return nll_B.cpu()
