"""Time that the order `adaptive` spends on its choice in one call, beside reading the rows that it chooses from.

Entropies are drawn at random, everything is masked, and a call takes a quarter of the positions. The redundancy of a
position changes with every pick, so they are taken one by one. The fastest of repeated times counts, because other
load on the machine only adds to it.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator

import torch

from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.sampling.position_choice import apart, in_order, num_within


CANVASES = [
    ("offset", (1024,), (16,)),
    ("offset", (4096,), (16,)),
    ("offset", (4096,), (64,)),
    ("offset_2d", (16, 16), (4, 4)),
    ("offset_2d", (32, 32), (4, 4)),
    ("offset_2d", (64, 64), (4, 4)),
    ("offset_2d", (32, 32), (32, 32)),
    ("matrix", (256,), (256, 256)),
]
"""Layout of kappa, shape of the canvas, and of kappa without its buckets."""
HEADING = ("kappa", "canvas", "reach", "places ms", "gain ms", "apart ms", "rows ms", "all / rows")


def milliseconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    for _ in range(repeats + 1):  # the first is the warm-up
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        times.append(time.perf_counter() - start)
    return 1000 * min(times[1:])


def measured(args: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """A row for each canvas."""
    generator, B = torch.Generator(args.device).manual_seed(0), args.batch

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, device=args.device, dtype=torch.float64)

    for layout, shape, sizes in CANVASES:
        L, kappa = math.prod(shape), uniform(4, *sizes) / 3
        dependence = Dependence((kappa + kappa.mT) / 2 if layout == "matrix" else kappa, layout)
        canvas = dependence.on(shape, args.device)
        H_BL, score_BL, weight_B = 5 * uniform(B, L), uniform(B, L), uniform(B)
        open_BL = torch.ones(B, L, dtype=torch.bool, device=args.device)
        bucket_B, num_B = dependence.bucket(open_BL), num_within(args.share, open_BL.sum(1))
        # rows are read in parts, as a step reads them: the whole logits would not fit everywhere
        rows = torch.randn(max(1, 2**25 // args.vocab), args.vocab, generator=generator, device=args.device)
        read = milliseconds(lambda x=rows: x.log_softmax(-1), args.device, args.repeats) * B * L / len(rows)
        parts = [
            lambda o=open_BL, s=score_BL: in_order(o, s),
            lambda c=canvas, h=H_BL, b=bucket_B: c.gain(h, b),
            lambda o=open_BL, s=score_BL, h=H_BL, w=weight_B, c=canvas, b=bucket_B, n=num_B: apart(
                o, s, h, w, c, b, n
            ),
        ]
        times = [milliseconds(part, args.device, args.repeats) for part in parts]
        reach = "all" if layout == "matrix" else "x".join(map(str, sizes))
        numbers = (*(f"{value:.1f}" for value in (*times, read)), f"{sum(times) / read:.3f}")
        yield (layout, "x".join(map(str, shape)), reach, *numbers)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    for name, default in {"batch": 16, "vocab": 32768, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--share", type=float, default=0.25, help="of the positions, which the call takes")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    args = parse_args()
    print(f"B = {args.batch}, a share of {args.share} taken; rows: one log_softmax of all, V = {args.vocab}, float32")
    for row in (HEADING, *measured(args)):
        print("  ".join(f"{cell:>10}" for cell in row), flush=True)


if __name__ == "__main__":
    main()
