"""What examples/app.py shows: canvases as HTML after each network call, and whether the last one is right."""

import base64
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.cli.common import load_sampler
from lsd_sampler.denoisers.patch_codebook import PatchCodebook
from lsd_sampler.evaluation.image_classifier import ImageClassifier
from lsd_sampler.evaluation.molecules import properties, read_molecules, smiles_of
from lsd_sampler.evaluation.tokens import decode, encode
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.pipeline_runs import scheduler_in_place
from lsd_sampler.support.sudoku import BOXES, is_solved, peers, random_puzzles
from lsd_sampler.support.validation import check_choice, check_number


GARMENTS = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
BASE, PLAIN = "base", ("halton", "confidence", "margin", "entropy")
MOST_SEED = 2**32 - 1
HIDDEN = torch.tensor([158, 178, 214], dtype=torch.uint8)  # the colour of masked patches


@dataclass(frozen=True)
class Request:
    """What a visitor asked for. A field that the model has no use for is not looked at."""

    model: str
    sampler: str
    calls: int = 8
    seed: int = 0
    temperature: float = 1.0
    label: int = 0
    guidance: float = 0.5
    clues: int = 30
    prefix: str = ""


@dataclass(frozen=True)
class Run:
    """One generation: `canvases` of shape `(steps + 1, length)`, the calls that were made, and the wall time."""

    canvases: torch.Tensor
    calls: int
    seconds: float


# ---- how the canvases of a model are started, shown and judged ----


class Texts:
    """Texts, or the ids of tokens where a model has no tokenizer."""

    style, order, temperature = "prose", "halton", 0.8
    legend = {"mask": "masked", "new": "new with this call", "given": "given"}

    def __init__(self, name: str, pipe: MaskedDiffusionPipeline):
        self.pipe, self.hole, self.length = pipe, pipe.denoiser.hole_id, pipe.denoiser.length

    def start(self, asked: Request) -> torch.Tensor:
        """The canvas to begin with, `(length,)`: what is given, and holes."""
        given = encode(self.pipe.tokenizer, [asked.prefix])[0] if asked.prefix and self.pipe.tokenizer else []
        if len(given) > self.length:
            raise ValueError(f"The prefix has {len(given)} tokens, but the canvas only {self.length}.")
        return torch.tensor(given + [self.hole] * (self.length - len(given)))

    def options(self, asked: Request) -> dict[str, Any]:
        return {}

    def words(self, canvas: torch.Tensor) -> list[str]:
        tokenizer = self.pipe.tokenizer
        return decode(tokenizer, canvas[:, None]) if tokenizer is not None else [f"{i} " for i in canvas.tolist()]

    def states(self, canvas: torch.Tensor, before: torch.Tensor, start: torch.Tensor) -> list[str]:
        """The state of each position: `mask`, `given`, `new` (since the canvas before) or `old`."""
        hole, given, new = (part.tolist() for part in (canvas == self.hole, start != self.hole, canvas != before))
        kinds = zip(hole, given, new, strict=True)
        return ["mask" if hole else "given" if given else "new" if new else "old" for hole, given, new in kinds]

    def frame(self, canvas: torch.Tensor, before: torch.Tensor, start: torch.Tensor) -> str:
        """A canvas as HTML."""
        words, states = self.words(canvas), self.states(canvas, before, start)
        shown = ""
        for state, run in groupby(range(len(words)), key=states.__getitem__):
            positions = list(run)
            text = escape("".join(words[i] for i in positions))
            shown += "<i></i>" * len(positions) if state == "mask" else f'<span class="{state}">{text}</span>'
        return f"<p>{shown}</p>"

    def verdict(self, canvas: torch.Tensor, asked: Request) -> tuple[bool | None, str]:
        """Whether a finished canvas is right, None where that cannot be said; and a sentence, as HTML."""
        return None, "No right or wrong here: read it."


class Molecules(Texts):
    """SMILES strings, drawn by rdkit where that is installed."""

    style, order, temperature = "smiles", "halton", 0.8
    legend = {**Texts.legend, "end": "■ end, · padding"}

    def words(self, canvas: torch.Tensor) -> list[str]:
        # a tokenizer may decode nothing from the end on
        words = self.pipe.tokenizer.convert_ids_to_tokens(canvas.tolist())
        return [{"<end>": "■", "<pad>": "·", None: ""}.get(word, word) for word in words]

    def verdict(self, canvas: torch.Tensor, asked: Request) -> tuple[bool | None, str]:
        try:
            from rdkit.Chem.Draw import rdMolDraw2D
        except ImportError:
            return None, "To check and draw molecules, <code>pip install lsd_sampler[molecules]</code>."
        (molecule,) = read_molecules([smiles_of(decode(self.pipe.tokenizer, canvas[None])[0])])
        if molecule is None:
            return False, "No valid SMILES: no molecule is written like that."
        drawing = rdMolDraw2D.MolDraw2DSVG(320, 200)
        drawing.DrawMolecule(molecule.graph)
        drawing.FinishDrawing()
        values = {name: value for name, (value,) in properties([molecule]).items()}
        facts = "logP {logp:.1f}, {weight:.0f} g/mol, QED {qed:.2f}".format(**values)
        svg = drawing.GetDrawingText().partition("?>")[2]
        return True, f"Valid SMILES: {facts}.<span role=img aria-label='The molecule, drawn'>{svg}</span>"


class Sudoku(Texts):
    """Sudokus of 4 x 4, 6 x 6 or 9 x 9 cells, token i being digit i + 1."""

    style, order, temperature = "grid", "margin", 1.0
    legend = {"given": "clue", "right": "fits", "wrong": "clashes", "new": "new with this call", "mask": "masked"}

    def start(self, asked: Request) -> torch.Tensor:
        size = self.pipe.denoiser.vocab_size
        check_number("clues", asked.clues, integer=True, low=0, high=self.length)
        grids, given = random_puzzles(1, size, asked.clues, torch.Generator().manual_seed(asked.seed))
        return grids.where(given, self.hole)[0]

    def clashes(self, canvas: torch.Tensor) -> torch.Tensor:
        """Whether each cell has the digit of another one in its row, column or box: `(length,)`."""
        others = peers(self.pipe.denoiser.vocab_size, "cpu").fill_diagonal_(False)
        return ((canvas[:, None] == canvas) & others).any(1) & (canvas != self.hole)

    def frame(self, canvas: torch.Tensor, before: torch.Tensor, start: torch.Tensor) -> str:
        size, clashes = self.pipe.denoiser.vocab_size, self.clashes(canvas).tolist()
        height, width = BOXES[size]
        cells = [""] * size
        for i, (digit, state) in enumerate(zip(canvas.tolist(), self.states(canvas, before, start), strict=True)):
            row, column = divmod(i, size)
            kind = state if state in ("mask", "given") else f"{state} right"
            kind = "wrong " + state if clashes[i] else kind
            edges = "top " * (row % height == 0) + "left " * (column % width == 0)
            cells[row] += f'<td class="{edges}{kind}">{"" if state == "mask" else digit + 1}</td>'
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"

    def verdict(self, canvas: torch.Tensor, asked: Request) -> tuple[bool | None, str]:
        if bool(is_solved(canvas[None], self.pipe.denoiser.vocab_size)):
            return True, "Correct: no digit twice in a row, a column or a box."
        return False, f"Wrong: {int(self.clashes(canvas).sum())} cells clash with another one."


class Pictures(Texts):
    """Pictures by class, drawn through the codebook in the model's folder, and judged by its classifier if there."""

    style, order, temperature = "picture", "margin", 1.0
    legend = {"mask": "masked"}

    def __init__(self, name: str, pipe: MaskedDiffusionPipeline):
        super().__init__(name, pipe)
        self.codebook, self.shape = PatchCodebook.from_pretrained(name), pipe.denoiser.canvas_shape
        number = getattr(pipe.denoiser, "num_classes", 1)
        self.classes = GARMENTS if Path(name).name == "garments" else tuple(f"class {i}" for i in range(number))
        try:
            self.judge = ImageClassifier.from_pretrained(name).eval()
        except OSError:
            self.judge = None

    def options(self, asked: Request) -> dict[str, Any]:
        return {"class_labels": asked.label, "guidance_scale": asked.guidance}

    def frame(self, canvas: torch.Tensor, before: torch.Tensor, start: torch.Tensor) -> str:
        hidden, (height, width) = canvas == self.hole, self.codebook.patches.shape[1:]
        image = self.codebook.decode(canvas.where(~hidden, 0).view(1, *self.shape))[0]
        covered = hidden.view(self.shape).repeat_interleave(height, 0).repeat_interleave(width, 1)[..., None]
        grey = (255 * (1 - image)).round().byte()[..., None].expand(-1, -1, 3)
        file = io.BytesIO()
        Image.fromarray(HIDDEN.where(covered, grey).numpy()).save(file, "PNG")
        known = f"{int((~hidden).sum())} of {len(canvas)} patches known"
        return f'<img alt="{known}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'

    @torch.no_grad()
    def verdict(self, canvas: torch.Tensor, asked: Request) -> tuple[bool | None, str]:
        if self.judge is None:
            return None, f"Asked for: {self.classes[asked.label]}."
        share, seen = self.judge(self.codebook.decode(canvas.view(1, *self.shape)))[0].softmax(0).max(0)
        said = f"The classifier takes it for: {self.classes[int(seen)]} ({float(share):.0%})"
        right = int(seen) == asked.label
        return right, f"{said}, as asked." if right else f"{said}; asked for: {self.classes[asked.label]}."


# ---- runs ----


@cache
def load(name: str, device: str = "cpu") -> Texts:
    """A model, and how it is shown.

    Raises:
        ValueError, OSError: if it cannot be loaded; the message says what to do.
    """
    pipe = MaskedDiffusionPipeline.from_pretrained(name).to(device)
    denoiser = pipe.denoiser
    pipe.set_progress_bar_config(disable=True)
    pipe(num_inference_steps=1, output_type="ids")  # the first call is slower than the others: it should not count
    if denoiser.vocab_size in BOXES and denoiser.length == denoiser.vocab_size**2:
        return Sudoku(name, pipe)
    if denoiser.canvas_shape is not None:
        try:
            return Pictures(name, pipe)
        except OSError:  # no codebook: tokens
            return Texts(name, pipe)
    vocabulary = pipe.tokenizer.get_vocab() if pipe.tokenizer else {}
    is_smiles = len(vocabulary) < 1000 and {"C", "c", "(", "="} <= set(vocabulary)
    return (Molecules if is_smiles else Texts)(name, pipe)


@cache
def samplers(model: str, folders: tuple[str, ...] = (), device: str = "cpu") -> dict[str, LSDScheduler]:
    """Label -> scheduler: the base solver, orders, the learned sampler beside the model, and those that fit it."""
    denoiser = load(model, device).pipe.denoiser
    config = denoiser.scheduler_config()
    found = {BASE: LSDScheduler(**config)}
    for order in PLAIN if denoiser.mask_token_id is not None else ():
        schedule = "cosine" if ORDERS[order].looks_at_logits else "uniform"
        found[order] = LSDScheduler(**config, order=order, schedule=schedule)
    path = Path(model).expanduser().resolve()
    beside = [path.parent / f"{stem}-default" for stem in dict.fromkeys((path.name, path.name.partition("-")[0]))]
    for folder in (*(str(folder) for folder in beside if folder.is_dir()), *folders):
        sampler = load_sampler(folder)
        if sampler.config.mask_token_id == config["mask_token_id"]:
            found[Path(folder).name] = sampler
    return found


def record(
    view: Texts, scheduler: LSDScheduler, asked: Request, tell: Callable[[int], None] = lambda step: None
) -> Run:
    """Fills one canvas, and keeps what it looks like after each call.

    Args:
        tell: gets the number of steps done, after each step.
    """
    start = view.start(asked)
    canvases = [start]

    def keep(pipe: Any, step: int, timestep: torch.Tensor, tensors: dict[str, torch.Tensor]) -> None:
        canvases.append(tensors["sample"][0].cpu())
        tell(step + 1)

    options = {"num_inference_steps": asked.calls, "temperature": asked.temperature, **view.options(asked)}
    generator = torch.Generator().manual_seed(asked.seed)
    tic = time.perf_counter()
    with scheduler_in_place(view.pipe, scheduler):
        out = view.pipe(input_ids=start, generator=generator, output_type="ids", callback_on_step_end=keep, **options)
    return Run(torch.stack(canvases), out.network_calls, time.perf_counter() - tic)


def frames(view: Texts, run: Run) -> list[str]:
    """The canvas as HTML: as it was given, and after each step."""
    before = [run.canvases[0], *run.canvases[:-1]]
    return [view.frame(now, then, run.canvases[0]) for now, then in zip(run.canvases, before, strict=True)]


def compare(asked: Request, folders: tuple[str, ...] = (), device: str = "cpu", **options: Any) -> tuple[Run, Run]:
    """The base solver and the sampler that was asked for, with the same noise.

    Raises:
        ValueError: if an argument is out of range, or the sampler cannot make that many calls.
        OSError: if the model or a sampler cannot be loaded.
    """
    check_number("seed", asked.seed, integer=True, low=0, high=MOST_SEED)
    known = samplers(asked.model, folders, device)
    check_choice("sampler", asked.sampler, list(known))
    view = load(asked.model, device)
    base, other = (record(view, known[name], asked, **options) for name in (BASE, asked.sampler))
    return base, other
