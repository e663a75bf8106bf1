"""What a pipeline and the arguments of its call are known by: the same in another process, another for others."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.own_network import Own
from helpers.small_distillations import pipeline_of
from helpers.tiny_pipelines import WORDS, amused, llada2, word_tokenizer
from transformers import BertConfig, BertForMaskedLM

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.denoisers import MaskedLMDenoiser, MaskGITDenoiser, RADDDenoiser, random_chain
from lsd_sampler.sampling.noise import Geometric
from lsd_sampler.support.identity import identity
from lsd_sampler.training import path_cache
from lsd_sampler.training.path_cache import fingerprint


CONFIG = DistillConfig(method="path_kl", order="random", nfe=(2,), num_sequences=4, paths="teacher")


def masked_lm(mask_token_id: int = 1, heads: int = 2, **options: Any) -> MaskedLMDenoiser:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16, "max_position_embeddings": 16}
    config = BertConfig(vocab_size=len(WORDS), num_attention_heads=heads, initializer_range=0.5, **sizes)
    return MaskedLMDenoiser(BertForMaskedLM(config), mask_token_id, **options)


def maskgit() -> MaskGITDenoiser:
    torch.manual_seed(0)
    sizes = {"input_size": 4, "hidden_dim": 8, "codebook_size": 6, "depth": 1, "heads": 2, "nclass": 4}
    return MaskGITDenoiser(sizes)


def radd() -> RADDDenoiser:
    torch.manual_seed(0)
    model = {"hidden_size": 8, "n_heads": 2, "n_blocks": 1, "length": 8, "dropout": 0.0, "type": "ddit_wot"}
    return RADDDenoiser({"tokens": 5, "noise": {"type": "loglinear"}, "model": model})


PIPELINES: dict[str, Callable[[], Any]] = {
    "amused": amused,
    "llada2": llada2,
    "masked_lm": lambda: pipeline_of(masked_lm()),
    "maskgit": lambda: pipeline_of(maskgit()),
    "radd": lambda: pipeline_of(radd()),
    "markov": lambda: pipeline_of(random_chain(4, 8)),
    "own": lambda: pipeline_of(Own()),
}


def fingerprints() -> list[str]:
    return [f"{name} {fingerprint(make())}" for name, make in PIPELINES.items()]


# ---- the pipeline ----


def test_it_is_the_same_in_another_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the order of sets there, and the working directory."""
    here = Path(__file__)
    paths = os.pathsep.join(map(str, (here.parent, here.parents[1], here.parents[2])))
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": paths}
    code = "import test_path_cache; print(*test_path_cache.fingerprints(), sep='\\n')"
    there = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert there.returncode == 0, there.stderr
    here = fingerprints()
    assert there.stdout.splitlines() == here and len({line.split()[1] for line in here}) == len(PIPELINES)
    assert not [record for record in caplog.records if record.name.startswith("lsd_sampler")]


def test_use_does_not_change_it() -> None:
    for pipe, call in (
        (pipeline_of(masked_lm()), {}),
        (amused(), {"prompt": ["a cat", "dog"]}),
        (llada2(), {"prompt": ["a b", "c"], "gen_length": 9, "block_length": 4, "use_chat_template": False}),
    ):
        before = fingerprint(pipe)
        learned = distill(pipe, DistillConfig(method="path_kl", nfe=(2,), num_sequences=2, num_states=4), **call)
        assert fingerprint(pipe) == before
        pipe.scheduler = learned
        assert fingerprint(pipe) == before


@pytest.mark.parametrize(
    "options",
    [
        {"shifted": True},
        {"reused_mask": True},
        {"mask_token_id": 3},
        {"length": 12},
        {"frame": ((5,), ())},
        {"excluded_token_ids": (7,)},
        {"heads": 4},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_a_denoiser_are_in_it(options: dict[str, Any]) -> None:
    """Those of the network that it holds too: the weights are the same."""
    assert fingerprint(pipeline_of(masked_lm(**options))) != fingerprint(pipeline_of(masked_lm()))


@pytest.mark.parametrize(
    "options",
    [
        {"sharp": 2.0},
        {"_sharper": True},
        {"table": torch.ones(4)},
        {"settings": SimpleNamespace(levels=[1, 3], names={"a", "b", "c"})},
        {"activation": torch.tanh},
        {"activation": lambda x: 2 * x},
        {"noise": Geometric(0.1, 3.0)},
        {"time_conditioned": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_attributes_of_a_network_of_ones_own_are_in_it(options: dict[str, Any]) -> None:
    assert fingerprint(pipeline_of(Own(**options))) != fingerprint(pipeline_of(Own()))


def test_so_are_those_of_its_parts_its_code_and_the_precision() -> None:
    pipe, found = pipeline_of(Own()), set()
    found.add(fingerprint(pipe))
    pipe.denoiser.part.scale = 2.0
    found.add(fingerprint(pipe))

    class Own2(Own):
        def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
            return torch.ones(*tokens.shape, 4)

    Own2.__qualname__ = Own.__qualname__
    found.add(fingerprint(pipeline_of(Own2())))
    for dtype in (torch.float32, torch.bfloat16):
        found.add(fingerprint(pipeline_of(masked_lm().to(dtype))))
    assert len(found) == 5


def test_another_version_may_make_other_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(pipeline_of(Own()))
    monkeypatch.setattr(path_cache, "__version__", "9.9")
    assert fingerprint(pipeline_of(Own())) != before


def test_code_without_source_is_known_by_what_it_was_compiled_to() -> None:
    """As that of a notebook, where it was typed."""

    def typed(body: str, file: str) -> type:
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(f"class Typed:\n    def f(self, x):\n        return {body}", file, "exec"), namespace)
        return namespace["Typed"]

    once, again, other = typed("x in {'a', 'b'}", "cell-1"), typed("x in {'a', 'b'}", "cell-2"), typed("x", "cell-1")
    assert identity(once) == identity(again) != identity(other)


def test_a_tokenizer_is_in_it_and_what_its_latest_call_left_is_not() -> None:
    """It turns texts among the arguments into ids."""
    tokenizer = word_tokenizer()
    pipe = MaskedDiffusionPipeline(masked_lm(), LSDScheduler(**masked_lm().scheduler_config()), tokenizer)
    before = fingerprint(pipe)
    tokenizer(["a b", "c"], padding=True, truncation=True, max_length=2)
    assert fingerprint(pipe) == before
    tokenizer.padding_side = "right"
    assert fingerprint(pipe) != before
    pipe.tokenizer = word_tokenizer([*WORDS[:-2], WORDS[-1], WORDS[-2]])
    assert fingerprint(pipe) != before


def test_other_options_never_find_the_paths_of_these(tmp_path: Path) -> None:
    tables = []
    for shifted in (False, True):
        pipe = pipeline_of(masked_lm(shifted=shifted))
        cached, fresh = (distill(pipe, CONFIG, cache_dir=folder).learned_sampler for folder in (tmp_path, None))
        assert cached.step_error is not None and fresh.step_error is not None
        assert torch.equal(cached.step_error.table, fresh.step_error.table)
        tables.append(cached.step_error.table)
    assert not torch.equal(*tables) and len(list(tmp_path.iterdir())) == 2


def test_weights_are_read_only_where_paths_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, inner = [], path_cache._fingerprint
    monkeypatch.setattr(path_cache, "_fingerprint", lambda pipe: read.append(pipe) or inner(pipe))
    pipe = pipeline_of(random_chain(4, 8))
    by_data = DistillConfig(method="path_kl", nfe=(2,), num_sequences=4)
    distill(pipe, by_data, cache_dir=tmp_path, data=torch.zeros(4, 8, dtype=torch.long))
    assert not read
    distill(pipe, CONFIG, cache_dir=tmp_path)
    assert len(read) == 1


# ---- what cannot be described ----


class TakesANote(MaskedDiffusionPipeline):
    """A pipeline that takes anything."""

    def __call__(self, note: Any = None, num_samples: int = 1, **kwargs: Any) -> Any:
        return super().__call__(num_samples=num_samples, **kwargs)


def test_what_cannot_be_described_is_not_cached_nor_gone_on_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And that is said. What is described with it is."""
    chain = random_chain(4, 8)
    pipe = TakesANote(chain, LSDScheduler(**chain.scheduler_config()))
    lock, kept = threading.Lock(), {"checkpoint_dir": tmp_path / "progress", "cache_dir": tmp_path / "cache"}
    for resume in (False, True):
        distill(pipe, CONFIG, note=[1, "x"], resume=resume, **kept)
    assert len(list((tmp_path / "cache").iterdir())) == 1 and "not cached" not in caplog.text
    with pytest.raises(ValueError, match="called with a lock, and there is no telling.*start without resuming"):
        distill(pipe, CONFIG, note=lock, resume=True, **kept)
    distill(pipe, CONFIG, note=lock, resume=False, **kept)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert "not cached: there is no telling a lock" in caplog.text
    with pytest.raises(ValueError, match="start without resuming"):
        distill(pipe, CONFIG, note=lock, resume=True, **kept)


def test_nor_is_a_network_that_holds_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    pipe = pipeline_of(Own(client=threading.Lock()))
    distill(pipe, CONFIG, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir()) and "`client` of `denoiser` (a lock)" in caplog.text
    assert fingerprint(pipe) != fingerprint(pipe)
    assert "What other runs kept cannot be used" in caplog.text
