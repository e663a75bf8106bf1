"""Predictor-corrector: how steps and correctors share the calls."""

import pytest
import torch

from lsd_sampler.sampling.solvers import SOLVERS


def grid(num_steps: int) -> torch.Tensor:
    return torch.linspace(1, 1e-4, num_steps + 1, dtype=torch.float64)


def test_predictor_corrector_shares_out_its_calls() -> None:
    solver = SOLVERS["predictor_corrector"]
    for M in range(1, 70):
        for options in ({}, {"corrector_steps": 1, "corrector_entry": 1.0}, {"corrector_steps": 3}):
            resolved = solver.read_options(options)
            times, places = solver.calls(grid, M, resolved)
            assert len(places) == M and times[0] == 1 and bool((times.float().diff() < 0).all())
            assert places[0] == places[-1] == 0 and max(places) <= resolved["corrector_steps"]
            begins = [float(t) for t, place in zip(times[:-1], places, strict=True) if place == 0]
            assert begins == pytest.approx(grid(len(begins))[:-1].tolist(), rel=1e-4)
            corrected = {k - place for k, place in enumerate(places) if place}
            assert all(float(times[k]) <= resolved["corrector_entry"] + 1e-9 for k in corrected)
    assert max(solver.calls(grid, 64, solver.read_options(None))[1]) == 10
