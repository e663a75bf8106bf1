"""The metric set of images made of codebook tokens: judged by a small classifier, without a download."""

from collections.abc import Sequence

import torch

from ...denoisers.patch_codebook import PatchCodebook
from ...support.identity import identity
from ..bootstrap import bootstrap_weights, kept_replicates, with_interval
from ..columns import Metric, with_ends
from ..diversity import UNIGRAM_ENTROPY, conditional_entropy
from ..frechet import FrechetReference
from ..image_classifier import ImageClassifier
from ..image_reference import ImageReference
from .metric_set import Layout, MetricSet, Values


FRECHET_DISTANCE = Metric(
    "frechet_distance",
    "Fréchet distance",
    "Distance of Gaussians fitted to a classifier's features of the samples and of real test images, 0 at best. It "
    "falls as the number of samples grows.",
    lower_is_better=True,
    interval=True,
    short="",
)
CLASS_ACCURACY = Metric(
    "class_accuracy",
    "class accuracy",
    "Share of samples that the classifier takes for the class that was asked for. Read it beside that of real data: "
    "more is typical samples rather than right ones.",
    lower_is_better=False,
    interval=True,
    short="accuracy",
)
_AT_ONCE = 256  # images in the classifier
_LAYOUT = Layout(
    table=("temperature", "guidance_scale", *with_ends("frechet_distance"), "class_accuracy"),
    details=(
        "temperature", "guidance_scale", *with_ends("class_accuracy"), "unigram_entropy", "network_calls", "seconds",
    ),
    drawn=("frechet_distance", "class_accuracy"),
)  # fmt: skip


class ImageMetrics(MetricSet):
    """How far images are from real ones, and whether they are of the classes that were asked for.

    The verdict `frechet_distance` is that of the classifier's features. Intervals hold the reference fixed.

    Args:
        codebook ([`PatchCodebook`]): turns tokens into images.
        classifier ([`ImageClassifier`]): the judge.
        reference ([`ImageReference`]): moments of its features of real images, and its accuracy on these.
        labels (`torch.LongTensor` of shape `(n,)`, *optional*): the class that was asked for: sample i has entry
            `i % n`. Without them there is no `class_accuracy`.
        num_resamples (`int`): bootstrap resamples of whole samples.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.

    Raises:
        ValueError: if classifier, reference and labels do not fit together.
    """

    metrics = (FRECHET_DISTANCE, CLASS_ACCURACY, UNIGRAM_ENTROPY)
    verdict_key = "frechet_distance"
    entropy_key = "unigram_entropy"
    replicates = ("frechet_distance",)

    def __init__(
        self,
        codebook: PatchCodebook,
        classifier: ImageClassifier,
        reference: ImageReference,
        *,
        labels: torch.Tensor | None = None,
        num_resamples: int = 200,
        seed: int = 0,
        confidence: float = 0.95,
    ):
        num_classes, dim = classifier.head.weight.shape
        if len(reference.moments.mean) != dim:
            ours = len(reference.moments.mean)
            raise ValueError(f"`reference` must be of the classifier's {dim} features, got moments of {ours}.")
        if labels is not None and not (len(labels) and 0 <= int(labels.min()) <= int(labels.max()) < num_classes):
            raise ValueError(f"`labels` must be classes in [0, {num_classes}), got {labels.tolist()}.")
        self.codebook, self.classifier, self.reference = codebook, classifier.eval(), reference
        self._real = FrechetReference(reference.moments)
        self.labels = None if labels is None else labels.cpu()
        self.num_resamples, self.seed, self.confidence = num_resamples, seed, confidence
        if labels is None:
            self.metrics = tuple(metric for metric in type(self).metrics if metric is not CLASS_ACCURACY)

    @property
    def fingerprint(self) -> str:
        """Short hash of codebook, judge, reference, classes and bootstrap: rows of others are not to be compared."""
        networks = [dict(self.codebook.state_dict()), dict(self.classifier.state_dict())]
        own = [self.labels, self.num_resamples, self.seed, self.confidence]
        return identity([*networks, *self.reference.moments, *own])[:12]

    @property
    def described_judge(self) -> str:
        """What judges the samples, and how often it is right on real ones."""
        dim, right = len(self.reference.moments.mean), f"{100 * self.reference.accuracy:.1f} %"
        return f"a classifier of {dim} features, right on {right} of {self.reference.number} real test images"

    def check_num_samples(self, num_samples: int) -> None:
        """Raises `ValueError` if there are fewer than two samples: they have no covariance."""
        if num_samples < 2:
            raise ValueError(f"`num_samples` must be at least 2 for a Fréchet distance, got {num_samples}.")

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of `sequences`, of shape `(num_samples, length)`. `texts` is ignored.

        Raises:
            ValueError: if there are fewer than two, or one holds a token that is not in the codebook.
        """
        self.check_num_samples(len(sequences))
        features = self.features(sequences)
        weights = bootstrap_weights(len(sequences), self.num_resamples, self.seed).double()
        distance, replicates = float(self._real.distances(features)[0]), self._real.distances(features, weights)
        row: Values = with_interval("frechet_distance", distance, replicates, self.confidence)
        if self.labels is not None:
            right_N = self._right(features).double()
            shares = (right_N @ weights / len(sequences)).numpy()
            row |= with_interval("class_accuracy", float(right_N.mean()), shares, self.confidence)
        row["unigram_entropy"] = conditional_entropy(sequences)
        return row | kept_replicates({"frechet_distance": replicates})

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        self.check_num_samples(len(sequences))
        return float(self._real.distances(self.features(sequences))[0])

    @torch.no_grad()
    def features(self, sequences: torch.Tensor) -> torch.Tensor:
        """The classifier's features of these canvases: `(num_samples, dim)`, on the CPU."""
        device = self.codebook.patches.device
        images = (self.codebook.decode(part.to(device)) for part in sequences.split(_AT_ONCE))
        return torch.cat([self.classifier.features(part).cpu() for part in images])

    @torch.no_grad()
    def _right(self, features: torch.Tensor) -> torch.Tensor:
        """Whether each sample is taken for what was asked for."""
        assert self.labels is not None
        found = self.classifier.head(features.to(self.classifier.head.weight.device)).argmax(1).cpu()
        return found == self.labels[torch.arange(len(features)) % len(self.labels)]

    def layout(self) -> Layout:
        """The distance, then the classes."""
        return _LAYOUT
