"""Small random LLaDA and Dream networks in pipelines, with a tokenizer of words."""

from typing import Any

import torch
from helpers.tiny_language_models import word_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import MaskedLMDenoiser


WORDS = ["<pad>", "<eos>", "<unk>", "user", "bot", *"abcdefghijklmnopqrs"]
MASK, EOS = len(WORDS), 1
SIZES: dict[str, Any] = {
    "vocab_size": MASK + 1, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 48, "initializer_range": 0.6,
    "eos_token_id": EOS, "pad_token_id": 0, "bos_token_id": None,
}  # fmt: skip
TEMPLATE = "{% for m in messages %}user {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}bot{% endif %}"
FAMILIES = ("llada", "dream", "dream framed")


def tiny_denoiser(family: str, seed: int = 0) -> MaskedLMDenoiser:
    torch.manual_seed(seed)
    if family == "llada":
        return MaskedLMDenoiser(LlamaForCausalLM(LlamaConfig(**SIZES)), MASK).eval()
    network = Qwen2ForCausalLM(Qwen2Config(**SIZES))
    frame = ((0,), ()) if family == "dream framed" else ((), ())
    return MaskedLMDenoiser(network, MASK, shifted=True, frame=frame).eval()


def tiny_answerer(family: str = "llada", seed: int = 0, **config: Any) -> MaskedDiffusionPipeline:
    denoiser = tiny_denoiser(family, seed)
    tokenizer = word_tokenizer(WORDS, unk_token="<unk>", eos_token="<eos>", pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    scheduler = LSDScheduler(**{**denoiser.scheduler_config(), **config})
    pipe = MaskedDiffusionPipeline(denoiser, scheduler, tokenizer)
    pipe.set_progress_bar_config(disable=True)
    return pipe
