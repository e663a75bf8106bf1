"""auto: the method and the order that cost held-out sequences the least.

Which of order, schedule and coefficients pays depends on the model, so it is measured: each candidate learns, and all
are forced along sequences that none of them learned from (see `held_out`). The winner is the one of least nats per
token, on average over the NFEs. The held-out sequences are real ones, where data are given; else the teacher's, in the
order of the forward process (random) or the one that was asked for; or, of a teacher of too many steps, bootstrapped
ones. The noise by which candidates reveal is another.

It is a path KL, whose optimum are draws as sharp as the denoiser's or less: what sharper ones (beta > 1) are worth, it
cannot say.
"""

import copy
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..sampling.diffusers_calls import NO_MASK
from ..sampling.learned_numbers import LearnedSampler
from ..sampling.left_out import is_predicted
from ..sampling.pipeline_runs import PipelineRuns
from ..scheduling_lsd import LSDScheduler
from ..support.workers import Workers
from .config import AUTO, METHODS, NETWORK_CALLS, DistillConfig
from .held_out import HeldOutBatch, held_out_nats
from .paths import KINDS, source_paths, source_steps
from .recording import TeacherPlan
from .task import Task


HELD_OUT = "held_out"


@dataclass
class ChosenSampler(LearnedSampler):
    """What the winner learned, by which method, and the order that it is for."""

    method: str = "path_kl"
    order: str = "random"


def choose(task: Task) -> ChosenSampler:
    """Learns all candidates, and takes the one that held-out sequences cost the least."""
    configs, left_out = candidate_configs(task.config, task.plan, task.workers)
    for name, reason in left_out.items():
        task.log(event="candidate", **_split(name), left_out=reason)
    learned, calls = {}, {}
    for name, config in configs.items():
        before = task.runs.network_calls
        learned[name] = METHODS[config.resolved_method](_part(task, name, config))
        calls[name] = task.runs.network_calls - before
    winner, reason = next(iter(learned)), "No other candidate can be had with these options."
    if len(learned) > 1:
        nats_CMS = _measure(task, configs, learned)
        winner = min(nats_CMS, key=lambda name: float(nats_CMS[name].mean()))
        kind = KINDS[task.config.source(task.plan.num_steps)]
        reason = _reason(winner, nats_CMS, task.config.nfe, kind)
        _log_candidates(task, winner, nats_CMS, calls)
    task.log(event="choice", **_split(winner), reason=reason, network_calls=task.runs.network_calls)
    method, order = _split(winner).values()
    return ChosenSampler(**vars(learned[winner]), method=method, order=order)


def network_calls(config: DistillConfig, plan: TeacherPlan) -> int:
    """The candidates' own, and `C batches (N + candidates * sum of the NFEs)` for the held-out sequences (N is 0 with
    data); where there is but one candidate, its own.
    """
    configs, _ = candidate_configs(config, plan)
    first = plan.num_canvases  # the run of one step, once for all
    calls = first + sum(NETWORK_CALLS[c.resolved_method](c, plan) - first for c in configs.values())
    if len(configs) > 1:
        batches = -(-config.held_out_sequences // config.batch_size)
        calls += plan.num_canvases * batches * (source_steps(config, plan) + len(configs) * sum(config.nfe))
    return calls


METHODS.register(AUTO, choose)
NETWORK_CALLS.register(AUTO, network_calls)


# ---- candidates ----


def candidate_configs(
    config: DistillConfig, plan: TeacherPlan, workers: Workers | None = None
) -> tuple[dict[str, DistillConfig], dict[str, str]]:
    """The candidates by name, each with its own options; and those that cannot be, with the reason.

    One that puts teacher and student in one batch learns from no more than half of `batch_size` beside others, so that
    a choice needs no more memory than they do.

    Raises:
        ValueError: if none can be.
    """
    workers = workers or Workers()
    configs, left_out = {}, {}
    for name in _names(config):
        method, order = _split(name).values()
        try:
            if plan.mask_token_id == NO_MASK and (method, order) != ("lsd", "random"):
                raise ValueError(f"{name} is about revealing masks, and there are none.")
            candidate = candidate_config(config, method, order)
            if config.num_sequences is None and candidate.num_sequences is not None:
                candidate = dataclasses.replace(candidate, num_sequences=workers.multiple(candidate.num_sequences))
            configs[name] = candidate.settled(plan.num_steps, candidate.paths == "data")
        except ValueError as error:
            left_out[name] = str(error)
    unasked = dataclasses.replace(config, paths=None) if config.paths == "data" else config
    if unasked.source(plan.num_steps) == "bootstrap":
        for name in [name for name, each in configs.items() if each.method != "path_kl"]:
            if len(configs) > 1:
                del configs[name]
                left_out[name] = f"it needs a teacher of {plan.num_steps} steps, which `paths` 'teacher' asks for."
    most = config.batch_size // 2 * workers.size
    for name in [name for name, candidate in configs.items() if candidate.is_paired and len(configs) > 1]:
        if most:
            num_sequences = min(configs[name].resolved_num_sequences, most)
            configs[name] = dataclasses.replace(configs[name], num_sequences=num_sequences)
        else:
            del configs[name]
            left_out[name] = "teacher and student are put in one batch: `batch_size` must be at least 2."
    if not configs:
        raise ValueError(f"None of `candidates` can be: {' '.join(left_out.values())}")
    return configs, left_out


def candidate_config(config: DistillConfig, method: str, order: str) -> DistillConfig:
    """The options of one candidate: of those that are another method's, the defaults.

    Raises:
        ValueError: if they do not fit the method.
    """
    own: dict[str, Any] = {"method": method, "order": order, "coefficients": None}
    if not method.startswith("lsd"):
        own["relaxation"] = None
    if method != "path_kl":
        own |= {"paths": None, "num_sequences": config.resolved_num_sequences}
    return dataclasses.replace(config, **own)


def chosen(config: DistillConfig, records: list[dict[str, Any]]) -> tuple[DistillConfig, list[dict[str, Any]]]:
    """From the options and records of a run to those of the winner; of a run without a choice, as they are."""
    choice = next((r for r in records if r["event"] == "choice"), None)
    if choice is None:
        return config, records
    name = f"{choice['method']}:{choice['order']}"
    kept = [r for r in records if r.get("candidate", name) == name]
    return candidate_config(config, choice["method"], choice["order"]), kept


def _names(config: DistillConfig) -> list[str]:
    """The candidates; of a given order those of it, or, where none is, their methods in it."""
    if config.order is None:
        return list(config.candidates)
    of_order = [name for name in config.candidates if _split(name)["order"] == config.order]
    methods = dict.fromkeys(_split(name)["method"] for name in config.candidates)
    return of_order or [f"{method}:{config.order}" for method in methods]


def _split(name: str) -> dict[str, str]:
    method, order = name.split(":")
    return {"method": method, "order": order}


def _part(task: Task, name: str, config: DistillConfig) -> Task:
    """A part of the work: its records are marked, and its progress is kept apart."""
    return dataclasses.replace(
        task,
        base=_base(task, config),
        config=config,
        log=functools.partial(task.log, candidate=name),
        progress=task.progress.part(name.replace(":", "-")),
    )


def _base(task: Task, config: DistillConfig) -> LSDScheduler:
    return LSDScheduler.from_config(task.base.config, order=config.resolved_order)


# ---- measuring ----


def check_held_out(data: torch.Tensor, config: DistillConfig, num_sequences: int) -> None:
    """Raises `ValueError` if a choice is to be made, and too few real sequences are left to make it by, behind the
    first `num_sequences`.
    """
    wanted = num_sequences + config.held_out_sequences
    if config.method == AUTO and len(data) < wanted:
        raise ValueError(
            f"`data` has {len(data)} sequences, fewer than {wanted}: `num_sequences` to learn from, and"
            " `held_out_sequences` to choose a method by."
        )


def held_out_task(task: Task) -> Task:
    """The held-out sequences of a task, those behind the ones to learn from; each process takes an equal share."""
    size = task.workers.size
    num = max(1, task.config.held_out_sequences // size) * size
    part = _part(task, HELD_OUT, dataclasses.replace(task.config, num_sequences=num))
    return dataclasses.replace(part, first=task.num_sequences)


def held_out_sequences(task: Task) -> tuple[list[HeldOutBatch], torch.Tensor]:
    """The sequences of this process, and how many positions of each count, `(S,)`, float64: those that were masked,
    but for tokens that are never predicted.
    """
    paths, never = source_paths(task), task.plan.never_predicted
    counted = [[(path.masked_BL & is_predicted(path.final_BL, never)).sum(1).cpu() for path in p] for p in paths]
    # of a sequence without any the cost is 0
    counted_S = torch.cat([torch.stack(canvases).sum(0) for canvases in counted]).clamp(min=1)
    finals = [[path.final_BL for path in canvases] for canvases in paths]
    return list(zip(task.batches(), finals, strict=True)), counted_S.double()


def _measure(
    task: Task, configs: dict[str, DistillConfig], learned: dict[str, LearnedSampler]
) -> dict[str, torch.Tensor]:
    """Nats per token of each candidate, by NFE and held-out sequence: `(num_nfe, S)`."""
    held_out = held_out_task(task)
    batches, tokens_S = held_out_sequences(held_out)
    runs, first, share = _with_other_noise(task.runs), held_out.first, held_out.sequences
    nats = {}
    for name, config in configs.items():
        key = name.replace(":", "-")
        stored = held_out.progress.load(key)
        if stored is None:
            scheduler = _base(task, config)
            scheduler.set_learned_sampler(learned[name])
            runs.network_calls = task.runs.network_calls
            never = task.plan.never_predicted
            rows = [held_out_nats(runs, scheduler, M, batches, never) / tokens_S for M in config.nfe]
            nats_MS = torch.zeros(len(rows), held_out.config.resolved_num_sequences, dtype=torch.float64)
            nats_MS[:, share.start - first : share.stop - first] = torch.stack(rows)
            stored = {"nats": task.workers.sum(nats_MS), "network_calls": torch.tensor(runs.network_calls)}
            held_out.progress.save(key, stored)
        task.runs.network_calls = int(stored["network_calls"])
        nats[name] = stored["nats"]
    return nats


def _with_other_noise(runs: PipelineRuns) -> PipelineRuns:
    """The same runs, with noise that depends on none of the teacher's."""
    other = copy.copy(runs)
    other.seed = int(np.random.SeedSequence([runs.seed, 1]).generate_state(1, np.uint64)[0])
    return other


def _mean_and_error(values_S: torch.Tensor) -> tuple[float, float]:
    return float(values_S.mean()), float(values_S.std() / len(values_S) ** 0.5)


def _log_candidates(task: Task, winner: str, nats_CMS: dict[str, torch.Tensor], calls: dict[str, int]) -> None:
    for name, nats_MS in nats_CMS.items():
        for M, nats_S, best_S in zip(task.config.nfe, nats_MS, nats_CMS[winner], strict=True):
            mean, error = _mean_and_error(nats_S)
            difference, difference_error = _mean_and_error(nats_S - best_S)
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
    """Why it won, in one sentence."""
    mean_CS = {name: nats_MS.mean(0) for name, nats_MS in nats_CMS.items()}
    second = min((name for name in mean_CS if name != winner), key=lambda name: float(mean_CS[name].mean()))
    difference, error = _mean_and_error(mean_CS[second] - mean_CS[winner])
    (method, order), (next_method, next_order) = (_split(name).values() for name in (winner, second))
    return (
        f"{len(mean_CS[winner])} held-out {kind} sequences cost `{method}` in `{order}` order the least,"
        f" {float(mean_CS[winner].mean()):.4f} nats per token on average over {', '.join(map(str, nfe))}"
        f" network calls; next is `{next_method}` in `{next_order}` order with {difference:.4f} more (standard error"
        f" {error:.4f}{'' if difference > 2 * error else ', so the two cannot be told apart'})."
    )
