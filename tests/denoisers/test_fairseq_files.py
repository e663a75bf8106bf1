"""Checkpoints of fairseq: what is read, what is refused, and what errors say."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_translation import OPTIONS, WORDS, checkpoint, save_translation, write_dictionary

from lsd_sampler import load_denoiser


SIZE = len(WORDS) + 4
SOURCE, CANVAS = torch.tensor([[0, 4, 5, 6, 2]]), torch.tensor([[0, 3, 9, 2]])


def rewritten(file: Path, content: dict[str, Any]) -> Path:
    torch.save(content, file)
    return file


def logits_of(file: Path, **options: Any) -> torch.Tensor:
    denoiser: Any = load_denoiser(file, **options)
    with torch.no_grad():
        return denoiser.decode(CANVAS, torch.tensor([7]), denoiser.encode(SOURCE))


def test_a_folder_is_recognised_by_its_checkpoint_and_dictionaries(tmp_path: Path) -> None:
    file = save_translation(tmp_path)
    denoiser: Any = load_denoiser(tmp_path)
    assert (denoiser.mask_token_id, denoiser.vocab_size, denoiser.length) == (3, SIZE - 1, 13)
    with torch.no_grad():
        same = denoiser.decode(CANVAS, torch.tensor([7]), denoiser.encode(SOURCE))
    assert torch.equal(same, logits_of(file))


def test_the_averaged_weights_are_taken_unless_told_otherwise(tmp_path: Path) -> None:
    file = save_translation(tmp_path)
    averaged, raw = load_denoiser(file).state_dict(), load_denoiser(file, ema=False).state_dict()
    assert averaged.keys() == raw.keys()
    assert all(torch.equal(averaged[name], 2 * raw[name]) for name in raw)


def test_missing_averaged_weights_are_an_error_with_a_way_out(tmp_path: Path) -> None:
    file, content = save_translation(tmp_path), checkpoint(OPTIONS, SIZE, SIZE)
    del content["extra_state"]["ema"]
    rewritten(file, content)
    with pytest.raises(ValueError, match=r"no averaged weights \('extra_state\.ema'\).*`ema=False`"):
        load_denoiser(file)
    load_denoiser(file, ema=False)


def test_old_files_have_their_options_in_args(tmp_path: Path) -> None:
    file, content = save_translation(tmp_path), checkpoint(OPTIONS, SIZE, SIZE)
    expected = logits_of(file)
    content["args"] = Namespace(**OPTIONS)
    del content["cfg"]
    assert torch.equal(logits_of(rewritten(file, content)), expected)


def test_old_names_of_tensors_are_read(tmp_path: Path) -> None:
    file, content = save_translation(tmp_path), checkpoint(OPTIONS, SIZE, SIZE)
    expected = logits_of(file)
    state = content["extra_state"]["ema"]
    for layer in ("encoder.layers.0", "encoder.layers.1", "decoder.layers.0"):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{layer}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            state[f"{layer}.self_attn.in_proj_{kind}"] = torch.cat(parts)
            last = 1 if layer.startswith("encoder") else 2
            state[f"{layer}.layer_norms.0.{kind}"] = state.pop(f"{layer}.self_attn_layer_norm.{kind}")
            state[f"{layer}.layer_norms.{last}.{kind}"] = state.pop(f"{layer}.final_layer_norm.{kind}")
    del state["decoder.output_projection.weight"], state["encoder.version"]
    assert torch.equal(logits_of(rewritten(file, content)), expected)


def test_old_switches_are_texts(tmp_path: Path) -> None:
    denoiser: Any = load_denoiser(save_translation(tmp_path, left_pad_source="False"))
    assert denoiser.config["left_pad_source"] is False


def test_tied_embeddings_that_differ_are_refused(tmp_path: Path) -> None:
    file, content = save_translation(tmp_path), checkpoint(OPTIONS, SIZE, SIZE)
    content["extra_state"]["ema"]["decoder.output_projection.weight"] = torch.zeros(SIZE, 16)
    with pytest.raises(ValueError, match="are one parameter of this model, but differ"):
        load_denoiser(rewritten(file, content))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_layers": None}, "'encoder_layers' must be a positive integer, got None"),
        ({"num_diffusion_timesteps": None}, "'num_diffusion_timesteps' must be a positive integer"),
        ({"decoder_attention_heads": 3}, "'decoder_embed_dim' must be an even multiple"),
        ({"diffusion_type": "gaussian"}, "'diffusion_type' must be one of"),
        ({"activation_fn": "swiglu"}, "'activation_fn' must be one of"),
        ({"cross_self_attention": True}, "the option 'cross_self_attention' is True"),
        ({"no_token_positional_embeddings": True}, "'no_token_positional_embeddings' is True"),
        ({"adaptive_softmax_cutoff": "100,200"}, "'adaptive_softmax_cutoff' is '100,200'"),
        (
            {"decoder_embed_dim": 32},
            "'share_all_embeddings' needs 'encoder_embed_dim' and 'decoder_embed_dim' alike",
        ),
        ({"left_pad_source": "maybe"}, "'left_pad_source' must be true or false, got 'maybe'"),
        ({"encoder_ffn_embed_dim": 25}, r"encoder\.layers\.0\.fc1\.(weight|bias) must have shape"),
        ({"decoder_layers": 2}, r"lacks tensors for this model: decoder\.layers\.1"),
        ({"max_target_positions": 99}, r"decoder\.embed_positions\.weight must have shape"),
    ],
)
def test_an_option_that_does_not_fit_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    file, content = save_translation(tmp_path), checkpoint(OPTIONS, SIZE, SIZE)
    changed = {name: value for name, value in (OPTIONS | options).items() if value is not None}
    content["cfg"]["model"] = Namespace(**changed)
    with pytest.raises(ValueError, match=message) as raised:
        load_denoiser(rewritten(file, content))
    assert "checkpoint_best.pt" in str(raised.value)


@pytest.mark.parametrize("missing", ["model", "cfg"])
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, missing: str) -> None:
    file, content = save_translation(tmp_path), checkpoint(OPTIONS, SIZE, SIZE)
    del content[missing]
    with pytest.raises(ValueError, match=r"checkpoint_best\.pt holds (no 'model'|neither 'cfg' nor 'args')"):
        load_denoiser(rewritten(file, content))


@pytest.mark.parametrize("stranger", [Path("a"), torch.nn.Linear(1, 1)])
def test_no_class_but_namespace_is_admitted(tmp_path: Path, stranger: Any) -> None:
    file, content = save_translation(tmp_path), checkpoint(OPTIONS, SIZE, SIZE)
    content["cfg"]["model"].stranger = stranger
    with pytest.raises(ValueError, match="holds more than tensors and plain containers, which is never loaded"):
        load_denoiser(rewritten(file, content))


class Attack:
    """Would write a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    file, content = save_translation(tmp_path / "model"), checkpoint(OPTIONS, SIZE, SIZE)
    content["extra_state"]["attack"] = Attack(tmp_path / "touched")
    with pytest.raises(ValueError, match="which is never loaded"):
        load_denoiser(rewritten(file, content))
    assert not (tmp_path / "touched").exists()


# ---- dictionaries ----


def test_missing_dictionaries_are_asked_for(tmp_path: Path) -> None:
    file = save_translation(tmp_path)
    (tmp_path / "dict.en.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"dict\.en\.txt"):
        load_denoiser(file)
    (tmp_path / "dict.de.txt").unlink()
    with pytest.raises(FileNotFoundError, match="There are no dictionaries"):
        load_denoiser(tmp_path)


def test_a_dictionary_of_another_size_belongs_to_another_model(tmp_path: Path) -> None:
    file = save_translation(tmp_path)
    for name in ("de", "en"):
        write_dictionary(tmp_path / f"dict.{name}.txt", WORDS[:-1])
    with pytest.raises(ValueError, match="belongs to another model"):
        load_denoiser(file)


UNTIED = {"share_all_embeddings": False, "share_decoder_input_output_embed": False}


def test_languages_are_told_by_options_of_the_training_or_of_the_user(tmp_path: Path) -> None:
    words = ("x", "y", "z")
    file = save_translation(tmp_path, words, WORDS, **UNTIED)
    denoiser: Any = load_denoiser(file)
    assert denoiser.tokenizer.encode("y q") == [0, 5, 3, 2]
    assert denoiser.tokenizer.decode([0, 4, 2]) == WORDS[0]
    content = torch.load(file, weights_only=False)
    content["cfg"]["model"].source_lang = None
    rewritten(file, content)
    with pytest.raises(ValueError, match="pass `source_lang` and `target_lang`"):
        load_denoiser(file)
    assert load_denoiser(file, source_lang="de", target_lang="en").tokenizer.encode("y q") == [0, 5, 3, 2]  # type: ignore[union-attr]


def test_equal_dictionaries_need_no_languages(tmp_path: Path) -> None:
    load_denoiser(save_translation(tmp_path, source_lang=None, target_lang=None))
