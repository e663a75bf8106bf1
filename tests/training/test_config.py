"""The options of a distillation: what is refused, and what is written down."""

import dataclasses
import json
import math
from typing import Any

import pytest

from lsd_sampler import DistillConfig
from lsd_sampler.training import METHODS
from lsd_sampler.training.config import all_options


# what `to_dict` gives for the default options of each method, and its own; `progress-*` files go by these
FLAT: dict[str, Any] = {
    "method": "auto", "solver": "tweedie", "teacher_solver": None, "order": None, "count": "exact",
    "nfe": [4, 8, 16, 32, 64], "teacher_steps": 1024, "num_sequences": None, "paths": None, "bootstrap_steps": 64,
    "batch_size": 64, "num_states": 128, "domain": None, "optimizer": "exact", "learning_rate": 0.001,
    "adam_batch_size": 1, "epochs": 20, "variant": "interval", "relaxation": None, "relaxation_filler": "teacher",
    "candidates": [
        "path_kl:random", "path_kl:halton", "forced_kl:margin", "forced_kl:entropy", "forced_kl:adaptive",
        "lsd:random",
    ],
    "coefficients": None, "coefficient_sequences": 128, "reference_sequences": 512, "held_out_sequences": 128,
    "seed": 0, "search_evaluations": 65536, "objective": "likelihood", "call_price": 0.001,
    "terms": ["own", "redundancy", "gain", "random", "halton"], "layouts": ["matrix", "offset", "offset_2d"],
    "budgets": ["position_shares", "entropy_shares", "entropy_bounds"], "free_below": [1e-5, 0.01, 0.1, 0.3],
}  # fmt: skip
CHOSEN = {
    "path_kl": ("halton", 0.0),
    "forced_kl": ("adaptive", 0.0),
    "lsd": ("random", 0.0),
    "lsd+": ("random", 0.05),
    "jys": ("random", 0.0),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "path-kl"),
        ("method", ""),
        ("solver", "heun"),
        ("order", "holton"),
        ("order", ""),
        ("order", "confidence"),
        ("count", "poisson"),
        ("domain", "logits"),
        ("optimizer", "sgd"),
        ("nfe", ()),
        ("nfe", 8),
        ("nfe", "8"),
        ("nfe", None),
        ("nfe", (4, 0)),
        ("nfe", (4, -8)),
        ("nfe", (4, 2.5)),
        ("nfe", (4, "8")),
        ("nfe", ([4],)),
        ("nfe", (True,)),
        ("teacher_steps", 0),
        ("teacher_steps", 10.0),
        ("num_sequences", -1),
        ("batch_size", 0),
        ("num_states", "many"),
        ("epochs", 0),
        ("learning_rate", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", "fast"),
        ("seed", -1),
        ("seed", 1.5),
        ("seed", None),
    ],
)
def test_bad_option_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        DistillConfig(**{name: value})


def test_config_is_frozen_sorted_and_json() -> None:
    config = DistillConfig(method="path_kl", nfe=[16, 4, 4, 8])  # type: ignore[arg-type]
    assert config.nfe == (4, 8, 16)
    assert [DistillConfig(method=name).order for name in ("path_kl", "lsd")] == ["halton", "random"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
    loaded = json.loads(json.dumps(config.to_dict()))
    assert DistillConfig(**loaded) == config
    assert all(option.metadata["help"] for option in all_options())
    assert DistillConfig(seed=2**40).seed == 2**40
    assert set(METHODS.names()) == {"auto", "path_kl", "forced_kl", "lsd", "lsd+", "jys"}


@pytest.mark.parametrize("method", [None, *CHOSEN])
def test_flat_names_and_values_are_those_of_earlier_runs(method: str | None) -> None:
    order, relaxation = CHOSEN.get(method or "", (None, None))
    expected = {**FLAT, "method": method or "auto", "order": order, "relaxation": relaxation}
    expected["objective"] = "likelihood" if method else None
    assert DistillConfig(method=method).to_dict() == expected
    assert DistillConfig(**expected).to_dict() == expected


@pytest.mark.parametrize("method", CHOSEN)
def test_a_copy_of_a_config_is_a_config(method: str) -> None:
    """Whatever the other methods' options have settled to."""
    config = DistillConfig(method=method)
    assert dataclasses.replace(config, seed=0) == DistillConfig().for_method(method, config.order) == config
    for other in set(CHOSEN) - {"forced_kl"}:
        assert dataclasses.replace(config, method=other, order=None, relaxation=None).method == other


def test_options_that_mean_nothing_beside_a_method() -> None:
    """Without effect, as ever; but a relaxed start is refused where there is no student."""
    assert DistillConfig(method="path_kl", epochs=3, variant="literal").epochs == 3
    with pytest.raises(ValueError, match="`relaxation` is of `method` 'lsd' or 'lsd.'"):
        DistillConfig(method="jys", relaxation=0.1)


@pytest.mark.parametrize("method", sorted({*CHOSEN} - {"forced_kl"}))
def test_the_default_of_another_methods_option_is_not_refused(method: str) -> None:
    """All options are flags, so their defaults are given with every method; another value is refused."""
    assert DistillConfig(method=method, objective="likelihood").to_dict()["objective"] == "likelihood"
    with pytest.raises(ValueError, match="`objective` is of `method` 'forced_kl'"):
        DistillConfig(method=method, objective="answers")
