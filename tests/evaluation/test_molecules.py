"""Molecules out of texts, and their features as fcd-torch computes them."""

import sys

import pytest
import torch

from lsd_sampler.evaluation.molecules import ChemNet, canonical, check_packages, properties, read_molecules, smiles_of


@pytest.mark.parametrize(
    ("text", "smiles"),
    [
        ("CCO", "CCO"),
        ("CCO<pad><pad>", "CCO"),
        ("CCO<end>CC<pad>", "CCO"),
        ("[CLS] C C ( = O ) O [SEP] [PAD]", "CC(=O)O"),
        ("<s>CCO</s>", "CCO"),
        ("CC<pad>O<end>", "CC<pad>O"),
        ("<end>CC", ""),
        ("<pad><pad>", ""),
    ],
)
def test_end_and_padding_are_cut(text: str, smiles: str) -> None:
    """Padding before the end stays: the sample is wrong, and must not be read as a shorter molecule."""
    assert smiles_of(text) == smiles


def test_what_is_no_molecule() -> None:
    """An unclosed ring, five bonds at a carbon, a special token, nothing at all."""
    pytest.importorskip("rdkit")
    assert read_molecules(["C1CC", "C(C)(C)(C)(C)C", "CC<pad>O", ""]) == [None] * 4


def test_one_molecule_has_one_name(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rdkit")
    ways = ["OCC", "C(O)C", "C1=CC=CC=C1", "c1ccccc1", "C1CC"]
    names = [m and m.smiles for m in read_molecules(ways)]
    assert names == ["CCO", "CCO", "c1ccccc1", "c1ccccc1", None]
    assert canonical(ways) == {"CCO", "c1ccccc1"}
    assert capfd.readouterr() == ("", "")  # rdkit's own words on what is invalid


def test_properties_of_known_molecules() -> None:
    """Weights by the atoms of water and benzene; the partition coefficient of benzene by the table of Crippen."""
    pytest.importorskip("rdkit")
    water, benzene = (m for m in read_molecules(["O", "c1ccccc1"]) if m)
    found = properties([water, benzene])
    assert found["weight"] == pytest.approx([18.015, 78.114], abs=1e-3)
    assert found["logp"][1] == pytest.approx(6 * (0.1581 + 0.1230), abs=1e-3)
    assert all(0 < value < 1 for value in found["qed"])


def test_features_are_those_of_the_library() -> None:
    for library in ("rdkit", "fcd_torch"):
        pytest.importorskip(library)
    from fcd_torch import FCD

    strings = ["CCO", "c1ccccc1Cl", "CC(=O)Nc1ccc(O)cc1"]
    molecules = [m for m in read_molecules(strings) if m]
    found = ChemNet().features(molecules)
    assert found.shape == (3, 512) and ChemNet().features([]).shape == (0, 512)
    torch.testing.assert_close(found, torch.from_numpy(FCD().get_predictions(strings)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("missing", ["rdkit", "fcd_torch"])
def test_a_missing_package_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install lsd_sampler\[molecules\]"):
        check_packages()
