"""What path_kl's sequences cost, and what schedules they give: the N-step teacher, data, or a bootstrap.

    python benchmarks/path_sources.py

The model is an exact chain, whose exact samples are the data. Schedules are priced by a step-error table of many other
sequences: nats per sequence above one token a step, mean over seeds and its standard error. Calls are counted per
sequence, for all numbers of calls together.
"""

import argparse

import torch

from lsd_sampler import DistillConfig, MaskedDiffusionPipeline, distill
from lsd_sampler.evaluation.tables import format_table
from lsd_sampler.sampling.learned_numbers import StepErrorTable


PAPERS_RECIPE = 64 * 1024 + 20 * 64 * 8
"""Of one number of calls: 64 teacher sequences of 1,024 steps, 20 epochs of 8."""


def table(pipe: MaskedDiffusionPipeline, data: torch.Tensor | None, **options) -> tuple[StepErrorTable, int]:  # noqa: ANN003
    """The table, and network calls counted per sequence."""
    records: list[dict] = []
    config = DistillConfig(method="path_kl", **options)
    learned = distill(pipe, config, data=data, log=records.append).learned_sampler.step_error
    assert learned is not None
    num_batches = -(-config.most_sequences // config.batch_size)
    return learned, (records[-1]["network_calls"] - 1) // num_batches * config.most_sequences


def price(truth: StepErrorTable, counts: list[int]) -> float:
    """Of a schedule, by a table that has all states, above one token a step."""
    cost = sum(float(truth.table[a, a:b].sum()) for a, b in zip(counts, counts[1:], strict=False))
    return max(0.0, cost - truth.solve(truth.seq_len)[1])  # below 0 by rounding only


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="countdown:V=32,L=128")
    parser.add_argument("--nfe", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--truth-sequences", type=int, default=512)
    args = parser.parse_args()
    pipe = MaskedDiffusionPipeline.from_pretrained(args.model)
    chain, nfe = pipe.denoiser, tuple(args.nfe)
    data = chain.sample(args.truth_sequences + 1000, torch.Generator().manual_seed(0))
    rows = []
    for order in ("random", "halton"):
        shared = {"order": order, "nfe": nfe}
        truth, _ = table(pipe, data, num_sequences=args.truth_sequences, num_states=chain.length, **shared)
        best = {f"{M} calls": f"{price(truth, truth.solve(M)[0]):.3f}" for M in nfe}
        rows.append({"order": order, "sequences of": "(best)", "calls": "", "of the recipe": "", **best})
        for paths in ("teacher", "data", "bootstrap"):
            prices, calls = {M: [] for M in nfe}, 0
            for seed in range(args.seeds):
                fresh = data[args.truth_sequences + 100 * seed :] if paths == "data" else None
                learned, calls = table(pipe, fresh, paths=paths, seed=seed, **shared)
                for M in nfe:
                    prices[M].append(price(truth, learned.solve(M)[0]))
            row = {
                "order": order,
                "sequences of": paths,
                "calls": calls,
                "of the recipe": f"{calls / PAPERS_RECIPE:.3f}",
            }
            for M in nfe:
                values = torch.tensor(prices[M], dtype=torch.float64)
                row[f"{M} calls"] = f"{values.mean():.3f} ({values.std() / len(values) ** 0.5:.3f})"
            rows.append(row)
    print(format_table(rows))


if __name__ == "__main__":
    main()
