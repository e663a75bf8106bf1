"""Evaluation that nobody can fool: distances between distributions, exact oracles, likelihood only beside entropy."""

from ..learned.schedule_plot import plot_schedule
from ..sampling.fills import two_fill_disagreement
from .bootstrap import (
    Interval,
    bootstrap_weights,
    centred,
    centred_interval,
    grouped_weights,
    kept_replicates,
    with_interval,
)
from .columns import Column, Metric
from .comparison import Comparison, compare, measure_further
from .divergence import js_divergence, js_replicates
from .diversity import conditional_entropy, distinct_n, entropy_replicates, repetition_n, sequence_entropy
from .embedding import denoiser_features, energy_distance, energy_replicates, mauve_score
from .frechet import frechet_distance
from .frontier import Reading, read_frontier
from .harness import Harness, best_per_sampler, evaluate, floor_row
from .image_classifier import ImageClassifier
from .image_reference import ImageReference
from .images import frechet_inception_distance
from .judge import JudgeError, JudgeNLL, JudgeScores, perplexity
from .metric_sets import (
    METRIC_SETS,
    FillMetrics,
    ImageMetrics,
    Layout,
    MetricSet,
    MoleculeMetrics,
    OracleMetrics,
    SetMetrics,
    TaskMetrics,
    TextMetrics,
    TokenMetrics,
    exact_fills,
    exact_samples,
    oracle_metrics,
)
from .ngrams import NgramCounts, ngram_counts
from .plots import plot_quality_vs_nfe
from .rows import Row, append_jsonl, read_jsonl, write_jsonl
from .tables import format_table
from .tokens import text_windows
from .transitions import (
    PROBABILITY_FLOOR,
    bigram_tv,
    forbidden_samples,
    forbidden_share,
    kl_rate_at_distance,
    oracle_statistics,
    reverse_kl_per_transition,
)
from .validity import Spread, distinct_valid, sequence_l2, spread
from .verdict import MatchedCalls, Winner, calls_to_reach, matched_calls, winners


__all__ = [
    "METRIC_SETS",
    "PROBABILITY_FLOOR",
    "Column",
    "Comparison",
    "FillMetrics",
    "Harness",
    "ImageClassifier",
    "ImageMetrics",
    "ImageReference",
    "Interval",
    "JudgeError",
    "JudgeNLL",
    "JudgeScores",
    "Layout",
    "MatchedCalls",
    "Metric",
    "MetricSet",
    "MoleculeMetrics",
    "NgramCounts",
    "OracleMetrics",
    "Reading",
    "Row",
    "SetMetrics",
    "Spread",
    "TaskMetrics",
    "TextMetrics",
    "TokenMetrics",
    "Winner",
    "append_jsonl",
    "best_per_sampler",
    "bigram_tv",
    "bootstrap_weights",
    "calls_to_reach",
    "centred",
    "centred_interval",
    "compare",
    "conditional_entropy",
    "denoiser_features",
    "distinct_n",
    "distinct_valid",
    "energy_distance",
    "energy_replicates",
    "entropy_replicates",
    "evaluate",
    "exact_fills",
    "exact_samples",
    "floor_row",
    "forbidden_samples",
    "forbidden_share",
    "format_table",
    "frechet_distance",
    "frechet_inception_distance",
    "grouped_weights",
    "js_divergence",
    "js_replicates",
    "kept_replicates",
    "kl_rate_at_distance",
    "matched_calls",
    "mauve_score",
    "measure_further",
    "ngram_counts",
    "oracle_metrics",
    "oracle_statistics",
    "perplexity",
    "plot_quality_vs_nfe",
    "plot_schedule",
    "read_frontier",
    "read_jsonl",
    "repetition_n",
    "reverse_kl_per_transition",
    "sequence_entropy",
    "sequence_l2",
    "spread",
    "text_windows",
    "two_fill_disagreement",
    "winners",
    "with_interval",
    "write_jsonl",
]
