"""Masked and causal language models of transformers as denoisers: what they see, what they give, what is drawn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.masked_lms import loaded
from helpers.tiny_language_models import BERT_TOKENS, MASKED_LMS, SIZES, WORDS
from transformers import (
    AutoModelForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cli import sample, train
from lsd_sampler.denoisers import MaskedLMDenoiser


# mask, special tokens, tokens around the canvas, longest canvas
EXPECTED: dict[str, tuple[int, list[int], list[list[int]], int]] = {
    "bert": (4, [0, 1, 2, 3], [[2], [3]], 12),
    "modernbert": (4, [0, 2, 3], [[2], [3]], 12),
    "esm": (32, [0, 1, 2, 3], [[0], [2]], 12),
    "roberta": (len(WORDS) + 4, [0, 1, 2, 3], [[0], [2]], 12),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("masked_lms")
    for name, save in MASKED_LMS.items():
        save(root / name)
    return {name: root / name for name in MASKED_LMS}


@pytest.fixture(params=list(MASKED_LMS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def canvases(model: MaskedLMDenoiser, batch_size: int = 3, length: int = 9) -> torch.Tensor:
    """Text of any ids, half of it masked."""
    tokens = torch.randint(model.vocab_size, (batch_size, length))
    return tokens.masked_fill(torch.rand(tokens.shape) < 0.5, model.mask_token_id)


def pipeline_of(model: MaskedLMDenoiser) -> MaskedDiffusionPipeline:
    pipeline = MaskedDiffusionPipeline(model, LSDScheduler(**model.scheduler_config()), model.tokenizer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_what_a_checkpoint_says_about_itself(folders: dict[str, Path], name: str) -> None:
    model, (mask, special, frame, length) = loaded(folders[name]), EXPECTED[name]
    columns = model(torch.tensor([[mask]])).shape[-1]
    assert (model.mask_token_id, model.vocab_size, model.length) == (mask, columns - 1, length)
    assert (model.prediction_type, model.noise_schedule, model.time_conditioned) == ("logits", "log_linear", False)
    assert model._options() == {
        "mask_token_id": mask, "shifted": False, "frame": frame, "reused_mask": False, "excluded_token_ids": special,
        "length": length,
    }  # fmt: skip
    assert not model.training and model.defers_head


@torch.no_grad()
def test_logits_are_those_of_the_official_class_on_the_framed_text(folders: dict[str, Path], name: str) -> None:
    model, (_, special, (prefix, suffix), length) = loaded(folders[name]), EXPECTED[name]
    official = AutoModelForMaskedLM.from_pretrained(folders[name]).eval()
    tokens = canvases(model, length=length)
    # padding is no text, and RoBERTa does not count it as a position
    tokens[tokens == 1] = WORDS.index("cat") + 5
    framed = torch.cat([torch.tensor([prefix] * 3), tokens, torch.tensor([suffix] * 3)], dim=1)
    expected = official(input_ids=framed).logits[:, 1:-1].index_fill(-1, torch.tensor(special), -torch.inf)
    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=0)
    everything = loaded(folders[name], excluded_token_ids=[])(tokens)
    torch.testing.assert_close(everything, official(input_ids=framed).logits[:, 1:-1], rtol=0, atol=0)


@torch.no_grad()
def test_head_apart_gives_the_same_tokens(folders: dict[str, Path], name: str) -> None:
    """(Products of matrices round differently for other numbers of rows, so logits may differ in the last bits.)"""
    model = loaded(folders[name], dtype="float64")
    tokens = canvases(model)
    logits, hidden = model(tokens), model(tokens, return_hidden_states=True)
    assert hidden.shape == (3, 9, SIZES["hidden_size"])
    deferred = model.deferred_logits(hidden)
    row, position = (tokens == model.mask_token_id).nonzero(as_tuple=True)
    assert deferred.shape == logits.shape
    torch.testing.assert_close(deferred.rows(row, position), logits[row, position], atol=1e-12, rtol=1e-12)
    scheduler = LSDScheduler(**model.scheduler_config())
    scheduler.set_timesteps(3)
    drawn = []
    for output in (logits, deferred):
        generator = torch.Generator().manual_seed(0)
        drawn.append(scheduler.step(output, scheduler.timesteps[0], tokens, generator=generator).prev_sample)  # pyright: ignore
    assert torch.equal(*drawn) and not torch.equal(drawn[0], tokens)


@torch.no_grad()
def test_a_head_that_reaches_into_the_trunk_is_not_taken_apart() -> None:
    config = DebertaV2Config(vocab_size=20, max_position_embeddings=12, legacy=False, **SIZES)
    network = DebertaV2ForMaskedLM(config)
    model = MaskedLMDenoiser(network, 4, excluded_token_ids=[0])
    assert not model.defers_head
    tokens = canvases(model)
    expected = network(input_ids=tokens).logits.index_fill(-1, torch.tensor([0]), -torch.inf)
    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=0)


@pytest.mark.parametrize("steps", [1, 4])
def test_sampling_from_nothing_from_a_prefix_and_between(folders: dict[str, Path], name: str, steps: int) -> None:
    """Given tokens stay, no mask is left, special tokens are not drawn, and a seed gives the same tokens."""
    model, (mask, special, _, length) = loaded(folders[name]), EXPECTED[name]
    pipeline, ids = pipeline_of(model), [6, 7, 8]
    infilled = torch.tensor([[6, mask, mask, 7, mask, 8, mask, mask]])
    for given in ({}, {"prefix": ids}, {"prefix": ids, "suffix": ids[:1]}, {"input_ids": infilled}):
        run = {"num_samples": 32, "num_inference_steps": steps, "output_type": "ids", **given}
        out, again = (pipeline(**run, generator=torch.Generator().manual_seed(1)).sequences for _ in range(2))  # pyright: ignore
        assert torch.equal(out, again)
        canvas = infilled if "input_ids" in given else torch.full((1, length), mask)
        canvas[:, : len(given.get("prefix", []))] = torch.tensor(given.get("prefix", []))
        canvas[:, canvas.shape[1] - len(given.get("suffix", [])) :] = torch.tensor(given.get("suffix", []))
        canvas = canvas.expand_as(out)
        assert torch.equal(out[canvas != mask], canvas[canvas != mask])
        drawn = set(out[canvas == mask].tolist())
        assert len(drawn) > 3 and not drawn & {mask, *special}


def test_texts_go_in_and_out(folders: dict[str, Path]) -> None:
    pipeline = MaskedDiffusionPipeline.from_pretrained(folders["bert"])
    pipeline.set_progress_bar_config(disable=True)
    text = pipeline(prefix="the cat", suffix="ran", length=6, num_inference_steps=2).texts[0].split()  # pyright: ignore
    assert text[:2] == ["the", "cat"] and text[-1] == "ran" and len(text) == 6 and set(text) <= set(WORDS)


@torch.no_grad()
def test_rows_of_a_batch_do_not_see_each_other(folders: dict[str, Path], name: str) -> None:
    model = loaded(folders[name])
    tokens = canvases(model)
    alone = torch.cat([model(row[None]) for row in tokens])
    torch.testing.assert_close(model(tokens), alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(folders: dict[str, Path], name: str, dtype: str) -> None:
    """Close to float32, with the angles of rotary embeddings as they were; samples come out."""
    full, half = loaded(folders[name]), loaded(folders[name], dtype=dtype)
    tokens = canvases(full)
    out = half(tokens)
    assert out.dtype == getattr(torch, dtype)
    different = (out.float().softmax(-1) - full(tokens).softmax(-1)).abs().sum(-1) / 2
    assert different.mean() < 0.1
    for (key, buffer), kept in zip(half.named_buffers(), full.buffers(), strict=True):
        assert torch.equal(buffer, kept) and buffer.dtype == kept.dtype, key
    out = pipeline_of(half)(num_inference_steps=2, output_type="ids").sequences  # pyright: ignore
    assert not (out == half.mask_token_id).any()


CAUSAL: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=12)),
    "llama": (LlamaForCausalLM, LlamaConfig(vocab_size=20, max_position_embeddings=12, **SIZES)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(vocab_size=20, num_key_value_heads=1, **SIZES)),
    "mistral": (MistralForCausalLM, MistralConfig(vocab_size=20, num_key_value_heads=1, sliding_window=3, **SIZES)),
}


@torch.no_grad()
@pytest.mark.parametrize("family", CAUSAL)
def test_causal_networks_look_both_ways(tmp_path: Path, family: str) -> None:
    """Each token changes the logits at each position, with every kind of attention, and both kinds agree."""
    network_class, config = CAUSAL[family]
    network_class(config).save_pretrained(tmp_path)
    tokens, window = torch.randint(19, (1, 8)), getattr(config, "sliding_window", None) or 8
    outputs = []
    for kind in ("eager", "sdpa"):
        model = loaded(tmp_path, mask_token_id=19, shifted=False, attn_implementation=kind)
        assert model.network.config._attn_implementation == kind
        outputs.append(model(tokens))
        for i in range(8):
            changed = tokens.clone()
            changed[0, i] = 19
            moved = (model(changed) != outputs[-1]).any(-1)[0]
            assert moved[max(0, i - window + 1) : i + window].all(), i
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_shifted_rows(family: str) -> None:
    """Row i - 1 predicts token i; what precedes the canvas predicts its first token."""
    network_class, config = CAUSAL[family]
    network = network_class(config)
    tokens = torch.randint(19, (2, 6))
    plain = MaskedLMDenoiser(network, 19)
    framed = MaskedLMDenoiser(network, 19, shifted=True, frame=((1,), ()))
    assert framed.length == plain.length - 1
    official = plain(torch.cat([torch.ones(2, 1, dtype=torch.int64), tokens], dim=1))
    torch.testing.assert_close(framed(tokens), official[:, :-1], rtol=0, atol=0)
    kept = MaskedLMDenoiser(network, 19, shifted=True)(tokens)
    torch.testing.assert_close(kept, plain(tokens)[:, [0, 0, 1, 2, 3, 4]], rtol=0, atol=0)


def test_attention_that_stays_causal_is_refused() -> None:
    attention = [[["global", "local"], 1]]
    config = GPTNeoConfig(vocab_size=20, hidden_size=16, num_layers=2, num_heads=2, attention_types=attention)
    with pytest.raises(ValueError, match="GPTNeoForCausalLM cannot be made bidirectional"):
        MaskedLMDenoiser(GPTNeoForCausalLM(config), 19)


def test_a_reused_mask_is_an_id_of_its_own_on_the_canvas() -> None:
    network = LlamaForCausalLM(CAUSAL["llama"][1])
    model = MaskedLMDenoiser(network, 7, reused_mask=True)
    assert (model.mask_token_id, model.vocab_size) == (20, 20)
    text, masked = torch.tensor([[3, 7, 5]]), torch.tensor([[3, 20, 5]])
    with torch.no_grad():
        assert torch.equal(model(text), model(masked)) and model(text).shape[-1] == 20
    ids = torch.tensor([[7, 20, 7, 20, 20]])
    out: Any = pipeline_of(model)(input_ids=ids, num_samples=64, num_inference_steps=2, output_type="ids")
    assert (out.sequences[:, [0, 2]] == 7).all()
    assert 7 in out.sequences[:, [1, 3, 4]] and 20 not in out.sequences  # an ordinary token, so it may be drawn


def test_ids_that_the_network_does_not_have_are_refused() -> None:
    network = LlamaForCausalLM(CAUSAL["llama"][1])
    for bad in ({"mask_token_id": 20}, {"frame": ((99,), ())}, {"excluded_token_ids": [-1]}):
        with pytest.raises(ValueError, match=f"`{[*bad][0]}`.*19"):
            MaskedLMDenoiser(network, **{"mask_token_id": 7, **bad})
    with pytest.raises(ValueError, match="`length`"):
        MaskedLMDenoiser(network, 7, length=0)


@pytest.mark.parametrize("method", ["path_kl", "lsd"])
def test_commands(
    folders: dict[str, Path],
    tmp_path: Path,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cards, "_plot", lambda *_: False)
    model, sampler = str(folders["bert"]), str(tmp_path / method)
    argv = ["--model", model, "--device", "cpu", "--nfe", "2", "4", "--num-sequences", "8", "--teacher-steps", "6"]
    assert train.main([*argv, "--method", method, "--output-dir", sampler]) == 0
    assert LSDScheduler.from_pretrained(sampler).config.mask_token_id == BERT_TOKENS.index("[MASK]")  # pyright: ignore
    capsys.readouterr()
    argv = ["--model", model, "--device", "cpu", "--sampler", sampler, "--nfe", "4", "--prefix", "the cat"]
    assert sample.main([*argv, "--num-samples", "2"]) == 0
    texts = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert [text[:2] for text in texts] == [["the", "cat"]] * 2
    assert all(len(text) == 12 and set(text) <= set(WORDS) for text in texts)
