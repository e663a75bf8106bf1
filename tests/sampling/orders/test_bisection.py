"""Bisection is exact on first-order chains: by enumeration of all sequences, and by samples."""

import itertools

import pytest
import torch
from helpers.goodness_of_fit import p_value

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.denoisers import MarkovDenoiser


V, MASK = 3, 3


def chain(length: int) -> MarkovDenoiser:
    denoiser = load_denoiser(f"markov:V={V},L={length},seed=1")
    assert isinstance(denoiser, MarkovDenoiser)
    return denoiser


def log_law(order: str, denoiser: MarkovDenoiser, template: torch.Tensor, steps: int) -> tuple[torch.Tensor, ...]:
    """All sequences with the given tokens, and the log-probability with which levels of this order make each: the
    positions of each step depend on nothing that is drawn.
    """
    holes = (template == MASK).nonzero()[:, 0]
    fills = torch.tensor(list(itertools.product(range(V), repeat=len(holes))))
    sequence_NL = template.repeat(len(fills), 1).index_copy(1, holes, fills)
    scheduler = LSDScheduler(mask_token_id=MASK, order=order, count="levels")
    scheduler.set_timesteps(steps)
    canvas_NL, log_N = template.repeat(len(fills), 1), torch.zeros(len(fills), dtype=torch.float64)
    sample = template[None]
    for t in scheduler.timesteps:
        logits_NLV = denoiser(canvas_NL)
        out = scheduler.step(logits_NLV[:1], t, sample, generator=torch.Generator().manual_seed(0))
        at = out.transfer_index[0]
        log_N += logits_NLV.log_softmax(-1).gather(2, sequence_NL[..., None])[..., 0][:, at].sum(1)
        canvas_NL, sample = torch.where(at, sequence_NL, canvas_NL), out.prev_sample
    assert torch.equal(canvas_NL, sequence_NL)
    return sequence_NL, log_N


def divergence(order: str, template: list[int], steps: int) -> float:
    """Of the chain, given the tokens of the template, from the sampler. Nats."""
    denoiser, canvas = chain(len(template)), torch.tensor(template)
    sequence_NL, log_N = log_law(order, denoiser, canvas, steps)
    true_N = denoiser.log_prob(sequence_NL).double()
    true_N = true_N - true_N.logsumexp(0)
    assert float(log_N.logsumexp(0)) == pytest.approx(0.0, abs=1e-9)
    return float((true_N.exp() * (true_N - log_N)).sum())


@pytest.mark.parametrize(
    ("template", "calls"),
    [
        ([MASK] * 8, 4),
        ([MASK] * 7, 3),
        ([MASK] * 5, 3),
        ([0, *[MASK] * 6, 2], 3),
        ([MASK, MASK, 1, MASK, MASK, MASK, 0, 2, MASK], 2),
    ],
    ids=str,
)
def test_exact_at_its_own_number_of_calls(template: list[int], calls: int) -> None:
    """`floor(log2 R) + 1` calls for a longest run of R masks, with prompts and infilling too."""
    assert abs(divergence("bisection", template, calls)) < 1e-12
    assert abs(divergence("bisection", template, calls + 2)) < 1e-12


def test_the_enumeration_can_tell() -> None:
    """The first level of a dilated grid has two positions at once, and one call too few errs more."""
    assert divergence("dus", [MASK] * 8, 3) > 1e-9
    assert divergence("bisection", [MASK] * 8, 2) > 1e-3


def test_samples_follow_the_chain() -> None:
    """20,000 samples, rejected at p < 1e-6."""
    denoiser = chain(5)
    config = {**denoiser.scheduler_config(), "order": "bisection", "count": "levels"}
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**config))
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    out = pipe(num_samples=20_000, num_inference_steps=8, generator=generator, output_type="ids")
    assert out.network_calls == 3
    index_N = (out.sequences * V ** torch.arange(4, -1, -1)).sum(1)
    states = torch.tensor(list(itertools.product(range(V), repeat=5)))
    law = denoiser.log_prob(states).exp().numpy()
    assert p_value(torch.bincount(index_N, minlength=V**5).numpy(), law) > 1e-6
