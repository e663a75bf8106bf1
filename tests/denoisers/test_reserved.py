"""Names for the layers of one's own network, and names that are taken."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ModelMixin
from helpers.own_denoisers import Own, generate
from torch import nn

from lsd_sampler import Denoiser


ROOT = Path(__file__).resolve().parents[2]
# what a layer of a language model is called in some code or other
LAYERS = (
    "head", "hidden_states", "embed", "embedding", "encoder", "decoder", "blocks", "norm", "out", "output", "proj",
    "time_embed", "rotary_emb", "backbone", "model", "network", "logits", "transformer", "lm_head", "mask",
    "sigma_map",
)  # fmt: skip
TAKEN: dict[str, list[Any]] = {
    "noise": [0.1, "cosine"], "tokenizer": ["gpt2"], "canvas_shape": [8, (3, 8, 8)], "prediction_type": ["epsilon"],
    "corruption": [0.5], "length": ["long", 0], "vocab_size": [None], "mask_token_id": ["[MASK]"],
    "time_conditioned": [None], "defers_head": [1], "noise_schedule": ["cosine"], "hole_id": [3],
    "scheduler_config": [], "deferred_logits": [], "forward": [], "device": ["cpu"],
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_usual_names_of_layers_are_free(name: str) -> None:
    torch.manual_seed(0)
    denoiser = Own(name)
    tokens = torch.tensor([[0, 5, 1, 5, 2, 5]])
    assert torch.equal(denoiser(tokens), getattr(denoiser, name)(denoiser.table(tokens)))
    assert f"{name}.weight" in denoiser.state_dict() and not (generate(denoiser) == 5).any()


@pytest.mark.parametrize("name", TAKEN)
def test_names_that_are_taken_are_named(name: str) -> None:
    """As a layer, and as another thing than what they stand for."""
    for value in [nn.Linear(4, 5), nn.Parameter(torch.zeros(2)), *TAKEN[name]]:
        with pytest.raises(ValueError, match=f"`{name}`.*Call yours something else"):
            Own(name, layer=value)
    for value in TAKEN[name]:
        if not isinstance(getattr(Denoiser, name, None), property):
            with pytest.raises(ValueError, match=f"`{name}`"):
                type("Other", (Own,), {name: value})


def test_a_method_does_not_hide_what_samplers_read() -> None:
    with pytest.raises(ValueError, match="`noise` of a denoiser must be a `NoiseSchedule`"):

        class Noisy(Own):
            def noise(self, tokens: torch.Tensor) -> torch.Tensor:  # pyright: ignore
                return tokens


def test_the_docs_list_the_names_that_are_taken() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    listed = re.search(r"<!-- reserved names -->\n(.*?)\n\n", text, re.DOTALL)
    assert listed is not None
    own = {name for name in (*vars(Denoiser), *Denoiser.__annotations__) if name[0] != "_"}
    assert set(re.findall(r"`(\w+)`", listed[1])) == own - set(dir(ModelMixin))
