"""A network of one's own as a `Denoiser`: names for its layers, names that are taken, and tied weights."""

import re
from pathlib import Path
from typing import Any, Self

import pytest
import torch

# diffusers looks for this name in the module of a component that it reloads
from diffusers import ModelMixin  # noqa: F401
from safetensors.torch import load_file, save_file
from torch import nn

from lsd_sampler import Denoiser, LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers.base import build_model
from lsd_sampler.denoisers.files import Checkpoint, read_tensors


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


class Own(Denoiser):
    """An embedding, and a layer of a name that the test chooses."""

    def __init__(self, name: str = "out", layer: Any = None):
        super().__init__()
        self.vocab_size = self.mask_token_id = 5
        self.length, self.name = 6, name
        self.table = nn.Embedding(6, 4)
        setattr(self, name, nn.Linear(4, 5) if layer is None else layer)

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:  # pyright: ignore
        return getattr(self, self.name)(self.table(tokens))


class TiedDenoiser(Denoiser):
    """Embedding and head are one matrix."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.config = config
        self.vocab_size = self.mask_token_id = config["tied_tokens"]
        self.length = 6
        self.embed = nn.Embedding(self.vocab_size + 1, 4)
        self.head = nn.Linear(4, self.vocab_size + 1, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:  # pyright: ignore
        return self.head(self.embed(tokens))

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, variant: str | None = None) -> Self:
        file = checkpoint.weights_file(variant)
        return build_model(lambda: cls(checkpoint.config), checkpoint.config_file, read_tensors(file), file)

    def _config(self) -> dict[str, Any]:
        return self.config  # pyright: ignore


def generate(denoiser: Denoiser) -> torch.Tensor:
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe(num_samples=3, num_inference_steps=2, generator=generator, output_type="ids").sequences  # pyright: ignore


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


def test_head_and_hidden_states_may_be_layers_or_methods() -> None:
    class Parts(Own):
        defers_head = True

        def hidden_states(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
            return self.table(tokens)

        forward = Denoiser.forward  # pyright: ignore

    denoiser = Parts("head")
    tokens = torch.tensor([[0, 5, 1, 5, 2, 5]])
    hidden = denoiser(tokens, return_hidden_states=True)
    deferred = denoiser.deferred_logits(hidden).rows(torch.tensor([0]), torch.tensor([1]))
    torch.testing.assert_close(deferred, denoiser(tokens)[0, 1:2])
    assert not (generate(denoiser) == 5).any()
    for name in ("hidden_states", "head"):
        with pytest.raises(ValueError, match=f"`{name}` is a name that Parts has|must"):
            type("Parts", (Parts,), {name: lambda self, hidden: hidden})(name)
    with pytest.raises(NotImplementedError, match="`forward`, or `hidden_states` and `head`"):
        type("Bare", (Own,), {"forward": Denoiser.forward})("out")(tokens)


def test_tied_weights_save_and_load(tmp_path: Path) -> None:
    torch.manual_seed(0)
    denoiser = TiedDenoiser({"tied_tokens": 5}).eval()
    tokens = torch.tensor([[0, 5, 1, 5, 2, 5]])
    denoiser.save_pretrained(tmp_path)
    loaded = TiedDenoiser.from_pretrained(tmp_path)
    assert torch.equal(loaded(tokens), denoiser(tokens)) and loaded.head.weight is loaded.embed.weight
    half = TiedDenoiser.from_pretrained(tmp_path, dtype="bfloat16")
    assert half.head.weight is half.embed.weight and half.dtype == torch.bfloat16
    loaded.save_pretrained(tmp_path)  # over the file that its weights may be mapped from
    MaskedDiffusionPipeline(loaded, LSDScheduler(**loaded.scheduler_config())).save_pretrained(tmp_path / "pipe")
    again = MaskedDiffusionPipeline.from_pretrained(tmp_path / "pipe").denoiser
    assert torch.equal(again(tokens), denoiser(tokens))


def test_files_with_one_name_of_tied_weights(tmp_path: Path) -> None:
    denoiser = TiedDenoiser({"tied_tokens": 5})
    denoiser.save_pretrained(tmp_path)
    file, tokens = tmp_path / "model.safetensors", torch.tensor([[0, 5, 1]])
    tensors = load_file(file)
    for name in list(tensors):
        save_file({name: tensors[name]}, file)
        assert torch.equal(TiedDenoiser.from_pretrained(tmp_path)(tokens), denoiser(tokens))
    save_file({**tensors, "head.weight": tensors["head.weight"] + 1}, file)
    with pytest.raises(ValueError, match="embed.weight and head.weight are one parameter"):
        TiedDenoiser.from_pretrained(tmp_path)
    save_file({}, file)
    with pytest.raises(ValueError, match="lacks tensors.*embed.weight"):
        TiedDenoiser.from_pretrained(tmp_path)
