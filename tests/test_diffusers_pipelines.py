"""LSDScheduler in diffusers' own pipelines, unmodified: what every generation keeps; and distilling against them."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from helpers.chosen_positions import adaptive, make_choice, random_kappa
from helpers.learned_tensors import same_learned
from helpers.tiny_pipelines import CODEBOOK, TEXT_MASK, amused, llada2, oracle_llada2

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.cli import train
from lsd_sampler.denoisers import RADDDenoiser, countdown
from lsd_sampler.evaluation import forbidden_share
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps


ORDERS = ("random", "halton", "confidence", "adaptive")
RADD = {
    "tokens": 5,
    "noise": {"type": "loglinear"},
    "model": {"type": "ddit_wot", "hidden_size": 8, "n_heads": 2, "n_blocks": 1, "length": 6, "dropout": 0.1},
}
NO_PROMPT = torch.zeros(1, 0, dtype=torch.long)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def count_calls(network: torch.nn.Module) -> list[int]:
    calls = [0]
    network.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    return calls


def scheduler_for(pipe: Any, order: str, layout: str, shape: tuple[int, ...]) -> LSDScheduler:
    """In the place of a pipeline's own; `adaptive` has a choice for 3 and 8 calls, others lie between or outside."""
    if order != "adaptive":
        return LSDScheduler.from_config(pipe.scheduler.config, order=order)
    choices = [
        make_choice([*[0.3] * (M - 1), 1], "entropy_shares", 0.05, torch.tensor([0.1, 1, 0.3, 0.1, 0.5]).double())
        for M in (3, 8)
    ]
    scheduler = LSDScheduler.from_config(pipe.scheduler.config, order=order)
    scheduler.set_learned_sampler(adaptive(choices, random_kappa(layout, shape)).learned_sampler)
    return scheduler


@pytest.mark.parametrize(
    ("order", "steps", "guidance", "batch"), list(itertools.product(ORDERS, (1, 2, 8), (1.0, 4.0), (1, 3)))
)
def test_amused(order: str, steps: int, guidance: float, batch: int) -> None:
    pipe = amused()
    pipe.scheduler = scheduler_for(pipe, order, "offset_2d", (3, 3))
    calls = count_calls(pipe.transformer)

    def generate(seed: int, **kwargs: Any) -> torch.Tensor:
        prompts = ["a cat", "dog", "the sea at night"][:batch]
        options = {"guidance_scale": guidance, "num_inference_steps": steps, "output_type": "latent", **kwargs}
        return pipe(prompts, generator=seeded(seed), **options).images

    canvas = generate(0)
    assert calls == [steps]
    assert canvas.shape == (batch, 8, 8) and 0 <= int(canvas.min()) <= int(canvas.max()) < CODEBOOK
    assert torch.equal(canvas, generate(0)) and not torch.equal(canvas, generate(1))
    assert generate(0, output_type="np").shape == (batch, 8, 8, 3)


@pytest.mark.parametrize(
    ("order", "steps", "batch", "side"), list(itertools.product(ORDERS, (1, 2, 8), (1, 3), ("left", "right")))
)
def test_llada2(order: str, steps: int, batch: int, side: str) -> None:
    pipe = llada2()
    pipe.tokenizer.padding_side = side
    pipe.scheduler = scheduler_for(pipe, order, "matrix", (8,))
    calls, prompts = count_calls(pipe.model), ["a b c d e", "f", "g h"][:batch]
    canvases: list[torch.Tensor] = []

    def keep(pipe: Any, step: int, timestep: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        canvases.append(tensors["block_x"].clone())
        return tensors

    def generate(seed: int) -> torch.Tensor:
        return pipe(
            prompts,
            use_chat_template=False,
            gen_length=20,
            block_length=8,
            num_inference_steps=steps,
            temperature=1.0,
            eos_early_stop=False,
            generator=seeded(seed),
            callback_on_step_end=keep,
        ).sequences

    tokens = generate(0)
    length = pipe.tokenizer(prompts, padding=True, return_tensors="pt").input_ids.shape[1]
    blocks = -(-(length + 20) // 8) - length // 8
    assert calls == [blocks * steps]  # also where the prompt leaves fewer masks in a block than there are steps
    assert tokens.shape == (batch, 20) and not (tokens == TEXT_MASK).any()
    prompt = pipe.tokenizer(prompts, padding=True, return_tensors="pt").input_ids
    assert all(torch.equal(canvas[:, :length], prompt) for canvas in canvases)
    assert torch.equal(tokens, generate(0)) and not torch.equal(tokens, generate(1))


def test_a_process_without_a_mask_is_refused() -> None:
    scheduler = LSDScheduler()
    scheduler.set_timesteps(2, block_length=4)
    with pytest.raises(ValueError, match="`mask_token_id` is None.*uniform"):
        scheduler.step(torch.zeros(1, 4, 3), 0, torch.zeros(1, 4, dtype=torch.long), mask_token_id=None)


def test_a_saved_pipeline_keeps_its_learned_scheduler(tmp_path: Path) -> None:
    pipe = amused()
    config = DistillConfig(method="path_kl", nfe=(4,), num_sequences=2, num_states=8)
    pipe.scheduler = distill(pipe, config, prompt=["a cat", "dog"])
    pipe.save_pretrained(tmp_path)
    again = DiffusionPipeline.from_pretrained(tmp_path)
    assert torch.equal(again.scheduler.steps_for(4).timesteps, pipe.scheduler.steps_for(4).timesteps)
    options = {"num_inference_steps": 4, "output_type": "latent"}
    first, second = (p("a cat", generator=seeded(0), **options).images for p in (pipe, again))
    assert torch.equal(first, second)


def _learned(scheduler: LSDScheduler) -> LSDScheduler:
    ones = torch.ones(2, dtype=torch.float64)
    times = torch.tensor([1.0, 0.4, 1e-4], dtype=torch.float64)
    scheduler.set_learned_sampler(LearnedSampler({2: LearnedSteps(times, ones, ones)}))
    return scheduler


def _own() -> MaskedDiffusionPipeline:
    torch.manual_seed(0)
    denoiser = RADDDenoiser(RADD)
    return MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))


@pytest.mark.parametrize("make", [amused, llada2, _own], ids=["amused", "llada2", "own"])
def test_a_variant_of_a_pipeline_with_a_learned_sampler(make: Callable[[], Any], tmp_path: Path) -> None:
    """Saved as a variant it loads as one; saved without one, diffusers says itself that there is none."""
    pipe = make()
    pipe.scheduler = _learned(LSDScheduler.from_config(pipe.scheduler.config))
    # (transformers' own class of a tokenizer of ours does not come back from a folder)
    given = {"tokenizer": pipe.tokenizer} if make is llada2 else {}
    pipe.save_pretrained(tmp_path / "half", variant="fp16")
    for kind in (type(pipe), DiffusionPipeline):
        again = kind.from_pretrained(tmp_path / "half", variant="fp16", **given)
        assert again.scheduler.steps_for(2).timesteps.tolist() == [1.0, 0.4, 1e-4]
    pipe.save_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match="no such modeling files are available"):
        type(pipe).from_pretrained(tmp_path / "whole", variant="fp16", **given)
    assert type(pipe).from_pretrained(tmp_path / "whole", **given).scheduler.learned_sampler


def test_old_folders_of_pipelines_still_load(tmp_path: Path) -> None:
    """Their tensors lie in `learned`; saved again they lie elsewhere, and nothing stays behind."""
    pipe = _own()
    pipe.scheduler = _learned(pipe.scheduler)
    pipe.save_pretrained(tmp_path)
    tensors = next((tmp_path / "scheduler").rglob("*.safetensors"))
    tensors.parent.rename(tmp_path / "scheduler" / "learned")
    again = MaskedDiffusionPipeline.from_pretrained(tmp_path)
    assert again.scheduler.steps_for(2).timesteps.tolist() == [1.0, 0.4, 1e-4]
    again.save_pretrained(tmp_path)
    assert not (tmp_path / "scheduler" / "learned").exists()
    MaskedDiffusionPipeline.from_pretrained(tmp_path)
    again.scheduler = LSDScheduler.from_config(again.scheduler.config)
    again.save_pretrained(tmp_path)
    assert [path.name for path in (tmp_path / "scheduler").iterdir()] == ["scheduler_config.json"]


def test_the_table_of_an_oracle_behind_llada2_is_that_of_the_direct_route() -> None:
    chain, config = countdown(8, 32), DistillConfig(method="path_kl", nfe=(4, 8), num_sequences=16)
    direct = distill(MaskedDiffusionPipeline(chain, LSDScheduler(**chain.scheduler_config())), config)
    call = {"input_ids": NO_PROMPT, "mask_token_id": 8, "gen_length": 32, "block_length": 32}
    blocks = distill(oracle_llada2(chain), config, **call)
    tables = [s.learned_sampler.step_error for s in (direct, blocks)]
    assert tables[0] is not None and tables[1] is not None
    torch.testing.assert_close(tables[0].table, tables[1].table, rtol=0, atol=1e-12)
    assert torch.equal(direct.steps_for(8).timesteps, blocks.steps_for(8).timesteps)
    assert blocks.config.mask_token_id == 8


def test_quality_block_by_block() -> None:
    """8 calls a block: no forbidden transition in the oracle's samples; the base solver makes some."""
    chain = countdown(32, 256)
    pipe: Any = oracle_llada2(chain)
    call = {"mask_token_id": 32, "gen_length": 256, "block_length": 64}
    learned = distill(pipe, DistillConfig(method="path_kl", nfe=(8,), num_sequences=16), input_ids=NO_PROMPT, **call)
    shares = []
    for pipe.scheduler in (learned, LSDScheduler(mask_token_id=32)):
        options = {"num_inference_steps": 8, "temperature": 1.0, "generator": seeded(1)}
        samples = pipe(input_ids=NO_PROMPT.repeat(50, 1), **call, **options).sequences
        shares.append(forbidden_share(samples, chain.transition))
    assert shares[0] == 0 and shares[1] > 0.03


@pytest.mark.parametrize("method", ["path_kl", "lsd"])
def test_distilling_costs_what_the_docs_say(method: str) -> None:
    pipe, records = llada2(), []
    calls, before = count_calls(pipe.model), [p.clone() for p in pipe.model.parameters()]
    config = DistillConfig(method=method, nfe=(2, 4), num_sequences=4, batch_size=2)
    call = {"prompt": ["a b c", "d"], "use_chat_template": False, "gen_length": 13, "block_length": 8}
    distill(pipe, config, log=records.append, **call)
    L, C, N, G = 8, 2, 8, 8
    teacher = next(record for record in records if record["event"] == "teacher")
    if method == "path_kl":
        # the first block has 5 masks, so a replay of 8 states is through with it after 7 or fewer
        assert C * (1 + 2 * (N + G)) - 2 * (G - 5) <= calls[0] <= C * (1 + 2 * (N + G))
        table = next(record for record in records if record["event"] == "step_error")
        assert table["kept_bytes"] == 16 * G * L
    else:
        assert calls[0] == C * (1 + 2 * N + 2 + 4)
    assert teacher["kept_bytes"] == 4 * 13 * C * L
    assert records[-1]["network_calls"] == calls[0]
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, pipe.model.parameters(), strict=True))


@pytest.mark.parametrize("prompts", [["a b c d", "a b c"], ["a b c", "a b c d"]])
@pytest.mark.parametrize(
    "options",
    [
        *({"method": "path_kl", "paths": paths} for paths in ("teacher", "bootstrap")),
        *({"method": method} for method in ("lsd", "lsd+", "jys")),
        {"held_out_sequences": 2},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_batches_that_differ_in_their_number_of_blocks_are_refused(
    options: dict[str, Any], prompts: list[str], tmp_path: Path
) -> None:
    """Whichever comes first; and again where its paths are found on disk."""
    config = DistillConfig(nfe=(2,), num_sequences=2, batch_size=1, **options)
    call = {"prompt": prompts, "gen_length": 6, "block_length": 4, "use_chat_template": False, "cache_dir": tmp_path}
    for _ in range(2):
        with pytest.raises(ValueError, match=r"number of canvases, [23] and [23].*prompts of equal length in tokens"):
            distill(llada2(), config, **call)


def test_data_for_more_blocks_than_the_first_batch_has_are_refused() -> None:
    call = {"prompt": ["", "a b c"], "gen_length": 4, "block_length": 4, "use_chat_template": False}
    config = DistillConfig(method="path_kl", nfe=(2,), num_sequences=2, batch_size=1)
    with pytest.raises(ValueError, match="number of canvases, 1 and 2"):
        distill(llada2(), config, data=torch.full((2, 4), 5), **call)


def test_a_gen_length_of_one_more_than_blocks_fits_any_prompt() -> None:
    """What is advised where batches differ in their number of blocks."""
    prompts = [" ".join("abcdefghij"[:words]) for words in range(1, 9)]
    config = DistillConfig(method="path_kl", nfe=(2,), num_sequences=8, batch_size=1)
    learned = distill(llada2(), config, prompt=prompts, gen_length=9, block_length=4, use_chat_template=False)
    assert learned.learned_sampler.step_error is not None


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"batch_size": 4}, True),
        ({"batch_size": 2}, False),
        ({"batch_size": 1}, False),
        ({"batch_size": 4, "optimizer": "adam", "epochs": 1, "adam_batch_size": 4}, True),
        ({"batch_size": 4, "optimizer": "adam", "epochs": 1}, False),
        ({"batch_size": 4, "optimizer": "adam", "epochs": 1, "teacher_solver": "predictor_corrector"}, False),
    ],
)
def test_lsd_compares_with_a_teacher_whose_prompts_are_where_its_own_are(options: dict[str, Any], fits: bool) -> None:
    """All canvases of LLaDA2Pipeline are as wide as a block: the place of a prompt in it depends on its batch."""
    config = DistillConfig(method="lsd", nfe=(3,), teacher_steps=4, num_sequences=4, **options)
    call = {"gen_length": 9, "block_length": 4, "use_chat_template": False}
    prompts = ["a b c d e", "a b", "a b c d e f", "a b c"]
    if fits:
        distill(llada2(), config, prompt=prompts, **call)
    else:
        with pytest.raises(ValueError, match="prompts of equal length in tokens, or a `batch_size` of all"):
            distill(llada2(), config, prompt=prompts, **call)
    distill(llada2(), config, prompt=prompts[:1] + ["f g h i j"], **call)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": ("path_kl:halton", "lsd:random"), "held_out_sequences": 6},
        {"method": "lsd"},
        {"method": "lsd", "optimizer": "adam", "epochs": 3},
    ],
)
@pytest.mark.parametrize("after", [1, 9, 14])
def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path, options: dict[str, Any], after: int) -> None:
    config = DistillConfig(
        **{
            "nfe": (2, 4),
            "num_sequences": 6,
            "batch_size": 2,
            "adam_batch_size": 2,
            "coefficients": "plain",
            **options,
        }
    )
    call = {"prompt": ["a cat", "dog"], "guidance_scale": 2.0, "checkpoint_dir": tmp_path}
    config = DistillConfig(**{**config.to_dict(), "num_states": 8, "teacher_steps": 8})
    whole = distill(amused(), config, **{**call, "checkpoint_dir": None})
    broken, calls = amused(), [0]

    def kill(*_: Any) -> None:
        calls[0] += 1
        if calls[0] > after:
            raise Killed

    broken.transformer.register_forward_hook(kill)
    with pytest.raises(Killed):
        distill(broken, config, **call)
    resumed = distill(amused(), config, resume=True, **call)
    assert same_learned(whole, resumed)
    with pytest.raises(ValueError, match="other options"):
        distill(amused(), DistillConfig(**{**config.to_dict(), "seed": 5}), resume=True, **call)


def test_lsd_train_on_a_pipeline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that it leaves loads back into the same pipeline, and its card's snippet runs."""
    monkeypatch.chdir(tmp_path)
    amused().save_pretrained("pipeline")
    Path("prompts.txt").write_text("a cat\n\ndog\n")
    argv = ["--pipeline", "pipeline", "--prompts", "prompts.txt", "--pipeline-kwargs", '{"guidance_scale": 2.0}']
    argv += ["--num-sequences", "4", "--num-states", "8", "--nfe", "2", "4", "--output-dir", "out"]
    argv += ["--coefficients", "plain", "--search-evaluations", "512", "--held-out-sequences", "4"]
    assert train.main([*argv, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["canvases"] == 1 and not Path("out").exists()
    assert train.main([*argv, "--resume"]) == 0
    assert not Path("out", "progress").exists()
    spent = json.loads(Path("out", "metrics.jsonl").read_text().splitlines()[-1])["network_calls"]
    assert 0 < spent <= planned["network_calls"]  # a search may end before its budget does
    pipe = DiffusionPipeline.from_pretrained("pipeline")
    pipe.scheduler = LSDScheduler.from_pretrained("out")
    canvas = pipe("a cat", num_inference_steps=4, generator=seeded(0), output_type="latent").images
    assert int(canvas.max()) < CODEBOOK
    snippet = Path("out", "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(snippet, {})
    assert Path("sample.png").exists()
    assert json.loads(Path("out", "config.json").read_text())["run"] == {
        "pipeline": "pipeline", "prompts": "prompts.txt", "pipeline_kwargs": {"guidance_scale": 2.0}
    }  # fmt: skip
    assert "had `prompt=['a cat', 'dog']`, `guidance_scale=2.0`:" in Path("out", "README.md").read_text()
    assert train.main(["--pipeline", "pipeline", "--length", "8"]) == 1
    assert "`--length` goes with `--model`" in capsys.readouterr().err
    assert train.main(["--pipeline", "pipeline", "--pipeline-kwargs", '{"guidance": 2}']) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "`guidance` is not an argument of AmusedPipeline" in last and "Did you mean 'guidance_scale'?" in last
