"""The metric set of images, against numpy and scipy, and what must not change it."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers.tiny_garments import classifier, codebook, reference

from lsd_sampler.evaluation import ImageMetrics, bootstrap_weights, frechet_distance


TOKENS = torch.randint(7, (60, 9), generator=torch.Generator().manual_seed(0))


def metrics(**options: Any) -> ImageMetrics:
    return ImageMetrics(codebook(), classifier(), reference(), labels=torch.arange(5), **options)


def pictures(tokens: torch.Tensor) -> torch.Tensor:
    """Pixel by pixel."""
    patches = codebook().patches
    images = torch.zeros(len(tokens), 6, 6)
    for y in range(6):
        for x in range(6):
            images[:, y, x] = patches[tokens[:, 3 * (y // 2) + x // 2], y % 2, x % 2]
    return images


def test_values_are_those_of_numpy_and_scipy() -> None:
    """Features by the classifier from pictures made pixel by pixel, the root of a matrix by scipy, shares by hand."""
    network = classifier()
    with torch.no_grad():
        features = network.features(pictures(TOKENS))
        right = network.head(features).argmax(1) == torch.arange(60) % 5
    x, (mean, covariance) = features.double().numpy(), reference().moments
    root = scipy.linalg.sqrtm(np.cov(x.T) @ covariance.numpy()).real
    distance = np.square(x.mean(0) - mean.numpy()).sum() + np.trace(np.cov(x.T) + covariance.numpy() - 2 * root)
    row = metrics().compute(TOKENS)
    assert row["frechet_distance"] == pytest.approx(distance, rel=1e-6)
    assert row["class_accuracy"] == pytest.approx(float(right.double().mean()))
    assert metrics().verdict(TOKENS) == row["frechet_distance"]
    assert 0 < row["class_accuracy_low"] < row["class_accuracy"] < row["class_accuracy_high"]


def test_replicates_are_the_distances_of_the_resamples() -> None:
    """Each of samples drawn again, counted as often as they were drawn."""
    made = metrics(num_resamples=4, seed=7)
    row, weights = made.compute(TOKENS), bootstrap_weights(60, 4, 7).long()
    real = torch.rand(100, 8, generator=torch.Generator().manual_seed(3))  # what the reference was made of
    for replicate, times in zip(row["frechet_distance_replicates"], weights.T, strict=True):
        again = made.features(TOKENS.repeat_interleave(times, dim=0))
        assert replicate == pytest.approx(frechet_distance(again, real), rel=1e-4)


def test_order_does_not_count_and_labels_do() -> None:
    """Whole rounds of classes may change places; samples under other labels are as near, but not as right."""
    rounds = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    moved = TOKENS.view(12, 5, 9)[rounds].flatten(0, 1)
    one, other = metrics().compute(TOKENS), metrics().compute(moved)
    for key in ("frechet_distance", "class_accuracy", "unigram_entropy"):
        assert other[key] == pytest.approx(one[key], rel=1e-6)
    shifted = metrics().compute(TOKENS.roll(1, 0))
    assert shifted["frechet_distance"] == pytest.approx(one["frechet_distance"], rel=1e-6)
    # each sample is right under one label
    shares = [metrics().compute(TOKENS.view(12, 5, 9).roll(k, 1).flatten(0, 1))["class_accuracy"] for k in range(5)]
    assert sum(shares) == pytest.approx(1)


def test_without_labels_there_is_no_accuracy() -> None:
    made = ImageMetrics(codebook(), classifier(), reference())
    assert "class_accuracy" not in made.keys and "class_accuracy" not in made.compute(TOKENS)


def test_another_judge_or_reference_is_another_yardstick() -> None:
    other = classifier()
    with torch.no_grad():
        other.head.bias += 1
    prints = {
        metrics().fingerprint,
        ImageMetrics(codebook(), other, reference(), labels=torch.arange(5)).fingerprint,
        ImageMetrics(codebook(), classifier(), reference()).fingerprint,
        metrics(seed=1).fingerprint,
    }
    assert len(prints) == 4 and metrics().fingerprint in prints


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="`reference` must be of the classifier's 8 features, got moments of 6"):
        ImageMetrics(codebook(), classifier(), reference(dim=6))
    for labels in (torch.tensor([5]), torch.tensor([-1]), torch.tensor([], dtype=torch.long)):
        with pytest.raises(ValueError, match=r"`labels` must be classes in \[0, 5\)"):
            ImageMetrics(codebook(), classifier(), reference(), labels=labels)
    for ask in (metrics().compute, metrics().verdict, lambda x: metrics().check_num_samples(len(x))):
        with pytest.raises(ValueError, match="at least 2"):
            ask(TOKENS[:1])
    with pytest.raises(ValueError, match="is a mask left"):
        metrics().compute(torch.full((2, 9), 7))
