"""Damaged and hostile checkpoints: a sampler loads as it was saved, or an error names the file. Nothing else, ever: no
other exception, no hang, no more than 100 MB.
"""

import inspect
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from helpers import mutations
from helpers.saved_sampler import (
    AT_DEFAULT,
    CONFIG_NAME,
    DESCRIPTIVE,
    OPTIONS,
    Files,
    bounded,
    choosing,
    numbers,
    options,
    original,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from lsd_sampler import LSDScheduler
from lsd_sampler.learned.tensor_file import TENSORS_NAME, format_version


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sampler")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Files:
    path = tmp_path_factory.mktemp("saved")
    original().save_pretrained(path)
    return Files((path / CONFIG_NAME).read_bytes(), (path / TENSORS_NAME).read_bytes())


def load_or_blame(folder: Path, files: Files, *blamed: str) -> LSDScheduler | None:
    """The sampler, or None if loading failed as it should: with an error that names one of the blamed files."""
    for name, content in zip((CONFIG_NAME, TENSORS_NAME), files, strict=True):
        (folder / name).unlink(missing_ok=True)  # some file systems are slow to overwrite
        (folder / name).write_bytes(content)
    try:
        with bounded():
            return LSDScheduler.from_pretrained(folder)
    except (ValueError, OSError) as error:
        assert any(str(folder / name) in str(error) for name in blamed), error
        return None


RENAMED = [
    {"nfe_2.entropy_shares": "nfe_2.position_shares"},
    {"nfe_2.choice_weights": "nfe_3.choice_weights"},
    {"kappa.matrix": "kappa.offset_2d"},
    {"kappa.matrix": "kappa.offset"},
    {"kappa.matrix": "kappa.MATRIX"},
]


def holds(scheduler: LSDScheduler, tensors: dict[str, torch.Tensor], expected: LSDScheduler | None = None) -> bool:
    """Whether it is the saved sampler with these numbers, and works."""
    got, table = numbers(scheduler.learned_sampler), scheduler.learned_sampler.step_error
    for M in range(1, 5):
        if scheduler.can_do(M):
            scheduler.set_timesteps(M)
    assert table is None or math.isfinite(table.solve(1)[1])
    return (
        options(scheduler) == (OPTIONS if expected is None else options(expected))
        and got.keys() == tensors.keys()
        and all(torch.equal(got[key], tensors[key].to(got[key].dtype)) for key in got)
    )


def is_original(scheduler: LSDScheduler) -> bool:
    return scheduler.config.learned and holds(scheduler, numbers(original().learned_sampler))


def test_every_entry_is_known_here() -> None:
    """Else the tests below would not notice that it is not protected."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(LSDScheduler).parameters.items()}
    assert defaults.keys() == OPTIONS.keys() | DESCRIPTIVE
    assert {key for key, value in OPTIONS.items() if value == defaults[key]} == AT_DEFAULT


# ---- mutated checkpoints: 5,000 that are listed, and as many as hypothesis draws ----


def test_damaged_config(folder: Path, saved: Files) -> None:
    tried = set(mutations.configs(saved.config)) - {saved.config}
    assert len(tried) > 1500
    for config in tried:
        loaded = load_or_blame(folder, saved._replace(config=config), CONFIG_NAME, TENSORS_NAME)
        assert loaded is None or is_original(loaded), config[:2000]


def test_damaged_tensors(folder: Path, saved: Files) -> None:
    """Not a byte of them may change."""
    tried = {*mutations.headers(saved.tensors), *mutations.numbers(saved.tensors)} - {saved.tensors}
    assert len(tried) > 1500
    for tensors in tried:
        assert load_or_blame(folder, saved._replace(tensors=tensors), TENSORS_NAME) is None, tensors[:2000]


def test_unusual_tensors_with_the_right_checksum(folder: Path, saved: Files) -> None:
    """What the checksum does not see: they are loaded as they are, or refused."""
    tried = {*mutations.headers(saved.tensors), *mutations.numbers(saved.tensors)} - {saved.tensors}
    assert len(tried) > 1500
    for tensors in tried:
        loaded = load_or_blame(folder, saved._replace(tensors=tensors).with_checksum(), TENSORS_NAME)
        assert loaded is None or holds(loaded, load(tensors)), tensors[:2000]


def test_unusual_choices_with_the_right_checksum(folder: Path, tmp_path: Path) -> None:
    """Numbers that say which positions to reveal, under their own names and each other's."""
    choosing().save_pretrained(tmp_path)
    saved = Files((tmp_path / CONFIG_NAME).read_bytes(), (tmp_path / TENSORS_NAME).read_bytes())
    tried, content = {*mutations.numbers(saved.tensors)} - {saved.tensors}, load(saved.tensors)
    renamed = [save({names.get(key, key): tensor for key, tensor in content.items()}) for names in RENAMED]
    assert len(tried) > 500
    for tensors in (*tried, *renamed):
        assert load_or_blame(folder, saved._replace(tensors=tensors), TENSORS_NAME) is None
        loaded = load_or_blame(folder, saved._replace(tensors=tensors).with_checksum(), TENSORS_NAME)
        assert loaded is None or holds(loaded, load(tensors), choosing()), load(tensors)
        assert loaded is None or format_version(loaded.learned_sampler) == 2


def test_plain_sampler_is_what_its_config_says(tmp_path: Path) -> None:
    LSDScheduler(**OPTIONS).save_pretrained(tmp_path)
    file, defaults = tmp_path / CONFIG_NAME, options(LSDScheduler())
    saved = file.read_bytes()
    for config in set(mutations.configs(saved)):
        file.unlink()
        file.write_bytes(config)
        try:
            with bounded():
                loaded = LSDScheduler.from_pretrained(tmp_path)
        except (ValueError, OSError) as error:
            assert str(tmp_path) in str(error)
        else:
            content = json.loads(config)
            assert options(loaded) == {key: content.get(key, default) for key, default in defaults.items()}
            assert not loaded.learned_sampler


def test_nested_config(folder: Path, saved: Files) -> None:
    """Python's limit of recursion is reached at one depth by the parser, at others by what comes after it."""
    for depth in range(sys.getrecursionlimit() - 200, sys.getrecursionlimit()):
        config = mutations.to_text([*mutations.to_pairs(saved.config), ("order", "[" * depth + "]" * depth)])
        assert load_or_blame(folder, saved._replace(config=config), CONFIG_NAME) is None


@settings(max_examples=400)
@given(st.one_of(mutations.accidents, mutations.changes))
def test_random_damage_to_the_config(
    folder: Path, saved: Files, how: mutations.Accident | list[mutations.Change]
) -> None:
    config = mutations.damage(saved.config, how) if isinstance(how, tuple) else mutations.change(saved.config, how)
    loaded = load_or_blame(folder, saved._replace(config=config), CONFIG_NAME, TENSORS_NAME)
    assert loaded is None or is_original(loaded)


@settings(max_examples=400)
@given(st.one_of(mutations.accidents, mutations.changes))
def test_random_damage_to_the_tensors(
    folder: Path, saved: Files, how: mutations.Accident | list[mutations.Change]
) -> None:
    if isinstance(how, tuple):
        tensors = mutations.damage(saved.tensors, how)
    else:
        header, body = mutations.split(saved.tensors)
        tensors = mutations.join(mutations.change(mutations.to_text(header), how), body)
    loaded = load_or_blame(folder, saved._replace(tensors=tensors), TENSORS_NAME)
    assert loaded is None or tensors == saved.tensors
    loaded = load_or_blame(folder, saved._replace(tensors=tensors).with_checksum(), TENSORS_NAME)
    assert loaded is None or holds(loaded, load(tensors))


# ---- files of earlier versions ----


@pytest.mark.parametrize("metadata", [None, {"format_version": "1"}])
def test_files_of_the_first_format_load(tmp_path: Path, saved: Files, metadata: dict[str, str] | None) -> None:
    """They had no checksum, and did not say what they were made for."""
    config = json.loads(saved.config)
    del config["tensors_sha256"]
    files = Files(json.dumps(config).encode(), save(load(saved.tensors), metadata))
    loaded = load_or_blame(tmp_path, files)
    assert loaded is not None and is_original(loaded)
    loaded.save_pretrained(tmp_path)
    assert (tmp_path / TENSORS_NAME).read_bytes() == saved.tensors


@pytest.mark.parametrize("key", sorted(OPTIONS.keys() - {"solver_options"}))  # no solver that learns has any
def test_edited_entry_is_named(tmp_path: Path, key: str) -> None:
    scheduler = original()
    if key == "corruption":
        scheduler = LSDScheduler(corruption="uniform", vocab_size=9)
        scheduler.set_learned_sampler(original().learned_sampler)
    if key == "draws":
        scheduler = LSDScheduler(**OPTIONS | {"order": "random", "draws": "float32_eps1e-6"})
        scheduler.set_learned_sampler(original().learned_sampler)
    if key == "minimal_gap":
        scheduler = LSDScheduler(**OPTIONS | {"order": "entropy", "count": "exact", "minimal_gap": 4})
        scheduler.set_learned_sampler(original().learned_sampler)
    scheduler.save_pretrained(tmp_path)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    config[key] = inspect.signature(LSDScheduler).parameters[key].default
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"{TENSORS_NAME} was saved with `{key}`"):
        LSDScheduler.from_pretrained(tmp_path)


@pytest.mark.parametrize("safe_serialization", [None, True])
def test_learned_numbers_are_not_forgotten(tmp_path: Path, safe_serialization: bool | None) -> None:
    """Wherever they lie, their config does not pass for a plain sampler's."""
    original().save_pretrained(tmp_path, safe_serialization=safe_serialization)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    del config["learned"], config["tensors_sha256"]
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"{CONFIG_NAME} does not say `learned`"):
        LSDScheduler.from_pretrained(tmp_path)


def test_integral_floats_may_lose_their_point(folder: Path, saved: Files) -> None:
    """Some JSON writers make 10 of 10.0."""
    assert b"10.0" in saved.config
    loaded = load_or_blame(folder, saved._replace(config=saved.config.replace(b"10.0", b"10")))
    assert loaded is not None and is_original(loaded)
