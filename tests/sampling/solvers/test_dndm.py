"""DNDM: the official law of the times of positions, and that nothing is called at times that no position has."""

import itertools
from typing import Any

import pytest
import torch
from helpers.golden_files import fixture_path
from helpers.goodness_of_fit import p_value
from helpers.tiny_oracle import FALSE_ALARM
from safetensors.torch import load_file
from scipy.stats import beta as Beta

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.sampling.solvers import SOLVERS
from lsd_sampler.sampling.solvers.dndm import lowest, transition_weights


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chain(solver: str, length: int = 12, seed: int = 0, **config: Any) -> MaskedDiffusionPipeline:
    denoiser = load_denoiser(f"markov:V=4,L={length},seed={seed}")
    pipeline = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config(), solver=solver, **config))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_dndm_begun_late_goes_by_the_times_that_are_left() -> None:
    """However unlikely these were from the start: of those that wait, 197 in 200 have the third last time."""
    scheduler = LSDScheduler(mask_token_id=6, solver="dndm", solver_options={"weights": "linear_lambda"})
    scheduler.set_timesteps(200)
    canvas = torch.full((2000, 10), 6)
    first = scheduler.step(torch.zeros(2000, 10, 6), 197, canvas, generator=seeded(), return_dict=False)[0]
    known = int((first != 6).sum())
    assert p_value(torch.tensor([known, 20000 - known]).numpy(), torch.tensor([0.985, 0.015]).numpy()) > FALSE_ALARM


def test_dndm_with_equal_weights_is_tweedie() -> None:
    call = {"num_samples": 64, "num_inference_steps": 10}
    plain = chain("tweedie", count="bernoulli", sampling_eps=1e-9)(generator=seeded(), **call).sequences
    assert torch.equal(chain("dndm")(generator=seeded(), **call).sequences, plain)


def test_dndm_calls_only_at_the_times_of_positions() -> None:
    pipeline = chain("dndm", length=6)
    steps: list[torch.Tensor] = [torch.full((32, 6), 4)]
    out = pipeline(
        num_samples=32,
        num_inference_steps=200,
        generator=seeded(),
        callback_on_step_end=lambda pipeline, k, t, tensors: steps.append(tensors["sample"]),
    )
    changes = sum((a != b).any(1).long() for a, b in itertools.pairwise(steps))
    assert torch.equal(out.sequence_calls, changes) and int(changes.max()) <= 6


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("cosine", {"weights": "cosine"}),
        ("beta_17.0_5.0", {"weights": "beta", "alpha": 17.0, "beta": 5.0}),
        ("beta_3.0_3.0", {"weights": "beta", "alpha": 3.0, "beta": 3.0}),
    ],
)
def test_official_dndm_weights(key: str, options: dict[str, Any]) -> None:
    golden = load_file(fixture_path("transitions", "dndm.safetensors"))
    theirs = golden[f"{key}.T50.weights"].double()
    ours = transition_weights(50, SOLVERS["dndm"].read_options(options))
    # their Beta density goes through logarithms in float32
    torch.testing.assert_close(ours / ours.sum(), theirs / theirs.sum(), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 20, 50])
def test_official_dndm_linear_lambda(steps: int) -> None:
    """From the last time down, those that still wait take it with a probability that grows; the rest have time 0."""
    law, waiting = [0.0] * steps, 1.0
    for i in range(steps):
        law[steps - 1 - i] += waiting * i / steps
        waiting *= 1 - i / steps
    law[0] += waiting
    ours = transition_weights(steps, SOLVERS["dndm"].read_options({"weights": "linear_lambda"}))
    assert (ours / ours.sum()).tolist() == pytest.approx(law, rel=1e-12)
    if steps == 20:  # peaked, as 400,000 draws of the authors' code are
        assert law[13:16] == pytest.approx([0.131, 0.145, 0.145], abs=1e-3) and law[19] == 0


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 24])
@pytest.mark.parametrize(("alpha", "beta"), [(5, 3), (3, 3), (17, 5), (20, 5), (100, 4), (1, 1), (1.5, 2.25)])
def test_official_dndm_beta_of_few_steps(alpha: float, beta: float, steps: int) -> None:
    """Below half of the training steps a time is M times a draw, rounded down; from half on, the density decides."""
    options = {"weights": "beta", "alpha": alpha, "beta": beta}
    ours = transition_weights(steps, SOLVERS["dndm"].read_options({**options, "training_steps": 2 * steps + 1}))
    law = torch.from_numpy(Beta(alpha, beta).cdf([k / steps for k in range(steps + 1)])).diff()
    torch.testing.assert_close(ours / ours.sum(), law, rtol=0, atol=1e-9)
    ours = transition_weights(steps, SOLVERS["dndm"].read_options({**options, "training_steps": 2 * steps}))
    density = torch.from_numpy(Beta(alpha, beta).pdf(torch.linspace(0, 1, steps, dtype=torch.float64).numpy()))
    if steps > 2:  # else it may be 0
        torch.testing.assert_close(ours / ours.sum(), density / density.sum(), rtol=1e-9, atol=1e-12)


def test_official_dndm_lowest_scores() -> None:
    golden = load_file(fixture_path("transitions", "dndm.safetensors"))
    scores, mask = golden["topk.scores"], golden["topk.mask"]
    among = torch.ones_like(mask)
    assert torch.equal(lowest(scores, golden["topk.cutoff"][:, 0], among), mask)
