"""Options of `lsd-eval` for reproductions: samples of a trained model judged by an exact chain, and the scheduler's
constants in `--baselines`.
"""

import json
from pathlib import Path

import pytest
import torch

from lsd_sampler.cli import evaluate
from lsd_sampler.cli.evaluation_parts import baseline
from lsd_sampler.denoisers.markov import countdown
from lsd_sampler.denoisers.oracle_names import make_oracle
from lsd_sampler.denoisers.sedd import SEDDDenoiser
from lsd_sampler.evaluation import oracle_statistics
from lsd_sampler.pipeline_masked_diffusion import MaskedDiffusionPipeline
from lsd_sampler.scheduling_lsd import LSDScheduler


CONFIG = {"mask_token_id": 4, "vocab_size": 4}


@pytest.fixture
def sedd(tmp_path: Path) -> Path:
    """A random SEDD model of four tokens, 16 positions."""
    model = {"hidden_size": 8, "n_heads": 2, "n_blocks": 1, "cond_dim": 4, "length": 16, "dropout": 0.0}
    noise = {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20}
    torch.manual_seed(0)
    config = {"tokens": 4, "graph": {"type": "absorb"}, "noise": noise, "model": model | {"scale_by_sigma": True}}
    SEDDDenoiser(config).save_pretrained(tmp_path / "sedd")
    return tmp_path / "sedd"


def arguments(model: Path, out: Path, *more: str) -> list[str]:
    return ["--model", str(model), "--num-samples", "32", "--nfe", "2", "--output-dir", str(out), *more]


def test_a_chain_judges_the_samples_of_a_trained_model(sedd: Path, tmp_path: Path) -> None:
    """The row is what `oracle_statistics` says of the very samples; of the real ones, no transition is forbidden."""
    assert evaluate.main(arguments(sedd, tmp_path / "out", "--oracle", "countdown:V=4,L=16")) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    denoiser = SEDDDenoiser.from_pretrained(sedd).eval()
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
    generator = torch.Generator().manual_seed(0)
    out = pipe(num_samples=32, num_inference_steps=2, generator=generator, output_type="ids")
    expected = oracle_statistics(out.sequences, countdown(4, 16).transition)
    (row,) = summary["rows"]
    assert row["oracle"] == "countdown:V=4,L=16"
    for name in ("reverse_kl", "forbidden_share", "bigram_tv"):
        assert row[name] == pytest.approx(float(expected[name]), rel=1e-9)
    assert summary["floor"]["forbidden_share"] == 0 < row["forbidden_share"]


def test_a_chain_is_judged_from_its_own_first_token(tmp_path: Path) -> None:
    """One that is not stationary: nearly exact samples, and the chain's own, have the law of adjacent pairs."""
    chain = {"transition": [[0.9, 0.1, 0], [0, 0.9, 0.1], [0, 0, 1]], "initial": [1, 0, 0], "length": 16}
    (tmp_path / "chain.json").write_text(json.dumps(chain))
    more = ["--nfe", "16", "--num-samples", "512", "--output-dir", str(tmp_path / "out")]
    assert evaluate.main(["--model", f"markov:{tmp_path}/chain.json", *more]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["floor"]["bigram_tv"] < 0.05 and summary["rows"][0]["bigram_tv"] < 0.05  # stationary: 0.83


@pytest.mark.parametrize("chain", ["countdown", "markov:V=5,L=24,seed=2"])
def test_of_a_stationary_chain_the_first_token_says_nothing(chain: str) -> None:
    denoiser = make_oracle(chain)
    samples = denoiser.sample(64, torch.Generator().manual_seed(0))
    with_law = oracle_statistics(samples, denoiser.transition, initial=denoiser.initial)
    for name, value in oracle_statistics(samples, denoiser.transition).items():
        assert float(with_law[name]) == pytest.approx(float(value), abs=1e-12)


@pytest.mark.parametrize(
    ("oracle", "words"),
    [
        ("countdown:V=5,L=16", ("5 tokens", "4 tokens")),
        ("countdown:V=4,L=8", ("8 positions", "16 positions")),
        ("SEDD", ("not an exact oracle",)),
    ],
)
def test_a_chain_that_does_not_fit(
    oracle: str, words: tuple[str, ...], sedd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle = str(sedd) if oracle == "SEDD" else oracle
    assert evaluate.main(arguments(sedd, tmp_path / "out", "--oracle", oracle)) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("Error: `--oracle`") and all(word in error for word in words)
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_options_of_the_scheduler_and_of_the_solver() -> None:
    found = baseline("euler@count=bernoulli,draws=float32_eps1e-6", CONFIG).config
    assert (found.solver, found.count, found.draws, found.solver_options) == (
        "euler", "bernoulli", "float32_eps1e-6", None,
    )  # fmt: skip
    found = baseline("tweedie@confidence_temperature=4.5:confidence:arccos", CONFIG).config
    assert (found.confidence_temperature, found.order, found.schedule) == (4.5, "confidence", "arccos")
    found = baseline("remdm_cap@eta=0.02,count=bernoulli", CONFIG).config
    assert found.solver_options == {"eta": 0.02} and found.count == "bernoulli"
    with pytest.raises(ValueError, match="`draws`"):
        baseline("euler@draws=float64", CONFIG)
