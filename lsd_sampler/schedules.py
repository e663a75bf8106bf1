"""Time grids `1 = t_0 > t_1 > ... > t_M = eps`: fixed ones, and the exact shortest path through a step-error table."""

from dataclasses import dataclass

import torch

from .noise import NoiseSchedule
from .registry import Registry


def uniform_grid(num_steps: int, eps: float) -> torch.Tensor:
    """Equally spaced times, float64 of shape `(num_steps + 1,)`."""
    return torch.linspace(1.0, eps, num_steps + 1, dtype=torch.float64)


def cosine_grid(num_steps: int, eps: float) -> torch.Tensor:
    """`t = cos(pi k / 2 M)` (MaskGIT, https://huggingface.co/papers/2202.04200): few tokens first, many at the end."""
    angle = torch.linspace(0.0, torch.pi / 2, num_steps + 1, dtype=torch.float64)
    return eps + (1 - eps) * torch.cos(angle)


def arccos_grid(num_steps: int, eps: float) -> torch.Tensor:
    """`t = arccos(k / M) / (pi / 2)` (Halton-MaskGIT, https://huggingface.co/papers/2503.17076): evenly at first, very
    many tokens in the last step.

    Its authors round the number of known tokens down, and reveal at least one in each step. On canvases of up to
    32 x 32 tokens, under log-linear noise, exact counts are within two tokens of theirs as long as there are at least
    1.6 tokens for each step; [`grid_from_counts`] meets any counts exactly.
    """
    share = torch.linspace(0.0, 1.0, num_steps + 1, dtype=torch.float64)
    return eps + (1 - eps) * torch.arccos(share) / (torch.pi / 2)


GRIDS: Registry = Registry("schedule")
GRIDS.register("uniform", uniform_grid)
GRIDS.register("cosine", cosine_grid)
GRIDS.register("arccos", arccos_grid)


@dataclass(frozen=True)
class StepErrorTable:
    """What each possible step of a sampler costs, in nats, as measured along teacher paths.

    Args:
        table (`torch.DoubleTensor` of shape `(num_states, seq_len)`): `table[g, r]` is the expected cross-entropy (or,
            up to a constant of r alone, the KL) of the token with rank r under the prediction made when `grid[g]`
            tokens were known.
        grid (`torch.LongTensor` of shape `(num_states,)`): numbers of known tokens, increasing from 0.
    """

    table: torch.Tensor
    grid: torch.Tensor

    @property
    def seq_len(self) -> int:
        """Positions that are masked at the start."""
        return self.table.shape[1]

    def step_costs(self) -> torch.Tensor:
        """`cost[g, h]`: one step from state `grid[g]` to state `grid[h]` (`h = num_states` is the end). inf where `h
        <= g`.
        """
        cumulative = torch.cat([self.table.new_zeros(len(self.grid), 1), self.table.cumsum(1)], dim=1)
        ends = torch.cat([self.grid, torch.tensor([self.seq_len])])
        costs = cumulative[:, ends] - cumulative.gather(1, self.grid[:, None])
        return costs.masked_fill(ends[None] <= self.grid[:, None], torch.inf)

    def solve(self, num_steps: int) -> tuple[list[int], float]:
        """The cheapest schedule of exactly `num_steps` steps, by dynamic programming (method: shortest path with M
        edges).

        Returns:
            numbers of known tokens `[0, ..., seq_len]`, of length `num_steps + 1`, and the path's cost in nats per
            sequence.

        Raises:
            ValueError: if the table has fewer states than steps.
        """
        if not 1 <= num_steps <= len(self.grid):
            more = "distil again with a larger `--num-states`"
            advice = more if len(self.grid) < self.seq_len else f"a sequence has only {self.seq_len} tokens"
            raise ValueError(
                f"`num_inference_steps` must be in [1, {len(self.grid)}] for this step-error table, got {num_steps}:"
                f" {advice}."
            )
        costs = self.step_costs()
        best = costs[:, -1]  # from state g to the end, in one step
        choices = []
        for _ in range(num_steps - 1):
            best, choice = (costs[:, :-1] + best[None]).min(dim=1)
            choices.append(choice)
        state, path = 0, [0]
        for choice in reversed(choices):
            state = int(choice[state])
            path.append(int(self.grid[state]))
        return [*path, self.seq_len], float(best[0])

    def uniform_cost(self, num_steps: int) -> float:
        """Cost of the uniform schedule of so many steps, on the nearest states of the grid. Nats per sequence."""
        ideal = torch.linspace(0, self.seq_len, num_steps + 1)[:-1]
        states = (self.grid[None].double() - ideal[:, None]).abs().argmin(1).unique()
        ends = torch.cat([states[1:], torch.tensor([len(self.grid)])])
        return float(self.step_costs()[states, ends].sum())


def grid_from_counts(counts: list[int], noise: NoiseSchedule, eps: float) -> torch.Tensor:
    """Times at which `round(alpha L)` tokens are known, for `counts = [0, ..., L]`. float64 of shape `(len(counts),)`.

    At t = 1 the forward process leaves `alpha(1) > 0` of the tokens unmasked, so a first count below `alpha(1) L` is
    met as nearly as strictly decreasing times allow. The last time is `eps`, or just below the one before it.
    """
    total = counts[-1]
    known = torch.tensor(counts[1:-1], dtype=torch.float64) / total
    floor = float(noise.alpha(1.0))
    # geometric noise never reaches alpha = 1
    times = noise.inverse_alpha(known.clamp(min=floor)).clamp(min=1e-6)
    grid = torch.cat([torch.ones(1, dtype=torch.float64), times, torch.full((1,), eps, dtype=torch.float64)])
    for k in range(1, len(grid)):  # ties with t = 1, or times below eps
        grid[k] = torch.minimum(grid[k], grid[k - 1] * (1 - 1e-6))
    return grid


def replay_states(seq_len: int, num_states: int) -> torch.Tensor:
    """Numbers of known tokens at which a step may begin: all of them, or about `num_states`, denser at the start,
    where steps are small.

    Powers of two fractions of the length are always among them: there a low-discrepancy order completes a level.
    """
    if num_states >= seq_len:
        return torch.arange(seq_len)
    x = torch.arange(num_states, dtype=torch.float64) / num_states
    states = {int(round(seq_len * float(v) ** 1.5)) for v in x}
    levels = {-(-seq_len // 2**k) for k in range(1, seq_len.bit_length())}
    return torch.tensor(sorted(s for s in states | levels | {0} if s < seq_len))
