"""Whole translations through the pipeline: as recorded from the official code, and with our own samplers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.official_translation import MODELS, case, case_names, golden, official_pipeline, scheduler_of, sources
from helpers.tiny_translation import save_translation

from lsd_sampler import DistillConfig, DNDMScheduler, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.denoisers.translation import TranslationDenoiser
from lsd_sampler.sampling.draws import row_generators


TEXTS = ["ein ha@@ us ist gro@@ ss .", "us", "ha@@ us ist ."]
TYPES = {"absorbing": "reparam-absorbing", "multinomial": "reparam-multinomial"}


def tiny(folder: Path, **options: Any) -> MaskedDiffusionPipeline:
    pipeline = MaskedDiffusionPipeline.from_pretrained(save_translation(folder, **options))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(params=TYPES.values(), ids=list(TYPES))
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> MaskedDiffusionPipeline:
    return tiny(tmp_path, diffusion_type=request.param)


def denoiser_of(pipeline: MaskedDiffusionPipeline) -> TranslationDenoiser:
    assert isinstance(pipeline.denoiser, TranslationDenoiser)
    return pipeline.denoiser


def use_dndm(pipeline: MaskedDiffusionPipeline, **options: Any) -> DNDMScheduler:
    pipeline.scheduler = DNDMScheduler(**denoiser_of(pipeline).dndm_config(**options))
    return pipeline.scheduler


# ---- as recorded ----


@pytest.mark.parametrize("name", [name for name in case_names() if not name.endswith("command_line")])
def test_recorded_generations(name: str) -> None:
    expected, model, settings = golden(f"{name}."), name.split(".")[0], case(name)
    pipeline = official_pipeline(model)
    scheduler = pipeline.scheduler = scheduler_of(denoiser_of(pipeline), settings)
    scheduler.replay(expected["tau"], expected["canvases"][0])
    seen: dict[str, list[torch.Tensor]] = {"canvases": [expected["canvases"][0]], "noise": [], "scores": []}

    def watch(_: Any, step: int, t: torch.Tensor, tensors: dict[str, torch.Tensor]) -> None:
        seen["canvases"].append(tensors["sample"].clone())
        assert scheduler.noise is not None
        seen["noise"].append(scheduler.noise.clone())
        seen["scores"].append(scheduler.scores.clone())

    out: Any = pipeline(
        prompt=sources(model), num_inference_steps=settings["T"], length_beam=settings["beam"],
        beam_within_length=settings["within"], callback_on_step_end=watch,
    )  # fmt: skip
    assert torch.equal(torch.stack(seen["canvases"]), expected["canvases"])
    assert torch.equal(torch.stack(seen["noise"]), expected["noise"][1:])
    torch.testing.assert_close(torch.stack(seen["scores"]), expected["scores"], atol=1e-4, rtol=1e-4)
    assert out.network_calls == settings["calls"]
    assert out.texts == settings["words"]
    pieces = [denoiser_of(pipeline).tokenizer.decode(row, keep_pieces=True) for row in out.sequences]  # type: ignore[union-attr]
    assert pieces == settings["hypotheses"]
    best = expected["candidate_score"].gather(1, expected["best"][:, None])[:, 0]
    torch.testing.assert_close(out.scores, best, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_first_canvases_are_the_recorded_ones(model: str) -> None:
    """Of absorbing noise all of it; of multinomial noise, what is random, left out."""
    name = f"{model}.dndm_beta"
    expected, settings, pipeline = golden(f"{name}."), case(name), official_pipeline(model)
    scheduler = pipeline.scheduler = scheduler_of(denoiser_of(pipeline), settings)
    scheduler.replay(torch.zeros_like(expected["tau"]))  # nothing is due before the only call, at which all is
    first: list[torch.Tensor] = []
    decode = denoiser_of(pipeline).decode

    def watched(tokens: torch.Tensor, *others: Any) -> torch.Tensor:
        first.append(tokens.clone())
        return decode(tokens, *others)

    denoiser_of(pipeline).decode = watched  # type: ignore[method-assign]
    pipeline(prompt=sources(model), num_inference_steps=settings["T"], length_beam=settings["beam"])
    kept = torch.isin(expected["canvases"][0], torch.tensor([0, 1, 2, 3] if model == "absorbing" else [0, 1, 2]))
    assert torch.equal(first[0][kept], expected["canvases"][0][kept])


@pytest.mark.parametrize("name", [name for name in case_names() if name.endswith("command_line")])
def test_the_command_line_end_to_end(name: str) -> None:
    """Texts, scores in base 2, and calls, as `fairseq-generate` printed them."""
    expected, model, settings = golden(f"{name}."), name.split(".")[0], case(name)
    pipeline = official_pipeline(model)
    pipeline.scheduler = scheduler_of(denoiser_of(pipeline), settings)
    pipeline.scheduler.replay(expected["tau"], expected["canvas_0"])
    out: Any = pipeline(prompt=sources(model), num_inference_steps=settings["T"], length_beam=settings["beam"])
    for row, sentence in enumerate(golden(f"{model}.")["sentence"].tolist()):
        score, text = settings["lines"][f"H-{sentence}"]
        assert out.texts[row] == text
        assert abs(float(out.scores[row]) / math.log(2) - float(score)) < 1e-4
    assert out.network_calls == settings["calls"]


# ---- DNDM of our own draws ----


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("top_k", [False, True])
def test_a_translation_by_dndm_does_not_depend_on_the_batch(
    pipeline: MaskedDiffusionPipeline, top_k: bool, continuous: bool
) -> None:
    """With a generator for each source."""
    use_dndm(pipeline, top_k=top_k, continuous=continuous)
    together: Any = pipeline(prompt=TEXTS, num_inference_steps=20, generator=row_generators(0, range(3)))
    for i, text in enumerate(TEXTS):
        alone: Any = pipeline(prompt=text, num_inference_steps=20, generator=row_generators(0, [i]))
        assert alone.texts == [together.texts[i]]
        assert alone.sequence_calls.tolist() == [int(together.sequence_calls[i])]
        torch.testing.assert_close(alone.scores[0], together.scores[i], atol=1e-4, rtol=1e-4)


def test_the_same_seed_gives_the_same_translation(pipeline: MaskedDiffusionPipeline) -> None:
    use_dndm(pipeline)
    first, second, other = (
        pipeline(prompt=TEXTS, num_inference_steps=20, generator=torch.Generator().manual_seed(seed)).sequences  # type: ignore[union-attr]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_dndm_calls_the_network_once_for_each_distinct_time_of_the_batch(pipeline: MaskedDiffusionPipeline) -> None:
    scheduler = use_dndm(pipeline)
    out: Any = pipeline(prompt=TEXTS, num_inference_steps=4)
    assert scheduler.transition_times is not None
    assert out.network_calls == len(scheduler.transition_times.unique())
    assert (out.sequence_calls == out.network_calls).all()


def test_dndm_takes_the_steps_of_training_by_default(pipeline: MaskedDiffusionPipeline) -> None:
    scheduler = use_dndm(pipeline)
    pipeline(prompt=TEXTS)
    assert scheduler.num_inference_steps == 20


def test_a_replayed_canvas_is_checked_and_used_once(pipeline: MaskedDiffusionPipeline) -> None:
    scheduler = use_dndm(pipeline)
    scheduler.replay(first_canvas=torch.tensor([[0, 3, 2]]))
    with pytest.raises(
        ValueError, match=r"`first_canvas` must hold int64 ids in \[0, 19\], of shape \(15, num_columns"
    ):
        pipeline(prompt=TEXTS)
    pipeline(prompt=TEXTS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": 0.5}, "`temperature` is not supported by DNDMScheduler"),
        ({"top_p": 0.9}, "`top_p` is not supported by DNDMScheduler"),
        ({"alg_temp": 0.9}, "`alg_temp` is not supported by DNDMScheduler"),
    ],
)
def test_dndm_always_takes_the_most_likely_token(
    pipeline: MaskedDiffusionPipeline, given: dict[str, Any], message: str
) -> None:
    use_dndm(pipeline)
    with pytest.raises(ValueError, match=message):
        pipeline(prompt=TEXTS, **given)


# ---- our own samplers ----


SAMPLERS: list[dict[str, Any]] = [
    {}, {"order": "confidence"}, {"order": "halton"}, {"count": "bernoulli"}, {"solver": "dndm"},
    {"solver": "remdm_conf"}, {"solver": "theta_trapezoidal"},
]  # fmt: skip


@pytest.mark.parametrize("config", SAMPLERS)
def test_any_sampler_fills_in_a_canvas_whatever_the_batch(tmp_path: Path, config: dict[str, Any]) -> None:
    pipeline = tiny(tmp_path)
    pipeline.scheduler = LSDScheduler(**pipeline.denoiser.scheduler_config(), **config)
    together: Any = pipeline(prompt=TEXTS, num_inference_steps=4, generator=row_generators(0, range(3)))
    for i, text in enumerate(TEXTS):
        alone: Any = pipeline(prompt=text, num_inference_steps=4, generator=row_generators(0, [i]))
        assert alone.texts == [together.texts[i]]
        torch.testing.assert_close(alone.scores[0], together.scores[i], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("solver", ["tweedie", "euler"])
def test_multinomial_noise_is_sampled_as_uniform_noise(tmp_path: Path, solver: str) -> None:
    pipeline = tiny(tmp_path, diffusion_type="reparam-multinomial")
    pipeline.scheduler = LSDScheduler(**pipeline.denoiser.scheduler_config(), solver=solver)
    together: Any = pipeline(prompt=TEXTS, num_inference_steps=4, generator=row_generators(0, range(3)))
    for i, text in enumerate(TEXTS):
        alone: Any = pipeline(prompt=text, num_inference_steps=4, generator=row_generators(0, [i]))
        assert alone.texts == [together.texts[i]]


def test_the_text_of_a_canvas_has_no_special_token(pipeline: MaskedDiffusionPipeline) -> None:
    """The network predicts them (its weights are random), and our samplers do not draw them: the length is given."""
    out: Any = pipeline(prompt=TEXTS * 4, num_inference_steps=3, return_all_candidates=True)
    specials = torch.tensor([0, 1, 2] + [3] * (pipeline.denoiser.mask_token_id is not None))
    for row in out.sequences:
        end = int((row == 2).nonzero()[0])
        assert int(row[0]) == 0
        assert not torch.isin(row[1:end], specials).any()
        assert (row[end + 1 :] == 1).all()


def test_one_step_draws_from_the_network_s_law(tmp_path: Path) -> None:
    """One step at t = 1 reveals everything at once: 4000 first tokens by their probabilities, 5 standard errors."""
    pipeline = tiny(tmp_path)
    denoiser = denoiser_of(pipeline)
    for parameter in (denoiser.decoder.output_projection.weight,):
        parameter.data *= 0.2  # a law that is not concentrated
    out: Any = pipeline(
        prompt="ein us", num_samples=4000, num_inference_steps=1, length_beam=1, output_type="ids",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    source = denoiser.encode(torch.tensor([[0, 4, 6, 2]]))
    canvas = torch.where(out.sequences[:1] > 3, 3, out.sequences[:1])
    with torch.no_grad():
        logits = denoiser(canvas, torch.ones(1), encoder_states=source.states, encoder_padding=source.padding)[0, 1]
    logits[:4] = -torch.inf
    law = logits.double().softmax(-1)
    shares = torch.bincount(out.sequences[:, 1], minlength=len(law)).double() / 4000
    assert ((shares - law).abs() <= 5 * (law * (1 - law) / 4000).sqrt() + 1e-9).all()


def test_scores_are_mean_log_probabilities_of_what_was_drawn(tmp_path: Path) -> None:
    pipeline = tiny(tmp_path)
    denoiser = denoiser_of(pipeline)
    out: Any = pipeline(prompt=TEXTS[2], num_inference_steps=1, length_beam=3, return_all_candidates=True)
    source = denoiser.encode(torch.tensor([denoiser.tokenizer.encode(TEXTS[2])]))  # type: ignore[union-attr]
    for row, score in zip(out.sequences, out.scores, strict=True):
        row = row[row != 1][None]
        canvas = torch.where(row > 3, 3, row)
        with torch.no_grad():
            logits = denoiser(canvas, torch.ones(1), encoder_states=source.states, encoder_padding=source.padding)[0]
        logits[:, :4] = -torch.inf
        drawn = logits.log_softmax(-1).gather(1, row.T)[1:-1]
        torch.testing.assert_close(score, drawn.sum() / row.shape[1], atol=1e-4, rtol=1e-4)


def test_the_best_of_all_candidates_is_returned(pipeline: MaskedDiffusionPipeline) -> None:
    options: dict[str, Any] = {"num_inference_steps": 3, "length_beam": 3, "beam_within_length": 2}
    best: Any = pipeline(prompt=TEXTS, **options, generator=row_generators(0, range(3)))
    every: Any = pipeline(prompt=TEXTS, **options, generator=row_generators(0, range(3)), return_all_candidates=True)
    assert len(every.texts) == 18
    scores = every.scores.view(3, 6)
    torch.testing.assert_close(best.scores, scores.amax(1))
    assert best.texts == [every.texts[6 * i + int(j)] for i, j in enumerate(scores.argmax(1))]


def test_each_different_source_is_encoded_once(pipeline: MaskedDiffusionPipeline) -> None:
    batches: list[int] = []
    denoiser_of(pipeline).encoder.register_forward_hook(lambda _, args, __: batches.append(len(args[0])))
    pipeline(prompt=[*TEXTS, TEXTS[0]], num_samples=2, num_inference_steps=3)
    assert batches == [3]


def test_samples_of_a_source_differ(pipeline: MaskedDiffusionPipeline) -> None:
    out: Any = pipeline(
        prompt=TEXTS[0], num_samples=8, num_inference_steps=3, generator=torch.Generator().manual_seed(0)
    )
    assert len(out.texts) == 8
    assert len({*out.texts}) > 1


def test_a_callback_may_change_and_stop_a_translation(tmp_path: Path) -> None:
    pipeline = tiny(tmp_path)

    def stop(pipe: Any, step: int, t: torch.Tensor, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        pipe._interrupt = step == 1
        return {"sample": tensors["sample"].clone().index_fill(1, torch.tensor([1]), 7)}

    out: Any = pipeline(prompt=TEXTS, num_inference_steps=6, callback_on_step_end=stop)
    assert out.network_calls == 2
    assert (out.sequences[:, 1] == 7).all()


def test_canvases_have_as_many_columns_as_are_asked_for(pipeline: MaskedDiffusionPipeline) -> None:
    out: Any = pipeline(prompt=TEXTS, num_inference_steps=3, length=13, length_beam=1)
    assert out.sequences.shape == (3, 13)
    with pytest.raises(ValueError, match=r"`length` must be in \[\d+, 13\] here"):
        pipeline(prompt=TEXTS, num_inference_steps=3, length=14)
    with pytest.raises(ValueError, match=r"`length` must be in \[\d+, 13\] here"):
        pipeline(prompt=TEXTS, num_inference_steps=3, length=2)


def test_it_is_saved_and_loaded_with_its_tokenizer_and_scheduler(
    pipeline: MaskedDiffusionPipeline, tmp_path: Path
) -> None:
    use_dndm(pipeline, top_k=False)
    pipeline.save_pretrained(tmp_path / "saved")
    read = MaskedDiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert isinstance(read.scheduler, DNDMScheduler)
    outputs: list[Any] = [
        p(prompt=TEXTS, num_inference_steps=20, generator=row_generators(0, range(3))) for p in (pipeline, read)
    ]
    assert outputs[0].texts == outputs[1].texts
    assert not [*(tmp_path / "saved").rglob("*.pt")]


def test_half_precision_translates(pipeline: MaskedDiffusionPipeline) -> None:
    pipeline.to(dtype=torch.bfloat16)
    out: Any = pipeline(prompt=TEXTS, num_inference_steps=3)
    use_dndm(pipeline)
    other: Any = pipeline(prompt=TEXTS, num_inference_steps=20)
    assert out.scores.isfinite().all() and other.scores.dtype == torch.float32


# ---- learned samplers ----


@pytest.mark.parametrize("method", ["path_kl", "lsd"])
def test_a_sampler_is_learned_from_translations(tmp_path: Path, method: str) -> None:
    pipeline = tiny(tmp_path)
    config = DistillConfig(method=method, nfe=[2], num_sequences=4, teacher_steps=6)
    pipeline.scheduler = distill(pipeline, config, prompt=TEXTS, length=13)
    assert pipeline.scheduler.learned_sampler.steps.keys() == {2}
    out: Any = pipeline(prompt=TEXTS, generator=row_generators(0, range(3)))
    assert out.network_calls == 2
    alone: Any = pipeline(prompt=TEXTS[1], generator=row_generators(0, [1]))
    assert alone.texts == [out.texts[1]]


def test_a_beam_is_refused_while_a_sampler_is_learned(tmp_path: Path) -> None:
    config = DistillConfig(nfe=[2], num_sequences=2, teacher_steps=4)
    with pytest.raises(ValueError, match="leave `length_beam` out"):
        distill(tiny(tmp_path), config, prompt=TEXTS, length=13, length_beam=5)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give the texts to translate as `prompt`"),
        ({"prompt": "us", "prefix": "a"}, "`prefix` has no meaning for a model that translates"),
        ({"prompt": "us", "input_ids": [3, 3]}, "`input_ids` has no meaning"),
        ({"prompt": "us", "max_new_tokens": 3}, "`max_new_tokens` has no meaning"),
        ({"prompt": "us", "cache": "dual"}, "`cache` has no meaning"),
        ({"prompt": "us", "guidance_scale": 2.0}, "`guidance_scale` has no meaning"),
        ({"prompt": "us", "length_beam": 0}, "`length_beam` must be a positive integer"),
        ({"prompt": "us", "beam_within_length": 0}, "`beam_within_length` must be a positive integer"),
        ({"prompt": "us", "num_inference_steps": 0}, "`num_inference_steps` must be a positive integer"),
        ({"prompt": "us", "generator": [torch.Generator()] * 2}, "`generator` has 2 entries for 1 samples"),
    ],
)
def test_unusable_arguments_are_named(pipeline: MaskedDiffusionPipeline, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(**given)


def test_arguments_of_translations_are_refused_by_other_models() -> None:
    pipeline = MaskedDiffusionPipeline.from_pretrained("countdown:V=4,L=6")
    for name, value in (("length_beam", 3), ("beam_within_length", 1), ("return_all_candidates", True)):
        with pytest.raises(ValueError, match=f"`{name}` goes with a model that translates"):
            pipeline(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_distribution": "unigram"}, "noise of the distribution 'unigram'"),
        ({"noise_scheduler_type": "sqrt"}, "the noise schedule 'sqrt'"),
    ],
)
def test_noise_that_lsd_scheduler_lacks_is_left_to_dndm(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    pipeline = tiny(tmp_path, diffusion_type="reparam-multinomial", **options)
    with pytest.raises(ValueError, match=f"{message}.*DNDMScheduler"):
        pipeline(prompt=TEXTS)
    use_dndm(pipeline)
    pipeline(prompt=TEXTS)


def test_other_schedulers_are_refused(tmp_path: Path) -> None:
    from diffusers import AmusedScheduler

    pipeline = tiny(tmp_path)
    pipeline.scheduler = AmusedScheduler(mask_token_id=3)
    with pytest.raises(ValueError, match="A translation needs an `LSDScheduler` or a `DNDMScheduler`"):
        pipeline(prompt=TEXTS)
