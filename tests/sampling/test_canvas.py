"""The canvas of a generation: its order of revealing, whose generation it is, and the shapes that a step takes."""

from typing import Any

import pytest
import torch
from helpers.sampler_runs import seeded

from lsd_sampler.sampling.canvas import Canvas, DrawOptions, as_rows, check_known_tokens
from lsd_sampler.sampling.orders import ORDERS


def test_masked_positions_come_first_in_the_order_of_their_times() -> None:
    masked = torch.tensor([[True, False, True, True, False], [True] * 5])
    canvas = Canvas.draw(masked, ORDERS["halton"].keys, (5,), seeded(), start=0)
    assert canvas.rank_BL.sort(1).values.tolist() == [list(range(5))] * 2
    assert torch.equal(canvas.rank_BL < masked.sum(1, keepdim=True), masked)
    times = torch.zeros_like(canvas.u_BL).scatter(1, canvas.rank_BL, canvas.u_BL)
    assert bool((times.diff(dim=1)[times[:, 1:].isfinite()] >= 0).all())
    assert torch.equal(canvas.u_BL.isinf(), ~masked)


def test_a_generation_goes_on_forwards_with_its_own_generator() -> None:
    masked, generator = torch.ones(2, 4, dtype=torch.bool), seeded()
    canvas = Canvas.draw(masked, None, (4,), generator, start=3)
    assert canvas.goes_on(4, masked, generator) and canvas.goes_on(4, masked, None)
    assert not canvas.goes_on(3, masked, generator)
    assert not canvas.goes_on(4, masked, seeded())
    assert not canvas.goes_on(4, masked[:1], generator)


@pytest.mark.parametrize("options", [{"top_p": 0.0}, {"top_p": -0.1}, {"top_k": 1.5}])
def test_draws_that_keep_no_token_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
        DrawOptions(**options)


def test_image_logits_are_views_of_rows() -> None:
    output, sample = torch.randn(2, 6, 3, 4), torch.full((2, 3, 4), 6)
    logits, rows = as_rows(output, sample, 6, None)
    assert rows.shape == (2, 12) and logits.data_ptr() == output.data_ptr()
    assert torch.equal(logits[1, 7], output[1, :, 1, 3])


def test_what_does_not_fit_is_named() -> None:
    output, sample = torch.zeros(2, 4, 6), torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="`sample` must hold int64"):
        as_rows(output, sample.int(), 6, None)
    with pytest.raises(ValueError, match=r"must have shapes .* got \(2, 4, 6\) and \(2, 5\)"):
        as_rows(output, torch.zeros(2, 5, dtype=torch.int64), 6, None)
    with pytest.raises(ValueError, match="6 columns, which does not fit `vocab_size` 9"):
        as_rows(output, sample, 6, 9)
    check_known_tokens(torch.tensor([0, 5]), 6)
    with pytest.raises(ValueError, match="outside the 6 columns"):
        check_known_tokens(torch.tensor([6]), 6)
