"""The parts of an `lsd-eval` run: samplers, metrics, real data, and errors that say what was kept."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..denoisers.oracle import Oracle
from ..denoisers.vocabulary import token_names
from ..evaluation.embedding import Features, denoiser_features
from ..evaluation.harness import fill_in, floor_row, joined
from ..evaluation.judge import JudgeError, JudgeNLL
from ..evaluation.metric_sets import MetricSet, TextMetrics, TokenMetrics, exact_samples, oracle_metrics
from ..evaluation.rows import Row, read_jsonl
from ..sampling.left_out import check_predicted
from ..sampling.pipeline_runs import LABELS, PipelineRuns, entries_of, scheduler_in_place
from ..scheduling_lsd import LSDScheduler
from ..support.workers import Workers
from ..training.recording import TeacherRecorder
from .common import load_sampler
from .evaluation_classes import classes_of
from .evaluation_fills import FillTask
from .evaluation_images import image_metrics
from .evaluation_molecules import molecule_metrics, molecules_floor
from .evaluation_tasks import TaskParts, expand_sweeps
from .texts import cut_texts


BASELINE_FORM = "SOLVER[@OPTION=VALUE,...][:ORDER[:SCHEDULE]]"
_IMAGES_NEEDED = (
    "These samples are tokens of images and are compared as such; FID needs images: decode samples with the model's VQ"
    " decoder, save them, and give their folders to `--images`."
)
# the others are the solver's
_SCHEDULER_OPTIONS = ("count", "draws", "confidence_temperature", "certainty", "minimal_gap")
_TEACHER = "teacher, one token a step"
_REAL_SEED = 1_000_000  # of real data and teacher samples: far from the seeds of what is judged
_CANVAS_SEED = 2_000_000  # of what an oracle's `clues` give


def refuse_unused(args: argparse.Namespace, is_oracle: bool) -> None:
    """Refuses flags that an exact oracle has no use for.

    Raises:
        ValueError: if there are any; the message names the flag.
    """
    for name in ("judge", "reference", "features", "mauve", "molecules") if is_oracle else ():
        if getattr(args, name):
            raise ValueError(f"`--{name}` is for texts, but an exact oracle judges these samples: leave it out.")


def baseline(text: str, config: dict[str, Any]) -> LSDScheduler:
    """The plain sampler described by SOLVER[@OPTION=VALUE,...][:ORDER[:SCHEDULE]].

    The options are those of the solver, and some of the scheduler's: `count`, `draws`, `confidence_temperature`,
    `certainty` and `minimal_gap`.

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
    expanded = dict.fromkeys(text for texts in expand_sweeps(args.baselines).values() for text in texts)
    samplers = {text: baseline(text, config) for text in expanded}
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
    args: argparse.Namespace,
    pipeline: Any,
    task: FillTask | None = None,
    tasks: TaskParts | None = None,
) -> tuple[MetricSet, Row | None]:
    """The metric set that fits the model, and the row of real data of the same size; no such row for tasks.

    One half of the real data is the reference, and the floor comes from the other. For canvases to fill in, no real
    data are known; the teacher's samples, one token a step, take their place.

    Raises:
        ValueError: if an option does not fit the model, or there is too little real data for `--features`.
        OSError: if the judge, the oracle or the reference cannot be loaded.
    """
    if tasks is not None:
        return tasks.judged.metrics, None
    denoiser, oracle = pipeline.denoiser, find_oracle(args, pipeline.denoiser)
    if oracle is not None:
        return _judged_by_oracle(args, pipeline, oracle, task)
    if args.molecules:
        return _judged_as_molecules(args, pipeline, task)
    if denoiser.canvas_shape is not None and task is None:
        judged = image_metrics(args, denoiser)
        if judged is not None:
            return judged
    if denoiser.canvas_shape is not None:
        print(_IMAGES_NEEDED, file=sys.stderr)
    return _judged_by_real_data(args, pipeline, task)


def _judged_by_real_data(
    args: argparse.Namespace, pipeline: Any, task: FillTask | None
) -> tuple[MetricSet, Row | None]:
    """The metric set of texts, or of tokens, and the row of real ones, or of the teacher's fills."""
    canvases = None if task is None else task.canvases
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
    num_texts = 0 if pipeline.tokenizer is None else args.num_texts
    if pipeline.tokenizer is None:
        metrics = TokenMetrics(real[:half], **options)
    else:
        metrics = TextMetrics(pipeline.tokenizer, judge, real[:half], **options)
        name = "real text" if args.reference else name
    if task is not None:
        metrics = task.metrics(metrics, pipeline.denoiser.hole_id)
    if filled is not None:
        return metrics, floor_row(metrics, filled[: args.num_samples], name=_TEACHER, num_texts=num_texts)
    if len(real) - half < args.num_samples:
        print("Too little reference text for a floor of the same size: it is left out.", file=sys.stderr)
        return metrics, None
    return metrics, floor_row(metrics, real[half : half + args.num_samples], name=name, num_texts=num_texts)


def _judged_by_oracle(
    args: argparse.Namespace, pipeline: Any, oracle: Oracle, task: FillTask | None
) -> tuple[MetricSet, Row]:
    """The metric set of an oracle, and the row of its own samples, or of the teacher's fills."""
    seed, hole, num = args.seed + _CANVAS_SEED, pipeline.denoiser.hole_id, args.num_samples
    if task is None:
        length = args.length or pipeline.denoiser.length
        metrics = oracle_metrics(oracle, num, length=length, seed=seed, mask_token_id=hole)
        return metrics, floor_row(metrics, exact_samples(oracle, metrics, num, length, args.seed + _REAL_SEED))
    if oracle.clues:
        raise ValueError("`--infill` has canvases of its own: leave the oracle's `clues` out.")
    whole = oracle_metrics(oracle, num, length=task.longest, given=True)
    metrics = task.metrics(whole, hole, oracle, seed)
    return metrics, floor_row(metrics, _teacher_samples(args, pipeline, task.canvases)[:num], name=_TEACHER)


def _judged_as_molecules(
    args: argparse.Namespace, pipeline: Any, task: FillTask | None
) -> tuple[MetricSet, Row | None]:
    """The metric set of molecules, and the row of real ones, or of the teacher's fills."""
    metrics, others = molecule_metrics(args, pipeline.tokenizer)
    if task is None:
        return metrics, molecules_floor(args, metrics, others, args.length or pipeline.denoiser.length)
    filled = _teacher_samples(args, pipeline, task.canvases)[: args.num_samples]
    fills = task.metrics(metrics, pipeline.denoiser.hole_id)
    return fills, floor_row(fills, filled, name=_TEACHER, num_texts=args.num_texts)


def find_oracle(args: argparse.Namespace, denoiser: Any) -> Any:
    """The exact oracle that samples are judged by: `--oracle`, or the denoiser where it is one; else None.

    Raises:
        ValueError: if `--oracle` is no oracle, or has other tokens or shorter sequences than the model.
        OSError: if it cannot be loaded.
    """
    from ..denoisers import load_denoiser

    oracle = denoiser if args.oracle is None else load_denoiser(args.oracle)
    if args.oracle is None:
        return oracle if isinstance(oracle, Oracle) else None
    if not isinstance(oracle, Oracle):
        raise ValueError(f"`--oracle` {args.oracle!r} is not an exact oracle such as `countdown:V=32,L=256`.")
    length = args.length or denoiser.length
    if oracle.vocab_size != denoiser.vocab_size or oracle.length < length:
        raise ValueError(
            f"`--oracle` {args.oracle!r} has {oracle.vocab_size} tokens and {oracle.length} positions, but"
            f" {args.model} has {denoiser.vocab_size} tokens and {length} positions."
        )
    return oracle


def most_masked(canvases: Iterable[torch.Tensor], hole_id: int) -> int:
    """The number of network calls at which all canvases are filled in one token a call."""
    return max(1, *(int((canvas == hole_id).sum()) for canvas in canvases))


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
    steps = asked if isinstance(asked, int) else most_masked(asked, hole)
    batches = range(0, total, args.batch_size)
    conditions = classes_of(pipeline.denoiser, None if isinstance(asked, int) else asked)
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
