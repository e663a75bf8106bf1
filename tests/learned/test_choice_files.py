"""Files of samplers that say which positions to reveal: what is written comes back, and what is damaged is named."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.chosen_positions import BUDGETS, LAYOUTS, adaptive, make_choice, random_kappa, random_weights, steps_with
from helpers.sampler_runs import uneven
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lsd_sampler import LSDScheduler
from lsd_sampler.learned.tensor_file import FORMAT_VERSION, TENSORS_NAME, load_learned
from lsd_sampler.sampling.learned_numbers import LearnedSampler


DOUBLE = torch.float64
SYMMETRIC = torch.tensor([[[0.0, 0.5, 0.1], [0.5, 0.0, 0.2], [0.1, 0.2, 0.0]]], dtype=DOUBLE)


def saved(folder: Path, budget: str = BUDGETS[0], layout: str = "matrix") -> LSDScheduler:
    shape = (2, 3) if layout == "offset_2d" else (6,)
    choices = [
        make_choice([0.2, 1], budget, 0.03, random_weights(1)),
        make_choice([0, 0.5, 1, 1], BUDGETS[1], 0, random_weights(2)),
    ]
    scheduler = adaptive(choices, random_kappa(layout, shape), mask_token_id=5)
    scheduler.save_pretrained(folder)
    return scheduler


def edit(folder: Path, metadata: dict[str, str] | None = None, **changes: torch.Tensor | None) -> Path:
    """Other tensors in the file; None takes one out. Keys have `__` for a point."""
    path = folder / TENSORS_NAME
    with safe_open(path, "pt") as file:
        kept = file.metadata() if metadata is None else metadata
    content = load_file(path) | {key.replace("__", "."): tensor for key, tensor in changes.items()}
    save_file({key: tensor for key, tensor in content.items() if tensor is not None}, path, kept)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_round_trip_is_exact(layout: str, budget: str, tmp_path: Path) -> None:
    scheduler = saved(tmp_path, budget, layout)
    loaded = LSDScheduler.from_pretrained(tmp_path)
    first, second = scheduler.learned_sampler, loaded.learned_sampler
    assert first.dependence and second.dependence and second.dependence.layout == layout
    assert torch.equal(first.dependence.kappa, second.dependence.kappa)
    for M in (2, 4):
        a, b = first.steps[M], second.steps[M]
        assert a.choice and b.choice and a.choice.budget == b.choice.budget
        for name in ("weights", "free_below", "shares"):
            assert torch.equal(getattr(a.choice, name), getattr(b.choice, name))
        assert torch.equal(a.timesteps, b.timesteps)
    before = (tmp_path / TENSORS_NAME).read_bytes()
    loaded.save_pretrained(tmp_path)
    assert (tmp_path / TENSORS_NAME).read_bytes() == before


def version_of(folder: Path) -> tuple[str, int]:
    with safe_open(folder / TENSORS_NAME, "pt") as file:
        config = json.loads((folder / "scheduler_config.json").read_text())
        return file.metadata()["format_version"], config["format_version"]


def test_only_a_choice_of_positions_needs_the_new_format(tmp_path: Path) -> None:
    """Other samplers stay readable by older versions of the library."""
    saved(tmp_path)
    assert version_of(tmp_path) == ("2", 2) == (str(FORMAT_VERSION), FORMAT_VERSION)
    for order in ("halton", "adaptive"):
        scheduler = LSDScheduler(mask_token_id=5, order=order)
        scheduler.set_learned_sampler(uneven(3))
        scheduler.save_pretrained(tmp_path)
        assert version_of(tmp_path) == ("1", 1)
        assert not any("kappa" in key or "choice" in key for key in load_file(tmp_path / TENSORS_NAME))
        assert LSDScheduler.from_pretrained(tmp_path).available_num_inference_steps == [3]


def test_the_old_format_has_no_choice(tmp_path: Path) -> None:
    saved(tmp_path)
    path = edit(tmp_path, metadata={"format_version": "1"})
    with pytest.raises(ValueError, match="`format_version` 1, which has no `choice_weights`") as error:
        load_learned(path)
    assert str(path) in str(error.value)


BAD = [
    ("nfe_2.choice_weights", torch.ones(4, dtype=DOUBLE), "shape"),
    ("nfe_2.choice_weights", torch.ones(1, 5, dtype=DOUBLE), "shape"),
    ("nfe_2.choice_weights", torch.ones(5, dtype=torch.int64), "floating point"),
    ("nfe_2.choice_weights", torch.tensor([1, 1, 1, math.nan, 1], dtype=DOUBLE), "NaN"),
    ("nfe_2.choice_weights", torch.tensor([1, 1, math.inf, 1, 1], dtype=DOUBLE), "infinite"),
    ("nfe_2.choice_weights", torch.tensor([1, -0.1, 1, 1, 1], dtype=DOUBLE), ">= 0"),
    ("nfe_2.free_below", torch.tensor([0.1], dtype=DOUBLE), "shape"),
    ("nfe_2.free_below", torch.tensor(-0.1, dtype=DOUBLE), ">= 0"),
    ("nfe_2.free_below", torch.tensor(math.nan, dtype=DOUBLE), "NaN"),
    ("nfe_2.free_below", torch.tensor(0), "floating point"),
    ("nfe_2.position_shares", torch.tensor([1.0], dtype=DOUBLE), "shape"),
    ("nfe_2.position_shares", torch.tensor([0.5, 0.5, 1], dtype=DOUBLE), "shape"),
    ("nfe_2.position_shares", torch.tensor([1.1, 1], dtype=DOUBLE), r"\[0, 1\]"),
    ("nfe_2.position_shares", torch.tensor([0.5, 0.9], dtype=DOUBLE), "the last must be 1"),
    ("nfe_2.position_shares", torch.tensor([-0.5, 1], dtype=DOUBLE), ">= 0"),
    ("nfe_2.position_shares", torch.tensor([math.nan, 1], dtype=DOUBLE), "NaN"),
    ("nfe_2.position_shares", torch.tensor([0, 1]), "floating point"),
    ("nfe_4.entropy_shares", torch.tensor([0.5, 0.5, 2, 1], dtype=DOUBLE), r"\[0, 1\]"),
    ("kappa.matrix", SYMMETRIC + torch.tensor([0, 0, 0.1], dtype=DOUBLE), "symmetric"),
    ("kappa.matrix", SYMMETRIC[:, :2], "symmetric"),
    ("kappa.matrix", SYMMETRIC[0], "axes"),
    ("kappa.matrix", SYMMETRIC[:0], "axes"),
    ("kappa.matrix", SYMMETRIC * 2.1, r"\[0, 1\], got 1.05"),
    ("kappa.matrix", -SYMMETRIC, r"\[0, 1\], got -0.5"),
    ("kappa.matrix", SYMMETRIC * math.nan, "NaN"),
    ("kappa.matrix", (SYMMETRIC > 0).long(), "floating point"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "tensor", "words"), BAD)
def test_bad_tensors(key: str, tensor: torch.Tensor, words: str, tmp_path: Path) -> None:
    saved(tmp_path)
    path = edit(tmp_path, **{key: tensor.contiguous()})
    with pytest.raises(ValueError, match=words) as error:
        load_learned(path)
    assert str(path) in str(error.value) and key in str(error.value)


@pytest.mark.parametrize(
    ("layout", "tensor", "words"),
    [
        ("offset", torch.zeros(2, 3, 3, dtype=DOUBLE), "axes"),
        ("offset", torch.zeros(2, 0, dtype=DOUBLE), "axes"),
        ("offset", torch.full((1, 3), 1.5, dtype=DOUBLE), r"\[0, 1\]"),
        ("offset_2d", torch.zeros(2, 3, dtype=DOUBLE), "axes"),
        ("offset_2d", torch.full((1, 3, 2), math.inf, dtype=DOUBLE), "infinite"),
    ],
)
def test_bad_distances(layout: str, tensor: torch.Tensor, words: str, tmp_path: Path) -> None:
    saved(tmp_path, layout=layout)
    path = edit(tmp_path, **{f"kappa.{layout}": tensor})
    with pytest.raises(ValueError, match=f"kappa.{layout} .*{words}") as error:
        load_learned(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nfe_2__choice_weights": None}, "lacks the key 'nfe_2.choice_weights'"),
        ({"nfe_2__free_below": None}, "lacks the key 'nfe_2.free_below'"),
        ({"nfe_2__position_shares": None}, "lacks the key 'nfe_2.position_shares'"),
        ({"nfe_2__timesteps": None}, "lacks the key 'nfe_2.timesteps'"),
        ({"nfe_2__entropy_shares": torch.ones(2, dtype=DOUBLE)}, "nfe_2 holds both position_shares and"),
        ({"kappa__matrix": None}, "nfe_2.choice_weights of redundancy and gain go with kappa"),
        ({"kappa__offset": torch.ones(1, 2, dtype=DOUBLE)}, "both kappa.matrix and kappa.offset"),
        ({"kappa__vector": torch.ones(1, 2, dtype=DOUBLE)}, "unknown key 'kappa.vector'"),
        ({"nfe_2__choice": torch.ones(2, dtype=DOUBLE)}, "unknown key 'nfe_2.choice'"),
    ],
)  # fmt: skip
def test_missing_and_extra_keys(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    saved(tmp_path)
    path = edit(tmp_path, **changes)
    with pytest.raises(ValueError, match=words) as error:
        load_learned(path)
    assert str(path) in str(error.value)


def test_kappa_without_a_choice(tmp_path: Path) -> None:
    saved(tmp_path)
    names = ("choice_weights", "free_below", *BUDGETS)
    path = edit(tmp_path, **{f"nfe_{M}.{name}": None for M in (2, 4) for name in names})
    with pytest.raises(ValueError, match="kappa.matrix goes with choice_weights") as error:
        load_learned(path)
    assert str(path) in str(error.value)


def test_no_kappa_is_needed_where_no_weight_asks_for_it(tmp_path: Path) -> None:
    adaptive([make_choice([0.5, 1], own=0.3, halton=1)], mask_token_id=5).save_pretrained(tmp_path)
    assert LSDScheduler.from_pretrained(tmp_path).learned_sampler.dependence is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"order": "halton"}, "`order` 'adaptive', got 'halton'"),
        ({"order": "adaptive", "count": "bernoulli"}, "`count` 'exact', got 'bernoulli'"),
        ({"order": "adaptive", "count": "llada"}, "`count` 'llada'"),
        ({"solver": "remdm_cap"}, "`solver` 'remdm_cap'"),
    ],
)
def test_a_choice_goes_with_its_order_and_exact_counts(config: dict[str, Any], words: str, tmp_path: Path) -> None:
    learned = saved(tmp_path).learned_sampler
    with pytest.raises(ValueError, match=words):
        LSDScheduler(mask_token_id=5, **config).set_learned_sampler(learned)
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"order": "random"} | config))
    with pytest.raises(ValueError, match=f"{TENSORS_NAME}|{file.name}"):
        LSDScheduler.from_pretrained(tmp_path)


def test_a_matrix_that_would_not_load_is_not_saved(tmp_path: Path) -> None:
    """Of 32 MiB: the sampler that was there stays."""
    scheduler = saved(tmp_path)
    before = [file.read_bytes() for file in sorted(tmp_path.iterdir())]
    learned = scheduler.learned_sampler
    assert learned.dependence is not None
    large = replace(learned.dependence, kappa=torch.zeros(1, 2049, 2049, dtype=DOUBLE))
    scheduler.set_learned_sampler(LearnedSampler(learned.steps, dependence=large))
    with pytest.raises(ValueError, match=f"{TENSORS_NAME} would be larger"):
        scheduler.save_pretrained(tmp_path)
    assert [file.read_bytes() for file in sorted(tmp_path.iterdir())] == before


def test_unusable_choices_are_not_installed() -> None:
    choice = make_choice([0.5, 1.5, 1], own=1)
    with pytest.raises(ValueError, match="learned_sampler: nfe_3.position_shares"):
        LSDScheduler(order="adaptive").set_learned_sampler(LearnedSampler({3: steps_with(choice)}))
