"""Bring your own denoiser: a network that knows nothing of this library gets a sampler of its own, and a better one.

    python examples/bring_your_own_denoiser.py

The data are walks over 8 levels, one up or down at a time, drawn as bars; a small network of convolutions
learns to fill in masked levels in seconds on a CPU. A jump is an error, so samplers are easily compared.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

from lsd_sampler import Denoiser, DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill


BARS, LENGTH, LEVELS, MASK = "▁▂▃▄▅▆▇█", 64, 8, 8


class Network(nn.Module):
    """Your network: from tokens, some of them masked, to logits of the clean ones."""

    def __init__(self, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv1d(LEVELS + 1, width, 1)]
        for dilation in (1, 2, 4, 8, 16, 1):
            layers += [nn.ReLU(), nn.Conv1d(width, width, 3, padding="same", dilation=dilation)]
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Conv1d(width, LEVELS, 1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.layers(F.one_hot(tokens, LEVELS + 1).float().mT).mT


class WalkDenoiser(Denoiser):
    """All that this library needs to know about it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.vocab_size, self.mask_token_id, self.length = LEVELS, MASK, LENGTH

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        return self.network(tokens)


def walks(num: int) -> torch.Tensor:
    """Training data of shape `(num, LENGTH)`: up or down by one, and back from the lowest and highest level."""
    steps = torch.randint(0, 2, (num, LENGTH)) * 2 - 1
    height = (torch.randint(0, 2 * LEVELS, (num, 1)) + steps.cumsum(1)) % (2 * LEVELS - 2)
    return torch.minimum(height, 2 * LEVELS - 2 - height)


def train(network: nn.Module, num_steps: int) -> None:
    """Mask each walk to a degree of its own; learn what was masked."""
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, num_steps)
    for _ in range(num_steps):
        tokens = walks(32)
        masked = torch.rand(tokens.shape) < torch.rand(len(tokens), 1)
        loss = F.cross_entropy(network(tokens.masked_fill(masked, MASK))[masked], tokens[masked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def sample(network: nn.Module, scheduler: LSDScheduler, num_steps: int) -> torch.Tensor:
    """Your own loop, as in any diffusers pipeline: the scheduler is all that it takes from this library."""
    tokens, generator = torch.full((256, LENGTH), MASK), torch.Generator().manual_seed(0)
    scheduler.set_timesteps(num_steps)
    for t in scheduler.timesteps:
        tokens = scheduler.step(network(tokens), t, tokens, generator=generator).prev_sample
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-steps", type=int, default=600)
    parser.add_argument("--num-sequences", type=int, default=64, help="walks to distil the sampler from")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more would only slow down a network as small as this
    network = Network()
    train(network, args.train_steps)
    denoiser = WalkDenoiser(network)
    plain = LSDScheduler(**denoiser.scheduler_config())
    pipe = MaskedDiffusionPipeline(denoiser, plain)
    learned = distill(pipe, DistillConfig(method="path_kl", nfe=(8,), num_sequences=args.num_sequences))
    for name, scheduler, num_steps in (("plain", plain, 8), ("learned", learned, 8), ("plain", plain, LENGTH)):
        tokens = sample(network, scheduler, num_steps)
        jumps = (tokens.diff(dim=1).abs() != 1).double().mean()
        print(f"{name} sampler, {num_steps} network calls: {jumps:.1%} of the steps are jumps")
        print("".join(BARS[level] for level in tokens[0]), end="\n\n")


if __name__ == "__main__":
    main()
