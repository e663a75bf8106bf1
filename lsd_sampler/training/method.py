"""What a training method is. Each is one class in a file of its own, registered in [`METHODS`]."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch

from ..denoisers.sizes import ModelSize
from ..learned.description import Description, Records, describe_sampler
from ..sampling.learned_numbers import LearnedSampler
from ..sampling.orders import ORDERS
from ..sampling.solvers import SOLVERS
from ..support.registry import Registry
from ..support.workers import Workers
from .budget import memory_needed
from .data import check_data
from .options import MethodOptions
from .recipe import Recipe
from .shared_options import NUM_SEQUENCES, SharedOptions
from .task import Task
from .teacher_plan import TeacherPlan


@dataclass
class ChosenSampler(LearnedSampler):
    """What one of several recipes learned, and which."""

    recipe: Recipe = field(kw_only=True)


class Method(ABC):
    """A way to learn a few-step sampler. A subclass says what it needs, learns, and foresees what that costs."""

    name: ClassVar[str]
    options: ClassVar[type[MethodOptions]] = MethodOptions
    """Its own options, besides those that all methods have."""
    order: ClassVar[str] = "random"
    """The order of revealing that it learns for by default."""
    sources: ClassVar[tuple[str, ...]] = ("teacher",)
    """Where its sequences may come from: teacher, data, bootstrap. If there are several, it uses only how they end."""
    needs_mask: ClassVar[bool] = True
    """Whether it is only for noise that masks tokens."""
    chooses: ClassVar[bool] = False
    """Whether it runs other methods and takes the best one: the order is then open, and options are passed on."""
    learns_coefficients: ClassVar[bool] = False
    """Whether it learns coefficients itself, so that none are learned on top."""
    leaves_coefficients: ClassVar[bool] = False
    """Whether coefficients of the log-score are learned on top by default if it was chosen."""
    reports_variety: ClassVar[bool] = False
    """Whether its sampler may trade variety for something else, so that a run says how fills of a canvas vary."""

    # ---- before the work ----

    def check_config(self, config: SharedOptions) -> None:
        """Checks that the options suit the method, as far as that is known without a pipeline.

        Raises:
            ValueError: if not; the message names the option.
        """
        self.check_order(config.base_order)
        if config.paths is not None and config.paths not in self.sources:
            owners = methods_where(lambda method: config.paths in method.sources and not method.chooses)
            raise ValueError(
                f"`paths` {config.paths!r} goes with `method` {owners}: {self.name!r} learns from sequences of"
                f" {' or '.join(self.sources)}."
            )
        if config.coefficients == "two_sided" and self.learns_coefficients:
            raise ValueError(
                f"`coefficients` 'two_sided' would replace those that `method` {self.name!r} learns: use 'plain'."
            )

    def check_order(self, order: str) -> None:
        """Raises `ValueError` unless it can learn for an order of revealing."""
        if self.suits(order):
            return
        why = "looks at the logits; teacher paths can only be replayed for orders that do not"
        if ORDERS[order].looks_at_tokens:
            why = "looks at the tokens that it draws, so nothing says what other ones would cost it"
        owners = methods_where(lambda method: method.suits(order) and not method.chooses)
        other = f", or `method` {owners} in this order" if owners else ""
        known = [name for name in ORDERS.names() if self.suits(name)]
        raise ValueError(f"`order` {order!r} {why}. Use one of {known}{other}.")

    def suits(self, order: str) -> bool:
        """Whether it can learn for an order of revealing."""
        return not ORDERS[order].looks_at_logits

    def least_sequences(self, num_processes: int) -> int:
        """The smallest number of sequences, over all processes, that it can learn from."""
        return 1

    def check(self, recipe: Recipe) -> None:
        """Checks that the method can be used for this pipeline.

        Raises:
            ValueError: if not; the message names the option.
        """
        self.check_mask(recipe.plan.has_mask)

    def check_mask(self, has_mask: bool) -> None:
        """Raises `ValueError` if the method is only for noise that masks tokens, and there is no mask."""
        if self.needs_mask and not has_mask:
            owners = methods_where(lambda method: not method.needs_mask and not method.chooses)
            raise ValueError(
                f"`method` {self.name!r} is about revealing masks, and there are none: use `method` {owners}."
            )

    def check_data(self, data: torch.Tensor, recipe: Recipe) -> None:
        """Raises `ValueError` unless it can learn from these real sequences, `(num, seq_len)`."""
        check_data(data, recipe.num_sequences, recipe.plan)

    def scheduler_options(self, order: str) -> dict[str, Any]:
        """Entries of the config of a scheduler that this method learns numbers for, in an order of revealing."""
        return {"order": order}

    def default_sequences(self, source: str, plan: TeacherPlan, bootstrap_steps: int) -> int:
        """Number of sequences to learn from, unless it is given.

        Args:
            source (`str`): where they come from.
            plan ([`TeacherPlan`]): what a call of the pipeline asks of a sampler.
            bootstrap_steps (`int`): network calls for a bootstrapped one.
        """
        return NUM_SEQUENCES[source]

    def num_data(self, recipe: Recipe) -> int:
        """How many real sequences it takes, if it takes any: those to learn from and those to choose by."""
        return recipe.num_sequences + (recipe.config.held_out_sequences if self.chooses else 0)

    def is_paired(self, options: Any) -> bool:
        """Whether teacher and student of all sequences run in one batch."""
        return False

    def outcomes(self, recipe: Recipe, workers: Workers | None = None) -> list[Recipe]:
        """The recipes one of which gives the result; only this one if nothing is to be chosen."""
        return [recipe]

    # ---- the work ----

    @abstractmethod
    def learn(self, task: Task) -> LearnedSampler:
        """Learns numbers for each NFE. It calls no network: it puts recorders into the pipeline, and runs it."""

    # ---- what it costs ----

    @abstractmethod
    def network_calls(self, recipe: Recipe) -> int:
        """An upper bound of the network calls of `learn`, each on a batch, including the one that the plan took."""

    def memory(self, size: ModelSize, recipe: Recipe) -> dict[str, int]:
        """Peak memory of `learn` in bytes, by what needs it; an estimate. See [`memory_needed`]."""
        length, sequences = recipe.plan.num_masked, recipe.num_sequences
        if recipe.is_paired:
            kept = sequences * length * (13 + 8 * recipe.config.nfe[-1])
            return memory_needed(size, length, 2 * sequences, kept)
        return memory_needed(size, length, min(recipe.config.batch_size, sequences), 13 * sequences * length)

    def batch_flag(
        self, config: SharedOptions, options: Any, num_rows: int, num_processes: int = 1
    ) -> tuple[str, int]:
        """The flag of `lsd-train` that decided the size of a batch of `num_rows` rows, and the value that it had."""
        share = min(config.batch_size, config.most_sequences // num_processes)
        # a student that is paired, and a teacher that masks again, run on all sequences at once
        if num_rows > share or not SOLVERS[config.solver_of_teacher].distillable:
            return "--num-sequences", config.most_sequences
        return "--batch-size", num_rows

    # ---- after the work ----

    def winner(self, records: Records) -> tuple[str, str] | None:
        """Method and order of the sampler, if the run chose them."""
        return None

    def describe(self, learned: LearnedSampler, records: Records) -> Description:
        """What was learned, for card, terminal and plot."""
        return describe_sampler(self.name, learned, records)


class Methods(Registry[Method]):
    """The training methods. Options of the same name are one option, with one default."""

    def __init__(self) -> None:
        super().__init__("method")
        self._reserved: set[str] = set()

    def reserve(self, names: Iterable[str]) -> None:
        """Reserves the names of options that all methods share: no method may have one of that name."""
        self._reserved |= set(names)

    def register(self, name: str, part: Method) -> None:
        """Adds a method.

        Raises:
            ValueError: if its name, or that of one of its options, is taken.
        """
        known = {each.name: each.default for method in self.parts() for each in fields(method.options)}
        for each in fields(part.options):
            if each.name in self._reserved or known.get(each.name, each.default) != each.default:
                raise ValueError(f"Cannot register {name!r}: its option {each.name!r} is taken, with another default.")
        super().register(name, part)


METHODS = Methods()
"""Training methods; filled by the package `methods`."""


def methods_where(suits: Callable[[Method], bool]) -> str:
    """The names of the methods for which a condition holds, as messages list them."""
    return " or ".join(repr(name) for name in METHODS.names() if suits(METHODS[name]))


def method_of(recipe: Recipe) -> Method:
    """The training method of a recipe."""
    return METHODS[recipe.config.method]
