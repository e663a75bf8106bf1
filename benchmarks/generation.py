"""A whole generation by a network of real dimensions (random weights): where its time and memory go.

The same network is driven by our pipeline, with its head on demand (as it does by itself) and with whole logits, and
by the textbook step, which draws over the full vocabulary at every position. Network time is that of its calls, heads
included; the scheduler's is the rest. The textbook step costs the same each time, so it is timed on a few steps and
scaled. Memory is the most that is live at once beyond weights and canvas, in the first steps.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from step import Setting, device_name, peak_bytes, textbook_euler

from lsd_sampler import Denoiser, LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import RADDDenoiser, SEDDDenoiser


PROFILED_STEPS = 2

SIZES = {"small": (768, 12, 12), "medium": (1024, 24, 16)}


@dataclass
class Row:
    model: str
    driver: str
    steps_timed: int
    network_seconds: float
    scheduler_seconds: float
    peak_bytes: int

    @property
    def share(self) -> float:
        """The scheduler's part of the whole."""
        return self.scheduler_seconds / (self.network_seconds + self.scheduler_seconds)


class Enough(Exception):
    pass


def make_denoiser(name: str, length: int) -> Denoiser:
    family, size = name.split("-")
    hidden_size, blocks, heads = SIZES[size]
    sizes = {"hidden_size": hidden_size, "n_blocks": blocks, "n_heads": heads, "cond_dim": 128, "length": length}
    config = {
        "tokens": 50257, "graph": {"type": "absorb"}, "noise": {"type": "loglinear"},
        "model": {**sizes, "dropout": 0.1, "scale_by_sigma": True},
    }  # fmt: skip
    torch.manual_seed(0)
    return (SEDDDenoiser if family == "sedd" else RADDDenoiser)(config).eval()


@contextmanager
def network_clock(denoiser: Denoiser, device: torch.device) -> Iterator[list[float]]:
    """Adds up the time inside the network's calls, and inside its head where that is called apart."""
    spent, depth = [0.0], [0]
    originals = {name: getattr(denoiser, name) for name in ("forward", "head")}

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            depth[0] += 1
            synchronize(device)
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                synchronize(device)
                depth[0] -= 1
                if not depth[0]:  # a head inside a call counts once
                    spent[0] += time.perf_counter() - began

        return wrapper

    for name, call in originals.items():
        setattr(denoiser, name, timed(call))
    try:
        yield spent
    finally:
        for name in originals:
            delattr(denoiser, name)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pipeline_run(denoiser: Denoiser, setting: Setting) -> Callable[[int], None]:
    """A generation by our pipeline that stops after so many steps."""
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
    pipe.set_progress_bar_config(disable=True)

    def run(num_steps: int) -> None:
        def stop(_: Any, step: int, t: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            if step + 1 == num_steps:
                raise Enough
            return tensors

        try:
            pipe(
                num_samples=setting.batch, num_inference_steps=setting.steps, generator=setting.generator(),
                output_type="ids", callback_on_step_end=stop,
            )  # fmt: skip
        except Enough:
            pass

    return run


def textbook_run(denoiser: Denoiser, setting: Setting) -> Callable[[int], None]:
    def run(num_steps: int) -> None:
        x = torch.full((setting.batch, setting.length), setting.vocab, device=setting.device)
        for k in range(num_steps):
            t = torch.full((setting.batch,), 1 - k / setting.steps, device=setting.device)
            log_score = denoiser(x, t).float()
            if denoiser.prediction_type == "logits":
                log_score -= float(torch.expm1(denoiser.noise.total(float(t[0]))).log())
            x = textbook_euler(setting, log_score)(k, x)

    return run


def measure(
    name: str, denoiser: Denoiser, driver: str, run: Callable[[int], None], num_steps: int, setting: Setting
) -> Row:
    peak = peak_bytes(lambda: run(PROFILED_STEPS), setting.device)  # also the warm-up
    with network_clock(denoiser, setting.device) as network:
        began = time.perf_counter()
        run(num_steps)
        synchronize(setting.device)
        whole = time.perf_counter() - began
    scale = setting.steps / num_steps
    row = Row(name, driver, num_steps, network[0] * scale, (whole - network[0]) * scale, peak)
    print(f"{name}, {driver}: {whole:.1f} s for {num_steps} steps", file=sys.stderr)
    return row


def measure_model(name: str, setting: Setting, args: argparse.Namespace) -> list[Row]:
    denoiser = make_denoiser(name, setting.length)
    torch.nn.Module.to(denoiser, setting.device, args.dtype)
    if args.compile:
        denoiser.forward = torch.compile(denoiser.forward)
    rows, ours = [], pipeline_run(denoiser, setting)
    for denoiser.defers_head in (True, False):
        driver = "ours, head on demand" if denoiser.defers_head else "ours, whole logits"
        rows.append(measure(name, denoiser, driver, ours, setting.steps, setting))
    textbook = textbook_run(denoiser, setting)
    return [*rows, measure(name, denoiser, "textbook step", textbook, min(args.timed_steps, setting.steps), setting)]


def show(setting: Setting, rows: list[Row], dtype: torch.dtype) -> None:
    print(f"{device_name(setting.device)}; torch {torch.__version__}; {str(dtype).removeprefix('torch.')} weights")
    print(f"B = {setting.batch}, L = {setting.length}, {setting.steps} steps, random weights\n")
    print(
        f"{'model':12} {'driver':22} {'timed':>6} {'network s':>10} {'scheduler s':>12} {'share':>7} {'peak MiB':>9}"
    )
    for row in rows:
        times = f"{row.network_seconds:10.1f} {row.scheduler_seconds:12.2f} {row.share:7.1%}"
        print(f"{row.model:12} {row.driver:22} {row.steps_timed:6} {times} {row.peak_bytes / 2**20:9.0f}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["sedd-small", "radd-small"], help="FAMILY-SIZE")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default=torch.float32)
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    sizes = {"batch": 1, "length": 1024, "steps": 64}
    for name, default in (sizes | {"timed-steps": 4}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    args = parse_args()
    setting = Setting(args.batch, args.length, 50257, args.steps, args.device)
    rows = [row for name in args.models for row in measure_model(name, setting, args)]
    show(setting, rows, args.dtype)
    if args.json:
        report = {"device": device_name(setting.device), "torch": torch.__version__, "arguments": vars(args)}
        args.json.write_text(
            json.dumps({**report, "rows": [asdict(row) for row in rows]}, indent=2, default=str) + "\n"
        )


if __name__ == "__main__":
    main()
