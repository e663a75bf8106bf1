"""Molecules, written as SMILES: one wrong token, and there is no molecule."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.evaluation import MetricSet
from lsd_sampler.evaluation.columns import Metric
from lsd_sampler.evaluation.metric_sets import Values
from lsd_sampler.evaluation.molecules import Molecule, read_molecules, smiles_of
from lsd_sampler.evaluation.parallelism import wilson
from lsd_sampler.evaluation.tokens import decode
from lsd_sampler.support.afterwards import as_warning
from lsd_sampler.support.atomic import write_atomically

from .finding import BASE, LEARNED, Finding, Setting
from .progress import say
from .samplers import add_learned, measure, measure_slow, plain_samplers


NFE, SHOWN_AT, ACROSS, DOWN = (4, 8), 8, 3, 4
CELL, HEAD, MARGIN, LETTERS = (220, 170), 60, 24, 24  # pixels, and characters of a line
INK, GREY, LINE = "#202020", "#909090", "#d8d8d8"
ORDERS = ("halton", "confidence:cosine")
NO_RDKIT = "rdkit is not installed (`pip install lsd_sampler[molecules]`): validity and drawings are left out."


class ValidMolecules(MetricSet):
    """The share of samples that rdkit reads as molecules, and the share that are different ones.

    Args:
        tokenizer: of the sequences.
        has_rdkit (`bool`): without it, nothing is measured.
    """

    metrics = (
        Metric("valid", "valid", lower_is_better=False, interval=True),
        Metric("invalid", "invalid", lower_is_better=True),
        Metric("different", "different", lower_is_better=False),
    )

    verdict_key = "invalid"

    def __init__(self, tokenizer: Any, has_rdkit: bool):
        self.tokenizer, self.has_rdkit = tokenizer, has_rdkit

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Shares of `sequences`, of shape `(num_samples, length)`."""
        if not self.has_rdkit:
            return dict.fromkeys(self.keys)
        molecules = read_molecules(map(smiles_of, texts or decode(self.tokenizer, sequences)))
        valid_N = torch.tensor([molecule is not None for molecule in molecules]).double()
        low, high = wilson(valid_N)
        different = {molecule.smiles for molecule in molecules if molecule is not None}
        valid = float(valid_N.mean())
        shares = {"valid": valid, "invalid": 1 - valid, "different": len(different) / len(molecules)}
        return shares | {"valid_low": low, "valid_high": high}


def run(setting: Setting) -> Finding:
    model = setting.model("molecules")
    pipe = MaskedDiffusionPipeline.from_pretrained(str(model))
    samplers = plain_samplers(pipe, ORDERS)
    notes = add_learned(samplers, setting.models / "molecules-default", model)
    has_rdkit = rdkit_is_there()
    notes += [] if has_rdkit else [NO_RDKIT]
    metrics = ValidMolecules(pipe.tokenizer, has_rdkit)
    number = setting.number(256, 48)
    rows = measure(pipe, samplers, metrics, NFE, number)
    rows += measure_slow(pipe, samplers[BASE], metrics, setting.number(128, 16))
    notes.append("valid: the share that rdkit reads. different: the share left without repetitions. Temperature 1.")
    finding = Finding("molecules", rows, "valid", "valid", False, {"different": "different"}, notes=notes)
    show(pipe, samplers, setting.folder, has_rdkit, finding)
    return finding


def rdkit_is_there() -> bool:
    try:
        import rdkit  # noqa: F401
    except ImportError:
        return False
    return True


def show(
    pipe: MaskedDiffusionPipeline, samplers: dict[str, LSDScheduler], folder: Path, has_rdkit: bool, finding: Finding
) -> None:
    """The first samples of base and learned at 8 calls, by the same noise: as SMILES, and drawn."""
    made: dict[str, list[str]] = {}
    for name in (BASE, LEARNED):
        if name in samplers and samplers[name].can_do(SHOWN_AT):
            pipe.scheduler = samplers[name]
            options = {"num_samples": ACROSS * DOWN, "generator": torch.Generator().manual_seed(0)}
            sequences = pipe(num_inference_steps=SHOWN_AT, output_type="ids", **options).sequences
            made[name] = [smiles_of(text) for text in decode(pipe.tokenizer, torch.as_tensor(sequences))]
    lines = [f"{name}, {SHOWN_AT} calls:\n" + "\n".join(f"  {text}" for text in made[name]) for name in made]
    write_atomically(folder / "smiles.txt", ("\n\n".join(lines) + "\n").encode())
    finding.files.append(folder / "smiles.txt")
    if has_rdkit:
        say("  Drawing molecules ...")
        with as_warning("No molecules.png"):
            drawing(made).save(folder / "molecules.png", optimize=True)
            finding.files.append(folder / "molecules.png")


def drawing(made: dict[str, list[str]]) -> Image.Image:
    """One picture: a block of molecules for each sampler, side by side. What is no molecule shows its SMILES."""
    width, height = ACROSS * CELL[0], HEAD + DOWN * CELL[1]
    sheet = Image.new("RGB", (len(made) * (width + MARGIN) + MARGIN, height + MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(28)
    for i, (name, strings) in enumerate(made.items()):
        left, molecules = MARGIN + i * (width + MARGIN), read_molecules(strings)
        valid = sum(molecule is not None for molecule in molecules)
        heading = f"{name}, {SHOWN_AT} calls: {valid} of {len(strings)} are molecules"
        pen.text((left + width // 2, HEAD // 2), heading, INK, font, anchor="mm")
        for place, (text, molecule) in enumerate(zip(strings, molecules, strict=True)):
            corner = (left + place % ACROSS * CELL[0], HEAD + place // ACROSS * CELL[1])
            sheet.paste(broken(text) if molecule is None else formula(molecule), corner)
            pen.rectangle((*corner, corner[0] + CELL[0], corner[1] + CELL[1]), outline=LINE)
    return sheet


def formula(molecule: Molecule) -> Image.Image:
    """The structural formula."""
    from rdkit.Chem import Draw

    return Draw.MolToImage(molecule.graph, size=CELL)


def broken(text: str) -> Image.Image:
    """A string that is no molecule."""
    cell = Image.new("RGB", CELL, "white")
    said = "\n".join(["not a molecule:", "", *textwrap.wrap(text, LETTERS)])
    middle = (CELL[0] // 2, CELL[1] // 2)
    ImageDraw.Draw(cell).multiline_text(middle, said, GREY, ImageFont.load_default(13), anchor="mm", align="center")
    return cell
