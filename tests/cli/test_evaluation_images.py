"""`lsd-eval` on an image model whose folder holds a codebook and a judge; classes and guidance."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_garments import classifier, codebook, reference, save_garments

from lsd_sampler.cli import evaluate
from lsd_sampler.denoisers import MaskGITDenoiser
from lsd_sampler.evaluation import ImageMetrics
from lsd_sampler.pipeline_masked_diffusion import MaskedDiffusionPipeline
from lsd_sampler.scheduling_lsd import LSDScheduler


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_garments(tmp_path / "model")
    return tmp_path / "model"


def run(folder: Path, *more: str) -> int:
    argv = ["--model", str(folder), "--num-samples", "24", "--batch-size", "12", "--nfe", "2", "--temperatures", "1"]
    return evaluate.main([*argv, "--output-dir", str(folder.parent / "out"), *more])


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder.parent / "out" / "summary.json").read_text())


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def samples(folder: Path, seed: int, guidance_scale: float) -> torch.Tensor:
    """The same ones by a plain loop over batches: sample i is of class i % 5."""
    denoiser = MaskGITDenoiser.from_pretrained(folder).eval()
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
    pipe.set_progress_bar_config(disable=True)
    made = []
    for batch in range(2):
        labels = [i % 5 for i in range(12 * batch, 12 * batch + 12)]
        noise = torch.Generator().manual_seed(seed + batch)
        options: dict[str, Any] = {"num_inference_steps": 2, "generator": noise, "output_type": "ids"}
        out = pipe(num_samples=12, class_labels=labels, guidance_scale=guidance_scale, **options)
        made.append(out.sequences)
    return torch.cat(made)


def test_samples_are_judged_as_images_of_the_classes_in_turn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--guidance-scale", "1.5") == 0
    metrics = ImageMetrics(codebook(), classifier(), reference(), labels=torch.arange(5))
    expected = metrics.compute(samples(folder, 0, 1.5))
    found = summary(folder)
    (row,), floor = found["rows"], found["floor"]
    assert row["guidance_scale"] == 1.5 and found["verdict"] == "frechet_distance"
    for key in ("frechet_distance", "class_accuracy", "unigram_entropy"):
        assert row[key] == pytest.approx(expected[key], rel=1e-6)
    real = metrics.compute(reference().sequences[:24])
    assert floor["frechet_distance"] == pytest.approx(real["frechet_distance"], rel=1e-6)
    assert floor["sampler"] == "real, by the codebook" and "guidance_scale" not in floor
    said = capsys.readouterr()
    assert "right on 75.0 % of 100 real test images" in said.err
    assert "right on 75.0 % of 100 real" in found["protocol"]["Judge"] and found["protocol"]["Guidance"] == "1.5"
    assert "guidance" in said.out and "class accuracy" in said.out


def test_each_sampler_has_its_own_best_guidance_from_other_samples(folder: Path) -> None:
    """The least distance of samples of seed + 500000, by the plain loop, decides; the judged ones are of seed 0."""
    assert run(folder, "--guidance-scale", "0", "1", "6") == 0
    metrics = ImageMetrics(codebook(), classifier(), reference(), labels=torch.arange(5))
    tried = {scale: metrics.verdict(samples(folder, 500_000, scale)) for scale in (0.0, 1.0, 6.0)}
    best = min(tried, key=lambda scale: tried[scale])
    (row,) = summary(folder)["rows"]
    assert row["guidance_scale"] == best
    assert row["frechet_distance"] == pytest.approx(metrics.verdict(samples(folder, 0, best)), rel=1e-6)
    rows = [json.loads(line) for line in (folder.parent / "out" / "metrics.jsonl").read_text().splitlines()]
    swept = {row["guidance_scale"]: row["frechet_distance"] for row in rows if row["seed"] == 500_000}
    assert swept == pytest.approx(tried, rel=1e-6)
    edge = any("guidance scales tried" in sentence for sentence in summary(folder)["sentences"])
    assert edge == (best == 6)  # 0 is no edge


def test_a_finished_row_of_other_guidance_is_not_reused(folder: Path) -> None:
    for scale in ("0", "3", "0"):
        assert run(folder, "--guidance-scale", scale, "--resume") == 0
        assert summary(folder)["rows"][0]["guidance_scale"] == float(scale)
    assert len((folder.parent / "out" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_model_without_a_judge_is_compared_by_its_tokens(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Teacher and samples are of the same classes and guidance, which must be one."""
    (folder / "classifier.safetensors").unlink()
    assert run(folder, "--guidance-scale", "1") == 0
    assert "lacks classifier.safetensors to judge images by" in capsys.readouterr().err
    assert summary(folder)["verdict"] == "js_token_sum"
    assert run(folder, "--guidance-scale", "0", "1", "--overwrite") == 1
    assert "needs one `--guidance-scale`" in error_of(capsys)


def test_too_few_real_images_for_a_floor(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--num-samples", "41") == 0
    assert summary(folder)["floor"] is None and "holds 40 real images, too few" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--guidance-scale", "-1"), "`--guidance-scale` must hold numbers of at least 0"),
        (("--guidance-scale", "nan"), "`--guidance-scale` must hold numbers of at least 0"),
        (("--features", "denoiser"), "`--features`: these samples are judged as images"),
        (("--num-samples", "1"), "`num_samples` must be at least 2"),
    ],
)
def test_flags_that_do_not_fit(
    flags: tuple[str, ...], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *flags) == 1
    assert words in error_of(capsys)


def test_files_of_another_model_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lsd_sampler.denoisers.patch_codebook import PatchCodebook

    PatchCodebook(torch.rand(6, 2, 2)).save_pretrained(folder)
    assert run(folder) == 1
    assert "codebook.safetensors has 6 codes, but the model has 7" in error_of(capsys)
