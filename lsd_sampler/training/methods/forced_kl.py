"""forced_kl: which positions, and how many, in each call, by what forced sequences cost.

An order that looks at the logits but not at the tokens that it draws has a law: see
[`~lsd_sampler.training.held_out`]. The numbers of such an order are found by direct search on the cost of sequences
that are forced upon it, in nats. For an exact model that cost is the entropy of the sequences plus the total
correlation of the positions that are revealed together.

1. Dependence: kappa, along sequences in random order ([`~lsd_sampler.training.measured_dependence`]).
2. Tables: for each of some weights of the score one forced run, which prices the shares of every number of calls
   ([`~lsd_sampler.training.ranked_costs`]).
3. Search: the best of these are measured, and changed at random as long as that lowers the cost
   ([`~lsd_sampler.training.position_search`]).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from ...learned.choice_description import describe_choice
from ...learned.description import Description, Records
from ...sampling.dependence import LAYOUTS, Dependence
from ...sampling.learned_numbers import LearnedSampler, LearnedSteps
from ...sampling.orders import ORDERS, AdaptiveOrder, SurestFirst
from ...sampling.position_choice import BUDGETS, WEIGHTS
from ...support.validation import check_number
from ...support.workers import Workers
from ..answers import AnswerFigure
from ..consistent import MOST_CALLS, consistent
from ..forced_figure import ForcedFigure, whole_shares
from ..held_out import HeldOutBatch, first_of, rest_of
from ..measured_dependence import layouts_of, measured_dependence, states_of_pairs
from ..method import Method
from ..options import MethodOptions, check_positive, option
from ..paths import of_forward_process, source_paths
from ..position_candidates import FEWEST, Candidate, Figure, Measured
from ..position_changes import Scored
from ..position_search import Found, most_spent, quick_search, search
from ..position_space import FREE_BELOW, PositionSpace, checked_names, checked_thresholds
from ..position_tables import (
    FEW_CALLS,
    TABLE_SEQUENCES,
    PositionTables,
    calls_of_tables,
    continued,
    evaluations_of_layout,
    for_answers,
)
from ..recipe import Recipe
from ..shared_options import SharedOptions
from ..task import Task
from ..teacher_plan import TeacherPlan


OBJECTIVES = ("likelihood", "answers")
BETAS = (1.0, 1.5, 3.0, 100.0)
"""Inverse temperatures that are tried for right answers; the last one takes the most likely token."""
MOST_SEQUENCES = 1024
SOURCE_EVALUATIONS = 16384
"""As many sequences are used by default as can be made, and forced in random order, with this many network calls on
one sequence each; but no more than the number above, and no fewer than other methods take.
"""


@dataclass(frozen=True)
class ForcedKLOptions(MethodOptions):
    """Options of [`ForcedKL`]."""

    search_evaluations: int = option(
        65536, "most network calls, each on one sequence, of the search for one number of calls (of all above 8)"
    )
    objective: str = option(
        None, "what is searched on: likelihood (the cost of forced sequences), or answers (the share of right answers"
        " to tasks); default: likelihood", choices=OBJECTIVES, unset="likelihood", own=True,
    )  # fmt: skip
    call_price: float = option(
        0.001, "with the objective answers: how large a share of wrong answers one call less of a sequence is worth"
    )
    terms: tuple[str, ...] = option(WEIGHTS, "terms of the score that may have a weight", str, metavar="TERM")
    layouts: tuple[str, ...] = option(
        LAYOUTS, "layouts of kappa to try, of those that the canvases admit", str, metavar="LAYOUT"
    )
    budgets: tuple[str, ...] = option(BUDGETS, "what the share of a call may be a share of", str, metavar="BUDGET")
    free_below: tuple[float, ...] = option(
        FREE_BELOW, "thresholds to try, in nats, below which a position is revealed whatever the budget", float,
        metavar="NATS",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("search_evaluations", self.search_evaluations)
        check_number("call_price", self.call_price, low=0)
        for name, known in (("terms", WEIGHTS), ("layouts", LAYOUTS), ("budgets", BUDGETS)):
            object.__setattr__(self, name, checked_names(name, getattr(self, name), known))
        object.__setattr__(self, "free_below", checked_thresholds("free_below", self.free_below))

    @property
    def space(self) -> PositionSpace:
        """What the search may use."""
        return PositionSpace(self.terms, self.layouts, self.budgets, self.free_below)


class ForcedKL(Method):
    """Learns the choice of positions of `adaptive`, or the times of `entropy` and `margin`."""

    name = "forced_kl"
    options = ForcedKLOptions
    order = "adaptive"
    sources = ("teacher", "data", "bootstrap")
    leaves_coefficients = True
    reports_variety = True

    def check_config(self, config: SharedOptions) -> None:
        super().check_config(config)
        if config.coefficients == "two_sided" and getattr(config, "objective", None) == "answers":
            raise ValueError(
                "`coefficients` 'two_sided' would replace the temperature that right answers chose: 'plain'."
            )
        if config.count != "exact":
            raise ValueError(
                f"`method` 'forced_kl' learns how many tokens a step reveals: `count` must be 'exact', got"
                f" {config.count!r}."
            )

    def check_order(self, order: str) -> None:
        if not ORDERS[order].looks_at_logits:
            known = [name for name in ORDERS.names() if self.suits(name)]
            raise ValueError(
                f"`order` {order!r} does not look at the logits: `method` 'path_kl' finds its times at a smaller cost."
                f" Use one of {known} with 'forced_kl'."
            )
        super().check_order(order)

    def suits(self, order: str) -> bool:
        return isinstance(ORDERS[order], AdaptiveOrder | SurestFirst)  # those that rank positions, and draw no token

    def scheduler_options(self, order: str) -> dict[str, Any]:
        return {"order": order, "confidence_temperature": 0.0}

    def default_sequences(self, source: str, plan: TeacherPlan, bootstrap_steps: int) -> int:
        made = {"teacher": plan.num_steps, "bootstrap": bootstrap_steps, "data": 1}[source]
        steps = max(made, len(states_of_pairs(plan.num_masked)))
        return max(
            super().default_sequences(source, plan, bootstrap_steps), min(MOST_SEQUENCES, SOURCE_EVALUATIONS // steps)
        )

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        if recipe.options.objective == "answers" and recipe.order != AdaptiveOrder.name:
            raise ValueError(f"`objective` 'answers' is for `order` 'adaptive', got {recipe.order!r}.")
        if recipe.num_sequences < (least := self.least_sequences(Workers.here().size)):
            raise ValueError(
                f"`num_sequences` must be at least {least}, because half of them check what is found, got"
                f" {recipe.num_sequences}."
            )

    def least_sequences(self, num_processes: int) -> int:
        return max(4, 2 * num_processes)

    def learn(self, task: Task) -> LearnedSampler:
        return PositionSearch(task).learn()

    def network_calls(self, recipe: Recipe) -> int:
        """`C (1 + batches (N + pairs) + tables + search)`, where the search is bounded by `search_evaluations`."""
        plan, nfe = recipe.plan, recipe.config.nfe
        rows = max(1, min(recipe.config.batch_size, recipe.num_sequences) // 2)
        pairs = len(states_of_pairs(plan.num_masked)) if recipe.order == AdaptiveOrder.name else 0
        tables = calls_of_tables(plan.num_masked, recipe.order)
        table_batches = -(-min(TABLE_SEQUENCES, max(1, recipe.num_sequences // 2)) // rows)
        evaluations = sum(most_spent(_most_evaluations(recipe, M), M) for M in nfe)
        # n sequences make one batch, or at most one more than their share of full ones
        search = math.ceil(evaluations * max(1 / FEWEST, 2 / (rows + 1)))
        checked = 0 if recipe.source == "data" else min(MOST_CALLS, plan.num_masked)
        measured = table_batches * tables + search
        own = recipe.num_batches * (recipe.source_steps + checked + pairs) + measured
        return plan.num_canvases * (1 + own)

    def describe(self, learned: LearnedSampler, records: Records) -> Description:
        return describe_choice(self.name, learned, records)


class PositionSearch:
    """The work of [`ForcedKL`] for one task."""

    def __init__(self, task: Task):
        self.task, self.is_adaptive = task, task.recipe.order == AdaptiveOrder.name
        finals = [[path.final_BL for path in canvases] for canvases in source_paths(of_forward_process(task))]
        self.batches, _ = consistent(task, list(zip(task.batches(), finals, strict=True)))
        self.parts = _parts(self.batches)

    @property
    def space(self) -> PositionSpace:
        """What the search may use."""
        return self.task.options.space

    @property
    def is_for_answers(self) -> bool:
        """Whether right answers decide."""
        return self.task.options.objective == "answers"

    def learn(self) -> LearnedSampler:
        """All numbers."""
        layouts = self._layouts() if self.is_adaptive and self.space.looks_at_pairs else {}
        tables = PositionTables(self.task, self.parts["fit"], layouts, self._quickly)
        candidates, dependence = tables.candidates()
        self.figure = self._figure(dependence)
        steps: dict[int, LearnedSteps] = {}
        best: Candidate | None = None
        for M in self.task.config.nfe:
            # where layouts were compared, that has taken its part
            most = _most_evaluations(self.task.recipe, M) - tables.spent_on_layouts(M)
            steps[M], best = self._searched(M, [*continued(best, M), *candidates[M]], most)
        return LearnedSampler(steps, dependence=dependence if any(map(_uses_dependence, steps.values())) else None)

    def _quickly(self, candidates: list[Candidate], dependence: Dependence | None) -> list[Scored]:
        """What a short search finds with this kappa. Costs decide, even for right answers: they are less noisy."""
        figure, most = ForcedFigure(self.task, self.parts, dependence), evaluations_of_layout(self.task)
        return quick_search(figure, candidates, most, self.space, self.task.config.seed)

    def _figure(self, dependence: Dependence | None) -> Figure:
        """What is searched on."""
        if self.task.options.objective == "likelihood":
            return ForcedFigure(self.task, self.parts, dependence)
        assert self.task.answers is not None
        return AnswerFigure(self.task, self.task.answers, dependence)

    def _layouts(self) -> dict[str, Dependence]:
        """Kappa in all layouts that the canvases admit."""
        task, width = self.task, self.task.plan.row_length
        here = {final_BL.shape[1] for _, finals in self.batches for final_BL in finals}
        lengths = set().union(*task.workers.gather(here))
        shapes = {(length // width, width) if width else (length,) for length in lengths}
        admitted = list(layouts_of(shapes))
        if not set(admitted) & set(self.space.layouts):
            raise ValueError(
                f"`layouts` must name one that these canvases admit, {admitted}, got {self.space.layouts}."
            )
        layouts = measured_dependence(task, self.batches, shapes)
        layouts = {name: kappa for name, kappa in layouts.items() if name in self.space.layouts}
        for layout, dependence in layouts.items():
            task.log(
                event="dependence",
                layout=layout,
                num_buckets=dependence.num_buckets,
                mean=float(dependence.kappa.mean()),
                network_calls=task.runs.network_calls,
            )
        return layouts

    def _searched(self, M: int, candidates: list[Candidate], most_evaluations: int) -> tuple[LearnedSteps, Candidate]:
        task, key = self.task, f"search-{M}"
        stored = task.progress.load(key)
        if stored is None:
            betas = BETAS if self.is_for_answers else ()
            begins = for_answers(candidates, M, BETAS[-1], self.space) if betas else candidates
            found = search(self.figure, begins, most_evaluations, betas, self.space, task.config.seed)
            stored = _to_tensors(found, task.runs.network_calls)
            task.progress.save(key, stored)
        found = _from_tensors(stored)
        task.runs.network_calls = int(stored["network_calls"])
        self._log(M, found)
        # where the choice of positions does not say how many they are, the times must say what was measured
        known_M = found.measured.known_M if self.is_adaptive else whole_shares(found.best.shares, task.plan.num_masked)
        return found.best.steps(known_M, task.base.noise, task.base.config.sampling_eps), found.best

    def _wrong(self, measured: Measured) -> float:
        """The share of wrong answers, without the price of calls."""
        return measured.mean - self.task.options.call_price * float(measured.calls_S.mean())

    def _reached(self, measured: Measured) -> dict[str, float]:
        if not self.is_for_answers:
            return {"nats": measured.mean}
        return {"right": 1 - self._wrong(measured), "mean_calls": float(measured.calls_S.mean())}

    def _log(self, M: int, found: Found) -> None:
        compared = [(found.best, found.measured), *found.others]
        simple = min((m for c, m in compared if c.is_simple), key=lambda m: m.mean, default=found.measured)
        for candidate, measured in compared:
            difference_S = measured.costs_S - simple.costs_S  # with the price of calls
            root = len(difference_S) ** 0.5
            self.task.log(
                event="position_candidate",
                nfe=M,
                name=candidate.name,
                weights=list(candidate.weights or ()),
                free_below=candidate.free_below,
                budget=candidate.budget,
                shares=list(candidate.shares),
                **({"wrong": self._wrong(measured)} if self.is_for_answers else {"nats": measured.mean}),
                standard_error=float(measured.costs_S.std()) / root,
                difference=float(difference_S.mean()),
                difference_error=float(difference_S.std()) / root,
                chosen=candidate == found.best,
            )
        self.task.log(
            event="schedule",
            nfe=M,
            **self._reached(found.measured),
            objective=self.task.options.objective,
            temperature=1 / found.best.beta,
            known_after_step=(found.measured.known_M * self.task.plan.num_masked).tolist(),
            evaluations=found.evaluations,
            network_calls=self.task.runs.network_calls,
        )


def _most_evaluations(recipe: Recipe, num_calls: int) -> int:
    """The budget of the search for a number of calls. All above `FEW_CALLS` share one."""
    most = recipe.options.search_evaluations
    if recipe.order != AdaptiveOrder.name:  # there are only shares to find
        most //= 8
    return most if num_calls <= FEW_CALLS else most * num_calls // sum(M for M in recipe.config.nfe if M > FEW_CALLS)


def _uses_dependence(steps: LearnedSteps) -> bool:
    choice = steps.choice
    return choice is not None and bool(choice.weight("redundancy") or choice.weight("gain"))


def _parts(batches: list[HeldOutBatch]) -> dict[str, list[HeldOutBatch]]:
    """Half of each batch to fit, half to check; the spare sequences of odd batches go to each part in turn."""
    parts: dict[str, list[HeldOutBatch]] = {"fit": [], "check": []}
    spare = 1
    for batch in batches:
        half, odd = divmod(len(batch[0]), 2)
        middle = half + odd * spare
        spare ^= odd
        parts["fit"] += first_of([batch], middle)
        parts["check"] += rest_of([batch], middle)
    return parts


def _to_tensors(found: Found, network_calls: int) -> dict[str, torch.Tensor]:
    """A search's result, as it is kept on disk."""
    compared = [(found.best, found.measured), *found.others]
    tensors = {"network_calls": torch.tensor(network_calls), "evaluations": torch.tensor(found.evaluations)}
    for i, (c, m) in enumerate(compared):
        tensors[f"{i}.numbers"] = c.numbers()
        tensors[f"{i}.name"] = torch.tensor(list(c.name.encode()), dtype=torch.uint8)
        tensors |= {f"{i}.{key}": value.clone() for key, value in vars(m).items()}
    return tensors


def _from_tensors(tensors: dict[str, torch.Tensor]) -> Found:
    compared, i = [], 0
    while f"{i}.numbers" in tensors:
        name = bytes(tensors[f"{i}.name"].tolist()).decode()
        candidate = Candidate.of_numbers(name, tensors[f"{i}.numbers"])
        compared.append((candidate, Measured(*(tensors[f"{i}.{key}"] for key in Measured.__annotations__))))
        i += 1
    (best, measured), *others = compared
    return Found(best, measured, others, int(tensors["evaluations"]))
