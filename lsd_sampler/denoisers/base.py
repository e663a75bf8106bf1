"""What every denoiser offers, whichever family it belongs to."""

import logging
import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

import torch

# diffusers, when it reloads a component, looks for `ModelMixin` in the namespace of the module that defines it,
# so each denoiser's module imports it by this name
from diffusers.models.modeling_utils import ModelMixin

from ..noise import LogLinear, NoiseSchedule
from .files import (
    CONFIG_NAME,
    TOKENIZER_NAME,
    commit_of,
    read_json,
    read_tensors,
    resolve_folder,
    weights_name,
    write_json,
    write_tensors,
)


logger = logging.getLogger(__name__)

# what diffusers' pipelines pass to every component, and what means nothing for one safetensors file
_IGNORED = {
    "use_safetensors", "low_cpu_mem_usage", "max_memory", "offload_folder", "offload_state_dict", "use_flashpack",
    "disable_mmap", "proxies", "trust_remote_code",
}  # fmt: skip


class Denoiser(ModelMixin):
    r"""
    Anything that predicts clean tokens from partly masked ones: `denoiser(tokens, t=None)`.

    Direction of time: `t = 1` is all masked, `t = 0` is data. A network of your own implements `forward` and sets
    `mask_token_id`, `vocab_size` and `length` in its constructor. A family that is loaded and saved also implements
    `recognises`, `_from_files` and `_config`, and is registered in `auto.py`.

    Attributes:
        mask_token_id (`int`): id of the mask token.
        vocab_size (`int`): number of tokens, the mask excluded.
        length (`int`): the longest sequence that the model was made for.
        prediction_type (`str`): `"logits"` (normalised: raw logits or log-probabilities of the clean token at each
            masked position) or `"log_score"` (log concrete score, unnormalised).
        noise ([`~lsd_sampler.noise.NoiseSchedule`]): the noise that it was trained under; default: log-linear.
        noise_schedule (`str`): its name, as in `LSDScheduler`'s config.
        time_conditioned (`bool`): whether the prediction depends on `t`.
        name_or_path (`str`, *optional*): what it was loaded as.
        commit_hash (`str`, *optional*): the Hub commit that it was loaded from.
    """

    mask_token_id: int
    vocab_size: int
    length: int
    noise: NoiseSchedule = LogLinear()
    prediction_type: str = "logits"
    time_conditioned: bool = False
    name_or_path: str | None = None
    commit_hash: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self._tokenizer: Any | None = None
        self._tokenizer_on_hub: str | None = None

    @abstractmethod
    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        """Predicts the clean tokens.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, seq_len)`): masked where equal to `mask_token_id`.
            t (`torch.Tensor` of shape `(batch_size,)`, *optional*): times in (0, 1]; read if `time_conditioned`.

        Returns:
            `torch.Tensor` of shape `(batch_size, seq_len, vocab_size)` or, where the family has a mask column (never
            to be drawn), `(batch_size, seq_len, vocab_size + 1)`. Only rows of masked positions mean something.
        """

    @classmethod
    def recognises(cls, folder_config: dict[str, Any], files: set[str]) -> bool:
        """Whether a folder with this `config.json` and these file names holds a checkpoint of this family."""
        return False

    @classmethod
    def _from_files(
        cls, config: dict[str, Any], tensors: dict[str, torch.Tensor], config_file: str, file: str
    ) -> Self:
        """Builds the model; raises `ValueError`, naming the file, when it cannot."""
        raise NotImplementedError(f"{cls.__name__} has no file format (`_from_files`): build it by its constructor.")

    def _config(self) -> dict[str, Any]:
        """What goes to `config.json`, in the family's own format."""
        raise NotImplementedError(f"{type(self).__name__} has no file format (`_config`): save its network yourself.")

    @property
    def tokenizer(self) -> Any | None:
        """The tokenizer, or None. The family's Hub tokenizer is fetched when first asked for."""
        if self._tokenizer is None and self._tokenizer_on_hub is not None:
            name, self._tokenizer_on_hub = self._tokenizer_on_hub, None
            self._tokenizer = _fetch_tokenizer(name)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any | None) -> None:
        self._tokenizer, self._tokenizer_on_hub = tokenizer, None

    @property
    def noise_schedule(self) -> str:
        return self.noise.name

    def scheduler_config(self) -> dict[str, Any]:
        """Keyword arguments with which `LSDScheduler` fits this denoiser."""
        constants = dict(vars(self.noise))
        if "eps" in constants:
            constants["noise_eps"] = constants.pop("eps")
        return {
            "mask_token_id": self.mask_token_id,
            "vocab_size": self.vocab_size,
            "prediction_type": self.prediction_type,
            "noise_schedule": self.noise_schedule,
            **constants,
        }

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool | None = False,
        force_download: bool = False,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: str | torch.device | dict[str, Any] | None = None,
        variant: str | None = None,
        **kwargs: Any,
    ) -> Self:
        r"""
        Loads a checkpoint in the family's own format: `config.json` and `model.safetensors`.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): a local folder or a Hub id.
            subfolder, revision, token, cache_dir, local_files_only, force_download (*optional*): as in diffusers.
            dtype (`torch.dtype` or `str`, *optional*): precision of the weights; default: as stored. `torch_dtype` is
                the same.
            device_map (*optional*): one device for the whole model.
            variant (`str`, *optional*): loads `model.VARIANT.safetensors`.
            kwargs: what else diffusers' pipelines pass is accepted and has no effect.

        Returns:
            the denoiser, in evaluation mode.

        Raises:
            OSError: if the folder, a file or the repository is missing.
            ValueError: if a file is damaged or does not fit the model; the message names the file and the key.
        """
        unknown = {name for name, value in kwargs.items() if value is not None} - _IGNORED
        if unknown:
            logger.warning("Keyword arguments %s have no effect on %s.", sorted(unknown), cls.__name__)
        folder = resolve_folder(
            pretrained_model_name_or_path, subfolder=subfolder, revision=revision, token=token, cache_dir=cache_dir,
            local_files_only=bool(local_files_only), force_download=force_download,
        )  # fmt: skip
        config = read_json(folder / CONFIG_NAME)
        tensors = read_tensors(folder / weights_name(variant))
        model = cls._from_files(config, tensors, str(folder / CONFIG_NAME), str(folder / weights_name(variant)))
        model._set_tokenizer(folder)
        model.name_or_path, model.commit_hash = os.fspath(pretrained_model_name_or_path), commit_of(folder)
        device, dtype = parse_device(device_map), parse_dtype(torch_dtype if dtype is None else dtype)
        if device is not None or dtype is not None:
            # not ModelMixin.to, which warns about float32 modules whether or not there are any
            torch.nn.Module.to(model, device=device, dtype=dtype)
        return model.eval()

    # diffusers' pipelines pass only what the signature names
    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, save_directory: str | os.PathLike, safe_serialization: bool = True, variant: str | None = None
    ) -> None:
        r"""
        Saves a checkpoint in the family's own format: `config.json`, `model.safetensors` and perhaps `tokenizer.json`.

        Args:
            save_directory (`str` or `os.PathLike`): the folder; it is made if it does not exist.
            safe_serialization (`bool`): must be true; pickles are not written.
            variant (`str`, *optional*): saves `model.VARIANT.safetensors`.
        """
        if not safe_serialization:
            raise ValueError("`safe_serialization` must be True: denoisers are saved as safetensors only.")
        folder, config = Path(save_directory), self._config()
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self.state_dict(), folder / weights_name(variant))
        write_json(config, folder / CONFIG_NAME)
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is not None:
            backend.save(str(folder / TOKENIZER_NAME))

    def _set_tokenizer(self, folder: Path) -> None:
        self._tokenizer_on_hub = self._hub_tokenizer()
        if (folder / TOKENIZER_NAME).is_file():
            from transformers import PreTrainedTokenizerFast

            self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER_NAME))

    def _hub_tokenizer(self) -> str | None:
        """The Hub tokenizer that belongs to a checkpoint without one of its own."""
        return None


def parse_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Accepts a dtype, its name (`"bfloat16"`), or None or `"auto"`: as stored."""
    if dtype is None or dtype == "auto":
        return None
    parsed = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(parsed, torch.dtype) or not parsed.is_floating_point:
        raise ValueError(f"`dtype` must be a floating point type such as torch.bfloat16, got {dtype!r}.")
    return parsed


def parse_device(device_map: str | torch.device | dict[str, Any] | None) -> torch.device | None:
    """Accepts a device, its name, or a device map with the single entry `""`."""
    if device_map is None:
        return None
    device = device_map.get("") if isinstance(device_map, dict) else device_map
    try:
        return torch.device(device)  # pyright: ignore[reportArgumentType]
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`device_map` must be one device for the whole model, got {device_map!r}.") from error


def _fetch_tokenizer(name: str) -> Any | None:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        logger.warning("The tokenizer %r could not be had, going on without one: %s", name, str(error).split("\n")[0])
        return None
