"""The options of a distillation: one frozen class for Python and the command line."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from ..learned.description import Description, Records
from ..sampling.learned_numbers import LearnedSampler
from ..support.validation import did_you_mean
from ..support.workers import Workers
from .method import METHODS, methods_where
from .options import MethodOptions, option
from .recipe import Recipe
from .shared_options import SharedOptions, affordable_source, sorted_nfe
from .teacher_plan import TeacherPlan


DEFAULT_METHOD = "auto"


@dataclass(frozen=True, init=False)
class DistillConfig(SharedOptions):
    """Options of [`distill`]. Each is a keyword argument, an attribute, and a flag of `lsd-train`; `lsd-train --help`
    says what they mean.

    Its fields are those that all methods share. A method's own (`METHODS[name].options`) are given and read in
    the same way, `DistillConfig(method=..., epochs=3).epochs`; those of methods that are not used have no effect.

    Args:
        method (`str`, *optional*): the training method.
        options (`dict`, *optional*): options of methods by name; the same as keyword arguments.
        values: the options.

    Raises:
        TypeError: for an unknown option.
        ValueError: for an option out of range; the message names it.
    """

    method: str = option(
        None, "training method; default: auto, the best of `candidates` on held-out sequences", choices=METHODS.names
    )
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __init__(self, method: str | None = None, *, options: Mapping[str, Any] | None = None, **values: Any):
        values = {"method": method, **(options or {}), **values}
        known = [each.name for each in shared_options()]
        for each in shared_options():
            object.__setattr__(self, each.name, values.pop(each.name, each.default))
        if self.method is None:
            for_answers = values.get("objective") == "answers"  # held-out costs do not choose what answers best
            object.__setattr__(self, "method", "forced_kl" if for_answers else DEFAULT_METHOD)
        if unknown := sorted(set(values) - set(method_options())):
            hint = did_you_mean(unknown[0], [*known, *method_options()])
            raise TypeError(f"DistillConfig has no option {unknown[0]!r}.{hint}")
        object.__setattr__(self, "options", self._options_of_methods(values))
        object.__setattr__(self, "nfe", sorted_nfe(self.nfe))
        if self.order is None and not METHODS[self.method].chooses:
            object.__setattr__(self, "order", METHODS[self.method].order)
        self.check()
        self._check_own(values)
        METHODS[self.method].check_config(self)

    if not TYPE_CHECKING:  # so that a type checker finds a misspelt attribute

        def __getattr__(self, name: str) -> Any:
            options = self.__dict__.get("options", {})
            if name not in options:
                raise AttributeError(f"{type(self).__name__} has no option {name!r}.")
            return options[name]

    def _options_of_methods(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The options of all methods: the method's own, as it has settled them, and those of the others."""
        given = {name: values.get(name, each.default) for name, each in method_options().items()}
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        method, settled = METHODS[self.method], {}
        for name in reversed(METHODS.names()):
            built = _built(METHODS[name].options, given)  # refuses what is out of range, whoever it is for
            if not method.chooses:
                settled |= built
        return {**given, **settled, **_built(method.options, given)}

    def _check_own(self, values: Mapping[str, Any]) -> None:
        """Refuses options that the method does not have, if they are declared as `own`."""
        method = METHODS[self.method]
        refused = [] if method.chooses else [name for name, each in method_options().items() if each.metadata["own"]]
        defaults = self._options_of_methods({})  # which a copy of another config hands on
        for name in refused:
            value = values.get(name)
            if value and value != defaults[name] and not has_option(method.options, name):
                owners = methods_where(lambda other, name=name: has_option(other.options, name))
                raise ValueError(f"`{name}` is of `method` {owners}: {self.method!r} has no such option.")

    # ---- what is known without a pipeline ----

    @property
    def own_options(self) -> MethodOptions:
        """The method's own options."""
        kind = METHODS[self.method].options
        return kind(**{each.name: self.options[each.name] for each in fields(kind)})

    def for_method(self, method: str, order: str) -> "DistillConfig":
        """The options of another method in an order. Options that it does not have are at their defaults.

        Raises:
            ValueError: if the options do not fit the method.
        """
        kind = METHODS[method]
        own = method_options().items()
        refused = {n: e.default for n, e in own if e.metadata["own"] and not has_option(kind.options, n)}
        paths = self.paths if self.paths in kind.sources else None
        return replace(self, method=method, order=order, coefficients=None, paths=paths, **refused)

    # ---- with a pipeline ----

    def check_data_given(self, has_data: bool) -> None:
        """Raises `ValueError` if real sequences are given and not wanted, or wanted and not given."""
        takes_data = "data" in METHODS[self.method].sources
        if has_data and not (takes_data and self.paths in (None, "data")):
            other = f"`paths` {self.paths!r}" if takes_data else f"`method` {self.method!r}"
            owners = methods_where(lambda method: "data" in method.sources and not method.chooses)
            raise ValueError(f"`data` is for `method` {owners} with `paths` 'data'; it has no use for {other}.")
        if not has_data and (self.paths == "data" or METHODS[self.method].sources == ("data",)):
            who = "`paths` 'data'" if self.paths == "data" else f"`method` {self.method!r}"
            raise ValueError(f"{who} needs `data`: real sequences.")

    def resolve(self, plan: TeacherPlan, has_data: bool = False, workers: Workers | None = None) -> Recipe:
        """The recipe for a pipeline, with everything decided.

        Args:
            plan ([`TeacherPlan`]): what a call of the pipeline asks of a sampler.
            has_data (`bool`, defaults to `False`): whether there are real sequences.
            workers ([`Workers`], *optional*): the processes that share the sequences; a default number of sequences is
                adjusted so that they can share it.

        Raises:
            ValueError: if real sequences are given and not wanted, or wanted and not given.
        """
        self.check_data_given(has_data)
        config = replace(self, paths="data") if has_data else self
        method = METHODS[self.method]
        wanted = config.paths or affordable_source(plan.num_steps)
        source = next(s for s in (wanted, *method.sources) if s in method.sources and (has_data or s != "data"))
        bootstrap_steps = min(config.bootstrap_steps, plan.num_masked)
        number = config.num_sequences or method.default_sequences(source, plan, bootstrap_steps)
        if not config.num_sequences:
            number = (workers or Workers()).multiple(number)
        own = config.own_options
        return Recipe(config, plan, own, source, number, method.is_paired(own))

    # ---- to write down ----

    def describe(self, learned: LearnedSampler, records: Records) -> Description:
        """What was learned by these options, for card, terminal and plot.

        Args:
            learned ([`LearnedSampler`]): what was learned.
            records: what was measured on the way.
        """
        config, winner = self, METHODS[self.method].winner(records)
        if winner is not None:
            name = ":".join(winner)
            config, records = self.for_method(*winner), [r for r in records if r.get("candidate", name) == name]
        method = METHODS[config.method]
        batch_size = None if method.is_paired(config.own_options) else config.batch_size
        return replace(method.describe(learned, records), batch_size=batch_size)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: all options by name, as keyword arguments take them."""
        shared = {each.name: getattr(self, each.name) for each in shared_options()}
        values = {**shared, **self.options}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def shared_options() -> list[Field]:
    """The options that all methods have."""
    return [each for each in fields(DistillConfig) if each.name != "options"]


def all_options() -> list[Field]:
    """The options that all methods have, and those of single ones."""
    return [*shared_options(), *method_options().values()]


METHODS.reserve(each.name for each in fields(DistillConfig))


def method_options() -> dict[str, Field]:
    """The options of all registered methods by name; the first one where several methods have it."""
    found: dict[str, Field] = {}
    for name in METHODS.names():
        for each in fields(METHODS[name].options):
            found.setdefault(each.name, each)
    return found


def help_of(each: Field) -> str:
    """What `--help` says of an option, with the methods that have it unless all do."""
    said: dict[str, list[str]] = {}
    for name in METHODS.names():
        for own in fields(METHODS[name].options):
            if own.name == each.name:
                said.setdefault(own.metadata["help"], []).append(name)
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in said.items()) or each.metadata["help"]


def has_option(kind: type[MethodOptions], name: str) -> bool:
    """Whether one of these options has the name."""
    return name in {each.name for each in fields(kind)}


def _built(kind: type[MethodOptions], values: Mapping[str, Any]) -> dict[str, Any]:
    return vars(kind(**{each.name: values[each.name] for each in fields(kind)}))
