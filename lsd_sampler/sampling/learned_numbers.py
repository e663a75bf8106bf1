"""Learned numbers for each number of calls, and the step-error table that gives them for any number of calls."""

import math
from dataclasses import dataclass, field

import torch

from ..support.validation import check_float
from .dependence import Dependence
from .position_choice import PositionChoice


@dataclass(frozen=True)
class StepErrorTable:
    """The cost of each possible step of a sampler, in nats, as measured along teacher paths.

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
        """The cheapest schedule of exactly `num_steps` steps, by dynamic programming (a shortest path with M edges).

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
        """Cost of the uniform schedule of `num_steps` steps, on the nearest states of the grid. Nats per sequence."""
        ideal = torch.linspace(0, self.seq_len, num_steps + 1)[:-1]
        states = (self.grid[None].double() - ideal[:, None]).abs().argmin(1).unique()
        ends = torch.cat([states[1:], torch.tensor([len(self.grid)])])
        return float(self.step_costs()[states, ends].sum())


@dataclass(frozen=True)
class LearnedSteps:
    """The numbers of a sampler with M steps (= network calls).

    Args:
        timesteps (`torch.DoubleTensor` of shape `(M + 1,)`): `1 = t_0 > ... > t_M > 0`.
        score_coefficients (`torch.DoubleTensor` of shape `(M,)`): Phi, multiplies the score: scales how many tokens
            step k reveals.
        log_score_coefficients (`torch.DoubleTensor` of shape `(M,)`): beta, multiplies the log-score: an inverse
            temperature.
        choice ([`PositionChoice`], *optional*): what decides the positions of each step in the order `adaptive`.
    """

    timesteps: torch.Tensor
    score_coefficients: torch.Tensor
    log_score_coefficients: torch.Tensor
    choice: PositionChoice | None = None

    @classmethod
    def plain(cls, timesteps: torch.Tensor) -> "LearnedSteps":
        """All coefficients 1."""
        return cls(timesteps, torch.ones_like(timesteps[1:]), torch.ones_like(timesteps[1:]))

    def check(self, where: str) -> None:
        """Raises `ValueError`, naming `where` and the culprit, unless all numbers are usable."""
        M = self.timesteps.numel() - 1
        for name in ("timesteps", "score_coefficients", "log_score_coefficients"):
            tensor = getattr(self, name)
            expected = (M + 1,) if name == "timesteps" else (M,)
            if tuple(tensor.shape) != expected:
                raise ValueError(f"{where}.{name} must have shape {expected}, got {tuple(tensor.shape)}.")
            check_float(tensor, f"{where}.{name}")
            if bool((tensor < 0).any()):
                raise ValueError(f"{where}.{name} must be >= 0.")
        if M < 1 or float(self.timesteps[0]) > 1 or float(self.timesteps[-1]) <= 0:
            raise ValueError(f"{where}.timesteps must lie in (0, 1] and hold at least two times.")
        # in float32, as the network sees them
        if not bool((self.timesteps.float().diff() < 0).all()):
            raise ValueError(f"{where}.timesteps must be strictly decreasing (in float32).")
        if self.choice is not None:
            self.choice.check(where, M)


@dataclass
class LearnedSampler:
    """All that was learned: numbers for some NFEs, perhaps the table that gives them for any NFE, and for the order
    `adaptive` the dependence between positions.
    """

    steps: dict[int, LearnedSteps] = field(default_factory=dict)
    step_error: StepErrorTable | None = None
    dependence: Dependence | None = None

    def __bool__(self) -> bool:
        return bool(self.steps) or self.step_error is not None

    @property
    def chooses(self) -> bool:
        """Whether it says which positions to reveal, and not only when."""
        return any(steps.choice is not None for steps in self.steps.values())

    def check(self, where: str) -> None:
        """Raises `ValueError` naming `where` and the key of the first unusable tensor."""
        for M, steps in self.steps.items():
            steps.check(f"{where}: nfe_{M}")
            if steps.timesteps.numel() != M + 1:
                got = steps.timesteps.numel()
                raise ValueError(f"{where}: nfe_{M}.timesteps must have {M + 1} entries, got {got}.")
        if self.step_error is not None:
            _check_step_error(self.step_error, where)
        if self.dependence is not None:
            self.dependence.check(where)
            if not self.chooses:
                raise ValueError(
                    f"{where}: kappa.{self.dependence.layout} goes with choice_weights, and there are none."
                )
        for M, steps in self.steps.items():
            if self.dependence is None and steps.choice is not None and steps.choice.needs_dependence:
                raise ValueError(
                    f"{where}: nfe_{M}.choice_weights of redundancy and gain go with kappa, and there is none."
                )


def _check_step_error(step_error: StepErrorTable, where: str) -> None:
    table, grid = step_error.table, step_error.grid
    if table.ndim != 2 or grid.ndim != 1 or len(table) != len(grid) or table.numel() == 0:
        shapes = f"{tuple(table.shape)} and {tuple(grid.shape)}"
        raise ValueError(f"{where}: step_error.table and step_error.grid must be (G, L) and (G,), got {shapes}.")
    check_float(table, f"{where}: step_error.table")
    if not math.isfinite(float(torch.linalg.vector_norm(table, ord=1, dtype=torch.float64))):
        raise ValueError(f"{where}: step_error.table holds values too large to be added up.")
    # compared, not subtracted: a difference may overflow
    if grid.dtype != torch.int64 or int(grid[0]) != 0 or not bool((grid[1:] > grid[:-1]).all()):
        raise ValueError(f"{where}: step_error.grid must be int64 and increase from 0.")
    if int(grid[-1]) >= table.shape[1]:
        raise ValueError(f"{where}: step_error.grid must stay below the sequence length {table.shape[1]}.")
