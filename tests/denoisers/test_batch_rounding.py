"""What a batch changes: prompts of unequal lengths together and each alone, in every precision."""

from typing import Any

import pytest
import torch
from helpers.tiny_answerers import MASK, tiny_answerer, tiny_denoiser


# of the largest logit, as the page on language models says
TOLERANCE = {torch.float32: 64 * 2.0**-23, torch.float16: 16 * 2.0**-10, torch.bfloat16: 8 * 2.0**-7}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("family", ["llada", "dream"])
@torch.no_grad()
def test_a_batch_differs_by_rounding_alone(family: str, dtype: torch.dtype) -> None:
    """Over 40 networks with large weights, 8 prompts of 3 to 10 tokens each, behind padding."""
    for seed in range(40):
        denoiser = tiny_denoiser(family, seed)
        denoiser.network.to(dtype)
        prompts = torch.randint(5, 20, (8, 10), generator=torch.Generator().manual_seed(seed))
        canvas = torch.cat([prompts, torch.full((8, 6), MASK)], dim=1)
        text = torch.arange(16) >= torch.arange(8)[:, None]
        together = denoiser(canvas, attention_mask=text)[:, -6:]
        alone = torch.cat([denoiser(canvas[i : i + 1, i:])[:, -6:] for i in range(8)])
        assert together.dtype == dtype
        assert (together.double() - alone.double()).abs().max() <= TOLERANCE[dtype] * alone.double().abs().max()


@torch.no_grad()
def test_another_token_was_nearly_as_likely() -> None:
    """In bfloat16 answers of a batch may be others than those of each prompt alone. At the first place where they
    are, one token a call from the left, the two tokens differ by no more than the tolerance for each of both.
    """
    differing = 0
    for seed in range(12):
        pipe = tiny_answerer(seed=seed, order="confidence", confidence_temperature=0.0)
        pipe.denoiser.network.to(torch.bfloat16)
        generator = torch.Generator().manual_seed(seed)
        prompts = [torch.randint(5, 20, (3 + i,), generator=generator) for i in range(6)]
        call: dict[str, Any] = {"max_new_tokens": 12, "block_length": 1, "temperature": 0.0, "output_type": "ids"}
        together = pipe(prompt=prompts, **call).sequences[:, -12:]
        for prompt, batched in zip(prompts, together, strict=True):
            alone = pipe(prompt=[prompt], **call).sequences[0, -12:]
            if (places := (alone != batched).nonzero()[:, 0]).numel():
                differing += 1
                place = int(places[0])
                canvas = torch.cat([prompt, alone[:place], torch.full((12 - place,), pipe.denoiser.mask_token_id)])
                logits = pipe.denoiser(canvas[None])[0, len(prompt) + place].double()
                gap = float(logits[alone[place]] - logits[batched[place]])
                assert 0 <= gap <= 2 * TOLERANCE[torch.bfloat16] * float(logits.abs().max())
    if not differing:
        pytest.skip("no answer differs on this machine")
