"""Distillation by any method: the pipeline is left as it was, calls are counted, what cannot be done is named."""

import itertools
import json
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from helpers.small_distillations import learn, pipeline_of, samples, seen_by

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.denoisers import RADDDenoiser, countdown, random_chain
from lsd_sampler.evaluation import forbidden_share, reverse_kl_per_transition


RADD: dict[str, Any] = {
    "tokens": 5,
    "model": {"type": "ddit_wot", "hidden_size": 8, "n_heads": 2, "n_blocks": 1, "length": 12, "dropout": 0.1},
}


@pytest.mark.parametrize("options", [{}, {"method": "lsd"}, {"method": "lsd", "optimizer": "adam", "epochs": 2}])
def test_network_and_pipeline_are_left_as_they_were(options: dict[str, Any]) -> None:
    denoiser = RADDDenoiser(RADD).eval()
    pipe = pipeline_of(denoiser)
    pipe.set_progress_bar_config(desc="mine", disable=True)
    scheduler, config = pipe.scheduler, dict(pipe.config)
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    learned = distill(
        pipe, DistillConfig(**{"method": "path_kl", "nfe": (2, 4), "num_sequences": 4, "teacher_steps": 12, **options})
    )
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    assert all(parameter.grad is None for parameter in denoiser.parameters())
    assert not denoiser.training
    assert pipe.scheduler is scheduler and learned is not scheduler
    assert dict(pipe.config) == config
    assert pipe._progress_bar_config == {"desc": "mine", "disable": True}
    assert learned.config.mask_token_id == 5
    assert not (pipe(num_samples=2, num_inference_steps=3, output_type="ids").sequences == 5).any()


@pytest.mark.parametrize("call", [0, 3, 20])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_pipeline_is_restored_when_the_network_raises(call: int, error: type[BaseException]) -> None:
    chain = countdown(8, 16)
    pipe = pipeline_of(chain)
    pipe.set_progress_bar_config(desc="mine", disable=True)
    scheduler, calls = pipe.scheduler, itertools.count()

    def fail(*_: Any) -> None:
        if next(calls) == call:
            raise error("the network broke")

    hook = chain.register_forward_pre_hook(fail)
    with pytest.raises(error, match="the network broke"):
        distill(pipe, DistillConfig(method="path_kl", nfe=(4,), num_sequences=2))
    assert pipe.scheduler is scheduler
    assert pipe._progress_bar_config == {"desc": "mine", "disable": True}
    hook.remove()
    assert distill(pipe, DistillConfig(method="path_kl", nfe=(4,), num_sequences=2)).learned_sampler


def test_what_the_base_samplers_config_says_is_kept() -> None:
    chain = countdown(8, 16)
    pipe = pipeline_of(chain, noise_eps=0.01, sampling_eps=1e-3, order="confidence")
    learned = distill(pipe, DistillConfig(method="path_kl", nfe=(4,), num_sequences=2, solver="euler"))
    assert learned.config.noise_eps == 0.01 and learned.config.sampling_eps == 1e-3
    assert (learned.config.solver, learned.config.order, learned.config.count) == ("euler", "halton", "exact")
    assert float(learned.steps_for(4).timesteps[-1]) == 1e-3


# ---- what it costs ----


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"nfe": (2, 4), "num_sequences": 6, "batch_size": 4}, 1 + 2 * (16 + 16)),
        ({"nfe": (2, 4), "num_sequences": 4, "teacher_steps": 10}, 1 + 10 + 16),
        ({"nfe": (2,), "num_sequences": 4, "teacher_steps": 20, "count": "bernoulli"}, 1 + 20 + 16),
        ({"method": "lsd", "nfe": (2, 4), "teacher_steps": 20, "num_sequences": 6, "batch_size": 4}, 1 + 32 + 6),
        (
            {
                "method": "lsd",
                "nfe": (2, 4),
                "optimizer": "adam",
                "epochs": 3,
                "num_sequences": 4,
                "adam_batch_size": 2,
            },
            1 + 16 + 3 * 2 * (2 + 4),
        ),
    ],
)
def test_network_calls_are_counted_as_they_happen(options: dict[str, Any], calls: int) -> None:
    chain, records = countdown(4, 16), []
    canvases = seen_by(chain)
    distill(pipeline_of(chain), DistillConfig(**{"method": "path_kl", **options}), log=records.append)
    assert records[-1]["event"] == "done"
    assert records[-1]["network_calls"] == len(canvases) == calls
    json.dumps(records, allow_nan=False)


# ---- what can be distilled ----


@pytest.mark.parametrize(("num_states", "advice"), [(128, "only 16 tokens"), (5, "num_states")])
def test_more_steps_than_states_is_refused_before_the_work(num_states: int, advice: str) -> None:
    chain = countdown(4, 16)
    canvases = seen_by(chain)
    with pytest.raises(ValueError, match="`nfe` 17") as error:
        distill(pipeline_of(chain), DistillConfig(method="path_kl", nfe=(4, 17), num_states=num_states))
    assert advice in str(error.value)
    assert len(canvases) <= 1


def test_a_sampler_can_be_distilled_for_a_prompt() -> None:
    """The table covers the positions that the prompt leaves, and its schedules reveal just those."""
    call: dict[str, Any] = {"prefix": [1, 2]}
    learned = learn(random_chain(4, 16), call, nfe=(4,), num_sequences=4)
    assert learned.learned_sampler.step_error is not None
    assert learned.learned_sampler.step_error.seq_len == 14
    out = MaskedDiffusionPipeline(random_chain(4, 16), learned)(
        num_inference_steps=4, num_samples=3, output_type="ids", **call
    )
    assert (out.sequences < 4).all() and (out.sequences[:, :2] == torch.tensor([1, 2])).all()
    learned = learn(random_chain(4, 16), call, method="lsd", nfe=(4,), teacher_steps=16, num_sequences=4)
    assert learned.available_num_inference_steps == [4]


class Loop(DiffusionPipeline):
    """A pipeline around a chain, of one sequence; subclasses say how they are asked for more."""

    def __init__(self, scheduler: LSDScheduler):
        super().__init__()
        self.register_modules(scheduler=scheduler)
        self.chain = countdown(4, 16)

    def __call__(self, num_inference_steps: int = 4, generator: Any = None) -> None:
        self.fill(1, num_inference_steps, generator)

    def fill(self, number: int, num_inference_steps: int, generator: Any) -> None:
        canvas = torch.full((number, 16), 4)
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            canvas = self.scheduler.step(self.chain(canvas), t, canvas, generator=generator).prev_sample


class NumSamples(Loop):
    def __call__(self, num_inference_steps: int = 4, generator: Any = None, num_samples: int = 1) -> None:
        self.fill(num_samples, num_inference_steps, generator)


class BatchSize(Loop):
    def __call__(self, num_inference_steps: int = 4, generator: Any = None, batch_size: int = 1) -> None:
        self.fill(batch_size, num_inference_steps, generator)


class NumImages(Loop):
    def __call__(self, num_inference_steps: int = 4, generator: Any = None, num_images_per_prompt: int = 1) -> None:
        self.fill(num_images_per_prompt, num_inference_steps, generator)


class NoGenerator(Loop):
    def __call__(self, num_inference_steps: int = 4, num_samples: int = 1) -> None:
        self.fill(num_samples, num_inference_steps, None)


def test_pipelines_have_several_words_for_how_many() -> None:
    """What is learned does not depend on the word, nor on having none, in batches of one."""
    config = DistillConfig(method="path_kl", nfe=(4,), num_sequences=4)
    alone = DistillConfig(method="path_kl", nfe=(4,), num_sequences=4, batch_size=1)
    scheduler = LSDScheduler(**countdown(4, 16).scheduler_config())
    learned = [distill(kind(scheduler), config) for kind in (NumSamples, BatchSize, NumImages)]
    tables = [each.learned_sampler.step_error for each in [*learned, distill(Loop(scheduler), alone)]]
    assert all(table is not None and torch.equal(table.table, tables[0].table) for table in tables)
    with pytest.raises(ValueError, match="argument `num_samples`, `batch_size` or `num_images_per_prompt`.* 4 seq"):
        distill(Loop(scheduler), config)
    with pytest.raises(ValueError, match="the call of NoGenerator needs an argument `generator`"):
        distill(NoGenerator(scheduler), config)


def test_missing_mask_token_is_a_named_error() -> None:
    pipe = pipeline_of(countdown(4, 16))
    pipe.scheduler = LSDScheduler()
    with pytest.raises(ValueError, match="mask_token_id"):
        distill(pipe, DistillConfig(method="path_kl", nfe=(4,)))


# ---- acceptance ----


@pytest.mark.slow
def test_acceptance_on_countdown(tmp_path: Any) -> None:
    """The default countdown (V = 32, L = 256), 4,096 samples."""
    from lsd_sampler.cli.train import main

    chain = countdown()
    argv = ["--model", "countdown", "--nfe", "4", "8", "16", "32", "--seed", "0", "--output-dir"]
    assert main([*argv, str(tmp_path / "halton"), "--order", "halton"]) == 0
    assert main([*argv, str(tmp_path / "random"), "--order", "random"]) == 0

    def many(scheduler: LSDScheduler, steps: int) -> torch.Tensor:
        return torch.cat([samples(chain, scheduler, steps, num=512, seed=1000 + batch) for batch in range(8)])

    halton = many(LSDScheduler.from_pretrained(tmp_path / "halton"), 8)
    assert forbidden_share(halton, chain.transition) <= 0.002
    assert reverse_kl_per_transition(halton, chain.transition) <= 0.02
    learned, base = LSDScheduler.from_pretrained(tmp_path / "random"), LSDScheduler(**chain.scheduler_config())
    for steps in (8, 16, 32):
        ours, theirs = (reverse_kl_per_transition(many(s, steps), chain.transition) for s in (learned, base))
        assert ours <= 0.35 * theirs, f"{steps} steps: {ours:.4f} against {theirs:.4f}"
