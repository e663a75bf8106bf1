"""The least distance between positions of one step, against the definition: candidates one by one, best first."""

import pytest
import torch
from helpers.sampler_runs import MASK, fixed_model, generate, seeded
from hypothesis import given
from hypothesis import strategies as st

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.spacing import keeping_distance


RULES = [
    *({"order": order, "confidence_temperature": 0.0} for order in ("confidence", "probability", "margin", "entropy")),
    {"solver": "entropy_bounded", "solver_options": {"gamma": 5.0}},
    {"solver": "fast_dllm_threshold", "solver_options": {"threshold": 0.3}},
    {"solver": "fast_dllm_factor", "solver_options": {"factor": 3.0}},
]


def one_by_one(places: list[int], among: list[bool], gap: int) -> list[bool]:
    taken: list[int] = []
    for i in sorted(range(len(places)), key=places.__getitem__):
        if among[i] and all(abs(i - a) >= gap for a in taken):
            taken.append(i)
    return [i in taken for i in range(len(places))]


@given(
    length=st.integers(1, 20), gaps=st.lists(st.integers(1, 25), min_size=1, max_size=4), seed=st.integers(0, 10_000)
)
def test_the_definition(length: int, gaps: list[int], seed: int) -> None:
    """Rows of a batch with gaps of their own."""
    generator = seeded(seed)
    places = torch.stack([torch.randperm(length, generator=generator) for _ in gaps])
    among = torch.rand(len(gaps), length, generator=generator) < 0.6
    taken = keeping_distance(places, among, torch.tensor(gaps))
    expected = [one_by_one(*row) for row in zip(places.tolist(), among.tolist(), gaps, strict=True)]
    assert taken.tolist() == expected


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_positions_of_one_step_keep_their_distance(rule: dict) -> None:
    """`max(2, m g // n)` with m of n masks left; what is held back comes later, and no mask is left."""
    canvas = torch.full((6, 24), MASK)
    canvas[3, 5:9] = 0

    def path(**options: int) -> list[torch.Tensor]:
        scheduler = LSDScheduler(mask_token_id=MASK, **rule, **options)
        return generate(scheduler, fixed_model(canvas, MASK), canvas, 12, generator=seeded())

    steps, moved = path(minimal_gap=8), 0
    for before, after in zip(steps[:-2], steps[1:-1], strict=True):
        for b in range(len(canvas)):
            at = ((before[b] == MASK) & (after[b] != MASK)).nonzero()[:, 0]
            left, total = int((before[b] == MASK).sum()), int((canvas[b] == MASK).sum())
            assert bool((at.diff() >= max(2, left * 8 // total)).all())
            moved += len(at) > 1
    assert moved and not (steps[-1] == MASK).any()
    assert torch.equal(steps[-1][3, 5:9], canvas[3, 5:9])
    assert not all(torch.equal(a, b) for a, b in zip(steps, path(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(path(minimal_gap=0), path(), strict=True))


@pytest.mark.parametrize("order", ["confidence", "margin"])
def test_the_best_candidate_is_taken_first(order: str) -> None:
    logits = torch.zeros(1, 6, MASK, dtype=torch.float64)
    logits[0, :, 0] = torch.tensor([1.0, 3.0, 4.0, 2.0, 0.5, 1.5])
    scheduler = LSDScheduler(mask_token_id=MASK, order=order, confidence_temperature=0.0, minimal_gap=2)
    scheduler.set_timesteps(2)
    out = scheduler.step(logits, 0, torch.full((1, 6), MASK), temperature=0.0)
    assert out.transfer_index[0].nonzero()[:, 0].tolist() == [0, 2, 5]  # 1 and 3 lie next to 2


def test_what_has_no_use_for_it_is_named() -> None:
    refused = ({"order": "random"}, {"order": "bisection"}, {"order": "adaptive"}, {"solver": "dndm"})
    for options in refused:
        with pytest.raises(ValueError, match="`minimal_gap` 4.*takes none"):
            LSDScheduler(mask_token_id=MASK, minimal_gap=4, **options)
    for value in (-1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="`minimal_gap` must be an integer"):
            LSDScheduler(mask_token_id=MASK, order="margin", minimal_gap=value)


def test_an_image_has_no_such_distance() -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, order="margin", minimal_gap=4)
    scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match="`minimal_gap`.*image"):
        scheduler.step(torch.randn(1, MASK, 3, 3), 0, torch.full((1, 3, 3), MASK))
