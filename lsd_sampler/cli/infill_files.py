"""`--infill FILE`: canvases with masks to be filled in, one a line, of any lengths; and real sequences beside them."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from ..denoisers.frames import without_frame
from ..denoisers.mask_token import USUAL_MASKS
from ..denoisers.task_canvases import masked_text_ids
from ..denoisers.vocabulary import unknown_share
from .texts import read_lines


FLAG = "--infill"


def read_canvases(path: Path, pipeline: Any) -> list[torch.Tensor]:
    """The canvases of a file, `torch.LongTensor` of shape `(length,)` each, as `pipeline(input_ids=...)` takes them.

    A line is a text with the tokenizer's mask token (or `[MASK]`, `<mask>`). For a model without a tokenizer it holds
    token ids with white space between. In .jsonl it is `{"text": ...}`, `{"ids": [...]}` or a list of ids. An id of -1
    is a mask too.

    Raises:
        OSError: if there is no such file.
        ValueError: if a line is no canvas of this model, or none has a mask.
    """
    canvases = [canvas for _, canvas in _read_rows(path, FLAG, pipeline)]
    if canvases and (said := unknown_share(pipeline.tokenizer, torch.cat(canvases))):
        print(f"`{FLAG}` {str(path)!r}: {said}", file=sys.stderr)
    hole = pipeline.denoiser.hole_id
    if not any(bool((canvas == hole).any()) for canvas in canvases):
        raise ValueError(f"`{FLAG}` {str(path)!r} has nothing to fill in: write {_mask_of(pipeline)} where to.")
    return canvases


def read_completed(path: Path, canvas_path: Path, canvas_NL: torch.Tensor, pipeline: Any) -> torch.Tensor:
    """Real sequences that complete canvases, from a file of the same kind, line by line: `torch.LongTensor` of shape
    `(num, length)`. If there are several times as many lines, the canvases are gone through again and again.

    Args:
        path (`Path`): the file of sequences.
        canvas_path (`Path`): the file of canvases.
        canvas_NL (`torch.LongTensor` of shape `(num_canvases, length)`): the canvases, without the model's frame.
        pipeline ([`MaskedDiffusionPipeline`]): the model's.

    Raises:
        OSError: if there is no such file.
        ValueError: if a line is no sequence that completes its canvas, or the numbers of lines do not fit.
    """
    rows = _read_rows(path, "--data", pipeline)
    name, other, frame = str(path), str(canvas_path), getattr(pipeline.denoiser, "frame_token_ids", None)
    if not rows or len(rows) % len(canvas_NL):
        raise ValueError(
            f"`--data` {name!r} has {len(rows)} lines and `{FLAG}` {other!r} has {len(canvas_NL)}: they must belong"
            " together line by line."
        )
    completed = []
    for i, (number, ids) in enumerate(rows):
        canvas_L, x_L = canvas_NL[i % len(canvas_NL)], without_frame(ids[None], frame)[0]
        try:
            check_completes("the sequence", x_L, canvas_L, pipeline.denoiser.hole_id)
        except ValueError as error:
            raise ValueError(f"`--data` {name!r}, line {number}: {error}") from error
        completed.append(x_L)
    return torch.stack(completed)


def check_completes(name: str, x_L: torch.Tensor, canvas_L: torch.Tensor, hole: int) -> None:
    """Raises `ValueError`, naming `name`, unless a sequence completes its canvas, whose mask is `hole`."""
    if len(x_L) != len(canvas_L):
        raise ValueError(f"{name} must have the {len(canvas_L)} tokens of its canvas, got {len(x_L)}.")
    if bool((x_L == hole).any()):
        raise ValueError(f"{name} must have no mask: give the whole sequence.")
    wrong = ((canvas_L != hole) & (x_L != canvas_L)).nonzero()[:, 0].tolist()
    if wrong:
        found = f"{int(x_L[wrong[0]])} in place of {int(canvas_L[wrong[0]])} at position {wrong[0]} (from 0)"
        raise ValueError(f"{name} must have the tokens that its canvas gives, got {found}.")


def _read_rows(path: Path, flag: str, pipeline: Any) -> list[tuple[int, torch.Tensor]]:
    """The number of each line, and its ids with holes, as the pipeline takes them."""
    rows = []
    for number, line in read_lines(path, flag):
        try:
            ids = _ids_of(_parsed(line) if path.suffix == ".jsonl" else line, pipeline)
            rows.append((number, pipeline.canvas_of(ids)[0]))
        except ValueError as error:
            raise ValueError(f"`{flag}` {str(path)!r}, line {number}: {error}") from error
    return rows


def _parsed(line: str) -> str | list[int]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        content = content.get("ids", content.get("text"))
    if not isinstance(content, str | list):
        raise ValueError('must be as {"text": "..."}, {"ids": [1, 2, 3]} or [1, 2, 3].')
    return content


def _ids_of(content: str | list[int], pipeline: Any) -> list[int]:
    hole = pipeline.denoiser.hole_id
    if isinstance(content, str) and pipeline.tokenizer is not None:
        return masked_text_ids(content, pipeline.tokenizer, hole)
    if isinstance(content, str):
        try:
            content = [int(word) for word in content.split()]
        except ValueError:
            raise ValueError(f"the model has no tokenizer: write token ids, got {content!r}.") from None
    return [hole if i == -1 else i for i in content]


def _mask_of(pipeline: Any) -> str:
    if pipeline.tokenizer is None:
        return f"{pipeline.denoiser.hole_id} or -1"
    return getattr(pipeline.tokenizer, "mask_token", None) or USUAL_MASKS[0]
