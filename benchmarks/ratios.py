"""What part of a ratio of perplexities comes from entropy: for `lsd-eval --frontier` folders.

python benchmarks/ratios.py reproduction/frontier-8 --base tweedie

The first table has each sampler's perplexity over the base solver's: once with both at temperature 1, and once where
the sampler has the entropy that the base solver has at temperature 1. The second table has the base solver's own gain
by temperature alone.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from lsd_sampler.evaluation.comparison import SWEEP_SEED
from lsd_sampler.evaluation.frontier import read_frontier
from lsd_sampler.evaluation.rows import Row, read_jsonl
from lsd_sampler.evaluation.tables import format_table


def ratios(sweep: Sequence[Row], base: str) -> tuple[list[Row], list[Row]]:
    """Rows of the two tables.

    Raises:
        ValueError: if `base` is not there at temperature 1.
    """
    at_one = {(row["sampler"], row["nfe"]): row for row in sweep if row["temperature"] == 1}
    samplers, temperatures = [], []
    for nfe in sorted({row["nfe"] for row in sweep}):
        if (base, nfe) not in at_one:
            raise ValueError(f"`base` {base!r} has no row at temperature 1 and {nfe} calls.")
        plain, rows = at_one[base, nfe], [row for row in sweep if row["nfe"] == nfe]
        keys = {"entropy_key": "unigram_entropy", "likelihood_key": "judge_nll"}
        for reading in read_frontier(rows, plain["unigram_entropy"], **keys):
            own = at_one[reading.sampler, nfe]
            log_ratio = own["judge_nll"] - plain["judge_nll"]
            line = {"sampler": reading.sampler, "nfe": nfe, "entropy": own["unigram_entropy"]}
            line |= {"perplexity": own["perplexity"], "ratio": math.exp(log_ratio), "note": reading.note or None}
            if reading.likelihood is not None:
                line["matched"] = math.exp(reading.likelihood - plain["judge_nll"])
            samplers.append(line)
        for row in rows:
            if row["sampler"] == base:
                line = {"sampler": base, "nfe": nfe, "temperature": row["temperature"]}
                line |= {"entropy": row["unigram_entropy"], "trigrams": row["char_trigram_entropy"]}
                temperatures.append(line | {"ratio": math.exp(row["judge_nll"] - plain["judge_nll"])})
    return samplers, temperatures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="output folders of lsd-eval --frontier")
    parser.add_argument("--base", default="tweedie", help="name of the base solver")
    args = parser.parse_args()
    rows = [row for folder in args.folders for row in read_jsonl(folder / "metrics.jsonl")]
    samplers, temperatures = ratios([row for row in rows if row["seed"] >= SWEEP_SEED], args.base)
    columns = {"sampler": "sampler", "nfe": "NFE", "perplexity": "perplexity", "entropy": "unigram entropy"}
    ends = {"ratio": "ratio at temp. 1", "matched": "ratio at base's entropy", "note": "note"}
    print(format_table(samplers, columns | ends))
    columns = {"sampler": "sampler", "nfe": "NFE", "temperature": "temp.", "entropy": "unigram entropy"}
    ends = {"trigrams": "char 3-gram entropy", "ratio": "ratio to temp. 1"}
    print(f"\n{format_table(temperatures, columns | ends)}")


if __name__ == "__main__":
    main()
