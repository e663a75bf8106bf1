"""What every denoiser has: parts, tied weights, a tokenizer, and what schedulers are told."""

from pathlib import Path
from typing import Any, Self

import pytest
import torch

# diffusers looks for this name in the module of a component that it reloads
from diffusers import ModelMixin  # noqa: F401
from helpers.ddit_checkpoints import SMALL_RADD, save_small_radd
from helpers.own_denoisers import Own, generate
from safetensors.torch import load_file, save_file
from torch import nn

from lsd_sampler import Denoiser, LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import MarkovDenoiser, RADDDenoiser, load_denoiser
from lsd_sampler.denoisers.base import build_model
from lsd_sampler.denoisers.files import Checkpoint, read_tensors


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_small_radd(tmp_path)


def test_attributes_and_scheduler_config(folder: Path) -> None:
    model = load_denoiser(folder)
    assert (model.mask_token_id, model.vocab_size, model.length, model.training) == (5, 5, 6, False)
    assert (model.prediction_type, model.time_conditioned, model.name_or_path) == ("logits", False, str(folder))
    scheduler = LSDScheduler(**model.scheduler_config())
    assert scheduler.config.mask_token_id == 5
    assert scheduler.config.noise_schedule == "log_linear"
    geometric = RADDDenoiser({**SMALL_RADD, "noise": {"type": "geometric", "sigma_min": 1e-3, "sigma_max": 10}})
    assert geometric.scheduler_config().items() >= {"noise_schedule": "geometric", "sigma_min": 1e-3}.items()


def test_tokenizer_comes_along(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = load_denoiser(folder)
    assert model.tokenizer is not None
    assert model.tokenizer("b d").input_ids == [1, 3]
    copy = tmp_path_factory.mktemp("copy")
    model.save_pretrained(copy)
    copied = load_denoiser(copy).tokenizer
    assert copied is not None
    assert copied.decode([1, 3]) == "b d"


def test_hub_tokenizer_is_fetched_late_and_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import transformers

    asked = []

    def refuse(name: str) -> None:
        asked.append(name)
        raise OSError("offline")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    model = RADDDenoiser({**SMALL_RADD, "tokens": 50257})
    model._set_tokenizer(Path("nowhere"))
    assert asked == []
    assert model.tokenizer is None
    assert model.tokenizer is None
    assert asked == ["gpt2"]
    assert "'gpt2'" in caplog.text


def test_pickles_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`safe_serialization`"):
        MarkovDenoiser(torch.eye(2), length=2).save_pretrained(tmp_path, safe_serialization=False)
