"""What `lsd-train` learns on if canvases are partly given: the lines of `--infill`, an oracle's `clues`, or a share of
the tokens of each sequence (`--given`).
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..denoisers.frames import without_frame
from ..denoisers.oracle import Oracle
from ..denoisers.task_canvases import task_canvases
from ..sampling.draws import row_generators
from ..sampling.pipeline_runs import PipelineRuns
from ..support.task_sources import load_tasks
from ..support.workers import Workers
from ..training import METHODS, DistillConfig
from ..training.answers import Answers
from ..training.coefficients import MAX_REFERENCES
from ..training.distill import base_scheduler
from ..training.path_cache import PathCache
from ..training.paths import bootstrapped_paths
from ..training.progress import Progress
from ..training.task import Task
from ..training.teacher_plan import TeacherPlan
from .infill_files import read_canvases, read_completed
from .texts import read_sequences, shuffled


GIVEN_BY = ("prefix", "suffix", "input_ids")
"""Arguments of a pipeline's call that give tokens."""
_MADE = "a sequence that the model made"
NUM_TASKS = 2048
"""The most tasks to learn on."""
_TASK_SEED = 3_000_000  # far from those of an evaluation
_POSITIONS, _SEQUENCES = 2, 3  # streams of a seed that nothing else is drawn from


@dataclass(frozen=True)
class PartlyGiven:
    """Partly given canvases.

    Args:
        input_ids (`torch.LongTensor` of shape `(num, length)`): the canvases; with token 0 where the model still has
            to make what is given.
        given (`str`): what is given, in words.
        hole (`int`): the id of a position to fill in.
        data (`torch.LongTensor` of shape `(num_data, length)`, *optional*): real sequences; row i completes canvas
            `i % num`.
        is_made (`bool`): whether the canvases hold what is given.
        answers ([`Answers`], *optional*): which answers are right, where the canvases are tasks.
    """

    input_ids: torch.Tensor
    given: str
    hole: int
    data: torch.Tensor | None = None
    is_made: bool = True
    answers: Answers | None = None

    @property
    def masked_positions(self) -> list[int]:
        """The fewest and the most masked positions of a canvas."""
        return [int(number) for number in (self.input_ids == self.hole).sum(1).aminmax()]

    def described(self) -> dict[str, Any]:
        """A record for `metrics.jsonl` and the card."""
        fewest, most = self.masked_positions
        numbers = {"canvases": len(self.input_ids), "fewest_masked": fewest, "most_masked": most}
        return {"event": "canvases", "given": self.given, **numbers}

    def calls_to_make(self, config: DistillConfig) -> int:
        """Network calls that make what is given."""
        num, length = self.input_ids.shape
        return 0 if self.is_made else _calls_to_make(num, length, config)


def given_flags(args: argparse.Namespace) -> list[str]:
    """The flags that were used to say what is given."""
    return [f"--{name}" for name in ("tasks", "infill", "given") if getattr(args, name)]


def check_given(args: argparse.Namespace) -> None:
    """Refuses flags that do not go together.

    Raises:
        ValueError: if there are any; the message names the flag.
    """
    flags = given_flags(args)
    flag = flags[0] if flags else None
    if len(flags) > 1:
        raise ValueError(f"`{flags[0]}` says what is given: leave `{flags[1]}` out.")
    if args.tasks and args.data:
        raise ValueError("`--tasks` are not answered by `--data`: leave one of them out.")
    if args.checker and not args.tasks:
        raise ValueError("`--checker` goes with `--tasks`.")
    if flag and args.pipeline:
        raise ValueError(f"`{flag}` goes with `--model`; with `--pipeline` use `--pipeline-kwargs`.")
    if args.infill and args.length:
        raise ValueError("`--infill` has whole canvases: leave `--length` out.")
    if flag:
        _check_call(args, flag)
    if args.given and not (len(args.given) < 3 and 0 <= args.given[0] <= args.given[-1] < 1):
        shown = " ".join(f"{share:g}" for share in args.given)
        raise ValueError(f"`--given` must be a share of the tokens in [0, 1), or the least and the most, got {shown}.")


def calls_of_published(args: argparse.Namespace, config: DistillConfig, plan: TeacherPlan) -> int:
    """Network calls that make what is given, for a network that is not loaded."""
    if not args.given or args.data:
        return 0
    return _calls_to_make(_num_used(config, plan, has_data=False), plan.num_masked, config)


def partly_given(args: argparse.Namespace, pipeline: Any, config: DistillConfig) -> PartlyGiven | None:
    """The canvases of the flags and the model; None where nothing is given, or `--pipeline-kwargs` say what.

    Args:
        args: those of `lsd-train`.
        pipeline ([`MaskedDiffusionPipeline`]): the model's.
        config ([`DistillConfig`]): the options of the run.

    Raises:
        OSError: if a file is missing.
        ValueError: if a file holds no canvases of this model, all of one length, or data that do not complete them.
    """
    denoiser = pipeline.denoiser
    clues = denoiser.clues if isinstance(denoiser, Oracle) else 0
    if clues and (flags := given_flags(args)):
        raise ValueError(f"`{flags[0]}` says what is given: leave the oracle's `clues` out.")
    if args.tasks:
        return _of_tasks(args, pipeline)
    if args.infill:
        return _of_file(args.infill, args.data, pipeline)
    if not args.given and not clues:
        return None
    _check_call(args, "clues")
    data = _data(args, pipeline) if args.data else None
    length = args.length or denoiser.length if data is None else data.shape[1]
    num = _num_used(config, TeacherPlan(length, 1, length, denoiser.hole_id), data is not None)
    if data is not None:
        data = data[: max(num, MAX_REFERENCES)]
        num = len(data)
    masked_NL = _masked(num, length, config.seed, _clues(clues, length) if clues else _shares(args.given, length))
    sequences, kind = _sequences(denoiser, data, masked_NL, config.seed)
    canvases = sequences.masked_fill(masked_NL, denoiser.hole_id)
    said = f"{clues} random tokens" if clues else f"{' to '.join(f'{x:.0%}' for x in args.given)} of the tokens"
    return PartlyGiven(canvases, f"each with {said} of {kind}", denoiser.hole_id, data, is_made=kind != _MADE)


def _of_tasks(args: argparse.Namespace, pipeline: Any) -> PartlyGiven:
    """The canvases of tasks, all of one length, and which answers are right."""
    oracle = pipeline.denoiser if isinstance(pipeline.denoiser, Oracle) else None
    tasks = load_tasks(args.tasks, NUM_TASKS, seed=args.seed + _TASK_SEED, checker=args.checker, oracle=oracle)
    canvases = task_canvases(tasks.items, pipeline, args.length)
    if len({len(canvas) for canvas in canvases}) > 1:
        shortest, longest = (f(map(len, canvases)) for f in (min, max))
        raise ValueError(
            f"`--tasks` {args.tasks} has canvases of {shortest} to {longest} tokens: a sampler is learned on canvases"
            " of one length. Give prompts (with `--length`), or one file for each length."
        )
    answers = Answers(tasks.items, tasks.checker, pipeline.tokenizer)
    said = f"those of the tasks {args.tasks}"
    return PartlyGiven(torch.stack(canvases), said, pipeline.denoiser.hole_id, answers=answers)


def make_given(
    given: PartlyGiven, pipeline: Any, config: DistillConfig, call_kwargs: dict[str, Any], cache_dir: Path
) -> PartlyGiven:
    """The canvases with the tokens of sequences that the base solver makes in a few steps, in low-discrepancy order.
    They are kept in the cache of teacher paths.
    """
    if given.is_made:
        return given
    workers, (num, length) = Workers.here(), given.input_ids.shape
    seed = int(np.random.SeedSequence(config.seed, spawn_key=(_SEQUENCES,)).generate_state(1)[0])
    config = replace(config, seed=seed)
    runs, base = PipelineRuns(pipeline, seed, call_kwargs), base_scheduler(pipeline, config)
    steps = config.teacher_steps_for(length, runs.time_conditioned)
    recipe = config.resolve(TeacherPlan(length, 1, steps, given.hole))
    recipe = replace(recipe, num_sequences=workers.multiple(num))
    cache = PathCache(cache_dir, pipeline, call_kwargs)
    paths = bootstrapped_paths(Task(runs, base, recipe, lambda **_: None, Progress(), cache, workers=workers))
    sequences = workers.concatenate(torch.cat([path.final_BL for (path,) in paths]))[:num]
    canvases = torch.where(given.input_ids == given.hole, given.hole, sequences)
    return replace(given, input_ids=canvases, is_made=True)


def _check_call(args: argparse.Namespace, by: str) -> None:
    taken = [name for name in GIVEN_BY if name in (args.pipeline_kwargs or {})]
    if taken:
        raise ValueError(f"`--pipeline-kwargs`: `{by}` says what is given: leave `{taken[0]}` out.")


def _calls_to_make(num: int, length: int, config: DistillConfig) -> int:
    return -(-num // config.batch_size) * min(config.bootstrap_steps, length)


def _num_used(config: DistillConfig, plan: TeacherPlan, has_data: bool) -> int:
    """How many sequences a run uses: to learn from, to choose by, and to compare samples with."""
    compares = METHODS[config.method].chooses if config.coefficients is None else config.coefficients == "two_sided"
    references = config.reference_sequences if compares else 0
    return config.resolve(plan, has_data).num_sequences + config.held_out_sequences + references


def _clues(clues: int, length: int) -> Callable[[float], int]:
    if clues >= length:
        raise ValueError(f"`clues` must be in [0, {length - 1}] for sequences of {length} tokens, got {clues}.")
    return lambda _: clues


def _shares(shares: Sequence[float], length: int) -> Callable[[float], int]:
    """From a uniform to a number of tokens."""
    return lambda u: int((shares[0] + (shares[-1] - shares[0]) * u) * length + 0.5)


def _sequences(
    denoiser: Any, data: torch.Tensor | None, masked_NL: torch.Tensor, seed: int
) -> tuple[torch.Tensor, str]:
    """The sequences that tokens are given of, `(num, length)`, and what they are. Those of a network are still to be
    made, and 0.
    """
    if data is not None:
        return data, "a real sequence"
    if not isinstance(denoiser, Oracle):
        return torch.zeros_like(masked_NL, dtype=torch.int64), _MADE
    exact = denoiser.sample(len(masked_NL), row_generators(seed, [0], _SEQUENCES)[0])
    return exact[:, : masked_NL.shape[1]].cpu(), "an exact sample"


def _masked(num: int, length: int, seed: int, num_given: Callable[[float], int]) -> torch.Tensor:
    """Where canvases are masked, `(num, length)`: all but random positions, but at least at one. Their number is a
    function of a uniform.
    """
    rows = []
    for generator in row_generators(seed, range(num), _POSITIONS):
        u, *_ = u_L = torch.rand(length + 1, generator=generator, dtype=torch.float64)
        rows.append(u_L[1:].argsort().argsort() >= min(num_given(float(u)), length - 1))
    return torch.stack(rows)


def _data(args: argparse.Namespace, pipeline: Any) -> torch.Tensor:
    """The real sequences of `--data`, without a frame."""
    data = read_sequences(args.data, pipeline, args.length, bool(args.data_lines))
    try:
        pipeline.canvas_of(data)
    except ValueError as error:
        raise ValueError(f"`--data` {str(args.data)!r}: {error}") from error
    return without_frame(data, getattr(pipeline.denoiser, "frame_token_ids", None))


def _of_file(path: Path, data_path: Path | None, pipeline: Any) -> PartlyGiven:
    """The canvases of a file, and the data that complete them, line by line; both shuffled."""
    hole, data = pipeline.denoiser.hole_id, None
    canvas_NL = _of_one_length(path, read_canvases(path, pipeline), hole)
    canvas_NL = without_frame(canvas_NL, getattr(pipeline.denoiser, "frame_token_ids", None))
    if data_path is not None:
        data = read_completed(data_path, path, canvas_NL, pipeline)
        canvas_NL = canvas_NL.repeat(len(data) // len(canvas_NL), 1)
        data = shuffled(data)
    return PartlyGiven(shuffled(canvas_NL), f"the lines of `{path.name}`", hole, data)


def _of_one_length(path: Path, canvases: Sequence[torch.Tensor], hole: int) -> torch.Tensor:
    full = next((i for i, canvas in enumerate(canvases) if not bool((canvas == hole).any())), None)
    if full is not None:
        raise ValueError(
            f"`--infill` {str(path)!r}: canvas {full + 1} has no mask, so it teaches nothing: leave it out."
        )
    lengths = [len(canvas) for canvas in canvases]
    other = next((i for i, length in enumerate(lengths) if length != lengths[0]), None)
    if other is not None:
        raise ValueError(
            f"`--infill` {str(path)!r} must hold canvases of one length to learn on, in tokens: the first has"
            f" {lengths[0]}, number {other + 1} has {lengths[other]}. Keep those of one length."
        )
    return torch.stack([*canvases])
