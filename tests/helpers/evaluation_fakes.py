"""Stand-ins for tests of the evaluation: a tiny judge, a tokenizer of characters, samplers of letters, a task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel

from lsd_sampler.evaluation import JudgeNLL, Layout, Metric, MetricSet, TextMetrics


def tiny_gpt2(vocab_size: int = 128, context: int = 16) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocab_size, n_positions=context, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


def character_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab={chr(i): i for i in range(128)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


@dataclass
class FakeSampler:
    """Draws uniform letters from the first `letters`, so that fewer steps can be made worse on purpose."""

    letters: int
    available_num_inference_steps: list[int] | None = None
    last_time: float = 0.1

    def can_do(self, num_inference_steps: int) -> bool:
        return self.available_num_inference_steps is None or num_inference_steps in self.available_num_inference_steps

    def set_timesteps(self, num_inference_steps: int) -> None:
        self.timesteps = torch.linspace(1, self.last_time, num_inference_steps)


@dataclass
class Output:
    sequences: torch.Tensor


class FakePipeline:
    """Temperature t draws from the first `letters * t` letters."""

    def __init__(self) -> None:
        self.scheduler: Any = "the user's own"
        self.calls = 0

    def __call__(self, num_samples: int, temperature: float, generator: torch.Generator, **options: Any) -> Output:
        self.calls += 1
        letters = max(1, round(self.scheduler.letters * temperature))
        return Output(97 + torch.randint(letters, (num_samples, options["length"]), generator=generator))


def text_metrics(judge: JudgeNLL | None = None, **options: Any) -> TextMetrics:
    reference = 97 + torch.randint(10, (40, 50), generator=torch.Generator().manual_seed(99))
    return TextMetrics(character_tokenizer(), judge, reference, num_resamples=20, **options)


class Task(MetricSet):
    """Answers to a task: the share of right ones, and how many tokens a network call makes."""

    metrics = (
        Metric("share_wrong", "wrong", "Share of answers that are wrong.", lower_is_better=True),
        Metric("share_right", "right", "Share of answers that are right.", lower_is_better=False),
        Metric("tokens_per_call", "tokens / call", "Tokens filled in by a call.", digits=2),
    )
    verdict_key = "share_wrong"

    def __init__(self) -> None:
        self.canvases = torch.full((6, 4), 128)

    def compute(self, sequences: torch.Tensor, texts: Any = None) -> dict[str, Any]:
        wrong = float((sequences != 97).double().mean())
        return {"share_wrong": wrong, "share_right": 1 - wrong}

    def derived(self, row: Mapping[str, Any]) -> dict[str, Any]:
        calls = row.get("network_calls")
        return {"tokens_per_call": None if calls is None else row["length"] / calls}

    def layout(self) -> Layout:
        return Layout(("share_right", "tokens_per_call"), ("temperature", "share_wrong"), ("share_right",))
