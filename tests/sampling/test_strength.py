"""Image-to-image and inpainting by diffusers' pipelines: the state that they go on from, at each strength."""

from typing import Any

import pytest
import torch
from helpers.tiny_pipelines import IMAGE_MASK, amused

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps


IMAGE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked_at_first(scheduler: LSDScheduler, steps: int, strength: float, samples: int = 64) -> float:
    """Share of masks that the network sees first, in image-to-image: of 64 tokens in each sample."""
    pipe = amused("img2img")
    pipe.scheduler, seen = scheduler, []
    pipe.transformer.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    options = {"guidance_scale": 1.0, "strength": strength, "num_inference_steps": steps, "output_type": "latent"}
    pipe(["a"] * samples, image=IMAGE.expand(samples, -1, -1, -1), generator=seeded(), **options)
    assert len(seen) == int(steps * strength)
    return float((seen[0] == IMAGE_MASK).float().mean())


def learned(**numbers: list[float]) -> LSDScheduler:
    scheduler = LSDScheduler(mask_token_id=IMAGE_MASK)
    steps = LearnedSteps(**{name: torch.tensor(x, dtype=torch.float64) for name, x in numbers.items()})
    scheduler.set_learned_sampler(LearnedSampler({4: steps}))
    return scheduler


PLANS = {
    "cosine": (LSDScheduler(mask_token_id=IMAGE_MASK, schedule="cosine"), [1.0, 0.923, 0.706, 0.383]),
    "uniform": (LSDScheduler(mask_token_id=IMAGE_MASK), [1.0, 0.749, 0.5, 0.25]),
    "times": (
        learned(timesteps=[1, 0.6, 0.3, 0.2, 1e-4], score_coefficients=[1.0] * 4, log_score_coefficients=[1.0] * 4),
        [1.0, 0.599, 0.3, 0.2],
    ),
    "coefficients": (  # half as many as the uniform grid says: 1 - 1/8, times 1 - 1/6, times 1 - 1/4
        learned(timesteps=[1, 0.75, 0.5, 0.25, 1e-4], score_coefficients=[0.5] * 4, log_score_coefficients=[1.0] * 4),
        [1.0, 0.874, 0.729, 0.546],
    ),
}


@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("plan", PLANS)
def test_image_to_image_goes_on_from_the_state_of_its_own_plan(plan: str, k: int) -> None:
    """4,096 tokens: 4 standard deviations are at most 0.031; 1 in 1,000 of such suites would fail by chance."""
    scheduler, shares = PLANS[plan]
    share = masked_at_first(scheduler, 4, (4 - k) / 4)
    assert share == pytest.approx(shares[k], abs=1e-3 + 4 * (shares[k] * (1 - shares[k]) / 4096) ** 0.5)


@pytest.mark.parametrize("kind", ["img2img", "inpaint"])
@pytest.mark.parametrize("steps", [1, 3, 4, 12])
@pytest.mark.parametrize("strength", [0.05, 0.2, 0.25, 0.34, 0.5, 0.8, 0.999, 1.0])
def test_each_strength_gives_an_image_or_a_sentence(kind: str, steps: int, strength: float) -> None:
    pipe: Any = amused(kind)
    pipe.scheduler = LSDScheduler.from_config(pipe.scheduler.config)
    options: dict[str, Any] = {"image": IMAGE, "strength": strength, "num_inference_steps": steps}
    if kind == "inpaint":
        options["mask_image"] = torch.ones(1, 1, 8, 8)
    if int(steps * strength):
        assert pipe("a", generator=seeded(), output_type="np", **options).images.shape == (1, 8, 8, 3)
    else:
        with pytest.raises(ValueError, match=r"`strength` .* less than one step: raise `strength` to") as error:
            pipe("a", generator=seeded(), **options)
        advice = float(str(error.value).split("raise `strength` to ")[1].split()[0])
        assert len(pipe("a", generator=seeded(), **{**options, "strength": advice}).images) == 1


@pytest.mark.parametrize("strength", [0, -0.5, 1.5])
def test_a_strength_out_of_range_is_named(strength: float) -> None:
    pipe: Any = amused("img2img")
    pipe.scheduler = LSDScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match=r"`strength` must be in \(0, 1\]"):
        pipe("a", image=IMAGE, strength=strength, num_inference_steps=4)
