"""The harness behind `lsd-eval`: samplers x network calls x temperatures, one row each, kept on disk as they come."""

import copy
import hashlib
import itertools
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tqdm import tqdm

from ..sampling.left_out import LEFT_OUT
from ..sampling.pipeline_runs import LABELS, entries_of, scheduler_in_place
from ..support.identity import Undescribable, identity
from ..support.workers import Workers
from .metric_sets import MetricSet, check_metric_set
from .rows import Row, append_jsonl, read_jsonl, write_jsonl
from .tokens import decode


_TENSOR_NAMES = ("timesteps", "score_coefficients", "log_score_coefficients")


@dataclass(frozen=True)
class Point:
    """One row to be: everything that decides its samples."""

    sampler: str
    nfe: int
    temperature: float
    num_samples: int
    batch_size: int
    seed: int
    fingerprint: str
    guidance_scale: float | None = None

    def matches(self, row: Mapping[str, Any]) -> bool:
        return all(row.get(name) == value for name, value in vars(self).items())

    @property
    def described(self) -> Row:
        """What a row holds of it."""
        return {name: value for name, value in vars(self).items() if (name, value) != ("guidance_scale", None)}


class Harness:
    """Makes and measures rows, and keeps them on disk as they come.

    Args:
        pipeline (`MaskedDiffusionPipeline` or a function that returns one): its scheduler is replaced, and put back
            after each run. Its networks are in evaluation mode meanwhile.
        samplers: name -> `LSDScheduler`. A learned sampler is left out, with a note on stderr, at numbers of steps
            that it was not learned for.
        metrics (`MetricSet`): `OracleMetrics`, `TextMetrics` or `TokenMetrics`, for example. Its `fingerprint` is part
            of a row's identity, under `yardstick`.
        num_samples (`int`): of each row; plug-in metrics are comparable only at equal numbers.
        batch_size (`int`): it decides which noise a sample gets, so it is part of a row's identity.
        progress (`bool`): progress bar on stderr.
        output (*optional*): a JSONL file to which each row is appended as soon as it is known. Whatever fails later,
            finished rows are there.
        resume (`bool`): keep the rows of `output`, and reuse those made with the same samplers, metrics, labels and
            `call_options`. A note on stderr says how the other rows differ.
        labels (*optional*): further columns of every row (the model's name, say), part of its identity.
        num_texts (`int`): how many samples to keep as text in a measured row, under `texts`; needs
            `metrics.tokenizer`.
        canvases (sequence of `torch.LongTensor` of shape `(length,)`, *optional*): what the samples fill in, one after
            another, of any lengths; shorter samples are filled up with `LEFT_OUT` (-1).
        workers ([`Workers`], *optional*): processes that share the rows. All make the same calls, and the first one
            writes `output`. Default: this process makes all rows.
        chooser ([`Harness`], *optional*): makes the samples that temperatures and guidance are chosen on, with the
            same samplers and on other canvases, for example. Default: this one.
        call_options: passed to the pipeline (`length`, `prefix`, ...). Of `class_labels` that are a list or a 1-D
            tensor, sample i gets entry `i % len`.

    Raises:
        ValueError: if an argument is out of range, samplers cannot be compared by `metrics`, or `metrics` has too few
            references for `num_samples`.
    """

    def __init__(
        self,
        pipeline: Any,
        samplers: Mapping[str, Any],
        metrics: MetricSet,
        *,
        num_samples: int,
        batch_size: int = 64,
        progress: bool = True,
        output: str | Path | None = None,
        resume: bool = False,
        labels: Mapping[str, str | None] | None = None,
        num_texts: int = 0,
        canvases: torch.Tensor | Sequence[torch.Tensor] | None = None,
        workers: Workers | None = None,
        chooser: "Harness | None" = None,
        **call_options: Any,
    ):
        for name, value in (("num_samples", num_samples), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if not samplers:
            raise ValueError("`samplers` must not be empty.")
        check_metric_set(metrics)
        metrics.check_num_samples(num_samples)
        if canvases is not None and metrics.canvases is not None and len(canvases) != num_samples:
            raise ValueError(f"`canvases` must be those of `metrics`, {num_samples}, got {len(canvases)}.")
        self.pipeline: Any = pipeline if hasattr(pipeline, "scheduler") else pipeline()
        self.samplers, self.metrics, self.call_options, self.canvases = samplers, metrics, call_options, canvases
        self.num_samples, self.batch_size, self.num_texts = num_samples, batch_size, num_texts
        self.progress, self.workers, self.chooser = progress, workers or Workers(), chooser
        self.output = output if self.workers.is_main else None
        filled = {} if canvases is None else {"canvases": list(canvases), "length": max(map(len, canvases))}
        identity_here = _identity(self.pipeline, metrics, call_options | filled)
        self.identity = self.workers.broadcast(dict(labels or {}) | identity_here)
        self._said: set[str] = set()
        self._done = self._reusable(self.workers.broadcast(_start_output(self.output, resume)))

    def only(self, *names: str) -> "Harness":
        """This harness, with some of its samplers; rows are shared."""
        some = copy.copy(self)
        some.samplers = {name: self.samplers[name] for name in names}
        some.chooser = None if self.chooser is None else self.chooser.only(*names)
        return some

    def with_num_samples(self, num_samples: int) -> "Harness":
        """This harness with another number of samples in each row, as a cheaper `chooser`; rows are shared.

        Raises:
            ValueError: if the samples fill in canvases, or `num_samples` is out of range.
        """
        if self.canvases is not None:
            raise ValueError(f"`num_samples` cannot be {num_samples}: there is one for each canvas.")
        if num_samples < 1:
            raise ValueError(f"`num_samples` must be at least 1, got {num_samples}.")
        self.metrics.check_num_samples(num_samples)
        other = copy.copy(self)
        other.num_samples = num_samples
        return other

    def points(
        self,
        nfe: Sequence[int],
        temperatures: Sequence[float],
        seed: int = 0,
        guidance_scales: Sequence[float | None] = (None,),
    ) -> list[Point]:
        """One point for each sampler, number of steps, temperature and guidance scale (None: the pipeline's own).

        Raises:
            ValueError: if an argument is empty or out of range, a sampler's `draws` know no temperature, or
                `call_options` have a `guidance_scale` too.
        """
        scales = [scale for scale in guidance_scales if scale is not None]
        if scales and self.call_options.get("guidance_scale") is not None:
            raise ValueError("`guidance_scales` exclude a `guidance_scale` among the `call_options`: leave one out.")
        given = (("nfe", nfe, 1), ("temperatures", temperatures, 0), ("guidance_scales", guidance_scales, 0))
        for name, values, least in given:
            if not values:
                raise ValueError(f"`{name}` must not be empty.")
            known = [value for value in values if value is not None]
            if known and min(known) < least:
                raise ValueError(f"`{name}` must hold numbers of at least {least}, got {min(known)}.")
        points = []
        for name, sampler in self.samplers.items():
            draws = getattr(getattr(sampler, "config", None), "draws", "exact")
            if draws != "exact" and set(temperatures) != {1}:
                raise ValueError(f"`temperatures` must be 1 for {name!r}, whose `draws` {draws!r} support no other.")
            for steps in nfe:
                if not getattr(sampler, "can_do", lambda _: True)(steps):
                    self._say_once(f"{name} has no numbers for {steps} steps: left out.")
                    continue
                rest = (self.num_samples, self.batch_size, seed, _fingerprint(sampler, steps))
                both = itertools.product(temperatures, guidance_scales)
                points += [Point(name, steps, float(t), *rest, None if g is None else float(g)) for t, g in both]
        return points

    def measure(self, points: Sequence[Point]) -> list[Row]:
        """All metrics of each point."""
        return self._rows(points, (*self.metrics.keys, *(["texts"] if self.num_texts else [])), self._all_metrics)

    def choose(self, points: Sequence[Point]) -> list[Row]:
        """The verdict of each point alone."""
        key = self.metrics.verdict_key
        return self._rows(points, (key,), lambda sequences, _: {key: self.metrics.verdict(sequences)})

    def _rows(
        self, points: Sequence[Point], keys: Sequence[str], metrics_of: Callable[[torch.Tensor, Row], Row]
    ) -> list[Row]:
        missing = list(dict.fromkeys(point for point in points if self._find(point, keys) is None))
        size, rank = self.workers.size, self.workers.rank
        with scheduler_in_place(self.pipeline, self.pipeline.scheduler), self._bar(len(missing)) as bar:
            for first in range(0, len(missing), size):
                here = missing[first : first + size][rank : rank + 1]
                made = [self._make(point, metrics_of, bar) for point in here]
                for row in itertools.chain(*self.workers.gather(made)):
                    if self.output is not None:
                        append_jsonl(self.output, row)
                    self._done.append(row)
                    bar.update()
        return [row for point in points if (row := self._find(point, keys)) is not None]

    def _make(self, point: Point, metrics_of: Callable[[torch.Tensor, Row], Row], bar: tqdm) -> Row:
        guidance = "" if point.guidance_scale is None else f", guidance {point.guidance_scale:g}"
        bar.set_description(f"{point.sampler}, {point.nfe} steps, temperature {point.temperature:g}{guidance}")
        self.pipeline.scheduler = self.samplers[point.sampler]
        sequences, calls, cost = _generate(self.pipeline, point, self.call_options, self.canvases)
        row = self.identity | point.described | cost | self.metrics.of_calls(calls)
        return row | metrics_of(sequences, row)

    def _bar(self, num_rows: int) -> tqdm:
        return tqdm(total=num_rows, disable=not self.progress, unit="row", file=sys.stderr)

    def _say_once(self, note: str) -> None:
        if note not in self._said:
            print(note, file=sys.stderr)
            self._said.add(note)

    def _all_metrics(self, sequences: torch.Tensor, row: Row) -> Row:
        kept: Row = {}
        if self.num_texts:
            kept["texts"] = decode(self.metrics.tokenizer, sequences[: self.num_texts])
        values = self.metrics.compute(sequences)
        return values | self.metrics.derived(row | values) | kept

    def _reusable(self, rows: Sequence[Row]) -> list[Row]:
        """The rows of this identity."""
        differing = [[name for name, value in self.identity.items() if row.get(name, row) != value] for row in rows]
        if any(differing):
            names = ", ".join(f"`{name}`" for name in self.identity if any(name in names for names in differing))
            num = sum(map(bool, differing))
            self._say_once(f"{num} rows of {self.output} are not reused: they have another {names}, or do not say.")
        return [row for row, names in zip(rows, differing, strict=True) if not names]

    def _find(self, point: Point, keys: Sequence[str]) -> Row | None:
        for row in self._done:
            if point.matches(row) and all(key in row for key in keys):
                return row
        return None


def evaluate(
    pipeline: Any,
    samplers: Mapping[str, Any],
    nfe: Sequence[int],
    *,
    num_samples: int,
    metrics: MetricSet,
    temperatures: Sequence[float] = (1.0,),
    seed: int = 0,
    **options: Any,
) -> list[Row]:
    """Generates with each sampler at each number of steps and temperature, and measures.

    Batch b of every row is drawn with a CPU generator seeded `seed + b`: samplers see common random numbers.

    Args:
        nfe: numbers of steps.
        temperatures: global temperatures to try.
        seed (`int`): of the generation.
        pipeline, samplers, num_samples, metrics, options: as for [`Harness`].

    Returns:
        One dict for each sampler, NFE and temperature: these, `num_samples`, `batch_size`, `seed`, `fingerprint` (of
        the sampler), `length`, `seconds` (generation only), `network_calls` (of a sample, on average), all metrics.

    Raises:
        ValueError: if an argument is out of range.
    """
    harness = Harness(pipeline, samplers, metrics, num_samples=num_samples, **options)
    return harness.measure(harness.points(nfe, temperatures, seed))


def best_per_sampler(rows: Sequence[Row], verdict_key: str) -> list[Row]:
    """For each sampler and NFE the row, that is the temperature, with the least `verdict_key`; in order of first
    appearance.

    A verdict that is missing or NaN never wins over a number.

    Raises:
        ValueError: if no row has `verdict_key`, or the rows hold different numbers of samples: plug-in estimates of
            unequal size are not comparable.
    """
    if not any(row.get(verdict_key) is not None for row in rows):
        raise ValueError(f"`rows` must hold `{verdict_key}`, none does.")
    sizes = sorted({row["num_samples"] for row in rows})
    if len(sizes) > 1:
        raise ValueError(f"`rows` must hold equal numbers of samples to be compared, got {sizes}.")

    def verdict(row: Row) -> float:
        value = row.get(verdict_key)
        return float("inf") if value is None or value != value else value

    best: dict[tuple[str, int | None], Row] = {}
    for row in rows:
        key = (row["sampler"], row["nfe"])
        if key not in best or verdict(row) < verdict(best[key]):
            best[key] = row
    return list(best.values())


def floor_row(
    metrics: MetricSet,
    sequences: torch.Tensor,
    *,
    name: str = "real data",
    num_texts: int = 0,
    texts: Sequence[str] | None = None,
) -> Row:
    """The same metrics for real data, of shape `(num_samples, length)`, which no sampler can be expected to beat.

    Args:
        name (`str`): what stands in the column `sampler`.
        num_texts (`int`): how many texts to keep in the row; needs `texts` or `metrics.tokenizer`.
        texts (sequence of `str`, *optional*): what the sequences were made from; default: `sequences` decoded.
    """
    size = {"num_samples": len(sequences), "length": sequences.shape[1]}
    shown = decode(metrics.tokenizer, sequences[:num_texts]) if texts is None and num_texts else texts
    row = {"sampler": name, "nfe": None, "temperature": 1.0, **size, **metrics.compute(sequences, texts)}
    return row | metrics.derived(row) | ({"texts": [*shown[:num_texts]]} if shown and num_texts else {})


def _identity(pipeline: Any, metrics: MetricSet, call_options: Mapping[str, Any]) -> dict[str, Any]:
    """What determines a row besides its point and labels: the metrics, the length, and other options of the call."""
    options = {name: value for name, value in call_options.items() if name != "length"}
    known = {"yardstick": metrics.fingerprint, "call_options": _hash(options) if options else None}
    length = call_options.get("length")
    if length is None and options.get("input_ids") is not None:
        length = torch.as_tensor(options["input_ids"]).shape[-1]
    if length is None:
        length = getattr(getattr(pipeline, "denoiser", None), "length", None)
    return known if length is None else known | {"length": length}


def _hash(options: dict[str, Any]) -> str:
    """Short hash of call options. It never recurs if an option cannot be told apart from others."""
    try:
        return identity(options)[:12]
    except Undescribable:
        return secrets.token_hex(6)


def _fingerprint(sampler: Any, nfe: int) -> str:
    """Short hash of the configuration and tensors of `sampler` at `nfe`: a retrained sampler is another one."""
    sampler.set_timesteps(nfe)
    config = {key: value for key, value in dict(getattr(sampler, "config", {})).items() if not key.startswith("_")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    numbers = getattr(sampler, "steps", sampler)
    for name in _TENSOR_NAMES:
        value = getattr(numbers, name, None)
        if isinstance(value, torch.Tensor):
            digest.update(name.encode() + value.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()[:12]


def _generate(
    pipeline: Any,
    point: Point,
    options: Mapping[str, Any],
    canvases: torch.Tensor | Sequence[torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, Row]:
    """All sequences of one row, `(num_samples, length)` on the CPU, the network calls of each, and what they cost."""
    batches, calls, began = [], [], time.perf_counter()
    for index, start in enumerate(range(0, point.num_samples, point.batch_size)):
        rows = range(start, min(start + point.batch_size, point.num_samples))
        call = {
            "num_inference_steps": point.nfe,
            "temperature": point.temperature,
            # The same noise for every sampler, so that rows differ by the sampler and not by luck.
            "generator": torch.Generator().manual_seed(point.seed + index),
            **({} if point.guidance_scale is None else {"guidance_scale": point.guidance_scale}),
            **entries_of(LABELS, options, rows),
        }
        if canvases is None:
            output = pipeline(num_samples=len(rows), output_type="ids", **call)
            sequences, made = torch.as_tensor(output.sequences).cpu(), _calls_of(output, point.nfe)
        else:
            sequences, made = fill_in(pipeline, [canvases[i % len(canvases)] for i in rows], **call)
        batches.append(sequences)
        calls.append(made)
    seconds = time.perf_counter() - began
    sequences, calls_N = joined(batches), torch.cat(calls)
    cost = {"length": sequences.shape[1], "seconds": seconds, "network_calls": int(calls_N.sum()) / len(sequences)}
    return sequences, calls_N, cost


def fill_in(
    pipeline: Any, canvases: Sequence[torch.Tensor], *, num_inference_steps: int, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """One sample for each canvas, `(num_canvases, longest)`, with `LEFT_OUT` behind the end of shorter ones; and the
    network calls that each took, `(num_canvases,)`. Canvases of one length share a call of the pipeline. A list of
    `class_labels` has an entry for each.

    With `max_new_tokens` among the options, canvases are prompts with so many masks behind. All share a call, and a
    sample is the answer alone, `(num_canvases, max_new_tokens)`. `num_inference_steps` are those of each block.
    """
    if "max_new_tokens" in options:
        return _answers(pipeline, canvases, num_inference_steps, options)
    lengths = torch.tensor([len(canvas) for canvas in canvases])
    sequences, calls = torch.full((len(canvases), int(lengths.max())), LEFT_OUT), torch.zeros_like(lengths)
    options |= {"num_inference_steps": num_inference_steps, "output_type": "ids"}
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        here = entries_of(LABELS, options, rows.tolist())
        output = pipeline(input_ids=torch.stack([canvases[i] for i in rows]), **here)
        sequences[rows, :length] = torch.as_tensor(output.sequences).cpu()
        calls[rows] = _calls_of(output, num_inference_steps)
    return sequences, calls


def _answers(
    pipeline: Any, canvases: Sequence[torch.Tensor], num_inference_steps: int, options: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The answers to prompts, and the network calls of each."""
    num_new = options["max_new_tokens"]
    call = {**options, "prompt": [canvas[:-num_new] for canvas in canvases], "output_type": "ids"}
    num_steps = num_inference_steps * pipeline.number_of_blocks(call)
    output = pipeline(**call, num_inference_steps=num_steps)
    return torch.as_tensor(output.sequences)[:, -num_new:].cpu(), _calls_of(output, num_steps)


def joined(batches: Sequence[torch.Tensor]) -> torch.Tensor:
    """All batches as one, filled up to the longest."""
    longest = max(batch.shape[1] for batch in batches)
    return torch.cat([F.pad(batch, (0, longest - batch.shape[1]), value=LEFT_OUT) for batch in batches])


def _calls_of(output: Any, num_inference_steps: int) -> torch.Tensor:
    """Network calls of each sequence of a call, `(num_sequences,)`."""
    made = getattr(output, "sequence_calls", None)  # of a pipeline that saves some
    every = torch.full((len(output.sequences),), num_inference_steps)
    return every if made is None else torch.as_tensor(made).cpu()


def _start_output(output: str | Path | None, resume: bool) -> list[Row]:
    """Rows to reuse. The file is rewritten, so that a line cut short by a kill does not stay in it."""
    if output is None:
        return []
    done = read_jsonl(output) if resume and Path(os.path.expanduser(output)).exists() else []
    write_jsonl(output, done)
    return done
