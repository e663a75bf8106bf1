"""What every denoiser offers, whichever family it belongs to."""

import inspect
import itertools
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import torch

# diffusers, when it reloads a component, looks for `ModelMixin` in the namespace of the module that defines it,
# so each denoiser's module imports it by this name
from diffusers.models.modeling_utils import ModelMixin

from ..sampling.diffusers_calls import NO_MASK
from ..sampling.logit_rows import DeferredLogits
from ..sampling.noise import LogLinear, NoiseSchedule
from ..support.hub import admit_to_pipelines
from .files import (
    CONFIG_NAME,
    TOKENIZER_NAME,
    Checkpoint,
    check_tensors,
    commit_of,
    open_checkpoint,
    weights_name,
    write_json,
    write_tensors,
)
from .reserved import check_attribute, check_class
from .tokenizer_files import first_line, load_tokenizer


logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=torch.nn.Module)

# diffusers' pipelines pass these to every component; they mean nothing for one safetensors file
_IGNORED = {
    "use_safetensors", "low_cpu_mem_usage", "max_memory", "offload_folder", "offload_state_dict", "use_flashpack",
    "disable_mmap", "proxies",
}  # fmt: skip


class Denoiser(ModelMixin):
    r"""
    Anything that predicts clean tokens from partly masked ones: `denoiser(tokens, t=None)`.

    Direction of time: `t = 1` is all masked, `t = 0` is data. A network of your own implements `forward` and sets
    `mask_token_id`, `vocab_size` and `length` in its constructor. A family that is loaded and saved also implements
    `recognises`, `_from_checkpoint` and `_config`, and is registered in `auto.py`.

    Two other methods may take the place of `forward` (with `defers_head`). The head then runs only for the rows that a
    step of the sampler reads. `hidden_states(tokens, t)` gives what the head takes, `(batch_size, seq_len,
    hidden_size)` at the positions that it predicts. `head(hidden)` gives logits, `(..., vocab_size)` or `(...,
    vocab_size + 1)`, from hidden states `(..., hidden_size)`. Either may be a layer. Both names are free without them.

    A family may take further arguments in `forward`: an `attention_mask` for canvases that are padded on the left, if
    its `takes_padding` is true, and a `cache` of keys and values, if its `keeps_keys_and_values` is true; see
    [`~lsd_sampler.denoisers.MaskedLMDenoiser`]. If it has `eos_token_ids`, these end a text.

    A layer may not have one of the names below, or that of a method: it is refused.

    Attributes:
        mask_token_id (`int`, *optional*): id of the mask token; None where noise does not mask.
        vocab_size (`int`): number of tokens, the mask excluded.
        length (`int`): the longest sequence that the model was made for.
        prediction_type (`str`): `"logits"` (normalised: raw logits or log-probabilities of the clean token at each
            masked position) or `"log_score"` (log concrete score, unnormalised).
        noise ([`~lsd_sampler.sampling.noise.NoiseSchedule`]): the noise that it was trained under; default:
            log-linear.
        noise_schedule (`str`): its name, as in `LSDScheduler`'s config.
        time_conditioned (`bool`): whether the prediction depends on `t`.
        defers_head (`bool`): whether `forward` takes `return_hidden_states`.
        canvas_shape (`tuple[int, int]`, *optional*): height and width, if the tokens form an image.
        corruption (`str`): what noise does to a token: `"absorbing"` (masks it), `"uniform"` (replaces it by a random
            one) or `"gaussian"` (moves it along an ordinal scale). Only the first has a mask.
        name_or_path (`str`, *optional*): what it was loaded as.
        commit_hash (`str`, *optional*): the Hub commit that it was loaded from.
    """

    mask_token_id: int | None
    vocab_size: int
    length: int
    noise: NoiseSchedule = LogLinear()
    corruption: str = "absorbing"
    prediction_type: str = "logits"
    time_conditioned: bool = False
    defers_head: bool = False
    canvas_shape: tuple[int, int] | None = None
    name_or_path: str | None = None
    commit_hash: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        admit_to_pipelines(cls)
        check_class(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        check_attribute(type(self), name, value)
        super().__setattr__(name, value)

    def __init__(self) -> None:
        super().__init__()
        self._tokenizer: Any | None = None
        self._tokenizer_on_hub: str | None = None
        self._num_columns: int | None = None

    def forward(
        self, tokens: torch.Tensor, t: torch.Tensor | None = None, *, return_hidden_states: bool = False
    ) -> torch.Tensor:
        """Predicts the clean tokens.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, seq_len)`): masked where equal to `mask_token_id`.
            t (`torch.Tensor` of shape `(batch_size,)`, *optional*): times in (0, 1]; read if `time_conditioned`.
            return_hidden_states (`bool`, defaults to `False`): whether to stop before the head, for
                [`~Denoiser.deferred_logits`]. Only where `defers_head`.

        Returns:
            `torch.Tensor` of shape `(batch_size, seq_len, vocab_size)` or, where the family has a mask column (never
            to be drawn), `(batch_size, seq_len, vocab_size + 1)`. Only rows of masked positions mean something.
        """
        hidden = self._part("hidden_states")(tokens, t)
        return hidden if return_hidden_states else self._part("head")(hidden)

    def _part(self, name: str) -> Callable[..., torch.Tensor]:
        part: Any = getattr(self, name, None)
        if part is None:
            raise NotImplementedError(
                f"{type(self).__name__} must implement `forward`, or `hidden_states` and `head`: it has no `{name}`."
            )
        return part

    def deferred_logits(self, hidden: torch.Tensor, t: torch.Tensor | None = None) -> DeferredLogits:
        """The logits that `forward(tokens, t)` would return, computed when they are read. They are right up to a
        constant for each position where the denoiser is normalised.

        Args:
            hidden (`torch.Tensor` of shape `(batch_size, seq_len, hidden_size)`): what `forward(tokens, t,
                return_hidden_states=True)` returned.
            t (`torch.Tensor` of shape `(batch_size,)`, *optional*): as for `forward`.
        """
        head = self._part("head")
        if self._num_columns is None:
            self._num_columns = head(hidden[:1, :1]).shape[-1]
        return DeferredLogits(hidden, head, self._num_columns)

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """Whether a folder (or file) holds a checkpoint of this family."""
        return False

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, variant: str | None = None) -> Self:
        """Builds the model; raises `ValueError`, naming file and key, when it cannot. Further parameters with defaults
        are options that `load_denoiser` passes on.
        """
        raise NotImplementedError(
            f"{cls.__name__} has no file format (`_from_checkpoint`): build it by its constructor."
        )

    def _config(self) -> dict[str, Any]:
        """The content of `config.json`, in the family's own format."""
        raise NotImplementedError(f"{type(self).__name__} has no file format (`_config`): save its network yourself.")

    def _tensors(self) -> dict[str, torch.Tensor]:
        """The content of `model.safetensors`, by the family's own names."""
        return self.state_dict()

    @property
    def tokenizer(self) -> Any | None:
        """The tokenizer, or None. The family's Hub tokenizer is fetched at first use."""
        if self._tokenizer is None and self._tokenizer_on_hub is not None:
            name, self._tokenizer_on_hub = self._tokenizer_on_hub, None
            self._tokenizer = _fetch_tokenizer(name)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any | None) -> None:
        self._tokenizer, self._tokenizer_on_hub = tokenizer, None

    @property
    def device(self) -> torch.device:
        """The device of the parameters and buffers; the CPU where there are none."""
        has_any = next(itertools.chain(self.parameters(), self.buffers()), None) is not None
        return super().device if has_any else torch.device("cpu")

    @property
    def hole_id(self) -> int:
        """The id that marks a position to be filled in on a given canvas: the mask, or -1 where there is none."""
        return NO_MASK if self.mask_token_id is None else self.mask_token_id

    @property
    def noise_schedule(self) -> str:
        """Name of the noise schedule, as in `LSDScheduler`'s config."""
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
            "corruption": self.corruption,
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
        weight_name: str | None = None,
        trust_remote_code: bool | None = False,
        **kwargs: Any,
    ) -> Self:
        r"""
        Loads a checkpoint in the family's own format: for most, `config.json` and `model.safetensors`.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): a local folder or a Hub id.
            subfolder, revision, token, cache_dir, local_files_only, force_download (*optional*): as in diffusers.
            dtype (`torch.dtype` or `str`, *optional*): precision of the weights; default: as stored. `torch_dtype` is
                the same.
            device_map (*optional*): one device for the whole model.
            variant (`str`, *optional*): loads `model.VARIANT.safetensors`.
            weight_name (`str`, *optional*): the file of weights, where a folder or repository holds several.
            trust_remote_code (`bool`, defaults to `False`): whether code of the repository may run. (No family but
                transformers' models of their own classes has any.)
            kwargs: options of the family. Other arguments of diffusers' pipelines have no effect.

        Returns:
            the denoiser, in evaluation mode.

        Raises:
            OSError: if the folder, a file or the repository is missing.
            ValueError: if a file is damaged or does not fit the model; the message names the file and the key.
        """
        known = inspect.signature(cls._from_checkpoint).parameters
        options = {name: kwargs.pop(name) for name in list(kwargs) if name in known}
        unknown = {name for name, value in kwargs.items() if value is not None} - _IGNORED
        if unknown:
            logger.warning("Keyword arguments %s have no effect on %s.", sorted(unknown), cls.__name__)
        checkpoint = open_checkpoint(
            pretrained_model_name_or_path, file=weight_name, trust_remote_code=bool(trust_remote_code),
            subfolder=subfolder, revision=revision, token=token, cache_dir=cache_dir,
            local_files_only=bool(local_files_only), force_download=force_download,
        )  # fmt: skip
        model = cls._from_checkpoint(checkpoint, variant, **options)
        model._set_tokenizer(checkpoint.folder)
        model.name_or_path, model.commit_hash = os.fspath(pretrained_model_name_or_path), commit_of(checkpoint.folder)
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
        folder, config = Path(os.path.expanduser(save_directory)), self._config()
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self._tensors(), folder / weights_name(variant))
        write_json(config, folder / CONFIG_NAME)
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is not None:
            backend.save(str(folder / TOKENIZER_NAME))

    def _set_tokenizer(self, folder: Path) -> None:
        self._tokenizer_on_hub = self._hub_tokenizer()
        if (folder / TOKENIZER_NAME).is_file():
            from transformers import PreTrainedTokenizerFast

            file = str(folder / TOKENIZER_NAME)
            self.tokenizer = load_tokenizer(folder, lambda: PreTrainedTokenizerFast(tokenizer_file=file))

    def _hub_tokenizer(self) -> str | None:
        """The Hub tokenizer that belongs to a checkpoint without one of its own."""
        return None


def build_model(
    make: Callable[[], ModelT],
    config_file: Path,
    tensors: Mapping[str, torch.Tensor],
    file: Path,
    prefix: str = "",
) -> ModelT:
    """Makes a model without memory for its weights and gives it the stored ones, in the precision that they have.

    Args:
        make (`Callable`): makes the model.
        config_file (`Path`): the file that a `ValueError` of `make` is about.
        tensors (`dict[str, torch.Tensor]`): the weights.
        file (`Path`): where they lie.
        prefix (`str`): how their names begin, before the model's own.

    Raises:
        ValueError: if the config is unusable, or names or shapes do not agree exactly; the message names the file and
            the culprits.
    """
    try:
        with torch.device("meta"):
            model = make()
    except ValueError as error:
        raise ValueError(f"{config_file}: {error}") from error
    tied = _tied(model)
    tensors = _with_tied({prefix + a: [prefix + name for name in others] for a, others in tied.items()}, tensors, file)
    check_tensors({prefix + name: tensor for name, tensor in model.state_dict().items()}, tensors, str(file))
    model.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, assign=True)
    for first, others in tied.items():
        for name in others:
            _tie(model, name, model.get_parameter(first))
    return model


def _tied(model: torch.nn.Module) -> dict[str, list[str]]:
    """Parameters that share one tensor: the first name of each, and its other names."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {first: others for first, *others in names.values() if others}


def _tie(model: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
    module, _, attribute = name.rpartition(".")
    model.get_submodule(module).register_parameter(attribute, parameter)


def _with_tied(
    tied: Mapping[str, list[str]], tensors: Mapping[str, torch.Tensor], file: Path
) -> Mapping[str, torch.Tensor]:
    """The tensors under all names: other libraries' files hold a tied parameter under one name only.

    Raises:
        ValueError: if they hold several, and these differ.
    """
    complete = dict(tensors)
    for first, others in tied.items():
        found = [name for name in (first, *others) if name in tensors]
        for name in found[1:]:
            if not torch.equal(tensors[found[0]], tensors[name]):
                raise ValueError(f"{file}: {found[0]} and {name} are one parameter of this model, but differ.")
        complete |= dict.fromkeys((first, *others), tensors[found[0]]) if found else {}
    return complete


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
    except (OSError, ValueError, ImportError) as error:
        logger.warning("The tokenizer %r could not be had, going on without one: %s", name, first_line(error))
        return None
