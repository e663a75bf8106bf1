"""What a distillation will cost, foreseen, as `lsd-train --dry-run` prints it."""

from dataclasses import replace

from ..denoisers.sizes import ModelSize
from . import coefficients
from .method import method_of
from .recipe import Recipe


def network_calls(recipe: Recipe) -> int:
    """Network calls of a distillation, each on a batch; an upper bound for a method that searches.

    With several processes, this is the number for each. (A canvas that is full before its last step, as the rest of a
    block after a prompt can be, may take fewer.)
    """
    calls = method_of(recipe).network_calls(recipe)
    calls += calls_to_look(recipe)
    if recipe.plan.has_mask and _given_coefficients(recipe):  # an upper bound: any candidate may win
        calls += coefficients.network_calls(recipe)
    return calls


def calls_to_look(recipe: Recipe) -> int:
    """Network calls that show what of real sequences is given: `C` for each batch, or none if nothing is."""
    if recipe.source != "data" or recipe.plan.is_whole:
        return 0
    return recipe.plan.num_canvases * -(-method_of(recipe).num_data(recipe) // recipe.config.batch_size)


def memory(size: ModelSize, recipe: Recipe) -> dict[str, int]:
    """Peak memory on one device in bytes, by what needs it; an estimate.

    Args:
        size ([`ModelSize`]): the denoiser's size.
        recipe ([`Recipe`]): what the run does.
    """
    # for coefficients whole batches are sampled
    sampled = [replace(each, num_sequences=recipe.config.batch_size) for each in _given_coefficients(recipe)]
    needs = [method_of(each).memory(size, each) for each in (recipe, *sampled)]
    return max(needs, key=lambda need: sum(need.values()))


def _given_coefficients(recipe: Recipe) -> list[Recipe]:
    """The possible results on top of which coefficients would be learned."""
    outcomes = method_of(recipe).outcomes(recipe)
    return [each for each in outcomes if coefficients.wanted(recipe.config, method_of(each))]
