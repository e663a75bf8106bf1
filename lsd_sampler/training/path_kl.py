"""path_kl: the schedule that minimises the path KL, for every number of steps at once.

By the chain rule, the KL from the law of the teacher's paths to a sampler that reveals, in one step, all positions
with ranks in `[s, e)` is a sum over those positions of the KL between what the teacher predicted when it revealed them
and what is predicted at s. One table of such terms, measured along teacher paths, prices every possible step; the best
schedule is then a shortest path. For the random-order case see https://huggingface.co/papers/2511.04647 and
https://huggingface.co/papers/2510.25544.
"""

import torch
from tqdm.auto import tqdm

from ..sampling.learned_numbers import LearnedSampler, LearnedSteps, StepErrorTable
from ..sampling.orders import ORDERS
from ..sampling.schedules import grid_from_counts, replay_states
from .config import METHODS, NETWORK_CALLS, DistillConfig
from .paths import source_paths, source_steps
from .recording import StepErrorRecorder, TeacherPlan
from .task import Task


def path_kl(task: Task) -> LearnedSampler:
    """Measures the step-error table along teacher paths, and solves it for each NFE of the config."""
    step_error = measure_step_errors(task)
    # what a step at every state costs; where there is a state per token, that is the teacher's cost
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


def network_calls(config: DistillConfig, plan: TeacherPlan) -> int:
    """`C (1 + batches (N + G))`: N steps of the teacher, those of the bootstrap, or 0 with data.

    Raises:
        ValueError: if an NFE of the config needs more states.
    """
    states = len(states_to_replay(config, plan.num_masked))
    return plan.num_canvases * (1 + config.num_batches * (source_steps(config, plan) + states))


METHODS.register("path_kl", path_kl)
NETWORK_CALLS.register("path_kl", network_calls)


def measure_step_errors(task: Task) -> StepErrorTable:
    """The step-error table: one run of the pipeline for each batch of sequences, beside what these cost."""
    recorder = StepErrorRecorder.from_config(task.base.config)
    recorder.never_predicted = task.plan.never_predicted
    states = states_to_replay(task.config, task.plan.num_masked)
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
    # whole canvases of data are masked by rank; what of them was left out is to be filled in
    masked = None if task.data is None else torch.arange(task.plan.num_masked) >= states[:, None]
    exchangeable = ORDERS[task.config.resolved_order].exchangeable
    return StepErrorTable(estimate_table(nats, seen, exchangeable, masked), states)


def states_to_replay(config: DistillConfig, length: int) -> torch.Tensor:
    """The numbers of known tokens at which a step may begin.

    Raises:
        ValueError: if an NFE of the config needs more of them.
    """
    states = replay_states(length, config.num_states)
    if config.nfe[-1] > len(states):
        advice = "raise `num_states`" if len(states) < length else f"a sequence has only {length} tokens"
        raise ValueError(
            f"`nfe` {config.nfe[-1]} needs as many states to begin a step at, there are {len(states)}: {advice}."
        )
    return states


def estimate_table(
    nats_GL: torch.Tensor, seen_GL: torch.Tensor, exchangeable: bool, masked_GL: torch.Tensor | None = None
) -> torch.Tensor:
    """Means by state and rank, made non-increasing in the state: a later context cannot be worse in expectation.

    Args:
        nats_GL, seen_GL (`torch.DoubleTensor` of shape `(num_states, seq_len)`): sums, and how many terms they have.
        exchangeable (`bool`): whether all ranks have one expectation at a state (random order); they are then pooled.
        masked_GL (`torch.BoolTensor` of that shape, *optional*): where a position is masked; default: where it was
            seen. Of a rank that was never seen the mean is that of all.

    Returns:
        `torch.DoubleTensor` of shape `(num_states, seq_len)`; 0 where the position is known.
    """
    masked_GL = seen_GL > 0 if masked_GL is None else masked_GL
    table_GL = _means(nats_GL.sum(1), seen_GL.sum(1))[:, None] * masked_GL
    if not exchangeable:
        for rank in (seen_GL.sum(0) > 0).nonzero()[:, 0].tolist():
            table_GL[:, rank] = _means(nats_GL[:, rank], seen_GL[:, rank]) * masked_GL[:, rank]
    return table_GL


def _means(nats_G: torch.Tensor, seen_G: torch.Tensor) -> torch.Tensor:
    """Non-increasing means; where nothing was seen, that of the state before (of the first, that after)."""
    is_seen_G = seen_G > 0
    means = isotonic_decreasing(nats_G[is_seen_G] / seen_G[is_seen_G], seen_G[is_seen_G])
    return means[(is_seen_G.cumsum(0) - 1).clamp(min=0)]


def isotonic_decreasing(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The non-increasing sequence nearest in weighted least squares (pool adjacent violators). 1-D tensors."""
    blocks: list[list[float]] = []  # value, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            v2, w2, n2 = blocks.pop()
            v1, w1, n1 = blocks.pop()
            blocks.append([(v1 * w1 + v2 * w2) / (w1 + w2), w1 + w2, n1 + n2])
    return torch.tensor([v for v, _, n in blocks for _ in range(int(n))], dtype=values.dtype)
