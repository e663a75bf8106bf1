"""No more network than a step needs: heads on demand, and predictions that are kept. The tokens are the same."""

import functools
import itertools
from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import make

from lsd_sampler import Denoiser, DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.denoisers import MaskGITDenoiser, random_chain
from lsd_sampler.sampling.logit_rows import DeferredLogits


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maskgit() -> MaskGITDenoiser:
    sizes = {"input_size": 3, "hidden_dim": 12, "codebook_size": 7, "depth": 1, "heads": 3, "nclass": 4}
    return MaskGITDenoiser(sizes).eval()


DENOISERS = {
    **{name: (lambda name=name: make(name)) for name in ("radd", "mdlm", "mdlm-time", "sedd", "mdlm-scores")},
    "maskgit": maskgit,
}


def watch_steps(pipe: MaskedDiffusionPipeline) -> list[tuple[Any, torch.Tensor]]:
    """What the scheduler is given at each step from now on: output and canvas."""
    seen: list[tuple[Any, torch.Tensor]] = []
    step = pipe.scheduler.step

    @functools.wraps(step)
    def watched(output: Any, t: Any, sample: torch.Tensor, **kwargs: Any) -> Any:
        seen.append((output, sample))
        return step(output, t, sample, **kwargs)

    pipe.scheduler.step = watched
    return seen


def pipeline(denoiser: Denoiser, **options: Any) -> MaskedDiffusionPipeline:
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config(), **options))
    pipe.set_progress_bar_config(disable=True)
    return pipe


# ---- heads on demand ----


@pytest.mark.parametrize(
    ("name", "order", "count"),
    list(itertools.product(DENOISERS, ("random", "halton", "confidence"), ("exact", "bernoulli"))),
)
def test_a_deferred_head_gives_the_same_tokens(name: str, order: str, count: str) -> None:
    """In float64, bit for bit; and it is what a pipeline uses by itself."""
    torch.manual_seed(0)
    denoiser = DENOISERS[name]().double()
    assert denoiser.defers_head
    pipe = pipeline(denoiser, order=order, count=count)
    runs, seen = [], watch_steps(pipe)
    for denoiser.defers_head in (True, False):
        runs.append(pipe(num_samples=4, num_inference_steps=4, generator=seeded(), temperature=0.9).sequences)
    assert type(seen[0][0]) is DeferredLogits and type(seen[-1][0]) is torch.Tensor
    assert torch.equal(*runs)


@pytest.mark.parametrize("name", list(DENOISERS))
def test_the_head_runs_for_revealed_rows_only(name: str) -> None:
    denoiser = DENOISERS[name]()
    rows, head = [0], denoiser.head
    denoiser.head = lambda hidden: rows.__setitem__(0, rows[0] + hidden[..., 0].numel()) or head(hidden)
    pipe = pipeline(denoiser)
    pipe(num_samples=4, num_inference_steps=4, generator=seeded())
    assert rows[0] == 4 * denoiser.length + 1  # one, once, for the number of columns


@pytest.mark.parametrize(
    "options", [{}, {"method": "lsd", "domain": "log_score"}, {"method": "lsd", "order": "random"}]
)
@pytest.mark.parametrize("name", ["radd", "sedd", "mdlm-time"])
def test_distillation_sees_the_same_numbers(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    denoiser = DENOISERS[name]().double()
    learned = []
    for denoiser.defers_head in (True, False):
        config = DistillConfig(
            **{"method": "path_kl", "nfe": (2, 4), "num_sequences": 4, "teacher_steps": 8, **options}
        )
        sampler = distill(pipeline(denoiser), config).learned_sampler
        # schedules are not compared: under a random network many cost the same, to rounding
        table = torch.empty(0) if sampler.step_error is None else sampler.step_error.table
        learned.append((sampler.steps[4].score_coefficients, sampler.steps[4].log_score_coefficients, table))
    for a, b in zip(*learned, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


# ---- predictions that are kept ----


class Counting(Denoiser):
    """A chain's denoiser that counts what it is asked: calls, and sequences in them."""

    def __init__(self, length: int = 12):
        super().__init__()
        self.chain = random_chain(4, length)
        self.mask_token_id, self.vocab_size, self.length = 4, 4, length
        self.batches: list[int] = []

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
        self.batches.append(len(tokens))
        return self.chain(tokens)


@pytest.mark.parametrize("order", ["random", "halton", "confidence"])
@pytest.mark.parametrize("count", ["exact", "bernoulli"])
def test_what_is_kept_is_what_would_be_predicted(order: str, count: str) -> None:
    """64 steps for 12 tokens: as many calls for a sequence as its canvas had changed, and the tokens of 64 calls."""
    denoiser = Counting()
    pipe = pipeline(denoiser, order=order, count=count)
    canvases: list[torch.Tensor] = []

    def keep(_: Any, step: int, time: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        canvases.append(tensors["sample"])
        return {}

    call = {"num_samples": 5, "num_inference_steps": 64}
    saved = pipe(**call, generator=seeded(), callback_on_step_end=keep)
    before = [torch.full_like(canvases[0], 4), *canvases[:-1]]
    changed = torch.stack([(a != b).any(1) for a, b in itertools.pairwise(before)]).sum(0)
    assert torch.equal(saved.sequence_calls, 1 + changed)
    assert int(saved.sequence_calls.max()) <= 1 + 12 < 64
    assert sum(denoiser.batches) == int(saved.sequence_calls.sum()) and len(denoiser.batches) == saved.network_calls
    denoiser.batches.clear()
    denoiser.time_conditioned = True
    full = pipe(**call, generator=seeded())
    assert torch.equal(full.sequences, saved.sequences)
    assert denoiser.batches == [5] * 64 and full.sequence_calls.tolist() == [64] * 5


def test_expected_calls_are_the_distinct_times() -> None:
    """With independent reveals, a sequence needs its first call, and one more after each step but the last in which
    something of it was revealed (RADD, https://huggingface.co/papers/2406.03736, section 3.3).
    """
    L, M, num = 12, 32, 600
    pipe = pipeline(Counting(L), count="bernoulli")
    out = pipe(num_samples=num, num_inference_steps=M, generator=seeded())
    known = pipe.scheduler.noise.masked(1.0) - pipe.scheduler.noise.masked(pipe.scheduler.timesteps.double())
    q = (known / pipe.scheduler.noise.masked(1.0)).diff()  # of each step but the last, that it reveals a position
    expected = 1 + float((1 - (1 - q) ** L).sum())
    # indicators of steps are negatively correlated, so their sum varies by at most L / 4 each; 5 standard deviations
    assert len(q) == M - 1
    assert abs(float(out.sequence_calls.double().mean()) - expected) < 5 * (L / 4 / num) ** 0.5


def test_a_callback_that_changes_a_canvas_is_seen() -> None:
    denoiser = Counting()
    pipe = pipeline(denoiser)

    def mask_again(_: Any, step: int, time: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors["sample"][0, 0] = 4
        return tensors

    out = pipe(num_samples=2, num_inference_steps=12, generator=seeded(), callback_on_step_end=mask_again)
    assert int(out.sequence_calls[0]) == 12


# ---- conditioning ----


def test_labels_follow_their_sequences() -> None:
    """Also when only some sequences are predicted again; and each is what it is alone."""
    torch.manual_seed(1)
    denoiser = maskgit()
    for p in denoiser.parameters():
        p.data.mul_(3)
    pipe = pipeline(denoiser, count="bernoulli")
    labels = [0, 3, 1, 4]
    generators = [seeded(i) for i in range(4)]
    call = {"num_inference_steps": 20, "guidance_scale": 2.0}
    together = pipe(num_samples=4, class_labels=labels, generator=generators, **call)
    assert together.network_calls is not None and together.sequences.shape == (4, 9)
    for i, label in enumerate(labels):
        alone = pipe(class_labels=label, generator=[seeded(i)], **call)
        assert torch.equal(alone.sequences[0], together.sequences[i])
    for argument in ({"class_labels": [0, 1, 2]}, {"class_labels": [[0]]}):
        with pytest.raises(ValueError, match="`class_labels` must be one label or 4"):
            pipe(num_samples=4, **argument)
    with pytest.raises(ValueError, match=r"`class_labels` must be in \[0, 4\]"):
        pipe(class_labels=5)
    with pytest.raises(ValueError, match="`guidance_scale` is not supported by Counting"):
        pipeline(Counting())(guidance_scale=1.0)


def test_images_are_revealed_in_two_dimensions() -> None:
    """The scheduler sees height and width; its caller, a flat canvas."""
    pipe = pipeline(maskgit(), order="halton")
    seen = watch_steps(pipe)
    out = pipe(num_samples=3, num_inference_steps=9, generator=seeded())
    assert {tuple(sample.shape) for _, sample in seen} == {(3, 3, 3)} and out.sequences.shape == (3, 9)
