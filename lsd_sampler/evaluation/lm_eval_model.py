"""A model of lm-evaluation-harness: `lm_eval --model lsd_sampler --model_args pretrained=llada-8b,block_length=32`."""

import functools
import inspect
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from tqdm import tqdm

from ..denoisers.canvas_input import positive_integer
from ..denoisers.prompts import PromptOptions
from ..pipeline_masked_diffusion import MaskedDiffusionPipeline
from ..sampling.draws import row_generators
from ..sampling.pipeline_runs import scheduler_in_place
from ..scheduling_lsd import LSDScheduler
from ..support.validation import check_choice, did_you_mean
from .masked_likelihood import likelihood_windows, log_likelihood


logger = logging.getLogger(__name__)

_OF_REQUESTS = ("until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k")
DTYPES = ("float32", "bfloat16", "float16")
_LIKELIHOOD_STREAM = 1


class LSDSamplerLM(TemplateLM):
    """Answers the requests of lm-evaluation-harness with [`~lsd_sampler.MaskedDiffusionPipeline`].

    Texts are generated block by block, up to the first of a request's stop strings. Likelihoods are LLaDA's
    Monte-Carlo estimate, see [`~lsd_sampler.evaluation.masked_likelihood.log_likelihood`].

    Args:
        pretrained (`str`): what `MaskedDiffusionPipeline.from_pretrained` takes.
        sampler (`str`, *optional*): folder or Hub id of a learned sampler; default: the plain base solver.
        nfe (`int`, *optional*): network calls for each block; default: the largest number that the sampler learned, or
            one for each token.
        max_new_tokens (`int`): tokens of an answer, where the task does not say `max_gen_toks`.
        block_length (`int`, *optional*), cache (`str`), guidance_scale (`float`, *optional*): as for the pipeline.
        eos_early_stop (`bool`): as for the pipeline; without effect where nothing is known to end a text.
        mc_num (`int`): draws of a likelihood.
        check_greedy (`bool`): whether requests of likelihoods are told if the text is what greedy decoding gives, one
            token a call. Costs as many calls as the text has tokens; without it the answer is no.
        add_bos_token (`bool`): whether the tokenizer's beginning-of-text token precedes each context.
        seed (`int`): request i has noise of its own, whatever the batch.
        batch_size (`int`): answers, or draws of a likelihood, in a network call.
        device, dtype, revision, trust_remote_code, mask_token_id (*optional*): as for `load_denoiser`.
        scheduler_options: arguments of `LSDScheduler`, such as `solver=fast_dllm_threshold`.

    Raises:
        ValueError: for an unknown option, or a model without a tokenizer.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        sampler: str | None = None,
        nfe: int | None = None,
        max_new_tokens: int = 256,
        block_length: int | None = None,
        cache: str = "none",
        eos_early_stop: bool = True,
        guidance_scale: float | None = None,
        mc_num: int = 128,
        check_greedy: bool = True,
        add_bos_token: bool = False,
        seed: int = 0,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        mask_token_id: int | None = None,
        **scheduler_options: Any,
    ):
        super().__init__()
        _check_one_process()
        _check_options(scheduler_options)
        self.batch_size = _batch_size(batch_size)
        self.nfe = None if nfe is None else positive_integer("nfe", nfe)
        self.max_new_tokens = positive_integer("max_new_tokens", max_new_tokens)
        self.mc_num, self.check_greedy = positive_integer("mc_num", mc_num), check_greedy
        self.seed, self.add_bos_token, self.name = seed, add_bos_token, pretrained
        load: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code or None}
        load |= {"mask_token_id": mask_token_id, "dtype": _dtype(dtype)}
        load = {key: value for key, value in load.items() if value is not None}
        self.pipeline: Any = MaskedDiffusionPipeline.from_pretrained(pretrained, **load)
        self.pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.pipeline.set_progress_bar_config(disable=True)
        self.tokenizer = self.pipeline.tokenizer
        if self.tokenizer is None:
            raise ValueError(f"`pretrained` {pretrained!r} has no tokenizer, and the harness asks with texts.")
        self._device = self.pipeline.device
        self._set_scheduler(sampler, scheduler_options)
        self.answer_options = {"block_length": block_length, "cache": cache, "guidance_scale": guidance_scale}
        self.eos_early_stop, self.guidance_scale = eos_early_stop, guidance_scale or 0.0

    def _set_scheduler(self, sampler: str | None, options: dict[str, Any]) -> None:
        if sampler is not None:
            self.pipeline.scheduler = LSDScheduler.from_pretrained(sampler, **options)
        elif options:
            self.pipeline.scheduler = LSDScheduler(**{**self.pipeline.denoiser.scheduler_config(), **options})

    # ---- texts ----

    @property
    def tokenizer_name(self) -> str:
        """What the harness knows its caches by."""
        return self.name.replace("/", "__")

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text, or that pads one where there is none."""
        return next(iter(self._endings()), 0)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids of a text as they stand. A chat template has written what special tokens there are."""
        return self.tokenizer(string, add_special_tokens=False, verbose=False)["input_ids"]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a conversation, by the tokenizer's chat template."""
        if getattr(self.tokenizer, "chat_template", None) is None:
            raise ValueError(f"`--apply_chat_template`: the tokenizer of {self.name!r} has no chat template.")
        ends = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        return self.tokenizer.apply_chat_template(chat_history, tokenize=False, **ends)

    def _context(self, text: str) -> list[int]:
        """Token ids of a context."""
        begins: Any = getattr(self.tokenizer, "bos_token_id", None)
        if self.add_bos_token and begins is None:
            raise ValueError(f"`add_bos_token`: the tokenizer of {self.name!r} has no such token.")
        ids = self.tok_encode(text)
        return [begins, *ids] if self.add_bos_token and ids[:1] != [begins] else ids

    def _endings(self) -> list[int]:
        return PromptOptions().endings(self.pipeline.denoiser, self.tokenizer)

    # ---- answers ----

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answer to each `(context, options)`: up to the first stop string, without special tokens."""
        asked = [(context, normalize_gen_kwargs(options, self.max_new_tokens)) for context, options in _args(requests)]
        answers: dict[int, str] = {}
        with tqdm(total=len(asked), disable=disable_tqdm, desc="generate_until") as bar:
            for batch in _alike([options for _, options in asked], self.batch_size):
                made = self._answer([asked[i][0] for i in batch], asked[batch[0]][1], batch)
                answers |= dict(zip(batch, made, strict=True))
                for i in batch:
                    self.cache_hook.add_partial("generate_until", requests[i].args, answers[i])
                bar.update(len(batch))
        return [answers[i] for i in range(len(asked))]

    def _answer(self, contexts: Sequence[str], options: Mapping[str, Any], numbers: Sequence[int]) -> list[str]:
        """The answers to some contexts, whose noise goes by their numbers."""
        _note_ignored(options)
        num = options["max_gen_toks"]
        stops = handle_stop_sequences(list(options["until"]), eos=None)
        endings = sorted({*self._endings(), *self._as_endings(stops)})
        call: dict[str, Any] = {
            "prompt": [self._shortened(self._context(context), num) for context in contexts],
            "max_new_tokens": num, "temperature": options.get("temperature", 1.0 if options["do_sample"] else 0.0),
            "eos_token_id": endings or None, "eos_early_stop": self.eos_early_stop and bool(endings),
            **self.answer_options, **{key: options[key] for key in ("top_p", "top_k") if key in options},
        }  # fmt: skip
        if self.nfe is not None:
            call["num_inference_steps"] = self.nfe * self.pipeline.number_of_blocks(call)
        texts = self.pipeline(**call, generator=row_generators(self.seed, numbers)).texts
        return [_before(text, stops) for text in texts]

    def _as_endings(self, stops: Iterable[str]) -> list[int]:
        """Stop strings that are special tokens: the texts of answers do not show them."""
        special = {*self.tokenizer.all_special_ids}
        encoded = [self.tok_encode(stop) for stop in stops if stop]
        own = self.pipeline.denoiser.mask_token_id
        return [ids[0] for ids in encoded if len(ids) == 1 and ids[0] in special - {own, self.tokenizer.unk_token_id}]

    def _shortened(self, context: list[int], num_new: int) -> list[int]:
        """The end of a context for which there is room."""
        room = self.pipeline.denoiser.length - num_new
        if room < 1:
            raise ValueError(
                f"`max_gen_toks` {num_new} leaves no room for a context in {self.pipeline.denoiser.length} tokens, the"
                " model's length: give `--gen_kwargs max_gen_toks=...`."
            )
        if len(context) > room:
            logger.warning("A context of %d tokens is cut to the last %d, which have room.", len(context), room)
        return context[-room:]

    # ---- likelihoods ----

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """`log p(continuation | context)` in nats, and whether greedy decoding gives it."""
        found = []
        for i, (context, continuation) in enumerate(tqdm(_args(requests), disable=disable_tqdm, desc="loglikelihood")):
            given, text = self._pair(context, continuation)
            value = self._log_likelihood(given, text, i)
            found.append((value, self.check_greedy and self._is_greedy(given, text)))
            self.cache_hook.add_partial("loglikelihood", (context, continuation), found[-1])
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """`log p(text)` in nats, of windows of the model's length, each by itself."""
        found = []
        for i, (text,) in enumerate(tqdm(_args(requests), disable=disable_tqdm, desc="loglikelihood_rolling")):
            begins, ids = self._context(""), torch.tensor(self.tok_encode(text), dtype=torch.int64)
            windows = likelihood_windows(len(ids), self.pipeline.denoiser.length - len(begins))
            parts = [ids[window].tolist() for window in windows]
            found.append(sum(self._log_likelihood(begins, part, i, k) for k, part in enumerate(parts)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        raise NotImplementedError("Likelihoods are asked for by `loglikelihood`.")

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both, cut where the context ends, and shortened on the left to the model's length."""
        given, text = self._encode_pair(context, continuation) if context else ([], self.tok_encode(continuation))
        given = self._context("") + given
        return self._shortened(given, len(text)) if given else given, text

    def _log_likelihood(self, given: list[int], text: list[int], *number: int) -> float:
        (generator,) = row_generators(self.seed, number[:1], _LIKELIHOOD_STREAM, *number[1:])
        both = (torch.tensor(ids, dtype=torch.int64) for ids in (given, text))
        options: dict[str, Any] = {"num_draws": self.mc_num, "batch_size": self.batch_size}
        return log_likelihood(
            self.pipeline.denoiser, *both, guidance_scale=self.guidance_scale, generator=generator, **options
        )

    def _is_greedy(self, given: list[int], text: list[int]) -> bool:
        """Whether the surest token of all, one a call, always is the text's (LLaDA's evaluation)."""
        config = {"order": "confidence", "confidence_temperature": 0.0, "count": "llada"}
        surest = LSDScheduler(**{**self.pipeline.denoiser.scheduler_config(), **config})
        call: dict[str, Any] = {"max_new_tokens": len(text), "temperature": 0.0}
        call["guidance_scale"] = self.guidance_scale or None
        with scheduler_in_place(self.pipeline, surest):
            made = self.pipeline(prompt=[given], output_type="ids", num_inference_steps=len(text), **call)
        return made.sequences[0, len(given) :].tolist() == text


def _args(requests: Sequence[Instance]) -> list[tuple[Any, ...]]:
    return [request.args for request in requests]


def _alike(options: Sequence[Mapping[str, Any]], size: int) -> list[list[int]]:
    """Numbers of requests with the same options, at most `size` at a time."""
    groups: dict[str, list[int]] = {}
    for i, each in enumerate(options):
        groups.setdefault(json.dumps(each, sort_keys=True, default=str), []).append(i)
    return [group[first : first + size] for group in groups.values() for first in range(0, len(group), size)]


def _before(text: str, stops: Iterable[str]) -> str:
    """What precedes the first of the stop strings."""
    return text[: min((at for stop in stops if stop and (at := text.find(stop)) >= 0), default=len(text))]


@functools.cache
def _note(names: tuple[str, ...]) -> None:
    logger.warning("Options of requests that have no effect here: %s.", ", ".join(names))


def _note_ignored(options: Mapping[str, Any]) -> None:
    if names := tuple(sorted(set(options) - {*_OF_REQUESTS})):
        _note(names)


def _batch_size(value: int | str) -> int:
    if not str(value).isdigit():
        raise ValueError(f"`--batch_size` must be a number, got {value!r}: what fits is not found out here.")
    return positive_integer("batch_size", int(value))


def _dtype(name: str | None) -> torch.dtype | None:
    if name in (None, "auto"):
        return None
    check_choice("dtype", name, DTYPES)
    return getattr(torch, str(name))


def _check_options(options: Mapping[str, Any]) -> None:
    known = set(inspect.signature(LSDScheduler.__init__).parameters) - {"self"}
    own = set(inspect.signature(LSDSamplerLM.__init__).parameters) - {"self", "scheduler_options"}
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known | own)
            raise ValueError(f"`--model_args`: unknown option {name!r}; there are {sorted(own | known)}.{hint}")


def _check_one_process() -> None:
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ValueError("`--model lsd_sampler` runs in one process: start `lm_eval` without `accelerate launch`.")
