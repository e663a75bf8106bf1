"""How far scores are from being normalised: by a factor that is known, where every token is as likely."""

import math
from pathlib import Path

import torch
from helpers.scripts import load_script

from lsd_sampler.denoisers.sedd import SEDDDenoiser


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "score_sums.py"


def test_the_sum_of_uniform_predictions_is_known() -> None:
    sizes = {"hidden_size": 8, "n_heads": 2, "n_blocks": 1, "cond_dim": 4, "length": 12, "dropout": 0.0}
    noise = {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20}
    config = {"tokens": 6, "graph": {"type": "absorb"}, "noise": noise, "model": {**sizes, "scale_by_sigma": True}}
    model = SEDDDenoiser(config).eval()
    torch.nn.init.zeros_(model.output_layer.linear.weight)
    for factor in (1.0, 3.0):
        torch.nn.init.constant_(model.output_layer.linear.bias, math.log(factor))
        rows = load_script(SCRIPT).sums(model, torch.randint(6, (8, 12)), [0.2, 0.9])
        assert [row["t"] for row in rows] == [0.2, 0.9] and rows[0]["positions"] < rows[1]["positions"]
        for row in rows:
            assert math.isclose(row["mean"], factor, rel_tol=1e-4) and row["deviation"] < 1e-5
