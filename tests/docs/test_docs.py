"""The pages in docs/: their code runs, their flags exist, their links lead somewhere, their tables are up to date."""

import ast
import contextlib
import importlib
import inspect
import io
import itertools
import json
import os
import pydoc
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lsd_sampler import LSDScheduler
from lsd_sampler.cli import evaluate, sample, train
from lsd_sampler.cli.evaluation_parts import baseline
from lsd_sampler.cli.evaluation_tasks import expand_sweeps
from lsd_sampler.denoisers import ORACLES
from lsd_sampler.evaluation import METRIC_SETS
from lsd_sampler.evaluation.tables import cell
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.schedules import GRIDS
from lsd_sampler.sampling.solvers import SOLVERS, OwnStep, Solver
from lsd_sampler.support.registry import Registry
from lsd_sampler.training import METHODS, DistillConfig
from lsd_sampler.training.config import all_options


ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md")]
PARSERS = {"lsd-train": train.build_parser, "lsd-sample": sample.build_parser, "lsd-eval": evaluate.build_parser}
MODULES = runpy.run_path(str(ROOT / "docs" / "build.py"))["API"]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def table_after(page: str, marker: str) -> list[list[str]]:
    """The rows of the table below a comment `<!-- marker -->`, without its heading."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"<!-- {marker} -->\n\n")[2]
    lines = text.partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# ---- code ----


def test_python_blocks_run(tmp_path: Path) -> None:
    """All of a page in one namespace, in order, in a process of their own: they register parts. (The README's
    snippets are run by the tests of the examples.)
    """
    programs = []
    for page in PAGES:
        code = blocks(page, "python")
        if code:
            lines: list[str] = []
            for start, block in code:
                lines += [""] * (start - 1 - len(lines)) + block.splitlines()  # tracebacks name the page's lines
            programs.append(tmp_path / f"{len(programs)}_{page.stem}.py")
            programs[-1].write_text("\n".join(lines) + "\n")
    assert len(programs) >= 3
    driver = "import runpy, sys\nfor path in sys.argv[1:]:\n    runpy.run_path(path, run_name='__main__')\n"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    argv = [sys.executable, "-c", driver, *map(str, programs)]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=name_of)
def test_python_blocks_leave_nothing_out(page: Path) -> None:
    """No `...` that a reader would have to fill in."""
    for start, block in blocks(page, "python"):
        left_out = [
            node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant) and node.value is ...
        ]
        assert left_out == [], f"{name_of(page)}, line {start}"


TO_THE_END = """
import json, runpy, sys
from pathlib import Path

page = runpy.run_path(sys.argv[1], run_name="__main__")
from lsd_sampler import DistillConfig, distill
from lsd_sampler.cards import save_sampler
from lsd_sampler.cli import evaluate, train

# the method: a folder with a card, from Python and from the command, whose summary is printed
config, records = DistillConfig(method="fewest_tokens", nfe=(2, 4), num_sequences=8), []
page["pipe"].scheduler = page["LSDScheduler"](**page["denoiser"].scheduler_config())
learned = distill(page["pipe"], config, log=records.append)
save_sampler(learned, Path("python"), model="markov:V=4,L=16", config=config, records=records)
argv = ["--model", "markov:V=4,L=16", "--method", "fewest_tokens", "--nfe", "2", "4", "--num-sequences", "8"]
assert train.main([*argv, "--output-dir", "command"]) == 0

# one that logs nothing, and learns coefficients
class Silent(page["Method"]):
    name = "silent"

    def learn(self, task):
        from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
        ones = page["torch"].ones(2, dtype=page["torch"].float64)
        times = page["torch"].tensor([1.0, 0.25, 1e-4], dtype=page["torch"].float64)
        return LearnedSampler({2: LearnedSteps(times, ones, 1.5 * ones)})

    def network_calls(self, recipe):
        return recipe.plan.num_canvases

page["METHODS"].register("silent", Silent())
argv = ["--model", "markov:V=4,L=16", "--method", "silent", "--nfe", "2"]
assert train.main([*argv, "--output-dir", "silent"]) == 0

# the metric: table, JSON, plots and page
evaluate.write_report(page["report"], Path("."))

# and one without replicates, meaning or entropy
class Bare(page["Repeats"]):
    metrics = (page["Metric"]("bare", "bare", lower_is_better=True),)
    verdict_key, entropy_key, replicates = "bare", None, ()

    def compute(self, sequences, texts=None):
        return {"bare": super().compute(sequences)["repeats_off"]}

bare = Bare(page["real"])
harness = page["Harness"](page["pipe"], page["samplers"], bare, num_samples=8, progress=False)
found = page["compare"](harness, [2, 4], floor=page["floor_row"](bare, page["real"]))
Path("bare").mkdir()
evaluate.write_report(page["make_report"]("Bare", found, bare, base="random", headline_nfe=4), Path("bare"))
"""


def test_a_method_and_a_metric_of_ones_own_get_to_the_end(tmp_path: Path) -> None:
    """Those of the page on extending: card, summary in the terminal, table, JSON and HTML."""
    code = "\n".join(block for _, block in blocks(ROOT / "docs" / "extending.md", "python"))
    (tmp_path / "page.py").write_text(code)
    (tmp_path / "driver.py").write_text(TO_THE_END)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    argv = [sys.executable, "driver.py", "page.py"]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, steps in (("python", (2, 4)), ("command", (2, 4)), ("silent", (2,))):
        learned = LSDScheduler.from_pretrained(tmp_path / name)
        card = (tmp_path / name / "README.md").read_text()
        assert "None" not in card and "learned times of the network calls" in card
        for M in steps:
            times = " ".join(f"{t:.4f}" for t in learned.steps_for(M).timesteps)
            assert f"| {M} | {times} |" in card
            assert f"{M:4d} calls  timesteps: {times}" in done.stdout
        (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        with contextlib.chdir(tmp_path), contextlib.redirect_stdout(io.StringIO()):
            exec(snippet, {})
    assert "| 1.5000 1.5000 |" in (tmp_path / "silent" / "README.md").read_text()
    for folder, key, heading in ((tmp_path, "repeats_off", "repeats off"), (tmp_path / "bare", "bare", "bare")):
        rows = rows_of(folder)
        assert [(row["sampler"], row["nfe"]) for row in rows] == list(itertools.product(("random", "halton"), (2, 4)))
        table, html = ((folder / name).read_text() for name in ("table.txt", "report.html"))
        for row in rows:
            assert heading in table and cell(row[key], 4) in table
            assert heading in html and cell(row[key], 4) in html
        assert f"<h3>{heading}</h3>" in html and f'aria-label="{heading} against calls"' in html
        assert (folder / "quality_vs_nfe.png").exists()
    page, table = ((tmp_path / name).read_text() for name in ("report.html", "table.txt"))
    assert "<dt>repeats off</dt><dd>How far the share of tokens that repeat" in page
    assert "<figcaption" in page and "real sequences. Lower is better.</figcaption>" in page
    assert all(f"repeats off {end}" in shown for end in ("low", "high") for shown in (page, table))
    assert {"repeats_off", "repeats_off_low", "repeats_off_high", "unigram_entropy"} <= set(rows_of(tmp_path)[0])


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "summary.json").read_text())["rows"]


def commands(page: Path) -> list[list[str]]:
    """Command lines that begin with `lsd-`, with the variables that were set on the page put in."""
    found, variables = [], {}
    for _, block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if match := re.fullmatch(r'([A-Z]+)="(.*)"', line.strip()):
                variables[match[1]] = match[2]
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            if line.strip().startswith("lsd-"):
                found.append(shlex.split(line, comments=True))
    return found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=name_of)
def test_commands_have_known_flags(page: Path) -> None:
    for name, *argv in commands(page):
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                args = PARSERS[name]().parse_args(argv)
        except SystemExit:
            pytest.fail(f"{name_of(page)}: {shlex.join([name, *argv])}\n{said.getvalue()}")
        if name == "lsd-eval":
            for text in itertools.chain(*expand_sweeps(args.baselines).values()):
                baseline(text, {"mask_token_id": 3})
        if name == "lsd-train":
            options = {option.name: getattr(args, option.name) for option in all_options()}
            DistillConfig(**{**options, "nfe": args.nfe or (4,)})


# ---- tables ----


def _is_of(solver: Solver, paper: str) -> bool:
    """Whether the docstring of a solver's class, of its family's, or of their file names the paper."""
    kinds = itertools.takewhile(lambda kind: kind not in (OwnStep, Solver), type(solver).__mro__)
    texts = [text for kind in kinds for text in (kind.__doc__, sys.modules[kind.__module__].__doc__)]
    return any(f"papers/{paper}" in (text or "") for text in texts)


def test_table_of_solvers_is_the_registry() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table_after("choosing.md", "solvers")}
    assert list(rows) == SOLVERS.names()
    for name, (calls, paper, constants, learnable, *_) in rows.items():
        solver = SOLVERS[name]
        assert int(calls) == solver.evals_per_step, name
        ids = re.findall(r"arxiv\.org/abs/([\d.]+)", paper)
        assert ids and all(_is_of(solver, paper_id) for paper_id in ids), name
        defaults = {option: str(value) for option, value in re.findall(r"`(\w+)` = ([^,]+)", constants)}
        assert defaults == {option: str(part.default) for option, part in solver.options.items()}, name
        assert learnable == ("yes" if solver.distillable else "no"), name


@pytest.mark.parametrize(
    ("page", "marker", "registry"),
    [("choosing.md", "orders", ORDERS), ("choosing.md", "schedules", GRIDS), ("choosing.md", "methods", METHODS)],
)
def test_other_tables_name_every_part(page: str, marker: str, registry: Registry) -> None:
    assert sorted(row[0].strip("`") for row in table_after(page, marker)) == sorted(registry.names())


def test_table_of_rules_names_what_there_is() -> None:
    """Each rule of prior work that is here, by its name here; the options are those of `LSDScheduler`."""
    rows, known = table_after("prior_work.md", "rules"), {"order": ORDERS, "solver": SOLVERS}
    named = [re.findall(r'(\w+)="(\w+)"', row[1]) for row in rows]
    assert all(entries for entries in named)
    for option, value in itertools.chain.from_iterable(named):
        assert option not in known or value in known[option].names(), f"{option}={value}"
        assert option in inspect.signature(LSDScheduler).parameters
    assert len(rows) >= 11


def learns_for(method: str, order: str) -> bool:
    try:
        METHODS[method].check_order(order)
    except ValueError:
        return False
    return True


def test_table_of_orders_says_what_they_look_at() -> None:
    for row in table_after("choosing.md", "orders"):
        order = ORDERS[row[0].strip("`")]
        learnable = any(learns_for(method, order.name) for method in ("path_kl", "forced_kl"))
        reads = "all masked rows" if order.looks_at_logits else "revealed rows"
        assert row[2:] == ["yes" if learnable else "no", reads], row


# ---- links ----


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *TOP], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in anchors(file), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("contents", [page for page in PAGES if page.name == "README.md"], ids=name_of)
def test_contents_name_every_page_of_their_folder_and_the_contents_below(contents: Path) -> None:
    below = [*contents.parent.glob("*.md"), *contents.parent.glob("*/README.md")]
    expected = {page.relative_to(contents.parent).as_posix() for page in below if page != contents}
    assert {name for name in expected if f"]({name})" not in contents.read_text(encoding="utf-8")} == set()
    assert all(page.parent.joinpath("README.md").exists() for page in PAGES)
    assert "](docs/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=name_of)
def test_files_that_the_pages_name_exist(page: Path) -> None:
    """Paths from the root of the repository, and names of Python files alone."""
    for path in re.findall(r"`((?:lsd_sampler|tests|examples|benchmarks|models)/[\w./-]+)`", prose(page)):
        assert (ROOT / path).exists() or not (ROOT / path.split("/")[0]).exists(), f"{name_of(page)} names {path}"
    folders = ("lsd_sampler", "tests", "examples", "benchmarks", "docs")
    known = {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert set(re.findall(r"`(\w+\.py)`", prose(page))) <= known


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=name_of)
def test_modules_that_the_pages_name_exist(page: Path) -> None:
    """`lsd_sampler.room.module`, or a name in it, in text and in commands."""
    names = set(re.findall(r"(?<![\w./-])lsd_sampler(?:\.\w+)+", page.read_text(encoding="utf-8")))
    assert {name for name in names if pydoc.locate(name) is None} == set()


# ---- the API ----


def public_parts(module: ModuleType) -> list[tuple[str, object]]:
    own = [name for name, part in vars(module).items() if getattr(part, "__module__", None) == module.__name__]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    return [(name, getattr(module, name)) for name in names]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_docstrings(name: str) -> None:
    """Modules, classes, functions, and the methods and properties of classes (which may inherit theirs)."""
    module = importlib.import_module(name)
    assert module.__doc__
    missing = []
    for part_name, part in public_parts(module):
        if not (inspect.isclass(part) or inspect.isfunction(part)):
            continue
        if not part.__doc__ or part.__doc__.startswith(f"{part_name}("):  # what `dataclass` writes itself
            missing.append(part_name)
        for member, value in vars(part).items() if inspect.isclass(part) else ():
            is_code = inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod)
            if is_code and not member.startswith("_") and not inspect.getdoc(getattr(part, member)):
                missing.append(f"{part_name}.{member}")
    assert missing == []


def test_site_is_built_without_warnings(tmp_path: Path) -> None:
    for library in ("pdoc", "latex2mathml", "mdit_py_plugins"):
        pytest.importorskip(library)
    script = runpy.run_path(str(ROOT / "docs" / "build.py"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        script["build"](tmp_path)
    built = {path for path in tmp_path.rglob("*.html") if not path.is_relative_to(tmp_path / "api")}
    names = {page: "index" if page.name == "README.md" else page.stem for page in PAGES}
    assert built == {(tmp_path / page.relative_to(ROOT / "docs")).with_name(f"{names[page]}.html") for page in PAGES}
    api = (tmp_path / "api" / "lsd_sampler.html").read_text(encoding="utf-8")
    assert "LSDScheduler" in api and "num_inference_steps" in api
    for path in built:
        text = path.read_text(encoding="utf-8")
        assert ".md" not in "".join(re.findall(r'href="([^"]*)"', text))
        for target, anchor in re.findall(r'(?:href|src)="([^"#]*)(?:#([^"]*))?"', text):
            if target.startswith("http"):
                continue
            file, there = (path.parent / target) if target else path, f"{path.name} links to {target}#{anchor}"
            assert file.exists(), there
            assert not anchor or f'id="{anchor}"' in file.read_text(encoding="utf-8"), there


@pytest.mark.parametrize("names", ["text, token", "chain", "set, fill", "image", "task"])
def test_tables_of_metrics_are_the_metric_sets(names: str) -> None:
    """Every metric of these sets has a row under its heading, and the verdicts are marked."""
    sets = [METRIC_SETS[name] for name in names.split(", ")]
    said = [name for row in table_after("evaluation.md", f"metrics: {names}") for name in row[0].split(", ")]
    metrics = {metric.key: metric.heading for kind in sets for metric in kind.metrics}
    verdicts = {metrics[kind.verdict_key] for kind in sets if kind.verdict_key}
    assert sorted(name.removesuffix(" (the verdict)") for name in said) == sorted(metrics.values())
    assert {name.removesuffix(" (the verdict)") for name in said if name.endswith(" (the verdict)")} == verdicts


def test_every_metric_set_has_its_table() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    tables = re.findall(r"<!-- metrics: (.*?) -->", text)
    assert sorted(name for names in tables for name in names.split(", ")) == sorted(METRIC_SETS.names())


def test_oracles_and_their_keys() -> None:
    rows = table_after("evaluation.md", "oracles")
    assert [name.strip("`") for name, *_ in rows] == ORACLES.names()
    for name, _, keys in rows:
        kind = ORACLES[name.strip("`")]
        written = ", ".join(f"`{key}` = {value}" for key, value in kind.defaults.items())
        assert keys == written
