"""`lsd-train` on partly given canvases: an oracle's clues, the lines of a file, a share of each sequence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import fails, records
from helpers.ddit_checkpoints import RADD
from helpers.json_lines import write
from helpers.tiny_language_models import BERT_TOKENS

from lsd_sampler import DistillConfig, LSDScheduler
from lsd_sampler.cli import train
from lsd_sampler.cli.common import load_pipeline
from lsd_sampler.cli.partly_given import partly_given
from lsd_sampler.denoisers import RADDDenoiser, load_denoiser
from lsd_sampler.denoisers.base import Denoiser


pytestmark = pytest.mark.usefixtures("no_plots")

SUDOKU = ["--model", "sudoku4:clues=4", "--method", "path_kl", "--nfe", "2", "4", "--num-sequences", "8"]
HOLE = 4  # of a sudoku and of the small BERT
NAME = "scheduler_model.safetensors"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The canvases that networks are called with."""
    canvases: list[torch.Tensor] = []
    called = Denoiser.__call__

    def counted(self: Any, tokens: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        canvases.append(tokens.clone())
        return called(self, tokens, *args, **kwargs)

    monkeypatch.setattr(Denoiser, "__call__", counted)
    return canvases


@pytest.fixture(scope="module")
def radd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("radd")
    RADDDenoiser(RADD | {"tokens": 7}).save_pretrained(folder)
    return folder


def learned(argv: list[str], folder: Path, *more: str) -> dict[str, Any]:
    """Trains; what the dry run said before."""
    argv = [*argv, "--output-dir", str(folder), "--cache-dir", "/dev/null", *more]
    assert train.main(argv) == 0
    return records(folder)[-1]


def dry_run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert train.main([*argv, "--dry-run"]) == 0
    return json.loads(capsys.readouterr().out)


def canvases_of(*argv: str) -> Any:
    """The canvases of these flags."""
    args = train.build_parser().parse_args(list(argv))
    return partly_given(args, load_pipeline(args), DistillConfig(**train.options_of(args, nfe=(1,))))


# ---- clues ----


def test_clues_are_given_in_training(
    seen: list[torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four tokens of exact samples in each canvas, different ones; files, card and dry run say so."""
    planned = dry_run(SUDOKU, capsys)
    assert not seen and planned["masked_positions"] == [12, 12] and planned["network_calls_for_canvases"] == 0
    done = learned(SUDOKU, tmp_path / "a")
    assert planned["network_calls"] == done["network_calls"] == len(seen) == 1 + 2 * 12
    known = seen[0] != HOLE
    assert bool((known.sum(1) == 4).all()) and len(seen[0].unique(dim=0)) == 8
    grids = load_denoiser("sudoku4").sequences
    assert all(bool(((grids == canvas) | (canvas == HOLE)).all(1).any()) for canvas in seen[0])
    for state in seen:
        assert any(bool((state[0][k] == start[k]).all()) for start, k in zip(seen[0], known, strict=True))
    assert "Canvases: 136, each with 4 random tokens of an exact sample; 12 masked." in capsys.readouterr().err
    card = (tmp_path / "a" / "README.md").read_text()
    assert "partly given, each with 4 random tokens of an exact sample; 12 positions were masked: it is a" in card
    namespace: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0], namespace)
    filled, canvas = namespace["out"].sequences, seen[0][0]
    assert filled.shape == (2, 16) and bool((filled[:, canvas != HOLE] == canvas[canvas != HOLE]).all())
    assert json.loads((tmp_path / "a" / "config.json").read_text())["run"] == {"model": "sudoku4:clues=4"}
    told = records(tmp_path / "a")[1]
    assert (told["event"], told["fewest_masked"], told["most_masked"]) == ("canvases", 12, 12)


def test_the_seed_decides_the_clues(tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        learned(SUDOKU, tmp_path / name, "--seed", seed)
    files = [(tmp_path / name / NAME).read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]
    first, second = (canvases_of(*SUDOKU, "--seed", seed).input_ids for seed in "01")
    assert not bool((first == second).all(1).any())


def test_clues_of_data(tmp_path: Path) -> None:
    """Data of an oracle with clues: the same number of tokens is given of each row."""
    data = load_denoiser("sudoku4").sample(9, torch.Generator().manual_seed(0))
    file = write(tmp_path / "data.jsonl", *({"ids": row} for row in data.tolist()))
    given = canvases_of(*SUDOKU, "--data", str(file))
    assert bool(((given.input_ids != HOLE).sum(1) == 4).all())
    assert bool(((given.input_ids == HOLE) | (given.input_ids == given.data)).all())
    assert sorted(given.data.tolist()) == sorted(data.tolist())
    assert learned([*SUDOKU, "--data", str(file)], tmp_path / "out")["network_calls"] == 1 + 1 + 12


def test_auto_learns_coefficients_on_clues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--model", "sudoku4:clues=8", "--nfe", "2", "--num-sequences", "8", "--held-out-sequences", "4"]
    argv += ["--reference-sequences", "32", "--coefficient-sequences", "16", "--candidates", "path_kl:halton"]
    planned = dry_run(argv, capsys)
    done = learned([*argv, "path_kl:random"], tmp_path)
    events = {record["event"] for record in records(tmp_path)}
    assert {"choice", "log_score_coefficients", "canvases"} <= events
    assert done["network_calls"] > planned["network_calls"] and planned["masked_positions"] == [8, 8]


# ---- a file of canvases ----


def test_canvases_of_a_file_of_texts(
    bert: Path, seen: list[torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without data, the model fills them in; with data beside them, no token is drawn."""
    argv = ["--model", str(bert), "--method", "path_kl", "--nfe", "2", "--num-sequences", "4"]
    masked = ["the [MASK] sat on [MASK]", "[MASK] cat [MASK] [MASK] me", "it [MASK] [MASK] to me"]
    whole = ["the cat sat on me", "the cat sat to me", "it sat on to me"]
    argv += ["--infill", str(write(tmp_path / "masked.txt", *masked))]
    learned(argv, tmp_path / "filled")
    starts = torch.tensor([[BERT_TOKENS.index(word) for word in line.split()] for line in masked])
    for state in (row for batch in seen for row in batch):
        assert bool(((state == starts) | (starts == HOLE)).all(1).any())
    card = (tmp_path / "filled" / "README.md").read_text()
    assert "partly given, the lines of `masked.txt`; 2 to 3 positions were masked" in card
    assert str(tmp_path) not in card.replace(str(bert), "").replace(str(tmp_path / "filled"), "")

    argv = [*argv[:-4], "--num-sequences", "3", *argv[-2:]]
    argv += ["--data", str(write(tmp_path / "whole.txt", *whole))]
    planned = dry_run(argv, capsys)
    assert planned["masked_positions"] == [2, 3] and planned["paths"] == "data"
    seen.clear()
    assert learned(argv, tmp_path / "real")["network_calls"] == planned["network_calls"] == 1 + 1 + 3
    ends = torch.tensor([[BERT_TOKENS.index(word) for word in line.split()] for line in whole])
    for state in (row for batch in seen[2:] for row in batch):
        assert bool(((state == ends) | (state == HOLE)).all(1).any())
    described = json.loads((tmp_path / "real" / "config.json").read_text())["run"]
    assert described["infill"].endswith("masked.txt") and described["data"].endswith("whole.txt")


def test_rows_of_data_belong_to_the_lines_of_the_canvases(tmp_path: Path) -> None:
    """In whatever order they are taken; several times as many rows go through the canvases again."""
    x_NL = load_denoiser("countdown:V=4,L=6").sample(12, torch.Generator().manual_seed(0))
    x_NL[6:, :3] = x_NL[:6, :3]
    x_NL[:, 3:] = torch.arange(36).view(12, 3) % 4
    canvas_NL = x_NL[:6].masked_fill(torch.arange(6) > 2, -1)
    files = ["--infill", str(write(tmp_path / "a.jsonl", *canvas_NL.tolist()))]
    files += ["--data", str(write(tmp_path / "b.jsonl", *({"ids": row} for row in x_NL.tolist())))]
    given = canvases_of("--model", "countdown:V=4,L=6", *files)
    assert len(given.input_ids) == len(given.data) == 12
    assert bool(((given.input_ids == given.data) == (given.input_ids != 4)).all())
    assert sorted(given.data.tolist()) == sorted(x_NL.tolist()) and given.data.tolist() != x_NL.tolist()


@pytest.mark.parametrize(
    ("canvases", "data", "words"),
    [
        ([[4, 1, 1], [4, 1]], None, ["`--infill`", "one length", "the first has 3, number 2 has 2"]),
        ([[1, 1, 1], [4, 1, 1]], None, ["`--infill`", "canvas 1", "no mask"]),
        ([[4, 1, 9]], None, ["`--infill`", "line 1", "[0, 4]"]),
        (
            [[4, 1, 1], [4, 2, 2]],
            [[1, 1, 1], [1, 2, 3]],
            ["`--data`", "line 2: ", "3 in place of 2 at position 2"],
        ),
        ([[4, 1, 1]], [[1, 1, 1, 1]], ["`--data`", "line 1: ", "the 3 tokens of its canvas, got 4"]),
        ([[4, 1, 1]], [[4, 1, 1]], ["`--data`", "line 1: ", "no mask"]),
        ([[4, 1, 1]] * 2, [[1, 1, 1]] * 3, ["`--data`", "has 3 lines", "has 2"]),
        ([[4, 1, 1]], [], ["`--data`", "has 0 lines"]),
        ([[4, 1, 1]], [[1, 1, 1]], ["`data` has 1 sequences, fewer than `num_sequences` 8"]),
    ],
)
def test_files_that_do_not_fit(
    canvases: list[Any], data: Any, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model", "countdown:V=4,L=4", *SUDOKU[2:], "--output-dir", str(tmp_path / "out")]
    argv += ["--infill", str(write(tmp_path / "a.jsonl", *canvases))]
    argv += [] if data is None else ["--data", str(write(tmp_path / "b.jsonl", *data))]
    fails(capsys, "lsd-train", [*argv, "--nfe", "1"], *words)
    assert not any(path.is_file() for path in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model", "sudoku4", "--infill", "f", "--given", "0.5"], ["`--infill`", "leave `--given` out"]),
        (["--model", "sudoku4:clues=2", "--infill", "f"], ["`--infill`", "leave the oracle's `clues` out"]),
        (["--model", "sudoku4:clues=2", "--given", "0.5"], ["`--given`", "leave the oracle's `clues` out"]),
        (["--model", "sudoku4", "--infill", "f", "--length", "9"], ["`--infill`", "`--length`"]),
        (["--pipeline", "p", "--given", "0.5"], ["`--given` goes with `--model`"]),
        (["--model", "sudoku4", "--given", "1"], ["`--given`", "[0, 1)", "got 1"]),
        (["--model", "sudoku4", "--given", "0.5", "0.2"], ["`--given`", "got 0.5 0.2"]),
        (["--model", "sudoku4", "--given", "0.1", "0.2", "0.3"], ["`--given`", "got 0.1 0.2 0.3"]),
        (["--model", "sudoku4", "--given", "nan"], ["`--given`", "got nan"]),
        (
            ["--model", "sudoku4:clues=2", "--pipeline-kwargs", '{"prefix": [1]}'],
            ["`--pipeline-kwargs`", "`clues`", "leave `prefix` out"],
        ),
        (
            ["--model", "sudoku4", "--given", "0.2", "--pipeline-kwargs", '{"suffix": [1]}'],
            ["`--pipeline-kwargs`", "`--given`", "leave `suffix` out"],
        ),
        (["--model", "sudoku4:clues=9", "--length", "9"], ["`clues` must be in [0, 8]"]),
    ],
)
def test_flags_that_do_not_go_together(
    argv: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, "lsd-train", [*argv, "--nfe", "1", "--output-dir", str(tmp_path / "out")], *words)
    assert not (tmp_path / "out").exists()


# ---- a share of each sequence ----


def test_shares_are_drawn_evenly_at_random_positions(tmp_path: Path) -> None:
    """4096 rows of data: the number of given tokens is uniform, each position as likely as others.

    Each of the 16 + 32 counts differs from its mean by less than 5 standard errors: once in 35,000 tests by chance.
    """
    rows = load_denoiser("countdown:V=4,L=32").sample(4096, torch.Generator().manual_seed(0)).tolist()
    argv = [
        "--model",
        "countdown:V=4,L=32",
        "--data",
        str(write(tmp_path / "data.jsonl", *({"ids": r} for r in rows))),
    ]
    given = canvases_of(*argv, "--given", "0.25", "0.75")
    known = given.input_ids != given.hole
    num = len(known)
    assert num == 4096 and bool((given.input_ids == given.data)[known].all())
    counts = known.sum(1).bincount(minlength=33)
    assert counts[8:25].sum() == num
    inner = counts[9:24].double() / num  # the two ends are half as wide
    assert bool(((inner - 1 / 16).abs() < 5 * (15 / 256 / num) ** 0.5).all())
    assert bool(((known.double().mean(0) - 0.5).abs() < 5 * 0.5 / num**0.5).all())
    fixed = canvases_of(*argv, "--given", "0.5")
    assert bool(((fixed.input_ids != fixed.hole).sum(1) == 16).all())
    most = canvases_of(*argv, "--given", "0.999")
    assert bool(((most.input_ids != most.hole).sum(1) == 31).all())  # something is always left to fill in
    assert torch.equal(canvases_of(*argv, "--given", "0.5").input_ids, fixed.input_ids)
    assert not torch.equal(canvases_of(*argv, "--given", "0.5", "--seed", "1").input_ids, fixed.input_ids)


def test_real_sequences_with_a_share_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = load_denoiser("markov:V=4,L=16,seed=1").sample(12, torch.Generator().manual_seed(0)).tolist()
    argv = ["--model", "markov:V=4,L=16,seed=1", "--method", "path_kl", "--nfe", "2", "4", "--num-sequences", "8"]
    argv += ["--data", str(write(tmp_path / "data.jsonl", *({"ids": row} for row in rows))), "--given", "0.5"]
    planned = dry_run(argv, capsys)
    assert learned(argv, tmp_path / "out")["network_calls"] == planned["network_calls"] == 1 + 1 + 8
    assert planned["masked_positions"] == [8, 8]
    described = json.loads((tmp_path / "out" / "config.json").read_text())["run"]
    assert described["given"] == [0.5]
    write(tmp_path / "data.jsonl", *({"ids": [*row[:-1], 7]} for row in rows))
    capsys.readouterr()
    fails(capsys, "lsd-train", [*argv, "--output-dir", str(tmp_path / "b")], "`--data`", "[0, 4]", "got 7")


def test_the_models_own_sequences_with_a_share_given(
    radd: Path, seen: list[torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network without data makes the sequences that tokens are given of; once, where there is a cache."""
    argv = ["--model", str(radd), "--method", "path_kl", "--nfe", "2", "--num-sequences", "4"]
    argv += ["--held-out-sequences", "2", "--batch-size", "3", "--bootstrap-steps", "5", "--given", "0.25", "0.5"]
    planned = dry_run(argv, capsys)
    assert not seen and planned["network_calls_for_canvases"] == 2 * 5
    done = learned(argv, tmp_path / "a")
    assert len(seen) == done["network_calls"] + 10 <= planned["network_calls"] + 10
    out = capsys.readouterr().out
    assert "(and at most 10 for the canvases)" in out
    assert (
        "partly given, each with 25% to 50% of the tokens of a sequence that the model made"
        in (tmp_path / "a" / "README.md").read_text()
    )
    before = len(seen)
    for name in "bc":
        learned(argv, tmp_path / name, "--cache-dir", str(tmp_path / "cache"))
    assert len(seen) - before < 2 * before  # of the last run, the canvases alone were in the cache
    files = [(tmp_path / name / NAME).read_bytes() for name in "abc"]
    assert files[0] == files[1] == files[2]


def test_a_published_model_need_not_be_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    """For a dry run; with data and without."""
    argv = ["--model", "radd", "--nfe", "4", "--num-sequences", "8", "--method", "path_kl", "--dry-run"]
    costs = []
    read = (["--infill", "f.txt"], ["--tasks", "f.jsonl"])  # only when the model is loaded
    for more in ([], ["--given", "0.5"], ["--data", "f.txt"], ["--data", "f.txt", "--given", "0.5"], *read):
        assert train.main([*argv, *more]) == 0
        out, err = capsys.readouterr()
        costs.append(json.loads(out))
        assert ("count as all masked" in err) == any(flag in more for flag in ("--given", "--infill", "--tasks"))
    assert costs[0]["network_calls"] == costs[1]["network_calls"]
    # made in 64 steps a batch: 8 sequences to learn from and 128 held out are 3 batches of 64 or less
    assert costs[1]["network_calls_for_canvases"] == 3 * 64
    assert costs[3]["network_calls"] == costs[2]["network_calls"] + 1
    assert costs[3]["network_calls_for_canvases"] == 0 and "network_calls_for_canvases" not in costs[2]
    assert costs[4] == costs[5] and costs[4]["network_calls_for_canvases"] == 0
    argv[argv.index("path_kl")] = "auto"  # which compares samples with 512 references: 11 batches
    assert train.main([*argv, "--given", "0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["network_calls_for_canvases"] == 11 * 64


# ---- progress ----


def test_a_run_that_was_stopped_goes_on_with_its_canvases(
    radd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--model", str(radd), "--method", "path_kl", "--nfe", "2", "--num-sequences", "4", "--batch-size", "2"]
    argv += ["--held-out-sequences", "2", "--bootstrap-steps", "3", "--given", "0.5"]
    learned(argv, tmp_path / "want")
    called, calls = Denoiser.__call__, [0]

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 9 + 16:
            raise KeyboardInterrupt
        return called(self, *args, **kwargs)

    argv += ["--cache-dir", "/dev/null", "--output-dir", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(Denoiser, "__call__", interrupted)
        assert train.main(argv) == 130
    assert "go on with `--resume`" in capsys.readouterr().err
    fails(capsys, "lsd-train", [*argv, "--resume", "--given", "0.25"], "other prompts")
    assert train.main([*argv, "--resume"]) == 0
    assert (tmp_path / "out" / NAME).read_bytes() == (tmp_path / "want" / NAME).read_bytes()
    assert LSDScheduler.from_pretrained(tmp_path / "out").can_do(2)
