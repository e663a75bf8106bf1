"""The choice of the rule by which a scheduler makes its steps."""

from typing import Any

from ..support.validation import check_choice, check_number
from .corruptions import CORRUPTIONS, make_corruption
from .counts import check_count
from .moves import TokenMoves
from .noise import NoiseSchedule
from .orders import ORDERS
from .released_draws import DRAWS, ReleasedDraws
from .solvers import SOLVERS, OwnStep, UpdateRule
from .step_rule import StepRule


def make_step_rule(config: Any, noise: NoiseSchedule) -> StepRule:
    """The rule that a scheduler's config asks for.

    Raises:
        ValueError: for an unknown name, or entries that contradict each other.
    """
    solver, order, kind = SOLVERS[config.solver], ORDERS[config.order], CORRUPTIONS[config.corruption]
    check_choice("draws", config.draws, list(DRAWS))
    check_count(config.count)
    if config.draws != "exact":
        rule: StepRule = ReleasedDraws(config.draws)
    elif isinstance(solver, OwnStep):
        rule = solver
    elif kind.absorbing:
        rule = order
    else:
        assert isinstance(solver, UpdateRule)
        rule = TokenMoves(make_corruption(config), noise, solver, config.prediction_type)
    rule.check(config)
    check_number("minimal_gap", config.minimal_gap, integer=True, low=0)
    if config.minimal_gap and not rule.takes_gap:
        raise ValueError(
            f"`minimal_gap` {config.minimal_gap} is for orders by confidence, margin or entropy, and for solvers that"
            f" go by confidence: `order` {config.order!r} of the solver {config.solver!r} takes none."
        )
    return rule
