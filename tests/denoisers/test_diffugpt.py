"""DiffuGPT and DiffuLLaMA: the official numbers, and their masks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.masked_lms import loaded
from helpers.reference_language_models import FF, GPT2, HEADS, D, V, diffugpt_logits, diffugpt_tensors, save
from helpers.tiny_language_models import WORDS, word_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.denoisers import load_denoiser


@torch.no_grad()
@pytest.mark.parametrize("with_head", [False, True])
def test_diffugpt(tmp_path: Path, with_head: bool) -> None:
    """The mask is a row of its own, added last; the head may be absent from the file or repeat the embedding."""
    tensors = diffugpt_tensors()
    head = {"lm_head.weight": tensors["embed_tokens.weight"].clone()} if with_head else {}
    model = loaded(save(tmp_path, GPT2, tensors | head), mask_token_id=V - 1)
    assert (model.mask_token_id, model.vocab_size, model.length) == (V - 1, V - 1, 11)
    tokens = torch.randint(V, (2, 11))
    official = diffugpt_logits(tensors, torch.cat([torch.full((2, 1), 17), tokens], dim=1))
    torch.testing.assert_close(model(tokens), official[:, :-1], atol=2e-5, rtol=2e-5)


@torch.no_grad()
def test_diffugpt_with_a_reused_mask(tmp_path: Path) -> None:
    """The tokenizer says which ordinary token is the mask. That token in a prompt, or drawn, is text."""
    tensors, words = diffugpt_tensors(), WORDS + [f"w{i}" for i in range(V - len(WORDS))]
    special = {"unk_token": "w0", "bos_token": "w9", "eos_token": "w9", "mask_token": "mat"}
    word_tokenizer(words, **special).save_pretrained(tmp_path)
    model, mask = loaded(save(tmp_path, GPT2, tensors)), words.index("mat")
    assert model._options() == {
        "mask_token_id": mask, "shifted": True, "frame": [[words.index("w9")], []], "reused_mask": True,
        "excluded_token_ids": [], "length": 11,
    }  # fmt: skip
    assert model.mask_token_id == model.vocab_size == V
    tokens = torch.randint(V + 1, (2, 11))
    seen = torch.cat([torch.full((2, 1), words.index("w9")), tokens.masked_fill(tokens == V, mask)], dim=1)
    torch.testing.assert_close(model(tokens), diffugpt_logits(tensors, seen)[:, :-1], atol=2e-5, rtol=2e-5)
    pipeline = MaskedDiffusionPipeline.from_pretrained(tmp_path)
    out: Any = pipeline(prefix="the mat sat", num_samples=200, num_inference_steps=3)
    assert torch.equal(out.sequences[:, :3], torch.tensor([[0, mask, 2]]).expand(200, 3))
    assert mask in out.sequences[:, 3:] and V not in out.sequences
    assert all(text.startswith("the mat sat ") for text in out.texts)


def test_masks_of_published_diffugpt_without_a_tokenizer(tmp_path: Path) -> None:
    for rows, mask, on_canvas in ((50257, 10541, 50257), (50258, 50257, 50257)):
        # the config may still have GPT-2's own number of rows
        config = {**GPT2, "vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256}
        model = loaded(save(tmp_path, config, diffugpt_tensors(rows)))
        assert (model.network_mask_id, model.mask_token_id, model.vocab_size) == (mask, on_canvas, 50257)
    save(tmp_path, GPT2, diffugpt_tensors())
    with pytest.raises(ValueError, match="`mask_token_id`"):
        load_denoiser(tmp_path)
    tensors = diffugpt_tensors()
    del tensors["denoise_model.h.1.mlp.c_fc.bias"]
    save(tmp_path, GPT2, tensors)
    with pytest.raises(ValueError, match="model.safetensors lacks.*: denoise_model.h.1.mlp.c_fc.bias"):
        load_denoiser(tmp_path, mask_token_id=3)


def test_diffullama(tmp_path: Path) -> None:
    """A plain Llama checkpoint whose tokenizer calls an ordinary token its mask; or one that is named as a mask."""
    sizes = {"hidden_size": D, "intermediate_size": FF, "num_hidden_layers": 1, "num_attention_heads": HEADS}
    LlamaForCausalLM(LlamaConfig(vocab_size=V, max_position_embeddings=16, **sizes)).save_pretrained(tmp_path)  # pyright: ignore
    words = ["<unk>", "<s>", "</s>", *WORDS, "<mask>", *[f"w{i}" for i in range(V - len(WORDS) - 4)]]
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    for mask, reused in (("mat", True), ("<mask>", False)):
        word_tokenizer(words, **special, mask_token=mask).save_pretrained(tmp_path)
        model = loaded(tmp_path)
        assert model._options() == {
            "mask_token_id": words.index(mask), "shifted": True, "frame": [[1], []], "reused_mask": reused,
            "excluded_token_ids": [], "length": 15,
        }  # fmt: skip
        assert model.mask_token_id == (V if reused else words.index(mask))


def test_mask_of_published_diffullama_without_a_mask_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Told by its rows, as there is nothing else: said aloud, and overruled by what is known or given."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=32000, max_position_embeddings=16, **sizes)  # pyright: ignore
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    words = ["<unk>", "<s>", "</s>", *[f"w{i}" for i in range(3, 32000)]]
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    for with_tokenizer in (False, True):
        if with_tokenizer:
            word_tokenizer(words, **special).save_pretrained(tmp_path)
        caplog.clear()
        model = loaded(tmp_path)
        assert (model.network_mask_id, model.mask_token_id, model.vocab_size) == (811, 32000, 32000)
        assert model._options()["frame"] == [[1], []] and model.shifted
        assert "`mask_token_id`" in caplog.text
    caplog.clear()
    assert loaded(tmp_path, mask_token_id=5).network_mask_id == 5
    word_tokenizer(words, **special, mask_token="w9").save_pretrained(tmp_path)
    assert loaded(tmp_path).network_mask_id == 9
    assert "`mask_token_id`" not in caplog.text
