"""How a checkpoint of a transformers model lies on disk, and what the model was trained to see."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from .files import TOKENIZER_NAME, Checkpoint, check_tensors
from .mask_token import mask_of_tokenizer
from .tokenizer_files import first_line, load_tokenizer
from .tokenizer_fit import fitting_tokenizer
from .vocabulary import ids_without_token


logger = logging.getLogger(__name__)

# a family of its own, whose published repository brings code that needs flash-attn
_NOT_OURS = {"mdlm"}
# the classes of a repository's own code that may fill in masks, best first
_AUTO_CLASSES = ("AutoModelForMaskedLM", "AutoModelForCausalLM", "AutoModel")
# of other heads, which checkpoints of masked LMs carry along
_OTHER_HEADS = re.compile(r"(^|\.)(pooler|seq_relationship|sop_classifier)\.")
_TOKENIZER_FILES = {
    TOKENIZER_NAME, "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model",
}  # fmt: skip
# ESM's alphabet is fixed, and its config need not repeat it
_ESM_ALPHABET = {"cls_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "unk_token_id": 3, "mask_token_id": 32}
_SPECIAL = ("bos_token_id", "cls_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id")


class Layout:
    """A checkpoint as transformers saves it. Other layouts override what differs.

    Args:
        checkpoint (`Checkpoint`): the folder; its config and tokenizer are read.
        tensors: its weights, by their names in the file.

    Raises:
        ValueError: if the config is unusable, or belongs to no model that fills in masks.
    """

    tokenizer_class: Any = AutoTokenizer

    def __init__(self, checkpoint: Checkpoint, tensors: Mapping[str, torch.Tensor]):
        self.checkpoint, self.tensors = checkpoint, tensors
        try:
            self.config = self.network_config()
        except StrictDataclassError as error:
            raise ValueError(str(error).split("\n")[0]) from error
        except ImportError as error:
            raise ValueError(_without_package(error)) from error
        if getattr(self.config, "is_encoder_decoder", False):
            raise ValueError("the model is an encoder-decoder, which fills in no masks in place.")
        self.rows: int = self.config.get_text_config().vocab_size
        self.network_class: Any
        try:
            self.network_class, kind = self.find_class()
        except ImportError as error:
            raise ValueError(_without_package(error)) from error
        self.is_masked_lm = kind == "AutoModelForMaskedLM"
        self.tokenizer = self.read_tokenizer()

    @classmethod
    def recognises(cls, config: Mapping[str, Any], tensors: Collection[str]) -> bool:
        """Whether a checkpoint with this `config.json`, and tensors of these names, may be of this layout."""
        kind = config.get("model_type")
        if not isinstance(kind, str) or "_class_name" in config or kind in _NOT_OURS:
            return False
        return _is_known(kind) or _own_class(config) is not None

    # ---- the network ----

    def network_config(self) -> Any:
        """The config of the transformers class that runs the checkpoint."""
        kind, trust = self.checkpoint.config["model_type"], self.checkpoint.trust_remote_code
        if not _is_known(kind) and not trust:
            raise ValueError(
                f"transformers has no model of `model_type` {kind!r}, and code of the repository is not run: pass"
                " `trust_remote_code=True` if you trust it."
            )
        return AutoConfig.from_pretrained(self.checkpoint.folder, local_files_only=True, trust_remote_code=trust)

    def find_class(self) -> tuple[Any, str]:
        """The class that runs the checkpoint, and which of transformers' auto classes stands for it: transformers' own
        class rather than one of the repository, a masked LM rather than a causal one.
        """
        for name, mapping in (
            ("AutoModelForMaskedLM", MODEL_FOR_MASKED_LM_MAPPING),
            ("AutoModelForCausalLM", MODEL_FOR_CAUSAL_LM_MAPPING),
        ):
            if type(self.config) in mapping:
                return mapping[type(self.config)], name
        name = _own_class(self.checkpoint.config) or ""
        reference = self.checkpoint.config["auto_map"][name]
        if "--" in reference:
            raise ValueError(f"`auto_map` asks for code of another repository ({reference}), which is never run.")
        own = get_class_from_dynamic_module(reference, self.checkpoint.folder, local_files_only=True)
        own.register_for_auto_class(name)  # its code is saved with it
        return own, name

    def rename(self, name: str) -> str:
        """The transformers class's name of a tensor in the file."""
        return name

    def file_name(self, name: str) -> str:
        """The file's name of a tensor in the transformers class."""
        return name

    def network(self, where: str, attn_implementation: str | None = None) -> PreTrainedModel:
        """Builds the network around its tensors, in the precision that they are stored in.

        Raises:
            ValueError: if names or shapes do not agree exactly; the message names `where` and the culprits.
        """
        # of the largest, for frequencies and the like stay in float32
        largest = max(filter(torch.is_floating_point, self.tensors.values()), key=torch.numel, default=None)
        dtype = torch.float32 if largest is None else largest.dtype
        try:
            network, report = self._build(dtype, attn_implementation)
        except ImportError as error:
            if attn_implementation is not None:
                raise ValueError(
                    f"`attn_implementation` {attn_implementation!r} needs a package that is not installed; without"
                    f" that option, torch's own attention is taken: {first_line(error)}"
                ) from error
            logger.warning("Going on with torch's own attention: %s", first_line(error))
            network, report = self._build(dtype, "sdpa")
        wrong = report["mismatched_keys"]
        surplus = [name for name in report["unexpected_keys"] if not _OTHER_HEADS.search(name)]
        heads = [name for name in surplus if _is_of_another_head(network, name)]
        if heads:
            logger.warning("%s: ignoring heads that %s does not have: %s.", where, type(network).__name__, _few(heads))
        surplus = [name for name in surplus if name not in heads]
        expected = {name: () for name in report["missing_keys"]} | {name: shape for name, _, shape in wrong}
        found = {name: () for name in surplus} | {name: shape for name, shape, _ in wrong}
        check_tensors(self._as_in_file(expected), self._as_in_file(found), where)
        return network

    def _build(self, dtype: torch.dtype, attn_implementation: str | None) -> tuple[PreTrainedModel, dict[str, Any]]:
        attention: Any = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
        return self.network_class.from_pretrained(
            None, config=self.config, state_dict={self.rename(name): x for name, x in self.tensors.items()},
            dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **attention,
        )  # fmt: skip

    def _as_in_file(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
        return {self.file_name(name): torch.empty(tuple(shape), device="meta") for name, shape in shapes.items()}

    # ---- the tokens ----

    def read_tokenizer(self) -> Any | None:
        """The tokenizer of the folder, or None where it has none, or none that can be read."""
        if not _TOKENIZER_FILES & self.checkpoint.names:
            return fitting_tokenizer(None, self.checkpoint.folder, self.rows)
        folder, trust = self.checkpoint.folder, self.checkpoint.trust_remote_code

        def load() -> Any:
            return self.tokenizer_class.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)

        try:
            tokenizer = load_tokenizer(folder, load)
            if tokenizer is None:  # another class would cut texts in another way
                return None
        except (OSError, ValueError, KeyError) as error:
            if str(error).startswith(str(folder)):  # names its file already
                raise
            if TOKENIZER_NAME in self.checkpoint.names:
                tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER_NAME))
            else:
                logger.warning("The tokenizer in %s cannot be read: %s", folder, first_line(error))
                tokenizer = None
        return fitting_tokenizer(tokenizer, folder, self.rows)

    def options(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of [`MaskedLMDenoiser`] that the user did not choose."""
        mask = chosen["mask_token_id"] if "mask_token_id" in chosen else self.mask_token_id()
        if mask is None:
            raise ValueError(self._without_mask())
        shifted = chosen.get("shifted", self.shifted())
        frame = self._chosen_frame(chosen.get("frame"), shifted)
        special = [*self.special_ids(), *frame[0], *frame[1]] if self.is_masked_lm else []
        return {
            "mask_token_id": mask,
            "shifted": shifted,
            "frame": frame,
            "reused_mask": chosen.get("reused_mask", self.reuses(mask)),
            "excluded_token_ids": chosen.get("excluded_token_ids", self._excluded({*special} - {mask}, mask)),
            "length": chosen.get("length", self.length()),
        }

    def mask_token_id(self) -> int | None:
        """The mask of the config, or else of the tokenizer. In a masked LM it may also be a special token with a usual
        name.
        """
        known = self.known_id("mask_token_id")
        known = getattr(self.tokenizer, "mask_token_id", None) if known is None else known
        if known is not None or not self.is_masked_lm:
            return known
        named = mask_of_tokenizer(self.checkpoint.folder)
        return named if named is not None and named < self.rows else None

    def shifted(self) -> bool:
        """Whether a row predicts the next token. Causal classes were trained to, and keep it when they are adapted."""
        if not self.is_masked_lm and not _is_known(self.config.model_type):
            raise ValueError("nothing says which token a row predicts, its own or the next: pass `shifted`.")
        return not self.is_masked_lm

    def reuses(self, mask_token_id: int) -> bool:
        """Whether the mask is an ordinary token: in causal models, one whose text does not say that it is a mask."""
        if self.is_masked_lm or self.tokenizer is None:
            return False
        return "mask" not in str(self.tokenizer.convert_ids_to_tokens(mask_token_id)).lower()

    def framed(self, shifted: bool) -> bool:
        """Whether the canvas has tokens around it if the user does not say."""
        return self.is_masked_lm or shifted

    def frame(self, shifted: bool) -> tuple[Sequence[int], Sequence[int]] | None:
        """The tokens around the canvas, if they are known."""
        if not self.is_masked_lm:
            bos = getattr(self.tokenizer, "bos_token_id", None)
            bos = self.known_id("bos_token_id") if bos is None else bos
            return None if bos is None else ((bos,), ())
        if getattr(self.tokenizer, "mask_token", None) is not None:
            return _around_mask(self.tokenizer)
        if self.tokenizer is not None and (around := _around_text(self.tokenizer)) not in (None, ([], [])):
            return around
        first = self._id_of_config_or_tokenizer("cls_token_id", "bos_token_id")
        last = self._id_of_config_or_tokenizer("sep_token_id", "eos_token_id")
        return None if first is None or last is None else ((first,), (last,))

    def _id_of_config_or_tokenizer(self, *names: str) -> int | None:
        known = [self.known_id(*names), *(getattr(self.tokenizer, name, None) for name in names)]
        return next((i for i in known if i is not None and i < self.rows), None)

    def special_ids(self) -> list[int]:
        """Tokens that have a function and are not part of a text."""
        ids = [self.known_id(name) for name in _SPECIAL] + getattr(self.tokenizer, "all_special_ids", [])
        return [i for i in ids if i is not None and i < self.rows]

    def length(self) -> int | None:
        """The longest canvas, if it differs from the network's number of positions."""
        return None

    def known_id(self, *names: str) -> int | None:
        """The first of these ids that the config has, in the vocabulary (defaults of a class may lie outside)."""
        alphabet = _ESM_ALPHABET if self.config.model_type == "esm" and self.rows == 33 else {}
        for name in names:
            i = getattr(self.config, name, None)
            i = alphabet.get(name) if i is None else i
            if isinstance(i, int) and 0 <= i < self.rows:
                return i
        return None

    def _excluded(self, special: set[int], mask_token_id: int) -> list[int]:
        """Special tokens, and ids that stand for none."""
        without = {*ids_without_token(self.tokenizer, self.rows)} - {mask_token_id}
        if without:
            logger.warning(
                "%s: %d of %d ids have no token in the tokenizer, %d the first: they are never drawn.",
                self.checkpoint.folder, len(without), self.rows, min(without),
            )  # fmt: skip
        return sorted(special | without)

    def _chosen_frame(self, chosen: Any, shifted: bool) -> tuple[Sequence[int], Sequence[int]]:
        if chosen is None or isinstance(chosen, bool):
            frame = self.frame(shifted) if chosen or (chosen is None and self.framed(shifted)) else ((), ())
            if frame is None and chosen:
                raise ValueError("`frame` is True, but neither config nor tokenizer has the tokens: pass their ids.")
            if frame is None:
                logger.warning("Neither config nor tokenizer says which tokens frame a text: going on without them.")
            return frame or ((), ())
        if not isinstance(chosen, (list, tuple)) or [type(ids) in (list, tuple) for ids in chosen] != [True, True]:
            raise ValueError(f"`frame` must be True, False or two sequences of token ids, got {chosen!r}.")
        return chosen[0], chosen[1]

    def _without_mask(self) -> str:
        name = self.network_class.__name__
        if self.is_masked_lm:
            return f"neither config nor tokenizer says which token of {name} is the mask: pass `mask_token_id`."
        return (
            f"{name} is a causal language model, and neither its config nor its tokenizer has a mask token: if it was"
            " trained to fill in masks, pass `mask_token_id` (and `shifted`)."
        )


def _is_of_another_head(network: PreTrainedModel, name: str) -> bool:
    """Whether a surplus tensor is neither of the trunk nor of a part of the head that predicts tokens."""
    first, _, rest = name.partition(".")
    if first == network.base_model_prefix:
        return False
    part = dict(network.named_children()).get(first)
    if part is None:  # some files name the parts of the trunk without its prefix
        return first not in dict(network.base_model.named_children())
    children = [child for child, _ in part.named_children()]
    # what does nothing but hold the head, as `cls` of BERT does
    only_holds = len(children) == 1 and not [*part.parameters(recurse=False)]
    return only_holds and rest.partition(".")[0] != children[0]


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _is_known(model_type: str) -> bool:
    return model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES or model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _own_class(config: Mapping[str, Any]) -> str | None:
    """Which class of the repository's own code could fill in masks."""
    auto_map = config.get("auto_map")
    return next((name for name in _AUTO_CLASSES if name in auto_map), None) if isinstance(auto_map, dict) else None


def _without_package(error: ImportError) -> str:
    return f"the model's code needs a package that is not installed: {first_line(error)}"


def _around_text(tokenizer: Any) -> tuple[Sequence[int], Sequence[int]] | None:
    """The tokens that the tokenizer puts around an ordinary text; None where that cannot be told."""
    text = next((word for word in tokenizer.get_vocab() if word not in tokenizer.all_special_tokens), "a")
    inner, ids = tokenizer(text, add_special_tokens=False).input_ids, tokenizer(text).input_ids
    places = [k for k in range(len(ids) - len(inner) + 1) if ids[k : k + len(inner)] == inner]
    return (ids[: places[0]], ids[places[0] + len(inner) :]) if inner and places else None


def _around_mask(tokenizer: Any) -> tuple[Sequence[int], Sequence[int]] | None:
    ids, special = tokenizer(tokenizer.mask_token).input_ids, set(tokenizer.all_special_ids)
    if tokenizer.mask_token_id not in ids:
        return None
    k = ids.index(tokenizer.mask_token_id)
    return [i for i in ids[:k] if i in special], [i for i in ids[k + 1 :] if i in special]
