"""Text (or token) generation with any denoiser and any scheduler of this library."""

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput

from .denoisers.auto import find_checkpoint, load_denoiser
from .denoisers.base import Denoiser
from .denoisers.block_generation import BlockGeneration, steps_of_blocks
from .denoisers.block_prediction import BlockPredictor
from .denoisers.call_arguments import (
    check_number_of_generators,
    check_scheduler,
    conditioning_of,
    position_noise,
    refuse,
    refuse_with_prompt,
    step_arguments,
)
from .denoisers.call_questions import CallQuestions
from .denoisers.canvas_input import Conversation, TokenIds, positive_integer
from .denoisers.files import PIPELINE_NAME
from .denoisers.oracle_names import is_oracle_spec
from .denoisers.prediction import Predictor
from .denoisers.prompts import PromptOptions, Prompts, answers, padding_token, read_prompts
from .denoisers.tokenizer_files import check_tokenizer_files
from .denoisers.translation import TranslationDenoiser
from .denoisers.translation_canvases import read_sources
from .denoisers.translation_generation import TranslationRun, beam_of
from .denoisers.vocabulary import ids_without_token
from .sampling.draws import Generators
from .sampling.pipeline_callbacks import Callbacks
from .scheduling_lsd import LSDScheduler
from .support.validation import check_choice, check_number


logger = logging.getLogger(__name__)

DEFAULT_STEPS = 64


@dataclass
class MaskedDiffusionPipelineOutput(BaseOutput):
    """Output of [`MaskedDiffusionPipeline`].

    Args:
        texts (`list[str]`, *optional*): decoded samples; None without a tokenizer, or when ids were asked for. After a
            prompt: the answers alone, without special tokens, up to the first token that ends a text.
        sequences (`torch.LongTensor` of shape `(batch_size, length)`): token ids, prefix and suffix included. After a
            prompt: padding on the left, prompt, and `max_new_tokens` new tokens.
        network_calls (`int`, *optional*): calls that were made; fewer than steps where a time-free denoiser had
            predicted for the same tokens before.
        sequence_calls (`torch.LongTensor` of shape `(batch_size,)`, *optional*): calls that each sample was part of.
        scores (`torch.FloatTensor` of shape `(batch_size,)`, *optional*): of translations: mean natural
            log-probability of the tokens, `<s>` and `</s>` counted with 0.
    """

    texts: list[str] | None
    sequences: torch.Tensor
    network_calls: int | None = None
    sequence_calls: torch.Tensor | None = None
    scores: torch.Tensor | None = None


class MaskedDiffusionPipeline(CallQuestions, DiffusionPipeline):
    r"""
    Generates sequences with a masked diffusion model: from nothing, from a prefix and suffix, by filling in masks, or
    as answers to prompts, block by block.

    Time runs from `t = 1` (all masked) to `t = 0` (data). The scheduler decides at which times the denoiser is called.
    One scheduled step is one call.

    Args:
        denoiser ([`~lsd_sampler.denoisers.Denoiser`]): predicts the clean tokens.
        scheduler ([`LSDScheduler`]): reveals tokens step by step.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): needed for texts only.
    """

    model_cpu_offload_seq = "denoiser"
    _interrupt = False
    _optional_components = ["tokenizer"]
    _callback_tensor_inputs = ["sample"]

    denoiser: Denoiser
    scheduler: Any
    tokenizer: Any | None

    def __init__(self, denoiser: Denoiser, scheduler: SchedulerMixin, tokenizer: Any | None = None):
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler, tokenizer=tokenizer)
        self._without_token: tuple[Any, Any, list[int]] = (None, None, [])

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        r"""
        Loads a saved pipeline, or puts one together around a raw research checkpoint.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): a saved pipeline (folder or Hub id), or a name that
                [`load_denoiser`] takes: a raw checkpoint, a short name such as `radd`, an oracle such as `countdown`.
                The scheduler is then the plain base solver that fits the denoiser.
            scheduler, tokenizer, denoiser (*optional*): replace the loaded component.
            dtype (`torch.dtype`, *optional*): precision of the denoiser; `torch_dtype` is the same.
            revision, subfolder, token, cache_dir, local_files_only, force_download (*optional*): where and how to look
                on the Hub.
            kwargs: further options, as in diffusers for a saved pipeline, and as for [`load_denoiser`] otherwise.

        Raises:
            OSError: if a folder, file or repository is missing or out of reach.
            ValueError: for an unknown name or a damaged file.
            TypeError: for an option that the denoiser's family does not have.
        """
        name = os.fspath(pretrained_model_name_or_path)
        hub_names = ("revision", "subfolder", "token", "cache_dir", "local_files_only", "force_download")
        hub_kwargs = {key: kwargs.pop(key) for key in hub_names if kwargs.get(key) is not None}
        if is_oracle_spec(name):
            return cls._from_denoiser(name, None, kwargs)
        # fetched here, because diffusers itself would fetch only some files of a pipeline with a learned scheduler
        wanted = {"weight_name": kwargs.get("weight_name"), "trust_remote_code": bool(kwargs.get("trust_remote_code"))}
        location, checkpoint = find_checkpoint(name, **wanted, **hub_kwargs)
        if PIPELINE_NAME not in checkpoint.names:
            return cls._from_denoiser(location, checkpoint.folder / (checkpoint.file or ""), kwargs)
        check_tokenizer_files(checkpoint.folder / "tokenizer")
        pipeline = super().from_pretrained(str(checkpoint.folder), **kwargs)
        pipeline.register_to_config(_name_or_path=name)
        return pipeline

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Saves the pipeline, as diffusers does. A `~` is the home folder, as for `from_pretrained`."""
        super().save_pretrained(os.path.expanduser(save_directory), *args, **kwargs)

    @classmethod
    def _from_denoiser(cls, name: str, path: Path | None, kwargs: dict[str, Any]) -> Self:
        denoiser, scheduler = kwargs.pop("denoiser", None), kwargs.pop("scheduler", None)
        own = {"tokenizer": kwargs.pop("tokenizer")} if "tokenizer" in kwargs else {}
        if denoiser is None:
            kwargs.setdefault("dtype", kwargs.pop("torch_dtype", None))
            denoiser = load_denoiser(path or name, **kwargs)
            denoiser.name_or_path = name
        scheduler = scheduler or LSDScheduler(**denoiser.scheduler_config())
        pipeline = cls(denoiser, scheduler, **{"tokenizer": denoiser.tokenizer, **own})
        pipeline.register_to_config(_name_or_path=name)
        return pipeline

    @torch.no_grad()
    def __call__(
        self,
        prefix: str | Sequence[str] | TokenIds | None = None,
        suffix: str | Sequence[str] | TokenIds | None = None,
        input_ids: TokenIds | Sequence[Sequence[int]] | None = None,
        *,
        prompt: Prompts | None = None,
        messages: Conversation | Sequence[Conversation] | None = None,
        attention_mask: Any = None,
        max_new_tokens: int | None = None,
        block_length: int | None = None,
        cache: str = "none",
        eos_early_stop: bool = False,
        eos_token_id: int | Sequence[int] | None = None,
        length_beam: int | None = None,
        beam_within_length: int | None = None,
        return_all_candidates: bool = False,
        length: int | None = None,
        num_samples: int = 1,
        num_inference_steps: int | None = None,
        temperature: float = 1.0,
        top_p: float | None = None,
        top_k: int | None = None,
        alg_temp: float | None = None,
        class_labels: int | TokenIds | None = None,
        guidance_scale: float | None = None,
        generator: Generators = None,
        output_type: str = "text",
        callback_on_step_end: Callable[[Any, int, torch.Tensor, dict[str, Any]], dict[str, Any] | None] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = ("sample",),
        callback_on_block_end: Callable[[Any, int, dict[str, Any]], None] | None = None,
        return_dict: bool = True,
    ) -> MaskedDiffusionPipelineOutput | tuple[list[str] | None, torch.Tensor]:
        r"""
        Generates sequences: canvases that are filled in, or answers to prompts. Tokens that are given are never
        changed.

        With `prompt` or `messages`, `max_new_tokens` masks follow the prompt. They are filled in block by block, from
        left to right. The network sees all blocks, the later ones as masks (as in LLaDA's code). The scheduler sees
        one block at a time, so that its schedule, order and counts hold within the block. Prompts of a batch may have
        different lengths. Each sample is the same as if its prompt were alone, with its own generator.

        Args:
            prefix, suffix (`str`, or token ids of shape `(n,)`, *optional*): how each sample begins and ends. With a
                list of texts, each has a canvas of its own.
            input_ids (token ids of shape `(length,)` or `(batch_size, length)`, *optional*): canvases in which mask
                ids (-1 where noise does not mask) are to be filled in; excludes `prefix` and `suffix`. They may hold
                the tokens that the denoiser puts around a canvas (`[CLS]` ... `[SEP]`, as from a tokenizer): these are
                not put there again.
            prompt (`str`, token ids of shape `(n,)`, or a list of either, *optional*): what the answers follow. A list
                of messages, or of such lists, is the same as `messages`.
            messages (`list[dict[str, str]]`, or a list of them, *optional*): conversations, which the tokenizer's chat
                template turns into prompts.
            attention_mask (of shape `(batch_size, n)`, *optional*): 0 where token ids given as `prompt` are padding.
            max_new_tokens (`int`, *optional*): tokens to generate after a prompt; default: 128, or as many as the
                denoiser has room for.
            block_length (`int`, *optional*): tokens of a block; the last block may be shorter. Default: one block.
            cache (`str`, defaults to `"none"`): `"prefix"` computes keys and values of what precedes a block only in
                the block's first call; `"dual"` also those of what follows it (Fast-dLLM,
                https://huggingface.co/papers/2505.22618). In models whose logits are shifted (Dream), the first call
                of a block then reveals its first token alone.
            eos_early_stop (`bool`, defaults to `False`): whether a sample is finished as soon as it holds an
                end-of-text token and no mask before it. The rest of it is filled with that token.
            eos_token_id (`int`, or a list of them, *optional*): tokens that end a text; default: those of the
                tokenizer and of the denoiser's config.
            length_beam, beam_within_length (`int`, *optional*): of a model that translates its `prompt`: how many
                lengths are tried around the predicted one (default: 5, or 1 while a sampler is distilled), and how
                often each (default: 1). The candidate with the highest score is returned.
            return_all_candidates (`bool`, defaults to `False`): whether to return all of them, prompt by prompt.
            length (`int`, *optional*): tokens per sample, prefix and suffix included; default: that of `input_ids`,
                or else the denoiser's. For translations: columns of the canvases, padding included; default: as many
                as the longest needs.
            num_samples (`int`): number of samples for each canvas; those of one canvas follow each other.
            num_inference_steps (`int`, *optional*): number of steps, that is, of calls of the denoiser (or fewer: see
                the output's `network_calls`); default: the largest number that the scheduler learned, or 64 if it can
                do any. With a prompt it is the number for all blocks together, as in LLaDA's code. They have equal
                shares, the first ones one more if need be. Default: as many as were learned, in each block, or one a
                token.
            temperature (`float`): temperature of the token draws; 0 takes the most likely token.
            top_p, top_k (*optional*): draw from the most likely tokens only; see [`LSDScheduler.step`].
            alg_temp (`float`, *optional*): Gumbel noise of orders that look at the logits, the same in all steps
                (Dream's `alg_temp`); default: the scheduler's.
            class_labels (`int`, or `torch.LongTensor` of shape `(batch_size,)`, *optional*): classes, for
                class-conditional denoisers.
            guidance_scale (`float`, *optional*): strength of classifier-free guidance, where the denoiser has it. With
                a prompt: LLaDA's `cfg_scale`, by a second canvas whose prompt is masked; 0 for none.
            generator (`torch.Generator`, or a list of one per sample, *optional*): makes the samples reproducible.
            output_type (`str`): `"text"` (texts too, if there is a tokenizer) or `"ids"`.
            callback_on_step_end (`Callable`, *optional*): called as `callback(pipeline, step, timestep,
                {"sample": x})` after each step; may return a dict with a changed `sample`. A frame that `input_ids`
                hold is not part of it.
            callback_on_step_end_tensor_inputs (`list[str]`, *optional*): the tensors that the callback gets; only
                `"sample"` exists, and None is none. As in diffusers, a callback that sets `pipeline._interrupt = True`
                stops the generation. Masks that are left then stay.
            callback_on_block_end (`Callable`, *optional*): called as `callback(pipeline, block, {"sample": x,
                "block_tokens": y})` when a block of all samples is complete, with the canvases and the block's tokens.
            return_dict (`bool`): whether to return [`MaskedDiffusionPipelineOutput`] or a tuple `(texts, sequences)`.

        Raises:
            ValueError: for arguments that are out of range or exclude each other.
        """
        check_choice("output_type", output_type, ("text", "ids"))
        num_samples = positive_integer("num_samples", num_samples)
        callbacks = Callbacks(self, callback_on_step_end, callback_on_step_end_tensor_inputs, callback_on_block_end)
        check_scheduler(self.scheduler, self.denoiser)
        call = _Call(
            num_inference_steps,
            guidance_scale,
            step_arguments(self.scheduler, temperature, generator, top_p, top_k),
            {"device": self._execution_device, **position_noise(self.scheduler, alg_temp)},
            callbacks,
            self.tokenizer if output_type == "text" else None,
        )
        options = PromptOptions(max_new_tokens, block_length, cache, eos_early_stop, eos_token_id)
        beam = {"length_beam": length_beam, "beam_within_length": beam_within_length}
        if isinstance(self.denoiser, TranslationDenoiser):
            others = {"messages": messages, "prefix": prefix, "suffix": suffix, "input_ids": input_ids,
                      "class_labels": class_labels, "guidance_scale": guidance_scale, **options.given(),
                      "attention_mask": attention_mask, "callback_on_block_end": callback_on_block_end}  # fmt: skip
            if prompt is None:
                raise ValueError("This model translates: give the texts to translate as `prompt`.")
            refuse("has no meaning for a model that translates its `prompt`", **others)
            sources = [ids for ids in read_sources(prompt, self.denoiser) for _ in range(num_samples)]
            check_number_of_generators(generator, len(sources))
            run = TranslationRun(
                self.denoiser, self.scheduler, sources, beam_of(self.scheduler, **beam), length, generator,
                self._execution_device,
            )  # fmt: skip
            out = self._translate(run, return_all_candidates, call)
            self.maybe_free_model_hooks()
            return out if return_dict else (out.texts, out.sequences)
        beam |= {"return_all_candidates": return_all_candidates or None}
        refuse("goes with a model that translates its `prompt`", **beam)
        if prompt is None and messages is None:
            options.check_unused(attention_mask=attention_mask, callback_on_block_end=callback_on_block_end)
            canvas = self._input.canvas(prefix, suffix, input_ids, length).repeat_interleave(num_samples, dim=0)
            check_number_of_generators(generator, len(canvas))
            out = self._fill_in(canvas, class_labels, call)
        else:
            others = {"prefix": prefix, "suffix": suffix, "input_ids": input_ids, "length": length}
            refuse_with_prompt(**others, class_labels=class_labels)
            prompts = read_prompts(self._input, prompt, messages, attention_mask)
            prompts = [ids for ids in prompts for _ in range(num_samples)]
            check_number_of_generators(generator, len(prompts))
            out = self._answer(prompts, options, call)
        self.maybe_free_model_hooks()
        return out if return_dict else (out.texts, out.sequences)

    def _fill_in(self, canvas: torch.Tensor, class_labels: Any, call: "_Call") -> MaskedDiffusionPipelineOutput:
        """Fills in the holes of canvases, all at a time."""
        begins, canvas, ends = self._input.framed(canvas)
        device = self._execution_device
        canvas = canvas.to(device)
        given_BL = canvas != self.denoiser.hole_id
        conditioning = conditioning_of(self.denoiser, class_labels, call.guidance_scale, len(canvas), device)
        predictor = Predictor(self.denoiser, self.scheduler, conditioning, self._ids_without_token())
        self.scheduler.set_timesteps(self._num_steps(call.num_inference_steps), **call.timesteps_kwargs)
        masks, generator = self.denoiser.mask_token_id is not None, call.step_kwargs.get("generator")
        sample = canvas if masks else self._noise(canvas, given_BL, generator)
        # a template without holes asks for nothing
        timesteps = [] if bool(given_BL.all()) else self.scheduler.timesteps
        self._interrupt = False
        with self.progress_bar(total=len(timesteps)) as progress_bar:  # pyright: ignore[reportCallIssue]
            for t in timesteps:
                if self.interrupt:
                    break
                model_output = predictor(sample, t)
                seen = {} if predictor.shadow is None else {"shadow_output": predictor.shadow}
                shaped = self._shaped(sample)
                stepped = self.scheduler.step(model_output, t, shaped, **seen, **call.step_kwargs).prev_sample
                sample = call.callbacks.on_step(t, torch.where(given_BL, canvas, stepped.flatten(1)))
                progress_bar.update()
        sample = torch.cat([begins.to(device), sample, ends.to(device)], dim=1)
        texts = None if call.tokenizer is None else call.tokenizer.batch_decode(sample.tolist())
        return MaskedDiffusionPipelineOutput(texts, sample, predictor.passes, predictor.calls_B)

    def _answer(
        self, prompts: list[torch.Tensor], options: PromptOptions, call: "_Call"
    ) -> MaskedDiffusionPipelineOutput:
        """Generates what follows prompts, block by block."""
        check_number("guidance_scale", call.guidance_scale, optional=True)
        endings = options.endings(self.denoiser, self.tokenizer)
        padded = options.padded(prompts, self.denoiser, padding_token(endings, self.denoiser, self.tokenizer))
        blocks = padded.blocks(options.block_length)
        predictor = BlockPredictor(
            self.denoiser, self.scheduler, padded, guidance_scale=call.guidance_scale or 0.0, cache=options.cache,
            excluded=self._ids_without_token(), device=self._execution_device,
        )  # fmt: skip
        asked = call.num_inference_steps
        asked = None if asked is None else positive_integer("num_inference_steps", asked)
        steps = steps_of_blocks(asked, blocks, self._most_learned_steps())
        generation = BlockGeneration(
            self.scheduler, predictor, padded, [*zip(blocks, steps, strict=True)], self.denoiser.hole_id,
            call.step_kwargs, call.timesteps_kwargs, endings if options.eos_early_stop else (),
        )  # fmt: skip
        self._interrupt = False
        with self.progress_bar(total=sum(steps)) as progress_bar:  # pyright: ignore[reportCallIssue]

            def after_step(t: torch.Tensor) -> bool:
                generation.sample = call.callbacks.on_step(t, generation.sample)
                progress_bar.update()
                return not self.interrupt

            def after_block(block: slice) -> bool:
                call.callbacks.on_block(generation.sample, block)
                return not self.interrupt

            generation.run(after_step, after_block)
        new_BG = generation.sample[:, padded.start :]
        texts = None if call.tokenizer is None else answers(call.tokenizer, new_BG, endings)
        return MaskedDiffusionPipelineOutput(texts, generation.sample, predictor.passes, predictor.calls_B)

    def _translate(
        self, run: TranslationRun, return_all_candidates: bool, call: "_Call"
    ) -> MaskedDiffusionPipelineOutput:
        """Translates sources."""
        by_default = getattr(self.scheduler.config, "training_steps", None)
        steps = self._num_steps(by_default if call.num_inference_steps is None else call.num_inference_steps)
        self._interrupt = False
        with self.progress_bar(total=steps) as progress_bar:  # pyright: ignore[reportCallIssue]

            def after_step(t: torch.Tensor, sample: torch.Tensor) -> tuple[torch.Tensor, bool]:
                progress_bar.update()
                return call.callbacks.on_step(t, sample), not self.interrupt

            found = run.run(steps, after_step, call.timesteps_kwargs, call.step_kwargs)
        found = found if return_all_candidates else run.best(found)
        texts = None if call.tokenizer is None else call.tokenizer.batch_decode(found.canvases.tolist())
        return MaskedDiffusionPipelineOutput(
            texts, found.canvases, found.network_calls, found.sequence_calls, found.scores
        )

    @property
    def interrupt(self) -> bool:
        """Whether the generation will stop before its next step. A callback sets `_interrupt`, as in diffusers."""
        return self._interrupt

    def _ids_without_token(self) -> list[int]:
        """Ids of the denoiser for which the tokenizer has no token. They are never drawn, because no text can be made
        of them. Ids that the denoiser itself does not predict are not among them.
        """
        denoiser, tokenizer, ids = self._without_token
        if denoiser is not self.denoiser or tokenizer is not self.tokenizer:
            excluded = {self.denoiser.mask_token_id, *getattr(self.denoiser, "excluded_token_ids", ())}
            # noise that does not mask draws among all of them
            num_ids = 0 if self.denoiser.mask_token_id is None else self.denoiser.vocab_size + 1
            ids = [i for i in ids_without_token(self.tokenizer, num_ids) if i not in excluded]
            if ids:
                num = f"{len(ids)} of {self.denoiser.vocab_size} ids"
                logger.warning("%s have no token in the tokenizer, %d the first: they are never drawn.", num, ids[0])
            self._without_token = self.denoiser, self.tokenizer, ids
        return ids

    def _noise(self, canvas: torch.Tensor, given_BL: torch.Tensor, generator: Generators) -> torch.Tensor:
        """Random tokens in the holes."""
        return torch.where(given_BL, canvas, self.scheduler.sample_prior(*canvas.shape, generator, canvas.device))

    def _shaped(self, sample: torch.Tensor) -> torch.Tensor:
        """The canvas as the scheduler takes it: with height and width, if its tokens form an image."""
        shape = getattr(self.denoiser, "canvas_shape", None)
        return sample if shape is None or sample[0].numel() != math.prod(shape) else sample.view(-1, *shape)

    def _num_steps(self, num_inference_steps: int | None) -> int:
        if num_inference_steps is not None:
            return positive_integer("num_inference_steps", num_inference_steps)
        return self._most_learned_steps() or DEFAULT_STEPS

    def _most_learned_steps(self) -> int | None:
        learned = getattr(self.scheduler, "learned_sampler", None)
        return max(learned.steps) if learned is not None and learned.steps else None


@dataclass
class _Call:
    """What a generation is told, whatever it begins with. `tokenizer` is None if no texts are wanted."""

    num_inference_steps: int | None
    guidance_scale: float | None
    step_kwargs: dict[str, Any]
    timesteps_kwargs: dict[str, Any]
    callbacks: Callbacks
    tokenizer: Any | None


# `diffusers.DiffusionPipeline.from_pretrained` looks for a saved pipeline's class in diffusers' own namespace only
if not hasattr(diffusers, MaskedDiffusionPipeline.__name__):
    setattr(diffusers, MaskedDiffusionPipeline.__name__, MaskedDiffusionPipeline)
