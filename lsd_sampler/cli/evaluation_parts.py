"""The parts of an `lsd-eval` run: samplers, metrics, real data, and errors that say what was kept."""

import argparse
import inspect
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..denoisers.auto import find_checkpoint
from ..denoisers.patch_codebook import CODEBOOK_NAME, PatchCodebook
from ..denoisers.vocabulary import token_names
from ..evaluation.embedding import Features, denoiser_features
from ..evaluation.harness import fill_in, floor_row, joined
from ..evaluation.image_classifier import CLASSIFIER_NAME, ImageClassifier
from ..evaluation.image_reference import REFERENCE_NAME, ImageReference
from ..evaluation.judge import JudgeError, JudgeNLL
from ..evaluation.metric_sets import (
    ImageMetrics,
    MetricSet,
    TextMetrics,
    TokenMetrics,
    exact_samples,
    oracle_metrics,
)
from ..evaluation.rows import Row, read_jsonl
from ..sampling.left_out import check_predicted
from ..sampling.pipeline_runs import LABELS, PipelineRuns, entries_of, scheduler_in_place
from ..scheduling_lsd import LSDScheduler
from ..support.workers import Workers
from ..training.recording import TeacherRecorder
from .common import load_sampler
from .texts import cut_texts


BASELINE_FORM = "SOLVER[@OPTION=VALUE,...][:ORDER[:SCHEDULE]]"
_IMAGES_NEEDED = (
    "These samples are tokens of images and are compared as such; FID needs images: decode samples with the model's VQ"
    " decoder, save them, and give their folders to `--images`."
)
_IMAGE_FILES = (CODEBOOK_NAME, CLASSIFIER_NAME, REFERENCE_NAME)
_SCHEDULER_OPTIONS = ("count", "draws", "confidence_temperature", "certainty")  # the others are the solver's
_TEACHER = "teacher, one token a step"
_REAL_IMAGES = "real, by the codebook"
_REAL_SEED = 1_000_000  # of real data and teacher samples: far from the seeds of what is judged
_CANVAS_SEED = 2_000_000  # of what an oracle's `clues` give


def refuse_unused(args: argparse.Namespace, is_oracle: bool) -> None:
    """Refuses flags that an exact oracle has no use for.

    Raises:
        ValueError: if there are any; the message names the flag.
    """
    for name in ("judge", "reference", "features", "mauve") if is_oracle else ():
        if getattr(args, name):
            raise ValueError(f"`--{name}` is of texts: these samples are judged by an exact oracle. Leave it out.")


def baseline(text: str, config: dict[str, Any]) -> LSDScheduler:
    """The plain sampler described by SOLVER[@OPTION=VALUE,...][:ORDER[:SCHEDULE]].

    The options are those of the solver, and some of the scheduler's: `count`, `draws`, `confidence_temperature` and
    `certainty`.

    Args:
        text (`str`): for example `tweedie`, `tweedie:halton:cosine`, `remdm_cap@eta=0.02` or
            `euler@count=bernoulli,draws=float32_eps1e-6`.
        config (`dict`): of the denoiser's scheduler.

    Raises:
        ValueError: if it has another form, or there is no such solver, option, order or schedule.
    """
    first, *rest = text.split(":")
    solver, at, options = first.partition("@")
    if len(rest) > 2 or (at and not options):
        raise ValueError(f"`--baselines` entries have the form {BASELINE_FORM}, got {text!r}.")
    named: dict[str, Any] = {"solver": solver, **dict(zip(("order", "schedule"), rest, strict=False))}
    given = dict(_option(entry, text) for entry in options.split(",")) if options else {}
    named |= {name: given.pop(name) for name in _SCHEDULER_OPTIONS if name in given}
    if given:
        named["solver_options"] = given
    return LSDScheduler(**config, **named)


def make_samplers(args: argparse.Namespace, config: dict[str, Any]) -> dict[str, LSDScheduler]:
    """Name -> sampler, baselines first.

    Raises:
        ValueError: if there is none, if one can do none of `--nfe`, or if one is of a model with another mask.
    """
    samplers = {text: baseline(text, config) for text in args.baselines}
    for name in args.sampler:
        short = Path(os.path.expanduser(name)).resolve().name
        sampler = samplers[name if short in samplers else short] = load_sampler(name)
        _check_mask(args, name, sampler, config["mask_token_id"])
    if not samplers:
        raise ValueError("Nothing to compare: give `--sampler` or `--baselines`.")
    for name, sampler in samplers.items():
        if not any(sampler.can_do(steps) for steps in args.nfe):
            nfe, known = " ".join(map(str, args.nfe)), sampler.available_num_inference_steps
            raise ValueError(f"`--sampler` {name} was made for {known} calls, none of `--nfe` {nfe}: leave it out.")
    return samplers


def make_metrics(
    args: argparse.Namespace, pipeline: Any, canvases: Sequence[torch.Tensor] | None = None
) -> tuple[MetricSet, Row | None]:
    """The metric set that fits the model, and the row of real data of the same size.

    One half of the real data is the reference, and the floor comes from the other. For canvases to fill in, no real
    data are known; the teacher's samples, one token a step, take their place.

    Raises:
        ValueError: if an option does not fit the model, or there is too little real data for `--features`.
        OSError: if the judge, the oracle or the reference cannot be loaded.
    """
    denoiser, oracle = pipeline.denoiser, _oracle(args, pipeline.denoiser)
    if oracle is not None:
        length = args.length or denoiser.length
        if canvases is not None:
            if oracle.clues:
                raise ValueError("`--infill` has canvases of its own: leave the oracle's `clues` out.")
            length = max(map(len, canvases))
        metrics = oracle_metrics(oracle, args.num_samples, length=length, seed=args.seed + _CANVAS_SEED)
        if canvases is not None:
            filled = _teacher_samples(args, pipeline, canvases)[: args.num_samples]
            return metrics, floor_row(metrics, filled, name=_TEACHER)
        real = exact_samples(oracle, metrics, args.num_samples, length, args.seed + _REAL_SEED)
        return metrics, floor_row(metrics, real)
    if denoiser.canvas_shape is not None and canvases is None:
        judged = _image_metrics(args, denoiser)
        if judged is not None:
            return judged
    if denoiser.canvas_shape is not None:
        print(_IMAGES_NEEDED, file=sys.stderr)
    judge = load_judge(args, pipeline.tokenizer)
    real, filled = real_sequences(args, pipeline, canvases), None
    if canvases is not None and args.reference:
        filled = _teacher_samples(args, pipeline, canvases)
    half = len(real) // 2
    if args.features and half < args.num_samples:
        raise ValueError(
            f"`--features` compares with as many real sequences as samples: half of `--reference`"
            f" {str(args.reference)!r} is {half}, fewer than `--num-samples` {args.num_samples}. Give more text, or"
            " take fewer samples."
        )
    never = _never_predicted(args, pipeline, real) if args.reference else []
    embedding: Any = {"features": _features(args, pipeline, judge), "mauve": args.mauve}
    options: dict[str, Any] = {**embedding, "never_predicted": never}
    name = "real data" if args.reference else _TEACHER
    if pipeline.tokenizer is None:
        metrics = TokenMetrics(real[:half], **options)
    else:
        metrics = TextMetrics(pipeline.tokenizer, judge, real[:half], **options)
        name = "real text" if args.reference else name
    if filled is not None:
        num_texts = 0 if pipeline.tokenizer is None else args.num_texts
        return metrics, floor_row(metrics, filled[: args.num_samples], name=_TEACHER, num_texts=num_texts)
    if len(real) - half < args.num_samples:
        print("Too little reference text for a floor of the same size: it is left out.", file=sys.stderr)
        return metrics, None
    num_texts = 0 if pipeline.tokenizer is None else args.num_texts
    return metrics, floor_row(metrics, real[half : half + args.num_samples], name=name, num_texts=num_texts)


def classes_of(denoiser: Any) -> dict[str, Any]:
    """The classes that are asked for, as options of a call: each in turn. None for a model without classes."""
    num_classes = getattr(denoiser, "num_classes", None)
    return {} if num_classes is None else {LABELS: torch.arange(num_classes)}


def check_guidance(args: argparse.Namespace, denoiser: Any) -> None:
    """Refuses guidance that the model does not have, or that cannot be chosen.

    Raises:
        ValueError: naming the flag.
    """
    scales = args.guidance_scale or []
    if scales and not (classes_of(denoiser) and "guidance_scale" in inspect.signature(denoiser.forward).parameters):
        raise ValueError(f"`--guidance-scale`: {args.model} knows no classes to be guided to. Leave it out.")
    if any(not 0 <= scale < math.inf for scale in scales):
        raise ValueError(f"`--guidance-scale` must hold numbers of at least 0, got {' '.join(map(str, scales))}.")
    if len(set(scales)) > 1 and args.frontier:
        raise ValueError("`--frontier` runs along temperatures: give one `--guidance-scale`.")


def _image_metrics(args: argparse.Namespace, denoiser: Any) -> tuple[MetricSet, Row | None] | None:
    """The metrics of images, and real ones, if the model's folder holds a codebook, a judge and a reference.

    Raises:
        ValueError: if a file is damaged or does not fit, or a flag is of texts or tokens.
        OSError: if the folder is out of reach.
    """
    folder = find_checkpoint(args.model, revision=args.revision)[1].folder
    missing = [name for name in _IMAGE_FILES if not (folder / name).exists()]
    if missing:
        if len(missing) < len(_IMAGE_FILES):
            print(f"{folder} lacks {' and '.join(missing)} to judge images by.", file=sys.stderr)
        return None
    for name in ("judge", "reference", "features", "mauve"):
        if getattr(args, name):
            raise ValueError(f"`--{name}`: these samples are judged as images, by {folder / CLASSIFIER_NAME}.")
    codebook = PatchCodebook.from_pretrained(folder).to(args.device)
    classifier = ImageClassifier.from_pretrained(folder).to(args.device)
    reference = ImageReference.from_pretrained(folder)
    _check_images(folder, denoiser, codebook, reference)
    metrics = ImageMetrics(codebook, classifier, reference, labels=classes_of(denoiser).get(LABELS))
    print(f"Judge: {metrics.described_judge}", file=sys.stderr)
    real = reference.sequences[: args.num_samples]
    if len(real) < args.num_samples:
        print(f"{REFERENCE_NAME} holds {len(real)} real images, too few for a row of them.", file=sys.stderr)
        return metrics, None
    return metrics, floor_row(metrics, real, name=_REAL_IMAGES)


def _check_images(folder: Path, denoiser: Any, codebook: PatchCodebook, reference: ImageReference) -> None:
    """Refuses files of another model."""
    if len(codebook.patches) != denoiser.vocab_size:
        sizes = f"{len(codebook.patches)} codes, the model {denoiser.vocab_size}"
        raise ValueError(f"{folder / CODEBOOK_NAME} has {sizes}: it is that of another one.")
    if reference.sequences.shape[1] != denoiser.length:
        sizes = f"{reference.sequences.shape[1]} tokens, the model {denoiser.length}"
        raise ValueError(f"{folder / REFERENCE_NAME} holds images of {sizes}: it is that of another one.")


def _oracle(args: argparse.Namespace, denoiser: Any) -> Any:
    """The exact oracle that samples are judged by: `--oracle`, or the denoiser where it is one; else None.

    Raises:
        ValueError: if `--oracle` is no oracle, or has other tokens or shorter sequences than the model.
        OSError: if it cannot be loaded.
    """
    from ..denoisers import load_denoiser
    from ..denoisers.oracle import Oracle

    oracle = denoiser if args.oracle is None else load_denoiser(args.oracle)
    if args.oracle is None:
        return oracle if isinstance(oracle, Oracle) else None
    if not isinstance(oracle, Oracle):
        raise ValueError(f"`--oracle` {args.oracle!r} is no exact oracle, as `countdown:V=32,L=256` is.")
    length = args.length or denoiser.length
    if oracle.vocab_size != denoiser.vocab_size or oracle.length < length:
        raise ValueError(
            f"`--oracle` {args.oracle!r} has {oracle.vocab_size} tokens and {oracle.length} positions, but"
            f" {args.model} has {denoiser.vocab_size} tokens and {length} positions."
        )
    return oracle


def load_judge(args: argparse.Namespace, tokenizer: Any) -> JudgeNLL | None:
    """The judge, if the flags ask for one.

    Raises:
        ValueError: if the model's samples are not texts.
        OSError: if it cannot be loaded.
    """
    if args.judge is None:
        return None
    if tokenizer is None:
        raise ValueError(f"`--judge`: {args.model} has no tokenizer, so its samples cannot be read as texts.")
    dtype = getattr(torch, args.judge_dtype) if args.judge_dtype else None
    options = {"batch_size": args.judge_batch_size, "stride": args.judge_stride}
    return JudgeNLL.from_pretrained(args.judge, device=args.device, dtype=dtype, **options)


def real_sequences(
    args: argparse.Namespace, pipeline: Any, canvases: Sequence[torch.Tensor] | None = None
) -> torch.Tensor:
    """Real text, cut into windows and shuffled, or else samples of the teacher. `(num, length)`."""
    length = args.length or pipeline.denoiser.length
    if canvases is not None:  # windows as long as a typical canvas
        length = sorted(map(len, canvases))[len(canvases) // 2]
    if args.reference is None:
        print("No `--reference`: the model's own teacher, one token a step, takes its place.", file=sys.stderr)
        return _teacher_samples(args, pipeline, canvases or length)
    if pipeline.tokenizer is None:
        raise ValueError(f"`--reference`: {args.model} has no tokenizer, so a text cannot be cut into its tokens.")
    by_lines = getattr(args, "reference_lines", False)
    return cut_texts(args.reference, "--reference", pipeline.tokenizer, length, by_lines)


@contextmanager
def keeping_rows(path: Path | None = None) -> Iterator[None]:
    """Turns an error or interrupt of a long evaluation into one sentence that says which rows are kept."""
    try:
        yield
    except ImportError as error:
        raise ValueError(str(error)) from error
    except (JudgeError, OSError) as error:
        num = 0 if path is None else finished_rows(path)
        kept = f" {num} finished rows are kept in {path}: go on with `--resume`." if num else ""
        raise OSError(str(error).rstrip(".") + "." + kept) from error


def _check_mask(args: argparse.Namespace, name: str, sampler: LSDScheduler, mask: int | None) -> None:
    theirs, model = sampler.config.mask_token_id, sampler.config.base_model
    if theirs != mask:
        of, had, has = (model or "another model", *("no mask" if x is None else f"mask {x}" for x in (theirs, mask)))
        raise ValueError(f"`--sampler` {name} was distilled for {of} ({had}), but `--model` {args.model} has {has}.")


def _option(entry: str, text: str) -> tuple[str, Any]:
    name, equals, value = entry.partition("=")
    if not name or not equals:
        raise ValueError(f"`--baselines` {text!r}: options have the form OPTION=VALUE, got {entry!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _features(args: argparse.Namespace, pipeline: Any, judge: JudgeNLL | None) -> Features | None:
    if args.features is None:
        if args.mauve:
            raise ValueError("`--mauve` needs an embedding space: give `--features judge` or `--features denoiser`.")
        return None
    if args.features == "denoiser":
        return denoiser_features(pipeline.denoiser)
    if judge is None:
        raise ValueError("`--features judge` needs `--judge`.")
    return lambda sequences, texts: judge.features(sequences, texts, pipeline.tokenizer)


def _teacher_samples(args: argparse.Namespace, pipeline: Any, asked: int | Sequence[torch.Tensor]) -> torch.Tensor:
    """Samples for reference and floor: twice as many as are judged, of a given length or for given canvases."""
    teacher, sequences = LSDScheduler(**pipeline.denoiser.scheduler_config()), []
    total, workers, hole = 2 * args.num_samples, Workers.here(), pipeline.denoiser.hole_id
    steps = asked if isinstance(asked, int) else max(1, *(int((canvas == hole).sum()) for canvas in asked))
    batches = range(0, total, args.batch_size)
    conditions = classes_of(pipeline.denoiser)
    if args.guidance_scale:
        if len(set(args.guidance_scale)) > 1:
            raise ValueError("Samples are compared with the teacher's, which needs one `--guidance-scale`.")
        conditions["guidance_scale"] = args.guidance_scale[0]
    with scheduler_in_place(pipeline, teacher):
        for first in tqdm(batches[workers.rank :: workers.size], desc="teacher samples", unit="batch"):
            generator = torch.Generator().manual_seed(args.seed + _REAL_SEED + first)
            rows = range(first, min(first + args.batch_size, total))
            here = {"generator": generator, **entries_of(LABELS, conditions, rows)}
            if isinstance(asked, int):
                options = {"length": asked, "num_inference_steps": steps, "output_type": "ids"}
                made = pipeline(num_samples=len(rows), **options, **here).sequences.cpu()
            else:
                chosen = [asked[i % len(asked)] for i in rows]
                made, _ = fill_in(pipeline, chosen, num_inference_steps=steps, **here)
            sequences.append(made)
    shares = workers.gather(sequences)
    return joined([shares[i % workers.size][i // workers.size] for i in range(len(batches))])


def _never_predicted(args: argparse.Namespace, pipeline: Any, real: torch.Tensor) -> list[int]:
    """Tokens of real text that the model never predicts, with a note on stderr: they are left out of every sum.

    Raises:
        ValueError: if they are too many.
    """
    teacher = TeacherRecorder(**pipeline.denoiser.scheduler_config())
    if pipeline.denoiser.mask_token_id is None:
        return []
    teacher.watches_tokens = True
    PipelineRuns(pipeline, args.seed, {"length": real.shape[1]}).run(teacher, 1, range(1))
    beyond = [i for i in real.unique().tolist() if i >= teacher.num_columns]
    never = [*teacher.never_predicted, *beyond]
    said = check_predicted("--reference", real, never, token_names(pipeline.tokenizer))
    if said:
        print(said, file=sys.stderr)
    return never


def finished_rows(path: Path) -> int:
    """Number of finished rows in a file, which need not exist."""
    return len(read_jsonl(path)) if path.exists() else 0
