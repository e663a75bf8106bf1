"""The metric sets that come with the package, and the checks that a user's own set must pass."""

from ...support.registry import Registry
from ..columns import CIRCUMSTANCES, Column
from .chain_metrics import OracleMetrics
from .fill_metrics import FillMetrics
from .image_metrics import ImageMetrics
from .metric_set import MetricSet
from .molecule_metrics import MoleculeMetrics
from .set_metrics import SetMetrics
from .task_metrics import TaskMetrics
from .text_metrics import TextMetrics
from .token_metrics import TokenMetrics


METRIC_SETS: Registry[type[MetricSet]] = Registry("metrics")
METRIC_SETS.register("chain", OracleMetrics)
METRIC_SETS.register("set", SetMetrics)
METRIC_SETS.register("fill", FillMetrics)
METRIC_SETS.register("image", ImageMetrics)
METRIC_SETS.register("task", TaskMetrics)
METRIC_SETS.register("molecules", MoleculeMetrics)
METRIC_SETS.register("text", TextMetrics)
METRIC_SETS.register("token", TokenMetrics)


def known_columns() -> dict[str, Column]:
    """Key -> column, of all that rows of a registered metric set hold."""
    metrics = [metric for name in METRIC_SETS.names() for metric in METRIC_SETS[name].metrics]
    columns = [*CIRCUMSTANCES, *(column for metric in metrics for column in metric.columns)]
    return {column.key: column for column in columns}


def columns_of(metrics: MetricSet) -> dict[str, Column]:
    """Key -> column, of all that a layout of this set may name."""
    return known_columns() | {column.key: column for metric in metrics.metrics for column in metric.columns}


def check_metric_set(metrics: MetricSet) -> None:
    """Refuses a metric set by which samplers could not be compared, or whose numbers could not be shown.

    Raises:
        ValueError: that names the attribute.
    """
    name = type(metrics).__name__
    if not isinstance(metrics, MetricSet):
        raise ValueError(f"`metrics` must be a `MetricSet`, got {name}: make it inherit from `MetricSet`.")
    known = {metric.key: metric for metric in metrics.metrics}
    if len(known) < len(metrics.metrics):
        raise ValueError(f"`metrics` of {name} must have different keys, got {[m.key for m in metrics.metrics]}.")
    for attribute, key in _named_keys(metrics):
        if key not in known:
            raise ValueError(f"`{attribute}` of {name} is {key!r}, which none of its `metrics` has: {list(known)}.")
    if not known[metrics.verdict_key].lower_is_better:
        raise ValueError(
            f"`verdict_key` of {name} is {metrics.verdict_key!r}, which must have `lower_is_better=True`: samplers are"
            " compared by the least value. Use the share of wrong ones instead of that of right ones."
        )
    if metrics.likelihood_key and not metrics.entropy_key:
        raise ValueError(f"`entropy_key` of {name} must be given beside `likelihood_key`, which it is read against.")
    for key in (key for keys in metrics.layout() for key in keys):
        if key not in columns_of(metrics):
            raise ValueError(f"`layout` of {name} names {key!r}, which none of its `metrics` has: {list(known)}.")


def _named_keys(metrics: MetricSet) -> list[tuple[str, str]]:
    """Attributes of a set that name one of its metrics, and the key."""
    optional = {"likelihood_key": metrics.likelihood_key, "entropy_key": metrics.entropy_key}
    given = [(attribute, key) for attribute, key in optional.items() if key is not None]
    return [("verdict_key", metrics.verdict_key), *given, *(("replicates", key) for key in metrics.replicates)]
