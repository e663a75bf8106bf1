"""What SEDD and MDLM have in common: a transformer that sees the total noise, and the log-scores read from it."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..sampling.logit_rows import DeferredLogits, edit_rows
from ..sampling.noise import NoiseSchedule
from .base import Denoiser
from .shadow import at_places, behind, shadow_attention
from .transformer import AdaptiveBlock, AdaptiveOutputLayer, Embedding, Rotary, TimestepEmbedder


_GPT2_VOCAB_SIZE = 50257


class DDiTDenoiser(Denoiser):
    r"""
    The transformer of SEDD and MDLM, conditioned on the total noise sigma-bar(t) of each sequence.

    It sees 0 instead where `time_conditioned` is false. A subclass says with `_finish` how `forward` reads the logits.

    Args:
        sizes (`dict[str, int]`): `hidden_size`, `n_heads`, `n_blocks`, `cond_dim` and `length`.
        dropout (`float`): dropout in training mode.
        num_columns (`int`): number of token ids, the mask included.
        noise ([`~lsd_sampler.sampling.noise.NoiseSchedule`]): the noise that it was trained under.
    """

    defers_head = True
    time_conditioned = True
    # whether log-scores have the mean odds of the noise taken out, so that the network need not learn them
    scale_by_sigma = True

    def __init__(self, sizes: dict[str, int], dropout: float, num_columns: int, noise: NoiseSchedule):
        super().__init__()
        dim, num_heads, cond_dim = sizes["hidden_size"], sizes["n_heads"], sizes["cond_dim"]
        self.length, self.noise = sizes["length"], noise
        self.vocab_embed = Embedding(num_columns, dim)
        self.sigma_map = TimestepEmbedder(cond_dim)
        self.rotary_emb = Rotary(dim // num_heads)
        self.blocks = nn.ModuleList(AdaptiveBlock(dim, num_heads, cond_dim, dropout) for _ in range(sizes["n_blocks"]))
        self.output_layer = AdaptiveOutputLayer(dim, cond_dim, num_columns)

    @property
    def takes_shadow(self) -> bool:
        """Whether `forward` takes a `shadow`: where there is a mask."""
        return self.mask_token_id is not None

    def forward(
        self,
        tokens: torch.Tensor,
        t: torch.Tensor | None = None,
        *,
        return_hidden_states: bool = False,
        shadow: slice | None = None,
    ) -> torch.Tensor:
        """The official output.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, seq_len)`): masked where equal to `mask_token_id`.
            t (`torch.Tensor` of shape `(batch_size,)` or `()`, *optional*): times in (0, 1]; needed if
                `time_conditioned`.
            return_hidden_states (`bool`, defaults to `False`): whether to stop before the head.
            shadow (`slice`, *optional*): positions that are predicted once more, each from all tokens but its own.
                Their rows follow those of the canvas.

        Returns:
            `torch.Tensor` of shape `(batch_size, seq_len, num_columns)`.

        Raises:
            ValueError: if `t` is missing or of another shape.
        """
        sigma_B = self._sigma(tokens, t)
        hidden = self._trunk(tokens, sigma_B, shadow)
        if shadow is not None:
            tokens = behind(tokens, shadow, self.hole_id)
        return hidden if return_hidden_states else self._finish(self.head(hidden), tokens, sigma_B)

    def hidden_states(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        """Output of the last block, after the final norm and its modulation."""
        return self._trunk(tokens, self._sigma(tokens, t))

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Raw logits `(..., num_columns)`."""
        return self.output_layer.linear(hidden)

    def logits(self, tokens: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
        """Raw logits.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, seq_len)`): as for `forward`.
            sigma (`torch.Tensor` of shape `(batch_size,)` or `()`, *optional*): total noise; needed if
                `time_conditioned`.

        Returns:
            `torch.Tensor` of shape `(batch_size, seq_len, num_columns)`.
        """
        sigma_B = self._per_sequence("sigma", tokens, sigma if self.time_conditioned else 0.0)
        return self.head(self._trunk(tokens, sigma_B))

    def log_score(self, tokens: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The log concrete score `log p_t(y) / p_t(x)` of each token in place of the present one.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, seq_len)`): as for `forward`.
            sigma (`torch.Tensor` of shape `(batch_size,)` or `()`): total noise.

        Returns:
            `torch.Tensor` of shape `(batch_size, seq_len, num_columns)`, exactly 0 at the present token.
        """
        sigma_B = self._per_sequence("sigma", tokens, sigma)
        return self._log_scores(self.head(self._trunk(tokens, sigma_B)), tokens, sigma_B)

    def deferred_logits(self, hidden: torch.Tensor, t: torch.Tensor | None = None) -> DeferredLogits:
        deferred = super().deferred_logits(hidden, t)
        if self.prediction_type == "log_score":
            deferred.offset_B = self._log_score_offset(deferred.shape[-1], self._sigma(hidden, t), hidden.dtype)
        return deferred

    def _finish(self, logits: torch.Tensor, tokens: torch.Tensor, sigma_B: torch.Tensor) -> torch.Tensor:
        """Turns the logits into the output of `forward`."""
        return self._log_scores(logits, tokens, sigma_B)

    def _log_scores(self, logits: torch.Tensor, tokens: torch.Tensor, sigma_B: torch.Tensor) -> torch.Tensor:
        offset_B = self._log_score_offset(logits.shape[-1], sigma_B, logits.dtype)
        return edit_rows(_shift_and_zero, logits, tokens, offset_B[:, None].expand(tokens.shape))

    def _log_score_offset(self, num_columns: int, sigma_B: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The offset that turns logits into log-scores: minus `log(e^sigma - 1)` and minus the log of the number of
        tokens.
        """
        if self.scale_by_sigma:
            offset_B = -torch.log(torch.expm1(sigma_B)) - math.log(num_columns - 1)
        else:
            offset_B = torch.zeros_like(sigma_B)
        return offset_B.to(torch.promote_types(dtype, torch.float32))

    def _trunk(self, tokens: torch.Tensor, sigma_B: torch.Tensor, shadow: slice | None = None) -> torch.Tensor:
        rotary, sees = self.rotary_emb(tokens.shape[1]), None
        if shadow is not None:
            rotary, sees = at_places(rotary, shadow), shadow_attention(tokens.shape[1], shadow, tokens.device)
            tokens = behind(tokens, shadow, self.hole_id)
        x = self.vocab_embed(tokens)
        condition = F.silu(self.sigma_map(sigma_B if self.time_conditioned else torch.zeros_like(sigma_B)))
        for block in self.blocks:
            x = block(x, rotary, condition, sees)
        return self.output_layer.normalise(x, condition)

    def _sigma(self, tokens: torch.Tensor, t: torch.Tensor | None) -> torch.Tensor:
        """Total noise at the times of the sequences, in float64; unread where the model does not see it."""
        return self.noise.total(self._per_sequence("t", tokens, t if self.time_conditioned else 0.0))

    def _per_sequence(self, name: str, tokens: torch.Tensor, value: torch.Tensor | float | None) -> torch.Tensor:
        """One number for each sequence, in float64."""
        if value is None:
            raise ValueError(f"`{name}` must be given: what {type(self).__name__} predicts depends on it.")
        value = torch.as_tensor(value, dtype=torch.float64, device=tokens.device)
        if value.numel() not in (1, len(tokens)):
            raise ValueError(f"`{name}` must be a number, or of shape ({len(tokens)},), got {tuple(value.shape)}.")
        return value.reshape(-1).expand(len(tokens))

    def _hub_tokenizer(self) -> str | None:
        return "gpt2" if self.vocab_size == _GPT2_VOCAB_SIZE else None


def _shift_and_zero(logits: torch.Tensor, tokens: torch.Tensor, offset: torch.Tensor) -> None:
    logits += offset[..., None]
    logits.scatter_(-1, tokens[..., None], 0)
