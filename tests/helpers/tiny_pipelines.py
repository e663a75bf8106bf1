"""Tiny diffusers pipelines with random weights, of diffusers' and transformers' own classes.

And an exact oracle behind the interface of LLaDA2Pipeline's model.
"""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AmusedImg2ImgPipeline,
    AmusedInpaintPipeline,
    AmusedPipeline,
    AmusedScheduler,
    BlockRefinementScheduler,
    LLaDA2Pipeline,
    UVit2DModel,
    VQModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
)

from lsd_sampler import Denoiser


CODEBOOK, IMAGE_MASK, SIDE = 8, 31, 8
WORDS = ["[PAD]", "[MASK]", "[EOS]", "[UNK]", *"abcdefghijklmnopqrst"]
TEXT_PAD, TEXT_MASK, TEXT_EOS = 0, 1, 2


def amused(kind: str = "text2img", seed: int = 0) -> Any:
    """`AmusedPipeline` or a sibling (`img2img`, `inpaint`): canvases of 8 x 8 tokens, 8 codes, images of 8 x 8."""
    torch.manual_seed(seed)
    transformer = UVit2DModel(
        hidden_size=8,
        cond_embed_dim=8,
        micro_cond_encode_dim=2,
        micro_cond_embed_dim=10,
        encoder_hidden_size=8,
        vocab_size=32,
        codebook_size=CODEBOOK,
        in_channels=8,
        block_out_channels=8,
        num_res_blocks=1,
        block_num_heads=1,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        sample_size=SIDE,
    )
    for weights in transformer.parameters():  # random, but not nearly uniform
        weights.data.mul_(2)
    vqvae = VQModel(
        block_out_channels=(8,),
        latent_channels=8,
        norm_num_groups=8,
        num_vq_embeddings=CODEBOOK,
        sample_size=SIDE,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )
    text = CLIPTextConfig(
        hidden_size=8,
        intermediate_size=8,
        num_attention_heads=1,
        num_hidden_layers=2,
        projection_dim=8,
        vocab_size=100,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    classes = {"text2img": AmusedPipeline, "img2img": AmusedImg2ImgPipeline, "inpaint": AmusedInpaintPipeline}
    pipe = classes[kind](
        vqvae=vqvae.eval(),
        tokenizer=clip_tokenizer(),
        text_encoder=CLIPTextModelWithProjection(text).eval(),
        transformer=transformer.eval(),
        scheduler=AmusedScheduler(mask_token_id=IMAGE_MASK),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def clip_tokenizer() -> CLIPTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocab = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        names[0].write_text(json.dumps({word: i for i, word in enumerate(vocab)}))
        names[1].write_text("#version: 0.2\n")
        return CLIPTokenizer(*map(str, names), model_max_length=8)


def word_tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    """One id per word; pads on the left."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    names = {"pad_token": "[PAD]", "mask_token": "[MASK]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side="left", **{k: v for k, v in names.items() if v in words}
    )


def llada2(seed: int = 0) -> Any:
    """`LLaDA2Pipeline` around a BERT: 24 words, of which one is the mask."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    pipe = LLaDA2Pipeline(
        model=BertForMaskedLM(config).eval(), scheduler=BlockRefinementScheduler(), tokenizer=word_tokenizer()
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


class OracleModel(torch.nn.Module):
    """A `Denoiser` behind the interface of LLaDA2Pipeline's model, for sequences shorter than its length too."""

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser
        self.calls = 0
        self.device, self.dtype = torch.device("cpu"), torch.float64

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, position_ids: Any = None) -> Any:
        self.calls += 1
        rest = self.denoiser.length - input_ids.shape[1]
        padded = torch.nn.functional.pad(input_ids, (0, rest), value=self.denoiser.mask_token_id)
        return SimpleNamespace(logits=self.denoiser(padded)[:, : input_ids.shape[1]])


def oracle_llada2(denoiser: Denoiser) -> Any:
    """`LLaDA2Pipeline` around a denoiser; pass `mask_token_id` and `input_ids` when you call it."""
    pipe = LLaDA2Pipeline(model=OracleModel(denoiser), scheduler=BlockRefinementScheduler(), tokenizer=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe
