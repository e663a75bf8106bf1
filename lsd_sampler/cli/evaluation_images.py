"""The metrics of image models in `lsd-eval`: a codebook, a judge and real images, all in the model's folder."""

import argparse
import sys
from pathlib import Path
from typing import Any

from ..denoisers.auto import find_checkpoint
from ..denoisers.patch_codebook import CODEBOOK_NAME, PatchCodebook
from ..evaluation.harness import floor_row
from ..evaluation.image_classifier import CLASSIFIER_NAME, ImageClassifier
from ..evaluation.image_reference import REFERENCE_NAME, ImageReference
from ..evaluation.metric_sets import ImageMetrics, MetricSet
from ..evaluation.rows import Row
from ..sampling.pipeline_runs import LABELS
from .evaluation_classes import classes_of


_IMAGE_FILES = (CODEBOOK_NAME, CLASSIFIER_NAME, REFERENCE_NAME)
_REAL_IMAGES = "real, by the codebook"


def image_metrics(args: argparse.Namespace, denoiser: Any) -> tuple[MetricSet, Row | None] | None:
    """The metrics of images, and real ones, if the model's folder holds a codebook, a judge and a reference.

    Raises:
        ValueError: if a file is damaged or does not fit, or a flag is of texts or tokens.
        OSError: if the folder is out of reach.
    """
    folder = find_checkpoint(args.model, revision=args.revision)[1].folder
    missing = [name for name in _IMAGE_FILES if not (folder / name).exists()]
    if missing:
        if len(missing) < len(_IMAGE_FILES):
            print(f"{folder} lacks {' and '.join(missing)} to judge images by.", file=sys.stderr)
        return None
    for name in ("judge", "reference", "features", "mauve"):
        if getattr(args, name):
            raise ValueError(f"`--{name}`: these samples are judged as images, by {folder / CLASSIFIER_NAME}.")
    codebook = PatchCodebook.from_pretrained(folder).to(args.device)
    classifier = ImageClassifier.from_pretrained(folder).to(args.device)
    reference = ImageReference.from_pretrained(folder)
    _check_images(folder, denoiser, codebook, reference)
    metrics = ImageMetrics(codebook, classifier, reference, labels=classes_of(denoiser).get(LABELS))
    print(f"Judge: {metrics.described_judge}", file=sys.stderr)
    real = reference.sequences[: args.num_samples]
    if len(real) < args.num_samples:
        print(f"{REFERENCE_NAME} holds {len(real)} real images, too few for a row of them.", file=sys.stderr)
        return metrics, None
    return metrics, floor_row(metrics, real, name=_REAL_IMAGES)


def _check_images(folder: Path, denoiser: Any, codebook: PatchCodebook, reference: ImageReference) -> None:
    """Refuses files of another model."""
    if len(codebook.patches) != denoiser.vocab_size:
        sizes = f"{len(codebook.patches)} codes, but the model has {denoiser.vocab_size}"
        raise ValueError(f"{folder / CODEBOOK_NAME} has {sizes}: it belongs to another model.")
    if reference.sequences.shape[1] != denoiser.length:
        sizes = f"{reference.sequences.shape[1]} tokens, but the model makes {denoiser.length}"
        raise ValueError(f"{folder / REFERENCE_NAME} holds images of {sizes}: it belongs to another model.")
