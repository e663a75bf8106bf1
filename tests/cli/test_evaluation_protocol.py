"""What a report says of how its numbers were made."""

from pathlib import Path

import pytest
import torch
from helpers.tiny_garments import classifier, codebook, reference, save_garments

from lsd_sampler.cli.evaluate import build_parser
from lsd_sampler.cli.evaluation_protocol import described_judge, precision, protocol
from lsd_sampler.denoisers.oracle_names import make_oracle
from lsd_sampler.evaluation import ImageMetrics, TokenMetrics
from lsd_sampler.evaluation.comparison import Comparison
from lsd_sampler.pipeline_masked_diffusion import MaskedDiffusionPipeline
from lsd_sampler.scheduling_lsd import LSDScheduler


def test_precision_is_that_of_the_weights(tmp_path: Path) -> None:
    model = save_garments(tmp_path)
    assert precision(model) == "float32" and precision(model.half()) == "float16"
    assert precision(make_oracle("countdown:V=4,L=8")) is None


def test_the_judge_is_named() -> None:
    images = ImageMetrics(codebook(), classifier(), reference())
    tokens = TokenMetrics(torch.zeros(4, 9, dtype=torch.int64))
    parse = build_parser().parse_args
    none, named = parse(["--model", "m"]), parse(["--model", "m", "--judge", "gpt2", "--judge-dtype", "float16"])
    assert described_judge(none, images) == images.described_judge
    assert described_judge(none, tokens) == "none" and described_judge(named, tokens) == "gpt2, float16"


@pytest.mark.parametrize(
    ("more", "guidance"),
    [([], "0"), (["0.5"], "0.5"), (["0", "1"], "each sampler's best of 0, 1 at each number of calls, chosen on ")],
)
@pytest.mark.parametrize(
    ("tasks", "on"), [([], "other samples"), (["--tasks", "a.jsonl"], "the other half of the items")]
)
def test_classes_and_guidance_are_told(
    tmp_path: Path, more: list[str], guidance: str, tasks: list[str], on: str
) -> None:
    """Of a model with classes. What was not chosen is told as the value that it had."""
    model = save_garments(tmp_path)
    pipe = MaskedDiffusionPipeline(model, LSDScheduler(**model.scheduler_config()))
    argv = ["--model", "m", *(["--guidance-scale", *more] if more else []), *tasks]
    told = protocol(build_parser().parse_args(argv), pipe, ImageMetrics(codebook(), classifier(), reference()),
                    Comparison([{"length": 9}]), [1.0])  # fmt: skip
    assert told["Guidance"] == guidance + (on if len(more) > 1 else "") and told["Classes"].startswith("in turn")
    assert told["Temperatures"] == "1"


def test_a_model_without_classes_has_none() -> None:
    model = make_oracle("countdown:V=4,L=8")
    pipe = MaskedDiffusionPipeline(model, LSDScheduler(**model.scheduler_config()))
    metrics = TokenMetrics(torch.zeros(4, 8, dtype=torch.int64))
    told = protocol(build_parser().parse_args(["--model", "m"]), pipe, metrics, Comparison([{"length": 8}]), [1.0])
    assert "Guidance" not in told and "Classes" not in told
    assert told["Real data"] == "exact samples of the oracle" and told["Precision"].startswith("network float64")
