"""Chains whose numbers can be said: of a text, smoothed, and cut."""

from pathlib import Path

import torch

from lsd_sampler import load_denoiser
from lsd_sampler.denoisers import HiddenMarkovDenoiser, hidden_chain


def test_a_chain_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Abab, aab!\n")
    chain = load_denoiser(f"hmm:{tmp_path}/a.txt,L=6")
    assert isinstance(chain, HiddenMarkovDenoiser) and (chain.vocab_size, chain.length) == (27, 6)
    # "abab aab ": after a come b, b, a, b; after b come a, blank, blank
    torch.testing.assert_close(
        chain.transition[1, :3], torch.tensor([0, 0.25, 0.75], dtype=torch.float64), atol=1e-7, rtol=0
    )
    torch.testing.assert_close(
        chain.transition[2, :3], torch.tensor([2, 1, 0], dtype=torch.float64) / 3, atol=1e-7, rtol=0
    )
    torch.testing.assert_close(chain.start @ chain.transition, chain.start, atol=1e-12, rtol=0)


def test_the_smoothed_and_cut_law() -> None:
    """`(1 - eps) P_K + eps nu`."""
    whole, cut = hidden_chain(6, 8, seed=7), hidden_chain(6, 8, num_successors=2, eps=0.1, seed=7)
    for row, all_of_it in zip(cut.transition, whole.transition, strict=True):
        kept = all_of_it.argsort(descending=True)[:2]
        expected = 0.1 * whole.start
        expected[kept] += 0.9 * all_of_it[kept] / all_of_it[kept].sum()
        torch.testing.assert_close(row, expected, atol=1e-12, rtol=0)
