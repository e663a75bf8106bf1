"""A distillation with everything decided."""

from dataclasses import dataclass
from typing import Any

from .shared_options import SharedOptions
from .teacher_plan import TeacherPlan


@dataclass(frozen=True)
class Recipe:
    """The work of a run. [`DistillConfig.resolve`] makes it from the options and what the pipeline asks for.

    Args:
        config ([`DistillConfig`]): the options as they were given.
        plan ([`TeacherPlan`]): what a call of the pipeline asks of a sampler.
        options ([`MethodOptions`]): the method's own options.
        source (`str`): where sequences come from if only how they end counts: teacher, data or bootstrap.
        num_sequences (`int`): how many to learn from.
        is_paired (`bool`): whether teacher and student of all sequences run in one batch.
    """

    config: SharedOptions
    plan: TeacherPlan
    options: Any
    source: str
    num_sequences: int
    is_paired: bool = False

    @property
    def order(self) -> str:
        """The order of revealing. If it is still to be chosen, this is the teacher's, that of the forward process."""
        return self.config.base_order

    @property
    def teacher_solver(self) -> str:
        """The solver of the teacher."""
        return self.config.solver_of_teacher

    @property
    def num_batches(self) -> int:
        """Number of batches of sequences."""
        return -(-self.num_sequences // self.config.batch_size)

    @property
    def bootstrap_steps(self) -> int:
        """Steps of the base solver for a bootstrapped sequence: no more than there are tokens."""
        return min(self.config.bootstrap_steps, self.plan.num_masked)

    @property
    def source_steps(self) -> int:
        """Network calls for one batch of sequences from the source, on each canvas."""
        return {"teacher": self.plan.num_steps, "bootstrap": self.bootstrap_steps, "data": 0}[self.source]
