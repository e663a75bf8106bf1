"""The metric set of texts."""

import math

import pytest
import torch
from helpers.evaluation_fakes import character_tokenizer, text_metrics, tiny_gpt2

from lsd_sampler.evaluation import JudgeNLL


def test_text_metrics_with_a_judge_always_hold_entropy() -> None:
    judge = JudgeNLL(tiny_gpt2(context=64), character_tokenizer())
    metrics = text_metrics(judge)
    sequences = 97 + torch.randint(10, (6, 50), generator=torch.Generator().manual_seed(0))
    row = metrics.compute(sequences)
    assert set(metrics.keys) == set(row)
    assert row["judge_nll_low"] <= row["judge_nll"] <= row["judge_nll_high"]
    assert row["js_char_sum"] == pytest.approx(row["js_char_3gram"] + row["js_char_4gram"])
    assert row["judge_nll"] == pytest.approx(judge.score_ids(sequences).mean)
    assert row["perplexity"] == pytest.approx(math.exp(row["judge_nll"]))
    assert row["word_nll"] == pytest.approx(row["judge_nll"] * 49)  # each sample is one word of 50 characters
    metrics.max_judged = 2
    assert metrics.compute(sequences)["judge_nll"] == pytest.approx(judge.score_ids(sequences[:2]).mean)
    with pytest.raises(ValueError, match="equally many"):
        metrics.compute(sequences, ["one"])
