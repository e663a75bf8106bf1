"""Hostile folders and names, what loading opens and needs, and saves that are cut short."""

import errno
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import mutations
from helpers.saved_sampler import CONFIG_NAME, OPTIONS, Files, bounded, numbers, options, original
from safetensors.torch import save

from lsd_sampler import LSDScheduler
from lsd_sampler.learned.tensor_file import TENSORS_NAME
from lsd_sampler.sampling.learned_numbers import LearnedSampler


# ---- what is not a file, and names that lead elsewhere ----


def dangle(path: Path) -> None:
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**36)


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path.touch(mode=0)


@pytest.mark.parametrize("name", [CONFIG_NAME, TENSORS_NAME])
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo, dangle, loop, endless, sparse, unreadable])
def test_what_is_not_a_file(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    original().save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    make(tmp_path / name)
    with bounded(), pytest.raises((ValueError, OSError)) as error:
        LSDScheduler.from_pretrained(tmp_path)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo, dangle, loop, endless, unreadable])
def test_what_is_not_a_folder(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "sampler")
    with bounded(), pytest.raises((ValueError, OSError)) as error:
        LSDScheduler.from_pretrained(tmp_path / "sampler")
    assert str(tmp_path / "sampler") in str(error.value)


BAD_SUBFOLDERS = ["..", "../other", "a/../../other", "/", "/etc", "a\\..\\other", "a\0b", 5, ["a"]]


@pytest.mark.parametrize("subfolder", [*BAD_SUBFOLDERS, "missing", "\ud800", "x" * 300, "x/" * 3000])
def test_subfolders_stay_inside(tmp_path: Path, subfolder: Any) -> None:
    original().save_pretrained(tmp_path / "other")
    (tmp_path / "sampler").mkdir()
    with bounded(), pytest.raises((ValueError, OSError)) as error:
        LSDScheduler.from_pretrained(tmp_path / "sampler", subfolder=subfolder)
    if subfolder in BAD_SUBFOLDERS:
        assert "`subfolder` must be a path inside the folder or repo" in str(error.value)
    assert str(subfolder) in str(error.value) or repr(subfolder) in str(error.value)


NAMES = [
    "", "a\0b", "../nowhere", "owner/../name", "owner/na..me", "owner/name/more", "/owner/name", "\ud800/name",
    "owner/name\n", "owner/-", "file:///etc", "https://example.com/owner/name", "~/x", "x" * 300, 5, b"owner/name",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_nothing(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked for them."""
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("tried to connect"))
    with bounded(), pytest.raises((ValueError, OSError)) as error:
        LSDScheduler.from_pretrained(name)
    assert repr(name) in str(error.value)


# ---- in a process of its own: what is opened and run, and how much memory is needed ----

CHILD = """
import json, sys
from pathlib import Path
from lsd_sampler import LSDScheduler

def megabytes(kind):
    lines = Path("/proc/self/status").read_text().splitlines() if sys.platform == "linux" else []
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith(kind)), default=0)

def record(event, args):
    if event in ("open", "import", "exec", "compile", "pickle.find_class"):
        events.append((event, str(args[:2])))

decoys = Path.cwd()
LSDScheduler.from_pretrained(decoys)
before, events, outcomes = megabytes("VmRSS"), [], {}
sys.addaudithook(record)
for folder in sorted(decoys.parent.iterdir()):
    try:
        outcomes[folder.name] = LSDScheduler.from_pretrained(folder).config.order
    except (ValueError, OSError) as error:
        outcomes[folder.name] = str(error)
events, needed = list(events), megabytes("VmHWM") - before
print(json.dumps({"events": events, "outcomes": outcomes, "megabytes": needed}))
"""
TRAP = "from pathlib import Path; Path('executed').touch()"


class Trap:
    def __reduce__(self) -> tuple:
        return exec, (TRAP,)


def lay_decoys(folder: Path) -> None:
    """What a careless loader would open beside a sampler, or import because the config says so."""
    config = json.loads((folder / CONFIG_NAME).read_text())
    config |= {
        "_class_name": "decoy.DecoyScheduler",
        "auto_map": {"AutoModel": "decoy.DecoyScheduler"},
        "decoy": "decoy",
    }
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    for name in ("decoy.py", "DecoyScheduler.py", "scheduler_config.py", "scheduler_model.py", "__init__.py"):
        (folder / name).write_text(TRAP)
    for name in ("scheduler_model.bin", "scheduler_model.pt", "scheduler_model.safetensors.pkl", "pytorch_model.bin"):
        torch.save(Trap(), folder / name)
    for name in ("config.json", "model_index.json", "scheduler_model.safetensors.index.json", "model.safetensors"):
        (folder / name).write_text("{}")


def lay_giants(root: Path, saved: Files) -> None:
    """Folders with files that need much memory, or claim to."""

    def lay(name: str, tensors: bytes, config: bytes | None = None) -> Path:
        (root / name).mkdir()
        files = saved._replace(tensors=tensors).with_checksum()
        (root / name / CONFIG_NAME).write_bytes(files.config if config is None else config)
        (root / name / TENSORS_NAME).write_bytes(tensors)
        return root / name

    def table(rows: int, columns: int, dtype: torch.dtype) -> bytes:
        return save({"step_error.table": torch.ones(rows, columns).to(dtype), "step_error.grid": torch.arange(rows)})

    lay("largest", table(1000, 4000, torch.float64))
    lay("largest in half precision", table(1000, 4000, torch.float16))
    lay("too large as float64", table(1000, 30_000, torch.float8_e4m3fn))
    header, body = mutations.split(saved.tensors)
    claim = mutations.to_text(header).replace(b"[3, 5]", b"[%d, %d]" % (2**30, 2**30))
    lay("claims to be large", mutations.join(claim, body))
    lay("brackets", mutations.join(b'{"a": [' + b"[]," * 100_000 + b"[]]}", b""))
    lay("numbers", mutations.join(b'{"a": [' + b"0," * 500_000 + b"0]}", b""))
    lay("long header", mutations.join(b"[" + b"0," * 16_000_000 + b"0]", b""))
    lay("long config", saved.tensors, b"[" + b"[]," * 10_000_000 + b"[]]")
    for name in (CONFIG_NAME, TENSORS_NAME):
        os.truncate(lay(f"sparse {name}", saved.tensors) / name, 2**36)


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("child")
    decoys = root / "decoys"
    original().save_pretrained(decoys)
    lay_giants(root, Files((decoys / CONFIG_NAME).read_bytes(), (decoys / TENSORS_NAME).read_bytes()))
    lay_decoys(decoys)
    run = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=root / "decoys", capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return {**json.loads(run.stdout), "root": root}


def test_nothing_but_json_and_safetensors_is_opened(child: dict[str, Any]) -> None:
    events, root = child["events"], child["root"]
    opened = {what for event, what in events if event == "open" and str(root) in what}
    for name in (CONFIG_NAME, TENSORS_NAME):  # the hook sees files
        assert any(str(root / "decoys" / name) in what for what in opened)
    assert all(CONFIG_NAME + "'" in what or TENSORS_NAME + "'" in what for what in opened), opened
    others = [(event, what) for event, what in events if event != "open"]
    assert not [what for event, what in others if event == "pickle.find_class"]
    assert not [what for _, what in others if "decoy" in what.lower() or str(root) in what]
    assert not list(root.glob("**/executed"))


def test_the_traps_would_snap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Trap(), "trap.pt")
    torch.load("trap.pt", weights_only=False)
    assert (tmp_path / "executed").exists()


def test_no_file_needs_much_memory(child: dict[str, Any]) -> None:
    loaded = {name for name, outcome in child["outcomes"].items() if outcome == OPTIONS["order"]}
    assert loaded == {"decoys", "largest", "largest in half precision"}
    for name in child["outcomes"].keys() - loaded:
        assert str(child["root"] / name / "scheduler_") in child["outcomes"][name]
    assert child["megabytes"] <= 100


# ---- a save that is cut short ----


def save_sampler(kind: str, folder: Path) -> tuple[Any, ...]:
    """Saves one of four samplers, of which one was saved with a pipeline, and returns its state."""
    scheduler = LSDScheduler(mask_token_id=9, order="random" if kind == "other" else "halton")
    if kind != "plain":
        scheduler.set_learned_sampler(LearnedSampler({2: original().learned_sampler.steps[2]}))
    scheduler.save_pretrained(folder, safe_serialization=True if kind == "of a pipeline" else None)
    return state(scheduler)


def state(scheduler: LSDScheduler) -> tuple[Any, ...]:
    return options(scheduler), {key: tensor.tolist() for key, tensor in numbers(scheduler.learned_sampler).items()}


def fail_at(patch: pytest.MonkeyPatch, call: int) -> list[str]:
    """Makes the call of that number fail, of those that change files; the names of the calls made come in the list."""
    made: list[str] = []

    def wrap(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def wrapped(path: Any, *args: Any, **kwargs: Any) -> Any:
            made.append(name)
            if len(made) != call:
                return function(path, *args, **kwargs)
            if name == "write_bytes":
                function(path, args[0][: len(args[0]) // 2])
            raise OSError(errno.ENOSPC, "disk full")

        patch.setattr(owner, name, wrapped)

    wrap(Path, "write_bytes")
    wrap(os, "replace")
    return made


INTERRUPTIONS = [
    (old, new, call)
    for old, new in itertools.permutations(["plain", "learned", "other", "of a pipeline"], 2)
    for call in ([1, 2] if new == "plain" else [1, 2, 3, 4])  # to write and to replace one file, or two
]


@pytest.mark.parametrize("old, new, call", INTERRUPTIONS)
def test_interrupted_save_never_leaves_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, call: int
) -> None:
    before = save_sampler(old, tmp_path)
    with monkeypatch.context() as patch:
        made = fail_at(patch, call)
        with pytest.raises(OSError, match="disk full"):
            save_sampler(new, tmp_path)
    assert {file.name for file in tmp_path.rglob("*")} <= {CONFIG_NAME, TENSORS_NAME, "learned.tensors"}
    try:
        assert state(LSDScheduler.from_pretrained(tmp_path)) == before
    except ValueError as error:
        assert str(tmp_path) in str(error)
        assert made.count("replace") > 1  # else nothing had been replaced
    after = save_sampler(new, tmp_path)
    assert state(LSDScheduler.from_pretrained(tmp_path)) == after


def test_equal_samplers_have_equal_files(tmp_path: Path) -> None:
    """So that the Hub keeps one copy, and a second save changes nothing."""
    for name in "ab":
        original().save_pretrained(tmp_path / name)
    for name in (CONFIG_NAME, TENSORS_NAME):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
