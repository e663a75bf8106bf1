"""Time and peak extra memory spent inside schedulers for one whole generation; the network is never called.

One tensor of random logits serves every step, as if the denoiser had returned it. Ours runs all its steps. The others
cost about the same at every step, so they are timed on a few, spread over the generation, and scaled. The fastest of
repeated times counts, for everyone, because other load on the machine only adds to it.

Every registered order is timed, `adaptive` with numbers as they may be learned for a text. Beside it is what its steps
take over one `log_softmax` each of the rows that are masked then: the yardstick of orders that read them all. The
default sizes need up to 4 GiB, or 2 with `--ours-only`.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from diffusers import AmusedScheduler, BlockRefinementScheduler, SchedulerMixin
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.position_choice import PositionChoice


Step = Callable[[int, Tensor], Tensor]  # (step index, canvas) -> next canvas


@dataclass
class Setting:
    batch: int
    length: int
    vocab: int  # also the id of the mask
    steps: int
    device: torch.device
    dtype: torch.dtype = torch.float32

    def logits(self, columns: int) -> Tensor:
        shape = (self.batch, self.length, columns)
        return torch.randn(shape, generator=self.generator(), device=self.device, dtype=self.dtype)

    def generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(0)

    def canvas(self, index: int) -> Tensor:
        """A canvas as it may look before step `index`: an even share of the positions is revealed."""
        canvas = torch.full((self.batch, self.length), self.vocab, device=self.device)
        canvas[:, torch.randperm(self.length)[: self.length * index // self.steps]] = 0
        return canvas


@dataclass
class Row:
    name: str
    steps_timed: str
    seconds: float
    peak_bytes: int
    reading_seconds: float | None = None  # one `log_softmax` of the masked rows in each step, added up


def library_step(scheduler: SchedulerMixin, setting: Setting, logits: Tensor, **options: object) -> Step:
    scheduler.set_timesteps(setting.steps, device=setting.device)
    options["generator"] = setting.generator()
    return lambda k, x: scheduler.step(logits, scheduler.timesteps[k], x, **options).prev_sample


def textbook_euler(setting: Setting, log_score: Tensor) -> Step:
    """Euler step of the absorbing process as SEDD's code writes it: identity + dt * reverse rate, Gumbel draw."""
    generator, columns, dt = setting.generator(), setting.vocab + 1, 1 / setting.steps

    def step(k: int, x: Tensor) -> Tensor:
        forward = -torch.nn.functional.one_hot(x, columns).to(log_score)
        forward[x == setting.vocab] += 1
        rate = forward * log_score.exp() * (0.999 / (1 - 0.999 * (1 - k * dt)))
        rate.scatter_(-1, x[..., None], 0)
        rate.scatter_(-1, x[..., None], -rate.sum(-1, keepdim=True))
        probs = torch.nn.functional.one_hot(x, columns).to(rate) + dt * rate
        uniform = torch.rand(probs.shape, generator=generator, device=probs.device)
        return (probs / (1e-10 - (uniform + 1e-10).log())).argmax(-1)

    return step


def seconds(run: Callable[[], object], device: torch.device) -> float:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most bytes live at once beyond what was live before, temporaries inside operators included."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes to stderr otherwise
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        run()
    # The public summary nets per operator; the peak needs every allocation and release in order of time.
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())), default=0)


def learned_positions(setting: Setting, scheduler: LSDScheduler) -> LearnedSampler:
    """Numbers as they may be learned for a text: equal steps, and kappa that falls off over 16 positions."""
    kappa = torch.cat([torch.zeros(1), 0.5 ** torch.arange(1, 17)]).double().expand(4, -1).contiguous()
    shares = 1 / torch.arange(setting.steps, 0, -1).double()
    weights = torch.tensor([0, 1, 1, 0, 0.01], dtype=torch.float64)  # redundancy, gain, halton
    choice = PositionChoice(weights, torch.tensor(0.01, dtype=torch.float64), shares)
    steps = replace(LearnedSteps.plain(scheduler.steps_for(setting.steps).timesteps), choice=choice)
    return LearnedSampler({setting.steps: steps}, dependence=Dependence(kappa, "offset"))


def measure_ours(setting: Setting, logits: Tensor, order: str, repeats: int) -> tuple[Row, list[Tensor]]:
    """Its row, and all canvases of one generation, the masked one first."""
    canvases: list[Tensor] = []

    def run() -> None:
        scheduler = LSDScheduler(mask_token_id=setting.vocab, order=order)
        if order == "adaptive":  # without learned numbers it does not look at the logits
            scheduler.set_learned_sampler(learned_positions(setting, scheduler))
        step = library_step(scheduler, setting, logits)
        canvases[:] = accumulate(range(setting.steps), lambda x, k: step(k, x), initial=setting.canvas(0))

    first = seconds(run, setting.device)  # the warm-up; long runs need none
    print(f"order {order}: {first:.1f} s", file=sys.stderr)
    times = [first] if first > 5 else [seconds(run, setting.device) for _ in range(repeats)]
    assert not (canvases[-1] == setting.vocab).any(), "masks are left on the canvas"
    canvases.clear()
    peak = peak_bytes(run, setting.device)
    reading = reading_seconds(setting, logits, canvases[:-1], len(times))
    return Row(f"ours, order {order}", "all", min(times), peak, reading), canvases


def measure_some(name: str, step: Step, setting: Setting, timed_steps: int) -> Row:
    peak = peak_bytes(lambda: step(0, setting.canvas(0)), setting.device)  # also the warm-up
    canvases = {int(k): setting.canvas(int(k)) for k in torch.linspace(0, setting.steps - 1, timed_steps)}
    times = [seconds(lambda k=k, x=x: step(k, x), setting.device) for k, x in canvases.items()]
    print(f"{name}: {sum(times):.1f} s for {len(times)} steps", file=sys.stderr)
    return Row(name, ", ".join(map(str, canvases)), min(times) * setting.steps, peak)


def measure_others(setting: Setting, logits: Tensor, timed_steps: int) -> list[Row]:
    block, options = BlockRefinementScheduler(block_length=setting.length), {"mask_token_id": setting.vocab}
    others = {
        "diffusers Amused": library_step(AmusedScheduler(**options), setting, logits),
        "diffusers BlockRefinement, sampled": library_step(block, setting, logits, temperature=1.0, **options),
        "diffusers BlockRefinement, greedy": library_step(block, setting, logits, temperature=0.0, **options),
    }
    rows = [measure_some(name, step, setting, timed_steps) for name, step in others.items()]
    logits = setting.logits(setting.vocab + 1)  # SEDD's column for the mask
    return [*rows, measure_some("textbook Euler, Gumbel", textbook_euler(setting, logits), setting, timed_steps)]


def reading_seconds(setting: Setting, logits: Tensor, canvases: list[Tensor], repeats: int) -> float:
    """One `log_softmax` over the rows masked on each canvas, summed over canvases; picking the rows is not timed."""
    total = 0.0
    for canvas in canvases:
        masked = logits[canvas == setting.vocab]
        total += min(seconds(lambda x=masked: x.log_softmax(-1), setting.device) for _ in range(repeats))
    return total


def logsumexp_seconds(setting: Setting, logits: Tensor, canvases: list[Tensor], repeats: int) -> float:
    """One `logsumexp` over the rows revealed in each step, summed over the steps; picking the rows is not timed."""
    revealed = [logits[before != after] for before, after in pairwise(canvases)]
    times = [[seconds(lambda x=x: x.logsumexp(-1), setting.device) for x in revealed] for _ in range(repeats)]
    return min(map(sum, times))


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(": ")[2] for line in info.splitlines() if line.startswith("model name")]
    return f"{[*models, platform.machine()][0]}, {torch.get_num_threads()} threads"


def show(setting: Setting, rows: list[Row], references: dict[str, float]) -> None:
    size = setting.batch * setting.length * setting.vocab * setting.dtype.itemsize
    kind = str(setting.dtype).removeprefix("torch.")
    print(f"{device_name(setting.device)}; torch {torch.__version__}; {setting.steps} steps of {kind} logits")
    print(f"B = {setting.batch}, L = {setting.length}, V = {setting.vocab}: {size / 2**20:.0f} MiB of logits\n")
    head = f"{'scheduler':34} {'steps timed':>12} {'seconds':>10} {'x ours':>8} {'x read':>8}"
    print(f"{head} {'extra MiB':>10} {'% logits':>9}")
    for row in rows:
        ratio, memory, share = row.seconds / rows[0].seconds, row.peak_bytes / 2**20, 100 * row.peak_bytes / size
        read = f"{row.seconds / row.reading_seconds:.2f}" if row.reading_seconds else ""
        line = f"{row.name:34} {row.steps_timed:>12} {row.seconds:10.3f} {ratio:8.1f} {read:>8}"
        print(f"{line} {memory:10.1f} {share:9.2f}")
    print("\n`x read`: over one `log_softmax` a step of the rows that are masked then.")
    print("`logsumexp` over the rows that are revealed:")
    for name, reference in references.items():
        print(f"  {name}: {reference:.3f} s; {rows[0].name} takes {rows[0].seconds / reference:.2f} times that")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    sizes = {"batch": 16, "length": 1024, "vocab": 8192, "steps": 32}
    for name, default in (sizes | {"timed-steps": 3, "repeats": 5}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--orders", nargs="+", default=ORDERS.names(), choices=ORDERS.names(), help="the first is `ours`"
    )
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default=torch.float32, help="of logits")
    parser.add_argument("--ours-only", action="store_true", help="leave out the schedulers of others")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    args = parse_args()
    setting = Setting(args.batch, args.length, args.vocab, args.steps, args.device, args.dtype)
    logits = setting.logits(args.vocab)

    measured = [measure_ours(setting, logits, order, args.repeats) for order in args.orders]
    rows, canvases = [row for row, _ in measured], measured[0][1]
    references = {
        "a call a step, added up": logsumexp_seconds(setting, logits, canvases, args.repeats),
        "one call": min(seconds(lambda: logits.logsumexp(-1), setting.device) for _ in range(args.repeats)),
    }
    if not args.ours_only:
        rows += measure_others(setting, logits, args.timed_steps)
    show(setting, rows, references)
    if args.json:
        report = {"device": device_name(setting.device), "torch": torch.__version__, "arguments": vars(args)}
        report |= {"rows": [asdict(row) for row in rows], "logsumexp_seconds": references}
        args.json.write_text(json.dumps(report, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
