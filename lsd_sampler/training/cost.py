"""What a distillation will cost, foreseen, as `lsd-train --dry-run` prints it."""

from dataclasses import replace

from ..denoisers.sizes import ModelSize
from . import coefficients
from .method import method_of
from .recipe import Recipe


def network_calls(recipe: Recipe) -> int:
    """Calls of the network, each on a batch, that a distillation makes; of a method that searches, at most.

    Of several processes, those of each. (A canvas that is full before its last step, as the rest of a block after a
    prompt can be, may take fewer.)
    """
    calls = method_of(recipe).network_calls(recipe)
    if recipe.plan.has_mask and _given_coefficients(recipe):  # at most: whichever candidate wins
        calls += coefficients.network_calls(recipe)
    return calls


def memory(size: ModelSize, recipe: Recipe) -> dict[str, int]:
    """Peak memory on one device in bytes, by what needs it; an estimate.

    Args:
        size ([`ModelSize`]): of the denoiser.
        recipe ([`Recipe`]): of the run.
    """
    # for coefficients whole batches are sampled
    sampled = [replace(each, num_sequences=recipe.config.batch_size) for each in _given_coefficients(recipe)]
    needs = [method_of(each).memory(size, each) for each in (recipe, *sampled)]
    return max(needs, key=lambda need: sum(need.values()))


def _given_coefficients(recipe: Recipe) -> list[Recipe]:
    """Those of the possible results that coefficients would be learned on top of."""
    outcomes = method_of(recipe).outcomes(recipe)
    return [each for each in outcomes if coefficients.wanted(recipe.config, method_of(each))]
