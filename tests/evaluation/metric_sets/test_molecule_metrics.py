"""The metrics of molecules, against rdkit, scipy and fcd-torch called directly, and by hand."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers.evaluation_fakes import character_tokenizer

from lsd_sampler.evaluation import MoleculeMetrics
from lsd_sampler.evaluation.molecules import read_molecules


pytest.importorskip("rdkit", reason="rdkit is not installed")
pytest.importorskip("fcd_torch", reason="fcd-torch is not installed")

ENDS = ["C", "CC", "N", "O", "Cl", "F", "OC", "C(=O)N"]
RINGS = [f"{a}c1ccc({b})cc1" for i, a in enumerate(ENDS) for b in ENDS[: i + 1]]  # 36 different ones
CHAINS = [f"{'C' * n}{end}" for n in range(2, 8) for end in ("O", "N", "C(=O)O", "Br")]
WRONG = ["C1CC", "", "c1ccccc", "CC<pad>O"]
WITH_INTERVALS = ("valid", "unique", "novel", "logp_distance", "weight_distance", "qed_distance", "fcd")


def metrics(reference: Sequence[str] = RINGS, known: Sequence[str] | None = (), **options: Any) -> MoleculeMetrics:
    return MoleculeMetrics(character_tokenizer(), reference, known, num_resamples=20, **options)


def measure(texts: Sequence[str], of: MoleculeMetrics | None = None) -> dict[str, Any]:
    return (of or metrics()).compute(torch.zeros(len(texts), 1, dtype=torch.long), texts)


def test_values_are_those_of_the_libraries() -> None:
    from fcd_torch import FCD
    from rdkit import Chem
    from rdkit.Chem import QED, Crippen, Descriptors
    from scipy.stats import wasserstein_distance

    row = measure([*CHAINS, *WRONG, *CHAINS[:3]])
    ours, theirs = ([Chem.MolFromSmiles(smiles) for smiles in some] for some in ([*CHAINS, *CHAINS[:3]], RINGS))
    measures = {"logp": Crippen.MolLogP, "weight": Descriptors.MolWt, "qed": QED.qed}  # pyright: ignore
    for name, of in measures.items():
        expected = wasserstein_distance([*map(of, ours)], [*map(of, theirs)])
        assert row[f"{name}_distance"] == pytest.approx(expected, rel=1e-9)
    assert row["fcd"] == pytest.approx(FCD()([*CHAINS, *CHAINS[:3]], RINGS), rel=1e-3)


def test_shares_by_hand() -> None:
    """5 of 8 are valid, 4 of these differ, 3 of these are new; spelling makes no difference."""
    texts = ["CCO", "OCC", "c1ccccc1", "CN", "CCCC", *WRONG[:3]]
    row = measure(texts, metrics(known=["C1=CC=CC=C1", "not one", "CCCCC"]))
    assert (row["valid"], row["unique"], row["novel"]) == (5 / 8, 4 / 5, 3 / 4)
    assert "novel" not in measure(texts, metrics(known=None))


def test_samples_are_decoded_up_to_the_end() -> None:
    strings = ["CCO<end>C", "CCO<pad><pad>"]
    sequences = torch.tensor([[*map(ord, text.ljust(14, "\n"))] for text in strings])
    row = metrics().compute(sequences)
    assert (row["valid"], row["unique"]) == (1, 0.5)
    assert metrics().verdict(sequences) == row["fcd"]


def test_the_real_molecules_themselves_are_at_no_distance() -> None:
    """In any order and spelling, for that is not of the molecules."""
    again = [m.graph for m in read_molecules(RINGS) if m]
    from rdkit import Chem

    spelled = [Chem.MolToSmiles(graph, kekuleSmiles=False, rootedAtAtom=2, canonical=False) for graph in again]
    assert spelled != RINGS
    for texts in (RINGS, RINGS[::-1], spelled):
        row = measure(texts)
        distances = [row[key] for key in WITH_INTERVALS if key == "fcd" or key.endswith("distance")]
        assert distances == pytest.approx([0] * 4, abs=1e-4) and row["valid"] == row["unique"] == 1


def test_intervals_are_around_the_values() -> None:
    row = measure([*CHAINS, *WRONG, *CHAINS[:3]], metrics(known=CHAINS[::2]))
    for key in WITH_INTERVALS:
        assert row[f"{key}_low"] < row[key] < row[f"{key}_high"], key
    assert max(measure(RINGS)[f"{key}_high"] for key in ("valid", "unique", "novel")) == 1  # of shares
    assert len(row["fcd_replicates"]) == 20


def test_without_a_valid_molecule_there_is_a_verdict_and_no_more() -> None:
    """It is worse than that of few molecules, and of wrong ones."""
    nothing, few, other = measure(WRONG), measure([RINGS[0], *WRONG]), measure(["CCCCCCCC", "CCCCCCCCCC"])
    assert nothing["valid"] == 0
    assert all(nothing[key] is None for key in WITH_INTERVALS if key not in ("valid", "fcd"))
    assert nothing["fcd"] > max(few["fcd"], other["fcd"])
    assert few["logp_distance"] > 0


def test_rows_of_another_yardstick_are_known() -> None:
    """By the molecules, not by their order or spelling."""
    first = metrics(["CCO", "CCN"], ["C"]).fingerprint
    assert metrics(["NCC", "OCC"], ["C"]).fingerprint == first
    for other in (metrics(["CCO", "CCC"], ["C"]), metrics(["CCO", "CCN"], ["N"]), metrics(["CCO", "CCN"], None)):
        assert other.fingerprint != first


def test_too_little_to_compare_with_is_refused() -> None:
    with pytest.raises(ValueError, match="`reference` must hold at least two valid molecules, got 1"):
        metrics(["CCO", "C1CC"])
    with pytest.raises(ValueError, match="`tokenizer` must be given"):
        MoleculeMetrics(None, RINGS)
