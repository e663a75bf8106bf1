"""What a pipeline hands on to its denoiser and its scheduler, and what it refuses."""

from typing import Any

import pytest
import torch

from lsd_sampler import LSDScheduler
from lsd_sampler.denoisers import countdown
from lsd_sampler.denoisers.call_arguments import (
    check_number_of_generators,
    check_scheduler,
    conditioning_of,
    position_noise,
    refuse,
    refuse_with_prompt,
    step_arguments,
)


CHAIN = countdown(4, 8)
CPU = torch.device("cpu")


class Plain(LSDScheduler):
    """One whose methods know neither temperatures nor truncation."""

    def step(self, model_output: Any, timestep: Any, sample: Any, *, generator: Any = None) -> Any:
        return super().step(model_output, timestep, sample, generator=generator)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:  # pyright: ignore
        super().set_timesteps(num_inference_steps, device)


class Classes(torch.nn.Module):
    """A denoiser of 3 classes."""

    num_classes = 3

    def forward(self, tokens: Any, t: Any, class_labels: Any = None, guidance_scale: float | None = None) -> None: ...


def test_a_step_is_told_what_it_knows() -> None:
    scheduler = LSDScheduler(**CHAIN.scheduler_config())
    told = step_arguments(scheduler, 0.5, None, 0.9, None)
    assert told == {"temperature": 0.5, "generator": None, "top_p": 0.9}
    assert step_arguments(Plain(mask_token_id=4), 1.0, None, None, None) == {"generator": None}
    assert position_noise(scheduler, None) == {} and position_noise(scheduler, 0.3) == {"temperature": (0.3, 0.3)}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0.5, None, None, None), "temperature"), ((1.0, None, 0.9, None), "top_p"), ((1.0, None, None, 5), "top_k")],
)
def test_what_a_scheduler_does_not_know_is_named(arguments: tuple[Any, ...], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is not supported by Plain"):
        step_arguments(Plain(mask_token_id=4), *arguments)
    with pytest.raises(ValueError, match="`alg_temp` is not supported by Plain"):
        position_noise(Plain(mask_token_id=4), 0.5)


def test_a_scheduler_of_another_model_is_refused() -> None:
    check_scheduler(LSDScheduler(**CHAIN.scheduler_config()), CHAIN)
    with pytest.raises(ValueError, match="`mask_token_id` 9"):
        check_scheduler(LSDScheduler(mask_token_id=9), CHAIN)


def test_classes_and_guidance() -> None:
    denoiser: Any = Classes()
    assert conditioning_of(denoiser, None, None, 2, CPU) == {}
    given = conditioning_of(denoiser, 1, 0.5, 2, CPU)
    assert given["class_labels"].tolist() == [1, 1] and given["guidance_scale"] == 0.5
    for labels, message in ((4, r"in \[0, 3\]"), ([0, 1, 2], "one label or 2"), ("a", "must be integers")):
        with pytest.raises(ValueError, match=f"`class_labels` must be.*{message}|`class_labels` {message}"):
            conditioning_of(denoiser, labels, None, 2, CPU)
    with pytest.raises(ValueError, match="`class_labels` is not supported"):
        conditioning_of(CHAIN, 0, None, 2, CPU)


def test_what_does_not_go_together_is_named() -> None:
    check_number_of_generators([torch.Generator()] * 2, 2)
    check_number_of_generators(torch.Generator(), 2)
    refuse("is not for this", suffix=None)
    refuse_with_prompt(prefix=None)
    with pytest.raises(ValueError, match="`generator` has 1 entries for 2"):
        check_number_of_generators([torch.Generator()], 2)
    with pytest.raises(ValueError, match="`suffix` is not for this: leave it out"):
        refuse("is not for this", prefix=None, suffix="a")
    with pytest.raises(ValueError, match="`prompt` and `messages` exclude `suffix`"):
        refuse_with_prompt(suffix="a")
