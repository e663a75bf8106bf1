"""The last part of the default recipe: coefficients of the log-score, by the two-sided criterion (see `two_sided`), on
top of the schedule and the order that were learned.

The reference is data if enough of it is given; otherwise, it consists of sequences that the base solver makes in a few
steps, in low-discrepancy order.
"""

import dataclasses

import torch

from ..sampling.learned_numbers import LearnedSampler, LearnedSteps
from ..sampling.left_out import LEFT_OUT, is_predicted
from ..scheduling_lsd import LSDScheduler
from .method import METHODS, Method
from .paths import bootstrapped_paths
from .recipe import Recipe
from .recording import UnequalLengths
from .shared_options import SharedOptions
from .task import Task
from .two_sided import two_sided, two_sided_calls


MAX_REFERENCES = 4096
"""Number of real sequences to compare with; more would add little."""


def wanted(config: SharedOptions, method: Method) -> bool:
    """Whether coefficients of the log-score are learned for a sampler of this method.

    Args:
        config ([`DistillConfig`]): the options of the run.
        method ([`Method`]): the method that learned the sampler; in a run that chooses, the winner.
    """
    chosen = METHODS[config.method].chooses
    if config.coefficients is None:
        return chosen and method.leaves_coefficients
    return config.coefficients == "two_sided" and not (chosen and method.learns_coefficients)


def with_coefficients(task: Task, learned: LearnedSampler) -> LearnedSampler:
    """The same sampler with coefficients for each NFE of the config.

    Args:
        task ([`Task`]): its `base` has the sampler's order.
        learned ([`LearnedSampler`]): what a method learned.

    Raises:
        ValueError: if coefficients were asked for and there are no sequences to compare with.
    """
    part = dataclasses.replace(task, progress=task.progress.part("coefficients"))
    scheduler = LSDScheduler.from_config(task.base.config)
    scheduler.set_learned_sampler(learned)
    try:
        steps = two_sided(
            task.runs,
            scheduler,
            task.config.nfe,
            reference_sequences(part),
            num_sequences=task.config.coefficient_sequences,
            batch_size=task.config.batch_size,
            row_length=task.plan.row_length or None,
            log=task.log,
            progress=part.progress,
            workers=task.workers,
        )
    except UnequalLengths as error:
        if task.config.coefficients is not None:
            raise
        task.log(event="log_score_coefficients", left_out=str(error))
        return learned
    # processes on unlike machines may differ in the last bits
    steps = {M: LearnedSteps(*task.workers.broadcast(tuple(vars(s).values()))) for M, s in steps.items()}
    return dataclasses.replace(learned, steps=steps)


def reference_sequences(task: Task) -> torch.Tensor:
    """The sequences that samples are compared with, `(num, seq_len)`, the same in all processes; `LEFT_OUT` where a
    token is never predicted.
    """
    if task.data is not None and len(task.data) >= task.config.reference_sequences:
        data = task.data[:MAX_REFERENCES]
        return data.masked_fill(~is_predicted(data, task.plan.never_predicted), LEFT_OUT)
    num = task.workers.multiple(task.config.reference_sequences)
    recipe = dataclasses.replace(task.recipe, num_sequences=num)
    first = task.num_sequences + task.config.held_out_sequences
    later = dataclasses.replace(task, recipe=recipe, first=first)
    batches = [torch.cat([path.final_BL for path in paths], dim=1) for paths in bootstrapped_paths(later)]
    lengths = torch.tensor([[min(batch.shape[1] for batch in batches), max(batch.shape[1] for batch in batches)]])
    if len(task.workers.concatenate(lengths).unique()) > 1:  # the same answer in all processes
        raise UnequalLengths(
            "Sequences differ in length from batch to batch (a pipeline pads prompts to the longest), so samples"
            " cannot be compared with them: use prompts of equal length, or `coefficients` 'plain'."
        )
    return task.workers.concatenate(torch.cat(batches))


def network_calls(recipe: Recipe) -> int:
    """At most `C (batches min(64, L) + batches points sum of the NFEs)`; the first term is for the reference."""
    config, canvases = recipe.config, recipe.plan.num_canvases
    batches = -(-config.reference_sequences // config.batch_size)
    made = canvases * batches * recipe.bootstrap_steps
    return made + two_sided_calls(config.nfe, canvases, config.coefficient_sequences, config.batch_size)
