"""Canvases that one seed gives, by solver, order, corruption and pipeline: `tests/golden_canvases.json`.

They say that a change of the code has changed no token. Record them again only where tokens are meant to change:

    PYTHONPATH=tests:. python tests/helpers/golden_canvases.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from helpers.tiny_pipelines import TEXT_EOS, TEXT_MASK, amused, llada2

from lsd_sampler import Denoiser, DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill, load_denoiser
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.solvers import SOLVERS


FILE = Path(__file__).resolve().parents[1] / "golden_canvases.json"
MODELS = FILE.parents[1] / "models"
STEPS = 5
CORRUPTIONS = {"uniform": {}, "gaussian": {"rate_sigma": 2.0, "q_sigma": 3.0}}


class FixedLogits(Denoiser):
    """Predicts the same at every call, so that it goes with any corruption."""

    def __init__(self, vocab_size: int = 6, length: int = 12):
        super().__init__()
        self.vocab_size = self.mask_token_id = vocab_size
        self.length = length
        logits = torch.randn(length, vocab_size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        self.register_buffer("logits", logits)

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        return self.logits.expand(len(tokens), -1, -1)


def canvases() -> Iterator[tuple[str, list[list[int]]]]:
    """Name and tokens of every golden canvas."""
    yield from _countdown()
    yield from _without_mask()
    yield from _pipelines()
    yield from _books()


def record() -> None:
    """Writes the file, with the version of torch that made it."""
    lines = [f"{json.dumps(name)}: {json.dumps(tokens)}" for name, tokens in canvases()]
    FILE.write_text(f'{{"torch": "{torch.__version__.split("+")[0]}", "canvases": {{\n' + ",\n".join(lines) + "\n}}\n")


def _countdown() -> Iterator[tuple[str, list[list[int]]]]:
    denoiser = load_denoiser("countdown:V=6,L=20")
    settings: dict[str, dict[str, Any]] = {}
    for count in ("exact", "bernoulli"):
        settings |= {f"order {order} {count}": {"order": order, "count": count} for order in ORDERS.names()}
    settings |= {f"solver {solver}": {"solver": solver} for solver in SOLVERS.names()}
    settings |= {f"schedule {schedule}": {"schedule": schedule} for schedule in ("cosine", "arccos")}
    settings |= {f"draws {draws}": {"draws": draws, "count": "bernoulli"} for draws in ("float32_eps1e-6",)}
    for name, options in settings.items():
        yield f"countdown {name}", _sample(denoiser, **options)
    yield "countdown prefix", _sample(denoiser, order="halton", call={"prefix": [3, 2, 1]})
    pipe = _pipeline(denoiser)
    config = DistillConfig(method="path_kl", nfe=(STEPS,), num_sequences=8, teacher_steps=20)
    pipe.scheduler = distill(pipe, config)
    yield "countdown learned", _run(pipe)


def _without_mask() -> Iterator[tuple[str, list[list[int]]]]:
    denoiser = FixedLogits()
    for corruption, constants in CORRUPTIONS.items():
        for solver in ("tweedie", "euler"):
            options = {"mask_token_id": None, "vocab_size": 6, "corruption": corruption, "solver": solver, **constants}
            scheduler = LSDScheduler(**{**denoiser.scheduler_config(), **options})
            yield f"{corruption} {solver}", _steps(scheduler, denoiser)


def _pipelines() -> Iterator[tuple[str, list[list[int]]]]:
    images, texts = amused(), llada2()
    for order in ("random", "halton", "confidence"):
        images.scheduler = LSDScheduler.from_config(images.scheduler.config, order=order)
        out = images("a cat", num_inference_steps=STEPS, generator=_seeded(), output_type="latent")
        yield f"amused {order}", out.images.flatten(1).tolist()
        texts.scheduler = LSDScheduler(mask_token_id=TEXT_MASK, order=order)
        out = texts(
            "a b c", gen_length=16, block_length=8, num_inference_steps=4, temperature=1.0, eos_token_id=TEXT_EOS,
            mask_token_id=TEXT_MASK, eos_early_stop=False, use_chat_template=False, generator=_seeded(),
        )  # fmt: skip
        yield f"llada2 {order}", out.sequences.tolist()


def _books() -> Iterator[tuple[str, list[list[int]]]]:
    """Where the weights are: they are no part of an installed package."""
    if not (MODELS / "books-radd").is_dir():
        return
    pipe = MaskedDiffusionPipeline.from_pretrained(MODELS / "books-radd")
    pipe.set_progress_bar_config(disable=True)
    yield "books base", _run(pipe, num_samples=1)
    pipe.scheduler = LSDScheduler.from_pretrained(MODELS / "books-default")
    yield "books learned", _run(pipe, num_samples=1, prefix="It was")


def _sample(denoiser: Denoiser, call: dict[str, Any] | None = None, **options: Any) -> list[list[int]]:
    return _run(_pipeline(denoiser, **options), **(call or {}))


def _pipeline(denoiser: Denoiser, **options: Any) -> MaskedDiffusionPipeline:
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**{**denoiser.scheduler_config(), **options}), None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _run(pipe: MaskedDiffusionPipeline, num_samples: int = 2, **call: Any) -> list[list[int]]:
    steps = {"num_inference_steps": STEPS, "generator": _seeded(), "output_type": "ids"}
    return pipe(num_samples=num_samples, **steps, **call).sequences.tolist()


def _steps(scheduler: LSDScheduler, denoiser: Denoiser) -> list[list[int]]:
    scheduler.set_timesteps(STEPS)
    generator = _seeded()
    canvas = scheduler.sample_prior(2, denoiser.length, generator)
    for t in scheduler.timesteps:
        canvas = scheduler.step(denoiser(canvas), t, canvas, generator=generator).prev_sample
    return canvas.tolist()


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


if __name__ == "__main__":
    record()
