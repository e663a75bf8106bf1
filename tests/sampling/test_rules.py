"""What a step may do is one rule, found by name; what it can is said by flags that hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.sampler_runs import MASK, fixed_model, generate, seeded, with_choices

from lsd_sampler import LSDScheduler
from lsd_sampler.cli.evaluation_parts import baseline
from lsd_sampler.cli.train import build_parser
from lsd_sampler.sampling.canvas import StepInput
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.logit_rows import DeferredLogits
from lsd_sampler.sampling.orders import ORDERS, LogitOrder, Order
from lsd_sampler.sampling.plan import StepPlan
from lsd_sampler.sampling.released_draws import DRAWS
from lsd_sampler.sampling.solvers import SOLVERS, OwnStep, UpdateRule
from lsd_sampler.sampling.step_rule import StepRule


LEAVING_POSITIONS = [name for name in SOLVERS.names() if SOLVERS[name].distillable]
BASELINES = [name for name in SOLVERS.names() if not SOLVERS[name].distillable]
HURRY = torch.full((4,), 1.5, dtype=torch.float64)
WITHOUT_MASK = {"mask_token_id": None, "vocab_size": MASK, "corruption": "uniform"}
RULES: list[dict[str, Any]] = [
    *({"order": order} for order in ORDERS.names()),
    *({"solver": solver} for solver in SOLVERS.names()),
    *({"draws": draws, "count": "bernoulli"} for draws in DRAWS),
    *({"solver": solver, **WITHOUT_MASK} for solver in LEAVING_POSITIONS),
]


def run(scheduler: LSDScheduler, num_steps: int = 4, **kwargs: Any) -> list[torch.Tensor]:
    canvas = torch.full((3, 12), MASK)
    if not scheduler.rule.has_mask:
        canvas = scheduler.sample_prior(3, 12, seeded(1))
    return generate(scheduler, fixed_model(canvas, MASK), canvas, num_steps, generator=seeded(), **kwargs)


@pytest.mark.parametrize("options", RULES, ids=str)
def test_a_step_is_what_its_rule_says(options: dict[str, Any]) -> None:
    """The scheduler adds nothing to a rule's `advance` but the network's output and the canvas."""
    scheduler = LSDScheduler(**{"mask_token_id": MASK, **options})
    seen: list[torch.Tensor] = []

    class Watched(LSDScheduler):
        def advance(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
            next_BL, probability_BL = self.rule.advance(x, self.plan)
            seen.append(next_BL)
            return next_BL, probability_BL

    path = run(Watched.from_config(scheduler.config))
    assert all(torch.equal(a, b) for a, b in zip(path, run(scheduler), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(path[1:], seen, strict=True))
    assert isinstance(scheduler.rule, StepRule)
    assert scheduler.rule.has_mask == ("corruption" not in options)


@pytest.mark.parametrize("solver", SOLVERS.names())
def test_a_solver_either_takes_its_own_step_or_leaves_positions_to_the_order(solver: str) -> None:
    """A baseline is no variant of another solver."""
    part, kinds = SOLVERS[solver], (OwnStep, UpdateRule)
    assert [isinstance(part, kind) for kind in kinds] == [solver in BASELINES, solver in LEAVING_POSITIONS]
    update_rules = tuple(type(SOLVERS[name]) for name in LEAVING_POSITIONS)
    assert solver in LEAVING_POSITIONS or not isinstance(part, update_rules)
    rule = LSDScheduler(mask_token_id=MASK, solver=solver, order="random").rule
    assert rule is (part if solver in BASELINES else ORDERS["random"])


@pytest.mark.parametrize("order", ORDERS.names())
def test_positions_depend_on_drawn_tokens_only_where_an_order_says_so(order: str) -> None:
    """At another temperature of the draws other tokens come out; where the order does not look at them, they come at
    the same positions of the first step. Of 40 canvases one that looks at tokens chooses differently in some.
    """
    canvas, logits = torch.full((40, 12), MASK), torch.randn(40, 12, MASK, generator=seeded(2))
    steps = []
    for temperature in (1.0, 3.0):
        scheduler = with_choices(LSDScheduler(mask_token_id=MASK, order=order, confidence_temperature=0.5), 3)
        scheduler.set_timesteps(3)
        steps.append(scheduler.step(logits, 0, canvas, temperature=temperature, generator=seeded()))
    both = steps[0].transfer_index & steps[1].transfer_index
    assert bool((steps[0].prev_sample != steps[1].prev_sample)[both].any())  # so the test can tell
    assert torch.equal(steps[0].transfer_index, steps[1].transfer_index) == (not ORDERS[order].looks_at_tokens)


@pytest.mark.parametrize("order", ORDERS.names())
def test_positions_depend_on_logits_only_where_an_order_says_so(order: str) -> None:
    canvas, outputs = torch.full((40, 12), MASK), torch.randn(2, 40, 12, MASK, generator=seeded(2))
    revealed = []
    for logits in outputs:
        scheduler = with_choices(LSDScheduler(mask_token_id=MASK, order=order), 3)
        scheduler.set_timesteps(3)
        revealed.append(scheduler.step(logits, 0, canvas, generator=seeded()).transfer_index)
    assert torch.equal(*revealed) == (not ORDERS[order].looks_at_logits)
    assert ORDERS[order].looks_at_logits or not ORDERS[order].looks_at_tokens


@pytest.mark.parametrize("order", ORDERS.names())
def test_a_step_reads_what_its_order_looks_at(order: str) -> None:
    """Logits of a row are computed where a token is drawn, and at all masked positions where the order looks at them;
    an order that looks at tokens draws one at all of them.
    """
    read: list[int] = []

    def head(hidden: torch.Tensor) -> torch.Tensor:
        read.append(len(hidden))
        return hidden

    logits, canvas = torch.randn(3, 12, MASK, generator=seeded(2)), torch.full((3, 12), MASK)
    scheduler = with_choices(LSDScheduler(mask_token_id=MASK, order=order), 4)
    scheduler.set_timesteps(4)
    out = scheduler.step(DeferredLogits(logits, head, MASK), 0, canvas, generator=seeded())
    revealed, masked, part = int(out.transfer_index.sum()), canvas.numel(), ORDERS[order]
    assert 0 < revealed < masked
    looked_at = masked if part.looks_at_logits and not part.looks_at_tokens else 0
    assert sum(read) == looked_at + (masked if part.looks_at_tokens else revealed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"solver": solver, "order": "halton"}, f"`order` 'halton'.*{solver}") for solver in BASELINES),
        *(({"solver": solver, **WITHOUT_MASK}, f"`solver` '{solver}'.*uniform noise") for solver in BASELINES),
        *(({"solver": solver, "count": "llada"}, f"`count` 'llada'.*`solver` '{solver}'") for solver in BASELINES),
        *(
            ({"order": order, **WITHOUT_MASK}, f"`order` '{order}'.*uniform noise")
            for order in ORDERS.names()
            if order != "random"
        ),
        *(
            ({"order": order, "count": "dream", "schedule": "cosine"}, "`schedule` 'cosine'")
            for order in ORDERS.names()
        ),
        *(
            ({"draws": "float32_eps1e-6", "count": "bernoulli", **other}, "`draws` 'float32_eps1e-6'")
            for other in ({"order": "margin"}, {"solver": "remdm_cap"}, {"count": "exact"}, WITHOUT_MASK)
        ),
    ],
    ids=str,
)
def test_a_rule_refuses_what_contradicts_it(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSDScheduler(**{"mask_token_id": MASK, **options})


class Leftmost(LogitOrder):
    """As many as the schedule says, from the left: one that chooses with no score."""

    name = "leftmost"

    def choose(self, x: StepInput, plan: StepPlan, choice_BL: torch.Tensor, jump_BL: torch.Tensor) -> torch.Tensor:
        return x.masked_BL & (x.canvas.masked_BL.cumsum(1) <= plan.num_known(x)[:, None])


class Backwards(Order):
    name = "backwards"

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        return torch.arange(u_BL.shape[1], 0, -1, dtype=torch.float64).expand_as(u_BL)


class FromBothEnds(OwnStep):
    name = "from_both_ends"

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        (v_BL,) = x.uniforms(1)
        place_L = torch.arange(x.sample_BL.shape[1])
        near_L = torch.minimum(place_L, place_L.flip(0)) <= x.k
        return x.reveal(x.masked_BL & (x.is_last | near_L), v_BL)


@pytest.mark.parametrize(
    ("registry", "part", "first"),
    [
        (ORDERS, Leftmost(), [0, 1, 2]),
        (ORDERS, Backwards(), [9, 10, 11]),
        (SOLVERS, FromBothEnds(), [0, 11]),
    ],
    ids=lambda case: getattr(case, "name", ""),
)
def test_a_part_from_outside_is_one_class_and_one_registration(
    registry: Any, part: Any, first: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is then known to schedulers, their files, `lsd-eval` and `lsd-train`."""
    monkeypatch.setattr(registry, "_parts", dict(registry._parts))
    registry.register(part.name, part)
    scheduler = LSDScheduler(mask_token_id=MASK, **{registry.argument: part.name})
    path = run(scheduler)
    assert (path[1][0] != MASK).nonzero()[:, 0].tolist() == first
    assert bool((path[-1] != MASK).all())
    scheduler.save_pretrained(tmp_path)
    again = run(LSDScheduler.from_pretrained(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(path, again, strict=True))
    text = f"tweedie:{part.name}" if registry is ORDERS else part.name
    assert torch.equal(run(baseline(text, {"mask_token_id": MASK}))[-1], path[-1])
    flag = "--order" if registry is ORDERS else "--teacher-solver"
    assert build_parser().parse_args(["--model", "countdown", flag, part.name])


def test_numbers_may_change_in_the_middle_of_a_generation() -> None:
    """A trainer sets a coefficient once it has seen the step's output, and the step goes by it."""

    class Hurried(LSDScheduler):
        def advance(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
            self.steps.score_coefficients[x.k] = HURRY[x.k]
            self.use_steps(self.steps)
            return super().advance(x)

    times = LSDScheduler().steps_for(4).timesteps
    known, base, hurried = (kind(mask_token_id=MASK) for kind in (LSDScheduler, LSDScheduler, Hurried))
    known.set_learned_sampler(LearnedSampler({4: replace(LearnedSteps.plain(times), score_coefficients=HURRY)}))
    hurried.set_learned_sampler(LearnedSampler({4: LearnedSteps.plain(times)}))
    masks = [[int((x == MASK).sum()) for x in run(scheduler)] for scheduler in (known, hurried, base)]
    assert masks[0] == masks[1] != masks[2]
