"""Swap the scheduler in diffusers' LLaDA2 pipeline: its own, ours, and ours distilled for the model, at equal calls.

    python examples/llada2_pipeline.py
    python examples/llada2_pipeline.py --model inclusionAI/LLaDA2.1-mini --trust-remote-code --prompt "Do cats dream?"

Without `--model` the model is exact. In its language each number is followed by the next smaller one, and 0 by any.
Every fault of a text is therefore the sampler's, and can be counted. The run takes seconds on a CPU, offline.
"""

import argparse
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import BlockRefinementScheduler, LLaDA2Pipeline
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from lsd_sampler import Denoiser, DistillConfig, LSDScheduler, distill, load_denoiser


class ExactModel(torch.nn.Module):
    """A denoiser of this library behind the interface of LLaDA2's model."""

    device, dtype = torch.device("cpu"), torch.float64

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, input_ids: torch.Tensor, **masks: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.denoiser(input_ids))


def exact_pipeline() -> LLaDA2Pipeline:
    """Counts down from 31; a number is its own token id, 32 is the mask."""
    words = Tokenizer(models.WordLevel({**{str(i): i for i in range(32)}, "[MASK]": 32}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, mask_token="[MASK]")
    return LLaDA2Pipeline(ExactModel(load_denoiser("countdown:V=32,L=512")), BlockRefinementScheduler(), tokenizer)


def load_pipeline(model_id: str, trust_remote_code: bool) -> LLaDA2Pipeline:
    options = {"trust_remote_code": trust_remote_code}
    model = AutoModelForCausalLM.from_pretrained(model_id, dtype=torch.bfloat16, **options)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return LLaDA2Pipeline(model, BlockRefinementScheduler(), AutoTokenizer.from_pretrained(model_id, **options))


def generate(pipe: LLaDA2Pipeline, **call: Any) -> tuple[str, int]:
    """A text, and how many network calls it took."""
    calls = []
    hook = pipe.model.register_forward_hook(lambda *_: calls.append(1))
    # with a threshold above 1 the pipeline's own scheduler makes all the calls it may; ours takes no notice of these
    options = {"threshold": 2.0, "editing_threshold": None, "generator": torch.Generator().manual_seed(0)}
    text = pipe(**call, **options).texts[0]
    hook.remove()
    return text, len(calls)


def mark_errors(text: str) -> str:
    """Brackets around each number that should not follow the one before."""
    numbers = [int(word) for word in text.split()]
    wrong = [b != a - 1 and a != 0 for a, b in zip(numbers, numbers[1:], strict=False)]
    return " ".join(f"[{b}]" if bad else str(b) for b, bad in zip(numbers, [False, *wrong], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or Hub id of a LLaDA2 model; default: the exact one")
    parser.add_argument("--trust-remote-code", action="store_true", help="LLaDA2's own code comes with its weights")
    parser.add_argument("--prompt", default="20 19 18")
    parser.add_argument("--sampler", help="folder or Hub id of a learned sampler; default: distil one here")
    parser.add_argument("--num-sequences", type=int, default=8, help="texts to distil it from")
    parser.add_argument("--steps", type=int, default=8, help="network calls for each block of 32 tokens")
    parser.add_argument("--gen-length", type=int, default=125)
    args = parser.parse_args()
    pipe = load_pipeline(args.model, args.trust_remote_code) if args.model else exact_pipeline()
    call = {"prompt": args.prompt, "gen_length": args.gen_length, "temperature": 1.0}

    schedulers = {"Its own": pipe.scheduler, "Ours, plain": LSDScheduler.from_config(pipe.scheduler.config)}
    if args.sampler:
        schedulers["Ours, learned"] = LSDScheduler.from_pretrained(args.sampler)
    else:  # one text at a time, because chat templates take one prompt
        config = DistillConfig(method="path_kl", nfe=(args.steps,), num_sequences=args.num_sequences, batch_size=1)
        schedulers["Ours, learned"] = distill(pipe, config, **call)

    pipe.set_progress_bar_config(disable=True)
    for name, scheduler in schedulers.items():
        pipe.scheduler = scheduler
        text, calls = generate(pipe, num_inference_steps=args.steps, **call)
        text = text if args.model else mark_errors(text)
        errors = "" if args.model else f", {text.count('[')} errors, in brackets"
        print(f"{name}, {calls} network calls{errors}:\n{text}\n")


if __name__ == "__main__":
    main()
