"""How many tokens the published code of LLaDA and Dream reveals in each step. (Exact and Bernoulli counts follow from
the noise schedule; [`~lsd_sampler.sampling.plan.StepPlan`] computes them. Levels are those of an order.)

Shape suffixes: B batch.
"""

import torch

from ..support.validation import check_choice


COUNTS = ("exact", "bernoulli")
"""Counts that follow from times and coefficients, and so can be learned."""

PUBLISHED_COUNTS = ("llada", "dream")
"""Counts that follow from the number of steps alone."""

LEVELS = "levels"
"""The counts of an order's own levels ([`~lsd_sampler.sampling.orders.LevelOrder`])."""


def check_count(count: str, **others: tuple[str, bool]) -> None:
    """Checks the name of a count.

    Args:
        count (`str`): the name.
        others: the values of other arguments of the scheduler, and whether each goes with counts that do not follow
            from the times.

    Raises:
        ValueError: if there is no such count, or one of the others contradicts it.
    """
    check_choice("count", count, (*COUNTS, *PUBLISHED_COUNTS, LEVELS))
    for argument, (value, fits) in others.items():
        if count not in COUNTS and not fits:
            raise ValueError(
                f"`count` {count!r} fixes how many tokens each step reveals, so `{argument}` {value!r} would have no"
                " effect: leave one of them out."
            )


def llada_known(masked_B: torch.Tensor, step: int, num_steps: int) -> torch.Tensor:
    """How many of the tokens masked at the start are known after step `step` (from 0) of `num_steps`: equal shares,
    with the remainder in the first steps (https://huggingface.co/papers/2502.09992). `(B,)`.
    """
    share_B, remainder_B = masked_B // num_steps, masked_B % num_steps
    return (step + 1) * share_B + remainder_B.clamp(max=step + 1)


def llada_revealed(masked_B: torch.Tensor, step_B: torch.Tensor, num_steps_B: torch.Tensor) -> torch.Tensor:
    """How many of them each step reveals; steps and their numbers may differ between rows. `(B,)`."""
    return masked_B // num_steps_B + (step_B < masked_B % num_steps_B)


def dream_revealed(left_B: torch.Tensor, step: int, num_steps: int, eps: float) -> torch.Tensor:
    """How many of the `left_B` masked tokens step `step` reveals: `left * (1 - s / t)` on a grid down to `eps`,
    rounded down, all in single precision (Dream 7B, https://huggingface.co/papers/2508.15487). `(B,)`.

    The authors take the mean over the batch; here each sequence has the number for its own masks.
    """
    t, s = torch.linspace(1, eps, num_steps + 1, dtype=torch.float32)[step : step + 2]
    return left_B if step == num_steps - 1 else (left_B.float() * (1 - s / t).to(left_B.device)).long()
