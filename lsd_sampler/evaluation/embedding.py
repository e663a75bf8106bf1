"""Distances between samples and real data in an embedding space: energy distance and MAUVE."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..denoisers.base import Denoiser
from ..sampling.left_out import LEFT_OUT
from ..support.modes import eval_mode


# (sequences, texts) -> features of shape (num_samples, dim)
Features = Callable[[torch.Tensor, Sequence[str]], torch.Tensor]


def energy_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """`2 E|X - Y| - E|X - X'| - E|Y - Y'|` with Euclidean norms, estimated without bias (U-statistics).

    0 exactly when the two laws are equal, and in the unit of the features; the estimate scatters around 0 then, so it
    can be negative (https://doi.org/10.1016/j.jspi.2013.03.018).

    Args:
        x (`torch.Tensor` of shape `(num_samples, dim)`), y (`torch.Tensor` of shape `(num_others, dim)`): features.

    Raises:
        ValueError: if one has fewer than two rows, or their widths differ.
    """
    return float(_energies(x, y, torch.ones(len(x), 1))[0])


def energy_replicates(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> np.ndarray:
    """`energy_distance` for each resample of the rows of `x`; `y`, the reference, is held fixed.

    A row drawn twice lies at distance 0 from itself, so replicates are too large on average: use their spread.

    Args:
        weights (`torch.FloatTensor` of shape `(num_samples, num_resamples)`): see `bootstrap_weights`.

    Returns:
        `float64` array of shape `(num_resamples,)`.
    """
    return _energies(x, y, weights).numpy()


def mauve_score(x: torch.Tensor, y: torch.Tensor, seed: int = 0) -> float:
    """MAUVE in (0, 1], 1 for equal laws (https://huggingface.co/papers/2102.01454), computed from given features.

    It clusters both sets together, and its value depends on their sizes: take equal numbers of samples of equal
    lengths.

    Args:
        x, y (`torch.Tensor` of shape `(num_samples, dim)`): features of samples and of real data.

    Raises:
        ValueError: if the numbers of rows differ.
        ImportError: without the package `mauve-text`; the message says how to install it.
    """
    if len(x) != len(y):
        raise ValueError(f"`x` and `y` must hold equally many features, got {len(x)} and {len(y)}.")
    try:
        import mauve
    except ImportError as error:
        raise ImportError(
            f"MAUVE needs the package mauve-text: `pip install lsd_sampler[mauve]` ({error})."
        ) from error
    p, q = x.double().numpy(), y.double().numpy()
    return float(mauve.compute_mauve(p_features=p, q_features=q, seed=seed, verbose=False).mauve)


def denoiser_features(denoiser: Denoiser) -> Features:
    """The denoiser's own hidden states on clean tokens, averaged over positions. No judge is needed, but the space is
    one that the sampler knows.

    Raises:
        ValueError: if the denoiser does not show its hidden states.
    """
    if not denoiser.defers_head:
        raise ValueError(f"`features` of {type(denoiser).__name__} are missing: it does not show its hidden states.")

    @torch.inference_mode()
    def features(sequences: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        means: dict[int, torch.Tensor] = {}
        lengths = (sequences != LEFT_OUT).sum(1)  # positions behind the end of a shorter sequence are left out
        with eval_mode([denoiser]):
            for length in lengths.unique().tolist():
                for rows in (lengths == length).nonzero()[:, 0].split(_SEQUENCES_AT_ONCE):
                    tokens = sequences[rows, :length].to(denoiser.device)
                    t = torch.full((len(tokens),), _NEARLY_CLEAN, device=denoiser.device)
                    hidden: Any = denoiser(tokens, t, return_hidden_states=True)
                    means |= zip(rows.tolist(), hidden.float().mean(1).cpu(), strict=True)
        return torch.stack([means[i] for i in range(len(sequences))])

    return features


_SEQUENCES_AT_ONCE = 16
_NEARLY_CLEAN = 1e-3  # the time given to a network that asks for one, although no token is masked


def _energies(x: torch.Tensor, y: torch.Tensor, weights_NB: torch.Tensor) -> torch.Tensor:
    """The energy distance for each column of weights, float64 of shape `(B,)`."""
    if min(len(x), len(y)) < 2 or x.ndim != 2 or x.shape[1:] != y.shape[1:]:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"`x` and `y` must have shape (at least 2, dim), with one dim, got {shapes}.")
    x, y, w_NB = x.double(), y.double(), weights_NB.double()
    N, M = len(x), len(y)
    between_B = w_NB.T @ _distances(x, y).sum(1) / (N * M)
    within_x_B = ((_distances(x, x) @ w_NB) * w_NB).sum(0) / (N * (N - 1))
    within_y = _distances(y, y).sum() / (M * (M - 1))
    return 2 * between_B - within_x_B - within_y


def _distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    # by differences: the faster way, by products, does not give exactly 0 for equal rows
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
