"""What any learned sampler says of itself."""

from dataclasses import replace

import torch

from lsd_sampler.learned.description import describe_sampler
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps, StepErrorTable


def test_any_learned_sampler_can_be_described() -> None:
    """Also one of log-score coefficients, or of a table alone, without a record."""
    times = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    steps = replace(LearnedSteps.plain(times), log_score_coefficients=torch.tensor([1.0, 1.5], dtype=torch.float64))
    said = describe_sampler("mine", LearnedSampler({2: steps}), [])
    assert said.rows == (("2", "1.0000 0.5000 0.2500", "1.0000 1.0000", "1.0000 1.5000"),)
    assert said.lines[-1] == "   2 calls  log_score_coefficients: 1.0000 1.5000"
    assert said.times == {2: [1.0, 0.5, 0.25]} and said.coefficients == {2: [1.0, 1.5]}
    assert said.table().splitlines()[1] == "|--:|:--|:--|:--|"
    table = StepErrorTable(torch.ones(2, 4, dtype=torch.float64), torch.tensor([0, 2]))
    said = describe_sampler("mine", LearnedSampler({}, table), [])
    assert "any number of calls up to 2" in said.gain and said.rows == () and said.times == {}
