"""SEDD: score entropy discrete diffusion (https://huggingface.co/papers/2310.16834).

Reads and writes the official on-disk format: the nested training `config.json` beside `model.safetensors`.
"""

from typing import Any, Self

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401

from .base import build_model
from .config_keys import SEDD_NOISES, read_choice, read_dropout, read_flag, read_noise, read_size, read_sizes
from .ddit import DDiTDenoiser
from .files import Checkpoint, read_weights


_CORRUPTIONS = {"absorb": "absorbing", "uniform": "uniform"}


class SEDDDenoiser(DDiTDenoiser):
    r"""
    The transformer of SEDD (https://huggingface.co/papers/2310.16834). It predicts log concrete scores.

    `forward` returns them as the official code does: shape `(batch_size, seq_len, vocab_size + 1)`, mask column last
    (for uniform noise, which has no mask, `vocab_size` columns), and exactly 0 at the present token. `log_score` takes
    the total noise in place of the time.

    Args:
        config (`dict`): the official training config. Used are `tokens`, `graph.type`, `noise.{type, sigma_min,
            sigma_max}` and `model.{hidden_size, n_heads, n_blocks, cond_dim, length, dropout, scale_by_sigma}`; the
            rest is kept for saving.

    Raises:
        ValueError: if one of these keys is missing or unusable.
    """

    prediction_type = "log_score"

    def __init__(self, config: dict[str, Any]):
        names = ("hidden_size", "n_heads", "n_blocks", "cond_dim", "length")
        sizes = read_sizes(config, {name: f"model.{name}" for name in names})
        corruption = _CORRUPTIONS[read_choice(config, "graph.type", _CORRUPTIONS)]
        scale_by_sigma = read_flag(config, "model.scale_by_sigma")
        if scale_by_sigma and corruption == "uniform":
            raise ValueError("'model.scale_by_sigma' in `config` must be false where 'graph.type' is 'uniform'.")
        vocab_size, noise = read_size(config, "tokens"), read_noise(config, "noise", SEDD_NOISES)
        num_columns = vocab_size + (corruption == "absorbing")
        super().__init__(sizes, read_dropout(config, "model.dropout"), num_columns, noise)
        self.config = config
        self.corruption, self.scale_by_sigma, self.vocab_size = corruption, scale_by_sigma, vocab_size
        self.mask_token_id = vocab_size if corruption == "absorbing" else None
        # the entry at the present token, which is 0, is not the head's to know
        self.defers_head = corruption == "absorbing"

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        config, model = checkpoint.config, checkpoint.config.get("model")
        # RADD's config descends from this one
        return "tokens" in config and "graph" in config and isinstance(model, dict) and model.get("type") != "ddit_wot"

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, variant: str | None = None) -> Self:
        tensors, where = read_weights(checkpoint, variant)
        return build_model(lambda: cls(checkpoint.config), checkpoint.config_file, tensors, where)

    def _config(self) -> dict[str, Any]:
        return self.config
