"""Translation by discrete diffusion: an encoder reads the source, a decoder fills in the target
(https://huggingface.co/papers/2302.05737, https://huggingface.co/papers/2312.09193).

Reads the checkpoints that fairseq writes, beside their dictionaries, and a layout of our own: `config.json`,
`model.safetensors` and two dictionaries.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from ..sampling.noise import LogLinear, NoiseSchedule, OffsetCosine, OffsetCosineSquared
from ..support.validation import check_choice
from .base import Denoiser, build_model
from .fairseq_files import (
    DICTIONARY,
    SUFFIX,
    check_config,
    find_dictionaries,
    model_tensors,
    network_config,
    network_tensors,
    read_fairseq,
    training_options,
    version_of,
)
from .files import Checkpoint, read_weights
from .piece_tokenizer import BOS, EOS, PAD, SOURCE_FILE, TARGET_FILE, UNK, PieceTokenizer, SymbolDictionary
from .translation_network import Decoder, Encoder


MODEL_TYPE = "dndm_translation"
NETWORK_TIMES = ("dndm", "training", "continuous", "unit")
_NOISE_BUFFER = "diffusion.vocab_log_prob"
_EPS = 1e-6
_NOISES: dict[str, NoiseSchedule] = {
    "linear": LogLinear(_EPS), "cosine": OffsetCosineSquared(_EPS), "cosine_old": OffsetCosine(_EPS),
    "sqrt": LogLinear(_EPS),  # which is not that: our own samplers refuse it
}  # fmt: skip


class EncodedSource(NamedTuple):
    """What the encoder made of sources.

    Args:
        states (`torch.Tensor` of shape `(batch_size, source_length, width)`): the encoder's output.
        padding (`torch.BoolTensor` of shape `(batch_size, source_length)`): true where there is no token.
    """

    states: torch.Tensor
    padding: torch.Tensor

    def rows(self, row_R: torch.Tensor) -> "EncodedSource":
        """Those of some sources, in this order."""
        row_R = row_R.to(self.states.device)
        return EncodedSource(self.states[row_R], self.padding[row_R])


class TranslationDenoiser(Denoiser):
    r"""
    A translation model of reparameterised discrete diffusion. `MaskedDiffusionPipeline` translates its `prompt`.

    Canvases are `<s>`, the text, `</s>` and padding. Absorbing noise turns tokens into `<unk>` (the mask, token 3);
    multinomial noise into any but `<s>`, `<pad>` and `</s>`. `LSDScheduler` samples from both, and
    [`~lsd_sampler.sampling.scheduling_dndm.DNDMScheduler`] from the reparameterised ones.

    Args:
        config (`dict`): options of the training, and the sizes of the vocabularies.
        tokenizer ([`~lsd_sampler.denoisers.piece_tokenizer.PieceTokenizer`]): the dictionaries of source and target.
        network_times (`str`, defaults to `"dndm"`): which time the network is given at a time t in (0, 1], for S
            steps of training: `"dndm"`, the integer part of `t S`, as DNDM's code has it (from 0 to S, though the
            largest of training is S - 1); `"training"`, the integer whose noise in training had the share t of
            tokens, `ceil(t S) - 1`; `"continuous"`, `t S` itself; or `"unit"`, t itself.

    Raises:
        ValueError: if a key is missing or unusable, or the dictionaries do not fit.
    """

    def __init__(self, config: Mapping[str, Any], tokenizer: PieceTokenizer, network_times: str = "dndm"):
        super().__init__()
        check_config(config, "`config`")
        check_choice("network_times", network_times, NETWORK_TIMES)
        self.config, self.network_times, self.tokenizer = dict(config), network_times, tokenizer
        _check_vocabularies(self.config, tokenizer)
        sizes = config["source_vocabulary"], config["target_vocabulary"]
        source = nn.Embedding(sizes[0], config["encoder_embed_dim"])
        target = source if config["share_all_embeddings"] else nn.Embedding(sizes[1], config["decoder_embed_dim"])
        self.encoder, self.decoder = Encoder(config, source), Decoder(config, target)
        self.training_steps: int = config["num_diffusion_timesteps"]
        self.length = config["max_target_positions"]
        self.time_conditioned = config["timestep_emb_type"] != "none"
        if config["diffusion_type"].endswith("absorbing"):
            self.mask_token_id, self.vocab_size, self.noise = UNK, sizes[1] - 1, LogLinear(_EPS)
        else:
            self.mask_token_id, self.vocab_size, self.corruption = None, sizes[1], "uniform"
            self.noise = _NOISES[config["noise_scheduler_type"]]
            self.register_buffer("vocab_log_prob", torch.zeros(sizes[1]))

    @property
    def defers_head(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return True

    # ---- the network ----

    @apply_forward_hook
    def encode(self, source_tokens: torch.Tensor) -> EncodedSource:
        """Reads sources.

        Args:
            source_tokens (`torch.LongTensor` of shape `(batch_size, source_length)`): each `<s> ... </s>`, padded.

        Raises:
            ValueError: if they are longer than the encoder's positions.
        """
        return EncodedSource(self.encoder(source_tokens)[-1], source_tokens == PAD)

    def length_log_probs(self, source: EncodedSource) -> torch.Tensor:
        """Log-probabilities of the classes of lengths, `(batch_size, length_classes)`."""
        real = (~source.padding).to(source.states.dtype)[..., None]
        mean = (source.states / real.sum(1, keepdim=True) * real).sum(1)
        logits = mean @ self.decoder.embed_length.weight.mT
        return logits.log_softmax(-1)

    def predicted_lengths(self, source: EncodedSource) -> torch.Tensor:
        """The most likely length of each target, `<s>` and `</s>` included, at least 3. `(batch_size,)`."""
        lengths = self.length_log_probs(source).argmax(-1)
        if self.config["pred_length_offset"]:
            lengths = lengths - 128 + (~source.padding).sum(1)
        return lengths.clamp(min=3)

    @apply_forward_hook
    def decode(self, tokens: torch.Tensor, times: torch.Tensor, source: EncodedSource) -> torch.Tensor:
        """Raw logits at the network's own times.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, seq_len)`): canvases.
            times (`torch.Tensor` of shape `(batch_size,)`): integers from 0 on, or floats.
            source ([`EncodedSource`]): a source for each canvas.

        Returns:
            `torch.Tensor` of shape `(batch_size, seq_len, vocabulary)`, `<unk>` and the other special symbols
            included.
        """
        return self.head(self.decoder(tokens, times, *source)[-1])

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states."""
        return self.decoder.output_projection(hidden)

    def network_time(self, t: torch.Tensor) -> torch.Tensor:
        """The time that the network is given at times t in (0, 1]."""
        scaled = t.float() * self.training_steps
        if self.network_times == "dndm":
            return scaled.long()
        if self.network_times == "training":  # a rounded t is not to begin the next step of training
            return ((scaled - 1e-4).ceil().long() - 1).clamp(0, self.training_steps - 1)
        return scaled if self.network_times == "continuous" else t

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        tokens: torch.Tensor,
        t: torch.Tensor | None = None,
        *,
        encoder_states: torch.Tensor | None = None,
        encoder_padding: torch.Tensor | None = None,
        return_hidden_states: bool = False,
    ) -> torch.Tensor:
        """Logits of the clean tokens.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, seq_len)`): canvases.
            t (`torch.Tensor` of shape `(batch_size,)`): times in (0, 1].
            encoder_states, encoder_padding: the two tensors of [`EncodedSource`], a row for each canvas.
            return_hidden_states (`bool`, defaults to `False`): whether to stop before the head.

        Raises:
            ValueError: if `t` or the source is missing.
        """
        if encoder_states is None or encoder_padding is None:
            raise ValueError(
                "This model translates: give the pipeline its source as `prompt`, or `forward` what `encode` returns,"
                " as `encoder_states` and `encoder_padding`."
            )
        if t is None:
            if self.time_conditioned:
                raise ValueError("`t` must be given: this model is conditioned on time.")
            t = torch.ones(len(tokens), device=tokens.device)
        hidden = self.decoder(tokens, self.network_time(t), encoder_states, encoder_padding)[-1]
        return hidden if return_hidden_states else self.head(hidden)

    def scheduler_config(self) -> dict[str, Any]:
        """Keyword arguments with which `LSDScheduler` fits. Multinomial noise moves all tokens but three."""
        config = super().scheduler_config()
        return config if self.mask_token_id is not None else config | {"vocab_size": self.vocab_size - UNK}

    def dndm_config(self, **options: Any) -> dict[str, Any]:
        """Keyword arguments with which [`~lsd_sampler.sampling.scheduling_dndm.DNDMScheduler`] fits.

        Args:
            options: those of the scheduler that are to differ from the checkpoint's (`--not-topk`, `--schedule`,
                `--alpha`, `--beta` and `--continuous-sample` of its training).

        Raises:
            ValueError: if DNDM has no step for the noise of this model.
        """
        kind = self.config["diffusion_type"]
        if not kind.startswith("reparam-"):
            raise ValueError(
                f"DNDM has no step for models of the type {kind!r}, only for 'reparam-{kind}': use `LSDScheduler`."
            )
        ids = {"mask_token_id": self.mask_token_id, "special_token_ids": [BOS, PAD, EOS]}
        trained = {
            "top_k": not self.config["not_topk"],
            "weights": "beta" if self.config["schedule"] == "Beta" else self.config["schedule"],
            "continuous": self.config["continuous_sample"],
            **{name: float(self.config[name]) for name in ("alpha", "beta")},
        }
        return {"training_steps": self.training_steps, "corruption": self.corruption, **ids, **trained, **options}

    # ---- files ----

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        if checkpoint.config.get("model_type") == MODEL_TYPE:
            return True
        pickles = checkpoint.pickles(SUFFIX)
        if pickles and any(DICTIONARY.fullmatch(name) for name in checkpoint.names):
            return True
        return len(pickles) == 1 and _is_fairseq(pickles[0])

    @classmethod
    def _from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        variant: str | None = None,
        ema: bool = True,
        source_lang: str | None = None,
        target_lang: str | None = None,
        network_times: str | None = None,
    ) -> Self:
        """`ema`: whether to take the averaged weights, as the authors do. `source_lang`, `target_lang`: which
        `dict.LANGUAGE.txt` is which. `network_times`: see the class.
        """
        if checkpoint.config.get("model_type") != MODEL_TYPE:
            return cls._from_fairseq(checkpoint, ema, source_lang, target_lang, network_times)
        config, tokenizer = dict(checkpoint.config), PieceTokenizer.from_pretrained(checkpoint.folder)
        del config["model_type"]
        saved = config.pop("network_times", "dndm")
        times = network_times or saved
        tensors, file = read_weights(checkpoint, variant)
        return build_model(lambda: cls(config, tokenizer, times), checkpoint.config_file, tensors, file)

    @classmethod
    def _from_fairseq(
        cls,
        checkpoint: Checkpoint,
        ema: bool,
        source_lang: str | None,
        target_lang: str | None,
        network_times: str | None,
    ) -> Self:
        file = checkpoint.weights_or_pickle(SUFFIX)
        content = read_fairseq(file)
        options = training_options(content, file)
        config = network_config(options, file)
        files = find_dictionaries(checkpoint.folder, options, source_lang, target_lang)
        tokenizer = PieceTokenizer(*map(SymbolDictionary.read, files))
        tensors = model_tensors(content, ema, file)
        config |= _sizes(tensors, file) | _final_norms(tensors, config)
        weights = network_tensors(tensors)
        if config["diffusion_type"].endswith("multinomial"):
            weights["vocab_log_prob"] = tensors.get(_NOISE_BUFFER, _uniform_noise(config["target_vocabulary"]))
        # the only recipe whose network saw times in [0, 1]
        trained_on = "unit" if options.get("time_sampler_type") == "continuous" else "dndm"
        return build_model(lambda: cls(config, tokenizer, network_times or trained_on), file, weights, file)

    def _config(self) -> dict[str, Any]:
        return {"model_type": MODEL_TYPE, **self.config, "network_times": self.network_times}

    def save_pretrained(
        self, save_directory: str | os.PathLike, safe_serialization: bool = True, variant: str | None = None
    ) -> None:
        """Saves `config.json`, `model.safetensors` and the two dictionaries."""
        super().save_pretrained(save_directory, safe_serialization, variant)
        assert self.tokenizer is not None
        self.tokenizer.save_pretrained(save_directory)

    def _set_tokenizer(self, folder: Path) -> None:
        pass  # it came with the model


def _is_fairseq(file: Path) -> bool:
    """Whether a pickle without dictionaries is of this family, so that they can be asked for."""
    try:
        options = training_options(read_fairseq(file), file)
    except (OSError, ValueError):
        return False
    return "diffusion_type" in options


def _sizes(tensors: Mapping[str, torch.Tensor], file: Path) -> dict[str, int]:
    """The sizes that no option tells."""
    names = {
        "source_vocabulary": "encoder.embed_tokens.weight",
        "target_vocabulary": "decoder.embed_tokens.weight",
        "length_classes": "decoder.embed_length.weight",
    }
    for name in names.values():
        if name not in tensors or tensors[name].ndim != 2:
            raise ValueError(f"{file} lacks a matrix {name}.")
    return {key: len(tensors[name]) for key, name in names.items()}


def _final_norms(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> dict[str, bool]:
    """Whether a norm follows the layers of a side that normalises before each branch; old formats had none."""
    wanted = not config["no_decoder_final_norm"]
    return {
        "encoder_final_norm": version_of(tensors, "encoder") >= 2,
        "decoder_final_norm": version_of(tensors, "decoder") > 2 and wanted,
    }


def _uniform_noise(vocabulary: int) -> torch.Tensor:
    """The log-probabilities of noise that is uniform on all but `<s>`, `<pad>` and `</s>`, as the authors make it."""
    weight = torch.ones(vocabulary)
    weight[[BOS, PAD, EOS]] = 1e-30
    return (weight.log() / 1.5).log_softmax(-1)


def _check_vocabularies(config: Mapping[str, Any], tokenizer: PieceTokenizer) -> None:
    for key, dictionary, file in (
        ("source_vocabulary", tokenizer.source, SOURCE_FILE),
        ("target_vocabulary", tokenizer.target, TARGET_FILE),
    ):
        if config.get(key) != len(dictionary):
            raise ValueError(
                f"the model's '{key}' is {config.get(key)}, but the dictionary ({file}) has {len(dictionary)} symbols,"
                " four special ones included: it belongs to another model."
            )
    if config["share_all_embeddings"] and config["source_vocabulary"] != config["target_vocabulary"]:
        raise ValueError("'share_all_embeddings' needs a joined dictionary.")
