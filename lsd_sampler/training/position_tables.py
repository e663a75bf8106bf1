"""Where a search for the choice of positions begins: weights of the score, each priced for all numbers of calls by one
forced run, and the layout of kappa.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from tqdm.auto import tqdm

from ..sampling.dependence import LAYOUTS, Dependence
from ..sampling.learned_numbers import LearnedSampler, StepErrorTable
from ..sampling.orders import ORDERS, AdaptiveOrder
from ..sampling.position_choice import BUDGETS, WEIGHTS, course, is_in_nats, shares_of
from ..sampling.schedules import replay_states
from .held_out import HeldOutBatch, first_of, with_other_noise
from .position_candidates import Candidate
from .position_changes import Scored
from .position_space import EVERYTHING, FREE_BELOW, PositionSpace
from .ranked_costs import RankedCosts, RankingRecorder, StateCosts
from .share_search import best_shares, plain_bounds, plain_shares
from .step_errors import estimate_table
from .task import Task


Quickly = Callable[[list[Candidate], Dependence], list[Scored]]
"""From candidates and a kappa to what a short search finds, the best first."""
TABLE_SEQUENCES = 24
"""Sequences of a forced run that prices candidates."""
NUM_STATES, NUM_STATES_OF_SIMPLE = 40, 128
"""Network calls of such a run, with weights that look at the logits and with those that do not."""
FIRST = 8
"""As many candidates of the tables come before others in a search for right answers; only these begin with tokens that
are drawn, too. All begin with the most likely ones.
"""
BOUNDS = (0.1, 1.0)
"""Nats of each call where a search begins, beside those that the tables find."""
LAYOUT_SHARE = 0.125
"""Share of the evaluations for a number of calls that a short search takes with each layout of kappa."""
FOUND = 4
"""How many candidates a comparison of layouts hands on."""
FEW_CALLS = 8
"""Numbers of calls up to this one have a search of their own; all larger ones share as many evaluations."""


def _weights(**terms: float) -> tuple[float, ...]:
    return tuple(terms.get(name, 0.0) for name in WEIGHTS)


SIMPLE = {"random": _weights(random=1), "halton": _weights(halton=1)}
PROBES = (_weights(redundancy=1, gain=1, random=0.01), _weights(redundancy=1, gain=0.3, halton=0.01))
"""Weights by which layouts of kappa are compared."""
CONSTANT = tuple(_weights(redundancy=1, gain=gain, random=0.01) for gain in (0.3, 1, 3))
SUREST = _weights(own=1, random=0.01)
OTHERS = (
    *(
        _weights(own=own, redundancy=redundancy, gain=gain, **{base: weight})
        for own, redundancy, gain, weight in (
            (0, 1, 0, 0.01), (0, 1, 0.3, 0.01), (0, 1, 1, 0.01), (0, 1, 3, 0.01), (1, 0, 0, 0.01), (0.3, 1, 0.3, 0.01),
            (1, 1, 1, 0.01), (0, 1, 0, 0.3), (0, 1, 0, 1),
        )
        for base in ("random", "halton")
    ),
    *(_weights(redundancy=1, gain=gain) for gain in (0.3, 1, 3)),
    _weights(own=0.1, halton=1), _weights(own=0.3, halton=1),
)  # fmt: skip


class PositionTables:
    """The forced runs of one task.

    Args:
        task ([`Task`]): the task; its base scheduler has the order that is learned for.
        batches: sequences to force, of this process.
        layouts: kappa in each layout that was measured; none for an order that is not `adaptive`.
        quickly (*optional*): a short search with one layout of kappa, to compare layouts. Without it, tables decide.
    """

    def __init__(
        self,
        task: Task,
        batches: Sequence[HeldOutBatch],
        layouts: dict[str, Dependence],
        quickly: Quickly | None = None,
    ):
        self.task, self.layouts, self.quickly = task, layouts, quickly
        self.batches = first_of(batches, max(1, TABLE_SEQUENCES // task.workers.size))
        self.runs = with_other_noise(task.runs)
        self.space: PositionSpace = task.options.space

    def candidates(self) -> tuple[dict[int, list[Candidate]], Dependence | None]:
        """For each number of calls where a search begins, the most promising first; and the layout of kappa."""
        priced: list[tuple[float, Candidate]] = []
        if self.task.recipe.order != AdaptiveOrder.name:
            return self._sorted(self._priced(self.task.recipe.order, None, None, NUM_STATES_OF_SIMPLE)), None
        for name, weights in SIMPLE.items():
            priced += self._priced(name, weights, None, NUM_STATES_OF_SIMPLE)
        probes = self.space.scores(PROBES)
        probed = {
            layout: [
                each for i, w in enumerate(probes) for each in self._priced(f"{layout}-{i}", w, dependence, NUM_STATES)
            ]
            for layout, dependence in self.layouts.items()
        }
        layout, found = self._best_layout(probed)
        dependence = self.layouts.get(layout)
        priced += probed.get(layout, [])
        for i, weights in enumerate(self.space.scores(OTHERS)):
            if dependence is None or weights not in probes:
                priced += self._priced(f"{layout}-other-{i}", weights, dependence, NUM_STATES)
        return {M: [*found.get(M, []), *each] for M, each in self._sorted(priced).items()}, dependence

    def _best_layout(self, probed: dict[str, list[tuple[float, Candidate]]]) -> tuple[str, dict[int, list[Candidate]]]:
        """The layout of kappa with which short searches find what costs the least, for few calls; empty if there is
        none. And what they found.
        """
        numbers = few_calls(self.task.config.nfe)
        if len(probed) < 2 or self.quickly is None or not numbers:
            return min(probed, key=lambda layout: _least_by_calls(probed[layout]), default=""), {}
        stored = self.task.progress.load("layout")
        if stored is None:
            stored = self._compared(probed, numbers)
            stored["network_calls"] = torch.tensor(self.task.runs.network_calls)
            self.task.progress.save("layout", stored)
        self.task.runs.network_calls = int(stored["network_calls"])
        layout = min(probed, key=lambda layout: float(stored[f"{layout}.cost"]))
        return layout, {M: [Candidate.of_numbers("table", row) for row in stored[f"{layout}.{M}"]] for M in numbers}

    def spent_on_layouts(self, num_calls: int) -> int:
        """Evaluations that the comparison of layouts may take for a number of calls."""
        compares = len(self.layouts) > 1 and self.quickly is not None and num_calls <= FEW_CALLS
        return len(self.layouts) * evaluations_of_layout(self.task) if compares else 0

    def _compared(
        self, probed: dict[str, list[tuple[float, Candidate]]], numbers: list[int]
    ) -> dict[str, torch.Tensor]:
        """What is found with each layout, and its cost: the sum over the numbers of calls."""
        assert self.quickly is not None
        stored: dict[str, torch.Tensor] = {}
        for layout, priced in probed.items():
            begins, total = self._sorted(priced), 0.0
            for M in numbers:
                found = self.quickly([c for c in begins[M] if not c.is_simple], self.layouts[layout])[:FOUND]
                total += found[0][1].mean
                stored[f"{layout}.{M}"] = torch.stack([c.numbers() for c, _ in found])
            stored[f"{layout}.cost"] = torch.tensor(total)
        return stored

    def _sorted(self, priced: list[tuple[float, Candidate]]) -> dict[int, list[Candidate]]:
        """By number of calls: the cheapest ones by the tables, at most two of the same weights, and simple ones."""
        found: dict[int, list[Candidate]] = {}
        for M in self.task.config.nfe:
            ranked = [c for _, c in sorted(priced, key=lambda each: each[0]) if len(c.shares) == M]
            others: list[Candidate] = []
            for candidate in ranked:
                same = sum(other.weights == candidate.weights for other in others)
                if not candidate.is_simple and same < 2 and len(others) < (10 if M <= FEW_CALLS else 4):
                    others.append(candidate)
            found[M] = [*(c for c in ranked if c.is_simple), *others]
            if M <= FEW_CALLS and any(c.weights not in (None, *SIMPLE.values()) for c in others):
                found[M] += self.space.brought_in(constant_limits(M))
        return found

    def _priced(
        self, name: str, weights: tuple[float, ...] | None, dependence: Dependence | None, num_states: int
    ) -> list[tuple[float, Candidate]]:
        """Candidates with these weights for each number of calls, with their cost by the tables."""
        task, key = self.task, f"table-{name}"
        stored = task.progress.load(key)
        if stored is None:
            states = self._ranked(weights, dependence, num_states)
            priced = self._solved(name, weights, states, num_states)
            stored = {"network_calls": torch.tensor(task.runs.network_calls)}
            for i, (cost, c) in enumerate(priced):
                stored[str(i)] = torch.cat([torch.tensor([cost], dtype=torch.float64), c.numbers()])
            task.progress.save(key, stored)
        task.runs.network_calls = int(stored["network_calls"])
        rows = [stored[str(i)] for i in range(len(stored) - 1)]
        priced = [(float(row[0]), Candidate.of_numbers("table", row[1:])) for row in rows]
        return [(cost, replace(c, name=name) if c.is_simple or weights is None else c) for cost, c in priced]

    def _ranked(
        self, weights: tuple[float, ...] | None, dependence: Dependence | None, num_states: int
    ) -> list[StateCosts]:
        """One run over some sequences, with the costs of each state by rank; rows of all processes."""
        task, L = self.task, self.task.plan.num_masked
        states = replay_states(L, num_states).tolist()
        recorder = RankingRecorder.from_config(task.base.config)
        recorder.never_predicted = task.plan.never_predicted
        # only its weights matter here
        plain = Candidate(
            "", (0.5,) * (len(states) - 1) + (1.0,), weights, 0.0 if is_simple(weights) else self.space.free_below[0]
        )
        known_M = torch.tensor([*states[1:], L], dtype=torch.float64) / L
        steps = plain.steps(known_M, task.base.noise, task.base.config.sampling_eps)
        recorder.set_learned_sampler(LearnedSampler({len(states): steps}, dependence=dependence if weights else None))
        recorder.visit(states, L)
        self.runs.network_calls = task.runs.network_calls
        seen: list[list[StateCosts]] = []
        for sequences, finals in tqdm(self.batches, desc="tables", unit="batch"):
            recorder.force(finals)
            self.runs.run(recorder, len(states), sequences)
            seen += recorder.seen
        task.runs.network_calls = self.runs.network_calls
        return [_joined([_at(canvas, g) for canvas in seen], task) for g in range(len(states))]

    def _solved(
        self, name: str, weights: tuple[float, ...] | None, states: list[StateCosts], num_states: int
    ) -> list[tuple[float, Candidate]]:
        """The best shares for each number of calls, threshold and budget, by the tables."""
        found: list[tuple[float, Candidate]] = []
        simple, nfe, before = is_simple(weights), self.task.config.nfe, None
        starts = {M: plain_shares(M) for M in nfe}
        if simple:
            L = self.task.plan.num_masked
            table = step_error_table(states, replay_states(L, num_states), L, name)
            starts = {M: torch.cat([shortest_path(table, M), starts[M]]) for M in nfe}
        free = self.space.free_below
        thresholds = tuple(dict.fromkeys((0.0, *(free if weights else ())))) if simple else free
        for free_below in thresholds:
            costs = RankedCosts.of(states, free_below)
            if before is not None and bool(torch.equal(before, costs.free_GR)):
                continue  # no entropy lies between the two thresholds
            before = costs.free_GR
            for M, budget in itertools.product(nfe, BUDGETS if weights else BUDGETS[:1]):
                if not self.space.admits(Candidate(name, (1.0,) * M, weights, free_below, budget)):
                    continue
                nats = float(costs.entropy_GRL[0, :, -1].mean())
                begin_CM = plain_bounds(M, nats) if is_in_nats(budget) else starts[M]
                tried = [best_shares(costs, budget, begin_CM)]
                if simple and free_below == 0 and budget == BUDGETS[0]:  # the path as it is, too
                    tried.append((starts[M][0], float(costs.follow(starts[M][:1], budget)[0].mean())))
                for shares_M, nats in tried:
                    candidate = Candidate("", tuple(shares_M.tolist()), weights, free_below, budget)
                    found.append((nats * self.task.plan.num_canvases, candidate))
                if budget == BUDGETS[0]:
                    starts[M] = torch.stack([tried[0][0], *starts[M][:2]])
        return found


def calls_of_tables(num_masked: int, order: str) -> int:
    """Network calls of all tables, at most, for each batch and canvas."""
    simple, other = (len(replay_states(num_masked, num)) for num in (NUM_STATES_OF_SIMPLE, NUM_STATES))
    if order != AdaptiveOrder.name:
        return simple
    return len(SIMPLE) * simple + (len(LAYOUTS) * len(PROBES) + len(OTHERS)) * other


def is_simple(weights: tuple[float, ...] | None) -> bool:
    """Whether these weights do not look at the logits, or there are none."""
    return weights is None or not any(weights[:3])


def evaluations_of_layout(task: Task) -> int:
    """Evaluations of a short search, for one layout of kappa and one number of calls."""
    return int(LAYOUT_SHARE * task.options.search_evaluations)


def few_calls(nfe: Sequence[int]) -> list[int]:
    """The numbers of calls that have a search of their own."""
    return [M for M in nfe if M <= FEW_CALLS]


def constant_limits(num_calls: int) -> list[Candidate]:
    """Candidates that take the same share of the entropy in each call, or the same number of nats.

    Tables misjudge such where little is left. The surest positions up to a few nats are entropy-bounded unmasking.
    """
    limits = [(weights, BUDGETS[1], share) for weights in CONSTANT for share in (0.05, 0.1, 0.2, 0.35)]
    limits += [(weights, BUDGETS[2], nats) for weights in (CONSTANT[1], SUREST) for nats in BOUNDS]
    return [
        Candidate("constant", (limit,) * (num_calls - 1) + (1.0,), weights, FREE_BELOW[0], budget)
        for weights, budget, limit in limits
    ]


def for_answers(
    candidates: Sequence[Candidate], num_calls: int, beta: float, space: PositionSpace = EVERYTHING
) -> list[Candidate]:
    """Where a search for right answers begins: also with the most likely tokens, and with certain positions first, as
    samplers with a threshold have it.

    Args:
        candidates: of the tables.
        num_calls (`int`): M.
        beta (`float`): an inverse temperature at which the most likely token is taken.
        space ([`PositionSpace`], *optional*): what they may use.
    """
    even = tuple(1 / (num_calls - k) for k in range(num_calls))
    bounded = [(*(bound,) * (num_calls - 1), 1.0) for bound in BOUNDS]
    limits = [(BUDGETS[0], even), (BUDGETS[1], even), *((BUDGETS[2], bounds) for bounds in bounded)]
    surest = [
        Candidate("surest first", shares, _weights(own=1, redundancy=redundancy, random=0.01), free_below, budget)
        for redundancy in (0, 1)
        for free_below in (FREE_BELOW[0], FREE_BELOW[-1])
        for budget, shares in limits
    ]
    simple, others = ([c for c in candidates if c.is_simple == simple] for simple in (True, False))
    likely = [
        replace(each, beta=beta) for each in (*simple, *others[:FIRST], *space.brought_in(surest), *others[FIRST:])
    ]
    return [*simple, *likely, *others[:FIRST]]


def continued(best: Candidate | None, num_calls: int) -> list[Candidate]:
    """Candidates that spread what was found for fewer calls over more: along the same curve, or with first calls that
    take less.
    """
    if best is None or num_calls <= len(best.shares):
        return []
    shares = torch.tensor(best.shares, dtype=torch.float64)
    more = num_calls - len(shares)
    slower = torch.cat([shares[:1] * 0.5 ** torch.arange(more, 0, -1), shares])
    same = shares_of(course(shares, best.budget, num_calls), best.budget)
    return [replace(best, shares=tuple(each.tolist()), name="table") for each in (same, slower)]


def step_error_table(states: list[StateCosts], known: torch.Tensor, num_masked: int, order: str) -> StepErrorTable:
    """The table of path_kl, from costs by rank in an order without free positions.

    Args:
        states: the costs.
        known (`torch.LongTensor` of shape `(num_states,)`): numbers of known tokens at these states, of `num_masked`.
        num_masked (`int`): L. Rows with fewer masked positions count as if they had as many.
        order (`str`): its name.
    """
    nats_GL, seen_GL = torch.zeros(2, len(states), num_masked, dtype=torch.float64)
    for g, state in enumerate(states):
        start_R = states[0].masked_R
        rank_RL = torch.arange(state.nats_RL.shape[1]) + (start_R - state.masked_R)[:, None]
        masked_RL = rank_RL < start_R[:, None]
        place_RL = rank_RL * num_masked // start_R[:, None].clamp(min=1)
        place_P, nats_P = place_RL[masked_RL], state.nats_RL[masked_RL].double()
        nats_GL[g] = torch.bincount(place_P, nats_P, minlength=num_masked)
        seen_GL[g] = torch.bincount(place_P, minlength=num_masked)
    return StepErrorTable(estimate_table(nats_GL, seen_GL, ORDERS[order].exchangeable), known)


def shortest_path(step_error: StepErrorTable, num_calls: int) -> torch.Tensor:
    """Shares of positions of the cheapest path of `num_calls` calls, `(1, M)`. If there are fewer states, the first
    calls take nothing.
    """
    counts = torch.tensor(step_error.solve(min(num_calls, len(step_error.grid)))[0], dtype=torch.float64)
    taken, left = counts.diff(), step_error.seq_len - counts[:-1]
    # halfway between two numbers of positions, so that rounding up is safe
    shares = ((taken - 0.5) / left).clamp(0, 1)
    shares[-1] = 1
    return torch.nn.functional.pad(shares, (num_calls - len(shares), 0))[None]


def _at(canvas: list[StateCosts], g: int) -> StateCosts:
    """A state of a canvas. A pipeline calls no network for a block that is complete: nothing is left there."""
    if g < len(canvas):
        return canvas[g]
    none_R = torch.zeros_like(canvas[-1].masked_R)
    return replace(canvas[-1], open_R=none_R, masked_R=none_R)


def _joined(states: list[StateCosts], task: Task) -> StateCosts:
    """The rows of several runs, of canvases of any length, and of all processes."""
    longest = max(task.workers.gather(max(state.nats_RL.shape[1] for state in states)))
    columns = [
        torch.cat(
            [torch.nn.functional.pad(getattr(s, name), (0, longest - getattr(s, name).shape[1])) for s in states]
        )
        for name in ("nats_RL", "entropy_RL")
    ]
    counts = [torch.cat([getattr(state, name) for state in states]) for name in ("open_R", "masked_R")]
    return StateCosts(*(task.workers.concatenate(each) for each in (*columns, *counts)))


def _least_by_calls(priced: list[tuple[float, Candidate]]) -> float:
    """The sum, over numbers of calls, of the lowest cost."""
    least: dict[int, float] = {}
    for cost, candidate in priced:
        M = len(candidate.shares)
        least[M] = min(cost, least.get(M, cost))
    return sum(least.values())
