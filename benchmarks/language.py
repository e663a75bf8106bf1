"""Answers by a masked language model of real layer dimensions (random weights): tokens a second, and where time goes.

The layers of LLaDA-8B and Dream-7B, as many as `--layers` says, answer prompts block by block: by our pipeline, with
each cache and sampler, and by a loop that follows LLaDA's script step by step, which computes the logits of all
positions at every call. Both make the same calls. Random weights are never sure, so that a threshold reveals one token
a call; `counts` reveals equally many in each. Only the first `--timed-blocks` blocks are run. Network time is that of
its calls, heads included; the scheduler's is the rest.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from generation import network_clock, synchronize
from step import device_name, peak_bytes
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import MaskedLMDenoiser


SIZES: dict[str, dict[str, Any]] = {
    "llada": {
        "vocab_size": 126464, "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32,
        "num_key_value_heads": 32, "rope_theta": 500000.0,
    },
    "dream": {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
        "num_key_value_heads": 4, "rope_theta": 1000000.0,
    },
}  # fmt: skip
MASKS = {"llada": 126336, "dream": 151666}
SAMPLERS: dict[str, dict[str, Any]] = {
    "counts": {"order": "confidence", "confidence_temperature": 0.0, "count": "llada"},
    "halton": {"order": "halton"},
    "threshold": {"solver": "fast_dllm_threshold"},
}
OFFICIAL = "official loop"


@dataclass
class Row:
    model: str
    sampler: str
    cache: str
    batch: int
    calls: int
    tokens: int
    seconds: float
    network_seconds: float
    peak_bytes: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def scheduler_share(self) -> float:
        return 1 - self.network_seconds / self.seconds


def make_denoiser(name: str, args: argparse.Namespace) -> MaskedLMDenoiser:
    sizes, mask = dict(SIZES[name]), MASKS[name]
    if args.shrink > 1:
        # heads keep their number, so that every size still divides
        sizes |= {key: sizes[key] // args.shrink for key in ("vocab_size", "hidden_size", "intermediate_size")}
        mask = sizes["vocab_size"] - 1
    sizes |= {"num_hidden_layers": args.layers, "max_position_embeddings": args.prompt_tokens + args.new_tokens}
    torch.manual_seed(0)
    with torch.device(args.device):
        torch.set_default_dtype(args.dtype)
        network = LlamaForCausalLM(LlamaConfig(**sizes)) if name == "llada" else Qwen2ForCausalLM(Qwen2Config(**sizes))
        torch.set_default_dtype(torch.float32)
    denoiser = MaskedLMDenoiser(network, mask, shifted=name == "dream").eval()
    if args.compile:
        network.base_model.forward = torch.compile(network.base_model.forward, dynamic=True)
    return denoiser


def make_prompts(args: argparse.Namespace, denoiser: MaskedLMDenoiser, batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, denoiser.vocab_size - 1, (batch, args.prompt_tokens), generator=generator)


def pipeline_run(
    denoiser: MaskedLMDenoiser, sampler: str, cache: str, prompts: torch.Tensor, args: argparse.Namespace
) -> Callable[[int], int]:
    """A run of so many blocks by our pipeline; returns its calls."""
    config = {**denoiser.scheduler_config(), **SAMPLERS[sampler]}
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**config))
    pipe.set_progress_bar_config(disable=True)

    def run(num_blocks: int) -> int:
        def stop(_: Any, block: int, tensors: dict[str, torch.Tensor]) -> None:
            pipe._interrupt = block + 1 == num_blocks

        out: Any = pipe(
            prompt=prompts, max_new_tokens=args.new_tokens, block_length=args.block_length, cache=cache,
            num_inference_steps=args.steps, temperature=0.0, callback_on_block_end=stop, output_type="ids",
        )  # fmt: skip
        return out.network_calls

    return run


def official_run(denoiser: MaskedLMDenoiser, prompts: torch.Tensor, args: argparse.Namespace) -> Callable[[int], int]:
    """The same by the steps of LLaDA's script: logits everywhere, the surest of the block, equal counts."""
    mask, size, start = denoiser.mask_token_id, args.block_length, args.prompt_tokens
    steps = args.steps * size // args.new_tokens

    def run(num_blocks: int) -> int:
        canvas = torch.full((len(prompts), start + args.new_tokens), mask, device=args.device)
        canvas[:, :start] = prompts.to(args.device)
        for block in range(num_blocks):
            stop = start + (block + 1) * size
            for k in range(steps):
                masked = canvas == mask
                logits = denoiser(canvas)
                token = logits.argmax(-1)
                p = torch.softmax(logits, -1).gather(-1, token[..., None])[..., 0]
                p[:, stop:] = -torch.inf
                confidence = torch.where(masked, p, -torch.inf)
                num = size // steps + (k < size % steps)
                chosen = confidence.topk(num, dim=1).indices
                canvas = canvas.scatter(1, chosen, token.gather(1, chosen))
        return num_blocks * steps

    return run


def measure(
    name: str, denoiser: MaskedLMDenoiser, labels: tuple[str, str], run: Callable[[int], int], batch: int,
    args: argparse.Namespace,
) -> Row:  # fmt: skip
    peak = peak_bytes(lambda: run(1), args.device) if args.memory else 0
    if not args.memory and args.device.type == "cuda":
        run(1)  # the warm-up
    with network_clock(denoiser, args.device) as network:
        began = time.perf_counter()
        calls = run(args.timed_blocks)
        synchronize(args.device)
        seconds = time.perf_counter() - began
    tokens = batch * args.timed_blocks * args.block_length
    row = Row(name, *labels, batch, calls, tokens, seconds, network[0], peak)
    print(f"{name}, {', '.join(labels)}, batch {batch}: {row.tokens_per_second:.2f} tokens a second", file=sys.stderr)
    return row


def measure_model(name: str, args: argparse.Namespace) -> list[Row]:
    denoiser, rows = make_denoiser(name, args), []
    for batch in args.batch:
        prompts = make_prompts(args, denoiser, batch)
        official = official_run(denoiser, prompts, args)
        rows.append(measure(name, denoiser, (OFFICIAL, "none"), official, batch, args))
        for sampler in args.samplers:
            for cache in args.caches:
                run = pipeline_run(denoiser, sampler, cache, prompts, args)
                rows.append(measure(name, denoiser, (sampler, cache), run, batch, args))
    return rows


@dataclass
class Rounding:
    """How far the logits of prompts in a batch are from those of each prompt alone, at the masks of the first call.

    Args:
        model, dtype (`str`): what was called.
        batch (`int`): prompts in the batch, of unequal lengths.
        relative (`float`): the largest difference, over the largest logit.
        log_prob (`float`): the largest difference of the log probability of the likeliest token.
        other (`float`): share of masks whose likeliest token is another.
    """

    model: str
    dtype: str
    batch: int
    relative: float
    log_prob: float
    other: float


def measure_rounding(name: str, args: argparse.Namespace) -> list[Rounding]:
    """The same weights in float32 and in the low precision."""
    denoiser, found = make_denoiser(name, args), []
    for batch in args.batch:
        for dtype in (torch.float32, args.dtype):
            # weights of the low precision are exact in float32
            denoiser.network.to(dtype)
            together, alone = batch_and_alone(denoiser, make_prompts(args, denoiser, batch), args.block_length)
            found.append(Rounding(name, str(dtype).removeprefix("torch."), batch, *differences(together, alone)))
    return found


def batch_and_alone(
    denoiser: MaskedLMDenoiser, prompts: torch.Tensor, num_masks: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `(batch, num_masks, V)` behind prompts of which each is one token shorter than the one before."""
    canvas = torch.nn.functional.pad(prompts, (0, num_masks), value=denoiser.mask_token_id).to(denoiser.device)
    cuts = [i % prompts.shape[1] for i in range(len(prompts))]
    text = torch.arange(canvas.shape[1], device=canvas.device) >= torch.tensor(cuts, device=canvas.device)[:, None]
    together = denoiser(canvas, attention_mask=text)[:, -num_masks:]
    alone = [denoiser(row[None, cut:])[:, -num_masks:] for row, cut in zip(canvas, cuts, strict=True)]
    return together, torch.cat(alone)


def differences(together: torch.Tensor, alone: torch.Tensor) -> tuple[float, float, float]:
    """The numbers of [`Rounding`], of two tensors of logits `(..., V)`."""
    x, y = together.double(), alone.double()
    likeliest = y.argmax(-1, keepdim=True)
    log_probs = [z.log_softmax(-1).gather(-1, likeliest) for z in (x, y)]
    relative = float((x - y).abs().max() / y.abs().max())
    other = float((x.argmax(-1, keepdim=True) != likeliest).double().mean())
    return relative, float((log_probs[0] - log_probs[1]).abs().max()), other


def show_rounding(found: list[Rounding], args: argparse.Namespace) -> None:
    print(f"{device_name(args.device)}; torch {torch.__version__}; {args.layers} layers, random weights\n")
    print(f"{'model':6} {'precision':9} {'batch':>5} {'of largest logit':>16} {'log prob':>9} {'other token':>11}")
    for row in found:
        line = f"{row.model:6} {row.dtype:9} {row.batch:5} {row.relative:16.2e} {row.log_prob:9.2e}"
        print(f"{line} {row.other:11.2%}")


def show(rows: list[Row], args: argparse.Namespace) -> None:
    kind = str(args.dtype).removeprefix("torch.")
    print(f"{device_name(args.device)}; torch {torch.__version__}; {kind}; {args.layers} layers, random weights")
    shrunk = f", widths and vocabulary divided by {args.shrink}" if args.shrink > 1 else ""
    blocks = f"{args.new_tokens} tokens after {args.prompt_tokens}, blocks of {args.block_length}"
    print(f"{blocks}, {args.steps} steps{shrunk}\n")
    head = f"{'model':6} {'sampler':14} {'cache':6} {'batch':>5} {'calls':>5} {'tokens/s':>9} {'x official':>10}"
    print(f"{head} {'scheduler':>9} {'peak MiB':>9}")
    for row in rows:
        base = next(r for r in rows if (r.model, r.batch, r.sampler) == (row.model, row.batch, OFFICIAL))
        ratio = row.tokens_per_second / base.tokens_per_second
        line = f"{row.model:6} {row.sampler:14} {row.cache:6} {row.batch:5} {row.calls:5} {row.tokens_per_second:9.2f}"
        print(f"{line} {ratio:10.2f} {row.scheduler_share:9.1%} {row.peak_bytes / 2**20:9.0f}")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=sorted(SIZES), default=["llada"])
    parser.add_argument("--samplers", nargs="+", choices=sorted(SAMPLERS), default=["counts"])
    parser.add_argument("--caches", nargs="+", choices=["none", "prefix", "dual"], default=["none", "prefix", "dual"])
    parser.add_argument("--batch", nargs="+", type=int, default=[4])
    sizes = {
        "layers": 4, "prompt-tokens": 64, "new-tokens": 256, "block-length": 32, "steps": 256, "timed-blocks": 1,
        "shrink": 1,
    }  # fmt: skip
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default=torch.bfloat16)
    parser.add_argument(
        "--rounding", action="store_true", help="only compare the logits of a batch with those of each prompt alone"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    parser.add_argument("--memory", action="store_true", help="also the peak of memory, in a run of its own")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(argv)
    if args.new_tokens % args.block_length or args.steps % (args.new_tokens // args.block_length):
        parser.error("blocks must divide tokens and steps, as in LLaDA's script")
    return args


@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    rows: list[Any]
    if args.rounding:
        rows = [row for name in args.models for row in measure_rounding(name, args)]
        show_rounding(rows, args)
    else:
        rows = [row for name in args.models for row in measure_model(name, args)]
        show(rows, args)
    if args.json:
        report = {"device": device_name(args.device), "torch": torch.__version__, "arguments": vars(args)}
        args.json.write_text(
            json.dumps({**report, "rows": [asdict(row) for row in rows]}, indent=2, default=str) + "\n"
        )


if __name__ == "__main__":
    main()
