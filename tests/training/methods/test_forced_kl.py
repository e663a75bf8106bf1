"""forced_kl: what it learns, on whatever pipeline, at which cost."""

import functools
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.learned_tensors import learned_tensors, same_learned
from helpers.small_distillations import Scored, pipeline_of
from helpers.tiny_maskgit import random_model
from helpers.tiny_pipelines import amused, llada2, oracle_llada2

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.denoisers import random_chain, sudoku4
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.training import cost, measured_dependence, position_tables
from lsd_sampler.training.distill import base_scheduler
from lsd_sampler.training.recording import teacher_plan


LOOKING = ("adaptive", "entropy", "margin")
SMALL: dict[str, Any] = {"nfe": (2, 3), "num_sequences": 6, "batch_size": 4, "search_evaluations": 500}
CHAIN = random_chain(3, 6, seed=1)


def learn(pipe: Any, call: dict[str, Any] | None = None, **options: Any) -> tuple[LSDScheduler, list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    config = DistillConfig(**{"method": "forced_kl", **options})
    return distill(pipe, config, log=records.append, **(call or {})), records


def foreseen(pipe: Any, call: dict[str, Any], **options: Any) -> int:
    """What the dry run says of network calls."""
    config, data = DistillConfig(**{"method": "forced_kl", **options}), call.get("data")
    call = {name: value for name, value in call.items() if name != "data"}
    plan = teacher_plan(PipelineRuns(pipe, 0, call), base_scheduler(pipe, config), config, data is not None)
    return cost.network_calls(config.resolve(plan, data is not None))


# ---- any pipeline ----


def given(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    x_NL = CHAIN.sample(num, torch.Generator().manual_seed(0))
    masked = torch.rand(x_NL.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    masked[:, 0] = True
    return x_NL, x_NL.masked_fill(masked, CHAIN.mask_token_id)


def blocks(**call: Any) -> dict[str, Any]:
    empty = torch.zeros(1, 0, dtype=torch.long)
    return {"input_ids": empty, "mask_token_id": CHAIN.mask_token_id, "gen_length": 6, "block_length": 3, **call}


WORDS = {"gen_length": 6, "block_length": 4, "use_chat_template": False}
PIPELINES: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "canvas": lambda: (pipeline_of(CHAIN), {}),
    "blocks": lambda: (oracle_llada2(CHAIN), blocks()),
    "prompts, blocks partly theirs": lambda: (llada2(), {"prompt": ["a b c", "d e f"], **WORDS}),
    "image": lambda: (amused(), {"prompt": ["a", "b"]}),
    "guided classes": lambda: (maskgit(), {"class_labels": [0, 1, 2], "guidance_scale": 2.0}),
    "prefix": lambda: (pipeline_of(CHAIN), {"prefix": [1, 2]}),
    "partly given": lambda: (pipeline_of(CHAIN), {"input_ids": given(6)[1]}),
    "data": lambda: (pipeline_of(CHAIN), {"data": given(6)[0]}),
    "data, partly given": lambda: (pipeline_of(CHAIN), {"data": given(6)[0], "input_ids": given(6)[1]}),
    "scores at times": lambda: (pipeline_of(Scored(CHAIN, "log_score")), {}),
    "logits at times": lambda: (pipeline_of(Scored(CHAIN, "logits")), {}),
}


def maskgit() -> MaskedDiffusionPipeline:
    model = random_model()
    return MaskedDiffusionPipeline(model, LSDScheduler(**model.scheduler_config()))


class Counted(LSDScheduler):
    """Counts the network's calls by its steps."""

    steps_made = 0

    def step(self, *args: Any, **kwargs: Any) -> Any:
        self.steps_made += 1
        return super().step(*args, **kwargs)


@pytest.mark.parametrize("order", LOOKING)
@pytest.mark.parametrize("name", PIPELINES)
def test_it_learns_on_any_pipeline(name: str, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more network calls than are foreseen; and the sampler makes exactly M on each canvas."""
    for module, constant in ((position_tables, "NUM_STATES"), (position_tables, "NUM_STATES_OF_SIMPLE")):
        monkeypatch.setattr(module, constant, 6)
    monkeypatch.setattr(measured_dependence, "MOST_CALLS", 8)
    torch.manual_seed(0)
    pipe, call = PIPELINES[name]()
    options = {**SMALL, "order": order, "teacher_steps": 8}
    if name == "image":
        options |= {"search_evaluations": 100, "num_sequences": 4}
    scheduler, records = learn(pipe, call, **options)
    assert scheduler.config.order == order and sorted(scheduler.learned_sampler.steps) == [2, 3]
    scheduler.learned_sampler.check("learned")
    assert scheduler.learned_sampler.chooses == (order == "adaptive")
    (done,) = [r for r in records if r["event"] == "done"]
    assert done["network_calls"] <= foreseen(pipe, call, **options)
    json.dumps(records, allow_nan=False)
    call = {key: value for key, value in call.items() if key != "data"}
    runs = PipelineRuns(pipe, 5, call)
    counted = Counted.from_config(scheduler.config)
    counted.begin = lambda _: None  # type: ignore[attr-defined]
    counted.set_learned_sampler(scheduler.learned_sampler)
    canvases = teacher_plan(runs, base_scheduler(pipe, DistillConfig()), DistillConfig()).num_canvases
    for M in (2, 3):
        counted.steps_made = counted.calls = 0  # type: ignore[attr-defined]
        runs.run(counted, M, range(2))
        assert counted.steps_made == M * canvases


@pytest.mark.parametrize("batch_size", [1, 3, 4, 64])
@pytest.mark.parametrize("num_sequences", [4, 5, 9])
def test_batches_of_any_size(batch_size: int, num_sequences: int) -> None:
    """Half of the sequences are learned from and half check, however they are batched; batches change nothing."""
    options = {**SMALL, "order": "entropy", "num_sequences": num_sequences, "batch_size": batch_size}
    scheduler, records = learn(pipeline_of(CHAIN), **options)
    assert records[-1]["network_calls"] <= foreseen(pipeline_of(CHAIN), {}, **options)
    assert len(scheduler.learned_sampler.steps) == 2


def test_more_calls_than_tokens() -> None:
    scheduler, _ = learn(pipeline_of(CHAIN), **{**SMALL, "nfe": (2, 8), "order": "adaptive"})
    assert scheduler.steps_for(8).choice.shares.shape == (8,)


# ---- refusals ----


def test_what_looks_at_tokens_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="'confidence' looks at the tokens that it draws, so nothing says what"):
        DistillConfig(method="forced_kl", order="confidence")


@pytest.mark.parametrize("order", [name for name in ORDERS.names() if not ORDERS[name].looks_at_logits])
def test_fixed_orders_are_path_kls(order: str) -> None:
    with pytest.raises(ValueError, match="'path_kl' finds its times at a smaller cost.*'adaptive'"):
        DistillConfig(method="forced_kl", order=order)


@pytest.mark.parametrize("order", LOOKING)
def test_path_kl_names_the_method_for_orders_that_look(order: str) -> None:
    with pytest.raises(ValueError, match="looks at the logits.*`method` 'forced_kl' in this order"):
        DistillConfig(method="path_kl", order=order)
    with pytest.raises(ValueError, match="looks at the tokens that it draws") as error:
        DistillConfig(method="path_kl", order="confidence")
    assert "forced_kl" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": "bernoulli"}, "`count` must be 'exact'"),
        ({"search_evaluations": 0}, "`search_evaluations`"),
        ({"search_evaluations": 2.5}, "`search_evaluations`"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DistillConfig(method="forced_kl", **options)


def test_half_of_too_few_sequences_check_nothing() -> None:
    with pytest.raises(ValueError, match="`num_sequences` must be at least 4"):
        learn(pipeline_of(CHAIN), nfe=(2,), num_sequences=3)


# ---- cost, resume ----


@functools.cache
def whole_run() -> tuple[LSDScheduler, list[dict[str, Any]]]:
    return learn(pipeline_of(random_chain(3, 6, seed=1)), **SMALL, order="adaptive")


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [3, 20, 300, 400])
def test_a_killed_run_goes_on_to_the_same_numbers(after: int, tmp_path: Path) -> None:
    """While sequences are made, dependence and tables are measured, and shares are searched for."""
    options = {**SMALL, "order": "adaptive"}
    whole, logged = whole_run()
    assert next(r for r in logged if r["event"] == "done")["network_calls"] > after
    broken, calls = random_chain(3, 6, seed=1), itertools.count()

    def kill(*_: Any) -> None:
        if next(calls) == after:
            raise Killed

    broken.register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        learn(pipeline_of(broken), {"checkpoint_dir": tmp_path}, **options)
    resumed, again = learn(
        pipeline_of(random_chain(3, 6, seed=1)), {"checkpoint_dir": tmp_path, "resume": True}, **options
    )
    assert same_learned(whole, resumed)
    logged, again = ([{k: v for k, v in r.items() if k != "seconds"} for r in rows] for rows in (logged, again))
    assert logged == again


def test_seeds_decide() -> None:
    first, second, other = (
        learned_tensors(learn(pipeline_of(CHAIN), **SMALL, order="entropy", seed=seed)[0]) for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    nats = [learn(pipeline_of(CHAIN), **SMALL, order="entropy", seed=seed)[1] for seed in (0, 1)]
    assert len({r["nats"] for records in nats for r in records if r["event"] == "schedule"}) == 4
    assert first.keys() == other.keys()


# ---- what it learns ----


def test_times_say_what_was_measured_where_nothing_else_does() -> None:
    """Of rows that differ in length the shares that are known differ; the times are those of the shares themselves."""
    scheduler, records = learn(pipeline_of(CHAIN), {"input_ids": given(6)[1]}, **SMALL, order="entropy")
    for M in (2, 3):
        (chosen,) = [r for r in records if r["event"] == "position_candidate" and r["nfe"] == M and r["chosen"]]
        left = most = int((given(6)[1] == CHAIN.mask_token_id).sum(1).max())
        expected = []
        for share in chosen["shares"][:-1]:
            left -= math.ceil(share * left - 1e-9)
            expected.append(1 - left / most)
        known = CHAIN.noise.alpha(scheduler.steps_for(M).timesteps[1:-1])
        torch.testing.assert_close(known, torch.tensor(expected).double(), rtol=0, atol=1e-3)


def test_empty_sudokus_in_four_calls_are_valid() -> None:
    """With a budget of seconds, at a fixed seed: at least nine in ten of 1,024; simple orders make one in five."""
    oracle = sudoku4()
    scheduler, records = learn(pipeline_of(oracle), nfe=(4,), search_evaluations=32768, num_sequences=256)
    pipe = MaskedDiffusionPipeline(oracle, scheduler)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    x = pipe(num_samples=1024, num_inference_steps=4, generator=generator, output_type="ids").sequences
    assert float(torch.isfinite(oracle.log_prob(x)).double().mean()) >= 0.9
    compared = {r["name"]: r for r in records if r["event"] == "position_candidate"}
    assert sum(r["chosen"] for r in records if r["event"] == "position_candidate") == 1
    simple = next(r for name, r in compared.items() if name in ("random", "halton"))
    assert simple["nats"] > 7 and not simple["chosen"]  # log 288 is 5.66
