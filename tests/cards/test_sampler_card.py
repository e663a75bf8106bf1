"""The sampler card: filled from the run, readable by the Hub, its snippet runs, and what others wrote in it stays."""

import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.choosing_sampler import LENGTH, RECORDS, choosing_sampler
from helpers.tiny_garments import save_garments
from huggingface_hub import ModelCard

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cards.sampler_card import BEGIN, END, make_card, refresh, save_sampler
from lsd_sampler.denoisers import countdown
from lsd_sampler.learned.choice_description import describe_choice
from lsd_sampler.learned.description import Description, Records
from lsd_sampler.sampling.learned_numbers import LearnedSampler


MODEL = "countdown:V=8,L=16"
CASES: dict[str, dict[str, Any]] = {
    "path_kl": {"method": "path_kl", "nfe": (2, 8)},
    "lsd": {"method": "lsd", "nfe": (3, 5), "teacher_steps": 16},
    "score": {"method": "lsd", "domain": "score", "nfe": (2,), "teacher_steps": 16},
    "lsd+": {"method": "lsd+", "nfe": (3, 5)},
    "jys": {"method": "jys", "nfe": (2, 4)},
}


def train(folder: Path, **options: Any) -> tuple[LSDScheduler, DistillConfig, list[dict[str, Any]]]:
    chain, records = countdown(8, 16), []
    config = DistillConfig(num_sequences=4, **options)
    pipe = MaskedDiffusionPipeline(chain, LSDScheduler(**chain.scheduler_config()))
    scheduler = distill(pipe, config, log=records.append)
    save_sampler(scheduler, folder, model=MODEL, config=config, records=records)
    return scheduler, config, records


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cards")
    for name, options in CASES.items():
        train(root / name, **options)
    return {name: root / name for name in CASES}


def records_of(folder: Path, event: str | None = None) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if event in (None, row["event"])]


def table_of(card: str) -> list[list[str]]:
    lines = [line.strip("|").split("|") for line in card.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines]


@pytest.mark.parametrize("name", CASES)
def test_the_hub_can_read_it(folders: dict[str, Path], name: str) -> None:
    card = ModelCard.load(folders[name] / "README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "lsd_sampler"
    steps = [f"steps:{M}" for M in CASES[name]["nfe"]]
    method = CASES[name]["method"]
    methods = ["lsd"] if method == "lsd" else ["lsd", method]
    assert data["tags"] == ["discrete-diffusion", *methods, "tweedie", *steps]
    assert "base_model" not in data  # an oracle has no Hub id
    assert "license" not in data  # the model's, which nobody has said
    order = "halton" if name == "path_kl" else "random"
    assert f"# {MODEL}.{method}-{order}\n" in card.text
    assert card.text.count(BEGIN) == card.text.count(END) == 1
    assert not re.search(r"\{\{|\}\}|\{%|None|nan", card.content)


def test_base_model_is_a_hub_id(folders: dict[str, Path]) -> None:
    scheduler = LSDScheduler.from_pretrained(folders["lsd"])
    scheduler.register_to_config(base_model="owner/model", base_model_revision="abc")
    records = [json.loads(line) for line in (folders["lsd"] / "metrics.jsonl").read_text().splitlines()]
    card = ModelCard(make_card(scheduler, "short", DistillConfig(**CASES["lsd"]), records, "print(1)", False))
    assert card.data.to_dict()["base_model"] == "owner/model"
    assert "schedule.png" not in card.text and "print(1)" in card.text


@pytest.mark.parametrize("name", CASES)
def test_the_snippet_runs(folders: dict[str, Path], name: str) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (folders[name] / "README.md").read_text(), re.DOTALL)
    printed = io.StringIO()
    namespace: dict[str, Any] = {}
    with contextlib.redirect_stdout(printed):
        exec(snippet, namespace)
    assert namespace["out"].sequences.shape == (2, 16)
    assert not (namespace["out"].sequences == 8).any()
    assert printed.getvalue().startswith("tensor(")
    assert namespace["pipe"].scheduler.learned_sampler


def test_the_snippet_runs_whatever_the_paths(tmp_path: Path) -> None:
    """Quotes, backslashes and line breaks are Python's to write."""
    folder = tmp_path / 'it\'s "mine" \\new\nline'
    countdown(8, 16).save_pretrained(folder / "model")
    pipe = MaskedDiffusionPipeline.from_pretrained(folder / "model")
    config, records = DistillConfig(num_sequences=4, **CASES["path_kl"]), []
    scheduler = distill(pipe, config, log=records.append)
    save_sampler(scheduler, folder, model=str(folder / "model"), config=config, records=records)
    (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()):
        namespace: dict[str, Any] = {}
        exec(snippet, namespace)
    assert namespace["pipe"].scheduler.learned_sampler


def test_the_snippet_of_a_canvas_of_rows_and_columns_runs(tmp_path: Path) -> None:
    """Our pipeline makes tokens of it, not images, and the Hub has no name for that."""
    save_garments(tmp_path / "model")
    pipe = MaskedDiffusionPipeline.from_pretrained(tmp_path / "model")
    config, records = DistillConfig(method="path_kl", nfe=(2, 8), num_sequences=4), []
    scheduler = distill(pipe, config, log=records.append)
    save_sampler(scheduler, tmp_path, model=str(tmp_path / "model"), config=config, records=records)
    card = ModelCard.load(tmp_path / "README.md")
    assert "pipeline_tag" not in card.data.to_dict()
    (snippet,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()):
        namespace: dict[str, Any] = {}
        exec(snippet, namespace)
    assert namespace["out"].sequences.shape == (2, 9)


def test_table_of_schedules_is_that_of_the_metrics(folders: dict[str, Path]) -> None:
    head, _, *rows = table_of((folders["path_kl"] / "README.md").read_text())
    assert head[0] == "network calls"
    logged = records_of(folders["path_kl"], "schedule")
    assert [row[0] for row in rows] == [str(record["nfe"]) for record in logged] == ["2", "8"]
    for row, record in zip(rows, logged, strict=True):
        assert [row[1], row[2]] == [f"{record[key]:.4f}" for key in ("path_kl", "path_kl_uniform")]
        assert list(map(int, row[3].split())) == record["known_after_step"]
        assert len(record["known_after_step"]) == record["nfe"] and record["known_after_step"][-1] == 16


@pytest.mark.parametrize("name", ["lsd", "score"])
def test_table_of_coefficients_is_that_of_the_metrics(folders: dict[str, Path], name: str) -> None:
    head, _, *rows = table_of((folders[name] / "README.md").read_text())
    key = "score_coefficients" if name == "score" else "log_score_coefficients"
    assert head[1] == f"`{key}`"
    learned = LSDScheduler.from_pretrained(folders[name]).learned_sampler.steps
    for row, record in zip(rows, records_of(folders[name], "coefficients"), strict=True):
        assert row[0] == str(record["nfe"])
        assert row[1].split() == [f"{value:.4f}" for value in record[key]]
        assert record[key] == getattr(learned[record["nfe"]], key).tolist()


@pytest.mark.parametrize("name", ["lsd+", "jys"])
def test_table_of_steps_is_that_of_the_metrics(folders: dict[str, Path], name: str) -> None:
    _, _, *rows = table_of((folders[name] / "README.md").read_text())
    learned = LSDScheduler.from_pretrained(folders[name]).learned_sampler.steps
    for row, record in zip(rows, records_of(folders[name], "steps"), strict=True):
        for cell, key in zip(row[1:], ("timesteps", "score_coefficients"), strict=True):
            assert cell.split() == [f"{value:.4f}" for value in record[key]]
            assert record[key] == getattr(learned[int(row[0])], key).tolist()


@pytest.mark.parametrize("name", CASES)
def test_protocol_is_that_of_the_run(folders: dict[str, Path], name: str) -> None:
    text = (folders[name] / "README.md").read_text()
    (done,) = records_of(folders[name], "done")
    assert f"4 teacher sequences of 16 steps, seed 0; {done['network_calls']} network calls" in text


@pytest.mark.parametrize("name", CASES)
def test_the_plot_is_a_png_and_perplexity_is_nowhere(folders: dict[str, Path], name: str) -> None:
    pytest.importorskip("matplotlib")
    assert (folders[name] / "schedule.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    text = (folders[name] / "README.md").read_text()
    assert "![learned schedule](schedule.png)" in text
    for path in folders[name].iterdir():
        if path.suffix in (".md", ".json", ".jsonl"):
            assert "perplexity" not in path.read_text().lower()


def test_without_matplotlib_there_is_no_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    train(tmp_path, **CASES["path_kl"])
    assert not (tmp_path / "schedule.png").exists()
    assert "schedule.png" not in (tmp_path / "README.md").read_text()


# ---- a choice of positions ----


class HandMadeRun(DistillConfig):
    """A run whose method learned a choice of positions."""

    def describe(self, learned: LearnedSampler, records: Records) -> Description:
        return describe_choice("forced_kl", learned, records)


def save_choosing(folder: Path, learned: LearnedSampler | None = None) -> str:
    """Writes the files of a sampler that chooses positions. Returns its card."""
    scheduler = LSDScheduler(mask_token_id=LENGTH, order="adaptive")
    scheduler.set_learned_sampler(learned or choosing_sampler())
    config = HandMadeRun(method="path_kl", nfe=(2, 3), num_sequences=4)
    save_sampler(scheduler, folder, model="a/model", config=config, records=[*RECORDS])
    return (folder / "README.md").read_text()


def test_the_card_of_a_choice_of_positions(tmp_path: Path) -> None:
    """Its sections are there once, also after another run; it can be read back, and so can its sampler."""
    pytest.importorskip("matplotlib")
    card = save_choosing(tmp_path)
    for path in ("schedule.png", "dependence.png"):
        assert (tmp_path / path).read_bytes().startswith(b"\x89PNG") and card.count(f"({path})") == 1
    for heading in ("## Which positions", "### What the candidates cost", "## Variety", "## What was learned"):
        assert card.count(f"\n{heading}\n") == 1
    assert "distilled by `forced_kl`\nwith `lsd_sampler`: it learned which positions each call reveals" in card
    assert not re.search(r"\{\{|\}\}|\{%|None|nan|\n\n\n", ModelCard(card).content)
    path = tmp_path / "README.md"
    path.write_text(card + "\nProse of mine.\n")
    assert save_choosing(tmp_path) == card + "\nProse of mine.\n"
    assert LSDScheduler.from_pretrained(tmp_path).learned_sampler.chooses


def test_no_picture_of_an_earlier_run_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where nothing like it was learned, nor where it cannot be drawn."""
    pytest.importorskip("matplotlib")
    save_choosing(tmp_path)
    learned = choosing_sampler()
    learned.steps = {2: learned.steps[2]}  # which looks at no other positions
    learned.dependence = None
    card = save_choosing(tmp_path, learned)
    assert not (tmp_path / "dependence.png").exists() and "dependence.png" not in card
    assert "## Which positions" in card and (tmp_path / "schedule.png").exists()
    save_choosing(tmp_path)
    assert (tmp_path / "dependence.png").exists()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    card = save_choosing(tmp_path)
    assert not list(tmp_path.glob("*.png")) and ".png" not in card and "## Which positions" in card


def test_a_plot_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(cards, "plot_dependence", fail)
    monkeypatch.setattr(cards, "plot_schedule", fail)
    card = save_choosing(tmp_path)
    assert ".png" not in card and "## Which positions" in card
    warnings = capsys.readouterr().err
    assert "Warning: No schedule.png: no ink" in warnings and "Warning: No dependence.png: no ink" in warnings


# ---- refreshing ----


def test_what_others_wrote_survives_and_our_block_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_plot", lambda *_: False)  # plots take most of the time
    train(tmp_path, **CASES["path_kl"])
    path = tmp_path / "README.md"
    card = ModelCard.load(path)
    card.data["license"] = "mit"
    card.data.tags = [*card.data.tags, "of-mine"]
    text = str(card).replace(BEGIN, f"Prose of mine: \\1 {{{{ x }}}}.\n\n{BEGIN}") + "\nMore of mine.\n"
    text = text.replace("## Limits", "## Limits, edited inside the block")
    path.write_text(text)

    train(tmp_path, method="lsd", nfe=(3,), teacher_steps=16)
    fresh, data = path.read_text(), ModelCard.load(path).data.to_dict()
    assert "Prose of mine: \\1 {{ x }}.\n" in fresh and fresh.endswith("\nMore of mine.\n")
    assert "edited inside the block" not in fresh
    assert [row[0] for row in table_of(fresh)[2:]] == ["3"]
    assert "distilled by `lsd`" in fresh and "distilled by `path_kl`" not in fresh
    assert fresh.count(BEGIN) == fresh.count(END) == 1
    assert data["license"] == "mit"
    assert data["tags"] == ["discrete-diffusion", "lsd", "tweedie", "steps:3", "of-mine"]
    train(tmp_path, method="lsd", nfe=(3,), teacher_steps=16)
    assert re.sub(r", \d+ seconds", "", path.read_text()) == re.sub(r", \d+ seconds", "", fresh)


def test_a_licence_is_what_was_given_or_written_by_hand(folders: dict[str, Path]) -> None:
    scheduler = LSDScheduler.from_pretrained(folders["lsd"])
    described = DistillConfig(**CASES["lsd"]), records_of(folders["lsd"]), "print(1)", False
    none, mit = (make_card(scheduler, MODEL, *described, license=name) for name in (None, "mit"))
    by_hand = none.replace("library_name:", "license: other\nlibrary_name:")
    expected = {(none, none): None, (none, mit): "mit", (mit, none): "mit", (by_hand, none): "other"}
    for (old, new), name in {**expected, (by_hand, mit): "mit"}.items():
        assert ModelCard(refresh(old, new)).data.to_dict().get("license") == name


def test_the_sampler_in_the_repository_has_the_metadata_that_are_written_now() -> None:
    folder = Path(__file__).parents[2] / "models" / "books-default"
    config = json.loads((folder / "config.json").read_text())["distillation"]
    described = DistillConfig(**config), records_of(folder), "print(1)", True
    new = make_card(LSDScheduler.from_pretrained(folder), "models/books-radd", *described, license="apache-2.0")
    old = (folder / "README.md").read_text()
    assert old.split("---\n")[1] == new.split("---\n")[1]


def test_a_card_without_our_block_gets_one(folders: dict[str, Path]) -> None:
    new = (folders["path_kl"] / "README.md").read_text()
    merged = refresh("# By hand\n\nProse.\n", new)
    assert "# By hand\n\nProse.\n" in merged and merged.count(BEGIN) == 1
    assert ModelCard(merged).data.to_dict() == ModelCard(new).data.to_dict()
    assert refresh(merged, new) == merged


def test_metadata_broken_by_hand_are_left_alone(folders: dict[str, Path]) -> None:
    new = (folders["path_kl"] / "README.md").read_text()
    old = "---\ntags: [a, b\n---\n\nProse.\n"
    merged = refresh(old, new)
    assert merged.startswith(old.rstrip()) and BEGIN in merged
