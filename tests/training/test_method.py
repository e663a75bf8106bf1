"""A training method is one object: one from outside gets as far as our own, and no other file names one."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.small_distillations import pipeline_of

from lsd_sampler import DistillConfig, LSDScheduler, distill
from lsd_sampler.cli import train
from lsd_sampler.denoisers import random_chain
from lsd_sampler.sampling.learned_numbers import LearnedSampler
from lsd_sampler.training import METHODS
from lsd_sampler.training.cost import network_calls
from lsd_sampler.training.method import Method
from lsd_sampler.training.options import MethodOptions, option
from lsd_sampler.training.teacher_plan import TeacherPlan


ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lsd_sampler"
MODEL = "markov:V=4,L=16"


@pytest.fixture
def outsider(monkeypatch: pytest.MonkeyPatch) -> str:
    """The method of docs/extending.md, registered for one test."""
    monkeypatch.setattr(METHODS, "_parts", dict(METHODS._parts))
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    first, *others = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (code,) = [block for block in others if "METHODS.register" in block]
    exec(first + code, {"__name__": "extending"})
    return "fewest_tokens"


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert train.main(["--model", MODEL, "--nfe", "2", "4", "--num-sequences", "8", *argv]) == 0
    return capsys.readouterr().out


# ---- from outside ----


def test_a_method_from_outside_gets_everywhere(
    outsider: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--help`, `--dry-run`, distillation, the terminal's summary, the sampler's files, card and plot."""
    pytest.importorskip("matplotlib")
    text = " ".join(train.build_parser().format_help().split())
    assert "--grids GRIDS fewest_tokens: grids to try" in text and "fewest_tokens}" in text
    argv = ["--method", outsider, "--grids", "3", "--cache-dir", "/dev/null", "--output-dir", str(tmp_path)]
    plan = json.loads(printed(capsys, *argv, "--dry-run"))
    assert plan["network_calls"] == 1 + 3 * (2 + 4) and plan["memory_bytes"]["total"] > 0 and plan["grids"] == 3
    out = printed(capsys, *argv)
    assert f"Network calls: {plan['network_calls']}." in out
    scheduler = LSDScheduler.from_pretrained(tmp_path)
    assert scheduler.available_num_inference_steps == [2, 4]
    times = {M: " ".join(f"{t:.4f}" for t in scheduler.steps_for(M).timesteps.tolist()) for M in (2, 4)}
    card = (tmp_path / "README.md").read_text()
    for M, row in times.items():
        assert f"{M:4d} calls  timesteps: {row}" in out and f"| {M} | {row} |" in card
    assert "distilled by `fewest_tokens`" in card and "learned times of the network calls." in card
    assert (tmp_path / "schedule.png").read_bytes().startswith(b"\x89PNG") and "schedule.png" in card
    described = json.loads((tmp_path / "config.json").read_text())["distillation"]
    assert described["grids"] == 3 and DistillConfig(**described).grids == 3


def test_a_method_from_outside_may_be_chosen(
    outsider: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--candidates", f"{outsider}:random", "path_kl:random", "--held-out-sequences", "4", "--grids", "3"]
    argv += ["--coefficients", "plain", "--output-dir", str(tmp_path), "--cache-dir", "/dev/null"]
    plan = json.loads(printed(capsys, *argv, "--dry-run"))
    printed(capsys, *argv)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert {r["method"] for r in logged if r["event"] == "candidate"} == {outsider, "path_kl"}
    assert plan["network_calls"] == logged[-1]["network_calls"]
    alone = printed(capsys, "--candidates", f"{outsider}:random", *argv[3:], "--overwrite")
    assert "Chosen: fewest_tokens, order random." in alone
    assert "# markov:V=4,L=16.fewest_tokens-random\n" in (tmp_path / "README.md").read_text()


def test_the_options_of_a_method_are_its_own(outsider: str) -> None:
    config = DistillConfig(method=outsider, nfe=(2,), grids=5)
    assert config.own_options == METHODS[outsider].options(grids=5)
    assert network_calls(config.resolve(TeacherPlan(16, 1, 16, 4))) == 1 + 5 * 2
    assert replace(config, nfe=(4,)).grids == 5 and replace(config, grids=6).grids == 6
    assert config != replace(config, grids=6) and config == DistillConfig(**config.to_dict())
    with pytest.raises(ValueError, match="`grids`"):
        DistillConfig(method=outsider, grids=0)
    with pytest.raises(TypeError, match="'grid'.*Did you mean 'grids'"):
        DistillConfig(method=outsider, grid=3)
    with pytest.raises(AttributeError, match="grid"):
        _ = config.grid


def method_with(needs: tuple[str, ...] = ("teacher",), **fields: Any) -> Method:
    @dataclass(frozen=True)
    class Options(MethodOptions):
        __annotations__ = {name: type(value.default) for name, value in fields.items()}
        locals().update(fields)

    class Other(Method):
        name, options, sources = "other", Options, needs

        def learn(self, task: Any) -> LearnedSampler:
            raise NotImplementedError

        def network_calls(self, recipe: Any) -> int:
            raise NotImplementedError

    return Other()


@pytest.mark.parametrize("fields", [{"epochs": option(21, "another default")}, {"nfe": option((4,), "shared")}])
def test_one_flag_has_one_default(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"option '{next(iter(fields))}' is taken"):
        METHODS.register("other", method_with(**fields))
    assert "other" not in METHODS.names()


@pytest.mark.parametrize(
    ("sources", "few", "many", "real"),
    [
        (("teacher",), "teacher", "teacher", None),
        (("data", "bootstrap"), "bootstrap", "bootstrap", "data"),
        (("teacher", "data"), "teacher", "teacher", "data"),
        (("data",), None, None, "data"),
    ],
)
def test_sequences_come_from_where_a_method_takes_them(
    sources: tuple[str, ...], few: str | None, many: str | None, real: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a teacher of few steps, of one of many, and where there are data; None: refused."""
    monkeypatch.setattr(METHODS, "_parts", dict(METHODS._parts))
    METHODS.register("other", method_with(sources))
    config = DistillConfig(method="other")
    for steps, has_data, source in ((16, False, few), (1024, False, many), (16, True, real)):
        plan = TeacherPlan(1024, 1, steps, 4)
        if source is None:
            with pytest.raises(ValueError, match="`data`"):
                config.resolve(plan, has_data)
        else:
            assert config.resolve(plan, has_data).source == source


# ---- no other file names a method ----

# the default of `method`, and of `method` with the objective "answers"; the Hub's tag for all samplers, which is the
# project's name
KNOWN = {("training/config.py", "auto"), ("training/config.py", "forced_kl"), ("cards/sampler_card.py", "lsd")}


def words(path: Path) -> Iterator[str]:
    """The texts in a file's code, and the names in backquotes in its docstrings."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"`([\w+]+)`", node.value)
            yield node.value.split(":")[0]


def test_a_methods_name_is_in_its_own_file() -> None:
    methods = PACKAGE / "training" / "methods"
    found = {
        (path.relative_to(PACKAGE).as_posix(), word)
        for path in PACKAGE.rglob("*.py")
        if path.parent != methods and path.parent.name in ("training", "cli", "cards", "learned", "evaluation")
        for word in words(path)
        if word in METHODS.names()
    }
    assert found - {(f"evaluation/{name}.py", "auto") for name in ("judge", "lm_eval_model")} == KNOWN  # a dtype
    # the default's candidates are named where it is
    for path in methods.glob("[!_]*.py"):
        if path.stem != "auto":
            own = {
                METHODS[name].name for name in METHODS.names() if type(METHODS[name]).__module__.endswith(path.stem)
            }
            assert {word for word in words(path) if word in METHODS.names()} == own


def test_distill_takes_a_registered_method_alone(outsider: str) -> None:
    """Registration is all that it takes, in Python too."""
    records: list[dict[str, Any]] = []
    config = DistillConfig(method=outsider, nfe=(2,), num_sequences=4)
    learned = distill(pipeline_of(random_chain(4, 8)), config, log=records.append)
    assert config.describe(learned.learned_sampler, records).method == outsider
