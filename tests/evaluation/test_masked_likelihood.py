"""LLaDA's estimate of a likelihood: its formula, its mean, and the exact law where predictions are exact."""

import itertools
import math

import pytest
import torch
from helpers.tiny_answerers import MASK, tiny_denoiser

from lsd_sampler import load_denoiser
from lsd_sampler.evaluation.masked_likelihood import draw_masks, likelihood_windows, log_likelihood


GIVEN, TEXT = torch.tensor([3, 7, 9]), torch.tensor([5, 11, 6, 8])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def worth(denoiser: torch.nn.Module, masked: torch.Tensor, scale: float = 0.0) -> float:
    """One draw, written as in the paper: N / k times the log probabilities of the masked tokens."""
    canvas = torch.cat([GIVEN, torch.where(masked, MASK, TEXT)])[None]
    logits = denoiser(canvas)
    if scale:
        blind = canvas.clone()
        blind[:, : len(GIVEN)] = MASK
        logits = denoiser(blind) + (1 + scale) * (logits - denoiser(blind))
    logits[..., MASK] = -math.inf
    log_probs = logits.double().log_softmax(-1)[0, len(GIVEN) :].gather(1, TEXT[:, None])[:, 0]
    return float(len(TEXT) / masked.sum() * log_probs[masked].sum())


@pytest.mark.parametrize("scale", [0.0, 1.5])
@pytest.mark.parametrize("family", ["llada", "dream"])
def test_it_is_the_mean_of_the_draws(family: str, scale: float) -> None:
    denoiser = tiny_denoiser(family)
    masks = draw_masks(len(TEXT), 10, seeded(3))
    expected = sum(worth(denoiser, masked, scale) for masked in masks) / 10
    for batch_size in (1, 4, 64):
        options = {"num_draws": 10, "batch_size": batch_size, "guidance_scale": scale}
        found = log_likelihood(denoiser, GIVEN, TEXT, generator=seeded(3), **options)
        assert found == pytest.approx(expected, abs=1e-4)


def test_its_mean_is_that_over_all_masks() -> None:
    """Over 400 estimates of 8 draws; 4.5 standard errors, a false alarm in 150,000."""
    denoiser, N = tiny_denoiser("llada"), len(TEXT)
    expected = 0.0
    for masked in itertools.product([False, True], repeat=N):
        if k := sum(masked):
            expected += worth(denoiser, torch.tensor(masked)) / (N * math.comb(N, k))
    generator = seeded(0)
    found = torch.tensor([log_likelihood(denoiser, GIVEN, TEXT, num_draws=8, generator=generator) for _ in range(400)])
    assert abs(float(found.mean()) - expected) < 4.5 * float(found.std()) / 20


@pytest.mark.parametrize("num_given", [0, 3])
def test_exact_predictions_give_the_exact_likelihood(num_given: int) -> None:
    """Of a Markov chain, which also sees the time. 4.5 standard errors, a false alarm in 150,000."""
    chain = load_denoiser("markov:V=4,L=8,seed=1")
    tokens = chain.sample(1, seeded(1))[0]
    given, text = tokens[:num_given], tokens[num_given:]
    options = {"num_draws": 64, "batch_size": 64}
    found = torch.tensor([log_likelihood(chain, given, text, generator=seeded(i), **options) for i in range(30)])
    longer = float(chain.log_prob(tokens[None])[0])
    expected = longer - log_likelihood_of_start(chain, given)
    assert abs(float(found.mean()) - expected) < 4.5 * float(found.std()) / 30**0.5 + 1e-6


def log_likelihood_of_start(chain: torch.nn.Module, given: torch.Tensor) -> float:
    """The exact marginal, by summing over all that may follow."""
    if not len(given):
        return 0.0
    rest = torch.cartesian_prod(*[torch.arange(4)] * (8 - len(given)))
    sequences = torch.cat([given.expand(len(rest), -1), rest], dim=1)
    return float(chain.log_prob(sequences).logsumexp(0))


def test_one_token_needs_one_draw() -> None:
    denoiser = tiny_denoiser("llada")
    found = {log_likelihood(denoiser, GIVEN, TEXT[:1], num_draws=n, generator=seeded(n)) for n in (1, 2, 9)}
    assert max(found) - min(found) < 1e-5 and log_likelihood(denoiser, GIVEN, TEXT[:0]) == 0


@pytest.mark.parametrize("num_draws", [6, 24])
def test_every_number_of_masks_is_as_frequent(num_draws: int) -> None:
    counts = draw_masks(6, num_draws, seeded(0)).sum(1).bincount(minlength=7)
    assert counts.tolist() == [0] + [num_draws // 6] * 6


def test_every_position_is_as_likely_to_be_masked() -> None:
    """12,000 draws of 6 positions, each masked with probability 7/12; 5 standard errors, a false alarm in 280,000."""
    share = draw_masks(6, 12_000, seeded(0)).double().mean(0)
    assert (share - 7 / 12).abs().max() < 5 * (7 / 12 * 5 / 12 / 12_000) ** 0.5


def test_what_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="`given` and `text` have 40 \\+ 9 tokens, more than 48"):
        log_likelihood(tiny_denoiser("llada"), torch.full((40,), 5), torch.full((9,), 5))
    without_mask = tiny_denoiser("llada")
    without_mask.mask_token_id = None
    with pytest.raises(ValueError, match="needs a denoiser with a mask"):
        log_likelihood(without_mask, GIVEN, TEXT)


def test_windows_hold_each_token_once() -> None:
    for length, size in ((0, 4), (3, 4), (4, 4), (9, 4)):
        windows = likelihood_windows(length, size)
        assert [i for window in windows for i in range(length)[window]] == [*range(length)]
        assert all(0 < window.stop - window.start <= size for window in windows)
