"""By how much the scores of a SEDD model are not normalised: what its predictions at masked positions add up to.

python benchmarks/score_sums.py models/books-sedd --text models/books-valid.txt.xz

Scores are odds of the noise times the probabilities of the clean token, so without the odds those of one position add
up to 1 where they are exact. The script masks held-out text as at each time, and prints the mean of the sum and the
standard deviation of its logarithm, over positions.
"""

import argparse
import lzma
from pathlib import Path

import torch
from tokenizers import Tokenizer

from lsd_sampler.denoisers import load_denoiser
from lsd_sampler.denoisers.sedd import SEDDDenoiser
from lsd_sampler.evaluation.rows import Row
from lsd_sampler.evaluation.tables import format_table


@torch.no_grad()
def sums(model: SEDDDenoiser, x_BL: torch.Tensor, times: list[float], seed: int = 0) -> list[Row]:
    rows, V = [], model.vocab_size
    for t in times:
        t_B = torch.full((len(x_BL),), t, dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        masked_BL = torch.rand(x_BL.shape, generator=generator) < model.noise.masked(t_B).float()[:, None]
        log_score_RV = model(torch.where(masked_BL, model.mask_token_id, x_BL), t_B)[masked_BL][:, :V].double()
        log_odds = (model.noise.alpha(t_B[:1]) / model.noise.masked(t_B[:1])).log()
        log_sum_R = log_score_RV.logsumexp(-1) - log_odds
        row = {"t": t, "positions": len(log_sum_R), "mean": log_sum_R.exp().mean().item()}
        rows.append(row | {"deviation": log_sum_R.std().item()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder with a SEDD model and its tokenizer.json")
    parser.add_argument("--text", required=True, type=Path, help="held-out text, .txt or .txt.xz")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--times", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.7, 0.9])
    args = parser.parse_args()
    model = load_denoiser(args.model, dtype=torch.float32).eval()
    if not isinstance(model, SEDDDenoiser) or model.corruption != "absorbing":
        parser.error(f"{args.model} is no SEDD model with a mask.")
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    with (lzma.open if args.text.suffix == ".xz" else open)(args.text, "rt", encoding="utf-8") as file:
        ids = [i for line in file for i in tokenizer.encode(line).ids]
    count = args.sequences * model.length
    if len(ids) < count:
        parser.error(f"{args.text} has {len(ids)} tokens, and --sequences {args.sequences} needs {count}.")
    x_BL = torch.tensor(ids[:count]).view(args.sequences, model.length)
    headings = {"t": "time", "positions": "masked positions", "mean": "mean sum", "deviation": "s.d. of its log"}
    print(format_table(sums(model, x_BL, args.times), headings))


if __name__ == "__main__":
    main()
