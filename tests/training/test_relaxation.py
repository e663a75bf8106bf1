"""The relaxed start: how far from the teacher's canvas a student begins."""

import pytest
import torch

from lsd_sampler import DistillConfig
from lsd_sampler.training.relaxation import RelaxedStart
from lsd_sampler.training.teacher_plan import TeacherPlan


@pytest.mark.parametrize("filler", ["random", "teacher"])
def test_a_relaxed_canvas_is_within_the_distance(filler: str) -> None:
    """Of each row's masked positions a share, rounded down; given tokens stay, and no mask is put in."""
    masked = torch.ones(3, 40, dtype=torch.bool)
    masked[1, :25], masked[2, 1:] = False, False
    final = torch.tensor([0, 1, 3, 4, 5])[torch.randint(0, 5, (3, 40))]
    config = DistillConfig(method="lsd+", relaxation=0.3, relaxation_filler=filler)
    recipe = config.resolve(TeacherPlan(40, 1, 40, 6))
    relaxed = RelaxedStart.draw(masked, final, range(3), 0, recipe)
    for mask_token_id, columns in ((6, 6), (6, 7), (2, 7)):
        start = final.masked_fill(masked, mask_token_id)
        filled = relaxed.fill(start, columns, mask_token_id)
        changed = filled != start
        assert changed.sum(1).tolist() == [12, 4, 0]
        assert bool((masked | ~changed).all())
        assert 0 <= int(filled[changed].min()) and int(filled[changed].max()) < columns
        if filler == "teacher":
            assert torch.equal(filled[changed], final[changed])
        else:
            assert not bool((filled[changed] == mask_token_id).any()) and len(filled[changed].unique()) > 2
    alone = RelaxedStart.draw(masked[1:2], final[1:2], [1], 0, recipe)
    assert torch.equal(alone.fill(start[1:2], 7, 2), relaxed.fill(start, 7, 2)[1:2])
    other = RelaxedStart.draw(masked, final, range(3), 1, recipe)
    assert not torch.equal(other.chosen_BL, relaxed.chosen_BL)


def test_relaxation_is_of_students() -> None:
    assert DistillConfig(method="lsd+").relaxation == 0.05 and DistillConfig(method="lsd").relaxation == 0
    for method in ("path_kl", "jys"):
        with pytest.raises(ValueError, match="`relaxation`"):
            DistillConfig(method=method, nfe=(2,), relaxation=0.1)
    for name, value in (("relaxation", 1.5), ("relaxation", "much"), ("relaxation_filler", "zeros"), ("variant", "x")):
        with pytest.raises(ValueError, match=f"`{name}`"):
            DistillConfig(method="lsd+", **{name: value})
