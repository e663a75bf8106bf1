"""Evaluation that nobody can fool: distances between distributions, exact oracles, likelihood only beside entropy."""

from .divergence import (
    Interval,
    NgramCounts,
    bootstrap_js,
    bootstrap_weights,
    centred_interval,
    conditional_entropy,
    distinct_n,
    js_divergence,
    js_replicates,
    ngram_counts,
    sequence_entropy,
)
from .harness import best_per_sampler, evaluate, floor_row, random_windows, real_text_floor, text_windows
from .judge import JudgeNLL, JudgeScores
from .metrics import MetricSet, OracleMetrics, TextMetrics
from .oracle import (
    PROBABILITY_FLOOR,
    bigram_tv,
    countdown_error,
    forbidden_samples,
    forbidden_share,
    oracle_statistics,
    reverse_kl_per_transition,
)
from .report import (
    Row,
    append_jsonl,
    format_table,
    plot_quality_vs_nfe,
    plot_schedule,
    print_table,
    read_jsonl,
    write_jsonl,
)


__all__ = [
    "PROBABILITY_FLOOR",
    "Interval",
    "JudgeNLL",
    "JudgeScores",
    "MetricSet",
    "NgramCounts",
    "OracleMetrics",
    "Row",
    "TextMetrics",
    "append_jsonl",
    "best_per_sampler",
    "bigram_tv",
    "bootstrap_js",
    "bootstrap_weights",
    "centred_interval",
    "conditional_entropy",
    "countdown_error",
    "distinct_n",
    "evaluate",
    "floor_row",
    "forbidden_samples",
    "forbidden_share",
    "format_table",
    "js_divergence",
    "js_replicates",
    "ngram_counts",
    "oracle_statistics",
    "plot_quality_vs_nfe",
    "plot_schedule",
    "print_table",
    "random_windows",
    "read_jsonl",
    "real_text_floor",
    "reverse_kl_per_transition",
    "sequence_entropy",
    "text_windows",
    "write_jsonl",
]
