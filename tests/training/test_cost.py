"""What a distillation will cost, foreseen."""

import pytest

from lsd_sampler import DistillConfig
from lsd_sampler.denoisers.sizes import ModelSize
from lsd_sampler.training.cost import memory, network_calls
from lsd_sampler.training.teacher_plan import TeacherPlan


PAPERS_RECIPE = 64 * 1024 + 20 * 64 * 8
"""Network calls, counted per sequence, for one NFE."""


@pytest.mark.parametrize("paths", ["data", "bootstrap"])
@pytest.mark.parametrize("length", [128, 256, 1024])
def test_all_nfes_together_cost_a_tenth_of_one_by_the_papers_recipe(paths: str, length: int) -> None:
    config = DistillConfig(method="path_kl", paths=paths, nfe=(4, 8, 16, 32, 64))
    recipe = config.resolve(TeacherPlan(length, 1, 1024, 5), paths == "data")
    assert recipe.num_sequences * (network_calls(recipe) - 1) + 1 <= PAPERS_RECIPE / 10


def test_memory_is_that_of_the_part_that_needs_most() -> None:
    """Coefficients are learned from whole batches, which a few sequences of the method itself do not fill."""
    size = ModelSize(1000, 4, length=16, columns=5, widest=8, defers_head=False)

    def total(coefficients: str, batch_size: int) -> int:
        options = {"num_sequences": 4, "nfe": (2,), "coefficients": coefficients, "batch_size": batch_size}
        recipe = DistillConfig(method="path_kl", **options).resolve(TeacherPlan(16, 1, 16, 4))
        return sum(memory(size, recipe).values())

    assert total("two_sided", 64) > total("plain", 64) == total("plain", 4)
    assert total("two_sided", 4) == total("plain", 4)
