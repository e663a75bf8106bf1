"""The small examples say what is true, and keep what they promise."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.scripts import load_script
from helpers.tiny_garments import codebook, save_garments
from helpers.tiny_pipelines import IMAGE_MASK, amused, llada2
from PIL import Image

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline


EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = [
    "amused_pipeline", "animate_canvas", "bring_your_own_denoiser", "infilling", "landscapes", "llada2_pipeline",
    "picture_grid", "scaffold_infilling",
]  # fmt: skip
BOOKS = EXAMPLES.parent / "models" / "books-radd" / "model.safetensors"
needs_models = pytest.mark.skipif(not BOOKS.exists(), reason="models/ is not in this copy")


@pytest.fixture(autouse=True)
def as_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """In a folder of one's own; `python examples/x.py` finds its neighbours too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def load(name: str) -> ModuleType:
    return load_script(EXAMPLES / f"{name}.py")


def run(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *argv: str) -> str:
    monkeypatch.setattr(sys, "argv", [name, *argv])
    load(name).main()
    return capsys.readouterr().out


@pytest.mark.parametrize("name", SMALL)
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 100


# ---- other people's pipelines ----


def test_landscapes_are_predicted_exactly() -> None:
    """By counting: of the landscapes that agree with what is known, how many have each colour."""
    example = load("landscapes")
    pictures, generator = example.landscapes(), torch.Generator().manual_seed(0)
    for known in (0, 1, 3, 10):
        canvas = torch.full((example.SIDE**2,), example.V)
        where = torch.randperm(len(canvas), generator=generator)[:known]
        canvas[where] = pictures.flatten(1)[500, where]
        agree = pictures[(pictures.flatten(1)[:, where] == canvas[where]).all(1)]
        expected = torch.nn.functional.one_hot(agree, example.V).float().mean(0)
        logits = example.Transformer()(canvas.view(1, example.SIDE, example.SIDE))
        torch.testing.assert_close(logits[0].softmax(0).permute(1, 2, 0), expected, rtol=0, atol=1e-3)


def test_amused_without_flags(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--steps", "4", "--num-sequences", "4", "--num-images", "4")
    out = run("amused_pipeline", capsys, monkeypatch, *options)
    assert re.findall(r"(\d+) network calls", out) == ["4", "4", "4"]
    own, plain, learned = (float(share) for share in re.findall(r"([\d.]+)% of the tokens", out))
    assert learned < own < plain
    assert Image.open("amused.png").size == (4 * (256 + 16), 3 * (256 + 16))


@pytest.mark.parametrize("sampler", [False, True])
def test_amused_with_a_real_pipeline(
    sampler: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    amused().save_pretrained("pipeline")
    LSDScheduler(mask_token_id=IMAGE_MASK).save_pretrained("sampler")
    how = ("--sampler", "sampler") if sampler else ("--num-sequences", "2")
    out = run(
        "amused_pipeline", capsys, monkeypatch, "--pipeline", "pipeline", "--steps", "2", "--num-images", "1", *how
    )
    assert re.findall(r"(\d+) network calls\n", out) == ["2", "2", "2"]
    assert Image.open("amused.png").size == (8 + 16, 3 * (8 + 16))


def test_llada2_without_flags(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = run("llada2_pipeline", capsys, monkeypatch, "--num-sequences", "2", "--gen-length", "93")
    assert re.findall(r"(\d+) network calls", out) == ["24", "24", "24"]
    own, plain, learned = (int(errors) for errors in re.findall(r"(\d+) errors", out))
    assert learned <= 1 < min(own, plain)


def test_llada2_with_a_pipeline_of_transformers() -> None:
    example, pipe = load("llada2_pipeline"), llada2()
    for scheduler in (pipe.scheduler, LSDScheduler.from_config(pipe.scheduler.config)):
        pipe.scheduler = scheduler
        text, calls = example.generate(pipe, prompt="a b", gen_length=14, block_length=8, num_inference_steps=2)
        assert calls == 4 and "[MASK]" not in text
    assert example.mark_errors("3 2 1 0 9 7 6 0") == "3 2 1 0 9 [7] 6 [0]"


# ---- ours ----


@needs_models
def test_infilling_keeps_what_is_given(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("--prefix", "At last", "--suffix", " the end.", "--middle", "3", "--text", "My {2} friend, I {4}.")
    out = run("infilling", capsys, monkeypatch, "--num-samples", "2", "--steps", "4", *texts)
    between, holes = ([line for line in part.splitlines() if line.startswith("  ")] for part in out.split("My {2}"))
    assert len(between) == len(holes) == 2
    assert all(re.fullmatch(r"  At last ?\[.*\] ?the end\.", line) for line in between)
    assert all(re.fullmatch(r"  My ?\[.*\] ?friend, I ?\[.*\]\.", line) for line in holes)


@needs_models
def test_scaffolds_are_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens in every sample; and in every molecule that is printed, its benzene ring with one oxygen or more."""
    chem = pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")
    pytest.importorskip("fcd_torch", reason="fcd-torch is not installed")
    options = ("--fragment", "Oc1ccccc1", "--before", "0", "12", "--num-samples", "12", "--steps", "28")
    out = run("scaffold_infilling", capsys, monkeypatch, *options)
    shares = [[float(share) for share in found] for found in re.findall(r"valid ([\d.]+), with .* ([\d.]+)", out)]
    assert len(shares) == 2 and all(valid > 0 for valid, _ in shares)
    printed = [line.strip() for line in out.splitlines() if line.startswith("  ") and "valid" not in line]
    assert printed and all(chem.MolFromSmiles(s).HasSubstructMatch(chem.MolFromSmarts("Oc1ccccc1")) for s in printed)

    example = load("scaffold_infilling")
    pipe = MaskedDiffusionPipeline.from_pretrained(example.MODEL)
    canvas = torch.tensor(example.canvas_of(pipe, "Oc1ccccc1", 5))
    filled = pipe(input_ids=canvas, num_samples=4, num_inference_steps=2, output_type="ids").sequences
    given = canvas != pipe.denoiser.mask_token_id
    assert given.nonzero()[:, 0].tolist() == [*range(5, 14)] and (filled[:, given] == canvas[given]).all()
    for fragment, before, words in (("CCP", 0, "tokenizer cannot encode"), ("CC", 55, "must fit into 56 tokens")):
        with pytest.raises(ValueError, match=words):
            example.canvas_of(pipe, fragment, before)


def test_a_denoiser_of_ones_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = run("bring_your_own_denoiser", capsys, monkeypatch, "--train-steps", "60", "--num-sequences", "16")
    plain, learned, _ = (float(share) for share in re.findall(r"([\d.]+)% of the steps", out))
    assert learned < plain


def test_the_loop_of_ones_own_is_that_of_the_pipeline() -> None:
    """The same seed gives the same tokens; what has no file format says so, and writes nothing."""
    example = load("bring_your_own_denoiser")
    torch.manual_seed(0)
    network = example.Network(width=4)
    denoiser = example.WalkDenoiser(network)
    scheduler = LSDScheduler(**denoiser.scheduler_config())
    ours = MaskedDiffusionPipeline(denoiser, scheduler)(
        num_samples=256, num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type="ids"
    )
    assert torch.equal(example.sample(network, scheduler, 3), ours.sequences)
    with pytest.raises(NotImplementedError, match="WalkDenoiser has no file format"):
        denoiser.save_pretrained("walks")
    assert not Path("walks").exists()


@needs_models
def test_the_animation_tells_what_happened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run("animate_canvas", capsys, monkeypatch, "--calls", "2", "5")
    page = Path("canvas.html").read_text()
    data = json.loads(re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[0])
    for generation, calls in zip(data["runs"], (2, 5), strict=True):
        tokens, steps = generation["tokens"], generation["steps"]
        assert generation["calls"] == calls and set(steps) == set(range(calls + 1))
        assert "".join(tokens) in out
        assert [text for text, step in zip(tokens, steps, strict=True) if step == 0] == ["It", " was"]


# ---- pictures ----


def test_every_cell_of_a_grid_has_the_same_noise_and_classes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell holds what the pipeline makes with that seed, sampler and number of calls: dark on white, magnified."""
    save_garments(Path("model"))
    LSDScheduler(mask_token_id=7, vocab_size=7, order="halton").save_pretrained("learned")
    options = ("--model", "model", "--classes", "4", "0", "2", "--guidance-scale", "2", "--seed", "3")
    samplers = ("--samplers", "random", "mine=learned", "tweedie:confidence:cosine", "--nfe", "2", "9")
    out = run("picture_grid", capsys, monkeypatch, *options, *samplers)
    assert "Saved picture_grid.png: random, mine, tweedie:confidence:cosine" in out
    sheet, example = np.array(Image.open("picture_grid.png")), load("picture_grid")
    pipe = MaskedDiffusionPipeline.from_pretrained("model")
    orders = {
        "random": {},
        "learned": {"order": "halton"},
        "confidence": {"order": "confidence", "schedule": "cosine"},
    }
    side = example.ZOOM * 8  # a picture of 6 x 6 pixels in a frame of one
    for i, order in enumerate(orders.values()):
        pipe.scheduler = LSDScheduler(**pipe.denoiser.scheduler_config(), **order)
        for j, calls in enumerate((2, 9)):
            asked = {"num_samples": 3, "class_labels": [4, 0, 2], "guidance_scale": 2.0, "output_type": "ids"}
            noise = torch.Generator().manual_seed(3)
            images = codebook().decode(pipe(num_inference_steps=calls, generator=noise, **asked).sequences)
            y = example.HEAD + i * (2 * side + example.GAP) + example.GAP // 2
            x = example.MARGIN + example.LABEL + j * (2 * side + example.GAP)
            for k, image in enumerate(images):
                top, left = y + k // 2 * side + example.ZOOM, x + k % 2 * side + example.ZOOM
                found = sheet[
                    top : top + 6 * example.ZOOM : example.ZOOM, left : left + 6 * example.ZOOM : example.ZOOM
                ]
                np.testing.assert_array_equal(found, 255 - (255 * image).round().byte().numpy())


def test_a_cell_without_numbers_stays_empty() -> None:
    example = load("picture_grid")
    cell = Image.new("L", (240, 240), 0)
    sheet = np.array(example.draw({"a": [cell, None], "b": [None, cell]}, [("2", "calls"), ("4", "calls")], ""))
    assert (sheet == 0).sum() == 2 * 240 * 240
