"""Golden runs of LLaDA's, Dream's and Fast-dLLM's own code, and the same through the pipeline."""

import json
from collections.abc import Iterator
from typing import Any

import torch
from helpers.golden_files import fixture_path
from safetensors.torch import load_file

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.pipeline_masked_diffusion import MaskedDiffusionPipelineOutput


LLADA = {"order": "confidence", "confidence_temperature": 0.0, "count": "llada"}
DREAM_ORDERS = {"maskgit_plus": "probability", "topk_margin": "margin", "entropy": "entropy"}

Case = tuple[dict[str, Any], dict[str, torch.Tensor]]


def official_cases(folder: str) -> Iterator[Case]:
    """Settings of each case, and its tensors: `prompt`, `canvases`, ..."""
    path = fixture_path(folder)
    tensors = load_file(path / "expected.safetensors")
    for case in json.loads((path / "cases.json").read_text()):
        start = f"{case['name']}."
        yield case, {name.removeprefix(start): x for name, x in tensors.items() if name.startswith(start)}


def official_pipeline(folder: str, **config: Any) -> MaskedDiffusionPipeline:
    """A pipeline around a golden checkpoint, its sampler with this config."""
    pipe = MaskedDiffusionPipeline.from_pretrained(str(fixture_path(folder)))
    pipe.scheduler = LSDScheduler(**{**pipe.denoiser.scheduler_config(), **config})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def llada_config(args: dict[str, Any]) -> dict[str, Any]:
    """The sampler that arguments of LLaDA's or Fast-dLLM's `generate` ask for."""
    for rule in ("threshold", "factor"):
        if rule in args:
            return {"solver": f"fast_dllm_{rule}", "solver_options": {rule: args[rule]}}
    return LLADA


def dream_config(args: dict[str, Any]) -> dict[str, Any]:
    """The sampler that arguments of Dream's `diffusion_generate` ask for."""
    if args["alg"] == "confidence_threshold":
        options = {"threshold": args["threshold"]}
        return {"solver": "fast_dllm_threshold", "solver_options": options, "certainty": "tempered"}
    # Fast-dLLM's code for Dream ranks by entropy, whatever the name
    order = "entropy" if "block_length" in args else DREAM_ORDERS[args["alg"]]
    return {
        "order": order, "count": "dream", "confidence_temperature": 0.0, "certainty": "tempered",
        "sampling_eps": args.get("eps", 1e-3),
    }  # fmt: skip


def generate(
    pipe: MaskedDiffusionPipeline, case: dict[str, Any], tensors: dict[str, torch.Tensor], **options: Any
) -> tuple[list[torch.Tensor], MaskedDiffusionPipelineOutput]:
    """The canvases before the first step and after each, and the output, of a case from its prompt."""
    args, canvases = case["args"], [tensors["canvases"][0]]

    def record(_: Any, step: int, t: torch.Tensor, given: dict[str, torch.Tensor]) -> None:
        canvases.append(given["sample"].clone())

    out = pipe(
        prompt=tensors["prompt"], attention_mask=tensors.get("attention_mask"), max_new_tokens=case["gen_length"],
        num_inference_steps=args["steps"], block_length=args.get("block_length"), cache=case.get("cache", "none"),
        guidance_scale=args.get("cfg_scale"), temperature=0.0, top_k=args.get("top_k"), top_p=args.get("top_p"),
        alg_temp=args.get("alg_temp"), callback_on_step_end=record, **options,
    )  # fmt: skip
    assert isinstance(out, MaskedDiffusionPipelineOutput)
    assert torch.equal(out.sequences, canvases[-1])
    return canvases, out


def assert_same_canvases(ours: list[torch.Tensor], official: torch.Tensor, name: str) -> None:
    assert len(ours) == len(official), f"{name}: {len(ours) - 1} steps, officially {len(official) - 1} calls"
    for k, (canvas, expected) in enumerate(zip(ours, official, strict=True)):
        assert torch.equal(canvas, expected), f"{name}: canvas {k}"
