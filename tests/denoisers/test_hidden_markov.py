"""Sums over the paths of hidden chains."""

import torch

from lsd_sampler.denoisers import HiddenMarkovDenoiser, MarkovDenoiser, hidden_chain, second_order_chain


HIDDEN = hidden_chain(3, 4, num_states=2, seed=1)
WEIGHTED = HiddenMarkovDenoiser(
    torch.tensor([2.0, 1.0]), torch.tensor([[0.0, 3.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]),
    torch.tensor([1.0, 0.5]), length=4,
)  # fmt: skip


def test_forward_backward_is_chapman_kolmogorov() -> None:
    """Of a chain without hidden states, the sums over all paths equal the powers of its transitions."""
    sums = hidden_chain(27, 64, num_successors=5, eps=1e-3, seed=4)
    powers = MarkovDenoiser(sums.transition, sums.start, length=64)
    x = powers.sample(16, torch.Generator().manual_seed(0))
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.7] = 27
    torch.testing.assert_close(sums(x).exp(), powers(x).exp(), atol=1e-9, rtol=0)
    assert (sums.memory, second_order_chain(3, 4).memory, HIDDEN.memory, WEIGHTED.memory) == (1, 2, 2, None)
    for n in (2, 3):
        torch.testing.assert_close(sums.ngram_law(n), powers.ngram_law(n), atol=1e-9, rtol=0)
