"""Metrics of exact oracles, against sums by hand, exact samples and samplers whose faults are known.

Random tests have fixed seeds; each states how often a right metric would fail with another one.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.cli import evaluate
from lsd_sampler.denoisers import Oracle, TableDenoiser, hidden_chain, random_chain, second_order_chain, sudoku4
from lsd_sampler.evaluation import (
    FillMetrics,
    Harness,
    OracleMetrics,
    SetMetrics,
    bootstrap_weights,
    exact_samples,
    forbidden_samples,
    grouped_weights,
    oracle_metrics,
    oracle_statistics,
    sequence_l2,
    spread,
)


PAIRS = TableDenoiser(torch.tensor([[0, 0], [0, 1], [1, 1]]), torch.tensor([2.0, 1.0, 1.0]))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- sets ----


def test_set_metrics_by_hand() -> None:
    samples = torch.tensor([[0, 0], [0, 0], [0, 0], [0, 1], [1, 0], [1, 0]])  # (1, 1) is missing, (1, 0) impossible
    row = SetMetrics(PAIRS).compute(samples)
    assert (row["valid_share"], row["invalid_share"]) == (pytest.approx(4 / 6), pytest.approx(2 / 6))
    assert row["distinct_valid"] == 2
    # expected of 4 possible samples: 2, 1, 1
    assert row["spread_ratio"] == pytest.approx((1 / 2 + 0 + 1) / 2) and row["spread_p_value"] is None
    # pairs of different samples that are equal: 3 + 1 of 15
    square = (4 + 1 + 1) / 16
    mean_p = (3 * 0.5 + 0.25) / 6
    assert row["sequence_l2"] == pytest.approx((4 / 15 - 2 * mean_p + square) / square)
    assert SetMetrics(PAIRS).verdict(samples) == row["sequence_l2"] and SetMetrics(PAIRS).verdict_key == "sequence_l2"


def test_spread_is_pearsons_chi_square() -> None:
    samples = PAIRS.sample(400, generator())
    found = spread(samples, PAIRS.log_prob(samples), 3)
    observed = (samples @ torch.tensor([1, 2])).bincount(minlength=4)[[0, 2, 3]]
    expected = chisquare(observed.numpy(), [200, 100, 100])
    assert found is not None and found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.ratio == pytest.approx(expected.statistic / 2)
    assert spread(torch.tensor([[1, 0]]), PAIRS.log_prob(torch.tensor([[1, 0]])), 3) is None


def test_exact_samples_pass_and_lost_variety_does_not() -> None:
    """288 grids, 2,048 samples: the distance of exact ones has a standard deviation of 0.012; 0.06 is five of them."""
    oracle, metrics = sudoku4(), SetMetrics(sudoku4())
    right = metrics.compute(oracle.sample(2048, generator()))
    assert right["valid_share"] == 1 and abs(right["sequence_l2"]) < 0.06
    assert right["spread_p_value"] > 1e-6 and abs(right["spread_ratio"] - 1) < 5 * math.sqrt(2 / 287)
    half = metrics.compute(oracle.sequences[:144][torch.randint(144, (2048,), generator=generator())])
    assert half["valid_share"] == 1 and half["distinct_valid"] == 144
    assert half["sequence_l2"] == pytest.approx(1, abs=0.1) and half["spread_p_value"] < 1e-9
    # a fifth of the samples impossible, and hardly ever equal: 0.2^2
    samples = oracle.sample(2048, generator())
    samples[:410] = torch.randint(4, (410, 16), generator=generator())
    assert metrics.compute(samples)["sequence_l2"] == pytest.approx((410 / 2048) ** 2, abs=0.06)


def test_the_distance_has_no_bias() -> None:
    """The mean over 400 sets of 20 samples, from a law that is not the true one; wrong once in a million."""
    q = torch.tensor([0.25, 0.25, 0.25, 0.25], dtype=torch.float64)
    sequences = torch.tensor(list(itertools.product(range(2), repeat=2)))
    p = PAIRS.log_prob(sequences).exp()
    exact = float((q - p).square().sum() / p.square().sum())
    g, values = generator(), []
    for _ in range(400):
        samples = sequences[torch.multinomial(q, 20, replacement=True, generator=g)]
        values.append(float(sequence_l2(samples, PAIRS.log_prob(samples), float(p.square().sum()))))
    found = torch.tensor(values)
    assert abs(found.mean() - exact) < 4.9 * found.std() / 20


def test_its_resamples_are_weighted_pairs() -> None:
    samples, weights = PAIRS.sample(12, generator()), bootstrap_weights(12, 3)
    log_p, square = PAIRS.log_prob(samples), float(PAIRS.collision_probability or 0)
    for found, w in zip(sequence_l2(samples, log_p, square, weights), weights.T.double(), strict=True):
        pairs = torch.outer(w, w).fill_diagonal_(0)
        equal = (samples[:, None] == samples).all(-1)
        expected = (pairs * equal).sum() / pairs.sum() - 2 * (w * log_p.exp()).sum() / w.sum() + square
        assert float(found) == pytest.approx(float(expected) / square)


@pytest.mark.parametrize("num", [2, 3])
def test_few_samples_are_enough(num: int) -> None:
    row = SetMetrics(PAIRS).compute(PAIRS.sample(num, generator()))
    assert all(math.isfinite(value) for value in row["sequence_l2_replicates"])


def test_large_sets_and_beginnings_are_judged_by_validity() -> None:
    oracle = load_denoiser("brackets:L=24")
    assert isinstance(oracle, Oracle)
    for metrics in (SetMetrics(oracle), SetMetrics(sudoku4(), length=8)):
        assert metrics.verdict_key == "invalid_share"
        samples = metrics.oracle.sample(16, generator())[:, :8]
        row = metrics.compute(samples)
        assert row["invalid_share"] == 0 == metrics.verdict(samples) and "spread_ratio" not in row
        assert set(row) == set(metrics.keys)
    with pytest.raises(ValueError, match="mask"):
        SetMetrics(sudoku4()).compute(torch.full((2, 16), 4))


def test_another_law_has_another_fingerprint() -> None:
    others = [
        SetMetrics(PAIRS),
        SetMetrics(sudoku4()),
        SetMetrics(sudoku4(), group=2),
        SetMetrics(sudoku4(), length=8),
    ]
    assert len({metrics.fingerprint for metrics in others}) == 4
    assert SetMetrics(sudoku4()).fingerprint == SetMetrics(sudoku4()).fingerprint


# ---- chains ----


def test_rates_by_hand() -> None:
    transition = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    samples = torch.tensor([[0, 0, 2], [1, 2, 0], [0, 1, 0]])  # from 0: 0, 2, 1; from 1: 2, 0; from 2: 0
    found = oracle_statistics(samples, transition)
    from_0 = sum(math.log((1 / 3) / q) / 3 for q in (0.5, 0.5, 1e-30))
    from_1 = sum(math.log(0.5 / q) / 2 for q in (0.5, 0.25))
    assert float(found["full_kl_rate"]) == pytest.approx((3 * from_0 + 2 * from_1) / 6)
    tv_0, tv_1 = (2 * (0.5 - 1 / 3) + 1 / 3) / 2, (0.25 + 0.25) / 2
    assert float(found["full_tv_rate"]) == pytest.approx((3 * tv_0 + 2 * tv_1) / 6)


def test_a_transition_from_two_tokens() -> None:
    """A chain of first order, said as one of second order, has the same forbidden share; and sums over triples."""
    first = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    samples = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]])
    second, contexts = first.repeat(2, 1), torch.full((4,), 0.25)
    found = oracle_statistics(samples, second, contexts=contexts)
    # triples 011, 110, 001, 010: of those the first is forbidden; each context but 01 comes once
    assert float(found["forbidden_share"]) == 1 / 4 and forbidden_samples(samples, second) == 1 / 2
    entropy = 2 / 4 * math.log(2)
    cross = -(math.log(1e-30) + math.log(0.5)) / 4
    assert float(found["full_kl_rate"]) == pytest.approx(cross - entropy)
    with pytest.raises(ValueError, match="`contexts`"):
        oracle_statistics(samples, second)


@pytest.mark.parametrize("oracle", [second_order_chain(4, 32), hidden_chain(4, 32, num_states=3), hidden_chain(6, 32)])
def test_exact_samples_of_chains_cost_the_plug_in_bias_alone(oracle: Oracle) -> None:
    """2 n times the rate is chi-square with as many degrees of freedom as transitions are free: 5 standard deviations,
    wrong less than once in a million. A tenth is left for a hidden chain, whose transitions depend on what is before.
    """
    metrics = oracle_metrics(oracle, 2000)
    memory = oracle.memory or 0
    assert isinstance(metrics, OracleMetrics) and len(metrics.transition) == oracle.vocab_size**memory
    samples = exact_samples(oracle, metrics, 2000)
    row, num = metrics.compute(samples), samples[:, memory:].numel()
    freedom = len(metrics.transition) * (oracle.vocab_size - 1)
    assert abs(2 * num * row["full_kl_rate"] - freedom) < 5 * math.sqrt(2 * freedom) + 0.1 * freedom
    assert row["full_kl_rate_low"] <= row["full_kl_rate"] <= row["full_kl_rate_high"]
    assert row["full_tv_rate"] < 0.02 and row["bigram_tv"] < 0.05 and row["forbidden_share"] == 0


def test_metrics_see_what_pairs_do_not() -> None:
    """Samples of a first-order chain with the right pairs are no samples of a second-order chain."""
    oracle = second_order_chain(3, 64, seed=2)
    pairs = oracle.ngram_law(2)
    chain = random_chain(3, 64)
    chain.transition.copy_(pairs / pairs.sum(1, keepdim=True))
    chain.initial.copy_(pairs.sum(1))
    metrics = oracle_metrics(oracle, 1000)
    right, wrong = (metrics.compute(x) for x in (oracle.sample(1000, generator()), chain.sample(1000, generator())))
    assert wrong["full_kl_rate"] > 0.05 > 50 * right["full_kl_rate"]


# ---- partly given canvases ----


def test_fills_by_hand() -> None:
    canvases = torch.tensor([[2, 2, 0], [2, 2, 0], [1, 2, 2], [1, 2, 2]])
    truth = torch.tensor([[0, 1, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1]])
    fills = torch.tensor([[0, 1, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0]])
    table = TableDenoiser(torch.tensor([[0, 1, 0], [1, 1, 1]]))
    metrics = FillMetrics(SetMetrics(table, group=2), canvases, truth, 2)
    row = metrics.compute(fills)
    assert (row["fills_differ"], row["fill_error"]) == (2 / 4, 4 / 8) and row["valid_share"] == 1 / 4
    assert set(row) == set(metrics.keys) and metrics.verdict_key == "invalid_share"
    with pytest.raises(ValueError, match="`num_samples`"):
        metrics.compute(fills[:2])


def test_two_fills_of_an_exact_sampler_differ_as_much_as_from_the_truth() -> None:
    """Both are about 0.34; their difference, over 500 canvases, has a standard deviation of 0.01."""
    oracle = load_denoiser("sudoku4:clues=4")
    assert isinstance(oracle, Oracle)
    metrics = oracle_metrics(oracle, 1000)
    row = metrics.compute(exact_samples(oracle, metrics, 1000, seed=1))
    assert row["valid_share"] == 1 and abs(row["fills_differ"] - row["fill_error"]) < 0.05
    assert 0.2 < row["fills_differ_low"] < row["fills_differ"] < row["fills_differ_high"] < 0.5


def test_groups_are_drawn_again_together() -> None:
    weights = grouped_weights(5, 2, 50)
    assert weights.shape == (5, 50) and torch.equal(weights[0], weights[1]) and torch.equal(weights[2], weights[3])
    assert torch.equal(grouped_weights(7, 1), bootstrap_weights(7))


def test_the_harness_fills_each_canvas_it_is_given() -> None:
    oracle = load_denoiser("sudoku4:clues=8")
    assert isinstance(oracle, Oracle)
    pipe = MaskedDiffusionPipeline(oracle, LSDScheduler(**oracle.scheduler_config()))
    pipe.set_progress_bar_config(disable=True)
    metrics = oracle_metrics(oracle, 10)
    assert isinstance(metrics, FillMetrics)
    seen: list[torch.Tensor] = []
    metrics.whole.compute, kept = lambda x, texts=None: seen.append(x) or kept(x), metrics.whole.compute  # type: ignore
    options = {"num_samples": 10, "batch_size": 3, "progress": False}
    harness = Harness(pipe, {"plain": pipe.scheduler}, metrics, canvases=metrics.canvases, **options)
    harness.measure(harness.points([4], [1.0]))
    given = metrics.canvases != oracle.mask_token_id
    assert torch.equal(seen[0][given], metrics.canvases[given])
    other = Harness(pipe, {"plain": pipe.scheduler}, metrics, canvases=metrics.canvases.flip(0), **options)
    assert other.identity != harness.identity
    with pytest.raises(ValueError, match="`canvases`"):
        Harness(pipe, {"plain": pipe.scheduler}, metrics, canvases=metrics.canvases[:9], **options)


@pytest.mark.parametrize(
    ("options", "without", "with_four"),
    [
        ({}, 0.20, 0.63),
        ({"order": "halton"}, 0.01, 0.46),
        ({"order": "confidence", "schedule": "cosine"}, 0.24, 0.67),
        ({"order": "margin", "confidence_temperature": 0.0}, 0.01, 0.78),
    ],
    ids=["random", "halton", "confidence", "margin"],
)
def test_figures_of_an_independent_program(options: dict[str, Any], without: float, with_four: float) -> None:
    """Valid shares at 4 calls, without clues and with four, of 2,048 samples of a program that shares no code with
    this one. Those of 512 samples here scatter by 0.022 at most, and those by 0.011: 0.12 is 5 standard deviations.
    """
    for clues, expected in ((0, without), (4, with_four)):
        oracle = load_denoiser(f"sudoku4:clues={clues}")
        assert isinstance(oracle, Oracle)
        pipe = MaskedDiffusionPipeline(oracle, LSDScheduler(**oracle.scheduler_config(), **options))
        pipe.set_progress_bar_config(disable=True)
        canvases, _ = oracle.canvases(512, generator())
        made = pipe(input_ids=canvases, num_inference_steps=4, generator=generator(1), output_type="ids").sequences
        assert float((oracle.log_prob(made) > -math.inf).double().mean()) == pytest.approx(expected, abs=0.12)


# ---- the command ----


@pytest.mark.parametrize("clues", [0, 4])
def test_the_command_tells_samplers_of_a_set_apart(clues: int, tmp_path: Path) -> None:
    """One token a call is exact; two calls are not. And the row of real data is there."""
    argv = [
        "--model",
        f"sudoku4:clues={clues}",
        "--nfe",
        "2",
        "16",
        "--num-samples",
        "300",
        "--output-dir",
        str(tmp_path),
    ]
    assert evaluate.main(argv) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    few, many, real = *summary["rows"], summary["floor"]
    assert many["valid_share"] == real["valid_share"] == 1 and few["valid_share"] < 0.4
    assert summary["verdict"] == ("invalid_share" if clues else "sequence_l2")
    assert ("fills_differ" in real) == bool(clues) and summary["protocol"]["Real data"].startswith("exact samples")
    assert "valid" in (tmp_path / "table.txt").read_text() and (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "name", ["hmm:S=3,V=4,L=16,clues=2", "markov2:V=3,L=16", "hmm:V=5,L=16", "countdown:V=4,L=16,clues=3"]
)
def test_the_command_prints_the_rates_of_chains(name: str, tmp_path: Path) -> None:
    argv = ["--model", name, "--nfe", "2", "--num-samples", "64", "--output-dir", str(tmp_path)]
    assert evaluate.main(argv) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rows"][0]["full_kl_rate"] > 0 <= summary["floor"]["full_kl_rate"]
    assert "full KL rate" in (tmp_path / "table.txt").read_text()
    assert ("fills differ" in (tmp_path / "table.txt").read_text()) == ("clues" in name)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--num-samples", "1"], "`num_samples` must be at least 2"),
        (["--num-samples", "4", "--frontier", "--temperatures", "0.9", "1"], "`--frontier` is of a likelihood"),
        (["--num-samples", "4", "--judge", "x"], "exact oracle"),
    ],
)
def test_what_a_set_has_no_use_for(
    more: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--model", "hamming", "--nfe", "2", "--output-dir", str(tmp_path), *more]) == 1
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_set_judges_the_samples_of_another_model(tmp_path: Path) -> None:
    grids = sudoku4().sequences
    table = "\n".join(" ".join(map(str, row)) for row in [*grids.tolist(), *[[0, 1, 2, 3] * 4] * 288])
    (tmp_path / "grids.txt").write_text(table)  # half of it are no grids
    argv = ["--model", f"table:{tmp_path}/grids.txt", "--oracle", "sudoku4", "--nfe", "16", "--num-samples", "400"]
    assert evaluate.main([*argv, "--output-dir", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out" / "summary.json").read_text())["rows"]
    # 400 fair coins: 0.025 is a standard deviation
    assert row["valid_share"] == pytest.approx(0.5, abs=0.125) and row["sequence_l2"] > 10
