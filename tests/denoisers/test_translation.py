"""The denoiser of translations: its interface, times, precision and files. (Its network: `..._network`.)"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from helpers.golden_files import fixture_path
from helpers.official_translation import golden, official
from helpers.tiny_translation import WORDS, save_translation

from lsd_sampler import DNDMScheduler, load_denoiser
from lsd_sampler.denoisers.translation import EncodedSource, TranslationDenoiser


SIZE = len(WORDS) + 4
SOURCES = torch.tensor([[1, 1, 0, 5, 9, 2], [0, 5, 6, 7, 8, 2]])
CANVASES = torch.tensor([[0, 3, 9, 3, 2, 1], [0, 3, 3, 3, 3, 2]])


def loaded(folder: Path, load: dict[str, Any] | None = None, **options: Any) -> TranslationDenoiser:
    denoiser = load_denoiser(save_translation(folder, **options), **(load or {}))
    assert isinstance(denoiser, TranslationDenoiser)
    return denoiser


@torch.no_grad()
def logits(denoiser: TranslationDenoiser, t: float = 0.5) -> torch.Tensor:
    source = denoiser.encode(SOURCES)
    given = {"encoder_states": source.states, "encoder_padding": source.padding}
    return denoiser(CANVASES, torch.full((2,), t), **given)


def test_what_samplers_read_of_it(tmp_path: Path) -> None:
    absorbing = loaded(tmp_path / "a")
    multinomial = loaded(tmp_path / "m", diffusion_type="reparam-multinomial")
    assert (absorbing.corruption, absorbing.mask_token_id, absorbing.vocab_size) == ("absorbing", 3, SIZE - 1)
    assert (multinomial.corruption, multinomial.mask_token_id, multinomial.vocab_size) == ("uniform", None, SIZE)
    assert multinomial.scheduler_config()["vocab_size"] == SIZE - 3
    assert absorbing.time_conditioned
    assert not loaded(tmp_path / "t", timestep_emb_type="none").time_conditioned


def test_the_share_of_noise_is_that_of_training(tmp_path: Path) -> None:
    """In training step k of S, absorbing noise masks a share of (k + 1) / S."""
    noise = loaded(tmp_path).noise
    t = torch.tensor([0.05, 0.5, 0.95])
    torch.testing.assert_close(noise.masked(t), t.double(), atol=1e-5, rtol=1e-5)


def test_the_multinomial_share_of_noise_is_that_of_training() -> None:
    """The checkpoint holds what is left of the signal after training step k + 1 of S (of the last, a little)."""
    file = fixture_path("dndm_translation", "multinomial.pt")
    with torch.serialization.safe_globals([Namespace]):
        state = torch.load(file, weights_only=True)["model"]
    log_alpha = state["diffusion.log_cumprod_alpha"].double()
    t = (torch.arange(len(log_alpha)) + 1) / len(log_alpha)
    denoiser = official("multinomial")
    if denoiser.config["noise_scheduler_type"] == "sqrt":
        pytest.skip("our samplers refuse this schedule")
    torch.testing.assert_close(denoiser.noise.alpha(t)[:-1], log_alpha.exp()[:-1], atol=5e-6, rtol=0)


def test_the_noise_of_the_multinomial_checkpoint() -> None:
    denoiser = official("multinomial")
    torch.testing.assert_close(denoiser.vocab_log_prob, golden("multinomial.")["vocab_log_prob"], atol=1e-5, rtol=1e-5)


# ---- times ----


@pytest.mark.parametrize(
    ("network_times", "expected"),
    [
        ("dndm", [20, 10, 9, 0]),
        ("training", [19, 9, 9, 0]),
        ("continuous", [20.0, 10.0, 9.98, 0.4]),
        ("unit", [1.0, 0.5, 0.499, 0.02]),
    ],
)
def test_times_of_the_network(tmp_path: Path, network_times: str, expected: list[float]) -> None:
    denoiser = loaded(tmp_path, {"network_times": network_times})
    found = denoiser.network_time(torch.tensor([1.0, 0.5, 0.499, 0.02]))
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=1e-6)


@torch.no_grad()
def test_forward_is_decode_at_the_network_s_time(tmp_path: Path) -> None:
    denoiser = loaded(tmp_path)
    source = denoiser.encode(SOURCES)
    expected = denoiser.decode(CANVASES, torch.tensor([7, 7]), source)
    torch.testing.assert_close(logits(denoiser, 0.36), expected)
    hidden = denoiser(
        CANVASES, torch.full((2,), 0.36), encoder_states=source.states, encoder_padding=source.padding,
        return_hidden_states=True,
    )  # fmt: skip
    torch.testing.assert_close(denoiser.head(hidden), expected)


def test_training_on_continuous_times_says_which_times_the_network_knows(tmp_path: Path) -> None:
    assert loaded(tmp_path / "a", time_sampler_type="continuous", continuous=True).network_times == "unit"
    assert loaded(tmp_path / "b", time_sampler_type="uniform", continuous=True).network_times == "dndm"


def test_learned_times_end_at_the_largest_of_training(tmp_path: Path) -> None:
    """DNDM asks for one more, S, of which the table has no row."""
    denoiser = loaded(tmp_path, timestep_emb_type="learnable")
    assert torch.equal(logits(denoiser, 1.0), logits(denoiser, 0.96))


# ---- batches, devices, precision ----


@torch.no_grad()
def test_a_row_does_not_depend_on_the_lengths_of_others(tmp_path: Path) -> None:
    denoiser = loaded(tmp_path)
    both = logits(denoiser)
    source = denoiser.encode(SOURCES[:1, 2:])
    given = {"encoder_states": source.states, "encoder_padding": source.padding}
    alone = denoiser(CANVASES[:1, :5], torch.tensor([0.5]), **given)
    torch.testing.assert_close(both[:1, :5], alone, atol=1e-4, rtol=1e-4)
    lengths = denoiser.length_log_probs(denoiser.encode(SOURCES))[:1]
    torch.testing.assert_close(lengths, denoiser.length_log_probs(source), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("diffusion_type", ["reparam-absorbing", "reparam-multinomial"])
def test_it_moves_to_other_precisions(tmp_path: Path, diffusion_type: str) -> None:
    file = save_translation(tmp_path, diffusion_type=diffusion_type)
    exact: Any = load_denoiser(file, dtype="float64")
    single, half = load_denoiser(file), load_denoiser(file, dtype=torch.bfloat16)
    assert isinstance(single, TranslationDenoiser) and isinstance(half, TranslationDenoiser)
    expected = logits(exact)
    assert expected.dtype == torch.float64
    torch.testing.assert_close(logits(single).double(), expected, atol=1e-3, rtol=1e-3)
    assert logits(half).dtype == torch.bfloat16
    assert logits(half).isfinite().all()


def test_it_moves_to_other_devices(tmp_path: Path) -> None:
    denoiser = loaded(tmp_path).to("meta")
    source = denoiser.encode(SOURCES.to("meta"))
    assert denoiser.decode(CANVASES.to("meta"), torch.tensor([1, 2], device="meta"), source).device.type == "meta"


def test_offloaded_weights_come_back_for_encoder_and_decoder(tmp_path: Path) -> None:
    """As `enable_model_cpu_offload` moves them: by a hook of the model."""
    denoiser, moves = loaded(tmp_path), []

    class Offloaded(ModelHook):
        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            moves.append(module)
            return args, kwargs

    add_hook_to_module(denoiser, Offloaded())
    denoiser.decode(CANVASES, torch.tensor([1, 2]), denoiser.encode(SOURCES))
    assert moves == [denoiser, denoiser]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_the_same(tmp_path: Path) -> None:
    denoiser = loaded(tmp_path)
    expected = denoiser.decode(CANVASES, torch.tensor([3, 9]), denoiser.encode(SOURCES))
    there = denoiser.to("cuda")
    found = there.decode(CANVASES.cuda(), torch.tensor([3, 9]).cuda(), there.encode(SOURCES.cuda()))
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-3)


# ---- files ----


VARIATIONS: list[dict[str, Any]] = [
    {},
    {"diffusion_type": "reparam-multinomial", "noise_distribution": "unigram"},
    {"share_all_embeddings": False, "share_decoder_input_output_embed": False, "timestep_emb_type": "learnable"},
    {"encoder_learned_pos": False, "decoder_learned_pos": False, "encoder_normalize_before": True,
     "decoder_normalize_before": True, "timestep_emb_type": "none"},
    {"layernorm_embedding": True, "encoder_use_rpe": True, "decoder_use_rpe": True, "pred_length_offset": True},
]  # fmt: skip


@pytest.mark.parametrize("options", VARIATIONS)
def test_it_survives_saving(tmp_path: Path, options: dict[str, Any]) -> None:
    denoiser = loaded(tmp_path / "official", {"network_times": "training"}, **options)
    denoiser.save_pretrained(tmp_path / "saved")
    read = load_denoiser(tmp_path / "saved")
    assert isinstance(read, TranslationDenoiser)
    assert read.config == denoiser.config
    assert read.network_times == "training"
    assert torch.equal(logits(read), logits(denoiser))
    assert read.tokenizer is not None and read.tokenizer.source.symbols[4:] == [*WORDS]
    assert not [*(tmp_path / "saved").glob("*.pt")]
    if read.mask_token_id is None:
        assert torch.equal(read.vocab_log_prob, denoiser.vocab_log_prob)


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    loaded(tmp_path / "official").save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "config.json"
    file.write_text(file.read_text().replace('"encoder_layers": 2', '"encoder_layers": "two"'))
    with pytest.raises(ValueError, match=r"config\.json: .*'encoder_layers' must be a positive integer"):
        load_denoiser(tmp_path / "saved")


# ---- DNDM's options, and errors ----


def test_options_of_dndm_are_those_of_the_checkpoint_or_the_defaults_of_the_code(tmp_path: Path) -> None:
    plain = loaded(tmp_path / "a").dndm_config()
    names = ("top_k", "weights", "alpha", "beta", "continuous", "training_steps")
    assert [plain[name] for name in names] == [True, "beta", 3.0, 3.0, False, 20]
    trained = {"not_topk": True, "schedule": "cosine", "alpha": 17, "beta": 4, "continuous_sample": True}
    other = loaded(tmp_path / "b", **trained).dndm_config(beta=5.0)
    assert [other[name] for name in names] == [False, "cosine", 17.0, 5.0, True, 20]
    DNDMScheduler(**other)


@pytest.mark.parametrize("diffusion_type", ["absorbing", "multinomial"])
def test_dndm_has_no_step_for_plain_types(tmp_path: Path, diffusion_type: str) -> None:
    denoiser = loaded(tmp_path, diffusion_type=diffusion_type)
    with pytest.raises(ValueError, match=f"DNDM has no step for models of the type '{diffusion_type}'"):
        denoiser.dndm_config()


def test_a_call_without_source_or_time_is_refused(tmp_path: Path) -> None:
    denoiser = loaded(tmp_path)
    with pytest.raises(ValueError, match="give the pipeline its source as `prompt`"):
        denoiser(CANVASES, torch.ones(2))
    source = denoiser.encode(SOURCES)
    with pytest.raises(ValueError, match="`t` must be given"):
        denoiser(CANVASES, encoder_states=source.states, encoder_padding=source.padding)


def test_lengths_may_be_offsets_from_the_source(tmp_path: Path) -> None:
    """Class 128 is the source's own length; nothing is shorter than 3."""
    denoiser = loaded(tmp_path, pred_length_offset=True)
    source = denoiser.encode(SOURCES)
    weight = denoiser.decoder.embed_length.weight
    for chosen, expected in ((130, [6, 8]), (0, [3, 3])):
        weight.data.zero_()
        weight.data[chosen] = source.states.mean((0, 1))
        assert denoiser.predicted_lengths(source).tolist() == expected


def test_rows_of_sources() -> None:
    source = EncodedSource(torch.arange(6.0).view(3, 1, 2), torch.zeros(3, 1, dtype=torch.bool))
    assert source.rows(torch.tensor([2, 0, 2])).states[:, 0, 0].tolist() == [4.0, 0.0, 4.0]
