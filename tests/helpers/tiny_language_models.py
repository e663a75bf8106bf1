"""Small random language models of transformers, saved as their users save them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    EsmConfig,
    EsmForMaskedLM,
    EsmTokenizer,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)


SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "initializer_range": 0.5,
}  # fmt: skip
WORDS = "the cat sat on a mat and then it ran to me".split()
BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", *WORDS, "<mask>"]
ESM_TOKENS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def word_tokenizer(tokens: list[str], template: str | None = None, **special: Any) -> PreTrainedTokenizerFast:
    """Whole words, with special tokens around a text where a template says so."""
    ids = {token: i for i, token in enumerate(tokens)}
    words = Tokenizer(WordLevel(ids, unk_token=special["unk_token"]))
    words.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    if template:
        around = [(token, ids[token]) for token in template.split() if token in ids]
        words.post_processor = TemplateProcessing(single=template, special_tokens=around)  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


def save_bert(folder: Path) -> None:
    BertForMaskedLM(BertConfig(vocab_size=len(BERT_TOKENS), max_position_embeddings=14, **SIZES)).save_pretrained(
        folder
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    word_tokenizer(BERT_TOKENS, "[CLS] $A [SEP]", **special).save_pretrained(folder)


def save_modernbert(folder: Path) -> None:
    """Layers with local attention too; ids in the config, and no tokenizer."""
    ids = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    config = ModernBertConfig(
        vocab_size=len(BERT_TOKENS), max_position_embeddings=14, local_attention=4, global_attn_every_n_layers=2,
        mask_token_id=4, **ids, **SIZES,
    )  # fmt: skip
    ModernBertForMaskedLM(config).save_pretrained(folder)


def save_esm(folder: Path) -> None:
    config = EsmConfig(
        vocab_size=len(ESM_TOKENS), mask_token_id=32, pad_token_id=1, max_position_embeddings=14, token_dropout=True,
        position_embedding_type="rotary", **SIZES,
    )  # fmt: skip
    EsmForMaskedLM(config).save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(ESM_TOKENS))
    EsmTokenizer(str(vocabulary)).save_pretrained(folder)


def save_roberta(folder: Path) -> None:
    """Counts positions from `pad_token_id + 1`."""
    config = RobertaConfig(vocab_size=len(ROBERTA_TOKENS), max_position_embeddings=16, pad_token_id=1, **SIZES)
    RobertaForMaskedLM(config).save_pretrained(folder)
    special = {
        "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>",
        "cls_token": "<s>", "sep_token": "</s>",
    }  # fmt: skip
    word_tokenizer(ROBERTA_TOKENS, "<s> $A </s>", **special).save_pretrained(folder)


def save_without_mask(folder: Path, tokens: list[str] = BERT_TOKENS, modern: bool = False, **special: Any) -> None:
    """A model whose tokenizer frames a text, and does not say which token is the mask."""
    sizes = {"vocab_size": len(tokens), "max_position_embeddings": 14, **SIZES}
    if modern:
        none = {f"{name}_token_id": None for name in ("bos", "eos", "cls", "sep")}
        model = ModernBertForMaskedLM(ModernBertConfig(pad_token_id=0, **none, **sizes))
    else:
        model = BertForMaskedLM(BertConfig(**sizes))
    model.save_pretrained(folder)
    usual = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    word_tokenizer(tokens, "[CLS] $A [SEP]", **(usual | special)).save_pretrained(folder)


MASKED_LMS: dict[str, Callable[[Path], None]] = {
    "bert": save_bert, "modernbert": save_modernbert, "esm": save_esm, "roberta": save_roberta,
}  # fmt: skip
