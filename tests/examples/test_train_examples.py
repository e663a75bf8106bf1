"""The training examples make models that load, sample and decode; their data are what they say."""

import gzip
import json
import lzma
import math
import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.scripts import load_script
from tokenizers import Tokenizer

from lsd_sampler import MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.cli import evaluate
from lsd_sampler.denoisers.patch_codebook import PatchCodebook
from lsd_sampler.evaluation.image_classifier import ImageClassifier
from lsd_sampler.evaluation.image_reference import ImageReference


EXAMPLES = Path(__file__).parents[2] / "examples"


STRINGS = ["CCBr", "c1ccccc1[nH]", "CC(=O)NCl", "C#N", "COc1ccc(F)cc1"]


SMALL = ("--hidden-size", "16", "--heads", "2", "--blocks", "1", "--batch-size", "4", "--steps", "3", "--warmup", "2")


@pytest.fixture(autouse=True)
def neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python examples/x.py` finds its neighbours."""
    monkeypatch.syspath_prepend(EXAMPLES)


def load(name: str) -> ModuleType:
    return load_script(EXAMPLES / f"{name}.py")


def run(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path, *argv: str) -> str:
    """The card that the example writes."""
    options = (*SMALL, "--device", "cpu", "--output-dir", str(folder), *argv)
    monkeypatch.setattr(sys, "argv", [name, *options])
    load(name).main()
    return (folder / "README.md").read_text()


# ---- what is learned ----


def test_masks_are_weighed_by_their_probability() -> None:
    """The weights of masked tokens are 1 / lambda, so they are 1 on average: to 1 in 10,000, by Hoeffding's bound
    for the 400,000 tokens of sequences with lambda above 0.1.
    """
    x_BL = torch.zeros(1000, 400, dtype=torch.long)
    noised, clean, weight = load("trainer").mask_tokens(x_BL, 7, torch.Generator().manual_seed(0))
    assert torch.equal(clean, x_BL) and torch.equal(weight > 0, noised == 7)
    assert (noised.unique() == torch.tensor([0, 7])).all()
    # one lambda in each of B equal parts of (0, 1]
    lam = 1 / weight.amax(1)[5:]
    part = torch.arange(6, 1001) / 1000
    assert ((lam <= part + 1e-6) & (lam >= part - 1e-3 - 1e-6)).all()
    tokens = 900 * 400
    bound = math.sqrt(100 * math.log(2 / 1e-4) / (2 * tokens))
    assert abs(float(weight[100:].mean()) - 1) < bound


def test_the_loss_of_a_network_that_knows_nothing_is_the_log_of_the_vocabulary() -> None:
    """Whatever is masked: lambda-DCE of uniform predictions is log V times the mean weight."""
    trainer, generator = load("trainer"), torch.Generator().manual_seed(0)
    model = load("train_molecules").build_model(_sizes(length=32), 5)
    torch.nn.init.zeros_(model.output_layer.linear.weight)
    torch.nn.init.zeros_(model.output_layer.linear.bias)
    inputs = trainer.mask_tokens(torch.randint(5, (64, 32), generator=generator), model.mask_token_id, generator)
    expected = math.log(5) * inputs[2].mean()
    torch.testing.assert_close(trainer.masked_loss(model, *inputs), expected)
    compiled = torch.compile(trainer.masked_loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(model, *inputs), expected)


def _sizes(**more: Any) -> Any:
    from argparse import Namespace

    return Namespace(hidden_size=16, heads=2, blocks=1, dropout=0.0, **more)


# ---- text ----


def test_a_sedd_that_starts_from_radd_has_its_law_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scores are RADD's probabilities times a number per position, which its loss has to learn."""
    example, file = load("train_text_model"), tmp_path / "text.txt"
    file.write_text("a bird in the hand is worth two in the bush.\n" * 40)
    texts = ("--text", str(file), "--valid", str(file), *"--valid-windows 4 --length 16 --vocab-size 280".split())
    run("train_text_model", monkeypatch, tmp_path / "radd", "--kind", "masked", *texts)
    radd = load_denoiser(tmp_path / "radd", dtype=torch.float32).eval()
    for parameter in radd.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    sizes = _sizes(length=16, kind="sedd", vocab_size=280, init=None)
    sedd = example.build_model(sizes).eval()
    example.start_from_radd(sedd, radd)
    generator = torch.Generator().manual_seed(0)
    masked = torch.rand(3, 16, generator=generator) < 0.5
    canvas = torch.where(masked, 280, torch.randint(280, (3, 16), generator=generator))
    for t in (0.1, 0.9):
        found = sedd(canvas, torch.full((3,), t))[masked][:, :280].log_softmax(-1)
        torch.testing.assert_close(found, radd(canvas)[masked][:, :280], rtol=1e-4, atol=1e-4)

    card = run(
        "train_text_model", monkeypatch, tmp_path / "sedd", "--kind", "sedd", "--init", str(tmp_path / "radd"), *texts
    )
    assert "from the weights of radd" in card and "score entropy" in card
    assert load_denoiser(tmp_path / "sedd").prediction_type == "log_score"
    with pytest.raises(ValueError, match="--init"):
        example.start_from_radd(example.build_model(_sizes(length=16, kind="sedd", vocab_size=9, init=None)), radd)


# ---- molecules ----


def test_molecules_are_written_and_read_by_token() -> None:
    example = load("train_molecules")
    tokenizer = example.make_tokenizer(STRINGS, length=24)
    assert tokenizer.encode("CCBr", add_special_tokens=False).tokens[:3] == ["C", "C", "Br"]
    assert tokenizer.encode("c1[nH]c1Cl").tokens[:7] == ["c", "1", "[nH]", "c", "1", "Cl", "<end>"]
    canvases = example.encode(tokenizer, STRINGS, length=24)
    assert canvases.shape == (len(STRINGS), 24)
    assert [tokenizer.decode(row, skip_special_tokens=False) for row in canvases.tolist()] == STRINGS
    assert len(example.encode(tokenizer, STRINGS, length=8)) < len(STRINGS)  # what is too long is left out
    # padding before the end is an error of a sample, and shows
    pad, end, carbon = (tokenizer.token_to_id(token) for token in ("<pad>", "<end>", "C"))
    assert tokenizer.decode([carbon, pad, carbon, end, carbon], skip_special_tokens=False) == "C<pad>C"


def test_train_molecules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "train.smi.xz"
    with lzma.open(file, "wt") as out:
        out.writelines(f"{string}\n" for string in STRINGS * 4)
    options = ("--train", str(file), "--length", "16", "--samples", "3", "--valid", "4")
    card = run("train_molecules", monkeypatch, tmp_path / "m", *options)
    assert "MIT licence" in card and "3 steps of 4 x 16 tokens" in card and "Validation loss" in card
    pipe = MaskedDiffusionPipeline.from_pretrained(str(tmp_path / "m"))
    out = pipe(prefix="CC(", num_inference_steps=4, generator=torch.Generator().manual_seed(0))
    assert out.texts[0].startswith("CC(") and " " not in out.texts[0] and "<end>" not in out.texts[0]
    assert len((tmp_path / "m" / "training_samples.smi").read_text().splitlines()) == 3
    assert load_denoiser(tmp_path / "m").head(torch.zeros(1, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


# ---- garments ----


def test_codebook_and_classifier_on_disk(tmp_path: Path) -> None:
    codebook, classifier = PatchCodebook(torch.rand(3, 2, 2)), ImageClassifier(4, width=2).eval()
    codebook.save_pretrained(tmp_path)
    classifier.save_pretrained(tmp_path)
    assert torch.equal(PatchCodebook.from_pretrained(tmp_path).patches, codebook.patches)
    images = torch.rand(2, 28, 28)
    assert torch.equal(ImageClassifier.from_pretrained(tmp_path)(images), classifier(images))
    (tmp_path / "codebook.safetensors").rename(tmp_path / "classifier.safetensors")
    with pytest.raises(ValueError, match="classifier.safetensors lacks a matrix head.weight"):
        ImageClassifier.from_pretrained(tmp_path)
    with pytest.raises(OSError, match="codebook.safetensors"):
        PatchCodebook.from_pretrained(tmp_path)


def write_idx(folder: Path, part: str, count: int) -> None:
    """Class k has a bright square of its own."""
    labels = torch.arange(count) % 10
    images = torch.randint(20, (count, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
    for k, image in zip(labels.tolist(), images, strict=True):
        image[2 * k : 2 * k + 6, 4:20] += 100 + 10 * k
    for kind, header, data in (("images", (2051, count, 28, 28), images), ("labels", (2049, count), labels.byte())):
        content = struct.pack(f">{len(header)}i", *header) + data.numpy().tobytes()
        (folder / f"{part}-{kind}-idx{data.ndim}-ubyte.gz").write_bytes(gzip.compress(content))


def test_train_garments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path, "train", 100)
    write_idx(tmp_path, "t10k", 40)
    options = ("--data", str(tmp_path), "--valid", "10", "--samples", "10", "--classifier-epochs", "1",
               "--guidance-scales", "1")  # fmt: skip
    card = run("train_garments", monkeypatch, tmp_path / "g", *options)
    assert "MIT licence" in card and "guidance 1" in card and "on the\n  40 test pictures" in card
    pipe = MaskedDiffusionPipeline.from_pretrained(str(tmp_path / "g"))
    out = pipe(num_samples=2, class_labels=3, guidance_scale=1.0, num_inference_steps=2, output_type="ids")
    images = PatchCodebook.from_pretrained(tmp_path / "g").decode(out.sequences)
    assert images.shape == (2, 28, 28) and pipe.denoiser.canvas_shape == (14, 14)
    assert ImageClassifier.from_pretrained(tmp_path / "g")(images).shape == (2, 10)
    reference = ImageReference.from_pretrained(tmp_path / "g")
    assert (reference.number, reference.labels.tolist()) == (40, list(range(10)))
    # held-out training pictures, through the codebook: the bright square of class k
    real = PatchCodebook.from_pretrained(tmp_path / "g").decode(reference.sequences)
    inside = torch.stack([image[2 * k : 2 * k + 6, 4:20].mean() for k, image in enumerate(real)])
    assert bool((inside > 0.3).all()) and float(real.mean()) < 0.2
    # the mean of the features of the test pictures, and how often the judge is right on them
    test, labels = load("train_garments").read_images(str(tmp_path), "t10k", "cpu")
    features, classes = load("train_garments").classify(ImageClassifier.from_pretrained(tmp_path / "g"), test)
    torch.testing.assert_close(reference.moments.mean, features.double().mean(0))
    assert reference.accuracy == pytest.approx(float((classes == labels).double().mean()))


# ---- sudoku ----


@pytest.mark.parametrize("size", [4, 6, 9])
def test_grids_are_solved_and_symmetries_keep_them_so(size: int) -> None:
    example, generator = load("train_sudoku"), torch.Generator().manual_seed(0)
    grids = example.random_grids(300, size, generator, "cpu")
    height, width = example.BOXES[size]
    for these in (grids, example.transform(grids, size, generator)):
        rows = these.view(-1, size, size)
        boxes = rows.unflatten(1, (-1, height)).unflatten(3, (-1, width)).transpose(2, 3).flatten(3).flatten(1, 2)
        for units in (rows, rows.transpose(1, 2), boxes):
            assert torch.equal(units.sort(2).values, torch.arange(size).expand_as(units))
        assert example.is_solved(these, size).all()
    # of the 288 of size 4, about 1 - 1 / e are among 300; of the others hardly two agree
    assert len(grids.unique(dim=0)) > (150 if size == 4 else 280)
    moved = example.transform(grids[:1].expand(300, -1), size, generator)
    assert len(moved.unique(dim=0)) > (80 if size == 4 else 280)  # its orbit has 96 or 192 of 4 x 4


def test_a_grid_with_a_repeated_digit_is_not_solved() -> None:
    example = load("train_sudoku")
    grid = example.random_grids(1, 9, torch.Generator().manual_seed(0), "cpu")
    for cell in (0, 40, 80):
        wrong = grid.clone()
        wrong[0, cell] = (grid[0, cell] + 1) % 9
        assert not example.is_solved(wrong, 9).item()


def test_train_sudoku(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--size", "4", "--grids", "40", "--valid", "8", "--samples", "6", "--clues", "0", "10")
    card = run("train_sudoku", monkeypatch, tmp_path / "s", *options)
    assert "sudokus of 4 x 4" in card and "| 10 |" in card
    again = run("train_sudoku", monkeypatch, tmp_path / "s", *options, "--judge")
    assert again == card  # the same draws
    pipe = MaskedDiffusionPipeline.from_pretrained(str(tmp_path / "s"))
    out = pipe(prefix="1234", num_inference_steps=12)
    assert out.texts[0].startswith("1234") and len(out.texts[0]) == 16 and set(out.texts[0]) <= set("1234")
    tokenizer = Tokenizer.from_file(str(tmp_path / "s" / "tokenizer.json"))
    assert tokenizer.encode("4321").ids == [3, 2, 1, 0]


# ---- sudoku of 4 x 4, whose law is known ----


def test_grids_are_held_out() -> None:
    example = load("train_sudoku4")
    for num, held_out in ((200, 88), (287, 1), (288, 288)):
        train_NL, valid_NL = example.split_grids(num, 0)
        assert len(train_NL) == num and len(valid_NL) == held_out
        assert len(torch.cat([train_NL, valid_NL]).unique(dim=0)) == 288
    assert not torch.equal(example.split_grids(200, 1)[0], example.split_grids(200, 0)[0])


def test_a_random_share_is_masked_and_the_loss_is_the_mean_over_masked_tokens() -> None:
    """Each number of masks from 0 to 16 is equally likely: chi-square of 17,000 rows, 16 degrees of freedom, seed 0; a
    right one is above 59.3 once in a million.
    """
    trainer, generator = load("trainer"), torch.Generator().manual_seed(0)
    x_BL = torch.randint(4, (17_000, 16), generator=generator)
    noised, clean, weight = load("train_sudoku4").mask_uniformly(x_BL, 4, generator)
    masked = noised == 4
    assert torch.equal(clean, x_BL) and torch.equal(noised[~masked], x_BL[~masked])
    counts = masked.sum(1).bincount(minlength=17)
    assert float((counts - 1000).square().sum() / 1000) < 59.3
    logits = torch.randn(17_000, 16, 4, generator=generator)
    model = SimpleNamespace(hidden_states=lambda _: logits, head=lambda x: x, vocab_size=4)
    expected = torch.nn.functional.cross_entropy(logits[masked], x_BL[masked])
    torch.testing.assert_close(trainer.masked_loss(model, noised, clean, weight), expected)


def test_train_sudoku4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is a model that `lsd-eval` judges by the law of the grids, from clues of these."""
    folder = tmp_path / "s"
    card = run("train_sudoku4", monkeypatch, folder, "--samples", "6", "--num-grids", "250", "--seed", "1")
    assert "250 of the 288 grids" in card and "| 4 |" in card and "nats per masked token" in card
    pipe = MaskedDiffusionPipeline.from_pretrained(str(folder))
    assert pipe(prefix="1234", num_inference_steps=12).texts[0].startswith("1234")
    assert load_denoiser(folder).length == 16
    argv = ["--model", str(folder), "--oracle", "sudoku4:clues=8", "--nfe", "8", "--num-samples", "20"]
    assert evaluate.main([*argv, "--output-dir", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (row,), floor = summary["rows"], summary["floor"]
    assert floor["valid_share"] == 1 and row["valid_share"] < 1 and row["fill_error"] > floor["fill_error"]
    with pytest.raises(SystemExit):
        run("train_sudoku4", monkeypatch, folder, "--num-grids", "289")


def test_train_sudoku4_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """150 steps of small batches are far better than a model that knows nothing, whose loss is log 4 = 1.386."""
    options = ("--steps", "150", "--batch-size", "32", "--hidden-size", "32", "--warmup", "20", "--samples", "20")
    run("train_sudoku4", monkeypatch, tmp_path / "s", *options)
    summary = json.loads(capsys.readouterr().out.splitlines()[-3])
    assert summary["exact_loss"] < summary["loss"] < 1.2
