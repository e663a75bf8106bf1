"""The pipeline: what is given stays, no mask remains, and what is saved comes back."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from lsd_sampler import DistillConfig, distill
from lsd_sampler.denoisers import RADDDenoiser, countdown
from lsd_sampler.pipeline_masked_diffusion import MaskedDiffusionPipeline
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.scheduling_lsd import LSDScheduler
from lsd_sampler.training.recording import TeacherRecorder


MASK, LENGTH = 5, 12
CONFIG: dict[str, Any] = {
    "tokens": MASK,
    "model": {"type": "ddit_wot", "hidden_size": 8, "n_heads": 2, "n_blocks": 1, "length": LENGTH, "dropout": 0.0},
}


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({w: i for i, w in enumerate("abcde")}, unk_token="a"))
    words.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=words)


@pytest.fixture
def pipe(tokenizer: PreTrainedTokenizerFast) -> MaskedDiffusionPipeline:
    denoiser = RADDDenoiser(CONFIG).eval()
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()), tokenizer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_integers_of_numpy_are_integers(pipe: MaskedDiffusionPipeline) -> None:
    kwargs: dict[str, int] = {"num_samples": 2, "num_inference_steps": 4, "length": 6}
    expected = pipe(generator=seeded(), **kwargs).sequences
    arrays: dict[str, Any] = {name: np.int64(value) for name, value in kwargs.items()}
    assert torch.equal(pipe(generator=seeded(), **arrays).sequences, expected)
    for value in (np.float64(4), np.bool_(True), True, np.int64(0)):
        with pytest.raises(ValueError, match="`num_inference_steps` must be a positive integer"):
            pipe(num_inference_steps=value)


@pytest.mark.parametrize("steps", [1, 3, 16])
def test_no_mask_remains_and_each_step_that_changes_a_canvas_is_one_call(
    pipe: MaskedDiffusionPipeline, steps: int
) -> None:
    calls: list[torch.Tensor] = []
    pipe.denoiser.register_forward_pre_hook(lambda _, args: calls.append(args[1]))
    out = pipe(num_samples=4, num_inference_steps=steps)
    assert out.sequences.shape == (4, LENGTH)
    assert out.sequences.dtype == torch.int64
    assert not (out.sequences == MASK).any()
    assert out.sequence_calls is not None
    assert len(calls) == out.network_calls == min(steps, LENGTH)
    assert all(t.shape == (4,) for t in calls) and out.sequence_calls.tolist() == [len(calls)] * 4
    assert out.texts is not None
    assert [len(text.split()) for text in out.texts] == [LENGTH] * 4


def test_prefix_and_suffix_stay(pipe: MaskedDiffusionPipeline) -> None:
    for prefix, suffix in (("b c", "d"), ([1, 2], torch.tensor([3])), (torch.tensor([1, 2], dtype=torch.int32), (3,))):
        out = pipe(prefix, suffix, num_samples=3, length=9, num_inference_steps=4)
        assert out.sequences.shape == (3, 9)
        assert (out.sequences[:, :2] == torch.tensor([1, 2])).all()
        assert (out.sequences[:, -1] == 3).all()
    assert pipe("", num_inference_steps=1).sequences.shape == (1, LENGTH)
    assert out.texts is not None and out.texts[0].startswith("b c ")


def test_a_list_of_texts_is_a_canvas_each(pipe: MaskedDiffusionPipeline) -> None:
    """As if each were generated alone, whatever their lengths."""
    prefixes, suffixes = ["b c", "d", ""], ["a", "b b", "c"]
    for suffix in (None, "e", suffixes):
        together = pipe(
            prefixes, suffix, num_samples=2, num_inference_steps=4, generator=[seeded(i) for i in range(6)]
        )
        for i, prefix in enumerate(prefixes):
            end = suffix[i] if isinstance(suffix, list) else suffix
            alone = pipe(prefix, end, num_inference_steps=4, generator=[seeded(2 * i + 1)]).sequences
            assert torch.equal(together.sequences[2 * i + 1], alone[0])
    with pytest.raises(ValueError, match="equally many texts, got \\[2, 3\\]"):
        pipe(prefixes, ["a", "b"])


def test_a_distillation_takes_texts_in_turn(pipe: MaskedDiffusionPipeline) -> None:
    runs = PipelineRuns(pipe, 0, {"prefix": ["b c", "d"], "suffix": "e"})
    recorder = TeacherRecorder.from_config(pipe.scheduler.config)
    runs.run(recorder, 2, range(1, 4))
    final_BL = recorder.canvases[0].final_BL
    assert final_BL[1, :2].tolist() == [1, 2] and final_BL[[0, 2], 0].tolist() == [3, 3]
    assert final_BL[:, -1].tolist() == [4] * 3
    learned = distill(
        pipe, DistillConfig(method="path_kl", nfe=(2,), num_sequences=4, batch_size=3), **runs.call_kwargs
    )
    assert learned.available_num_inference_steps is None


def test_infilling_changes_masks_only(pipe: MaskedDiffusionPipeline) -> None:
    given = torch.randint(MASK + 1, (2, 10))
    out = pipe(input_ids=given, num_samples=3, num_inference_steps=4).sequences
    rows = given.repeat_interleave(3, dim=0)
    assert torch.equal(out[rows != MASK], rows[rows != MASK])
    assert not (out == MASK).any()
    assert pipe(input_ids=given[0].tolist(), num_inference_steps=2).sequences.shape == (1, 10)


def test_a_full_template_needs_no_call(pipe: MaskedDiffusionPipeline) -> None:
    calls = []
    pipe.denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    assert pipe([0, 1, 2], length=3).sequences.tolist() == [[0, 1, 2]]
    assert calls == []


def test_same_generator_same_samples(pipe: MaskedDiffusionPipeline) -> None:
    first = pipe(num_samples=3, num_inference_steps=4, generator=seeded()).sequences
    assert torch.equal(first, pipe(num_samples=3, num_inference_steps=4, generator=seeded()).sequences)
    assert not torch.equal(first, pipe(num_samples=3, num_inference_steps=4, generator=seeded(1)).sequences)
    rows = pipe(num_samples=2, num_inference_steps=4, generator=[seeded(3), seeded(4)]).sequences
    alone = pipe(num_inference_steps=4, generator=[seeded(4)]).sequences
    assert torch.equal(rows[1:], alone)


def test_temperature_zero_takes_the_most_likely_token(pipe: MaskedDiffusionPipeline) -> None:
    out = pipe(num_samples=2, num_inference_steps=1, temperature=0.0).sequences
    with torch.no_grad():
        expected = pipe.denoiser(torch.full((2, LENGTH), MASK))[..., :MASK].argmax(-1)
    assert torch.equal(out, expected)


class OtherScheduler(LSDScheduler):
    """One whose `step` knows no temperature."""

    def step(self, model_output: Any, timestep: Any, sample: Any, *, generator: Any = None) -> Any:
        return super().step(model_output, timestep, sample, generator=generator)


def test_temperature_needs_a_scheduler_that_knows_it(pipe: MaskedDiffusionPipeline) -> None:
    pipe.scheduler = OtherScheduler(**pipe.denoiser.scheduler_config())
    assert not (pipe(num_inference_steps=2).sequences == MASK).any()
    with pytest.raises(ValueError, match="`temperature`"):
        pipe(num_inference_steps=2, temperature=0.5)


def test_callback_sees_and_changes_the_canvas(pipe: MaskedDiffusionPipeline) -> None:
    masks, steps = [], []

    def callback(p: Any, step: int, t: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        assert p is pipe
        masks.append(int((tensors["sample"] == MASK).sum()))
        steps.append((step, float(t)))
        return {"sample": torch.full_like(tensors["sample"], 2)} if step == 3 else {}

    out = pipe(num_inference_steps=4, callback_on_step_end=callback)
    assert masks == sorted(masks, reverse=True) and masks[-1] == 0
    assert [step for step, _ in steps] == [0, 1, 2, 3]
    assert [t for _, t in steps] == sorted((t for _, t in steps), reverse=True)
    assert (out.sequences == 2).all()


def test_outputs(pipe: MaskedDiffusionPipeline) -> None:
    texts, ids = pipe(num_inference_steps=2, return_dict=False)
    assert isinstance(texts, list) and ids.shape == (1, LENGTH)
    out = pipe(num_inference_steps=2, output_type="ids")
    assert out.texts is None and out.sequences.shape == (1, LENGTH)
    pipe.tokenizer = None
    assert pipe(num_inference_steps=2).texts is None


def test_default_number_of_steps(pipe: MaskedDiffusionPipeline) -> None:
    assert pipe._num_steps(None) == 64
    steps = {M: LearnedSteps.plain(torch.linspace(1, 1e-4, M + 1).double()) for M in (4, 8)}
    pipe.scheduler.set_learned_sampler(LearnedSampler(steps))
    assert pipe._num_steps(None) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prefix": [0] * 7, "suffix": [0] * 6}, "`prefix` and `suffix` have 7 \\+ 6"),
        ({"prefix": [0], "input_ids": [0, MASK]}, "`input_ids` excludes"),
        ({"prefix": [MASK]}, "`prefix`.*without the mask"),
        ({"suffix": [-1]}, "`suffix`"),
        ({"input_ids": [0, MASK + 1]}, "`input_ids`"),
        ({"input_ids": [0.5, 1.0]}, "`input_ids`.*integer"),
        ({"input_ids": [[0, 1], [0]]}, "`input_ids`"),
        ({"input_ids": []}, "`input_ids`"),
        ({"input_ids": [MASK] * 4, "length": 5}, "`length`"),
        ({"input_ids": [MASK] * (LENGTH + 1)}, "`length`"),
        ({"length": LENGTH + 1}, "`length`"),
        ({"length": 0}, "`length`"),
        ({"num_samples": 0}, "`num_samples`"),
        ({"num_inference_steps": 0}, "`num_inference_steps`"),
        ({"temperature": -1.0}, "`temperature`"),
        ({"temperature": float("nan")}, "`temperature`"),
        ({"output_type": "latent"}, "`output_type`"),
        ({"generator": [torch.Generator()], "num_samples": 2}, "`generator`"),
        ({"callback_on_step_end_tensor_inputs": ["latents"]}, "`callback_on_step_end_tensor_inputs`"),
    ],
)
def test_bad_arguments_are_named(pipe: MaskedDiffusionPipeline, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


def test_texts_need_a_tokenizer(pipe: MaskedDiffusionPipeline) -> None:
    pipe.tokenizer = None
    with pytest.raises(ValueError, match="no tokenizer"):
        pipe("a b")


def test_no_tensor_inputs_for_a_callback(pipe: MaskedDiffusionPipeline) -> None:
    given: list[dict[str, Any]] = []
    for inputs in (None, []):
        out = pipe(
            num_inference_steps=3,
            generator=seeded(),
            callback_on_step_end=lambda *args: given.append(args[-1]),
            callback_on_step_end_tensor_inputs=inputs,
        )
        assert torch.equal(out.sequences, pipe(num_inference_steps=3, generator=seeded()).sequences)
    assert given == [{}] * 6


def test_interrupt_stops_before_the_next_step(pipe: MaskedDiffusionPipeline) -> None:
    """As in diffusers: set by a callback; the next generation is whole again."""
    steps: list[int] = []

    def stop(pipe: Any, step: int, t: torch.Tensor, tensors: dict[str, torch.Tensor]) -> None:
        steps.append(step)
        pipe._interrupt = step == 1

    out = pipe(num_inference_steps=4, generator=seeded(), callback_on_step_end=stop)
    assert steps == [0, 1] and out.network_calls == 2 and (out.sequences == MASK).any()
    assert not (pipe(num_inference_steps=4, generator=seeded()).sequences == MASK).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *(({"generator": value}, "`generator` must be a torch.Generator") for value in (0, "0", [0], np.random)),
        *(({"temperature": value}, "`temperature` must be a number >= 0") for value in (None, "0.5", True, [1.0])),
        ({"guidance_scale": "2"}, "`guidance_scale`"),
        ({"class_labels": "cat"}, "`class_labels`"),
        ({"callback_on_step_end": 3}, "`callback_on_step_end`"),
        ({"prefix": [1, MASK]}, "`prefix` must be tokens without the mask.*`input_ids`"),
        ({"suffix": [MASK]}, "`suffix` must be tokens without the mask.*`input_ids`"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(
    pipe: MaskedDiffusionPipeline, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        pipe(num_inference_steps=2, **options)
    shared = {name: value for name, value in options.items() if name in ("generator", "temperature")}
    if shared:
        pipe.scheduler.set_timesteps(2)
        canvas = torch.full((1, 4), MASK)
        with pytest.raises(ValueError, match=words):
            pipe.scheduler.step(torch.zeros(1, 4, MASK), pipe.scheduler.timesteps[0], canvas, **shared)


def test_a_text_with_the_mask_is_told_about_input_ids() -> None:
    pipe = MaskedDiffusionPipeline(chain := countdown(4, 8), LSDScheduler(**chain.scheduler_config()))
    pipe.tokenizer = lambda text, **_: SimpleNamespace(
        input_ids=[{"a": 0, "[MASK]": 4}[word] for word in text.split()]
    )
    with pytest.raises(ValueError, match="`prefix` must be tokens without the mask 4.*`input_ids`"):
        pipe("a [MASK]")


def test_scheduler_of_another_model_is_refused(pipe: MaskedDiffusionPipeline) -> None:
    pipe.scheduler = LSDScheduler(mask_token_id=MASK + 1)
    with pytest.raises(ValueError, match="`mask_token_id`"):
        pipe()


def test_raw_checkpoints_and_names(tmp_path: Path) -> None:
    RADDDenoiser(CONFIG).save_pretrained(tmp_path)
    scheduler = LSDScheduler(mask_token_id=MASK, order="halton")
    pipe = MaskedDiffusionPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16, scheduler=scheduler)
    assert isinstance(pipe.denoiser, RADDDenoiser)
    assert pipe.scheduler is scheduler
    assert pipe.denoiser.dtype == torch.bfloat16
    assert pipe.config["_name_or_path"] == str(tmp_path)
    chain = MaskedDiffusionPipeline.from_pretrained("countdown:V=4,L=8")
    chain.set_progress_bar_config(disable=True)
    assert isinstance(chain.scheduler, LSDScheduler)
    x = chain(num_samples=20, num_inference_steps=64, generator=seeded()).sequences
    assert ((x[:, 1:] == x[:, :-1] - 1) | (x[:, :-1] == 0)).all()  # one token a step: exact
    with pytest.raises(ValueError, match="Did you mean"):
        MaskedDiffusionPipeline.from_pretrained("count-down")
    with pytest.raises(OSError, match="nothing"):
        MaskedDiffusionPipeline.from_pretrained(tmp_path / "nothing")


RELOAD = """
import sys, torch
import lsd_sampler
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
out = pipe("b", num_samples=2, num_inference_steps=4, generator=torch.Generator().manual_seed(0))
names = [type(part).__name__ for part in (pipe, pipe.denoiser, pipe.scheduler)]
print(*names, out.sequences.tolist(), out.texts)
"""


def test_reload_in_a_fresh_process(pipe: MaskedDiffusionPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    out = pipe("b", num_samples=2, num_inference_steps=4, generator=seeded())
    result = subprocess.run([sys.executable, "-c", RELOAD, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    names = "MaskedDiffusionPipeline RADDDenoiser LSDScheduler"
    assert result.stdout.strip().splitlines()[-1] == f"{names} {out.sequences.tolist()} {out.texts}"


def test_oracle_pipeline_without_tokenizer_reloads(tmp_path: Path) -> None:
    denoiser = countdown(4, 8)
    MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config())).save_pretrained(tmp_path)
    for cls in (DiffusionPipeline, MaskedDiffusionPipeline):
        pipe = cls.from_pretrained(tmp_path, dtype=torch.float16)
        assert isinstance(pipe, MaskedDiffusionPipeline)
        assert torch.equal(pipe.denoiser.transition, denoiser.transition)
        assert pipe.tokenizer is None


def test_casts_move_the_pipeline_but_not_the_oracle() -> None:
    denoiser = countdown(4, 8)
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
    assert pipe.to(torch.float16).denoiser.dtype == torch.float64


def test_any_callable_output_type_works(pipe: MaskedDiffusionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `prev_sample` is asked of a scheduler's output."""
    step = LSDScheduler.step

    def bare(self: LSDScheduler, *args: Any, generator: Any = None) -> Any:
        return SimpleNamespace(prev_sample=step(self, *args, generator=generator, return_dict=False)[0])

    monkeypatch.setattr(LSDScheduler, "step", bare)
    assert not (pipe(num_inference_steps=2).sequences == MASK).any()
