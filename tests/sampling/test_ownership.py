"""A scheduler serves one thread at a time, and says so; with a copy for each, threads do not disturb each other."""

import copy
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from helpers.tiny_pipelines import IMAGE_MASK, TEXT_MASK, amused, llada2

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.sampling.ownership import SchedulerInUse


STEPS = 6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Case:
    """A pipeline with our scheduler, its network, and how to call it."""

    def __init__(self, kind: str):
        if kind == "amused":
            self.pipe, self.mask = amused(), IMAGE_MASK
            self.network = self.pipe.transformer
        elif kind == "llada2":
            self.pipe, self.mask = llada2(), TEXT_MASK
            self.network = self.pipe.model
        else:
            chain = load_denoiser("markov:V=4,L=12,seed=0")
            self.pipe, self.mask = MaskedDiffusionPipeline(chain, LSDScheduler()), chain.mask_token_id
            self.pipe.set_progress_bar_config(disable=True)
            self.network = chain
        self.kind, self.pipe.scheduler = kind, LSDScheduler(mask_token_id=self.mask)

    def call(self, seed: int, pipe: Any = None) -> torch.Tensor:
        pipe = pipe or self.pipe
        options: dict[str, Any] = {"num_inference_steps": STEPS, "generator": seeded(seed)}
        if self.kind == "amused":
            return pipe("a", output_type="latent", guidance_scale=1.0, **options).images
        if self.kind == "llada2":
            text = {"use_chat_template": False, "gen_length": 13, "block_length": 6, "temperature": 1.0}
            return pipe("a b", eos_early_stop=False, **text, **options).sequences
        if self.kind == "prompts":
            return pipe(prompt=[1, 2], max_new_tokens=9, block_length=3, num_samples=4, **options).sequences
        return pipe(num_samples=4, **options).sequences

    def in_the_middle(self, do: Callable[[], Any], at_call: int = 3) -> None:
        """Does something once, in the thread that calls the network, at its third call."""
        calls = [0]

        def hook(*_: Any) -> None:
            calls[0] += 1
            if calls[0] == at_call:
                do()

        self.network.register_forward_pre_hook(hook)


def elsewhere(do: Callable[[], Any]) -> Any:
    """The result, or the exception, of another thread."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(do)
        return future.exception() or future.result()


def of_its_own(pipe: Any) -> Any:
    """The pipeline of another thread, as the docs say: the same networks, a scheduler of its own."""
    pipe = copy.copy(pipe)
    pipe.scheduler = copy.deepcopy(pipe.scheduler)
    return pipe


EACH = pytest.mark.parametrize("kind", ["ours", "prompts", "amused", "llada2"])


@EACH
def test_a_second_thread_is_refused_in_a_sentence_and_the_first_goes_on(kind: str) -> None:
    case, seen = Case(kind), []
    expected = case.call(1)
    case.in_the_middle(lambda: seen.append(elsewhere(lambda: case.call(2))))
    assert torch.equal(case.call(1), expected)
    assert isinstance(seen[0], SchedulerInUse) and isinstance(seen[0], RuntimeError)
    assert "another thread" in str(seen[0]) and "copy.deepcopy(pipeline.scheduler)" in str(seen[0])
    assert str(seen[0]).count(". ") == 0


@EACH
def test_no_call_returns_masks_or_tokens_of_another(kind: str) -> None:
    """40 calls of one pipeline by 8 threads: each gives its own tokens, or is refused."""
    case = Case(kind)
    expected, barrier = [case.call(seed) for seed in range(40)], threading.Barrier(8)

    def work(thread: int) -> list[Any]:
        results: list[Any] = []
        barrier.wait()
        for seed in range(thread, 40, 8):
            try:
                results.append((seed, case.call(seed)))
            except SchedulerInUse:
                results.append((seed, None))
        return results

    with ThreadPoolExecutor(8) as pool:
        results = [result for part in pool.map(work, range(8)) for result in part]
    assert len(results) == 40
    for seed, tokens in results:
        assert tokens is None or torch.equal(tokens, expected[seed])


@EACH
def test_threads_with_copies_do_not_disturb_each_other(kind: str) -> None:
    case = Case(kind)
    expected = [case.call(seed) for seed in range(16)]

    def work(thread: int) -> list[torch.Tensor]:
        pipe = of_its_own(case.pipe)
        return [case.call(seed, pipe) for seed in range(thread, 16, 4)]

    with ThreadPoolExecutor(4) as pool:
        for thread, tokens in enumerate(pool.map(work, range(4))):
            assert all(torch.equal(a, b) for a, b in zip(tokens, expected[thread::4], strict=True))


@EACH
def test_a_copy_made_in_the_middle_serves_another_thread(kind: str) -> None:
    case, seen = Case(kind), []
    expected = case.call(2)
    case.in_the_middle(lambda: seen.append(elsewhere(lambda: case.call(2, of_its_own(case.pipe)))))
    case.call(1)
    assert torch.equal(seen[0], expected)


@EACH
def test_a_call_that_failed_keeps_nobody_waiting(kind: str) -> None:
    """The thread that failed in the middle lives on, and another may use the pipeline."""
    case = Case(kind)
    expected = case.call(1)

    def fail() -> None:
        raise MemoryError("in the middle")

    case.in_the_middle(fail)
    with ThreadPoolExecutor(1) as first:
        assert isinstance(first.submit(case.call, 0).exception(), MemoryError)
        assert torch.equal(elsewhere(lambda: case.call(1)), expected)
        assert torch.equal(first.submit(case.call, 1).result(), expected)


def manual(scheduler: LSDScheduler) -> torch.Tensor:
    sample, generator = torch.full((2, 8), 3), seeded()
    for t in scheduler.timesteps:
        sample = scheduler.step(torch.zeros(2, 8, 3), t, sample, generator=generator).prev_sample
    return sample


def test_set_in_one_thread_and_used_in_another() -> None:
    """One after the other is no concurrent use."""
    scheduler = LSDScheduler(mask_token_id=3)
    scheduler.set_timesteps(4)
    expected = manual(scheduler)
    scheduler.set_timesteps(4)
    assert torch.equal(elsewhere(lambda: manual(scheduler)), expected)
    scheduler.set_timesteps(4)
    assert torch.equal(elsewhere(lambda: (scheduler.set_timesteps(4), manual(scheduler))[1]), expected)


def test_a_step_after_another_thread_has_begun_is_refused() -> None:
    """The numbers of this thread's generation are gone: going on would be by those of the other."""
    scheduler = LSDScheduler(mask_token_id=3)
    scheduler.set_timesteps(4)
    elsewhere(lambda: scheduler.set_timesteps(8))
    with pytest.raises(SchedulerInUse):
        manual(scheduler)
    scheduler.set_timesteps(4)
    assert not (manual(scheduler) == 3).any()


def test_a_step_keeps_nothing_of_its_caller_alive() -> None:
    """The logits of a step are the largest tensor of a generation: they go when their last name does."""
    scheduler = LSDScheduler(mask_token_id=3)
    scheduler.set_timesteps(4)
    logits = torch.zeros(2, 8, 3)
    gone = weakref.ref(logits)
    scheduler.step(logits, 0, torch.full((2, 8), 3), return_dict=False)
    del logits
    assert gone() is None


def test_two_loops_over_one_scheduler_are_refused() -> None:
    scheduler = LSDScheduler(mask_token_id=3)
    scheduler.set_timesteps(4)
    scheduler.step(torch.zeros(2, 8, 3), 0, torch.full((2, 8), 3))
    assert isinstance(elsewhere(lambda: manual(scheduler)), SchedulerInUse)
