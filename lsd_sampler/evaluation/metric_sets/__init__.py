"""Metric sets: what an evaluation computes on samples of one kind, and by which number it compares samplers."""

from .chain_metrics import OracleMetrics
from .fill_metrics import FillMetrics
from .image_metrics import ImageMetrics
from .known_sets import METRIC_SETS, check_metric_set, columns_of, known_columns
from .metric_set import Layout, MetricSet, Values
from .molecule_metrics import MoleculeMetrics
from .oracle_metrics import exact_fills, exact_samples, oracle_metrics
from .set_metrics import SetMetrics
from .task_metrics import TaskMetrics
from .text_metrics import TextMetrics
from .token_metrics import TokenMetrics


__all__ = [
    "METRIC_SETS", "FillMetrics", "ImageMetrics", "Layout", "MetricSet", "MoleculeMetrics", "OracleMetrics",
    "SetMetrics", "TaskMetrics", "TextMetrics", "TokenMetrics", "Values", "check_metric_set", "columns_of",
    "exact_fills", "exact_samples", "known_columns", "oracle_metrics",
]  # fmt: skip
