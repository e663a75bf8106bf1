"""The distance in n-grams: two-sided, with a right standard error."""

import dataclasses

import pytest
import torch

from lsd_sampler.denoisers import MarkovDenoiser, random_chain
from lsd_sampler.training.ngram_cells import CellDistance, patterns


def real(denoiser: MarkovDenoiser, num: int = 2048, seed: int = 7) -> torch.Tensor:
    return denoiser.sample(num, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("power", "low", "high"), [(1.5, 0.78, 1.22), (1.0, 0.0, 1.0)])
def test_standard_error_of_a_difference(power: float, low: float, high: float) -> None:
    """Of two sets of samples of one law the difference is 0 in expectation. Its root mean square in standard errors,
    over 200 repetitions, is within 4.4 standard errors (of 0.05) of 1; no more than 1 where the law is that of the
    reference: the distance is then at its minimum, and the delta method errs on the safe side.
    """
    chain = random_chain(6, 16, seed=2)
    p = chain.transition**power
    other = MarkovDenoiser(p / p.sum(1, keepdim=True), length=16)
    distance = CellDistance.make(real(chain, 512, seed=1), real(chain, 16, seed=2), 64)
    shares_NC = distance.shares(real(chain, 200 * 256, seed=3))
    z = []
    for i, pair_NL in enumerate(real(other, 200 * 128, seed=4).split(128)):
        against = dataclasses.replace(distance, reference_NC=shares_NC[256 * i : 256 * (i + 1)])
        change, error = against.difference(pair_NL[:64], pair_NL[64:])
        z.append(change / error)
    assert low <= float(torch.tensor(z).square().mean().sqrt()) <= high


def test_distance_has_two_sides() -> None:
    """Samples of too wide and of too narrow a law are both further away than real ones."""
    chain = random_chain(6, 16, seed=2)
    powers = {power: chain.transition**power for power in (0.7, 1.0, 1.4)}
    laws = {power: MarkovDenoiser(p / p.sum(1, keepdim=True), length=16) for power, p in powers.items()}
    distance = CellDistance.make(real(laws[1.0], 1024, seed=1), real(laws[1.0], 1024, seed=2), 1024)
    found = {power: distance(real(law, 1024, seed=3)) for power, law in laws.items()}
    assert found[1.0] < 0.5 * min(found[0.7], found[1.4])


def test_neighbours_on_an_image_are_below_too() -> None:
    assert patterns(16) == ((0,), (0, 1), (0, 16), (0, 1, 16))
    ids = torch.arange(32).remainder(4).expand(16, 32)
    distance = CellDistance.make(ids, ids, 16, row_length=4)
    assert distance(ids) == 0 and distance.num_cells == 4 * (4 + 1)  # and one for all that is not there
