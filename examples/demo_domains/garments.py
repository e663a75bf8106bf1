"""Pictures of garments by class, judged by a classifier in the model's folder, and as one picture grid."""

import torch
from picture_grid import block, draw
from PIL import Image

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers.patch_codebook import PatchCodebook
from lsd_sampler.evaluation import floor_row
from lsd_sampler.evaluation.image_classifier import ImageClassifier
from lsd_sampler.evaluation.image_reference import ImageReference
from lsd_sampler.evaluation.metric_sets import ImageMetrics

from .finding import Finding, Setting
from .progress import bar_of_calls
from .samplers import LEAST_SAMPLES, add_learned, measure, plain_samplers


NFE, GRID_NFE, GRID_CLASSES = (4, 8), (2, 4, 8, 16), [0, 5, 8, 9]
ORDERS = ("halton", "confidence:cosine", "margin:cosine")


def run(setting: Setting) -> Finding:
    model = setting.model("garments")
    pipe = MaskedDiffusionPipeline.from_pretrained(str(model))
    samplers = plain_samplers(pipe, ORDERS)
    notes = add_learned(samplers, setting.models / "garments-default", model)
    codebook, reference = PatchCodebook.from_pretrained(model), ImageReference.from_pretrained(model)
    labels = torch.arange(pipe.denoiser.num_classes)
    metrics = ImageMetrics(codebook, ImageClassifier.from_pretrained(model), reference, labels=labels)
    number = max(setting.number(128, 48), LEAST_SAMPLES)
    rows = measure(pipe, samplers, metrics, NFE, number, class_labels=labels)
    rows.append(floor_row(metrics, reference.sequences[:number], name="real, by the codebook"))
    notes += [
        "Fréchet distance: of the judge's features from those of real test pictures. Read it beside real pictures of",
        f"the same number. The judge is {metrics.described_judge}. Temperature 1, no guidance.",
    ]
    beside = {"class_accuracy": "class accuracy"}
    finding = Finding("garments", rows, "frechet_distance", "Fréchet distance", True, beside, notes=notes)
    path = setting.folder / "picture_grid.png"
    picture_grid(pipe, codebook, samplers).save(path, optimize=True)
    finding.files.append(path)
    return finding


def picture_grid(
    pipe: MaskedDiffusionPipeline, codebook: PatchCodebook, samplers: dict[str, LSDScheduler]
) -> Image.Image:
    """Samplers in rows, calls in columns, the same noise and classes in every cell."""
    asked = {"num_samples": len(GRID_CLASSES), "class_labels": GRID_CLASSES, "output_type": "ids"}
    cells: dict[str, list[Image.Image | None]] = {}
    calls = sum(steps for sampler in samplers.values() for steps in GRID_NFE if sampler.can_do(steps))
    with bar_of_calls(pipe.denoiser, calls, "picture grid"):
        for name, pipe.scheduler in samplers.items():
            made = [
                pipe(num_inference_steps=steps, generator=torch.Generator().manual_seed(0), **asked).sequences
                if pipe.scheduler.can_do(steps) else None for steps in GRID_NFE
            ]  # fmt: skip
            label = name.partition(":")[0]
            cells[label] = [None if tokens is None else block(codebook.decode(tokens)) for tokens in made]
    caption = "In every cell: temperature 1, no guidance, seed 0, same classes"
    return draw(cells, [(str(steps), "calls") for steps in GRID_NFE], caption)
