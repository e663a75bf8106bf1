"""Shadow rows: a token predicted from all others, in the call that predicts the canvas."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import CONFIGS, MASKED, make
from helpers.reference_language_models import DREAM, dream_tensors, save
from transformers import LlamaConfig, LlamaForCausalLM

from lsd_sampler import Denoiser, LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.denoisers import MaskedLMDenoiser


LENGTH = 6


def one_layer(name: str) -> Denoiser:
    """In a network of one layer, nothing but a token's own key tells of it."""
    torch.manual_seed(0)
    if name.startswith("llama"):
        config = LlamaConfig(
            vocab_size=8, hidden_size=16, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=16, attn_implementation=name.partition("-")[2], initializer_range=0.5,
        )  # fmt: skip
        return MaskedLMDenoiser(LlamaForCausalLM(config), 7)
    config = copy.deepcopy(CONFIGS[name])
    sizes = config if "n_blocks" in config else config.get("config", config)["model"]
    sizes["n_blocks"] = 1
    model = make(name, config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.mark.parametrize("name", [*MASKED, "llama-sdpa", "llama-eager"])
@torch.no_grad()
def test_a_token_is_predicted_from_all_others(name: str) -> None:
    denoiser = one_layer(name)
    mask = denoiser.hole_id
    tokens = torch.tensor([[1, 2, mask, 0, 3, 1], [3, 3, 1, 2, 0, 2]])
    t = torch.tensor([0.4, 0.4])
    for j in range(LENGTH):
        rows = denoiser(tokens, t, shadow=slice(j, j + 1))
        assert rows.shape[1] == LENGTH + 1
        torch.testing.assert_close(rows[:, :LENGTH], denoiser(tokens, t), rtol=1e-4, atol=1e-5)
        hidden = tokens.clone()
        hidden[:, j] = mask
        torch.testing.assert_close(rows[:, -1], denoiser(hidden, t)[:, j], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["radd", "mdlm-time", "llama-sdpa"])
@torch.no_grad()
def test_a_wider_shadow(name: str) -> None:
    """Each row changes with every token but its own, and the canvas's rows do not see the shadow."""
    denoiser, t = one_layer(name), torch.tensor([0.4])
    tokens, shadow = torch.tensor([[1, 2, 0, 0, 3, 1]]), slice(1, 5)
    rows = denoiser(tokens, t, shadow=shadow)
    torch.testing.assert_close(rows[:, :LENGTH], denoiser(tokens, t), rtol=1e-4, atol=1e-5)
    for j in range(LENGTH):
        other = tokens.clone()
        other[:, j] = 2 if tokens[0, j] != 2 else 3
        moved = (denoiser(other, t, shadow=shadow) - rows)[0, LENGTH:].abs().amax(-1) > 1e-6
        assert moved.tolist() == [i != j for i in range(shadow.start, shadow.stop)]


@pytest.mark.parametrize("name", ["markov:V=4,L=6", "countdown:V=5,L=6"])
def test_an_oracle_knows_it_exactly(name: str) -> None:
    denoiser = load_denoiser(name)
    mask = denoiser.hole_id
    tokens = torch.tensor([[3, 2, mask, 0, 3, 2], [mask] * 6])
    rows = denoiser(tokens, shadow=slice(0, 6))
    assert torch.equal(rows[:, :6], denoiser(tokens))
    for j in range(6):
        hidden = tokens.clone()
        hidden[:, j] = mask
        torch.testing.assert_close(rows[:, 6 + j], denoiser(hidden)[:, j])


def unable(name: str, folder: Path) -> Denoiser:
    """Denoisers that cannot say in one call how likely a token is without itself."""
    if name == "shifted":
        return load_denoiser(save(folder, DREAM, dream_tensors()))

    class Own(Denoiser):
        vocab_size = mask_token_id = 4
        length = 5

        def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
            return torch.zeros(*tokens.shape, 4)

    return Own()


@pytest.mark.parametrize("name", ["own", "shifted"])
@pytest.mark.parametrize("call", [{"length": 5}, {"prompt": torch.tensor([1, 2]), "max_new_tokens": 3}], ids=str)
def test_elsewhere_the_solver_is_refused(name: str, call: dict[str, Any], tmp_path: Path) -> None:
    denoiser = unable(name, tmp_path)
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config(), solver="wino"))
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match=f"`solver` 'wino'.*{type(denoiser).__name__}.*Take another"):
        pipe(num_inference_steps=4, **call)


@pytest.mark.parametrize("name", ["radd", "mdlm", "sedd"])
def test_from_a_prompt_as_alone(name: str) -> None:
    """Prompts of unequal length: the padding is not seen, nor the other sequence."""
    denoiser = one_layer(name)
    options = {"threshold": 0.2, "threshold_back": 0.9}
    scheduler = LSDScheduler(**denoiser.scheduler_config(), solver="wino", solver_options=options)
    pipe = MaskedDiffusionPipeline(denoiser, scheduler)
    pipe.set_progress_bar_config(disable=True)

    def run(*rows: int) -> torch.Tensor:
        prompts = [[torch.tensor([1, 2]), torch.tensor([3])][i] for i in rows]
        generators = [torch.Generator().manual_seed(i) for i in rows]
        call = {"max_new_tokens": 6, "block_length": 3, "num_inference_steps": 6, "output_type": "ids"}
        return pipe(prompt=prompts, generator=generators, **call).sequences[:, -6:]

    together = run(0, 1)
    assert torch.equal(together, torch.cat([run(0), run(1)]))
    assert not (together == denoiser.mask_token_id).any()
