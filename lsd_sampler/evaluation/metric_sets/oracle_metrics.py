"""The metric set that fits an exact oracle: of a chain or of a set, and of fills; and what an exact sampler makes."""

from collections.abc import Sequence
from typing import Any

import torch

from ...denoisers.markov import MarkovDenoiser
from ...denoisers.oracle import Oracle
from .chain_metrics import OracleMetrics
from .fill_metrics import FILLS, FillMetrics
from .metric_set import MetricSet
from .set_metrics import SetMetrics


def oracle_metrics(
    oracle: Oracle,
    num_samples: int,
    *,
    length: int | None = None,
    seed: int = 0,
    given: bool = False,
    mask_token_id: int | None = None,
    **options: Any,
) -> MetricSet:
    """The metrics that fit an oracle: of a chain or of a set; and of fills, where it has `clues`.

    Args:
        oracle ([`Oracle`]): knows the law.
        num_samples (`int`): how many are judged. With `clues`, each canvas is filled in twice.
        length (`int`, *optional*): of the samples; default: the oracle's.
        seed (`int`): of the canvases.
        given (`bool`): whether the samples fill in canvases that the oracle has not made; see [`SetMetrics`].
        mask_token_id (`int`, *optional*): the mask of the model whose samples are judged; default: the oracle's.
        options: `num_resamples` and `confidence` of the metric sets.

    Raises:
        ValueError: if `clues` leave nothing to fill in.
    """
    group = FILLS if oracle.clues else 1
    metrics: MetricSet
    if oracle.memory is None:
        metrics = SetMetrics(oracle, length=length, group=group, given=given, **options)
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
    hole = oracle.hole_id if mask_token_id is None else mask_token_id
    return FillMetrics(metrics, canvases.masked_fill(canvases == oracle.hole_id, hole), truth, hole, **options)


def exact_samples(
    oracle: Oracle, metrics: MetricSet, num_samples: int, length: int | None = None, seed: int = 0
) -> torch.Tensor:
    """Samples of an exact sampler for the same task: `(num_samples, length)`."""
    generator, canvases = torch.Generator().manual_seed(seed), metrics.canvases
    if canvases is None or not isinstance(metrics, FillMetrics):
        return oracle.sample(num_samples, generator)[:, :length].cpu()
    return oracle.fill(canvases.masked_fill(metrics.masked, oracle.hole_id), generator).cpu()


def exact_fills(
    oracle: Oracle, canvases: Sequence[torch.Tensor], mask_token_id: int, seed: int = 0
) -> list[torch.Tensor]:
    """An exact fill of each canvas of any length. It stands for the truth: given the canvas, both have the same law.

    Args:
        oracle ([`Oracle`]): knows the law.
        canvases (sequence of `torch.LongTensor` of shape `(length,)`): masked where equal to `mask_token_id`.
        mask_token_id (`int`): the mask of the canvases.
        seed (`int`): of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    fills: list[torch.Tensor] = list(canvases)
    lengths = torch.tensor([len(canvas) for canvas in canvases])
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0].tolist()
        same_NL = torch.stack([canvases[i] for i in rows])
        filled_NL = oracle.fill(same_NL.masked_fill(same_NL == mask_token_id, oracle.hole_id), generator).cpu()
        for i, filled_L in zip(rows, filled_NL, strict=True):
            fills[i] = filled_L
    return fills
