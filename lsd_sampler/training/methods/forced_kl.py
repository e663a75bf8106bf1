"""forced_kl: which positions, and how many, in each call, by what forced sequences cost.

An order that looks at the logits but not at the tokens that it draws has a law: see
[`~lsd_sampler.training.held_out`]. The numbers of such an order are found by direct search on the cost of sequences
that are forced upon it, in nats. For an exact model that cost is the entropy of the sequences plus the total
correlation of the positions that are revealed together.

1. Dependence: kappa, along sequences in random order ([`~lsd_sampler.training.measured_dependence`]).
2. Tables: for each of some weights of the score one forced run, which prices the shares of every number of calls
   ([`~lsd_sampler.training.ranked_costs`]).
3. Search: the best of these are measured, and improved one number at a time
   ([`~lsd_sampler.training.position_search`]).
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ...learned.choice_description import describe_choice
from ...learned.description import Description, Records
from ...sampling.canvas import StepInput
from ...sampling.dependence import Dependence
from ...sampling.learned_numbers import LearnedSampler, LearnedSteps, StepErrorTable
from ...sampling.orders import ORDERS, AdaptiveOrder, Order
from ...sampling.position_choice import BUDGETS, WEIGHTS
from ...sampling.schedules import replay_states
from ..held_out import HeldOutBatch, HeldOutRecorder, first_of, with_other_noise
from ..measured_dependence import measured_dependence, states_of_pairs
from ..method import Method
from ..options import MethodOptions, check_positive, option
from ..paths import source_paths
from ..position_search import FREE_BELOW, Candidate, Found, Measured, search
from ..ranked_costs import RankedCosts, RankingRecorder, StateCosts
from ..recipe import Recipe
from ..share_search import best_shares, plain_shares, shares_of_curve
from ..shared_options import SharedOptions
from ..task import Task
from ..teacher_plan import TeacherPlan
from .path_kl import estimate_table


MOST_SEQUENCES = 1024
SOURCE_EVALUATIONS = 16384
"""Sequences are made until they cost this many network calls, each on one sequence, but no more than the number above
and no fewer than other methods take."""
TABLE_SEQUENCES, MOST_MEASURED = 24, 256
"""Sequences of the tables, and the most that a candidate is measured on."""
NUM_STATES, NUM_STATES_OF_SIMPLE = 40, 128
FEW_CALLS = 8
"""Numbers of calls up to this one have a search of their own; all larger ones share as many evaluations."""


def _weights(**terms: float) -> tuple[float, ...]:
    return tuple(terms.get(name, 0.0) for name in WEIGHTS)


SIMPLE = {"random": _weights(random=1), "halton": _weights(halton=1)}
PROBES = (_weights(redundancy=1, gain=1, random=0.01), _weights(redundancy=1, gain=0.3, halton=0.01))
"""Weights by which layouts of kappa are compared."""
OTHERS = (
    *(
        _weights(own=own, redundancy=redundancy, gain=gain, **{base: weight})
        for own, redundancy, gain, weight in (
            (0, 1, 0, 0.01), (0, 1, 0.3, 0.01), (0, 1, 1, 0.01), (0, 1, 3, 0.01), (1, 0, 0, 0.01), (0.3, 1, 0.3, 0.01),
            (1, 1, 1, 0.01), (0, 1, 0, 0.3), (0, 1, 0, 1),
        )
        for base in ("random", "halton")
    ),
    _weights(own=0.1, halton=1), _weights(own=0.3, halton=1),
)  # fmt: skip


@dataclass(frozen=True)
class ForcedKLOptions(MethodOptions):
    """Options of [`ForcedKL`]."""

    search_evaluations: int = option(
        32768, "most network calls, each on one sequence, of the search for one number of calls (of all above 8)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("search_evaluations", self.search_evaluations)


class ForcedKL(Method):
    """Learns the choice of positions of `adaptive`, or the times of `entropy` and `margin`."""

    name = "forced_kl"
    options = ForcedKLOptions
    order = "adaptive"
    sources = ("teacher", "data", "bootstrap")
    leaves_coefficients = True

    def check_config(self, config: SharedOptions) -> None:
        super().check_config(config)
        if config.count != "exact":
            raise ValueError(
                f"`method` 'forced_kl' learns how many tokens a step reveals: `count` must be 'exact', got"
                f" {config.count!r}."
            )

    def check_order(self, order: str) -> None:
        if ORDERS[order].looks_at_tokens:
            raise ValueError(
                f"`order` {order!r} looks at the tokens that it draws, so it cannot be forced along other ones, and"
                f" nothing says what they cost it. Use one of {logit_orders()}."
            )
        if not ORDERS[order].looks_at_logits:
            raise ValueError(
                f"`order` {order!r} does not look at the logits: `method` 'path_kl' finds its times at a smaller cost."
                f" Use one of {logit_orders()} with 'forced_kl'."
            )

    def scheduler_options(self, order: str) -> dict[str, Any]:
        return {"order": order, "confidence_temperature": 0.0}

    def default_sequences(self, source: str, plan: TeacherPlan, bootstrap_steps: int) -> int:
        steps = {"teacher": plan.num_steps, "bootstrap": bootstrap_steps, "data": 1}[source]
        return max(
            super().default_sequences(source, plan, bootstrap_steps), min(MOST_SEQUENCES, SOURCE_EVALUATIONS // steps)
        )

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        if recipe.num_sequences < 4:
            raise ValueError(
                "`num_sequences` must be at least 4, because half of them check what is found, got"
                f" {recipe.num_sequences}."
            )

    def learn(self, task: Task) -> LearnedSampler:
        search_task = PositionSearch(task)
        return search_task.learn()

    def network_calls(self, recipe: Recipe) -> int:
        """`C (1 + batches (N + pairs) + tables + search)`, where the search is bounded by `search_evaluations`."""
        plan, nfe = recipe.plan, recipe.config.nfe
        rows = max(1, min(recipe.config.batch_size, recipe.num_sequences) // 2)
        pairs = len(states_of_pairs(plan.num_masked))
        adaptive = recipe.order == AdaptiveOrder.name
        tables = len(replay_states(plan.num_masked, NUM_STATES)) * (len(OTHERS) + 2 * len(PROBES) if adaptive else 1)
        if adaptive:
            tables += len(SIMPLE) * len(replay_states(plan.num_masked, NUM_STATES_OF_SIMPLE))
        table_batches = -(-min(TABLE_SEQUENCES, max(1, recipe.num_sequences // 2)) // rows)
        searches = sum(M <= FEW_CALLS for M in nfe) + any(M > FEW_CALLS for M in nfe)
        search = -(-recipe.options.search_evaluations // rows) * searches
        batches = recipe.num_batches
        own = batches * (recipe.source_steps + (pairs if adaptive else 0)) + table_batches * tables + search
        return plan.num_canvases * (1 + own)

    def describe(self, learned: LearnedSampler, records: Records) -> Description:
        return describe_choice(self.name, learned, records)


def logit_orders() -> list[str]:
    """The orders that it can learn for."""
    return [name for name in ORDERS.names() if ORDERS[name].looks_at_logits and not ORDERS[name].looks_at_tokens]


class PositionSearch:
    """The work of [`ForcedKL`] for one task."""

    def __init__(self, task: Task):
        self.task, self.is_adaptive = task, task.recipe.order == AdaptiveOrder.name
        paths = source_paths(task)
        finals = [[path.final_BL for path in canvases] for canvases in paths]
        self.batches: list[HeldOutBatch] = list(zip(task.batches(), finals, strict=True))
        halves = [_halves(batch) for batch in self.batches]
        self.parts = {"fit": [fit for fit, _ in halves], "check": [check for _, check in halves]}
        self.runs = with_other_noise(task.runs)
        self.dependence: Dependence | None = None

    def learn(self) -> LearnedSampler:
        """All numbers."""
        task = self.task
        layouts = self._layouts() if self.is_adaptive else {}
        candidates, self.dependence = self._candidates(layouts)
        steps: dict[int, LearnedSteps] = {}
        best: Candidate | None = None
        for M in task.config.nfe:
            steps[M], best = self._searched(M, [*continued(best, M), *candidates[M]])
        is_used = self.dependence is not None and any(s.choice is not None for s in steps.values())
        return LearnedSampler(steps, dependence=self.dependence if is_used else None)

    def _layouts(self) -> dict[str, Dependence]:
        task, width = self.task, self.task.plan.row_length
        lengths = {final_BL.shape[1] for _, finals in self.batches for final_BL in finals}
        lengths = {
            int(length)
            for length in torch.cat([torch.tensor(sorted(each)) for each in task.workers.gather(lengths)]).tolist()
        }
        shapes = {(length // width, width) if width else (length,) for length in lengths}
        layouts = measured_dependence(task, self.batches, shapes)
        for layout, dependence in layouts.items():
            mean = float(dependence.kappa.mean())
            task.log(
                event="dependence",
                layout=layout,
                num_buckets=dependence.num_buckets,
                mean=mean,
                network_calls=task.runs.network_calls,
            )
        return layouts

    # ---- tables ----

    def _candidates(self, layouts: dict[str, Dependence]) -> tuple[dict[int, list[Candidate]], Dependence | None]:
        """For each number of calls where a search begins, the most promising first; and the layout of kappa."""
        priced: list[tuple[float, Candidate]] = []
        if not self.is_adaptive:
            return self._sorted(self._priced(self.task.recipe.order, None, None, NUM_STATES_OF_SIMPLE)), None
        for name, weights in SIMPLE.items():
            priced += self._priced(name, weights, None, NUM_STATES_OF_SIMPLE)
        probed = {
            layout: [
                each for i, w in enumerate(PROBES) for each in self._priced(f"{layout}-{i}", w, dependence, NUM_STATES)
            ]
            for layout, dependence in layouts.items()
        }
        layout = min(probed, key=lambda layout: _least_by_calls(probed[layout]))
        priced += probed[layout]
        for i, weights in enumerate(OTHERS):
            if weights not in PROBES:
                priced += self._priced(f"{layout}-other-{i}", weights, layouts[layout], NUM_STATES)
        return self._sorted(priced), layouts[layout]

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
        return found

    def _priced(
        self, name: str, weights: tuple[float, ...] | None, dependence: Dependence | None, num_states: int
    ) -> list[tuple[float, Candidate]]:
        """Candidates with these weights for each number of calls, with their cost by the tables."""
        task, key = self.task, f"table-{name}"
        stored = task.progress.load(key)
        if stored is None:
            states = self._ranked(weights, dependence, num_states)
            priced = self._solved(name, weights, states)
            stored = {"network_calls": torch.tensor(task.runs.network_calls)}
            for i, (cost, c) in enumerate(priced):
                numbers = [cost, c.free_below, float(BUDGETS.index(c.budget)), *c.shares]
                stored[str(i)] = torch.tensor(numbers, dtype=torch.float64)
            task.progress.save(key, stored)
        task.runs.network_calls = int(stored["network_calls"])
        rows = [stored[str(i)].tolist() for i in range(len(stored) - 1)]
        label = name if name in SIMPLE or weights is None else "table"
        return [
            (cost, Candidate(label, tuple(shares), weights, free, BUDGETS[int(budget)]))
            for cost, free, budget, *shares in rows
        ]

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
            "", (0.5,) * (len(states) - 1) + (1.0,), weights, 0.0 if is_simple(weights) else FREE_BELOW[0]
        )
        known_M = torch.tensor([*states[1:], L], dtype=torch.float64) / L
        steps = plain.steps(known_M, task.base.noise, task.base.config.sampling_eps)
        recorder.set_learned_sampler(LearnedSampler({len(states): steps}, dependence=dependence if weights else None))
        recorder.visit(states, L)
        self.runs.network_calls = task.runs.network_calls
        seen: list[list[StateCosts]] = []
        for sequences, finals in tqdm(
            first_of(self.parts["fit"], self._share(TABLE_SEQUENCES)), desc="tables", unit="batch"
        ):
            recorder.force(finals)
            self.runs.run(recorder, len(states), sequences)
            seen += recorder.seen
        task.runs.network_calls = self.runs.network_calls
        return [_joined([canvas[g] for canvas in seen], task) for g in range(len(states))]

    def _solved(
        self, name: str, weights: tuple[float, ...] | None, states: list[StateCosts]
    ) -> list[tuple[float, Candidate]]:
        """The best shares for each number of calls, threshold and budget, by the tables."""
        found: list[tuple[float, Candidate]] = []
        simple, nfe, before = is_simple(weights), self.task.config.nfe, None
        starts = {M: plain_shares(M) for M in nfe}
        if simple:
            starts = {M: torch.cat([shortest_path(states, M, name), starts[M]]) for M in nfe}
        thresholds = (0.0, *(FREE_BELOW if weights else ())) if simple else FREE_BELOW
        for free_below in thresholds:
            costs = RankedCosts.of(states, free_below)
            if before is not None and bool(torch.equal(before, costs.free_GR)):
                continue  # no entropy lies between the two thresholds
            before = costs.free_GR
            for M, budget in itertools.product(nfe, BUDGETS if weights else BUDGETS[:1]):
                tried = [best_shares(costs, budget, starts[M])]
                if simple and free_below == 0 and budget == BUDGETS[0]:  # the path as it is, too
                    tried.append((starts[M][0], float(costs.follow(starts[M][:1], budget)[0].mean())))
                for shares_M, nats in tried:
                    candidate = Candidate("table", tuple(shares_M.tolist()), weights, free_below, budget)
                    if candidate.is_simple or weights is None:
                        candidate = replace(candidate, name=name)
                    found.append((nats * self.task.plan.num_canvases, candidate))
                if budget == BUDGETS[0]:
                    starts[M] = torch.stack([tried[0][0], *starts[M][:2]])
        return found

    # ---- search ----

    def _searched(self, M: int, candidates: list[Candidate]) -> tuple[LearnedSteps, Candidate]:
        task, key = self.task, f"search-{M}"
        stored = task.progress.load(key)
        if stored is None:
            figure = ForcedFigure(self)
            found = search(figure, candidates, self._most_evaluations(M))
            stored = _to_tensors(found, task.runs.network_calls)
            task.progress.save(key, stored)
        found = _from_tensors(stored, self.is_adaptive)
        task.runs.network_calls = int(stored["network_calls"])
        self._log(M, found)
        steps = found.best.steps(found.measured.known_M, task.base.noise, task.base.config.sampling_eps)
        return steps, found.best

    def _most_evaluations(self, M: int) -> int:
        larger = [each for each in self.task.config.nfe if each > FEW_CALLS]
        most = self.task.options.search_evaluations
        if not self.is_adaptive:  # there are only shares to find
            most //= 4
        return most if M <= FEW_CALLS else most * M // sum(larger)

    def _log(self, M: int, found: Found) -> None:
        compared = [(found.best, found.measured), *found.others]
        simple = min((m for c, m in compared if c.is_simple), key=lambda m: m.mean, default=found.measured)
        for candidate, measured in compared:
            difference_S = measured.costs_S - simple.costs_S
            root = len(difference_S) ** 0.5
            self.task.log(
                event="position_candidate",
                nfe=M,
                name=candidate.name,
                weights=list(candidate.weights or ()),
                free_below=candidate.free_below,
                budget=candidate.budget,
                shares=list(candidate.shares),
                nats=measured.mean,
                standard_error=float(measured.costs_S.std()) / root,
                difference=float(difference_S.mean()),
                difference_error=float(difference_S.std()) / root,
                chosen=candidate == found.best,
            )
        self.task.log(
            event="schedule",
            nfe=M,
            nats=found.measured.mean,
            objective="likelihood",
            temperature=1 / found.best.beta,
            known_after_step=(found.measured.known_M * self.task.plan.num_masked).tolist(),
            evaluations=found.evaluations,
            network_calls=self.task.runs.network_calls,
        )

    def _share(self, num: int) -> int:
        """This process's share of some sequences."""
        return max(1, num // self.task.workers.size)


class ForcedFigure:
    """What forced sequences cost a candidate, in nats per sequence."""

    def __init__(self, of: PositionSearch):
        self.of, task = of, of.task
        self.num_fit, self.num_check = (
            min(MOST_MEASURED, sum(len(sequences) for sequences, _ in of.parts[part]) * task.workers.size)
            for part in ("fit", "check")
        )

    def __call__(self, candidate: Candidate, part: str, num: int | None = None) -> Measured:
        task, M = self.of.task, len(candidate.shares)
        recorder = ForcedRecorder.from_config(task.base.config)
        recorder.never_predicted = task.plan.never_predicted
        # times of networks that see them are those of the shares
        known_M = 1 - torch.cumprod(1 - torch.tensor(candidate.shares, dtype=torch.float64), 0)
        steps = candidate.steps(known_M, task.base.noise, task.base.config.sampling_eps)
        dependence = self.of.dependence if steps.choice is not None else None
        recorder.set_learned_sampler(LearnedSampler({M: steps}, dependence=dependence))
        recorder.watch(M)
        num = (self.num_fit if part == "fit" else self.num_check) if num is None else num
        batches = first_of(self.of.parts[part], self.of._share(num))
        runs, nats = self.of.runs, []
        runs.network_calls = task.runs.network_calls
        for sequences, finals in batches:
            recorder.force(finals)
            runs.run(recorder, M, sequences)
            nats.append(recorder.nats_B)
        task.runs.network_calls = runs.network_calls
        sums = task.workers.sum(torch.stack([recorder.known_M, recorder.open_M, recorder.rows_M]))
        known_M, open_M = sums[0] / sums[2].clamp(min=1), sums[1] / sums[2].clamp(min=1)
        return Measured(task.workers.concatenate(torch.cat(nats)), known_M, open_M)


class ForcedRecorder(HeldOutRecorder):
    """A sampler that is forced along sequences; it also sees how many tokens are known and open in each call."""

    def watch(self, M: int) -> None:
        """Begins to count, for runs of M steps."""
        self.known_M, self.open_M, self.rows_M = torch.zeros(3, M, dtype=torch.float64)

    def reveals(self, x: StepInput) -> torch.Tensor:
        """Where the sampler reveals tokens. `(B, L)`."""
        rule, choice = self.rule, self.steps.choice
        assert isinstance(rule, Order)
        open_BL = x.masked_BL
        if isinstance(rule, AdaptiveOrder) and choice is not None and not x.is_last:
            seen = rule.look(x, choice)
            revealed_BL, open_BL = rule.choose(x, self.plan, choice, seen), seen.open_BL
        else:
            revealed_BL, _ = rule.reveals(x, self.plan)
        start_B = x.canvas.masked_BL.sum(1).clamp(min=1)
        self.known_M[x.k] += float((1 - (x.masked_BL & ~revealed_BL).sum(1) / start_B).sum())
        self.open_M[x.k] += float(open_BL.sum())
        self.rows_M[x.k] += len(open_BL)
        return revealed_BL


# ---- helpers ----


def _halves(batch: HeldOutBatch) -> tuple[HeldOutBatch, HeldOutBatch]:
    sequences, finals = batch
    middle = max(1, len(sequences) // 2)
    return (
        (sequences[:middle], [final_BL[:middle] for final_BL in finals]),
        (sequences[middle:], [final_BL[middle:] for final_BL in finals]),
    )


def is_simple(weights: tuple[float, ...] | None) -> bool:
    """Whether these weights do not look at the logits, or there are none."""
    return weights is None or not any(weights[:3])


def continued(best: Candidate | None, num_calls: int) -> list[Candidate]:
    """Candidates that spread what was found for fewer calls over more: along the same curve, or with first calls that
    take less.
    """
    if best is None or num_calls <= len(best.shares):
        return []
    shares = torch.tensor(best.shares, dtype=torch.float64)
    open_after = torch.cat([shares.new_ones(1), torch.cumprod(1 - shares, 0)])
    place, own_place = (np.linspace(0, 1, n + 1) for n in (num_calls, len(shares)))
    curve = 1 - torch.from_numpy(np.interp(place, own_place, open_after.numpy()))
    more = num_calls - len(shares)
    slower = torch.cat([shares[:1] * 0.5 ** torch.arange(more, 0, -1), shares])
    return [
        replace(best, shares=tuple(each.tolist()), name="table")
        for each in (shares_of_curve(curve[1:]), slower.clamp(0, 1))
    ]


def shortest_path(states: list[StateCosts], num_calls: int, order: str) -> torch.Tensor:
    """Shares of positions that path_kl would find for an order that does not look at the logits. `(1, M)`.

    Args:
        states: costs by rank, in that order.
        num_calls (`int`): M; no more than there are states.
        order (`str`): its name.
    """
    L = int(states[0].masked_R.max())
    nats_GL, seen_GL = torch.zeros(2, len(states), L, dtype=torch.float64)
    grid = []
    for g, state in enumerate(states):
        known_R = states[0].masked_R - state.masked_R
        grid.append(int(known_R.double().mean().round()))
        rank_RL = torch.arange(state.nats_RL.shape[1])
        masked_RL = rank_RL < state.masked_R[:, None]
        place_RL = ((rank_RL + known_R[:, None]) * L // states[0].masked_R[:, None].clamp(min=1)).clamp(max=L - 1)
        nats_GL[g].index_add_(0, place_RL[masked_RL], state.nats_RL[masked_RL].double())
        seen_GL[g].index_add_(0, place_RL[masked_RL], torch.ones_like(state.nats_RL[masked_RL], dtype=torch.float64))
    kept = [g for g in range(len(grid)) if g == 0 or grid[g] > max(grid[:g])]
    exchangeable = ORDERS[order].exchangeable if order in ORDERS.names() else False
    table = estimate_table(nats_GL[kept], seen_GL[kept], exchangeable)
    step_error = StepErrorTable(table, torch.tensor([grid[g] for g in kept]))
    counts = torch.tensor(step_error.solve(min(num_calls, len(kept)))[0], dtype=torch.float64)
    taken, left = counts.diff(), L - counts[:-1]
    # halfway between two numbers of positions, so that rounding up is safe
    shares = ((taken - 0.5) / left).clamp(0, 1)
    shares = torch.cat([shares[:-1], shares.new_ones(1)])
    return torch.cat([shares.new_zeros(num_calls - len(shares)), shares])[None]


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


def _to_tensors(found: Found, network_calls: int) -> dict[str, torch.Tensor]:
    """A search's result, as it is kept on disk."""
    compared = [(found.best, found.measured), *found.others]
    tensors = {"network_calls": torch.tensor(network_calls), "evaluations": torch.tensor(found.evaluations)}
    for i, (c, m) in enumerate(compared):
        numbers = [c.free_below, float(BUDGETS.index(c.budget)), c.beta, *(c.weights or (0.0,) * len(WEIGHTS))]
        tensors[f"{i}.numbers"] = torch.tensor(numbers, dtype=torch.float64)
        tensors[f"{i}.shares"] = torch.tensor(c.shares, dtype=torch.float64)
        tensors[f"{i}.name"] = torch.tensor(list(c.name.encode()), dtype=torch.uint8)
        tensors |= {f"{i}.{key}": value.clone() for key, value in vars(m).items()}
    return tensors


def _from_tensors(tensors: dict[str, torch.Tensor], is_adaptive: bool) -> Found:
    compared, i = [], 0
    while f"{i}.numbers" in tensors:
        free, budget, beta, *weights = tensors[f"{i}.numbers"].tolist()
        name = bytes(tensors[f"{i}.name"].tolist()).decode()
        shares = tuple(tensors[f"{i}.shares"].tolist())
        candidate = Candidate(name, shares, tuple(weights) if is_adaptive else None, free, BUDGETS[int(budget)], beta)
        compared.append((candidate, Measured(*(tensors[f"{i}.{key}"] for key in Measured.__annotations__))))
        i += 1
    (best, measured), *others = compared
    return Found(best, measured, others, int(tensors["evaluations"]))
