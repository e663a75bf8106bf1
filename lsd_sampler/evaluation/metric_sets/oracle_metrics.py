"""The metric set that fits an exact oracle: of a chain or of a set, and of fills; and what an exact sampler makes."""

from typing import Any

import torch

from ...denoisers.markov import MarkovDenoiser
from ...denoisers.oracle import Oracle
from .chain_metrics import OracleMetrics
from .fill_metrics import FILLS, FillMetrics
from .metric_set import MetricSet
from .set_metrics import SetMetrics


def oracle_metrics(
    oracle: Oracle, num_samples: int, *, length: int | None = None, seed: int = 0, **options: Any
) -> MetricSet:
    """The metrics that fit an oracle: of a chain or of a set; and of fills, where it has `clues`.

    Args:
        oracle ([`Oracle`]): knows the law.
        num_samples (`int`): how many are judged. With `clues`, each canvas is filled in twice.
        length (`int`, *optional*): of the samples; default: the oracle's.
        seed (`int`): of the canvases.
        options: `num_resamples` and `confidence` of the metric sets.

    Raises:
        ValueError: if `clues` leave nothing to fill in.
    """
    group = FILLS if oracle.clues else 1
    metrics: MetricSet
    if oracle.memory is None:
        metrics = SetMetrics(oracle, length=length, group=group, **options)
    elif isinstance(oracle, MarkovDenoiser):
        metrics = OracleMetrics(oracle.transition.cpu(), initial=oracle.initial.cpu(), group=group, **options)
    else:
        joint = oracle.ngram_law(oracle.memory + 1, length).cpu().flatten(0, -2)
        contexts = joint.sum(1)
        # a context that no transition starts from may have any law
        law = torch.where(contexts[:, None] > 0, joint / contexts[:, None], 1 / joint.shape[1])
        metrics = OracleMetrics(law, contexts=contexts, group=group, **options)
    if not oracle.clues:
        return metrics
    num_canvases = -(-num_samples // FILLS)
    drawn = oracle.canvases(num_canvases, torch.Generator().manual_seed(seed), length)
    canvases, truth = (x.cpu().repeat_interleave(FILLS, dim=0)[:num_samples] for x in drawn)
    return FillMetrics(metrics, canvases, truth, oracle.vocab_size, **options)


def exact_samples(
    oracle: Oracle, metrics: MetricSet, num_samples: int, length: int | None = None, seed: int = 0
) -> torch.Tensor:
    """Samples of an exact sampler for the same task: `(num_samples, length)`."""
    generator = torch.Generator().manual_seed(seed)
    canvases = metrics.canvases
    made = oracle.sample(num_samples, generator)[:, :length] if canvases is None else oracle.fill(canvases, generator)
    return made.cpu()
