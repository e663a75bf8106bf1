"""The example that trains SEDD on countdown: its loss is the paper's, and what it writes can be loaded and goes on."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.scripts import load_script

from lsd_sampler.denoisers import load_denoiser


EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = ["--vocab-size", "5", "--length", "12", "--hidden-size", "8", "--heads", "2", "--blocks", "1"]
SIZES += ["--batch-size", "8", "--warmup", "2", "--valid-sequences", "32", "--report-every", "4"]


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)  # `python examples/x.py` finds its neighbours
        yield load_script(EXAMPLES / "train_countdown_sedd.py")


def train(example: ModuleType, folder: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    arguments = ["--output-dir", str(folder), "--steps", str(steps), *SIZES]
    monkeypatch.setattr(sys, "argv", ["train_countdown_sedd", *arguments])
    example.main()
    return load_denoiser(folder).state_dict()


def test_the_loss_is_the_score_entropy_of_the_paper(example: ModuleType) -> None:
    """Against eq. 10 written out with scores, `rate (sum s - a log s(x) + a (log a - 1))`, at the same draws."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 5, "length": 12, "hidden_size": 8, "heads": 2, "blocks": 1}
    model = example.build_model(type("Arguments", (), sizes)).double().eval()
    torch.nn.init.normal_(model.output_layer.linear.weight)
    x_BL = torch.randint(5, (64, 12))
    loss = example.score_entropy(model, *example.mask_at_times(model, x_BL, torch.Generator().manual_seed(1)))
    generator = torch.Generator().manual_seed(1)
    t_B = ((torch.arange(1, 65) - torch.rand((), generator=generator)) / 64).double()
    mask_BL = torch.rand(x_BL.shape, generator=generator) < model.noise.masked(t_B).float()[:, None]
    log_s_BLV = model(torch.where(mask_BL, 5, x_BL), t_B)[..., :5]
    a_B1 = (model.noise.alpha(t_B) / model.noise.masked(t_B))[:, None]
    log_s_BL = log_s_BLV.gather(-1, x_BL[..., None])[..., 0]
    term_BL = log_s_BLV.exp().sum(-1) - a_B1 * log_s_BL + a_B1 * (a_B1.log() - 1)
    expected = (model.noise.rate(t_B)[:, None] * term_BL * mask_BL).sum() / x_BL.numel()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0, check_dtype=False)


def test_a_stopped_run_goes_on_and_exports(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called again, a finished run only writes its files anew; the card says what the data allow."""
    first = train(example, tmp_path / "model", 6, monkeypatch)
    again = train(example, tmp_path / "model", 6, monkeypatch)
    assert first.keys() == again.keys() and all(torch.equal(first[key], again[key]) for key in first)
    rows = [json.loads(line) for line in (tmp_path / "model" / "training.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 6]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Validation loss" in card and "countdown:V=5,L=12" in card


def test_the_exact_denoiser_has_the_entropy_of_the_data_as_loss(example: ModuleType) -> None:
    """Of an average sequence; no model can be below it."""
    oracle, generator = example.countdown(4, 6), torch.Generator().manual_seed(0)
    batches = (example.mask_at_times(oracle, oracle.sample(500, generator), generator) for _ in range(40))
    losses = [float(example.score_entropy(oracle, *batch)) for batch in batches]
    by_state = torch.special.entr(oracle.transition).sum(1)
    entropy = float(torch.special.entr(oracle.initial).sum() + 5 * oracle.initial @ by_state) / 6
    error = float(torch.tensor(losses).std()) / len(losses) ** 0.5
    # t = 1 leaves a share of 1e-3 of the tokens unmasked, whose nats no loss counts; false alarm below 1e-5
    assert abs(sum(losses) / len(losses) - entropy) < 5 * error + 2e-3
