"""Real sequences of partly given canvases: prompts, infilling, clues."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_distillations import pipeline_of, seen_by
from helpers.tiny_pipelines import oracle_llada2

from lsd_sampler import DistillConfig, LSDScheduler, distill, load_denoiser
from lsd_sampler.denoisers import MarkovDenoiser, random_chain
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.training.cost import network_calls
from lsd_sampler.training.distill import base_scheduler
from lsd_sampler.training.paths import TeacherPath
from lsd_sampler.training.recording import StepErrorRecorder, TeacherRecorder, teacher_plan


L, MASK = 8, 4
CHAIN = random_chain(4, L, seed=2)
SMALL = {"nfe": (2, 4), "num_sequences": 6, "batch_size": 4}
FEW: dict[str, Any] = {"held_out_sequences": 4, "coefficients": "plain", "search_evaluations": 2000}


def canvases_of(x_NL: torch.Tensor, most_given: int, seed: int = 1) -> torch.Tensor:
    """Row i gives `i % (most_given + 1)` tokens at random."""
    place_NL = torch.rand(x_NL.shape, generator=torch.Generator().manual_seed(seed)).argsort(1).argsort(1)
    return torch.where(place_NL < torch.arange(len(x_NL))[:, None] % (most_given + 1), x_NL, MASK)


def table(scheduler: LSDScheduler) -> torch.Tensor:
    assert scheduler.learned_sampler.step_error is not None
    return scheduler.learned_sampler.step_error.table


def finals(pipe: Any, order: str, steps: int, num: int, **call: Any) -> torch.Tensor:
    """How the teacher's sequences of seed 0 end, canvases one after another."""
    batches = []
    for first in range(0, num, SMALL["batch_size"]):
        teacher = TeacherRecorder(mask_token_id=MASK, order=order)
        PipelineRuns(pipe, 0, call).run(teacher, steps, range(first, min(first + SMALL["batch_size"], num)))
        batches.append(torch.cat([canvas.final_BL for canvas in teacher.canvases], dim=1))
    return torch.cat(batches)


def log_prob(chain: Any, x_L: torch.Tensor, canvas_L: torch.Tensor) -> torch.Tensor:
    """`log p(x | what the canvas gives)` by the chain rule from the left, with posteriors of the oracle."""
    total = torch.zeros((), dtype=torch.float64)
    canvas_L = canvas_L.clone()
    for i in (canvas_L == chain.mask_token_id).nonzero()[:, 0].tolist():
        total += chain(canvas_L[None])[0, i, x_L[i]]
        canvas_L[i] = x_L[i]
    return total


@pytest.mark.parametrize("model", ["markov:V=4,L=8,seed=2", "sudoku4"])
def test_one_token_a_call_costs_what_the_oracle_says(model: str) -> None:
    """`auto`'s held-out real sequences: the mean of `-log p(x | given)` for each masked token, whatever the order."""
    oracle: Any = load_denoiser(model)
    x_NL = oracle.sample(10, torch.Generator().manual_seed(0))
    canvas_NL, records = canvases_of(x_NL, 5), []
    options = {"candidates": ("path_kl:halton", "path_kl:random"), "held_out_sequences": 4, "coefficients": "plain"}
    config = DistillConfig(**{**SMALL, "nfe": (oracle.length,)}, **options)
    distill(pipeline_of(oracle), config, data=x_NL, log=records.append, input_ids=canvas_NL)
    nats = [
        float(-log_prob(oracle, x, canvas) / (canvas == oracle.mask_token_id).sum())
        for x, canvas in zip(x_NL[6:], canvas_NL[6:], strict=True)
    ]
    found = [record["nats_per_token"] for record in records if record["event"] == "candidate"]
    assert found == pytest.approx([sum(nats) / 4] * 2, abs=1e-10) and sum(nats) > 0.1


@pytest.mark.parametrize("order", ["random", "halton"])
@pytest.mark.parametrize("call", ["canvases", "prefix", "suffix", "more sequences than canvases"])
def test_what_counts_of_a_path_is_how_it_ends(order: str, call: str) -> None:
    """Data that are the teacher's completions of the same canvases give its table, bit for bit."""
    drawn = CHAIN.sample(6, torch.Generator().manual_seed(0))
    given: dict[str, Any] = {
        "canvases": {"input_ids": canvases_of(drawn, 5)},
        "prefix": {"prefix": [1, 2]},
        "suffix": {"suffix": [3]},
        "more sequences than canvases": {"input_ids": canvases_of(drawn, 5)[2:5]},
    }[call]
    pipe, config = pipeline_of(CHAIN), DistillConfig(method="path_kl", order=order, **SMALL, teacher_steps=L)
    by_teacher = distill(pipe, config, **given)
    data = finals(pipe, order, L, 6, **given)
    assert torch.equal(table(distill(pipe, config, data=data, **given)), table(by_teacher))


def test_other_data_of_the_same_canvases_give_nearly_the_same_schedules() -> None:
    """Exact completions against the teacher's: the path KL of every schedule differs by less than the noise of 512
    sequences, and both are far from what whole canvases ask for.
    """
    chain = random_chain(4, 16, seed=3)
    x_NL = chain.sample(512, torch.Generator().manual_seed(0))
    canvas_NL = x_NL.masked_fill(torch.arange(16) % 4 > 0, MASK)
    data = chain.fill(canvas_NL, torch.Generator().manual_seed(5))
    config = DistillConfig(method="path_kl", order="random", nfe=(2, 3, 4, 6), num_sequences=512)

    def costs(**options: Any) -> torch.Tensor:
        records: list[dict[str, Any]] = []
        distill(pipeline_of(chain), config, log=records.append, **options)
        return torch.tensor([r["path_kl"] for r in records if r["event"] == "schedule"])

    by_data, by_teacher = costs(data=data, input_ids=canvas_NL), costs(input_ids=canvas_NL)
    torch.testing.assert_close(by_data, by_teacher, rtol=0.2, atol=0.02)
    assert bool((costs(data=x_NL) > 1.5 * by_data).all())


def test_given_tokens_never_change_and_the_cost_is_known() -> None:
    pipe, x_NL = pipeline_of(random_chain(4, L, seed=2)), CHAIN.sample(10, torch.Generator().manual_seed(0))
    canvas_NL = canvases_of(x_NL, 5)
    seen, records = seen_by(pipe.denoiser), []
    call: dict[str, Any] = {"input_ids": canvas_NL}
    for options in ({"method": "path_kl"}, FEW):
        config = DistillConfig(**SMALL, **options)
        plan = teacher_plan(PipelineRuns(pipe, 0, call), base_scheduler(pipe, config), config)
        assert (plan.fewest_masked, plan.num_masked, plan.is_whole) == (L - 3, L, False)
        seen.clear()
        distill(pipe, config, data=x_NL, log=records.append, **call)
        planned = network_calls(config.resolve(plan, has_data=True))
        # a step on which no row of a batch reveals anything needs no call
        assert records[-1]["network_calls"] == len(seen) <= planned
        for state_BL in seen:
            match_BN = ((state_BL[:, None] == canvas_NL) | (canvas_NL == MASK)).all(2)
            assert bool(match_BN.any(1).all())


@pytest.mark.parametrize("options", [{"method": "path_kl"}, {"held_out_sequences": 4, "coefficients": "plain"}])
def test_the_cost_of_equally_many_clues_is_told_exactly(options: dict[str, Any]) -> None:
    """A call for the plan, one for each batch that is looked at, and those of the method for fewer tokens."""
    pipe, x_NL = pipeline_of(random_chain(4, L, seed=2)), CHAIN.sample(10, torch.Generator().manual_seed(0))
    call: dict[str, Any] = {"input_ids": x_NL.masked_fill(torch.arange(L) % 3 > 0, MASK)}
    config = DistillConfig(**SMALL, candidates=("path_kl:halton", "path_kl:random"), **options)
    plan = teacher_plan(PipelineRuns(pipe, 0, call), base_scheduler(pipe, config), config)
    seen, records = seen_by(pipe.denoiser), []
    distill(pipe, config, data=x_NL, log=records.append, **call)
    planned = network_calls(config.resolve(plan, has_data=True))
    assert planned == records[-1]["network_calls"] == len(seen)
    assert planned == (1 + 2 + 2 * 5 if "method" in options else 1 + 3 + 2 * 2 * 5 + 2 * (2 + 4))


def test_whole_canvases_need_no_look() -> None:
    pipe, x_NL, records = pipeline_of(CHAIN), CHAIN.sample(6, torch.Generator().manual_seed(0)), []
    config = DistillConfig(method="path_kl", **SMALL)
    whole = distill(pipe, config, data=x_NL, log=records.append)
    assert records[-1]["network_calls"] == 1 + 2 * L
    looked = distill(pipe, config, data=x_NL, log=records.append, input_ids=[[MASK] * L])
    assert records[-1]["network_calls"] == 1 + 2 + 2 * L
    assert torch.equal(table(looked), table(whole))


@pytest.mark.parametrize("prompt", [0, 2, 5])
def test_blocks(prompt: int) -> None:
    """LLaDA2Pipeline: a canvas for each block that is not all prompt, with the rest of the prompt in the first."""
    chain = random_chain(4, 12, seed=3)
    pipe: Any = oracle_llada2(chain)
    given = chain.sample(1, torch.Generator().manual_seed(0))[:, :prompt]
    call = {"input_ids": given, "mask_token_id": MASK, "gen_length": 12 - prompt, "block_length": 4}
    config = DistillConfig(method="path_kl", order="random", teacher_steps=4, **{**SMALL, "nfe": (2,)})
    records: list[dict[str, Any]] = []
    data = finals(pipe, "random", 4, 6, **call)
    assert data.shape == (6, 12 - prompt // 4 * 4)
    learned = distill(pipe, config, data=data, log=records.append, **call)
    assert torch.equal(table(learned), table(distill(pipe, config, **call)))
    blocks = data.shape[1] // 4
    shown = " \\+ ".join(["4"] * blocks)
    with pytest.raises(ValueError, match=f"`data` has 3 tokens in a sequence.* canvases of {shown}: give whole"):
        distill(pipe, config, data=data[:, :3], **call)
    if prompt == 5:
        with pytest.raises(ValueError, match="row 1 has token . at position 0"):
            data[1:, 0] = (data[1:, 0] + 1) % 4
            distill(pipe, config, data=data, **call)


def test_tokens_that_are_given_may_be_any() -> None:
    """What the model never predicts counts where it is masked alone."""
    never = random_chain(5, L)
    forward = never.forward

    def without(tokens: torch.Tensor, t: Any = None) -> torch.Tensor:
        return forward(tokens).index_fill(2, torch.tensor(3), -torch.inf)

    never.forward = without  # type: ignore[method-assign]
    x_NL = never.sample(6, torch.Generator().manual_seed(0)).masked_fill_(torch.arange(L) < 5, 3)
    x_NL[:, 5:] = x_NL[:, 5:] % 3
    config = DistillConfig(method="path_kl", **{**SMALL, "nfe": (2,)})
    with pytest.raises(ValueError, match="more than 25%"):
        distill(pipeline_of(never), config, data=x_NL)
    assert bool(table(distill(pipeline_of(never), config, data=x_NL, prefix=[3] * 5)).isfinite().all())


def test_a_token_that_is_impossible_on_one_canvas_counts_on_others() -> None:
    """In batches of one sequence, too: each state of the chain has two successors of six."""
    states = torch.arange(6)
    two = (states[:, None] + torch.tensor([1, 2])) % 6
    chain = MarkovDenoiser(torch.zeros(6, 6).scatter_(1, two, torch.tensor([[0.3, 0.7]]).expand(6, 2)), length=3)
    x_NL = chain.sample(12, torch.Generator().manual_seed(1))
    call: dict[str, Any] = {"data": x_NL, "input_ids": x_NL.masked_fill(torch.arange(3) > 0, 6)}
    options: dict[str, Any] = {"method": "path_kl", "nfe": (2,), "num_sequences": 12}
    tables = [table(distill(pipeline_of(chain), DistillConfig(**options, batch_size=b), **call)) for b in (1, 12)]
    torch.testing.assert_close(tables[0], tables[1], rtol=0, atol=1e-12)
    assert float(tables[0].min(1).values.max()) > 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            {"prefix": [1, 2]},
            "`data`: row 4 has token 0 at position 1 .both counted from 0., where its canvas gives 2",
        ),
        ({"suffix": [3]}, "`data`: row 0 has token 0 at position 7 "),
        ({"input_ids": [[MASK] * 7 + [0], [3] + [MASK] * 7]}, "`data`: row 1 has token 1 at position 0 "),
        ({"input_ids": [[MASK] * 8, [1, 2] + [0] * 6]}, "nothing is masked in the canvas of row 1 "),
        ({"length": 6}, "`data` has 8 tokens in a sequence.* 6"),
        ({"length": 6, "prefix": [1]}, "`data` has 8 tokens in a sequence.* canvases of 6"),
    ],
)
def test_data_that_complete_other_canvases_are_refused(call: dict[str, Any], words: str, tmp_path: Path) -> None:
    data = torch.zeros(6, L, dtype=torch.int64)
    data[:, :2] = torch.tensor([1, 2])
    if "prefix" in call:
        data[4, 1] = 0
    config = DistillConfig(method="path_kl", **SMALL)
    with pytest.raises(ValueError, match=words):
        distill(pipeline_of(CHAIN), config, data=data, checkpoint_dir=tmp_path / "p", **call)
    assert not (tmp_path / "p").exists()


def test_a_replay_is_of_the_canvases_that_were_looked_at() -> None:
    """A pipeline may pad prompts by the batch, and so begin from other canvases."""
    recorder = StepErrorRecorder(mask_token_id=MASK)
    final_BL = torch.zeros(2, L, dtype=torch.int64)
    path = TeacherPath(final_BL.bool().logical_not(), final_BL, final_BL.int())
    recorder.replay(torch.arange(2), [path], L)
    runs = PipelineRuns(pipeline_of(CHAIN), 0, {"prefix": [1]})
    with pytest.raises(ValueError, match="`data` do not hold what the canvases of this pipeline call give"):
        runs.run(recorder, 2, range(2))


def test_held_out_rows_are_checked_before_the_work(tmp_path: Path) -> None:
    pipe, x_NL = pipeline_of(random_chain(4, L, seed=2)), CHAIN.sample(10, torch.Generator().manual_seed(0))
    canvas_NL = canvases_of(x_NL, 5)
    canvas_NL[9, 2] = (x_NL[9, 2] + 1) % 4
    seen = seen_by(pipe.denoiser)
    config = DistillConfig(**SMALL, held_out_sequences=4, coefficients="plain")
    with pytest.raises(ValueError, match="row 9 has token . at position 2 "):
        distill(pipe, config, data=x_NL, input_ids=canvas_NL)
    assert len(seen) <= 1 + 3


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """Wherever it was stopped, to the same numbers and the same count of calls; other canvases are another run."""
    chain = random_chain(4, L, seed=2)
    pipe, x_NL = pipeline_of(chain), CHAIN.sample(10, torch.Generator().manual_seed(0))
    call: dict[str, Any] = {"data": x_NL, "input_ids": canvases_of(x_NL, 5)}
    names = ("path_kl:halton", "path_kl:random", "lsd:random")
    config = DistillConfig(**SMALL, held_out_sequences=4, coefficients="plain", candidates=names)
    told: list[dict[str, Any]] = []
    want = distill(pipe, config, log=told.append, **call)

    class Stopped(Exception):
        pass

    calls = [0]

    def stop(*_: Any) -> None:
        calls[0] += 1
        if calls[0] > 12:
            raise Stopped

    chain.register_forward_pre_hook(stop)
    got, records = None, []
    while got is None:
        calls[0] = 0
        records.clear()
        with contextlib.suppress(Stopped):
            got = distill(pipe, config, log=records.append, checkpoint_dir=tmp_path, resume=True, **call)
    assert records[-1]["network_calls"] == told[-1]["network_calls"]
    assert all(torch.equal(got.steps_for(M).timesteps, want.steps_for(M).timesteps) for M in (2, 4))
    calls[0] = 0
    with pytest.raises(ValueError, match="other options"):
        others = {**call, "input_ids": canvases_of(x_NL, 5, seed=3)}
        distill(pipe, config, checkpoint_dir=tmp_path, resume=True, **others)
