"""LLaDA, Dream, DiffuGPT and DiffuLLaMA: official files against the textbook forward pass, written down here anew."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny_language_models import WORDS, word_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import MaskedLMDenoiser, load_denoiser


V, D, FF, HEADS, LAYERS = 24, 16, 20, 4, 2

LLADA: dict[str, Any] = {
    "model_type": "llada", "architectures": ["LLaDAModelLM"], "auto_map": {"AutoModel": "modeling_llada.LLaDAModelLM"},
    "d_model": D, "n_layers": LAYERS, "n_heads": HEADS, "n_kv_heads": HEADS, "mlp_hidden_size": FF,
    "embedding_size": V, "vocab_size": V, "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "mask_token_id": 20,
    "max_sequence_length": 32, "block_type": "llama", "activation_type": "silu", "layer_norm_type": "rms",
    "weight_tying": False, "include_bias": False, "include_qkv_bias": False, "attention_layer_norm": False,
    "block_group_size": 1, "scale_logits": False, "rope_full_precision": True, "eos_token_id": 18, "pad_token_id": 18,
}  # fmt: skip
DREAM: dict[str, Any] = {
    "model_type": "Dream", "architectures": ["DreamModel"], "auto_map": {"AutoModel": "modeling_dream.DreamModel"},
    "hidden_size": D, "intermediate_size": FF, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": 2, "vocab_size": V, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "mask_token_id": 20,
    "max_position_embeddings": 131072, "bos_token_id": 17, "pad_token_id": 17, "use_sliding_window": False,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "model_type": "gpt2", "n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 12, "vocab_size": V,
    "bos_token_id": 17, "eos_token_id": 17, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
}  # fmt: skip

Tensors = dict[str, torch.Tensor]


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) / shape[-1] ** 0.5


def norm(x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * scale


def rotate(x: torch.Tensor, theta: float) -> torch.Tensor:
    d = x.shape[-1]
    angle = torch.outer(torch.arange(x.shape[-2]).float(), theta ** (-torch.arange(0, d, 2).float() / d))
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Every position to every other. `(batch, heads, length, d)`."""
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v


def split(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (-1, D // HEADS)).transpose(1, 2)


def merge(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(-2)


def llada_tensors(tied: bool = False) -> Tensors:
    p = "model.transformer."
    tensors = {f"{p}wte.weight": weight(V, D), f"{p}ln_f.weight": torch.rand(D) + 0.5}
    tensors |= {} if tied else {f"{p}ff_out.weight": weight(V, D)}
    for i in range(LAYERS):
        b = f"{p}blocks.{i}."
        tensors |= {f"{b}{name}.weight": weight(D, D) for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
        tensors |= {f"{b}{name}.weight": weight(FF, D) for name in ("ff_proj", "up_proj")}
        tensors |= {f"{b}ff_out.weight": weight(D, FF)}
        tensors |= {f"{b}{name}.weight": torch.rand(D) + 0.5 for name in ("attn_norm", "ff_norm")}
    return tensors


def llada_logits(w: Tensors, tokens: torch.Tensor) -> torch.Tensor:
    p = "model.transformer."
    x = w[f"{p}wte.weight"][tokens]
    for i in range(LAYERS):
        b = f"{p}blocks.{i}."
        h = norm(x, w[f"{b}attn_norm.weight"], 1e-5)
        q, k, v = (split(h @ w[f"{b}{name}_proj.weight"].T) for name in "qkv")
        x = x + merge(attend(rotate(q, 5e5), rotate(k, 5e5), v)) @ w[f"{b}attn_out.weight"].T
        h = norm(x, w[f"{b}ff_norm.weight"], 1e-5)
        gated = F.silu(h @ w[f"{b}ff_proj.weight"].T) * (h @ w[f"{b}up_proj.weight"].T)
        x = x + gated @ w[f"{b}ff_out.weight"].T
    head = w.get(f"{p}ff_out.weight", w[f"{p}wte.weight"])
    return norm(x, w[f"{p}ln_f.weight"], 1e-5) @ head.T


def dream_tensors() -> Tensors:
    kv = D // 2
    tensors = {"model.embed_tokens.weight": weight(V, D), "lm_head.weight": weight(V, D)}
    tensors |= {"model.norm.weight": torch.rand(D) + 0.5}
    for i in range(LAYERS):
        b, shapes = f"model.layers.{i}.", {"q": D, "k": kv, "v": kv}
        tensors |= {f"{b}self_attn.{name}_proj.weight": weight(n, D) for name, n in shapes.items()}
        tensors |= {f"{b}self_attn.{name}_proj.bias": weight(n) for name, n in shapes.items()}
        tensors |= {f"{b}self_attn.o_proj.weight": weight(D, D)}
        tensors |= {f"{b}mlp.{name}_proj.weight": weight(FF, D) for name in ("gate", "up")}
        tensors |= {f"{b}mlp.down_proj.weight": weight(D, FF)}
        tensors |= {f"{b}{name}_layernorm.weight": torch.rand(D) + 0.5 for name in ("input", "post_attention")}
    return tensors


def dream_logits(w: Tensors, tokens: torch.Tensor) -> torch.Tensor:
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(LAYERS):
        b = f"model.layers.{i}."
        h = norm(x, w[f"{b}input_layernorm.weight"], 1e-6)
        q, k, v = (split(h @ w[f"{b}self_attn.{n}_proj.weight"].T + w[f"{b}self_attn.{n}_proj.bias"]) for n in "qkv")
        k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
        x = x + merge(attend(rotate(q, 1e6), rotate(k, 1e6), v)) @ w[f"{b}self_attn.o_proj.weight"].T
        h = norm(x, w[f"{b}post_attention_layernorm.weight"], 1e-6)
        gated = F.silu(h @ w[f"{b}mlp.gate_proj.weight"].T) * (h @ w[f"{b}mlp.up_proj.weight"].T)
        x = x + gated @ w[f"{b}mlp.down_proj.weight"].T
    return norm(x, w["model.norm.weight"], 1e-6) @ w["lm_head.weight"].T


def diffugpt_tensors(rows: int = V) -> Tensors:
    p = "denoise_model."
    tensors = {"embed_tokens.weight": weight(rows, D), f"{p}wpe.weight": weight(12, D)}
    for i in range(LAYERS):
        linear = {"attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D), "mlp.c_fc": (D, 4 * D), "mlp.c_proj": (4 * D, D)}
        tensors |= {f"{p}h.{i}.{name}.weight": weight(b, a).T.contiguous() for name, (a, b) in linear.items()}
        tensors |= {f"{p}h.{i}.{name}.bias": weight(b) for name, (_, b) in linear.items()}
        tensors |= {f"{p}h.{i}.ln_{j}.{part}": torch.rand(D) for j in (1, 2) for part in ("weight", "bias")}
    return tensors | {f"{p}ln_f.{part}": torch.rand(D) for part in ("weight", "bias")}


def diffugpt_logits(w: Tensors, tokens: torch.Tensor) -> torch.Tensor:
    """The head is the embedding."""
    p = "denoise_model."
    x = w["embed_tokens.weight"][tokens] + w[f"{p}wpe.weight"][: tokens.shape[1]]

    def layer_norm(name: str) -> torch.Tensor:
        return F.layer_norm(x, (D,), w[f"{p}{name}.weight"], w[f"{p}{name}.bias"], 1e-5)

    def linear(h: torch.Tensor, name: str) -> torch.Tensor:
        return h @ w[f"{p}{name}.weight"] + w[f"{p}{name}.bias"]

    for i in range(LAYERS):
        q, k, v = map(split, linear(layer_norm(f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").chunk(3, dim=-1))
        x = x + linear(merge(attend(q, k, v)), f"h.{i}.attn.c_proj")
        h = F.gelu(linear(layer_norm(f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"), approximate="tanh")
        x = x + linear(h, f"h.{i}.mlp.c_proj")
    return layer_norm("ln_f") @ w["embed_tokens.weight"].T


def save(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def loaded(folder: Path, **options: Any) -> MaskedLMDenoiser:
    model = load_denoiser(folder, **options)
    assert isinstance(model, MaskedLMDenoiser)
    return model


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_llada(tmp_path: Path, tied: bool) -> None:
    tensors = llada_tensors(tied)
    model = loaded(save(tmp_path, {**LLADA, "weight_tying": tied}, tensors))
    assert (model.mask_token_id, model.vocab_size, model.length) == (20, V - 1, 32)
    assert model._options()["frame"] == [[], []] and model._options()["excluded_token_ids"] == []
    tokens = torch.randint(V, (2, 11))
    torch.testing.assert_close(model(tokens), llada_logits(tensors, tokens), atol=2e-5, rtol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("left_out", ["missing", "null"])
@pytest.mark.parametrize("key", ["embedding_size", "n_kv_heads"])
def test_sizes_that_llada_need_not_repeat(tmp_path: Path, key: str, left_out: str) -> None:
    tensors, config = llada_tensors(), {**LLADA, key: None}
    if left_out == "missing":
        del config[key]
    tokens = torch.randint(V, (2, 11))
    model = loaded(save(tmp_path, config, tensors))
    torch.testing.assert_close(model(tokens), llada_logits(tensors, tokens), atol=2e-5, rtol=2e-5)


@torch.no_grad()
def test_llada_in_shards(tmp_path: Path) -> None:
    """As published: several files and an index, in bf16."""
    tensors = {name: x.bfloat16() for name, x in llada_tensors().items()}
    names = sorted(tensors)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, chosen in shards.items():
        save_file({name: tensors[name] for name in chosen}, tmp_path / file)
    index = {"metadata": {}, "weight_map": {name: file for file, chosen in shards.items() for name in chosen}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps(LLADA))
    model = loaded(tmp_path)
    assert model.dtype == torch.bfloat16
    tokens = torch.randint(V, (2, 11))
    expected = llada_logits({name: x.float() for name, x in tensors.items()}, tokens)
    assert (model(tokens).float() - expected).abs().mean() < 0.05
    torch.testing.assert_close(loaded(tmp_path, dtype="float32")(tokens), expected, atol=2e-5, rtol=2e-5)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(OSError, match="model-00002-of-00002.safetensors"):
        load_denoiser(tmp_path)
    index["weight_map"] = dict.fromkeys(names, "../elsewhere.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json.*weight_map"):
        load_denoiser(tmp_path)


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        ("missing", "model.transformer.blocks.1.ff_out.weight"),
        ("missing", "model.transformer.ff_out.weight"),
        ("surplus", "model.transformer.blocks.0.q_norm.weight"),
        ("shape", "model.transformer.blocks.0.ff_proj.weight"),
    ],
)
def test_weights_that_do_not_fit_are_named_as_in_the_file(tmp_path: Path, damage: str, key: str) -> None:
    tensors = llada_tensors()
    tensors.pop(key, None)
    if damage != "missing":
        tensors[key] = torch.zeros(3, D)
    said = {"missing": "lacks", "surplus": "has surplus", "shape": "must have shape"}[damage]
    save(tmp_path, LLADA, tensors)
    with pytest.raises(ValueError, match=f"(?s)model.safetensors.*{key}") as error:
        load_denoiser(tmp_path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("config", "change", "culprit"),
    [
        (LLADA, {"block_type": "sequential"}, "block_type"),
        (LLADA, {"include_qkv_bias": True}, "include_qkv_bias"),
        (LLADA, {"rope_theta": None}, "rope_theta"),
        (LLADA, {"embedding_size": None, "vocab_size": None}, "embedding_size"),
        (LLADA, {"embedding_size": 0}, "embedding_size"),
        (LLADA, {"mask_token_id": V}, "mask_token_id"),
        (LLADA, {"mask_token_id": None}, "mask_token_id"),
        (DREAM, {"rope_theta": None}, "rope_theta"),
        (DREAM, {"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_bad_configs_are_named(tmp_path: Path, config: dict[str, Any], change: dict[str, Any], culprit: str) -> None:
    save(tmp_path, {**config, **change}, llada_tensors() if config is LLADA else dream_tensors())
    with pytest.raises(ValueError, match=f"config.json.*`{culprit}`"):
        load_denoiser(tmp_path)


@torch.no_grad()
def test_dream(tmp_path: Path) -> None:
    """Rows move by one and the first is kept: official from the second position on, and the first is given."""
    tensors = dream_tensors()
    model = loaded(save(tmp_path, DREAM, tensors))
    assert (model.mask_token_id, model.vocab_size, model.length) == (20, V - 1, 2048)
    tokens = torch.randint(V, (2, 11))
    official = dream_logits(tensors, tokens)
    shifted = torch.cat([official[:, :1], official[:, :-1]], dim=1)
    torch.testing.assert_close(model(tokens), shifted, atol=2e-5, rtol=2e-5)
    # from nothing: after the beginning-of-text token, which the canvas does not hold
    framed = loaded(tmp_path, frame=True)
    assert framed.length == 2048
    bos = torch.full((2, 1), 17)
    official = dream_logits(tensors, torch.cat([bos, tokens], dim=1))[:, :-1]
    torch.testing.assert_close(framed(tokens), official, atol=2e-5, rtol=2e-5)
    for start in (model, framed):
        pipeline = MaskedDiffusionPipeline(start, LSDScheduler(**start.scheduler_config()))
        out: Any = pipeline(length=9, num_samples=3, num_inference_steps=3, output_type="ids")
        assert out.sequences.shape == (3, 9) and not (out.sequences == 20).any()


def test_dream_has_the_tokenizer_of_qwen2(tmp_path: Path) -> None:
    """Under the name of a class of its repository, whose code is not run."""
    save(tmp_path, DREAM, dream_tensors())
    pieces = ["l", "o", "w", "lo", "low", "\u0120", "\u0120low"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nl o\nlo w\n\u0120 low\n")
    tokens = {"17": "<|beginoftext|>", "18": "<|endoftext|>", "20": "<|mask|>"}
    config = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": {i: {"content": token, "special": True} for i, token in tokens.items()},
        "mask_token": "<|mask|>", "bos_token": "<|beginoftext|>", "unk_token": None,
    }  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer: Any = load_denoiser(tmp_path).tokenizer
    assert tokenizer("low low<|mask|>", add_special_tokens=False).input_ids[:2] == [4, 6]
    assert tokenizer.decode([4, 6]) == "low low"


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


@torch.no_grad()
@pytest.mark.parametrize("family", ["llada", "dream", "diffugpt"])
def test_saved_as_a_checkpoint_of_transformers(tmp_path: Path, family: str) -> None:
    config, tensors = {
        "llada": (LLADA, llada_tensors), "dream": (DREAM, dream_tensors), "diffugpt": (GPT2, diffugpt_tensors),
    }[family]  # fmt: skip
    options = {"mask_token_id": 5} if family == "diffugpt" else {}
    model = loaded(save(tmp_path, config, tensors()), **options)
    model.save_pretrained(tmp_path / "saved")
    again = loaded(tmp_path / "saved")
    assert again._options() == model._options()
    tokens = torch.randint(model.vocab_size + 1, (2, 9))
    assert torch.equal(again(tokens), model(tokens))
    assert "lm_head.weight" in load_file(tmp_path / "saved" / "model.safetensors") or family == "diffugpt"
