"""The canvases of `lsd-eval --infill`: which sample fills in which, and the sequences behind them."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

from ..denoisers.oracle import Oracle
from ..evaluation.harness import joined
from ..evaluation.metric_sets import FillMetrics, MetricSet, exact_fills
from ..evaluation.tokens import encode
from ..sampling.left_out import LEFT_OUT
from .infill_files import FLAG, check_completes, read_canvases
from .texts import read_lines


class FillTask:
    """Sample i takes canvas i, and the first canvas follows the last.

    Args:
        num_samples (`int`): of a row.
        canvases (sequence of `torch.LongTensor` of shape `(length,)`): those of the file.
        truths: the sequence behind each, or None.

    Attributes:
        canvases, truths: one for each sample.
    """

    def __init__(self, num_samples: int, canvases: Sequence[torch.Tensor], truths: Sequence[torch.Tensor | None]):
        self.num_canvases = len(canvases)
        self.canvases = [canvases[i % len(canvases)] for i in range(num_samples)]
        self.truths = [truths[i % len(truths)] for i in range(num_samples)]

    @classmethod
    def read(cls, path: Path, pipeline: Any, num_samples: int) -> Self:
        """The canvases of a file, and the sequences behind them, where a .jsonl file has them as `truth`.

        Raises:
            OSError, ValueError: as [`read_canvases`]; or if a truth does not complete its canvas.
        """
        canvases = read_canvases(path, pipeline)
        return cls(num_samples, canvases, read_truths(path, pipeline, canvases))

    @property
    def longest(self) -> int:
        return max(map(len, self.canvases))

    def metrics(self, metrics: MetricSet, hole_id: int, oracle: Oracle | None = None, seed: int = 0) -> FillMetrics:
        """Adds how fills vary to the metrics of whole sequences, with a note on stderr where no canvas has two fills.

        Args:
            metrics (`MetricSet`): of whole sequences.
            hole_id (`int`): the mask of the canvases.
            oracle ([`Oracle`], *optional*): an exact fill of it stands for a truth that is unknown.
            seed (`int`): of these fills.
        """
        if len(self.canvases) < 2 * self.num_canvases:
            known = f"{self.num_canvases} canvases and `--num-samples` {len(self.canvases)}"
            print(
                f"With {known}, not every canvas has two fills to tell how they vary: `--num-samples`"
                f" {2 * self.num_canvases} gives them.",
                file=sys.stderr,
            )
        if oracle is None:
            instead = [torch.full_like(canvas, LEFT_OUT) for canvas in self.canvases]
        else:
            instead = exact_fills(oracle, self.canvases, hole_id, seed)
        truths = [other if truth is None else truth for truth, other in zip(self.truths, instead, strict=True)]
        canvases_NL, truth_NL = (joined([row[None] for row in rows]) for rows in (self.canvases, truths))
        return FillMetrics(metrics, canvases_NL, truth_NL, hole_id)


def read_truths(path: Path, pipeline: Any, canvases: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """The sequences behind the canvases of a file: `{"text": "a [MASK]", "truth": "a b"}`, or lists of token ids.

    Raises:
        ValueError: if one does not complete its canvas; the message names file and line.
    """
    truths: list[torch.Tensor | None] = [None] * len(canvases)
    for i, (number, line) in enumerate(read_lines(path, FLAG) if path.suffix == ".jsonl" else ()):
        content = json.loads(line)
        if isinstance(content, dict) and content.get("truth") is not None:
            try:
                truths[i] = _truth_of(content["truth"], canvases[i], pipeline)
            except ValueError as error:
                raise ValueError(f"`{FLAG}` {str(path)!r}, line {number}: {error}") from error
    return truths


def _truth_of(truth: Any, canvas: torch.Tensor, pipeline: Any) -> torch.Tensor:
    """The tokens of the sequence that a canvas was made from."""
    if isinstance(truth, str) and pipeline.tokenizer is not None:
        truth = encode(pipeline.tokenizer, [truth])[0]
    if not isinstance(truth, list):
        kinds = "a list of token ids" if pipeline.tokenizer is None else "a text or a list of token ids"
        raise ValueError(f"`truth` must be {kinds}, got {truth!r}.")
    hole = pipeline.denoiser.hole_id
    ids = pipeline.canvas_of([hole if i == -1 else i for i in truth])[0]
    check_completes("`truth`", ids, canvas, hole)
    return ids
