"""MDLM: masked diffusion language models (https://huggingface.co/papers/2406.07524).

Reads the three on-disk formats of its authors: the Hub's (a flat `config.json`, tensors named `backbone.*`), the
repository's (a nested one, no prefix), and Lightning checkpoints. Writes the first two.
"""

import logging
from pathlib import Path
from typing import Any, Self

import torch

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401

from ..sampling.logit_rows import edit_rows
from ..sampling.noise import LogLinear
from .base import build_model
from .config_keys import MDLM_NOISES, look_up, read_choice, read_dropout, read_flag, read_noise, read_size, read_sizes
from .ddit import DDiTDenoiser
from .files import Checkpoint, read_weights
from .lightning import read_lightning
from .mask_token import mask_of_tokenizer


logger = logging.getLogger(__name__)

_PREFIX = "backbone."
_IMPOSSIBLE = -1e6  # the official code's log-probability of impossible tokens

# our names for what a config says, and the keys of the two layouts
_HUB = {
    "vocab_size": "vocab_size", "hidden_size": "hidden_dim", "n_heads": "n_heads", "n_blocks": "n_blocks",
    "cond_dim": "cond_dim", "length": "model_length", "dropout": "dropout", "time_conditioning": "time_conditioning",
    "noise": "noise", "parameterization": "parameterization", "subs_masking": "subs_masking",
    "mask_token_id": "mask_token_id",
}  # fmt: skip
_REPOSITORY = {
    "vocab_size": "vocab_size", "hidden_size": "config.model.hidden_size", "n_heads": "config.model.n_heads",
    "n_blocks": "config.model.n_blocks", "cond_dim": "config.model.cond_dim", "length": "config.model.length",
    "dropout": "config.model.dropout", "time_conditioning": "config.time_conditioning", "noise": "config.noise",
    "parameterization": "config.parameterization", "subs_masking": "config.subs_masking",
    "mask_token_id": "config.mask_token_id",
}  # fmt: skip
# where a config may name its tokenizer, and the masks of those that the authors used; None: it has none, and the mask
# is a further id, the last
_TOKENIZER_KEYS = (
    "tokenizer_name_or_path", "data.tokenizer_name_or_path", "config.data.tokenizer_name_or_path",
    "config.tokenizer_name_or_path",
)  # fmt: skip
_MASKS = {"bert-base-uncased": 103, "text8": 4, "gpt2": None, "gpt2-medium": None, "gpt2-large": None, "gpt2-xl": None}
_BERT_COLUMNS, _BERT_MASK = 30522, 103  # a vocabulary of that size is that of uncased BERT (LM1B)
_SIZES = ("hidden_size", "n_heads", "n_blocks", "cond_dim", "length")


class MDLMDenoiser(DDiTDenoiser):
    r"""
    The transformer of MDLM (https://huggingface.co/papers/2406.07524), with or without a time input.

    `forward` returns what the official code makes of its logits (`parameterization` in the config):

    - `subs`, the default: log-probabilities of the clean token at masked positions, about -1e6 for the mask; at known
      positions 0 for the token and -1e6 elsewhere;
    - `d3pm`: log-probabilities of all ids at all positions, the mask among them (which is about -1e6 if `subs_masking`
      is true). A sampler never draws the mask: it renormalises the other ids, and so does `log_score`;
    - `sedd`: log concrete scores, as [`SEDDDenoiser`] does.

    Args:
        config (`dict`): the official config, the Hub's or the repository's (`{"config": {"model": ...}, "vocab_size":
            ...}`). Its `vocab_size` counts the mask. It may hold `noise` (default: log-linear), `parameterization`,
            `subs_masking` (default: false), and a `mask_token_id` beside them, which the official ones do not.
        mask_token_id (`int`, *optional*): id of the mask; default: the config's, else that of the tokenizer which the
            config names (`data.tokenizer_name_or_path`), if it has one; 103 if `vocab_size` is BERT's 30522; else the
            last id.

    Raises:
        ValueError: if a key is missing or unusable.
    """

    parameterization = "subs"
    subs_masking = False

    def __init__(self, config: dict[str, Any], mask_token_id: int | None = None):
        keys = _keys(config)
        num_columns = read_size(config, keys["vocab_size"])
        sizes = read_sizes(config, {name: keys[name] for name in _SIZES})
        described = look_up(config, keys["noise"]) is not None
        noise = read_noise(config, keys["noise"], MDLM_NOISES) if described else LogLinear()
        super().__init__(sizes, read_dropout(config, keys["dropout"]), num_columns, noise)
        if look_up(config, "config.backbone") is not None:
            read_choice(config, "config.backbone", ("dit",))
        self.time_conditioned = read_flag(config, keys["time_conditioning"])
        if look_up(config, keys["parameterization"]) is not None:
            self.parameterization = read_choice(config, keys["parameterization"], ("subs", "d3pm", "sedd"))
        if self.parameterization == "sedd":
            self.prediction_type = "log_score"
            if not self.time_conditioned:
                raise ValueError(f"'{keys['time_conditioning']}' in `config` must be true for log-scores ('sedd').")
        if look_up(config, keys["subs_masking"]) is not None:
            self.subs_masking = read_flag(config, keys["subs_masking"])
        self.vocab_size = num_columns - 1
        self.mask_token_id = _mask_token_id(config, keys["mask_token_id"], mask_token_id, num_columns)
        self.config = _with_mask(config, self.mask_token_id, num_columns)

    def log_score(self, tokens: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        sigma_B = self._per_sequence("sigma", tokens, sigma)
        logits = self.head(self._trunk(tokens, sigma_B))
        if self.prediction_type == "log_score":
            return self._log_scores(logits, tokens, sigma_B)
        output = edit_rows(self._substitute, logits, tokens)
        log_odds_B11 = -torch.log(torch.expm1(sigma_B)).to(output.dtype)[:, None, None]
        masked_BL1 = (tokens == self.mask_token_id)[..., None]
        scores = torch.where(masked_BL1, output + log_odds_B11, output)
        to_mask_BL1 = torch.where(masked_BL1, 0, -log_odds_B11)
        index_BL1 = torch.full_like(tokens, self.hole_id)[..., None]
        return scores.scatter(-1, index_BL1, to_mask_BL1)

    def _finish(self, logits: torch.Tensor, tokens: torch.Tensor, sigma_B: torch.Tensor) -> torch.Tensor:
        if self.prediction_type == "log_score":
            return super()._finish(logits, tokens, sigma_B)
        return edit_rows(self._normalise if self.parameterization == "d3pm" else self._substitute, logits, tokens)

    def _substitute(self, logits: torch.Tensor, tokens: torch.Tensor) -> None:
        """Log-probabilities in place of logits, where known tokens and the absence of masks are certain (SUBS)."""
        impossible = max(_IMPOSSIBLE, torch.finfo(logits.dtype).min)
        logits[..., self.mask_token_id] += impossible
        known = (tokens != self.mask_token_id)[..., None]
        logits.masked_fill_(known, impossible)
        logits.scatter_add_(-1, tokens[..., None], -impossible * known.to(logits.dtype))
        _normalise(logits)

    def _normalise(self, logits: torch.Tensor, tokens: torch.Tensor) -> None:
        """Log-probabilities in place of logits, for any token on the canvas (D3PM)."""
        if self.subs_masking:
            logits[..., self.mask_token_id] += max(_IMPOSSIBLE, torch.finfo(logits.dtype).min)
        _normalise(logits)

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        config = checkpoint.config
        if not config:
            return _lightning_file(checkpoint) is not None
        in_repository = isinstance(look_up(config, "config.model"), dict) and "vocab_size" in config
        return config.get("model_type") == "mdlm" or in_repository

    @classmethod
    def _from_checkpoint(
        cls, checkpoint: Checkpoint, variant: str | None = None, mask_token_id: int | None = None
    ) -> Self:
        config, config_file = checkpoint.config, checkpoint.config_file
        file = _lightning_file(checkpoint)
        if file is None:
            tensors, file = read_weights(checkpoint, variant)
        else:
            tensors, own_config = read_lightning(file, _PREFIX)
            config_file = config_file if config else file
            config = _hub_config(config or own_config, tensors, file)
        if mask_token_id is None and look_up(config, _keys(config)["mask_token_id"]) is None:
            mask_token_id = _fitting(mask_of_tokenizer(checkpoint.folder), config.get("vocab_size"))
        prefix = _PREFIX if any(name.startswith(_PREFIX) for name in tensors) else ""
        return build_model(lambda: cls(config, mask_token_id), config_file, tensors, file, prefix)

    def _config(self) -> dict[str, Any]:
        return self.config

    def _tensors(self) -> dict[str, torch.Tensor]:
        prefix = _PREFIX if _keys(self.config) is _HUB else ""
        return {prefix + name: tensor for name, tensor in self.state_dict().items()}


def _normalise(logits: torch.Tensor) -> None:
    logits.copy_(logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)))


def _keys(config: dict[str, Any]) -> dict[str, str]:
    return _REPOSITORY if "config" in config else _HUB


def _mask_token_id(config: dict[str, Any], key: str, given: int | None, num_columns: int) -> int:
    mask_token_id = look_up(config, key) if given is None else given
    if mask_token_id is None:
        named = _mask_of_named_tokenizer(config, num_columns)
        return num_columns - 1 if named is None else named
    if not isinstance(mask_token_id, int) or isinstance(mask_token_id, bool) or not 0 <= mask_token_id < num_columns:
        raise ValueError(f"`mask_token_id` must be an id in [0, {num_columns - 1}], got {mask_token_id!r}.")
    return mask_token_id


def _mask_of_named_tokenizer(config: dict[str, Any], num_columns: int) -> int | None:
    """The mask inside the vocabulary of the tokenizer that the config names, or that the vocabulary's size tells."""
    name = _tokenizer_name(config)
    if name is None:
        return _BERT_MASK if num_columns == _BERT_COLUMNS else None
    known = name.rstrip("/").split("/")[-1]
    mask_token_id = _fitting(_MASKS.get(known), num_columns)
    if known not in _MASKS and num_columns == _BERT_COLUMNS:
        mask_token_id = _BERT_MASK
    if mask_token_id is None and _MASKS.get(known, 0) is not None:
        logger.warning(
            "The config names the tokenizer %r, which has no known mask among %d ids: taking the last one, %d. Pass"
            " `mask_token_id` if it is another.", name, num_columns, num_columns - 1,
        )  # fmt: skip
    return mask_token_id


def _tokenizer_name(config: dict[str, Any]) -> str | None:
    names = (look_up(config, key) for key in _TOKENIZER_KEYS)
    return next((name for name in names if isinstance(name, str) and name), None)


def _fitting(token_id: int | None, num_columns: Any) -> int | None:
    """The id, if the model knows it."""
    return token_id if token_id is not None and isinstance(num_columns, int) and token_id < num_columns else None


def _with_mask(config: dict[str, Any], mask_token_id: int, num_columns: int) -> dict[str, Any]:
    """The config as it is to be saved: with the mask's id, unless that is the last one."""
    if mask_token_id == num_columns - 1 and look_up(config, _keys(config)["mask_token_id"]) is None:
        return config
    if "config" in config:
        return {**config, "config": {**config["config"], "mask_token_id": mask_token_id}}
    return {**config, "mask_token_id": mask_token_id}


def _lightning_file(checkpoint: Checkpoint) -> Path | None:
    """The Lightning checkpoint: the file that was asked for, or the only one in a folder without safetensors."""
    if checkpoint.file is not None:
        return checkpoint.folder / checkpoint.file if checkpoint.file.endswith(".ckpt") else None
    if any(name.endswith(".safetensors") for name in checkpoint.names):
        return None
    pickles = [name for name in checkpoint.names if name.endswith(".ckpt")]
    return checkpoint.folder / pickles[0] if len(pickles) == 1 else None


def _hub_config(config: dict[str, Any], tensors: dict[str, torch.Tensor], file: Path) -> dict[str, Any]:
    """The Hub's config of a Lightning checkpoint, from its own config, or else from the shapes of its tensors.

    Raises:
        ValueError: if neither is enough; the message names what is missing.
    """
    said = {name: look_up(config, key) for name, key in _keys(config).items()}
    known = {"dropout": 0.0, **_sizes_of(tensors, file)}
    known |= {name: value for name, value in said.items() if value is not None}
    missing = [_HUB[name] for name in ("time_conditioning", "length") if name not in known]
    if missing:
        raise ValueError(
            f"{file} does not say {' and '.join(map(repr, missing))}: put a config.json beside it, such as"
            ' {"model_type": "mdlm", "time_conditioning": false, "model_length": 1024}.'
        )
    named = _tokenizer_name(config)
    tokenizer = {} if named is None else {_TOKENIZER_KEYS[0]: named}
    hub = {_HUB[name]: value for name, value in known.items()}
    return {"model_type": "mdlm", **hub, **tokenizer, "return_dict": False}


def _sizes_of(tensors: dict[str, torch.Tensor], file: Path) -> dict[str, int]:
    names = ("vocab_embed.embedding", "sigma_map.mlp.2.bias", "rotary_emb.inv_freq")
    missing = [_PREFIX + name for name in names if _PREFIX + name not in tensors]
    if missing:
        raise ValueError(f"{file} lacks tensors of an MDLM: {', '.join(missing)}.")
    embedding, condition, frequencies = (tensors[_PREFIX + name] for name in names)
    return {
        "vocab_size": embedding.shape[0],
        "hidden_size": embedding.shape[1],
        "n_heads": embedding.shape[1] // (2 * frequencies.shape[0]),
        "cond_dim": condition.shape[0],
        "n_blocks": sum(name.endswith(".attn_qkv.weight") for name in tensors),
    }
