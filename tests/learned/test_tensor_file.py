"""Files of a sampler, and the step-error table: what is written comes back, and what is damaged is named."""

import itertools
import json
import math
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lsd_sampler import LSDScheduler
from lsd_sampler.learned.tensor_file import FORMAT_VERSION, TENSORS_NAME, dump_learned, load_learned
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps, StepErrorTable
from lsd_sampler.sampling.schedules import replay_states, uniform_grid
from lsd_sampler.support.atomic import write_atomically
from lsd_sampler.training.isotonic import isotonic_decreasing
from lsd_sampler.training.step_errors import estimate_table


CONFIG_NAME = LSDScheduler.config_name


def tensors(M: int = 2) -> dict[str, torch.Tensor]:
    """A usable file's content."""
    return {
        f"nfe_{M}.timesteps": torch.linspace(1, 0.1, M + 1, dtype=torch.float64),
        f"nfe_{M}.score_coefficients": torch.linspace(0, 1.7, M, dtype=torch.float64),
        f"nfe_{M}.log_score_coefficients": torch.linspace(1.3, 0.9, M, dtype=torch.float64),
        "step_error.table": torch.rand(3, 5, dtype=torch.float64),
        "step_error.grid": torch.tensor([0, 1, 3]),
    }


def sampler(*numbers: int) -> LearnedSampler:
    steps = {M: LearnedSteps(*list(tensors(M).values())[:3]) for M in numbers}
    return LearnedSampler(steps, StepErrorTable(*list(tensors().values())[3:]))


def save_learned(learned: LearnedSampler, path: Path) -> None:
    write_atomically(path, dump_learned(learned, str(path)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / TENSORS_NAME


def same(a: LearnedSampler, b: LearnedSampler) -> bool:
    names = ("timesteps", "score_coefficients", "log_score_coefficients")
    assert a.step_error is not None and b.step_error is not None
    return (
        a.steps.keys() == b.steps.keys()
        and all(torch.equal(getattr(a.steps[M], n), getattr(b.steps[M], n)) for M in a.steps for n in names)
        and torch.equal(a.step_error.table, b.step_error.table)
        and torch.equal(a.step_error.grid, b.step_error.grid)
    )


# ---- what is written comes back ----


def test_round_trip_is_exact(path: Path) -> None:
    learned = sampler(1, 2, 8, 1024)
    save_learned(learned, path)
    assert same(load_learned(path), learned)
    assert all(x.dtype == torch.float64 for name, x in load_file(path).items() if name != "step_error.grid")


def test_any_layout_and_precision_is_saved(path: Path) -> None:
    times = torch.tensor([[1.0, 0.5, 0.25], [9.0, 9.0, 9.0]]).T[:, 0]
    ones = torch.ones(1).expand(2)
    table = StepErrorTable(torch.rand(5, 3).T, torch.tensor([0, 9, 1, 9, 3, 9])[::2])
    learned = LearnedSampler({2: LearnedSteps(times, ones.clone().requires_grad_(), ones.half())}, table)
    save_learned(learned, path)
    loaded = load_learned(path)
    assert loaded.steps[2].timesteps.tolist() == [1.0, 0.5, 0.25]
    assert loaded.steps[2].score_coefficients.tolist() == [1.0, 1.0]
    assert loaded.step_error is not None
    assert torch.equal(loaded.step_error.table, table.table.double())
    assert loaded.step_error.grid.tolist() == [0, 1, 3]


def raw_safetensors(version: str | None) -> bytes:
    """A file of format version 1, written out byte by byte: it must load forever."""
    numbers = {"timesteps": [1.0, 0.5, 0.25], "score_coefficients": [2.0, 3.0], "log_score_coefficients": [4.0, 5.0]}
    header: dict[str, Any] = {"__metadata__": {"format_version": version}} if version else {}
    data = b""
    for name, values in numbers.items():
        packed = struct.pack(f"<{len(values)}d", *values)
        offsets = [len(data), len(data) + len(packed)]
        header[f"nfe_2.{name}"] = {"dtype": "F64", "shape": [len(values)], "data_offsets": offsets}
        data += packed
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("version", ["1", None])
def test_first_format_loads(path: Path, version: str | None) -> None:
    path.write_bytes(raw_safetensors(version))
    steps = load_learned(path).steps[2]
    assert steps.timesteps.tolist() == [1.0, 0.5, 0.25]
    assert steps.score_coefficients.tolist() == [2.0, 3.0]
    assert steps.log_score_coefficients.tolist() == [4.0, 5.0]


@pytest.mark.parametrize("version", [str(FORMAT_VERSION + 1), "2.0", "new"])
def test_newer_tensors_are_refused(path: Path, version: str) -> None:
    path.write_bytes(raw_safetensors(version))
    with pytest.raises(ValueError, match=f"{TENSORS_NAME}.*`format_version` {version} is newer"):
        load_learned(path)


# ---- what is damaged is named ----

DOUBLE = torch.float64
BAD_TENSORS = [
    ("nfe_2.timesteps", torch.tensor([1.0, math.nan, 0.1]), "NaN"),
    ("nfe_2.timesteps", torch.tensor([math.inf, 0.5, 0.1]), "infinite"),
    ("nfe_2.timesteps", torch.tensor([1.0, 0.5, 0.5]), "strictly decreasing"),
    ("nfe_2.timesteps", torch.tensor([1.0, 0.1, 0.5]), "strictly decreasing"),
    ("nfe_2.timesteps", torch.tensor([1.0, 0.5, 0.5 - 1e-10], dtype=DOUBLE), "strictly decreasing"),
    ("nfe_2.timesteps", torch.tensor([1.1, 0.5, 0.1]), r"\(0, 1\]"),
    ("nfe_2.timesteps", torch.tensor([1.0, 0.5, 0.0]), r"\(0, 1\]"),
    ("nfe_2.timesteps", torch.tensor([1.0, 0.5, -0.1]), ">= 0"),
    ("nfe_2.timesteps", torch.tensor([[1.0, 0.5, 0.1]]), "shape"),
    ("nfe_2.timesteps", torch.tensor([1.0, 0.5]), "shape|entries"),
    ("nfe_2.timesteps", torch.tensor([1.0, 0.5, 0.2, 0.1]), "shape|entries"),
    ("nfe_2.timesteps", torch.tensor([]), "shape|entries"),
    ("nfe_2.timesteps", torch.tensor(1.0), "shape"),
    ("nfe_2.timesteps", torch.tensor([3, 2, 1]), "floating point"),
    ("nfe_2.timesteps", torch.tensor([1.0, 0.5, 0.1], dtype=torch.complex64), "floating point"),
    ("nfe_2.timesteps", torch.tensor([1.0, 0.5, math.nan]).to(torch.float8_e4m3fn), "NaN"),
    ("nfe_2.score_coefficients", torch.tensor([1.0, math.nan]), "NaN"),
    ("nfe_2.score_coefficients", torch.tensor([1.0, -math.inf]), "infinite"),
    ("nfe_2.score_coefficients", torch.tensor([1.0, -1e-9]), ">= 0"),
    ("nfe_2.score_coefficients", torch.tensor([1.0]), "shape"),
    ("nfe_2.score_coefficients", torch.tensor([True, True]), "floating point"),
    ("nfe_2.log_score_coefficients", torch.tensor([-1.0, 1.0]), ">= 0"),
    ("nfe_2.log_score_coefficients", torch.ones(3), "shape"),
    ("nfe_2.log_score_coefficients", torch.ones(2, dtype=torch.int64), "floating point"),
    ("step_error.table", torch.full((3, 5), math.nan), "NaN"),
    ("step_error.table", torch.full((3, 5), math.inf), "infinite"),
    ("step_error.table", torch.ones(3, 5, dtype=torch.int64), "floating point"),
    ("step_error.table", torch.ones(2, 5), r"\(G, L\)"),
    ("step_error.table", torch.ones(3), r"\(G, L\)"),
    ("step_error.table", torch.ones(3, 0), r"\(G, L\)"),
    ("step_error.table", torch.ones(3, 3), "below the sequence length"),
    ("step_error.grid", torch.tensor([0, 2, 1]), "increase"),
    ("step_error.grid", torch.tensor([0, 1, 1]), "increase"),
    ("step_error.grid", torch.tensor([1, 2, 3]), "increase from 0"),
    ("step_error.grid", torch.tensor([-1, 2, 3]), "increase from 0"),
    ("step_error.grid", torch.tensor([0, 1, 5]), "below the sequence length"),
    ("step_error.grid", torch.tensor([0.0, 1.0, 2.0]), "int64"),
    ("step_error.grid", torch.tensor([[0, 1, 2]]), r"\(G,\)"),
]


@pytest.mark.parametrize("key, tensor, message", BAD_TENSORS)
def test_bad_tensors(path: Path, key: str, tensor: torch.Tensor, message: str) -> None:
    save_file({**tensors(), key: tensor}, path)
    with pytest.raises(ValueError, match=message) as error:
        load_learned(path)
    assert str(path) in str(error.value)
    # a wrong length of one tensor may show as a wrong length of its partner
    partner = {"shape|entries": "nfe_2.", "below the sequence length": "step_error."}
    assert partner.get(message, key) in str(error.value)


@pytest.mark.parametrize("key", list(tensors()))
def test_missing_keys(path: Path, key: str) -> None:
    content = tensors()
    del content[key]
    save_file(content, path)
    with pytest.raises(ValueError, match=f"lacks the key '{key}'") as error:
        load_learned(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "key", ["colour", "nfe_0.timesteps", "nfe_02.timesteps", "nfe_2.timestep", "nfe_-2.timesteps", "step_error"]
)
def test_unknown_keys(path: Path, key: str) -> None:
    save_file({**tensors(), key: torch.ones(1)}, path)
    with pytest.raises(ValueError, match=f"unknown key '{key}'") as error:
        load_learned(path)
    assert str(path) in str(error.value)


def test_files_without_tensors(path: Path) -> None:
    save_file({}, path)
    with pytest.raises(ValueError, match=f"{TENSORS_NAME} holds no learned tensors"):
        load_learned(path)


def test_files_cut_at_every_byte(path: Path) -> None:
    save_learned(sampler(2), path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"{TENSORS_NAME} is not a readable safetensors file"):
            load_learned(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match=TENSORS_NAME):
        load_learned(path)


class Boom:
    def __reduce__(self) -> tuple:
        return pytest.fail, ("a pickle was opened",)


def test_other_kinds_of_files(path: Path) -> None:
    """Pickles are never opened, whatever their name."""
    for content in (b"\0" * 100, b"\xff" * 100, b"{}", json.dumps(raw_safetensors("1").hex()).encode()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{TENSORS_NAME} is not a readable safetensors file"):
            load_learned(path)
    path.write_bytes(pickle.dumps(Boom()))
    with pytest.raises(ValueError, match=TENSORS_NAME):
        load_learned(path)
    torch.save(tensors(), path)
    with pytest.raises(ValueError, match=TENSORS_NAME):
        load_learned(path)


def test_absurd_sizes_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_learned(sampler(2), path)
    monkeypatch.setattr("lsd_sampler.learned.tensor_file.MAX_BYTES", 100)
    with pytest.raises(ValueError, match=f"{TENSORS_NAME} is larger"):
        load_learned(path)


def test_missing_files(path: Path) -> None:
    with pytest.raises(OSError, match=f"missing.*{TENSORS_NAME}"):
        load_learned(path)
    path.mkdir()
    with pytest.raises(OSError, match=TENSORS_NAME):
        load_learned(path)


# ---- a failed save changes nothing ----


def test_unusable_numbers_are_not_saved(path: Path) -> None:
    save_learned(sampler(2), path)
    before = path.read_bytes()
    bad = sampler(2)
    bad.steps[2].score_coefficients[1] = math.nan
    with pytest.raises(ValueError, match=f"{TENSORS_NAME}: nfe_2.score_coefficients"):
        save_learned(bad, path)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="nfe_3.timesteps must have 4 entries"):
        save_learned(LearnedSampler({3: sampler(2).steps[2]}), path)
    with pytest.raises(ValueError, match="nfe_2.score_coefficients"):
        LSDScheduler().set_learned_sampler(bad)


def test_interrupted_save_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_learned(sampler(2), path)
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_learned(sampler(4), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [TENSORS_NAME]


def test_save_into_a_file_or_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`save_directory` must be a folder"):
        LSDScheduler().save_pretrained(tmp_path / "file")
    with pytest.raises(OSError):
        save_learned(sampler(2), tmp_path / "file" / TENSORS_NAME)


# ---- the config beside the tensors ----


def write_config(folder: Path, content: str) -> None:
    (folder / CONFIG_NAME).write_text(content)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"format_version": FORMAT_VERSION + 1}, "`format_version`.*newer"),
        ({"format_version": "1"}, "`format_version`"),
        ({"mask_token_id": "5"}, "`mask_token_id`"),
        ({"mask_token_id": [5]}, "`mask_token_id`"),
        ({"solver": 3}, "`solver`"),
        ({"order": {"name": "random"}}, "`order`"),
        ({"count": None}, "`count`"),
        ({"noise_eps": "small"}, "`noise_eps`"),
        ({"noise_schedule": ["log_linear"]}, "`noise_schedule`"),
        ({"sampling_eps": math.nan}, "`sampling_eps`"),
        ({"confidence_temperature": True}, "`confidence_temperature`"),
        ({"learned": "yes"}, "`learned`"),
        ([1, 2], "JSON object"),
        ("text", "JSON object"),
        (None, "JSON object"),
    ],
)
def test_bad_configs(tmp_path: Path, content: Any, message: str) -> None:
    write_config(tmp_path, json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        LSDScheduler.from_pretrained(tmp_path)
    assert CONFIG_NAME in str(error.value)


@pytest.mark.parametrize("content", [b"", b'{"mask_token_id": 5', b"\xff\xfe{}"])
def test_damaged_configs(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CONFIG_NAME).write_bytes(content)
    with pytest.raises(ValueError, match=CONFIG_NAME):
        LSDScheduler.from_pretrained(tmp_path)


def test_missing_parts_of_a_sampler(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=CONFIG_NAME):
        LSDScheduler.from_pretrained(tmp_path)
    write_config(tmp_path, json.dumps({"mask_token_id": 5, "learned": True}))
    with pytest.raises(OSError, match=TENSORS_NAME):
        LSDScheduler.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`pretrained_model_name_or_path` is missing"):
        LSDScheduler.from_pretrained()


def test_damaged_tensors_of_a_sampler(tmp_path: Path) -> None:
    scheduler = LSDScheduler(mask_token_id=5)
    scheduler.set_learned_sampler(sampler(2))
    scheduler.save_pretrained(tmp_path)
    file = tmp_path / TENSORS_NAME
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=TENSORS_NAME):
        LSDScheduler.from_pretrained(tmp_path)


# ---- the step-error table ----


@st.composite
def tables(draw: st.DrawFn) -> StepErrorTable:
    length = draw(st.integers(1, 9))
    inner = draw(st.sets(st.integers(1, length - 1), max_size=6)) if length > 1 else set()
    grid = torch.tensor([0, *sorted(inner)])
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    return StepErrorTable(torch.rand(len(grid), length, generator=generator, dtype=torch.float64), grid)


def cost_of(table: StepErrorTable, counts: tuple[int, ...]) -> float:
    """By definition: each token is paid for in the state that its step begins in."""
    states = {int(known): g for g, known in enumerate(table.grid)}
    return sum(float(table.table[states[a], a:b].sum()) for a, b in itertools.pairwise(counts))


@given(tables())
def test_schedules_equal_those_of_brute_force(table: StepErrorTable) -> None:
    known = table.grid.tolist()
    for M in range(1, len(known) + 1):
        paths = [(0, *inner, table.seq_len) for inner in itertools.combinations(known[1:], M - 1)]
        counts, cost = table.solve(M)
        assert len(counts) == M + 1
        assert math.isclose(cost, min(cost_of(table, p) for p in paths), abs_tol=1e-12)
        assert math.isclose(cost, cost_of(table, tuple(counts)), abs_tol=1e-12)
        assert table.solve(M)[0] == counts


@given(tables())
def test_no_schedule_is_worse_than_the_uniform_one(table: StepErrorTable) -> None:
    for M in range(1, len(table.grid) + 1):
        used = len((table.grid[None] - torch.linspace(0, table.seq_len, M + 1)[:-1, None]).abs().argmin(1).unique())
        assert table.solve(used)[1] <= table.uniform_cost(M) + 1e-12


@pytest.mark.parametrize("M", [0, -1, 4])
def test_impossible_numbers_of_steps(M: int) -> None:
    with pytest.raises(ValueError, match=r"`num_inference_steps` must be in \[1, 3\]"):
        StepErrorTable(torch.ones(3, 5), torch.tensor([0, 1, 3])).solve(M)


@pytest.mark.parametrize("length, num", [(1, 1), (5, 8), (64, 64), (256, 128), (1000, 16), (4096, 128)])
def test_replayed_states(length: int, num: int) -> None:
    """They begin at 0, increase, stay below the length, and hold the levels of a low-discrepancy order."""
    states = replay_states(length, num)
    assert states[0] == 0 and states[-1] < length
    assert (states.diff() > 0).all()
    assert len(states) <= num + length.bit_length()
    assert {-(-length // 2**k) for k in range(1, length.bit_length())} <= set(states.tolist())


def test_uniform_grid_is_uniform() -> None:
    grid = uniform_grid(4, 0.2)
    torch.testing.assert_close(grid, torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2], dtype=DOUBLE))


# ---- monotone estimates ----


def best_monotone(values: list[float], weights: list[float]) -> tuple[float, list[float]]:
    """The least squares non-increasing fit consists of means over consecutive blocks: all partitions are tried."""
    n, best = len(values), (math.inf, list(values))
    for cuts in itertools.product([False, True], repeat=n - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), n]
        fit: list[float] = []
        for a, b in itertools.pairwise(edges):
            mean = sum(v * w for v, w in zip(values[a:b], weights[a:b], strict=True)) / sum(weights[a:b])
            fit += [mean] * (b - a)
        loss = sum(w * (v - f) ** 2 for v, w, f in zip(values, weights, fit, strict=True))
        if all(x >= y - 1e-12 for x, y in itertools.pairwise(fit)) and loss < best[0]:
            best = loss, fit
    return best


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 10)), min_size=1, max_size=8))
def test_isotonic_fit_equals_brute_force(pairs: list[tuple[float, float]]) -> None:
    values, weights = (list(x) for x in zip(*pairs, strict=True))
    got = isotonic_decreasing(torch.tensor(values, dtype=DOUBLE), torch.tensor(weights, dtype=DOUBLE))
    assert got.tolist() == pytest.approx(best_monotone(values, weights)[1], abs=1e-6)
    assert (got.diff() <= 1e-12).all()


@pytest.mark.parametrize(
    "values, weights, expected",
    [
        ([3.0, 2.0, 1.0], [1, 1, 1], [3.0, 2.0, 1.0]),
        ([1.0, 2.0, 3.0], [1, 1, 1], [2.0, 2.0, 2.0]),
        ([1.0, 4.0], [3, 1], [1.75, 1.75]),
        ([5.0, 1.0, 3.0, 0.0], [1, 1, 1, 1], [5.0, 2.0, 2.0, 0.0]),
        ([2.0, 2.0], [1, 5], [2.0, 2.0]),
        ([7.0], [2], [7.0]),
    ],
)
def test_isotonic_fit(values: list[float], weights: list[float], expected: list[float]) -> None:
    got = isotonic_decreasing(torch.tensor(values, dtype=DOUBLE), torch.tensor(weights, dtype=DOUBLE))
    assert got.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("exchangeable", [False, True])
def test_estimated_tables(exchangeable: bool) -> None:
    """Non-increasing in the state wherever something was seen, 0 elsewhere; one value per state if ranks are alike."""
    states, length = torch.tensor([0, 2, 5]), 8
    seen = (torch.arange(length)[None] >= states[:, None]).double() * 10
    nats = torch.rand(3, length, dtype=DOUBLE) * seen
    table = estimate_table(nats, seen, exchangeable)
    assert (table[seen == 0] == 0).all()
    for rank in range(length):
        column = table[seen[:, rank] > 0, rank]
        assert (column.diff() <= 1e-12).all()
    if exchangeable:
        assert all(len(row[row != 0].unique()) == 1 for row in table)
    # pooling moves weight, it does not lose any
    assert math.isclose((table * seen).sum(), nats.sum(), rel_tol=1e-9)
