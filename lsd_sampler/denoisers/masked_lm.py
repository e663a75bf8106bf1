"""Language models of transformers that fill in masks: masked LMs, and causal ones that were retrained to be masked."""

import copy
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from torch import nn
from torch.nn import functional as F
from transformers import LlamaModel, PreTrainedModel, Qwen2Model
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from ..sampling.noise import LogLinear
from .base import Denoiser
from .diffugpt import DiffuGPTLayout, DiffuLLaMALayout
from .files import CONFIG_NAME, Checkpoint, read_json, read_weights, write_json
from .key_values import KeyValueCache
from .layouts import Layout
from .llada import DreamLayout, LLaDALayout
from .precision import KeepsBuffers
from .shadow import shadow_attention


LAYOUTS: tuple[type[Layout], ...] = (LLaDALayout, DreamLayout, DiffuGPTLayout, DiffuLLaMALayout, Layout)

Frame = tuple[Sequence[int], Sequence[int]]

_CACHED = (LlamaModel, Qwen2Model)  # of which it is known where they keep keys and values
_OPTIONS = "masked_diffusion"  # where a saved `config.json` keeps the arguments of the constructor
_ALL = 2**60  # bytes in a file of weights: never more than one file


class MaskedLMDenoiser(KeepsBuffers, Denoiser):
    r"""
    A network of transformers that predicts the tokens at masked positions: a masked LM (BERT, ModernBERT, ESM-2), or a
    causal one that was trained to fill in masks (LLaDA, Dream, DiffuGPT, DiffuLLaMA). It has no time input.

    The canvas holds text and masks only. The denoiser adds the tokens that the network wants around them.

    Args:
        network (`PreTrainedModel`): the model with its head. It is put into evaluation mode, and its attention is made
            bidirectional.
        mask_token_id (`int`): the id by which the network knows a mask.
        shifted (`bool`, defaults to `False`): whether the row at position i - 1 predicts token i, as in models that
            descend from causal ones. A token should then precede the canvas. Without one, the first row is taken as
            it is, which is meaningless unless the first token is given.
        frame (a pair of sequences of `int`): tokens before and after the canvas, such as `[CLS]` and `[SEP]`.
        reused_mask (`bool`, defaults to `False`): whether `mask_token_id` is an ordinary token that doubles as the
            mask. On the canvas the mask is then an id of its own, the one after the last.
        excluded_token_ids (sequence of `int`): tokens that are never predicted; their logits are -inf.
        length (`int`, *optional*): the longest canvas; default: what the network has positions for.

    Raises:
        ValueError: if an id is not in the vocabulary, or the attention of the network stays causal.
    """

    _prefix: torch.Tensor
    _suffix: torch.Tensor
    _excluded: torch.Tensor

    def __init__(
        self,
        network: PreTrainedModel,
        mask_token_id: int,
        *,
        shifted: bool = False,
        frame: Frame = ((), ()),
        reused_mask: bool = False,
        excluded_token_ids: Sequence[int] = (),
        length: int | None = None,
    ):
        super().__init__()
        prefix, suffix = frame
        _check_ids(network, mask_token_id=[mask_token_id], frame=[*prefix, *suffix])
        _check_ids(network, excluded_token_ids=excluded_token_ids)
        self.network = network.eval()
        self.network_mask_id, self.shifted, self.reused_mask = mask_token_id, shifted, reused_mask
        self.noise = LogLinear()
        self.length = _num_positions(network) - len(prefix) - len(suffix) if length is None else length
        if not isinstance(self.length, int) or self.length < 1:
            raise ValueError(f"`length` must be a positive integer, got {self.length!r}.")
        for name, ids in (("_prefix", prefix), ("_suffix", suffix), ("_excluded", excluded_token_ids)):
            self.register_buffer(name, torch.tensor([*ids], dtype=torch.int64), persistent=False)
        _make_bidirectional(network)
        # bound methods, for a module would be saved as a part
        head = _head_of(network)
        self._network_head = None if head is None else head.forward
        columns = self._try_out()
        self.defers_head = self._network_head is not None
        own_column = not reused_mask and mask_token_id < columns
        self.vocab_size = columns - 1 if own_column else columns
        self.mask_token_id = mask_token_id if own_column else columns

    @property
    def frame_token_ids(self) -> tuple[list[int], list[int]]:
        """The tokens that are put before and after the canvas."""
        return self._prefix.tolist(), self._suffix.tolist()

    @property
    def excluded_token_ids(self) -> list[int]:
        """The tokens that are never predicted."""
        return self._excluded.tolist()

    @property
    def eos_token_ids(self) -> list[int]:
        """The tokens that end a text, by the network's config."""
        ids = getattr(self.network.config, "eos_token_id", None)
        return [i for i in (ids if isinstance(ids, list) else [ids]) if i is not None]

    @property
    def keeps_keys_and_values(self) -> bool:
        """Whether `forward` takes a `cache` (LLaDA, Dream, DiffuLLaMA)."""
        return self._network_head is not None and isinstance(self.network.base_model, _CACHED)

    @property
    def key_value_bytes(self) -> int:
        """Bytes of the keys and values of one position, in all layers; 0 where none are kept."""
        if not self.keeps_keys_and_values:
            return 0
        config = self.network.config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return 2 * config.num_hidden_layers * config.num_key_value_heads * width * self.network.dtype.itemsize

    @property
    def takes_padding(self) -> bool:
        """Whether `forward` takes an `attention_mask` (LLaDA, Dream, DiffuLLaMA, with torch's own attention)."""
        return self.keeps_keys_and_values and self.network.config._attn_implementation in ("sdpa", "eager")

    @property
    def takes_shadow(self) -> bool:
        """Whether `forward` takes a `shadow` (LLaDA, with torch's own attention)."""
        return self.takes_padding and not self.shifted

    def forward(
        self,
        tokens: torch.Tensor,
        t: torch.Tensor | None = None,
        *,
        return_hidden_states: bool = False,
        attention_mask: torch.Tensor | None = None,
        cache: KeyValueCache | None = None,
        shadow: slice | None = None,
    ) -> torch.Tensor:
        """As for any denoiser, and for canvases that are padded on the left, or computed in part.

        Args:
            tokens, t, return_hidden_states: as for [`~lsd_sampler.denoisers.Denoiser`].
            attention_mask (`torch.BoolTensor` of shape `(batch_size, seq_len)`, *optional*): False at the padding on
                the left, which nothing attends to. Positions count from the first token. Only where `takes_padding`.
            cache ([`~lsd_sampler.denoisers.key_values.KeyValueCache`], *optional*): keeps keys and values; its
                `window` says which positions are computed, and only their logits are returned. The first of a window
                gets the row of its own position if the network is `shifted`, which is meaningless unless its token is
                known. Only where `keeps_keys_and_values`.
            shadow (`slice`, *optional*): positions of the canvas that are predicted once more, each from all tokens
                but its own. Their rows follow those of the canvas, whose own rows stay what they are. Excludes
                `attention_mask` and `cache`. Only where `takes_shadow`.
        """
        hidden = self.hidden_states(tokens, t, attention_mask=attention_mask, cache=cache, shadow=shadow)
        return hidden if return_hidden_states else self.head(hidden)

    def hidden_states(
        self,
        tokens: torch.Tensor,
        t: torch.Tensor | None = None,
        *,
        attention_mask: torch.Tensor | None = None,
        cache: KeyValueCache | None = None,
        shadow: slice | None = None,
    ) -> torch.Tensor:
        """The head's input at the positions that it predicts; or logits, where the head cannot be called apart."""
        length, before, after = tokens.shape[1], len(self._prefix), len(self._suffix)
        if self.mask_token_id != self.network_mask_id:
            tokens = tokens.masked_fill(tokens == self.mask_token_id, self.network_mask_id)
        prefix, suffix = (ids.expand(len(tokens), -1) for ids in (self._prefix, self._suffix))
        ids = torch.cat([prefix, tokens, suffix], dim=1)
        options: dict[str, Any] = {}
        if attention_mask is not None:
            attention_mask = F.pad(attention_mask, (before, after), value=True)
            options = {"attention_mask": attention_mask, "position_ids": (attention_mask.cumsum(1) - 1).clamp(min=0)}
        if shadow is not None:
            return self._with_shadow(ids, slice(before + shadow.start, before + shadow.stop), before, length)
        first, num = before - self.shifted, length
        if cache is not None:
            at = cache.begin(ids.shape[1], before, after)
            places = options.get("position_ids", torch.arange(ids.shape[1], device=ids.device)[None])
            options |= {"position_ids": places[:, at], "past_key_values": cache}
            ids = ids[:, at]
            if cache.window is not None:
                first, num = -self.shifted, cache.window[1] - cache.window[0]
        rows = self._trunk(ids, **options)
        if attention_mask is not None and self.shifted and ids.shape[1] == attention_mask.shape[1]:
            rows = _with_row_before(rows, attention_mask, before)
        if first < 0:
            rows, first = torch.cat([rows[:, :1], rows], dim=1), 0
        return rows[:, first : first + num]

    def _with_shadow(self, ids: torch.Tensor, shadow: slice, first: int, num: int) -> torch.Tensor:
        """The rows of a canvas of `num` tokens, and behind them those of masks in the shadow's places."""
        length, size = ids.shape[1], shadow.stop - shadow.start
        place = torch.arange(length, device=ids.device)
        shadow_ids = ids.new_full((len(ids), size), self.network_mask_id)
        rows = self._trunk(
            torch.cat([ids, shadow_ids], dim=1),
            position_ids=torch.cat([place, place[shadow]])[None],
            attention_mask=self._attention_to(shadow_attention(length, shadow, ids.device)),
        )
        return torch.cat([rows[:, first : first + num], rows[:, length:]], dim=1)

    def _attention_to(self, sees: torch.Tensor) -> torch.Tensor:
        """What the network's attention takes for a mask `(length, length)`, `(1, 1, length, length)`."""
        if self.network.config._attn_implementation == "sdpa":
            return sees[None, None]
        dtype = self.network.dtype
        return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)[
            None, None
        ]

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """The network's logits, with -inf for the excluded tokens."""
        logits = hidden
        if self._network_head is not None:
            logits = self._network_head(inputs_embeds=hidden.reshape(1, -1, hidden.shape[-1])).logits
            logits = logits.reshape(*hidden.shape[:-1], logits.shape[-1])
        if not len(self._excluded):
            return logits
        fill = logits.index_fill if logits.requires_grad else logits.index_fill_
        return fill(-1, self._excluded, -torch.inf)

    def _trunk(self, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        if self._network_head is None:
            return self.network(input_ids=ids, **options).logits
        return self.network.base_model(input_ids=ids, **options).last_hidden_state

    @torch.no_grad()
    def _try_out(self) -> int:
        """Number of columns. Makes sure that attention goes both ways, and that trunk and head make up the network."""
        taken = {self.network_mask_id, getattr(self.network.config, "pad_token_id", None), *self._excluded.tolist()}
        text = [i for i in range(_num_embeddings(self.network)) if i not in taken][:3] or [self.network_mask_id]
        mask, device = self.network_mask_id, self.network.device
        ids = torch.tensor([[text[0], mask, mask, mask]], device=device)
        ids_after = torch.tensor([[text[0], mask, text[-1], text[0]]], device=device)
        logits = self.network(input_ids=ids).logits
        if torch.equal(logits[:, :2], self.network(input_ids=ids_after).logits[:, :2]):
            raise ValueError(
                f"The attention of {type(self.network).__name__} cannot be made bidirectional (does this version of"
                " transformers support `config.is_causal = False` for it?), so it cannot fill in masks."
            )
        try:
            apart = self._network_head and self._network_head(inputs_embeds=self._trunk(ids)).logits
        except (AttributeError, KeyError, TypeError):  # the head reaches into the trunk
            apart = None
        if apart is None or not torch.equal(apart, logits):
            self._network_head = None
        return logits.shape[-1]

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        return any(layout.recognises(checkpoint.config, ()) for layout in LAYOUTS)

    @classmethod
    def _from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        variant: str | None = None,
        *,
        mask_token_id: int | None = None,
        shifted: bool | None = None,
        frame: bool | Frame | None = None,
        reused_mask: bool | None = None,
        excluded_token_ids: Sequence[int] | None = None,
        length: int | None = None,
        attn_implementation: str | None = None,
    ) -> Self:
        """Options that are left out come from `masked_diffusion` in `config.json`, or else from the config, the
        tokenizer and the family. `frame` may also be True or False: whether to put the family's own tokens around the
        canvas.
        """
        given = {
            "mask_token_id": mask_token_id, "shifted": shifted, "frame": frame, "reused_mask": reused_mask,
            "excluded_token_ids": excluded_token_ids, "length": length,
        }  # fmt: skip
        chosen = _stored_options(checkpoint, given) | {k: v for k, v in given.items() if v is not None}
        tensors, file = read_weights(checkpoint, variant)
        family = next(layout for layout in LAYOUTS if layout.recognises(checkpoint.config, tensors))
        try:
            layout = family(checkpoint, tensors)
            options = layout.options(chosen)
            model = cls(layout.network(str(file), attn_implementation), **options)
        except ValueError as error:
            if str(error).startswith(str(checkpoint.folder)):  # names its file already
                raise
            raise ValueError(f"{checkpoint.config_file}: {error}") from error
        model.tokenizer = layout.tokenizer
        return model

    def save_pretrained(
        self, save_directory: str | os.PathLike, safe_serialization: bool = True, variant: str | None = None
    ) -> None:
        r"""
        Saves a checkpoint as transformers would, whichever its layout was, with the options in `config.json`.

        Args:
            save_directory (`str` or `os.PathLike`): the folder; it is made if it does not exist.
            safe_serialization (`bool`): must be true; pickles are not written.
            variant (`str`, *optional*): saves `model.VARIANT.safetensors`.
        """
        if not safe_serialization:
            raise ValueError("`safe_serialization` must be True: denoisers are saved as safetensors only.")
        folder = Path(os.path.expanduser(save_directory))
        folder.mkdir(parents=True, exist_ok=True)
        # beside, then moved: the weights may be mapped from the very files that are replaced
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as beside:
            self.network.save_pretrained(beside, variant=variant, max_shard_size=_ALL)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(beside)
            config = Path(beside, CONFIG_NAME)
            write_json({**read_json(config), _OPTIONS: self._options()}, config)
            for path in Path(beside).iterdir():
                path.replace(folder / path.name)

    def _options(self) -> dict[str, Any]:
        return {
            "mask_token_id": self.network_mask_id,
            "shifted": self.shifted,
            "frame": [*self.frame_token_ids],
            "reused_mask": self.reused_mask,
            "excluded_token_ids": self.excluded_token_ids,
            "length": self.length,
        }

    def _set_tokenizer(self, folder: Path) -> None:
        """Takes the tokenizer that was read with the weights, because it knows which tokens are special."""


class _Given(nn.Module):
    """Takes the place of a network's trunk, and returns a given result."""

    def forward(
        self, *args: Any, inputs_embeds: torch.Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)  # pyright: ignore


def _head_of(network: PreTrainedModel) -> PreTrainedModel | None:
    """The network without its trunk, called with the trunk's output as `inputs_embeds`. It shares all weights. None
    where there is no trunk to take away.
    """
    if network.base_model_prefix not in network._modules:
        return None
    head = copy.copy(network)
    head._modules = {**network._modules, network.base_model_prefix: _Given()}
    return head


def _with_row_before(rows: torch.Tensor, attention_mask: torch.Tensor, before: int) -> torch.Tensor:
    """The rows of padded canvases, where the row just before a first token is the one that predicts it alone: that of
    the last token before the canvas, or its own where there is none.
    """
    first_B = before + (~attention_mask).sum(1)
    source_B = first_B if before == 0 else torch.full_like(first_B, before - 1)
    padded_B = first_B > before
    batch_P = padded_B.nonzero()[:, 0]
    rows = rows.clone()
    rows[batch_P, first_B[batch_P] - 1] = rows[batch_P, source_B[batch_P]]
    return rows


def _make_bidirectional(network: PreTrainedModel) -> None:
    """Turns the causality of a decoder's attention off: in the masks it makes and in the flags of its layers."""
    causal = [module for module in network.modules() if getattr(module, "is_causal", False) is True]
    if causal or network.can_generate():
        network.config.is_causal = False
        network.config.use_cache = False
    for module in causal:
        module.is_causal = False  # pyright: ignore[reportArgumentType]


def _num_embeddings(network: PreTrainedModel) -> int:
    return network.get_input_embeddings().weight.shape[0]  # pyright: ignore


def _num_positions(network: PreTrainedModel) -> int:
    """The number of positions of the network. RoBERTa's family begins to count after the id of its padding."""
    positions = getattr(network.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        raise ValueError(
            f"`length` is needed: the config of {type(network).__name__} does not say how long it may be."
        )
    learned = (module for name, module in network.named_modules() if name.endswith("position_embeddings"))
    offsets = (getattr(module, "padding_idx", None) for module in learned)
    return positions - max((offset + 1 for offset in offsets if offset is not None), default=0)


def _check_ids(network: PreTrainedModel, **named: Sequence[int]) -> None:
    most = _num_embeddings(network) - 1
    for name, ids in named.items():
        for i in ids:
            if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i <= most:
                raise ValueError(f"`{name}` must hold token ids in [0, {most}], the network's, got {i!r}.")


def _stored_options(checkpoint: Checkpoint, known: dict[str, Any]) -> dict[str, Any]:
    stored = checkpoint.config.get(_OPTIONS, {})
    if not isinstance(stored, dict) or stored.keys() - known.keys():
        raise ValueError(f"{checkpoint.config_file}: `{_OPTIONS}` must be an object of {sorted(known)}, got {stored}.")
    return stored
