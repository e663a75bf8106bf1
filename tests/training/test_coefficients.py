"""The default recipe: schedule and order, then coefficients of the log-score by the two-sided criterion."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_distillations import pipeline_of, samples, seen_by

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cli import train
from lsd_sampler.denoisers import countdown, random_chain
from lsd_sampler.evaluation import reverse_kl_per_transition
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.training import METHODS
from lsd_sampler.training.coefficients import network_calls as coefficient_calls
from lsd_sampler.training.coefficients import wanted
from lsd_sampler.training.cost import network_calls
from lsd_sampler.training.recording import teacher_plan


L = 16
QUICK: dict[str, Any] = {"nfe": (2, 4), "num_sequences": 8, "held_out_sequences": 4, "batch_size": 64}
QUICK |= {"coefficient_sequences": 32, "reference_sequences": 64, "candidates": ("path_kl:halton", "path_kl:random")}


def betas(scheduler: LSDScheduler, M: int) -> torch.Tensor:
    return scheduler.steps_for(M).log_score_coefficients


def events(records: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [r for r in records if r["event"] == name]


def test_they_lower_the_exact_distance_where_there_is_an_error_and_are_1_where_there_is_none() -> None:
    """Two calls cannot be exact on a chain, and coefficients above 1 mend a part; eight calls are exact."""
    chain = countdown(8, 32)
    config = DistillConfig(
        nfe=(2, 16), num_sequences=16, coefficient_sequences=128, reference_sequences=256, search_evaluations=4000
    )
    learned = distill(pipeline_of(chain), config)
    assert bool((betas(learned, 16) == 1).all()) and bool((betas(learned, 2) > 1).all())
    plain = LSDScheduler.from_config(learned.config)
    table = learned.learned_sampler.step_error
    plain.set_learned_sampler(type(learned.learned_sampler)(step_error=table))
    kl = [reverse_kl_per_transition(samples(chain, s, 2, num=2000), chain.transition) for s in (learned, plain)]
    assert kl[0] < 0.9 * kl[1]


def test_which_methods_have_them() -> None:
    assert wanted(DistillConfig(), METHODS["path_kl"]) and not wanted(DistillConfig(), METHODS["lsd"])
    assert not wanted(DistillConfig(coefficients="plain"), METHODS["path_kl"])
    assert not wanted(DistillConfig(method="path_kl"), METHODS["path_kl"])
    for method in ("path_kl", "jys", "lsd+"):
        assert wanted(DistillConfig(method=method, coefficients="two_sided"), METHODS[method])
    with pytest.raises(ValueError, match="`coefficients` 'two_sided' would replace"):
        DistillConfig(method="lsd", coefficients="two_sided")
    for options in ({"coefficients": "x"}, {"coefficient_sequences": 1}, {"reference_sequences": 15}):
        with pytest.raises(ValueError, match=next(iter(options))):
            DistillConfig(**options)


def test_cost_is_told_beforehand_and_counted() -> None:
    """Schedules, orders and step errors are those of the recipe without coefficients."""
    pipe, records = pipeline_of(random_chain(4, L)), []
    plain = distill(pipe, DistillConfig(**QUICK, coefficients="plain"))
    canvases = seen_by(pipe.denoiser)
    learned = distill(pipe, DistillConfig(**QUICK), log=records.append)
    config = DistillConfig(**QUICK)
    plan = teacher_plan(PipelineRuns(pipe, 0, {}), plain, config)
    recipe = config.resolve(plan)
    assert network_calls(recipe) == records[-1]["network_calls"] == len(canvases) - 1
    # a batch of 64 for the reference; 14 points of a batch, and two comparisons of one
    assert coefficient_calls(recipe) == L + 16 * (2 + 4)
    assert plain.config.order == learned.config.order
    for M in (2, 4):
        assert torch.equal(plain.steps_for(M).timesteps, learned.steps_for(M).timesteps)


def test_data_are_compared_with_where_there_are_enough() -> None:
    chain = random_chain(4, L)
    few, enough = (chain.sample(num, torch.Generator().manual_seed(0)) for num in (63, 64))
    for data, made in ((few, True), (enough, False)):
        records: list[dict[str, Any]] = []
        config = DistillConfig(**QUICK, order="random")
        distill(pipeline_of(chain), config, data=data, log=records.append)
        assert ("bootstrap" in [r["source"] for r in events(records, "teacher")]) == made
        assert [r["nfe"] for r in events(records, "log_score_coefficients")] == [2, 4]


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    chain = random_chain(4, L)
    config = DistillConfig(**QUICK)
    want, done = distill(pipeline_of(chain), config), False
    calls, limit = [0], [40]

    def stop(*_: Any) -> None:
        calls[0] += 1
        if calls[0] > limit[0]:
            raise Stopped

    chain.register_forward_pre_hook(stop)
    stops = 0
    while not done:
        calls[0] = 0
        try:
            got = distill(pipeline_of(chain), config, checkpoint_dir=tmp_path, resume=True)
            done = True
        except Stopped:
            stops += 1
    assert stops >= 2 and all(torch.equal(betas(want, M), betas(got, M)) for M in (2, 4))


class PadsToTheLongest(MaskedDiffusionPipeline):
    """A pipeline whose canvases are as long as the longest prompt of a batch asks for."""

    def __call__(self, prompt: Any, **kwargs: Any) -> Any:
        prompts = [prompt] if isinstance(prompt, str) else prompt
        length = max(len(each) for each in prompts)
        return super().__call__(length=length, num_samples=len(prompts), **kwargs)


def test_sequences_of_unequal_length_are_not_compared() -> None:
    """By default that is said, and the coefficients stay 1; asked for, it is an error."""
    chain = random_chain(4, L)
    pipe = PadsToTheLongest(chain, LSDScheduler(**chain.scheduler_config()))
    options = {**QUICK, "candidates": ("path_kl:halton",), "batch_size": 1, "nfe": (2,)}
    records: list[dict[str, Any]] = []
    learned = distill(pipe, DistillConfig(**options), log=records.append, prompt=["8 tokens", "a few more"])
    (left_out,) = events(records, "log_score_coefficients")
    assert "differ in length" in left_out["left_out"] and bool((betas(learned, 2) == 1).all())
    with pytest.raises(ValueError, match="prompts of equal length"):
        distill(pipe, DistillConfig(**options, coefficients="two_sided"), prompt=["8 tokens", "a few more"])


def test_samples_of_another_length_than_the_reference_are_not_compared() -> None:
    """Batches of 16 hold both prompts, the last batch of samples holds the short one: said, or an error, as above."""
    chain = random_chain(4, L)
    pipe = PadsToTheLongest(chain, LSDScheduler(**chain.scheduler_config()))
    sizes = {"num_sequences": 16, "batch_size": 16, "reference_sequences": 16, "coefficient_sequences": 17}
    options = {**sizes, "candidates": ("path_kl:halton",), "nfe": (2,)}
    records: list[dict[str, Any]] = []
    learned = distill(pipe, DistillConfig(**options), log=records.append, prompt=["8 tokens", "a few more"])
    (left_out,) = events(records, "log_score_coefficients")
    assert "sequences of 10 tokens, the pipeline makes 8" in left_out["left_out"]
    assert bool((betas(learned, 2) == 1).all())
    with pytest.raises(ValueError, match="prompts of equal length"):
        distill(pipe, DistillConfig(**options, coefficients="two_sided"), prompt=["8 tokens", "a few more"])


def test_lsd_train_says_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each number of calls, a section of the card, the tensors of the file; and the cost."""
    monkeypatch.setattr(cards, "_plot", lambda *_: False)
    argv = ["--model", "countdown:V=4,L=16", "--nfe", "2", "4", "--num-sequences", "8"]
    argv += ["--coefficient-sequences", "32", "--reference-sequences", "64", "--output-dir", str(tmp_path / "out")]
    argv += ["--candidates", "path_kl:random", "path_kl:halton", "--held-out-sequences", "16"]
    assert train.main([*argv, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert train.main(argv) == 0
    out = capsys.readouterr().out
    assert f"Network calls: {planned['network_calls']}." in out
    learned, card = LSDScheduler.from_pretrained(tmp_path / "out"), (tmp_path / "out" / "README.md").read_text()
    for M in (2, 4):
        values = betas(learned, M).tolist()
        assert f"{M} calls  log_score_coefficients: {' '.join(f'{v:.4f}' for v in values)}  (distance" in out
        assert f"| {M} | {' '.join(f'{v:.3f}' for v in values)} |" in card
    assert "## Coefficients of the log-score" in card
