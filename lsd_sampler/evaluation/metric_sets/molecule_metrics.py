"""The metric set of molecules: validity, variety, and the distance from real ones that chemists use."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...support.identity import identity
from ..bootstrap import bootstrap_weights, kept_replicates, with_interval
from ..columns import Metric, with_ends
from ..frechet import FrechetReference, moments
from ..molecules import ChemNet, Molecule, canonical, check_packages, properties, read_molecules, smiles_of
from ..tokens import decode
from .metric_set import Layout, MetricSet, Values


_SHARES = (
    Metric(
        "valid",
        "valid",
        "Share of samples that are molecules: rdkit reads them, and they have an atom.",
        lower_is_better=False,
        interval=True,
    ),
    Metric(
        "unique", "unique", "Share of different molecules among the valid ones.", lower_is_better=False, interval=True
    ),
)
NOVEL = Metric("novel", "novel", "Share of the different molecules that are not in the training set.", interval=True)
_DISTANCES = tuple(
    Metric(
        f"{name}_distance",
        heading,
        f"Wasserstein distance of the {of} of valid samples from that of real molecules{unit}.",
        lower_is_better=True,
        interval=True,
    )
    for name, heading, of, unit in (
        ("logp", "logP dist.", "octanol-water partition coefficient (logP)", ""),
        ("weight", "weight dist.", "molecular weight", ", in g/mol"),
        ("qed", "QED dist.", "drug-likeness (QED, from 0 to 1)", ""),
    )
)
FRECHET_CHEMNET = Metric(
    "fcd",
    "FCD",
    "The verdict for molecules: Fréchet ChemNet distance of the valid samples from real molecules. Lower is better. "
    "It is larger for fewer molecules, also for real ones: read it beside real data of the same size.",
    lower_is_better=True,
    interval=True,
)


class MoleculeMetrics(MetricSet):
    """Distance of molecules, written as SMILES, from real ones; how many are valid, different and new.

    The verdict `fcd` is the Fréchet distance of ChemNet's features of the valid samples from those of `reference`.
    Where no sample is valid, it is that of a point at 0. Intervals hold the reference fixed.

    Args:
        tokenizer: of the sequences (`tokenizers.Tokenizer` or transformers); what follows its end token is cut off.
        reference (sequence of `str`): SMILES of real molecules that the model was not trained on.
        training_set (sequence of `str`, *optional*): SMILES of the molecules that it was trained on; adds `novel`.
        device: of ChemNet.
        num_resamples (`int`): bootstrap resamples of whole samples.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.

    Raises:
        ImportError: without rdkit or fcd-torch; the message says how to install them.
        ValueError: if there is no tokenizer, or `reference` holds fewer than two valid molecules.
    """

    metrics = (*_SHARES, NOVEL, *_DISTANCES, FRECHET_CHEMNET)
    verdict_key = "fcd"
    replicates = ("fcd",)

    def __init__(
        self,
        tokenizer: Any,
        reference: Sequence[str],
        training_set: Sequence[str] | None = None,
        *,
        device: str | torch.device = "cpu",
        num_resamples: int = 200,
        seed: int = 0,
        confidence: float = 0.95,
    ):
        check_packages()
        if tokenizer is None:
            raise ValueError("`tokenizer` must be given: molecules are read from decoded sequences.")
        real = _valid(read_molecules(reference))
        if len(real) < 2:
            raise ValueError(f"`reference` must hold at least two valid molecules, got {len(real)}.")
        self.tokenizer, self.chemnet = tokenizer, ChemNet(device)
        self.num_resamples, self.seed, self.confidence = num_resamples, seed, confidence
        self._known = None if training_set is None else canonical(training_set)
        self._properties = properties(real)
        self._features = FrechetReference(moments(self.chemnet.features(real)))
        compared = [identity(sorted(m.smiles for m in real)), self._known and identity(sorted(self._known))]
        self._fingerprint = identity([*compared, num_resamples, seed, confidence])[:12]
        if self._known is None:
            self.metrics = tuple(metric for metric in self.metrics if metric != NOVEL)

    @property
    def fingerprint(self) -> str:
        """Short hash of the reference, the training set and the bootstrap."""
        return self._fingerprint

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of `sequences`, of shape `(num_samples, length)`, decoded here where `texts` is None.

        Numbers of valid samples are None where there are none.
        """
        molecules = self._read(sequences, texts)
        weights_NB = bootstrap_weights(len(molecules), self.num_resamples, self.seed)
        is_valid_N = torch.tensor([molecule is not None for molecule in molecules])
        valid, weights_VB = _valid(molecules), weights_NB[is_valid_N]
        row = self._shares(molecules, weights_NB)
        row |= self._distances(valid, weights_VB)
        features = self.chemnet.features(valid)
        value, again = float(self._features.distances(features)[0]), self._features.distances(features, weights_VB)
        return row | with_interval("fcd", value, again, self.confidence) | kept_replicates({"fcd": again})

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        return float(self._features.distances(self.chemnet.features(_valid(self._read(sequences))))[0])

    def layout(self) -> Layout:
        """Shares and distances of properties, then the distance in ChemNet's space."""
        shares = tuple(metric.key for metric in self.metrics if metric in (*_SHARES, NOVEL))
        distances = tuple(metric.key for metric in _DISTANCES)
        table = ("temperature", *shares, *distances, *with_ends("fcd"))
        return Layout(table, ("temperature", *with_ends(*shares, *distances), "network_calls"), ("fcd", "valid"))

    def _read(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> list[Molecule | None]:
        texts = decode(self.tokenizer, sequences) if texts is None else texts
        return read_molecules(map(smiles_of, texts))

    def _shares(self, molecules: Sequence[Molecule | None], weights_NB: torch.Tensor) -> Values:
        names = [None if molecule is None else molecule.smiles for molecule in molecules]
        valid_N = torch.tensor([name is not None for name in names])
        places = {name: i for i, name in reversed([*enumerate(names)]) if name is not None}
        first_N = torch.zeros_like(valid_N).index_fill(0, torch.tensor([*places.values()], dtype=torch.long), True)
        row = self._share("valid", valid_N, torch.ones_like(valid_N), weights_NB)
        row |= self._share("unique", first_N, valid_N, weights_NB)
        if self._known is None:
            return row
        new_N = torch.tensor([name not in self._known for name in names])
        return row | self._share("novel", first_N & new_N, first_N, weights_NB)

    def _share(self, key: str, some_N: torch.Tensor, of_N: torch.Tensor, weights_NB: torch.Tensor) -> Values:
        """The share of `some` among `of`, with an interval; resamples without any of the latter are left out."""
        if not of_N.any():
            return dict.fromkeys(with_ends(key))
        some_B, of_B = (flags_N.double() @ weights_NB.double() for flags_N in (some_N, of_N))
        again = (some_B / of_B)[of_B > 0].numpy()
        found = with_interval(key, int(some_N.sum()) / int(of_N.sum()), again, self.confidence)
        return {name: min(value, 1.0) for name, value in found.items()}

    def _distances(self, valid: Sequence[Molecule], weights_VB: torch.Tensor) -> Values:
        if not valid:
            return dict.fromkeys(with_ends(*(metric.key for metric in _DISTANCES)))
        ours, drawn = properties(valid), [w_V.numpy() for w_V in weights_VB.T if w_V.any()]
        row: Values = {}
        for name, theirs in self._properties.items():
            again = np.array([_wasserstein(ours[name], theirs, w_V) for w_V in drawn])
            row |= with_interval(f"{name}_distance", _wasserstein(ours[name], theirs), again, self.confidence)
        return row


def _wasserstein(ours: list[float], theirs: list[float], weights: np.ndarray | None = None) -> float:
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(ours, theirs, weights))


def _valid(molecules: Sequence[Molecule | None]) -> list[Molecule]:
    return [molecule for molecule in molecules if molecule is not None]
