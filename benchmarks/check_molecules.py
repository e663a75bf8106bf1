"""The figures of `lsd-eval --molecules`, made again by a plain loop around the network.

python benchmarks/check_molecules.py eval-molecules --reference test.smi.xz

Nothing of the package but the network itself takes part: no scheduler, no pipeline, no metric. Weights are read by
safetensors, the tokens by json, and the samplers are the loop below. Molecules are read by rdkit, and the Fréchet
distance is that of fcd-torch. The samples are others than those of `lsd-eval`, so the last column should be of size 1:
the difference in its standard errors, which are those of `lsd-eval`'s own intervals times the root of 2.
"""

import argparse
import json
import lzma
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fcd_torch import FCD
from plain_order import learned, visits
from rdkit import Chem, RDLogger
from rdkit.Chem import QED, Crippen, Descriptors
from safetensors.torch import load_file
from scipy.stats import wasserstein_distance

from lsd_sampler.denoisers.radd import RADDDenoiser


SAMPLERS = {"tweedie": "random", "tweedie:halton": "halton", "tweedie:confidence:cosine": "confidence"}
LEARNED = "learned"
INTERVAL = 2 * 1.96  # standard errors from one end to the other


@torch.inference_mode()
def sample(
    network: Any, rule: str, num: int, calls: int, temperature: float, generator: torch.Generator, folder: Path | None
) -> Any:
    """`(num, length)` tokens, by equal numbers of positions in random or `halton` order, by MaskGIT's confidence and
    cosine, or by the learned numbers of `folder` in `halton` order.
    """
    length, mask = network.length, network.mask_token_id
    x, powers = torch.full((num, length), mask), np.ones(calls)
    order = torch.rand(num, length, generator=generator).argsort(1).argsort(1)
    shares = np.arange(1, calls + 1) / calls
    if rule in ("halton", LEARNED):
        seed = int(torch.randint(2**31, (), generator=generator))
        order = torch.from_numpy(visits(num, (length,), np.random.default_rng(seed)))
    if rule == LEARNED and folder is not None:
        shares, powers = learned(folder, calls)
    if rule == "confidence":
        shares = 1 - np.cos(math.pi / 2 * shares)
    for k, (share, power) in enumerate(zip(shares, powers, strict=True), 1):
        known, masked = round(length * float(share)), x == mask
        log_p = network(x)[..., :mask].double().log_softmax(-1)
        p = (float(power) * log_p / temperature).softmax(-1)
        drawn = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view(num, length)
        if rule != "confidence":
            x = torch.where(masked & (order < known), drawn, x)
            continue
        noise = -torch.rand(num, length, dtype=torch.float64, generator=generator).log().neg().log()
        score = log_p.gather(-1, drawn[..., None])[..., 0] + (1 - (k - 1) / max(1, calls - 1)) * noise
        rank = score.masked_fill(~masked, -math.inf).argsort(1, descending=True).argsort(1)
        x = torch.where(masked & (rank < known - (~masked).sum(1, keepdim=True)), drawn, x)
    return x


def read(path: Path) -> list[str]:
    with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as file:
        return [line.split()[0] for line in file if line.strip()]


def decode(rows: Any, folder: Path) -> list[str]:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    names = {i: token for token, i in vocabulary.items()}
    texts = ["".join(names[i] for i in row).split("<end>")[0] for row in rows.tolist()]
    while any(text.endswith("<pad>") for text in texts):
        texts = [text.removesuffix("<pad>") for text in texts]
    return texts


def properties(molecules: list[Any]) -> dict[str, list[float]]:
    measures: dict[str, Any] = {"logp": Crippen.MolLogP, "weight": Descriptors.MolWt, "qed": QED.qed}
    return {f"{name}_distance": [measure(molecule) for molecule in molecules] for name, measure in measures.items()}


class Yardstick:
    """Figures of texts beside half of the real molecules: the half that `lsd-eval` compares with."""

    def __init__(self, strings: list[str]):
        chosen = torch.randperm(len(strings), generator=torch.Generator().manual_seed(0))[: len(strings) // 2]
        real = [strings[i] for i in chosen.tolist()]
        self.fcd = FCD(batch_size=256)
        self.real, self.moments = properties([Chem.MolFromSmiles(s) for s in real]), self.fcd.precalc(real)

    def figures(self, texts: list[str]) -> dict[str, float]:
        read = [Chem.MolFromSmiles(text) for text in texts]
        valid = [molecule for molecule in read if molecule is not None and molecule.GetNumAtoms()]
        names = [Chem.MolToSmiles(molecule) for molecule in valid]
        found = {"valid": len(valid) / len(texts)}
        if len(valid) < 2:
            return found
        found["unique"] = len({*names}) / len(names)
        found |= {key: wasserstein_distance(of, self.real[key]) for key, of in properties(valid).items()}
        return found | {"fcd": float(self.fcd(gen=names, pref=self.moments))}


def rows_of(folder: Path, calls: int, rules: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of these samplers that were measured in full: those for choosing a temperature have no interval."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["sampler"] in rules and row["nfe"] == calls and "fcd_low" in row]
    if not rows:
        raise SystemExit(f"{folder} holds no molecules of {' or '.join(rules)} at {calls} calls.")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an --output-dir of lsd-eval --molecules")
    parser.add_argument("--model", type=Path, default=Path("models/molecules"))
    parser.add_argument("--reference", type=Path, required=True, help="the same as for lsd-eval")
    parser.add_argument("--sampler", type=Path, help="a learned sampler, of `path_kl` in `halton` order")
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rules = SAMPLERS | ({args.sampler.name: LEARNED} if args.sampler else {})
    rows = rows_of(args.folder, args.calls, rules)
    RDLogger.DisableLog("rdApp.*")
    network = RADDDenoiser(json.loads((args.model / "config.json").read_text())).to(torch.bfloat16).eval()
    network.load_state_dict(load_file(args.model / "model.safetensors"))
    yardstick, generator = Yardstick(read(args.reference)), torch.Generator().manual_seed(args.seed)
    print(f"{'sampler':28}{'figure':18}{'plain loop':>12}{'lsd-eval':>12}{'standard errors':>18}")
    for row in rows:
        made = []
        for start in range(0, row["num_samples"], args.batch_size):
            num = min(args.batch_size, row["num_samples"] - start)
            rule, temperature = rules[row["sampler"]], row["temperature"]
            made.append(sample(network, rule, num, args.calls, temperature, generator, args.sampler))
        found = yardstick.figures(decode(torch.cat(made), args.model))
        for key in found:
            error = (row[f"{key}_high"] - row[f"{key}_low"]) / INTERVAL * np.sqrt(2)
            apart = (found[key] - row[key]) / error if error else float("nan")  # all alike, as where all are valid
            print(f"{row['sampler']:28}{key:18}{found[key]:12.4f}{row[key]:12.4f}{apart:18.2f}", flush=True)


if __name__ == "__main__":
    main()
