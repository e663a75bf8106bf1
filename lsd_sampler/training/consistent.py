"""Sequences that a model made, without those that it contradicts itself.

A network that is not exact may make a sequence in one order, and give it almost no probability in another. Such a
sequence costs every sampler so much that it hides the differences between them. Real sequences are never left out.

Shape suffixes: S sequences.
"""

import torch

from ..sampling.left_out import is_predicted
from .held_out import HeldOutBatch, held_out_nats, with_other_noise
from .paths import made_once, of_forward_process
from .task import Task


MOST_CALLS = 32
FAR_OUT = 3.0
"""Interquartile ranges above the third quartile beyond which a sequence counts as contradicted (Tukey's fence)."""


def consistent(task: Task, batches: list[HeldOutBatch]) -> tuple[list[HeldOutBatch], torch.Tensor]:
    """The sequences, with another one of the same batch in place of each that the model contradicts; and the index of
    each among those given, `(S,)`.

    Each is forced upon the base solver in random order, with up to `MOST_CALLS` calls, under noise that it was not
    made with.

    Args:
        task ([`Task`]): logs how many were left out; keeps the costs.
        batches: the sequences of this process.
    """
    if task.recipe.source == "data":
        return batches, torch.arange(sum(len(sequences) for sequences, _ in batches))
    scheduler, M = of_forward_process(task).base, min(MOST_CALLS, task.plan.num_masked)

    def make() -> dict[str, torch.Tensor]:
        runs = with_other_noise(task.runs)
        nats_S = held_out_nats(runs, scheduler, M, batches, task.plan.never_predicted)
        task.runs.network_calls = runs.network_calls
        return {"nats": nats_S / _num_counted(task, batches)}

    config = {name: value for name, value in dict(scheduler.config).items() if name[0] != "_"}
    recipe = task.recipe
    identity = {
        "consistent": M, "scheduler": config, "source": recipe.source, "solver": recipe.teacher_solver,
        "steps": recipe.source_steps, "seed": task.config.seed,
        "sequences": [list(sequences) for sequences, _ in batches],
    }  # fmt: skip
    stored = made_once(task, "consistent", identity, make)
    low, high = task.workers.concatenate(stored["nats"]).quantile(torch.tensor([0.25, 0.75]).double()).tolist()
    kept_S = stored["nats"] <= high + FAR_OUT * (high - low) + 1e-9
    num_left_out = int(task.workers.sum((~kept_S).sum()))
    task.log(event="consistent", left_out=num_left_out, sequences=len(kept_S) * task.workers.size)
    return _replaced(batches, kept_S)


def _num_counted(task: Task, batches: list[HeldOutBatch]) -> torch.Tensor:
    """Tokens of each sequence that may be predicted, `(S,)`, at least 1."""
    never = task.plan.never_predicted
    counted = [sum(is_predicted(final_BL, never).sum(1) for final_BL in finals) for _, finals in batches]
    return torch.cat([torch.as_tensor(each) for each in counted]).clamp(min=1).double().cpu()


def _replaced(batches: list[HeldOutBatch], kept_S: torch.Tensor) -> tuple[list[HeldOutBatch], torch.Tensor]:
    made, index, first = [], [], 0
    for sequences, finals in batches:
        kept_B = kept_S[first : first + len(sequences)]
        good = kept_B.nonzero()[:, 0].tolist() or list(range(len(sequences)))
        rows = [i if kept_B[i] else good[i % len(good)] for i in range(len(sequences))]
        made.append(([sequences[i] for i in rows], [final_BL[rows] for final_BL in finals]))
        index += [first + i for i in rows]
        first += len(sequences)
    return made, torch.tensor(index)
