"""The objective `answers`: what is right decides."""

from typing import Any

import pytest
import torch
from helpers.forced_runs import task_of
from helpers.own_denoisers import Own

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill, load_denoiser
from lsd_sampler.support.tasks import VALID, make_checker
from lsd_sampler.training.answers import AnswerFigure, Answers, checked_answers
from lsd_sampler.training.position_candidates import Candidate


ITEMS = [{"canvas": [None, 1]}, {"canvas": [None, 0]}]


def pipeline_of(spec: str) -> MaskedDiffusionPipeline:
    oracle = load_denoiser(spec)
    return MaskedDiffusionPipeline(oracle, LSDScheduler(**oracle.scheduler_config()))


def is_pair(output: list[int], item: dict[str, Any]) -> bool:
    return output[1] == item["canvas"][1] and output[0] == output[1]


def test_sequence_i_answers_item_i_modulo_their_number() -> None:
    answers = Answers(ITEMS, is_pair)
    sequences = torch.tensor([[1, 1], [0, 0], [0, 1], [1, 1]])
    assert answers.right(sequences, [0, 1, 2, 3]).tolist() == [True, True, False, False]
    assert answers.right(sequences[:1], [2]).tolist() == [True]


def test_tasks_are_checked_when_they_are_given() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Answers([], is_pair)
    with pytest.raises(ValueError, match="'canvas'"):
        Answers([{"question": "1 + 1"}], is_pair)


def test_other_tasks_and_other_checkers_are_told_apart() -> None:
    oracle = load_denoiser("sudoku4")
    valid = make_checker(VALID, oracle=oracle)
    kinds = [Answers(ITEMS, is_pair), Answers(ITEMS[:1], is_pair), Answers(ITEMS, valid)]
    assert len({str(each.identity()) for each in kinds}) == 3
    assert Answers(ITEMS, is_pair).identity() == Answers(list(ITEMS), is_pair).identity()


def test_a_sampler_is_learned_for_right_answers() -> None:
    """4 clues, 2 calls: one token a call is always right, even shares in random order are right in 29 of 100 cases.
    The searched sampler must do far better on 512 new canvases: a share below 0.8 would be 8 standard errors off.
    """
    pipe, records = pipeline_of("sudoku4:clues=4"), []
    canvases, _ = pipe.denoiser.canvases(1024, torch.Generator().manual_seed(0))
    config = DistillConfig(objective="answers", nfe=(2,), num_sequences=256, search_evaluations=12000)
    assert config.method == "forced_kl"
    pipe.scheduler = distill(pipe, config, log=records.append, input_ids=canvases)
    [schedule] = [record for record in records if record["event"] == "schedule"]
    assert schedule["objective"] == "answers" and 0.8 < schedule["right"] <= 1
    new, _ = pipe.denoiser.canvases(512, torch.Generator().manual_seed(1))
    made = pipe(input_ids=new, num_inference_steps=2, output_type="ids", generator=torch.Generator().manual_seed(2))
    right = pipe.denoiser.log_prob(made.sequences).isfinite().double().mean()
    assert float(right) > 0.8
    assert bool((made.sequences == new)[new != pipe.denoiser.mask_token_id].all())


def test_a_price_of_calls_is_paid_by_those_that_are_made() -> None:
    """Two ways to fill sudokus with 4 clues. A bound of 1000 nats takes all at once, and the other five calls
    are never made. A bound of a tenth of a nat is right more often, and pays for more calls.
    """
    pipe = pipeline_of("sudoku4:clues=4")
    canvases, _ = pipe.denoiser.canvases(128, torch.Generator().manual_seed(0))
    call = {"input_ids": canvases}
    answers = checked_answers(pipe, DistillConfig(objective="answers"), None, call)
    assert answers is not None
    options = {"method": "forced_kl", "order": "adaptive", "objective": "answers", "num_sequences": 128}
    costs: dict[float, list[float]] = {}
    for price in (0.0, 0.8):
        figure = AnswerFigure(task_of(pipe, call, **options, call_price=price), answers, None)
        costs[price] = []
        for nats in (1000.0, 0.1):
            surest = Candidate("", (nats,) * 5 + (1.0,), (1.0, 0.0, 0.0, 0.0, 0.0), budget="entropy_bounds")
            measured = figure(surest, "fit", 64)
            wrong_S = measured.costs_S - price * measured.calls_S
            assert set(wrong_S.tolist()) <= {0.0, 1.0}
            assert measured.calls_S.tolist() == [1.0] * 64 if nats > 1 else float(measured.calls_S.mean()) > 2
            costs[price].append(measured.mean)
    assert costs[0.0][1] < costs[0.0][0] and costs[0.8][0] < costs[0.8][1]


def test_a_price_is_not_negative() -> None:
    with pytest.raises(ValueError, match="`call_price`"):
        DistillConfig(method="forced_kl", call_price=-0.1)


@pytest.mark.parametrize(
    ("options", "given", "named"),
    [
        ({"objective": "answers"}, None, "`objective` 'answers' needs tasks"),
        ({"method": "forced_kl"}, Answers(ITEMS, is_pair), "`answers` are for"),
    ],
)
def test_tasks_and_objective_go_together(options: dict[str, Any], given: Answers | None, named: str) -> None:
    denoiser = Own()
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
    with pytest.raises(ValueError, match=named):
        distill(pipe, DistillConfig(nfe=(2,), **options), answers=given)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"method": "auto"}, "`objective` 'answers' is of `method` 'forced_kl'"),
        ({"method": "path_kl"}, "`objective` is of `method` 'forced_kl'"),
        ({"coefficients": "two_sided"}, "`coefficients` 'two_sided' would replace"),
        ({"order": "margin"}, "`objective` 'answers' is for `order` 'adaptive'"),
    ],
)
def test_what_does_not_go_with_answers(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        distill(pipeline_of("sudoku4"), DistillConfig(nfe=(2,), objective="answers", **options))
