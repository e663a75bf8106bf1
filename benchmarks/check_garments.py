"""The figures of lsd-eval for an image model, once more by other means: a plain loop around the network, and scipy.

lsd-eval --model models/garments --baselines tweedie tweedie:confidence:cosine --temperatures 1 --output-dir DIR
python benchmarks/check_garments.py DIR --nfe 8 --data fashion-mnist

The loop knows neither schedulers nor pipelines of this library. Patches, features and the Fréchet distance come from
the files of the model's folder by numpy, torch's functions and scipy; with `--data`, a folder of the IDX files, also
the moments of the test pictures. Both have noise of their own, so the figures differ by chance: rarely by more than
two standard errors, which follow from the bootstrap of lsd-eval.
"""

import argparse
import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from plain_order import learned, visits
from safetensors.torch import load_file

from lsd_sampler import load_denoiser
from lsd_sampler.evaluation.comparison import SWEEP_SEED
from lsd_sampler.evaluation.rows import read_jsonl
from lsd_sampler.evaluation.tables import format_table


SAMPLERS = {"tweedie": "random", "tweedie:halton": "halton", "tweedie:confidence:cosine": "confidence"}
LEARNED = "learned"
AT_ONCE = 64


@torch.no_grad()
def sample(
    network: Any, labels: np.ndarray, calls: int, guidance: float, order: str, rng: Any, folder: Path | None
) -> np.ndarray:
    """Tokens `(number, length)`. `random` leaves a share of 1 - i/n masked after call i of n, and reveals anywhere.
    `confidence` leaves cos(pi i / 2n), as MaskGIT, and reveals where log p(token) + (1 - (i - 1)/(n - 1)) Gumbel is
    most. `halton` reveals in that order, `learned` too, with the learned numbers of `folder`.
    """
    mask, side = network.vocab_size, math.isqrt(network.length)
    tokens = np.full((len(labels), network.length), mask)
    visited = visits(len(labels), (side, side), rng) if order in ("halton", LEARNED) else None
    known, powers = (
        learned(folder, calls) if order == LEARNED and folder else (np.arange(1, calls + 1) / calls, np.ones(calls))
    )
    for i in range(1, calls + 1):
        logits = network(torch.from_numpy(tokens), class_labels=torch.from_numpy(labels), guidance_scale=guidance)
        log_p = logits[..., :mask].double().log_softmax(-1).numpy()
        drawn = (powers[i - 1] * log_p + rng.gumbel(size=log_p.shape)).argmax(-1)
        score, share = rng.random(tokens.shape) if visited is None else -1.0 * visited, 1 - known[i - 1]
        if order == "confidence":
            noise = (1 - (i - 1) / max(1, calls - 1)) * rng.gumbel(size=tokens.shape)
            score, share = (
                np.take_along_axis(log_p, drawn[..., None], -1)[..., 0] + noise,
                math.cos(i / calls * np.pi / 2),
            )
        score[tokens != mask] = -np.inf
        revealed = (tokens[0] == mask).sum() - round(network.length * share)
        first = np.argsort(-score, axis=1)[:, :revealed]
        np.put_along_axis(tokens, first, np.take_along_axis(drawn, first, 1), 1)
    return tokens


def pictures(tokens: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """A row of the canvas is a row of patches."""
    side = math.isqrt(tokens.shape[1])
    rows = [[patches[tokens[:, side * i + j]] for j in range(side)] for i in range(side)]
    return np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)


@torch.no_grad()
def features(images: np.ndarray, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """Convolutions of strides 1, 2, 1, 2, each followed by batch normalisation and ReLU; averaged over the picture."""
    x = torch.from_numpy(images).float()[:, None]
    for layer, stride in zip((0, 3, 6, 9), (1, 2, 1, 2), strict=True):
        x = F.conv2d(x, weights[f"layers.{layer}.weight"], stride=stride, padding=1)
        norm = (weights[f"layers.{layer + 1}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *norm).relu()
    return x.mean((2, 3))


def frechet(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    own = np.cov(x.T)
    root = scipy.linalg.sqrtm(own @ covariance).real
    return float(np.square(x.mean(0) - mean).sum() + np.trace(own + covariance - 2 * root))


def real_pictures(folder: Path) -> np.ndarray:
    raw = gzip.decompress(next(folder.glob("t10k-images-idx*.gz")).read_bytes())
    return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28) / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an --output-dir of lsd-eval")
    parser.add_argument("--model", type=Path, default=Path("models/garments"))
    parser.add_argument("--data", type=Path, help="folder of the IDX files: moments of the pictures themselves")
    parser.add_argument("--sampler", type=Path, help="a learned sampler, of `path_kl` in `halton` order")
    parser.add_argument("--nfe", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    network, rng = load_denoiser(args.model).eval(), np.random.default_rng(args.seed)
    weights, patches = load_file(args.model / "classifier.safetensors"), load_file(args.model / "codebook.safetensors")
    reference = load_file(args.model / "image_reference.safetensors")
    mean, covariance = reference["mean"].numpy(), reference["covariance"].numpy()
    if args.data:
        real = np.concatenate([features(part, weights).numpy() for part in np.split(real_pictures(args.data), 20)])
        print(
            f"moments of {len(real)} test pictures and of {args.model}: distance {frechet(real, mean, covariance):.1e}"
        )
        mean, covariance = real.mean(0), np.cov(real.T)
    rules = SAMPLERS | ({args.sampler.name: LEARNED} if args.sampler else {})
    judged = [row for row in read_jsonl(args.folder / "metrics.jsonl") if row["seed"] < SWEEP_SEED]
    table = []
    for row in [row for row in judged if row["sampler"] in rules and row["nfe"] == args.nfe]:
        if row["temperature"] != 1:
            raise SystemExit(
                f"The row of {row['sampler']} has another temperature than 1: run with `--temperatures 1`."
            )
        labels = np.arange(row["num_samples"]) % network.num_classes
        options = (args.nfe, row.get("guidance_scale", 0.0), rules[row["sampler"]], rng, args.sampler)
        parts = np.array_split(labels, -(-len(labels) // AT_ONCE))
        tokens = np.concatenate([sample(network, part, *options) for part in parts])
        found = features(pictures(tokens, patches["patches"].numpy()), weights)
        right = F.linear(found, weights["head.weight"], weights["head.bias"]).argmax(1).numpy() == labels
        error = math.sqrt(2) * np.std(row["frechet_distance_replicates"])
        spread = math.sqrt(2) * (row["class_accuracy_high"] - row["class_accuracy_low"]) / (2 * 1.96)
        for name, theirs, ours, one in (
            ("Fréchet distance", row["frechet_distance"], frechet(found.double().numpy(), mean, covariance), error),
            ("class accuracy", row["class_accuracy"], right.mean(), spread),
        ):
            entry = {"sampler": row["sampler"], "guidance": row.get("guidance_scale", 0.0), "figure": name}
            table.append(entry | {"lsd-eval": theirs, "here": ours, "standard errors": (ours - theirs) / one})
    if not table:
        raise SystemExit(f"{args.folder} holds no rows of {' or '.join(rules)} at {args.nfe} calls.")
    print(format_table(table))


if __name__ == "__main__":
    main()
