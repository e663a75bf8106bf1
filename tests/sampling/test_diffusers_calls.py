"""What diffusers' own schedulers do with a pipeline's arguments, LSDScheduler does too: laws, outputs, calls."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AmusedScheduler, BlockRefinementScheduler, DiffusionGemmaPipeline
from helpers.tiny_pipelines import CODEBOOK, IMAGE_MASK, TEXT_EOS, TEXT_MASK, TEXT_PAD, amused, llada2
from safetensors.torch import load_file
from scipy.stats import chi2_contingency

from lsd_sampler import DistillConfig, LSDScheduler, distill
from lsd_sampler.cli import train
from lsd_sampler.denoisers import random_chain
from lsd_sampler.sampling.draws import draw_tokens


FALSE_ALARM = 1e-4  # of each test of a law; with 40,000 samples and fixed seeds
NUM_SAMPLES = 20_000
ORDERS = ("random", "halton", "confidence")
CHAIN, V, MASK, L = random_chain(3, 4, seed=1), 3, 3, 4
BIAS = 0.1 * torch.arange(L)[:, None] * torch.tensor([0.0, 1.0, -2.0])  # no two positions are equally confident


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def generate(scheduler: Any, times: Any, **options: Any) -> torch.Tensor:
    """A denoising loop as pipelines write it, with a denoiser that looks at the whole canvas."""
    sample, generator = torch.full((NUM_SAMPLES, L), MASK), seeded()
    for t in times:
        sample = scheduler.step(CHAIN(sample).float() + BIAS, t, sample, generator=generator, **options).prev_sample
    return sample


def assert_same_law(first: torch.Tensor, second: torch.Tensor) -> None:
    digits = V ** torch.arange(L)
    counts = np.stack([torch.bincount((x * digits).sum(1), minlength=V**L).numpy() for x in (first, second)])
    assert counts.sum() == 2 * NUM_SAMPLES
    rare = counts.sum(0) < 20
    pooled = np.concatenate([counts[:, ~rare], counts[:, rare].sum(1, keepdims=True)], axis=1)
    assert chi2_contingency(pooled[:, pooled.sum(0) > 0]).pvalue > FALSE_ALARM


@pytest.mark.parametrize(("steps", "temperature"), [(2, (2.0, 0.0)), (4, 1.5), (1, (2.0, 0.0))])
def test_confidence_order_has_the_law_of_amused(steps: int, temperature: Any) -> None:
    """With the linear masking schedule, and numbers of steps for which its shares of the canvas are whole tokens."""
    theirs = AmusedScheduler(mask_token_id=MASK, masking_schedule="linear")
    theirs.set_timesteps(steps, temperature)
    ours = LSDScheduler.from_config(theirs.config, order="confidence")
    ours.set_timesteps(steps, temperature, "cpu")
    assert_same_law(generate(theirs, theirs.timesteps), generate(ours, range(steps)))


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (1, {"temperature": 1.0}),
        (2, {"temperature": 0.7}),
        (4, {"temperature": 1.3, "top_p": 0.8}),
        (2, {"temperature": 1.0, "top_k": 2}),
        (4, {"temperature": 0.9, "top_p": 0.7, "top_k": 2}),
    ],
)
def test_confidence_order_has_the_law_of_block_refinement(steps: int, options: dict[str, Any]) -> None:
    """With a threshold that nothing passes it commits the most confident tokens, equally many a step."""
    theirs = BlockRefinementScheduler(threshold=2.0)
    theirs.set_timesteps(steps, block_length=L)
    rule = {"order": "confidence", "confidence_temperature": 0.0, "certainty": "tempered"}
    ours = LSDScheduler.from_config(theirs.config, **rule)
    ours.set_timesteps(steps, device="cpu", block_length=L)
    samples = [generate(s, range(steps), mask_token_id=MASK, **options) for s in (theirs, ours)]
    assert_same_law(*samples)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.0, "sampling_method": "greedy"}])
def test_greedy_decoding_is_that_of_block_refinement(options: dict[str, Any]) -> None:
    schedulers = BlockRefinementScheduler(threshold=2.0), LSDScheduler(order="confidence", confidence_temperature=0.0)
    outputs = []
    for scheduler in schedulers:
        scheduler.set_timesteps(4, device="cpu", block_length=8)
        sample, logits = torch.full((3, 8), 9), torch.randn(4, 3, 8, 9, generator=seeded())
        for k in range(4):
            out = scheduler.step(logits[k], k, sample, mask_token_id=9, generator=seeded(), **options)
            sample = out.prev_sample
            outputs.append((sample, out.transfer_index))
    for (theirs, moved), (ours, ours_moved) in zip(outputs[:4], outputs[4:], strict=True):
        assert torch.equal(theirs, ours) and torch.equal(moved, ours_moved)


@pytest.mark.parametrize(
    ("top_p", "top_k", "temperature"), list(itertools.product((None, 0.1, 0.6, 0.95, 1.0), (None, 1, 5), (0.5, 1.0)))
)
def test_top_p_and_top_k_keep_the_tokens_that_diffusers_keeps(top_p: Any, top_k: Any, temperature: float) -> None:
    """Evenly spaced uniforms give each token its share of the law, to one in their number."""
    num, logits = 2000, torch.randn(1, 1, 20, generator=seeded(), dtype=torch.float64)
    reference = BlockRefinementScheduler._top_k_filtering(logits[0] / temperature, top_k)
    law = BlockRefinementScheduler._top_p_filtering(reference, top_p).softmax(-1)[0]
    v = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    zeros = torch.zeros(num, dtype=torch.long)
    options = {"inverse_temperature": 1 / temperature, "top_p": top_p, "top_k": top_k}
    token, log_prob = draw_tokens(logits, zeros, zeros, v, **options)
    torch.testing.assert_close(
        torch.bincount(token, minlength=20) / num, law, rtol=0, atol=1.01 / num, check_dtype=False
    )
    torch.testing.assert_close(log_prob.exp(), law[token])


def test_float_times_block_after_block() -> None:
    """The convention of huggingface/diffusers#14741: every block runs through the same decreasing times."""
    scheduler = LSDScheduler(mask_token_id=MASK)
    scheduler.set_timesteps(2, device="cpu", block_length=L)
    assert scheduler.timesteps.is_floating_point() and bool((scheduler.timesteps.diff() < 0).all())
    assert 0 < float(scheduler.timesteps[-1]) < float(scheduler.timesteps[0]) <= 1
    generator, by_index = seeded(), []
    x = torch.full((4, 3 * L), MASK)
    for block in x.split(L, dim=1):
        for t in scheduler.timesteps:
            out = scheduler.step(CHAIN(block), t, block, generator=generator, return_dict=True)
            assert out.pred_logits is not None and out.pred_logits.shape == (4, L, V)
            block.copy_(out.prev_sample)
    assert not (x == MASK).any()
    generator = seeded()
    for block in torch.full((4, 3 * L), MASK).split(L, dim=1):
        for k in range(2):
            block = scheduler.step(CHAIN(block), k, block, generator=generator).prev_sample
        by_index.append(block)
    assert torch.equal(x, torch.cat(by_index, dim=1))


class RandomTokenModel(torch.nn.Module):
    """What `DiffusionGemmaPipeline` needs of a model to come as far as its scheduler."""

    def __init__(self) -> None:
        super().__init__()
        text = SimpleNamespace(vocab_size=7, num_hidden_layers=1, layer_types=None, sliding_window=None)
        self.config = SimpleNamespace(canvas_length=4, get_text_config=lambda decoder=True: text)
        decoder = SimpleNamespace(create_diffusion_decoder_attention_mask=lambda **_: None)
        self.model = SimpleNamespace(encoder=lambda **_: None, decoder=decoder)
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def forward(self, decoder_input_ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=torch.zeros(*decoder_input_ids.shape, 7))


class Processor:
    def apply_chat_template(self, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.ones(1, 2, dtype=torch.long), "attention_mask": torch.ones(1, 2, dtype=torch.long)}


def test_diffusion_gemma_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[DiffusionGemmaPipeline.__module__]
    monkeypatch.setattr(module, "DynamicCache", lambda **_: SimpleNamespace(get_seq_length=lambda: 0))
    pipe: Any = DiffusionGemmaPipeline(RandomTokenModel(), BlockRefinementScheduler(), Processor())
    pipe.set_progress_bar_config(disable=True)
    call = {"prompt": "a", "gen_length": 4, "output_type": "seq"}
    assert pipe(**call, num_inference_steps=2).sequences.shape == (1, 4)
    pipe.scheduler = LSDScheduler(mask_token_id=6)
    with pytest.raises(ValueError, match="corruption is uniform"):
        pipe(**call, num_inference_steps=2)


# ---- images that begin partly masked ----

IMAGE = torch.rand(1, 3, 8, 8, generator=seeded())


def codes(pipe: Any, image: torch.Tensor) -> torch.Tensor:
    """The tokens that aMUSEd's pipelines see in an image."""
    latents = pipe.vqvae.encode(pipe.image_processor.preprocess(image)).latents
    return pipe.vqvae.quantize(latents)[2][2].reshape(len(image), 8, 8)


@pytest.mark.parametrize(
    ("order", "strength"), list(itertools.product(("random", "halton", "confidence"), (0.25, 0.75)))
)
def test_image_to_image(order: str, strength: float) -> None:
    """It starts at the step that `strength` says, from a masked image, and changes masked tokens only."""
    pipe = amused("img2img")
    pipe.scheduler = LSDScheduler.from_config(pipe.scheduler.config, order=order)
    seen: list[torch.Tensor] = []
    pipe.transformer.register_forward_pre_hook(lambda _, args: seen.append(args[0][:1].clone()))
    options = {"image": IMAGE, "strength": strength, "num_inference_steps": 8, "output_type": "latent"}
    out = pipe("a cat", generator=seeded(), **options).images
    assert len(seen) == int(8 * strength)
    start, known = seen[0], seen[0] != IMAGE_MASK
    assert torch.equal(start[known], codes(pipe, IMAGE)[known])
    assert torch.equal(out[known], start[known]) and int(out.max()) < CODEBOOK
    # masked as much as a generation is before its step k of 8; 64 tokens, so 6 standard deviations are +- 0.37
    share = float(pipe.scheduler.noise.masked(pipe.scheduler.timesteps[8 - len(seen)]))
    assert abs(float((~known).float().mean()) - share) < 6 * (share * (1 - share) / 64) ** 0.5
    again = pipe("a cat", generator=seeded(), **options).images
    assert torch.equal(out, again)


@pytest.mark.parametrize(("order", "steps"), list(itertools.product(ORDERS, (1, 4))))
def test_inpainting(order: str, steps: int) -> None:
    """Only what the mask covers changes; it is full after exactly the steps that were asked for."""
    pipe = amused("inpaint")
    pipe.scheduler = LSDScheduler.from_config(pipe.scheduler.config, order=order)
    calls = [0]
    pipe.transformer.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    options = {"image": IMAGE, "mask_image": mask, "strength": 1.0, "num_inference_steps": steps}
    out = pipe("a cat", generator=seeded(), output_type="latent", **options).images
    before = codes(pipe, IMAGE)
    assert calls == [steps] and int(out.max()) < CODEBOOK
    assert torch.equal(out[..., 4:], before[..., 4:]) and not torch.equal(out[..., :4], before[..., :4])


# ---- end of sequence ----


def test_rows_stop_at_their_end_of_sequence() -> None:
    """Up to its first end of sequence a row is that of a run without early stop; blocks after the last end cost
    nothing.
    """
    pipe = llada2()
    pipe.model.cls.predictions.bias.data[TEXT_EOS] = 6.0
    pipe.model.cls.predictions.bias.data[TEXT_PAD] = -30.0
    pipe.scheduler = LSDScheduler.from_config(pipe.scheduler.config)
    calls = [0]
    pipe.model.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    prompts = ["a b c", "d", "e f"]
    call = {"use_chat_template": False, "gen_length": 29, "block_length": 8, "num_inference_steps": 4}
    runs, spent = [], []
    for stop in (False, True):
        calls[0] = 0
        runs.append(pipe(prompts, temperature=1.0, generator=seeded(), eos_early_stop=stop, **call).sequences)
        spent.append(calls[0])
    whole, stopped = runs
    assert spent[0] == 16 and spent[1] < 16
    for full, cut in zip(whole, stopped, strict=True):
        end = int((full == TEXT_EOS).nonzero()[0]) + 1
        assert torch.equal(full[:end], cut[:end]) and not (cut[:end] == TEXT_MASK).any()


# ---- other processes ----


def run_python(code: str, *args: str) -> None:
    subprocess.run([sys.executable, "-c", code, *args], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def test_a_saved_pipeline_in_a_new_process(tmp_path: Path) -> None:
    """`import lsd_sampler` is all that diffusers needs to give the learned scheduler back."""
    pipe = amused()
    config = DistillConfig(method="path_kl", nfe=(4,), num_sequences=2, num_states=8)
    pipe.scheduler = distill(pipe, config, prompt=["a cat", "dog"])
    pipe.save_pretrained(tmp_path / "pipeline")
    run_python(
        "import sys, torch, lsd_sampler\n"
        "from diffusers import DiffusionPipeline\n"
        "pipe = DiffusionPipeline.from_pretrained(sys.argv[1])\n"
        "assert type(pipe.scheduler) is lsd_sampler.LSDScheduler\n"
        "options = {'num_inference_steps': 4, 'output_type': 'latent'}\n"
        "torch.save(pipe('a cat', generator=torch.Generator().manual_seed(0), **options).images, sys.argv[2])\n",
        str(tmp_path / "pipeline"),
        str(tmp_path / "out.pt"),
    )
    here = pipe("a cat", generator=seeded(), num_inference_steps=4, output_type="latent").images
    assert torch.equal(here, torch.load(tmp_path / "out.pt", weights_only=True))


def test_lsd_train_goes_on_after_kill_9(tmp_path: Path) -> None:
    """Killed when some batches are done, then resumed: the tensors are those of an uninterrupted run, bit for bit."""
    amused().save_pretrained(tmp_path / "pipeline")
    (tmp_path / "prompts.txt").write_text("a cat\ndog\n")
    argv = ["--pipeline", str(tmp_path / "pipeline"), "--prompts", str(tmp_path / "prompts.txt"), "--nfe", "2", "4"]
    argv += [
        "--num-sequences",
        "40",
        "--batch-size",
        "2",
        "--num-states",
        "8",
        "--teacher-steps",
        "8",
        "--method",
        "path_kl",
    ]
    killed = [*argv, "--output-dir", str(tmp_path / "killed")]
    # sums depend on the number of threads; conftest sets one in this process
    env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lsd_sampler.cli.train", *killed]
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    progress, deadline = tmp_path / "killed" / "progress" / "progress-step_error.safetensors", time.monotonic() + 120
    while not (progress.exists() and int(load_file(progress)["batches"]) >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert int(load_file(progress)["batches"]) < 20 and not (tmp_path / "killed" / "README.md").exists()
    assert train.main([*killed, "--resume"]) == 0
    assert train.main([*argv, "--output-dir", str(tmp_path / "whole")]) == 0
    files = [tmp_path / name / "scheduler_model.safetensors" for name in ("killed", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
