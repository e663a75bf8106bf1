"""KLASS: what is ready, and what is revealed if nothing is. (The official runs: tests/denoisers.)"""

from typing import Any

from helpers.sampler_runs import revealed_under

from lsd_sampler import LSDScheduler


MASK = 3


def revealed(laws: list[list[list[float]]], steps: int, **options: Any) -> list[list[int]]:
    """The positions that each step reveals, for a network whose laws in call k are `laws[k]`."""
    scheduler = LSDScheduler(mask_token_id=MASK, solver="klass", solver_options=options)
    return revealed_under(scheduler, laws, steps)[0]


SURE, LESS, UNSURE = [0.96, 0.02, 0.02], [0.93, 0.05, 0.02], [0.4, 0.3, 0.3]
STILL = [SURE, LESS, SURE, UNSURE, SURE, UNSURE]


def test_what_is_confident_and_still_is_revealed_together() -> None:
    """Not before the third call: the first has nothing to be compared with."""
    assert revealed([STILL] * 3, 6) == [[0], [2], [1, 4]]


def test_what_moved_waits() -> None:
    """Position 4 had another prediction in the first call, so its second KL is large, and 1 alone is ready."""
    moved = [*STILL[:4], [0.02, 0.96, 0.02], UNSURE]
    assert revealed([moved, STILL, STILL, STILL], 6) == [[0], [2], [1], [4]]
    assert revealed([moved, STILL, STILL], 6, kl_threshold=10.0) == [[0], [2], [1, 4]]


def test_how_long_it_must_be_still() -> None:
    assert revealed([STILL] * 4, 6, history_length=3) == [[0], [2], [4], [1]]
    assert revealed([[*STILL, SURE]] * 4, 7, history_length=1)[:2] == [[0], [1, 2, 4, 6]]


def test_one_of_the_ready() -> None:
    third = [SURE, LESS, SURE, UNSURE, [0.965, 0.02, 0.015], UNSURE]
    assert revealed([STILL, STILL, third], 6, reveals="max_conf")[2] == [4]
    assert revealed([STILL, STILL, third], 6, reveals="min_kl")[2] == [1]


def test_if_nothing_is_ready_the_surest_go() -> None:
    """As many as equal shares say; the last call reveals what is left."""
    assert [len(step) for step in revealed([STILL] * 4, 4, confidence_threshold=1.0)] == [2, 2, 1, 1]
