"""The numbers that samplers hold: times and coefficients that are not all 1.

python benchmarks/learned_numbers.py reproduction/samplers/oracle-jys --nfe 4 8
"""

import argparse
from pathlib import Path

from lsd_sampler import LSDScheduler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samplers", nargs="+", type=Path, help="folders of samplers")
    parser.add_argument("--nfe", nargs="+", type=int, required=True, help="numbers of calls")
    args = parser.parse_args()
    for folder in args.samplers:
        scheduler = LSDScheduler.from_pretrained(folder)
        for nfe in args.nfe:
            steps = scheduler.steps_for(nfe)
            for key in ("timesteps", "score_coefficients", "log_score_coefficients"):
                values = getattr(steps, key).tolist()
                if key == "timesteps" or any(value != 1 for value in values):
                    print(f"{folder.name}, {nfe} calls, {key}:", *(f"{value:.3f}" for value in values))


if __name__ == "__main__":
    main()
