"""The metric set of token sequences."""

from typing import Any

import pytest
import torch

from lsd_sampler.evaluation import TokenMetrics


def test_tokens_without_texts_are_compared_by_tokens() -> None:
    reference = torch.randint(5, (30, 6), generator=torch.Generator().manual_seed(0))
    metrics = TokenMetrics(reference, num_resamples=10)
    same, other = metrics.compute(reference), metrics.compute(torch.zeros(30, 6, dtype=torch.long))
    assert set(metrics.keys) == set(same)
    assert same["js_token_sum"] == 0.0 < other["js_token_sum"] == metrics.verdict(torch.zeros(30, 6).long())
    short = metrics.compute(reference[:, :3])
    assert short["distinct_4"] is None and short["distinct_3"] > 0
    with pytest.raises(ValueError, match="`mauve` needs"):
        TokenMetrics(reference, mauve=True)
    with pytest.raises(ValueError, match="`reference`"):
        TokenMetrics(reference[:0])


def test_features_add_an_energy_distance_to_as_many_references() -> None:
    reference = torch.randint(5, (30, 6), generator=torch.Generator().manual_seed(0))
    asked: list[int] = []

    def features(sequences: torch.Tensor, texts: Any) -> torch.Tensor:
        asked.append(len(sequences))
        return sequences.float()

    metrics = TokenMetrics(reference, features=features, num_resamples=10)
    row = metrics.compute(reference[:20] + 2)
    again = metrics.compute(reference[:20] + 2)
    assert set(metrics.keys) == set(row) and row == again
    assert asked == [20, 20, 20]  # samples, references once, samples
    assert row["energy_distance_low"] <= row["energy_distance"] <= row["energy_distance_high"]
    assert row["energy_distance_low"] > 0
    with pytest.raises(ValueError, match="too few"):
        metrics.compute(torch.zeros(31, 6, dtype=torch.long))
