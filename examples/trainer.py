"""The training loop of the example models: Muon and AdamW, limits on steps and time, checkpoints, the best weights.

Not a script: `train_text_model.py`, `train_molecules.py`, `train_garments.py`, `train_sudoku.py` and
`train_sudoku4.py` use it; `train_countdown_sedd.py` has a loop of its own, and the loss from here.
"""

import argparse
import copy
import json
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from lsd_sampler.denoisers import Denoiser
from lsd_sampler.denoisers.sedd import SEDDDenoiser


Batch = tuple[torch.Tensor, ...]

# matrices inside blocks, by the names of RADD, SEDD, GPT-2 and Halton-MaskGIT (without their conditioning)
_MATRICES = re.compile(r"^(?!.*adaLN).*(blocks\.|\.h\.|\.(attn|ff)\.)")
_START = time.monotonic()  # the time limit counts preparations too


def add_arguments(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """The options of [`Trainer`]; `defaults` replaces those below."""
    parser.add_argument("--output-dir", required=True, type=Path)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument(
        "--minutes", type=float, default=math.inf,
        help="decay the learning rate to 0 and stop that long after the start (then the model is written and judged)",
    )  # fmt: skip
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=200, help="steps")
    parser.add_argument("--report-every", type=int, default=250, help="steps between two evaluations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="compile the loss: for GPUs and long runs")
    parser.set_defaults(**defaults)


def stratified(count: int, generator: torch.Generator) -> torch.Tensor:
    """`(count,)` numbers, one shifted draw in each of so many equal parts of (0, 1]: a mean over them varies less."""
    shift = torch.rand((), generator=generator, device=generator.device)
    return (torch.arange(1, count + 1, device=generator.device) - shift) / count


def mask_tokens(x_BL: torch.Tensor, mask_token_id: int, generator: torch.Generator) -> Batch:
    """Masks each sequence with a probability lambda of its own: noised tokens, tokens, and weights.

    Args:
        x_BL (`torch.LongTensor` of shape `(batch_size, length)`): clean tokens.
        mask_token_id (`int`): the mask.
        generator (`torch.Generator`): of the device of `x_BL`. Lambda is [`stratified`] over the batch.

    Returns:
        what [`masked_loss`] takes. The weights are 1 / lambda where masked, 0 elsewhere.
    """
    lam_B1 = stratified(len(x_BL), generator)[:, None]
    mask_BL = torch.rand(x_BL.shape, generator=generator, device=x_BL.device) < lam_B1
    return torch.where(mask_BL, mask_token_id, x_BL), x_BL, mask_BL / lam_B1


def masked_loss(model: Any, noised_BL: torch.Tensor, x_BL: torch.Tensor, weight_BL: torch.Tensor, *condition: Any):
    """lambda-DCE (https://huggingface.co/papers/2406.03736), in nats per token.

    Args:
        model ([`~lsd_sampler.denoisers.Denoiser`]): one with `hidden_states`, `head` and `vocab_size`.
        noised_BL, x_BL, weight_BL: from [`mask_tokens`].
        condition: further arguments of `model.hidden_states`, after `t`.
    """
    hidden = model.hidden_states(noised_BL, None, *condition) if condition else model.hidden_states(noised_BL)
    targets, weights = x_BL, weight_BL
    if not torch.compiler.is_compiling():  # the head for masked rows only, whose number no compiler knows
        masked_BL = weight_BL > 0
        hidden, targets, weights = hidden[masked_BL], x_BL[masked_BL], weight_BL[masked_BL]
    logits = model.head(hidden)[..., : model.vocab_size].float()
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / x_BL.numel()


def mask_at_times(model: Denoiser, x_BL: torch.Tensor, generator: torch.Generator) -> Batch:
    """Masks each sequence as at a time of its own, for a model that sees the time.

    Args:
        model ([`~lsd_sampler.denoisers.Denoiser`]): one with log-linear noise.
        x_BL (`torch.LongTensor` of shape `(batch_size, length)`): clean tokens.
        generator (`torch.Generator`): of the device of `x_BL`. Times are [`stratified`] over the batch.

    Returns:
        what [`score_entropy`] takes: noised tokens, tokens, weights (1 / t where masked, 0 elsewhere) and times.
    """
    t_B = stratified(len(x_BL), generator).double()
    masked_B1 = model.noise.masked(t_B).float()[:, None]
    mask_BL = torch.rand(x_BL.shape, generator=generator, device=x_BL.device) < masked_B1
    return torch.where(mask_BL, model.mask_token_id, x_BL), x_BL, mask_BL / t_B[:, None].float(), t_B


def score_entropy(
    model: Any, noised_BL: torch.Tensor, x_BL: torch.Tensor, weight_BL: torch.Tensor, t_B: torch.Tensor
) -> torch.Tensor:
    """Denoising weighted score entropy (https://huggingface.co/papers/2310.16834, eq. 10), in nats per token.

    With log-linear noise, odds a = alpha / (1 - alpha) and s = a f, the loss of a masked position is
    `rate a (sum f - log f(x) - 1) = (sum f - log f(x) - 1) / t`. For an exact denoiser, f is the posterior.

    Args:
        model ([`~lsd_sampler.denoisers.Denoiser`]): a SEDD model, or an exact one that predicts log-probabilities.
        noised_BL, x_BL, weight_BL, t_B: from [`mask_at_times`].
    """
    masked_BL = weight_BL > 0
    if isinstance(model, SEDDDenoiser):
        logits_RV = model.head(model.hidden_states(noised_BL, t_B)[masked_BL])[:, : model.vocab_size]
        log_f_RV = logits_RV.float() - math.log(model.vocab_size)
    else:
        log_f_RV = model(noised_BL)[masked_BL].float()
    log_f_R = log_f_RV.gather(1, x_BL[masked_BL][:, None])[:, 0]
    return (weight_BL[masked_BL] * (log_f_RV.exp().sum(1) - log_f_R - 1)).sum() / x_BL.numel()


class Trainer:
    """Warm-up, then constant, then linear decay over the second half. A run that was stopped goes on from its last
    checkpoint. The weights that are kept are those of the least held-out loss.

    Args:
        args (`argparse.Namespace`): the options of [`add_arguments`].
        model (`torch.nn.Module`): it is moved to `args.device`.
        loss (`Callable`): `loss(model, *inputs)`, a mean over tokens.
        noise (`Callable`): `noise(batch, generator)` makes the inputs of the loss, before anything is compiled.
        draw (`Callable`): `draw(generator)` makes a batch of `args.batch_size`. The generator depends on seed and step
            alone, so a resumed run sees the same data.
        valid (sequence of batches): held-out data.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        model: torch.nn.Module,
        loss: Callable[..., torch.Tensor],
        noise: Callable[[Batch, torch.Generator], Batch],
        draw: Callable[[torch.Generator], Batch],
        valid: Sequence[Batch],
    ):
        self.args, self.model, self.noise, self.draw, self.valid = args, model.to(args.device), noise, draw, valid
        if args.compile:
            torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
        self.loss, self.train_loss = loss, torch.compile(loss, dynamic=False) if args.compile else loss
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and _MATRICES.search(name)]
        others = [p for name, p in named if not (p.ndim == 2 and _MATRICES.search(name))]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.step, self.earlier, self.state_file = 0, 0.0, args.output_dir / "training_state.pt"
        self.best_loss, self.best = math.inf, copy.deepcopy(model.state_dict())
        if self.state_file.exists():
            self._restore()

    @property
    def elapsed(self) -> float:
        """Seconds in training, those of earlier runs included."""
        return self.earlier + time.monotonic() - _START

    @property
    def progress(self) -> float:
        return max(self.step / self.args.steps, self.elapsed / (60 * self.args.minutes))

    def _restore(self) -> None:
        state = torch.load(self.state_file, weights_only=True, map_location=self.args.device)
        self.step, self.earlier = state["step"], state["elapsed"]
        self.best_loss, self.best = state["best_loss"], state["best"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def save(self) -> None:
        state = {"step": self.step, "elapsed": self.elapsed, "model": self.model.state_dict()}
        state |= {"best_loss": self.best_loss, "best": self.best}
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save(state, self.state_file.with_suffix(".tmp"))
        os.replace(self.state_file.with_suffix(".tmp"), self.state_file)

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.args.device).manual_seed(seed)

    def autocast(self) -> torch.autocast:
        return torch.autocast(torch.device(self.args.device).type, torch.bfloat16)

    @torch.no_grad()
    def evaluate(self) -> float:
        """The held-out loss, with the same masks every time."""
        self.model.eval()
        generator, total, count = self.generator(1234), 0.0, 0
        for batch in self.valid:
            with self.autocast():
                loss = self.loss(self.model, *self.noise(batch, generator))
            total, count = total + loss.item() * len(batch[0]), count + len(batch[0])
        self.model.train()
        return total / count

    def train_step(self) -> torch.Tensor:
        args = self.args
        rate = args.lr * min(1.0, (self.step + 1) / args.warmup) * max(0.0, min(1.0, 2 * (1 - self.progress)))
        generator = self.generator(args.seed * 1_000_003 + self.step)
        with self.autocast():
            loss = self.train_loss(self.model, *self.noise(self.draw(generator), generator))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def run(self) -> None:
        """Trains to the end, and puts the best weights into the model."""
        losses, last_save = [], time.monotonic()
        self.model.train()
        while self.progress < 1:
            losses.append(self.train_step())
            self.step += 1
            finished = self.progress >= 1
            if self.step % self.args.report_every == 0 or finished:
                self.report(torch.stack(losses).mean().item())
                losses = []
            if time.monotonic() - last_save > 120 or finished:
                self.save()
                last_save = time.monotonic()
        self.model.load_state_dict(self.best)

    def report(self, train_loss: float) -> None:
        row = {"step": self.step, "minutes": round(self.elapsed / 60, 2), "train_loss": train_loss}
        row["valid_loss"] = self.evaluate()
        if row["valid_loss"] < self.best_loss:
            self.best_loss, self.best = row["valid_loss"], copy.deepcopy(self.model.state_dict())
        print(json.dumps(row), flush=True)
        with open(self.args.output_dir / "training.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    def export(self) -> dict[str, Any]:
        """Writes the model in bfloat16, and returns what a card says of the training (also in
        `training_summary.json`). The loss is that of just that model.
        """
        args = self.args
        model: Any = torch.nn.Module.to(self.model, torch.bfloat16)  # that of diffusers has a warning too many
        model.save_pretrained(args.output_dir)
        summary = {
            "parameters": sum(p.numel() for p in self.model.parameters()), "steps": self.step,
            "batch_size": args.batch_size, "minutes": self.elapsed / 60, "device": device_name(args.device),
            "loss": self.evaluate(), "valid": sum(len(batch[0]) for batch in self.valid),
        }  # fmt: skip
        self.model.eval()
        (args.output_dir / "training_summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        print(f"validation loss of the exported model: {summary['loss']:.4f}", flush=True)
        return summary


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device


def training_lines(summary: dict[str, Any], length: int) -> str:
    """The lines of a card on the training of a masked model."""
    size = f"{summary['steps']} steps of {summary['batch_size']} x {length} tokens, {summary['minutes']:.0f} minutes"
    return f"""- Training: {size} on {summary["device"]}, bfloat16 autocast, Muon and AdamW, lambda-DCE loss; the
  weights of the least held-out loss.
- Validation loss: {summary["loss"]:.4f} nats per token, an upper bound of the negative log-likelihood;
  {summary["valid"]} held-out sequences, weights in bfloat16 as stored here."""
