"""The layers of the package: no import runs upward or in a circle, and the root is a map."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest


PACKAGE = Path(__file__).resolve().parents[1] / "lsd_sampler"
MODULES = sorted(PACKAGE.rglob("*.py"))
# from the bottom up; a room imports from those before it, and from itself
LAYERS = (
    "support", "sampling", "learned", "scheduling_lsd", "denoisers", "pipeline_masked_diffusion", "training",
    "evaluation", "cards", "cli",
)  # fmt: skip
NEIGHBOURS = {"training": {"evaluation"}, "evaluation": {"training"}, "cards": {"training", "evaluation"}}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a module imports, also late ones; not those for type checkers alone."""
    package = name_of(path).split(".") if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {id(node) for test in ast.walk(tree) if is_for_types(test) for node in ast.walk(test)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "lsd_sampler")
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "lsd_sampler"):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                named = f"{module}.{alias.name}"
                yield named if named in NAMES else module


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


NAMES = {name_of(path) for path in MODULES}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "lsd_sampler"


def above(here: str) -> set[str]:
    """What a room may not import."""
    return {*LAYERS[LAYERS.index(here) + 1 :], *NEIGHBOURS.get(here, ()), "lsd_sampler"}


@pytest.mark.parametrize("path", [path for path in MODULES if path != PACKAGE / "__init__.py"], ids=name_of)
def test_no_import_runs_upward(path: Path) -> None:
    forbidden = above(room(name_of(path)))
    assert [module for module in imported(path) if room(module) in forbidden] == []


def test_no_imports_go_in_a_circle() -> None:
    """Between modules; the `__init__` of a folder collects what is in it."""
    paths = [path for path in MODULES if path.name != "__init__.py"]
    graph = {name_of(path): {*imported(path)} - {name_of(path)} for path in paths}
    TopologicalSorter({name: deps & set(graph) for name, deps in graph.items()}).prepare()  # raises CycleError


def test_the_root_is_a_map() -> None:
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 12
    assert {room.removesuffix(".py") for room in entries} == {*LAYERS, "__init__", "py.typed"}


def drawn_layers() -> list[list[str]]:
    """The rooms of the picture in the docs, from the bottom up; those side by side together."""
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = page.partition("<!-- layers -->")[2].split("```")[1]
    storeys = re.split(r"^[├└].*\n?", picture.partition("\n")[2].partition("\n")[2], flags=re.MULTILINE)
    first_lines = [storey.splitlines()[0] for storey in storeys if storey.strip()]
    return [[cell.split()[0] for cell in line.strip("│").split("│")] for line in reversed(first_lines)]


def test_the_picture_in_the_docs_is_that_of_the_layers() -> None:
    drawn = drawn_layers()
    assert [room for storey in drawn for room in storey] == [*LAYERS]
    for storey in drawn:
        for room in storey:
            assert {*storey} - {room} <= {*above(room)}


def test_trainers_reach_public_names_of_the_scheduler_alone() -> None:
    """Recorders inherit from it: what begins with an underscore in training is defined there."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (PACKAGE / "training").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    private = {n.attr for n in nodes if isinstance(n, ast.Attribute) and n.attr[0] == "_" and n.attr[:2] != "__"}
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    assert private - defined - assigned == set()


# modules without behaviour of their own: abstract bases, which the tests of their parts hold to, and a constant
WITHOUT_NAMESAKE = {"sampling/step_rule", "sampling/corruptions/base", "sampling/orders/base", "support/version"}


def test_tests_mirror_the_package() -> None:
    """Each module has a namesake in the folder of its room. Where two would be alike, it is named after both."""
    tests = Path(__file__).resolve().parent
    found = {str(path.parent.relative_to(tests) / path.stem) for path in tests.rglob("test_*.py")}
    missing = []
    for path in MODULES:
        module = path.relative_to(PACKAGE).with_suffix("")
        folder = module.parent.name
        names = {module.name, f"{module.name}_{folder}", f"{module.name}_{folder.removesuffix('s')}"}
        if module.name != "__init__" and not any(str(module.parent / f"test_{name}") in found for name in names):
            missing.append(module.as_posix())
    assert set(missing) == WITHOUT_NAMESAKE
