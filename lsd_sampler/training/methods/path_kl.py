"""path_kl: the schedule that minimises the path KL, for every number of steps at once.

By the chain rule, the KL from the law of the teacher's paths to a sampler that reveals, in one step, all positions
with ranks in `[s, e)` is a sum over those positions of the KL between what the teacher predicted when it revealed them
and what is predicted at s. One table of such terms, measured along teacher paths, prices every possible step; the best
schedule is then a shortest path. For the random-order case see https://huggingface.co/papers/2511.04647 and
https://huggingface.co/papers/2510.25544.
"""

from dataclasses import dataclass, replace

import torch
from tqdm.auto import tqdm

from ...denoisers.sizes import ModelSize
from ...learned.description import Description, Records
from ...sampling.learned_numbers import LearnedSampler, LearnedSteps, StepErrorTable
from ...sampling.orders import ORDERS
from ...sampling.schedules import grid_from_counts, replay_states
from ..method import Method
from ..options import MethodOptions, check_positive, option
from ..paths import source_paths
from ..recipe import Recipe
from ..recording import StepErrorRecorder
from ..step_errors import estimate_table
from ..task import Task


@dataclass(frozen=True)
class PathKLOptions(MethodOptions):
    """Options of [`PathKL`]."""

    num_states: int = option(128, "approximate number of states at which a step may begin (at most one per token)")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("num_states", self.num_states)


class PathKL(Method):
    """Learns times: a table of step errors, and from it the best schedule for any number of calls."""

    name = "path_kl"
    options = PathKLOptions
    order = "halton"
    sources = ("teacher", "data", "bootstrap")
    leaves_coefficients = True

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        states_to_replay(recipe)

    def learn(self, task: Task) -> LearnedSampler:
        """Measures the step-error table along teacher paths, and solves it for each NFE of the config."""
        step_error = measure_step_errors(task)
        # the cost of a step at every state; with a state per token, it is the teacher's cost
        floor = step_error.solve(len(step_error.grid))[1]
        steps = {}
        for M in task.config.nfe:
            counts, cost = step_error.solve(M)
            steps[M] = LearnedSteps.plain(grid_from_counts(counts, task.base.noise, task.base.config.sampling_eps))
            task.log(
                event="schedule",
                nfe=M,
                path_kl=max(0.0, cost - floor),  # below 0 by rounding only
                path_kl_uniform=max(0.0, step_error.uniform_cost(M) - floor),
                known_after_step=counts[1:],
            )
        return LearnedSampler(steps, step_error)

    def network_calls(self, recipe: Recipe) -> int:
        """`C (1 + batches (N + G))` for G states. N is the steps of the teacher or of the bootstrap, or 0 with data.

        Raises:
            ValueError: if an NFE of the config needs more states.
        """
        states = len(states_to_replay(recipe))
        return recipe.plan.num_canvases * (1 + recipe.num_batches * (recipe.source_steps + states))

    def memory(self, size: ModelSize, recipe: Recipe) -> dict[str, int]:
        memory, states = super().memory(size, recipe), len(states_to_replay(recipe))
        return {**memory, "kept": memory["kept"] + 16 * states * recipe.plan.num_masked}

    def describe(self, learned: LearnedSampler, records: Records) -> Description:
        plain = super().describe(learned, records)
        schedules = [r for r in records if r["event"] == "schedule"]
        states = next((r["states"] for r in records if r["event"] == "step_error"), None)
        if not schedules or states is None:
            return plain
        known = [" ".join(map(str, r["known_after_step"])) for r in schedules]
        excess = f"path KL above {states} calls (nats per sequence)"
        return replace(
            plain,
            heading=("network calls", excess, "of the uniform grid", "tokens known after"),
            rows=tuple(
                (str(r["nfe"]), f"{r['path_kl']:.4f}", f"{r['path_kl_uniform']:.4f}", tokens)
                for r, tokens in zip(schedules, known, strict=True)
            ),
            num_numbers=3,
            lines=tuple(
                f"{r['nfe']:4d} calls: {r['path_kl']:.4f} nats/sequence above {states} calls; tokens known: {tokens}"
                for r, tokens in zip(schedules, known, strict=True)
            ),
        )


def measure_step_errors(task: Task) -> StepErrorTable:
    """The step-error table. It takes one run of the pipeline for each batch of sequences, besides making these."""
    recorder = StepErrorRecorder.from_config(task.base.config)
    recorder.never_predicted = task.plan.never_predicted
    states = states_to_replay(task.recipe)
    batches = source_paths(task)
    zeros = torch.zeros(len(states), task.plan.num_masked, dtype=torch.float64)
    sums = task.progress.load("step_error", own=True) or {
        "nats": zeros,
        "seen": zeros,
        "batches": torch.tensor(0),
        "network_calls": torch.tensor(task.runs.network_calls),
    }
    task.runs.network_calls = int(sums["network_calls"])
    todo = list(zip(task.batches(), batches, strict=True))[int(sums["batches"]) :]
    for sequences, paths in tqdm(todo, desc="replays", unit="batch"):
        recorder.replay(states, paths, task.plan.num_masked)
        task.runs.run(recorder, len(states), sequences)
        sums = {
            "nats": sums["nats"] + recorder.nats_GL.cpu(),
            "seen": sums["seen"] + recorder.seen_GL.cpu(),
            "batches": sums["batches"] + 1,
            "network_calls": torch.tensor(task.runs.network_calls),
        }
        task.progress.save("step_error", sums, own=True)
    task.log(
        event="step_error", states=len(states), kept_bytes=2 * zeros.nbytes, network_calls=task.runs.network_calls
    )
    nats, seen = task.workers.sum(sums["nats"]), task.workers.sum(sums["seen"])
    # whole canvases of data are masked by rank, and ranks that were left out must be filled in
    masked = None if task.data is None else torch.arange(task.plan.num_masked) >= states[:, None]
    exchangeable = ORDERS[task.recipe.order].exchangeable
    return StepErrorTable(estimate_table(nats, seen, exchangeable, masked), states)


def states_to_replay(recipe: Recipe) -> torch.Tensor:
    """The numbers of known tokens at which a step may begin.

    Raises:
        ValueError: if an NFE of the config needs more of them.
    """
    length, most = recipe.plan.num_masked, recipe.config.nfe[-1]
    states = replay_states(length, recipe.options.num_states)
    if most > len(states):
        advice = "raise `num_states`" if len(states) < length else f"a sequence has only {length} tokens"
        raise ValueError(f"`nfe` {most} needs as many states to begin a step at, there are {len(states)}: {advice}.")
    return states
