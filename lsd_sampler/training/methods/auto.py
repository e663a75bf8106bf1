"""auto: the simplest method and order whose cost on held-out sequences is the lowest, up to chance.

Which of order, schedule and coefficients pays depends on the model, so it is measured. Each candidate learns, and all
are forced along sequences that none of them learned from (see `held_out`). The figure is the nats per token, on
average over the NFEs. The winner is the simplest candidate within two standard errors of the lowest. The held-out
sequences are real ones if data are given. Otherwise they are the teacher's, in the order of the forward process
(random) or the one that was asked for; if the teacher has too many steps, they are bootstrapped. Candidates reveal by
noise that is independent of that of the sequences.

The criterion is a path KL, whose optimum is draws at most as sharp as the denoiser's. It cannot say what sharper ones
(beta > 1) are worth.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...denoisers.sizes import ModelSize
from ...learned.description import KINDS, Records
from ...sampling.learned_numbers import LearnedSampler
from ...sampling.left_out import is_predicted
from ...sampling.orders import ORDERS
from ...scheduling_lsd import LSDScheduler
from ...support.workers import Workers
from ..config import DistillConfig
from ..consistent import MOST_CALLS, consistent
from ..held_out import HeldOutBatch, first_of, held_out_nats, rest_of, with_other_noise
from ..method import METHODS, ChosenSampler, Method, method_of
from ..options import MethodOptions, option
from ..paths import source_paths
from ..recipe import Recipe
from ..shared_options import SharedOptions, affordable_source
from ..task import Task
from ..teacher_plan import TeacherPlan


HELD_OUT = "held_out"
ROUNDS, RULED_OUT = (16, 64), 4.0
"""Numbers of sequences after which a candidate may be ruled out, and the standard errors above the best that do so."""
CHANCE = 2.0
"""Standard errors within which a difference may be chance."""


@dataclass(frozen=True)
class AutoOptions(MethodOptions):
    """Options of [`Auto`]."""

    candidates: tuple[str, ...] = option(
        (
            "path_kl:random",
            "path_kl:halton",
            "forced_kl:margin",
            "forced_kl:entropy",
            "forced_kl:adaptive",
            "lsd:random",
        ),
        "candidates to choose from, each METHOD:ORDER, the simplest first; with `order`, only those in that order",
        metavar="METHOD:ORDER",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "candidates", _checked_candidates(self.candidates))


class Auto(Method):
    """Learns all candidates, and takes the simplest that held-out sequences cost the least, up to chance."""

    name = "auto"
    options = AutoOptions
    sources = ("teacher", "data", "bootstrap")
    needs_mask = False
    chooses = True

    def check_config(self, config: SharedOptions) -> None:
        super().check_config(config)
        if getattr(config, "objective", None) == "answers":
            raise ValueError("`objective` 'answers' is of `method` 'forced_kl': 'auto' goes by what sequences cost.")

    def suits(self, order: str) -> bool:
        return any(METHODS[name].suits(order) for name in METHODS.names() if not METHODS[name].chooses)

    def check(self, recipe: Recipe) -> None:
        for each in self.outcomes(recipe):
            method_of(each).check(each)

    def check_data(self, data: torch.Tensor, recipe: Recipe) -> None:
        super().check_data(data, recipe)
        wanted = recipe.num_sequences + recipe.config.held_out_sequences
        if len(data) < wanted:
            raise ValueError(
                f"`data` has {len(data)} sequences, fewer than {wanted}: `num_sequences` to learn from, and"
                " `held_out_sequences` to choose a method by."
            )

    def default_sequences(self, source: str, plan: TeacherPlan, bootstrap_steps: int) -> int:
        methods = [METHODS[name] for name in METHODS.names() if not METHODS[name].chooses]
        return max(method.default_sequences(source, plan, bootstrap_steps) for method in methods)

    def outcomes(self, recipe: Recipe, workers: Workers | None = None) -> list[Recipe]:
        return list(candidates(recipe, workers)[0].values())

    def learn(self, task: Task) -> ChosenSampler:
        recipes, left_out = candidates(task.recipe, task.workers)
        for name, reason in left_out.items():
            task.log(event="candidate", **_split(name), left_out=reason)
        learned, calls = {}, {}
        for name, recipe in recipes.items():
            before = task.runs.network_calls
            learned[name] = method_of(recipe).learn(_part(task, name, recipe))
            calls[name] = task.runs.network_calls - before
        winner, reason = next(iter(learned)), "No other candidate can be used with these options."
        if len(learned) > 1:
            nats_CMS = _measure(task, recipes, learned)
            winner = _winner(nats_CMS)
            reason = _reason(winner, nats_CMS, task.config.nfe, KINDS[task.recipe.source])
            _log_candidates(task, winner, nats_CMS, calls)
        task.log(event="choice", **_split(winner), reason=reason, network_calls=task.runs.network_calls)
        return ChosenSampler(**vars(learned[winner]), recipe=recipes[winner])

    def network_calls(self, recipe: Recipe) -> int:
        """The candidates' own calls, and `C batches (N + candidates * sum of the NFEs)` for the held-out sequences (N
        is 0 with data), as if no candidate were ruled out. A single candidate needs only its own calls.
        """
        each, first = self.outcomes(recipe), recipe.plan.num_canvases  # the run of one step, once for all
        calls = first + sum(method_of(candidate).network_calls(candidate) - first for candidate in each)
        if len(each) > 1:
            num, size = recipe.config.held_out_sequences, recipe.config.batch_size
            batches = sum(-(-end // size) - begin // size for begin, end in _rounds(num))
            checked = 0 if recipe.source == "data" else min(MOST_CALLS, recipe.plan.num_masked)
            made = -(-num // size) * (recipe.source_steps + checked)
            calls += first * (made + batches * len(each) * sum(recipe.config.nfe))
        return calls

    def memory(self, size: ModelSize, recipe: Recipe) -> dict[str, int]:
        """The memory of the most demanding candidate."""
        needs = [method_of(each).memory(size, each) for each in self.outcomes(recipe)]
        return max(needs, key=lambda need: sum(need.values()))

    def batch_flag(
        self, config: SharedOptions, options: Any, num_rows: int, num_processes: int = 1
    ) -> tuple[str, int]:
        return "--batch-size", num_rows  # no candidate has larger batches

    def winner(self, records: Records) -> tuple[str, str] | None:
        choice = next((r for r in records if r["event"] == "choice"), None)
        return (choice["method"], choice["order"]) if choice else None


# ---- candidates ----


def candidates(recipe: Recipe, workers: Workers | None = None) -> tuple[dict[str, Recipe], dict[str, str]]:
    """The candidates by name, each with its own recipe; and those that cannot be used, with the reason.

    Among others, a candidate that puts teacher and student in one batch learns from at most half of `batch_size`
    sequences, so that it needs no more memory than they do.

    Raises:
        ValueError: if no candidate can be used.
    """
    workers = workers or Workers()
    recipes, left_out = {}, {}
    for name in _names(recipe):
        try:
            recipes[name] = _candidate(recipe, name, workers)
        except ValueError as error:
            left_out[name] = str(error)
    asked = None if recipe.config.paths == "data" else recipe.config.paths
    if (asked or affordable_source(recipe.plan.num_steps)) == "bootstrap":
        needs = f"it needs a teacher of {recipe.plan.num_steps} steps, which `paths` 'teacher' asks for."
        _leave_out(recipes, left_out, lambda each: "bootstrap" not in method_of(each).sources, needs)
    reason = f"`num_sequences` {recipe.num_sequences} are too few: half of them would check what it finds."
    few = recipe.num_sequences
    _leave_out(recipes, left_out, lambda each: few < method_of(each).least_sequences(workers.size), reason)
    most = recipe.config.batch_size // 2 * workers.size
    if not most:
        reason = "teacher and student are put in one batch: `batch_size` must be at least 2."
        _leave_out(recipes, left_out, lambda each: each.is_paired, reason)
    for name, each in recipes.items():
        if each.is_paired and len(recipes) > 1:
            recipes[name] = dataclasses.replace(each, num_sequences=min(each.num_sequences, most))
    if not recipes:
        raise ValueError(f"None of `candidates` can be: {' '.join(left_out.values())}")
    return recipes, left_out


def _candidate(recipe: Recipe, name: str, workers: Workers) -> Recipe:
    """The recipe of one candidate.

    Raises:
        ValueError: if the candidate cannot be used.
    """
    method, order = _split(name).values()
    if not recipe.plan.has_mask and (METHODS[method].needs_mask or order != "random"):
        raise ValueError(f"{name} is about revealing masks, and there are none.")
    assert isinstance(recipe.config, DistillConfig)
    config = recipe.config.for_method(method, order)
    own = config.resolve(recipe.plan, config.paths == "data", workers)
    # a candidate that cannot use the sequences of the others takes as many of its teacher's
    return own if config.paths == recipe.config.paths else dataclasses.replace(own, num_sequences=recipe.num_sequences)


def _leave_out(
    recipes: dict[str, Recipe], left_out: dict[str, str], unfit: Callable[[Recipe], bool], reason: str
) -> None:
    """Leaves out candidates that are unfit, but never the last one."""
    for name in [name for name, each in recipes.items() if unfit(each)]:
        if len(recipes) > 1:
            del recipes[name]
            left_out[name] = reason


def _checked_candidates(candidates: Any) -> tuple[str, ...]:
    names = list(candidates) if isinstance(candidates, Iterable) and not isinstance(candidates, str) else []
    known = [name for name in METHODS.names() if not METHODS[name].chooses]
    for name in names or [candidates]:
        method, separator, order = name.partition(":") if isinstance(name, str) and names else ("", "", "")
        if not separator or method not in known or order not in ORDERS.names():
            raise ValueError(
                f"`candidates` must each be METHOD:ORDER, such as 'path_kl:halton', got {name!r}. Methods:"
                f" {known}, orders: {ORDERS.names()}."
            )
    return tuple(dict.fromkeys(names))


def _names(recipe: Recipe) -> list[str]:
    """The candidates. With a given order, these are the ones in it; if there are none, their methods in that order."""
    names, order = recipe.options.candidates, recipe.config.order
    if order is None:
        return list(names)
    of_order = [name for name in names if _split(name)["order"] == order]
    methods = dict.fromkeys(_split(name)["method"] for name in names)
    return of_order or [f"{method}:{order}" for method in methods]


def _split(name: str) -> dict[str, str]:
    method, order = name.split(":")
    return {"method": method, "order": order}


def _part(task: Task, name: str, recipe: Recipe) -> Task:
    """A part of the work: its records are marked, and its progress is kept apart."""
    return dataclasses.replace(
        task,
        base=_base(task, recipe),
        recipe=recipe,
        log=functools.partial(task.log, candidate=name),
        progress=task.progress.part(name.replace(":", "-")),
    )


def _base(task: Task, recipe: Recipe) -> LSDScheduler:
    return LSDScheduler.from_config(task.base.config, **method_of(recipe).scheduler_options(recipe.order))


# ---- measuring ----


def held_out_task(task: Task) -> Task:
    """The held-out sequences of a task, which follow those to learn from; each process takes an equal share."""
    size = task.workers.size
    num = max(1, task.config.held_out_sequences // size) * size
    part = _part(task, HELD_OUT, dataclasses.replace(task.recipe, num_sequences=num))
    return dataclasses.replace(part, first=task.num_sequences)


def held_out_sequences(task: Task) -> tuple[list[HeldOutBatch], torch.Tensor]:
    """The sequences of this process, and how many positions of each count, `(S,)`, float64: those that were masked,
    except for tokens that are never predicted.
    """
    paths, never = source_paths(task), task.plan.never_predicted
    counted = [[(path.masked_BL & is_predicted(path.final_BL, never)).sum(1).cpu() for path in p] for p in paths]
    # the cost of a sequence without any is 0
    counted_S = torch.cat([torch.stack(canvases).sum(0) for canvases in counted]).clamp(min=1)
    finals = [[path.final_BL for path in canvases] for canvases in paths]
    batches, index_S = consistent(task, list(zip(task.batches(), finals, strict=True)))
    return batches, counted_S.double()[index_S]


def _measure(task: Task, recipes: dict[str, Recipe], learned: dict[str, LearnedSampler]) -> dict[str, torch.Tensor]:
    """Nats per token of each candidate, by NFE and held-out sequence: `(num_nfe, S)`. Candidates that few sequences
    rule out are measured on these alone.
    """
    held_out = held_out_task(task)
    batches, tokens_S = held_out_sequences(held_out)
    runs, nats, going_on = with_other_noise(task.runs), {}, list(recipes)
    for part, (begin, end) in enumerate(_rounds(len(tokens_S), task.workers.size)):
        some, tokens_s = rest_of(first_of(batches, end), begin), tokens_S[begin:end]
        for name in going_on if len(going_on) > 1 or not part else []:
            key = f"{name.replace(':', '-')}-{part}"
            stored = held_out.progress.load(key)
            if stored is None:
                scheduler = _base(task, recipes[name])
                scheduler.set_learned_sampler(learned[name])
                runs.network_calls = task.runs.network_calls
                never = task.plan.never_predicted
                rows = [held_out_nats(runs, scheduler, M, some, never) / tokens_s for M in task.config.nfe]
                gathered = task.workers.concatenate(torch.stack(rows).T.contiguous()).T
                stored = {"nats": gathered, "network_calls": torch.tensor(runs.network_calls)}
                held_out.progress.save(key, stored)
            task.runs.network_calls = int(stored["network_calls"])
            nats[name] = torch.cat([nats[name], stored["nats"]], dim=1) if name in nats else stored["nats"]
        compared = _fully_measured(nats)
        going_on = [name for name in going_on if not _is_worse(compared, name, RULED_OUT)]
    return nats


def _rounds(num: int, num_processes: int = 1) -> list[tuple[int, int]]:
    """The first and the last sequence of each round, of the `num` of a process."""
    ends = sorted({*(min(num, max(1, end // num_processes)) for end in ROUNDS), num})
    return list(itertools.pairwise([0, *ends]))


def _fully_measured(nats_CMS: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The candidates that were measured on all sequences so far: what others cost fewer ones does not compare."""
    most = max(nats_MS.shape[1] for nats_MS in nats_CMS.values())
    return {name: nats_MS for name, nats_MS in nats_CMS.items() if nats_MS.shape[1] == most}


def _is_worse(nats_CMS: dict[str, torch.Tensor], name: str, errors: float) -> bool:
    """Whether a candidate costs more than the best one by more than this many standard errors."""
    best = min(nats_CMS, key=lambda other: float(nats_CMS[other].mean()))
    difference, error = _difference(nats_CMS, name, best)
    return difference > errors * error


def _difference(nats_CMS: dict[str, torch.Tensor], name: str, other: str) -> tuple[float, float]:
    """What a candidate costs more than another, in nats per token, and the standard error of that, over the sequences
    on which both were measured.
    """
    first_S, second_S = nats_CMS[name].mean(0), nats_CMS[other].mean(0)
    num = min(len(first_S), len(second_S))
    return _mean_and_error(first_S[:num] - second_S[:num])


def _winner(nats_CMS: dict[str, torch.Tensor]) -> str:
    """The first candidate, so the simplest, that does not cost more than the cheapest one by more than chance."""
    measured = _fully_measured(nats_CMS)
    return next(name for name in measured if not _is_worse(measured, name, CHANCE))


def _mean_and_error(values_S: torch.Tensor) -> tuple[float, float]:
    return float(values_S.mean()), float(values_S.std() / len(values_S) ** 0.5)


def _log_candidates(task: Task, winner: str, nats_CMS: dict[str, torch.Tensor], calls: dict[str, int]) -> None:
    for name, nats_MS in nats_CMS.items():
        for M, nats_S, best_S in zip(task.config.nfe, nats_MS, nats_CMS[winner], strict=True):
            mean, error = _mean_and_error(nats_S)
            difference, difference_error = _mean_and_error(nats_S - best_S[: len(nats_S)])
            task.log(
                event="candidate",
                **_split(name),
                nfe=M,
                nats_per_token=mean,
                standard_error=error,
                difference=difference,
                difference_error=difference_error,
                network_calls=calls[name],
            )


def _reason(winner: str, nats_CMS: dict[str, torch.Tensor], nfe: Sequence[int], kind: str) -> str:
    """Why it won, in a sentence or two."""
    num, calls = nats_CMS[winner].shape[1], ", ".join(map(str, nfe))
    mean = float(nats_CMS[winner].mean())
    measured = _fully_measured(nats_CMS)
    cheapest = min(measured, key=lambda name: float(measured[name].mean()))
    if cheapest != winner:
        difference, error = _difference(nats_CMS, winner, cheapest)
        return (
            f"{num} held-out {kind} sequences cost {_words(winner)} {mean:.4f} nats per token on average over {calls}"
            f" network calls. {_words(cheapest).capitalize()} costs them {difference:.4f} less (standard error"
            f" {error:.4f}): that may be chance, so the simpler one is taken."
        )
    others = [name for name in measured if name != winner] or [name for name in nats_CMS if name != winner]
    second = min(others, key=lambda name: _difference(nats_CMS, name, winner)[0])
    difference, error = _difference(nats_CMS, second, winner)
    return (
        f"{num} held-out {kind} sequences cost {_words(winner)} the least, {mean:.4f} nats per token on average over"
        f" {calls} network calls; next is {_words(second)} with {difference:.4f} more (standard error {error:.4f}"
        f"{'' if difference > CHANCE * error else ', so the two cannot be told apart'})."
    )


def _words(name: str) -> str:
    method, order = _split(name).values()
    return f"`{method}` in `{order}` order"
