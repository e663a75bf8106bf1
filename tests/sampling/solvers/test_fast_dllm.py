"""Fast-dLLM: which confidences are enough, by a threshold and by a factor."""

import pytest
import torch

from lsd_sampler.sampling.solvers import SOLVERS
from lsd_sampler.sampling.solvers.fast_dllm import FastDLLM


def accepted(name: str, confidences: list[float], **options: float) -> list[bool]:
    """For confidences from the highest to the lowest; 0 where nothing is masked."""
    solver = SOLVERS[name]
    assert isinstance(solver, FastDLLM)
    confidence, rank = torch.tensor([confidences], dtype=torch.float64), torch.arange(len(confidences))[None]
    return solver.accepts(confidence, rank, solver.read_options(options))[0].tolist()


def test_the_threshold_itself_is_enough() -> None:
    assert accepted("fast_dllm_threshold", [0.9, 0.75, 0.7], threshold=0.75) == [True, True, False]


@pytest.mark.parametrize(
    ("confidences", "expected"),
    [
        ([0.9, 0.7, 0.5, 0.4], [True, True, False, False]),  # 2/3 is asked of the second, 3/4 of the third
        ([0.9, 0.85, 0.8, 0.1], [True] * 4),  # the last one alone fails
        ([0.3, 0.2, 0.0, 0.0], [True, True, False, False]),  # two masked positions both are revealed
        ([0.9, 0.6, 0.6, 0.6], [True, False, False, False]),
    ],
)
def test_more_tokens_need_more_confidence(confidences: list[float], expected: list[bool]) -> None:
    assert accepted("fast_dllm_factor", confidences, factor=1.0) == expected
