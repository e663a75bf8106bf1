"""DNDM's scheduler, call by call. (Whole generations: `test_translation_generation.py`.)"""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.official_translation import case, case_names, golden, official, scheduler_of

from lsd_sampler import DNDMScheduler
from lsd_sampler.sampling.scheduling_dndm import lowest_scores


def logits(*tokens: int, vocabulary: int = 8) -> torch.Tensor:
    """One row whose most likely tokens are these, the later the likelier."""
    at = torch.tensor(tokens)
    sureness = 3.0 + torch.arange(len(tokens))[:, None]
    return torch.nn.functional.one_hot(at, vocabulary)[None] * sureness


def started(times: Any, T: int = 10, **options: Any) -> DNDMScheduler:
    scheduler = DNDMScheduler(**options)
    scheduler.set_timesteps(T, transition_times=torch.tensor(times))
    return scheduler


# ---- golden files ----


def test_the_official_rule_for_the_lowest_scores() -> None:
    expected = golden("topk.")
    for k in range(5):
        number = torch.full((len(expected["scores"]),), k)
        assert torch.equal(lowest_scores(expected["scores"], number), expected[f"mask_{k}"])


@pytest.mark.parametrize("name", [name for name in case_names() if not name.endswith("command_line")])
def test_each_recorded_step_by_its_recorded_logits(name: str) -> None:
    """Where logits were recorded, for that call alone: log-probabilities, and at the first call the whole step."""
    expected, model = golden(f"{name}."), name.split(".")[0]
    denoiser, settings = official(model), case(name)
    scheduler = scheduler_of(denoiser, settings)
    scheduler.set_timesteps(settings["T"], transition_times=expected["tau"])
    assert torch.equal(scheduler.timesteps, expected["times"])
    for j in [int(key.rpartition("_")[2]) for key in expected if key.startswith("logits_call_")]:
        log_probs = scheduler.log_probs(expected[f"logits_call_{j}"])
        torch.testing.assert_close(log_probs, expected[f"log_probs_call_{j}"], atol=1e-4, rtol=1e-4)
    if "logits_call_0" in expected:
        out = scheduler.step(expected["logits_call_0"], scheduler.timesteps[0], expected["canvases"][0])
        assert not isinstance(out, tuple)
        assert torch.equal(out.prev_sample, expected["canvases"][1])
        assert torch.equal(out.noise, expected["noise"][1])
        torch.testing.assert_close(out.scores, expected["scores"][0], atol=1e-4, rtol=1e-4)


# ---- the laws of a step ----


def test_dndm_reveals_each_column_at_its_own_time() -> None:
    scheduler = started([9, 9, 4, 9, 7], top_k=False)
    canvas = torch.tensor([[0, 3, 3, 3, 2]])
    assert scheduler.timesteps.tolist() == [45, 35, 20]  # 9, 7 and 4 of 10, in 50 steps
    seen = []
    for t in scheduler.timesteps:
        canvas = scheduler.step(logits(4, 5, 6, 7, 4), t, canvas, return_dict=False)[0]
        seen.append(canvas.tolist()[0])
    assert seen == [[0, 5, 3, 7, 2], [0, 5, 3, 7, 2], [0, 5, 6, 7, 2]]


def test_dndm_k_keeps_the_surest_and_takes_back_the_others() -> None:
    scheduler = started([9, 9, 4, 4, 9], top_k=True)
    canvas = torch.tensor([[0, 3, 3, 3, 2]])
    first = scheduler.step(logits(4, 5, 6, 7, 4), scheduler.timesteps[0], canvas, return_dict=False)[0]
    assert first.tolist() == [[0, 3, 3, 7, 2]]  # two columns have a later time; the last inside is the surest
    last = scheduler.step(logits(4, 6, 6, 6, 4), scheduler.timesteps[1], first, return_dict=False)[0]
    assert last.tolist() == [[0, 6, 6, 7, 2]]  # a token that is known stays


def test_unk_is_never_predicted_under_absorbing_noise_and_other_specials_are() -> None:
    scheduler = started([5, 5, 5])
    out = scheduler.step(logits(4, 3, 4), scheduler.timesteps[0], torch.tensor([[0, 3, 2]]), return_dict=False)[0]
    assert int(out[0, 1]) != 3
    scheduler = started([5, 5, 5], top_k=False)
    out = scheduler.step(logits(4, 1, 4), scheduler.timesteps[0], torch.tensor([[0, 3, 2]]), return_dict=False)[0]
    assert out.tolist() == [[0, 1, 2]]


def test_multinomial_noise_never_predicts_specials_and_keeps_those_there() -> None:
    scheduler = started([5, 5, 5], mask_token_id=None, corruption="uniform", top_k=False)
    raw = logits(4, 1, 4)
    raw[0, 1, 6] = 1.0
    out = scheduler.step(raw, scheduler.timesteps[0], torch.tensor([[0, 5, 2]]))
    assert not isinstance(out, tuple)
    assert out.prev_sample.tolist() == [[0, 6, 2]]
    assert out.scores[0, 0] == out.scores[0, 2] == 0


def test_rows_with_times_of_their_own_rest_when_they_are_done() -> None:
    scheduler = started([[9, 9, 4], [8, 8, -1]], top_k=False)
    assert scheduler.timesteps.tolist() == [[45, 40], [20, -1]]
    canvas = torch.tensor([[0, 3, 3], [0, 3, 2]])
    both = torch.cat([logits(4, 5, 6), logits(4, 7, 4)])
    canvas = scheduler.step(both, scheduler.timesteps[0], canvas, return_dict=False)[0]
    assert canvas.tolist() == [[0, 5, 3], [0, 7, 2]]
    canvas = scheduler.step(both.flip(1), scheduler.timesteps[1], canvas, return_dict=False)[0]
    assert canvas.tolist() == [[0, 5, 4], [0, 7, 2]]


@pytest.mark.parametrize("training_steps", [20, 30, 50])
def test_network_times_are_integer_parts(training_steps: int) -> None:
    for T in (2, 10, 25, 49, 50, 333, 1000):
        found = started([*range(1, T + 1)], T, training_steps=training_steps).timesteps
        assert sorted({*found.tolist()}) == sorted({k * training_steps // T for k in range(1, T + 1)})


def test_network_times_are_rounded_in_float32_as_in_the_authors_code() -> None:
    """With 1000 steps of training and 500 at sampling, some quotients fall below the integer that they stand for."""
    found = started([*range(1, 501)], 500, training_steps=1000).timesteps.flip(0).tolist()
    exact = [2 * k for k in range(1, 501)]
    assert found != exact
    assert {b - a for a, b in zip(found, exact, strict=True)} == {0, 1}


def test_continuous_times_reach_the_network_as_they_are() -> None:
    times = [12.5, 3.25, 12.5]
    assert started(times, continuous=True).timesteps.tolist() == [12.5, 12.5, 3.25]


@pytest.mark.parametrize(("scale", "most"), [(None, 50.0), (1.0, 1.0)])
def test_the_scale_of_continuous_times_is_a_setting(scale: float | None, most: float) -> None:
    scheduler = DNDMScheduler(continuous=True, time_scale=scale, alpha=17.0, beta=4.0)
    times = scheduler.draw_transition_times(1, 500, 1, torch.Generator().manual_seed(0))
    assert abs(float(times.mean()) / most - 17 / 21) < 0.02
    assert float(times.max()) <= most


# ---- errors and files ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "Beta"}, "`weights` must be one of"),
        ({"alpha": 0}, "`alpha` must be"),
        ({"top_k": 3}, "`top_k` must be one of"),
        ({"training_steps": 0}, "`training_steps` must be"),
        ({"corruption": "uniform"}, "`corruption` must be one of"),
        ({"mask_token_id": None}, "`corruption` must be one of"),
        ({"time_scale": -1.0}, "`time_scale` must be"),
    ],
)
def test_unusable_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DNDMScheduler(**options)


@pytest.mark.parametrize("times", [[11], [-2], [[-1, -1]], [], [[[1]]]])
def test_impossible_times_are_refused(times: Any) -> None:
    with pytest.raises(ValueError, match="`transition_times` must have shape"):
        DNDMScheduler().set_timesteps(10, transition_times=torch.tensor(times))


def test_steps_out_of_order_are_refused() -> None:
    scheduler, canvas = DNDMScheduler(), torch.tensor([[0, 3, 2]])
    with pytest.raises(ValueError, match="Call `set_timesteps`"):
        scheduler.step(logits(4, 4, 4), 1, canvas)
    with pytest.raises(ValueError, match="`num_columns` must be"):
        scheduler.set_timesteps(10)
    scheduler.set_timesteps(10, transition_times=torch.tensor([5, 5, 2]))
    with pytest.raises(ValueError, match="`timestep` must be 25, that of step 0"):
        scheduler.step(logits(4, 4, 4), 10, canvas)
    with pytest.raises(ValueError, match=r"must have shapes \(B, 3, V\) and \(B, 3\)"):
        scheduler.step(logits(4, 4), 25, canvas[:, :2])
    for t in scheduler.timesteps:
        canvas = scheduler.step(logits(4, 4, 4), t, canvas, return_dict=False)[0]
    with pytest.raises(ValueError, match="All 2 steps are made"):
        scheduler.step(logits(4, 4, 4), 10, canvas)


def test_it_is_saved_as_a_scheduler_of_diffusers(tmp_path: Path) -> None:
    DNDMScheduler(alpha=17.0, top_k=False, weights="cosine").save_pretrained(tmp_path)
    read = DNDMScheduler.from_pretrained(tmp_path)
    assert (read.config.alpha, read.config.top_k, read.config.weights) == (17.0, False, "cosine")
