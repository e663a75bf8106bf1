"""tauLDR: continuous-time diffusion of ordinal pixels under Gaussian-target rates
(https://huggingface.co/papers/2205.14987).

Reads the authors' `ckpt_*.pt` beside its training `config.yaml`, and a layout of our own: the part of that config
which the model needs as `config.json`, and `model.safetensors`.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from torch import nn

from ..sampling.noise import Exponential
from .base import Denoiser, build_model
from .files import Checkpoint, read_pickle, read_tensors, read_yaml


logger = logging.getLogger(__name__)

SUFFIX = ".pt"
# names of averages among the weights of a training checkpoint
_AVERAGES = ("ema_decay", "ema_num_updates", "ema_shadow_params")
# the part of the training config that the model needs
_POSITIVE_INTEGERS = ("data.S", "model.ch", "model.num_res_blocks", "model.time_embed_dim")
_POSITIVE_NUMBERS = (
    "model.time_scale_factor", "model.rate_sigma", "model.Q_sigma", "model.time_base", "model.time_exponential",
)  # fmt: skip
_INTEGER_LISTS = ("data.shape", "model.ch_mult")
_BOOLEANS = ("model.skip_rescale", "model.fix_logistic")
_KEYS = (
    *_POSITIVE_INTEGERS, *_POSITIVE_NUMBERS, *_INTEGER_LISTS, *_BOOLEANS, "model.scale_count_to_put_attn",
    "model.data_min_max", "model.dropout",
)  # fmt: skip


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


class Pointwise(nn.Module):
    """A linear map of the channels, stored as `(in, out)`."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.W = nn.Parameter(torch.empty(channels_in, channels_out))
        self.b = nn.Parameter(torch.zeros(channels_out))
        nn.init.xavier_uniform_(self.W)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.movedim(1, -1) @ self.W + self.b).movedim(-1, 1)


class Attention(nn.Module):
    """Attention over all pixels, with a single head.

    Written out, in the authors' order of operations: the truncated logistic amplifies rounding a thousandfold.
    """

    def __init__(self, channels: int, rescale: float):
        super().__init__()
        self.rescale = rescale
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (Pointwise(channels, channels) for _ in range(4))

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (nin(h).flatten(2) for nin in (self.NIN_0, self.NIN_1, self.NIN_2))
        weights = ((q.mT @ k) * x.shape[1] ** -0.5).softmax(-1)
        h = (v @ weights.mT).view(x.shape)
        return (x + self.NIN_3(h)) / self.rescale


class Residual(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, time_dim: int, dropout: float, rescale: float):
        super().__init__()
        self.dropout, self.rescale = dropout, rescale
        self.groupnorm0 = group_norm(channels_in)
        self.conv0 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.dense0 = nn.Linear(time_dim, channels_out)
        self.groupnorm1 = group_norm(channels_out)
        self.conv1 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.nin = Pointwise(channels_in, channels_out) if channels_in != channels_out else None

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        h = self.conv0(F.silu(self.groupnorm0(x))) + self.dense0(F.silu(time))[:, :, None, None]
        h = self.conv1(F.dropout(F.silu(self.groupnorm1(h)), self.dropout, self.training))
        return ((x if self.nin is None else self.nin(x)) + h) / self.rescale


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet(nn.Module):
    """Mean and log-scale of each pixel, `(batch_size, 2 * channels, height, width)`, from the pixels."""

    def __init__(self, image_channels: int, model: Mapping[str, Any]):
        super().__init__()
        self.time_dim, self.time_scale = model["time_embed_dim"], model["time_scale_factor"]
        self.value_range = model["data_min_max"]
        time_dim, rescale = 4 * self.time_dim, math.sqrt(2) if model["skip_rescale"] else 1.0
        widths = [model["ch"] * factor for factor in model["ch_mult"]]

        def residual(channels_in: int, channels_out: int) -> Residual:
            return Residual(channels_in, channels_out, time_dim, model["dropout"], rescale)

        def layer(channels_in: int, channels_out: int, scale: int) -> list[nn.Module]:
            attends = scale == model["scale_count_to_put_attn"]
            return [residual(channels_in, channels_out), *([Attention(channels_out, rescale)] if attends else [])]

        self.temb_modules = nn.ModuleList([nn.Linear(self.time_dim, time_dim), nn.Linear(time_dim, time_dim)])
        self.input_conv = nn.Conv2d(image_channels, model["ch"], 3, padding=1)
        down, up, width, skips = [], [], model["ch"], [model["ch"]]
        for scale, wider in enumerate(widths):
            for _ in range(model["num_res_blocks"]):
                down += layer(width, wider, scale)
                width = wider
                skips.append(width)
            if scale < len(widths) - 1:
                down.append(Downsample(width))
                skips.append(width)
        self.downsampling_modules = nn.ModuleList(down)
        self.middle_modules = nn.ModuleList(
            [residual(width, width), Attention(width, rescale), residual(width, width)]
        )
        for scale, narrower in reversed(list(enumerate(widths))):
            for _ in range(model["num_res_blocks"] + 1):
                up += layer(width + skips.pop(), narrower, scale)
                width = narrower
            if scale > 0:
                up.append(Upsample(width))
        self.upsampling_modules = nn.ModuleList(up)
        self.output_modules = nn.ModuleList([group_norm(width), nn.Conv2d(width, 2 * image_channels, 3, padding=1)])

    def forward(self, pixels: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        dtype = self.input_conv.weight.dtype
        wide = torch.promote_types(dtype, torch.float32)
        low, high = self.value_range
        centered = 2 * ((pixels.to(wide) - low) / (high - low)) - 1
        time = sinusoids(t.to(wide) * self.time_scale, self.time_dim).to(dtype)
        time = self.temb_modules[1](F.silu(self.temb_modules[0](time)))
        h = self.input_conv(centered.to(dtype))
        skips = [h]
        for module in self.downsampling_modules:
            h = module(h, time)
            if isinstance(module, Attention):  # it completes the residual block before it
                skips.pop()
            skips.append(h)
        for module in self.middle_modules:
            h = module(h, time)
        for module in self.upsampling_modules:
            if isinstance(module, Residual):
                h = torch.cat([h, skips.pop()], dim=1)
            h = module(h, time)
        norm, conv = self.output_modules
        shift, log_scale = conv(F.silu(norm(h))).to(wide).chunk(2, dim=1)
        return torch.cat([torch.tanh(centered + shift), log_scale], dim=1)


def sinusoids(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Sines, then cosines, of `x` (`(batch_size,)`) times frequencies from 1 down to 1e-4: `(batch_size, dim)`."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=x.device, dtype=x.dtype) * (-math.log(10_000) / (half - 1)))
    angle = x[:, None] * frequencies
    return F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, dim % 2))


def truncated_logistic(
    mean: torch.Tensor, log_scale: torch.Tensor, num_values: int, fix_logistic: bool
) -> torch.Tensor:
    """Log-mass of `num_values` bins of equal width on [-1, 1] under a logistic law that reaches beyond them.

    Args:
        mean, log_scale (`torch.Tensor` of shape `(...)`): of the law; its scale is `exp(log_scale - 2)`.
        num_values (`int`): number of bins.
        fix_logistic (`bool`): whether to take the smaller of two forms that differ by rounding only; it is right in
            both tails.

    Returns:
        `torch.Tensor` of shape `(..., num_values)`.
    """
    mean, inverse_scale = mean[..., None], torch.exp(2 - log_scale)[..., None]
    half = 1 / num_values
    centers = torch.linspace(half - 1, 1 - half, num_values, dtype=mean.dtype, device=mean.device)
    # in this order of operations: the difference of two neighbours is small
    left, right = (centers - half - mean) * inverse_scale, (centers + half - mean) * inverse_scale
    log_left, log_right = F.logsigmoid(left), F.logsigmoid(right)
    logits = _log_difference(log_right, log_left)
    return torch.minimum(logits, _log_difference(log_left - left, log_right - right)) if fix_logistic else logits


def _log_difference(log_a: torch.Tensor, log_b: torch.Tensor) -> torch.Tensor:
    """`log(a - b)`, kept finite by the authors' constant."""
    return log_a + torch.log1p(-torch.exp(log_b - log_a) + 1e-6)


class CTMCDenoiser(Denoiser):
    r"""
    The image model of tauLDR (https://huggingface.co/papers/2205.14987): a U-Net that predicts clean pixel values.

    Noise moves pixels along their scale of values; there is no mask. Pixels are flattened channel by channel.

    Args:
        config (`dict`): the authors' training config. Used are `data.{S, shape}` and `model.{ch, num_res_blocks,
            ch_mult, scale_count_to_put_attn, data_min_max, dropout, skip_rescale, time_embed_dim, time_scale_factor,
            fix_logistic, rate_sigma, Q_sigma, time_exponential, time_base}`.

    Attributes:
        image_shape (`tuple[int, int, int]`): channels, height and width.
        rate_sigma (`float`): how far a pixel jumps: rates between values fall off as
            `exp(-(distance - 1)^2 / rate_sigma^2)`.
        q_sigma (`float`): standard deviation, in values, of the law that noise tends to.

    Raises:
        ValueError: if one of these keys is missing or unusable.
    """

    corruption = "gaussian"
    time_conditioned = True

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        _check_config(config)
        data, model = config["data"], config["model"]
        self.config = _used_part(config)
        self.mask_token_id = None  # noise moves pixels, it masks none
        self.vocab_size = data["S"]
        self.image_shape = tuple(data["shape"])
        self.length = math.prod(self.image_shape)
        self.fix_logistic = model["fix_logistic"]
        self.rate_sigma, self.q_sigma = float(model["rate_sigma"]), float(model["Q_sigma"])
        self.noise = Exponential(model["time_base"], model["time_exponential"])
        self.net = UNet(self.image_shape[0], model)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (each step reads all rows: nothing to defer)
        self, tokens: torch.Tensor, t: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of the clean values, in float32 at least: neighbouring values differ by less than bfloat16 resolves.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, length)`): noisy pixels, channel by channel.
            t (`torch.Tensor` of shape `(batch_size,)`): times in (0, 1].

        Returns:
            `torch.Tensor` of shape `(batch_size, length, vocab_size)`.

        Raises:
            ValueError: if `t` is missing, or shapes do not fit.
        """
        B = len(tokens)
        if tokens.shape[1:] != (self.length,):
            raise ValueError(f"`tokens` must have shape (B, {self.length}), got {tuple(tokens.shape)}.")
        if t is None or t.shape != (B,):
            got = None if t is None else tuple(t.shape)
            raise ValueError(f"`t` must have shape ({B},): this model is conditioned on time; got {got}.")
        mean, log_scale = self.net(tokens.reshape(B, *self.image_shape), t).flatten(1).chunk(2, dim=1)
        return truncated_logistic(mean, log_scale, self.vocab_size, self.fix_logistic)

    def scheduler_config(self) -> dict[str, Any]:
        return super().scheduler_config() | {"rate_sigma": self.rate_sigma, "q_sigma": self.q_sigma}

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        return _find_config(checkpoint) is not None

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, variant: str | None = None, ema: bool | None = None) -> Self:
        """`ema`: whether to take the averaged weights of a training checkpoint, as its authors do when they sample;
        default: if it has them.
        """
        found = _find_config(checkpoint)
        if found is None:
            raise ValueError(f"{checkpoint.folder} holds no config.yaml or config.json with 'data.S' and 'model'.")
        source, config = found
        file = checkpoint.weights_or_pickle(SUFFIX, variant)
        is_training = file.suffix == SUFFIX
        state = _training_state(file) if is_training else read_tensors(file)
        # DistributedDataParallel wraps the network
        weights = {str(name).replace(".module.", "."): x for name, x in state.items() if name not in _AVERAGES}
        weights = {name: x for name, x in weights.items() if isinstance(x, torch.Tensor)}
        model = build_model(lambda: cls(config), source, weights, file)
        if is_training and ema is None:
            ema = any(name in state for name in _AVERAGES)
            if not ema:
                logger.warning("%s holds no averaged weights: taking the raw ones.", file)
        if ema and is_training:
            model.load_state_dict(_averages(state, weights, file), assign=True)
        return model

    def _config(self) -> dict[str, Any]:
        return self.config


def _find_config(checkpoint: Checkpoint) -> tuple[Path, dict[str, Any]] | None:
    """The config of this family, and its file: our `config.json`, or the latest of the authors' `config*.yaml`."""
    if _is_config(checkpoint.config):
        return checkpoint.config_file, checkpoint.config
    names = sorted(name for name in checkpoint.names if name.startswith("config") and name.endswith(".yaml"))
    if not names:
        return None
    path = checkpoint.folder / ("config.yaml" if "config.yaml" in names else names[-1])
    config = read_yaml(path)
    return (path, config) if _is_config(config) else None


def _is_config(config: dict[str, Any]) -> bool:
    data, model = config.get("data"), config.get("model")
    return (isinstance(data, dict) and "S" in data) or (isinstance(model, dict) and "Q_sigma" in model)


def _training_state(file: Path) -> dict[str, Any]:
    content = read_pickle(file)
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{file} must hold 'model' with the weights.")
    return state


def _averages(state: dict[str, Any], weights: dict[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """The averages of the weights, a list in their order."""
    shadow = state.get("ema_shadow_params")
    shadow = [x for x in shadow if isinstance(x, torch.Tensor)] if isinstance(shadow, list) else []
    if [x.shape for x in shadow] != [x.shape for x in weights.values()]:
        raise ValueError(
            f"{file} must hold in 'model' the list 'ema_shadow_params' of the averages of its {len(weights)} tensors,"
            f" in their order, got {len(shadow)} that do not fit; the option `ema=False` takes the raw weights."
        )
    return dict(zip(weights, shadow, strict=True))


def _used_part(config: dict[str, Any]) -> dict[str, Any]:
    """The config without paths, optimizers and the like."""
    used: dict[str, Any] = {"data": {}, "model": {}}
    for section, key in (path.split(".") for path in _KEYS):
        used[section][key] = config[section][key]
    return used


def _check_config(config: dict[str, Any]) -> None:
    for section in ("data", "model"):
        if not isinstance(config.get(section), dict):
            raise ValueError(f"`config` must hold an object '{section}'.")
    values = {path: config[path.split(".")[0]].get(path.split(".")[1]) for path in _KEYS}
    missing = [path for path, value in values.items() if value is None]
    if missing:
        raise ValueError(f"`config` lacks {', '.join(map(repr, missing))}.")
    for path in _POSITIVE_INTEGERS:
        _check(path, values[path], _is_positive_integer(values[path]), "a positive integer")
    for path in _POSITIVE_NUMBERS:
        _check(path, values[path], _is_number(values[path]) and values[path] > 0, "a positive number")
    for path in _BOOLEANS:
        _check(path, values[path], isinstance(values[path], bool), "true or false")
    for path in _INTEGER_LISTS:
        value = values[path]
        is_list = isinstance(value, list) and bool(value) and all(map(_is_positive_integer, value))
        _check(path, value, is_list, "a list of positive integers")
    dropout, span = values["model.dropout"], values["model.data_min_max"]
    _check("model.dropout", dropout, _is_number(dropout) and 0 <= dropout < 1, "a number in [0, 1)")
    is_pair = isinstance(span, list) and len(span) == 2 and all(map(_is_number, span))
    _check("model.data_min_max", span, is_pair and span[0] < span[1], "two increasing numbers")
    _check_sizes(config["data"], config["model"])


def _check_sizes(data: dict[str, Any], model: dict[str, Any]) -> None:
    shape, num_scales = data["shape"], len(model["ch_mult"])
    halvings = 2 ** (num_scales - 1)
    is_image = len(shape) == 3 and shape[1] % halvings == 0 and shape[2] % halvings == 0
    _check("data.shape", shape, is_image, f"channels, height and width, the last two multiples of {halvings}")
    _check("model.ch", model["ch"], model["ch"] >= 4, "at least 4, for group norms")
    _check("model.time_embed_dim", model["time_embed_dim"], model["time_embed_dim"] >= 4, "at least 4")
    # stated twice in the authors' config
    for path, value, same in (
        ("model.num_scales", model.get("num_scales", num_scales), num_scales),
        ("model.input_channels", model.get("input_channels", shape[0]), shape[0]),
    ):
        _check(path, value, value == same, f"{same}, to agree with 'model.ch_mult' and 'data.shape'")


def _check(path: str, value: Any, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"'{path}' in `config` must be {what}, got {value!r}.")


def _is_positive_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
