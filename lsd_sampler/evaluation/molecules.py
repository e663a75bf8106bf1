"""Molecules as chemists compare them: read from SMILES by rdkit, and embedded by ChemNet."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm


FEATURES = 512
"""Width of ChemNet's features."""
_ROWS_AT_ONCE = 256
_MANY = 10_000  # molecules from which a progress bar is shown
_START = re.compile(r"^(?:<s>|<bos>|\[CLS\]|\[BOS\])+")
_END = re.compile(r"(?:<end>|<eos>|</s>|\[SEP\]|\[EOS\]).*", re.DOTALL)
_PADDING = re.compile(r"(?:<pad>|\[PAD\])+$")


@dataclass(frozen=True)
class Molecule:
    """A valid molecule.

    Attributes:
        smiles (`str`): its canonical SMILES: equal for equal molecules.
        graph: rdkit's own object.
    """

    smiles: str
    graph: Any


def check_packages() -> None:
    """Raises `ImportError` where rdkit or fcd-torch is missing; the message says how to install them."""
    try:
        import fcd_torch  # noqa: F401
        import rdkit  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Molecules need the packages rdkit and fcd-torch: `pip install lsd_sampler[molecules]` ({error})."
        ) from error


def smiles_of(text: str) -> str:
    """The SMILES string in a decoded sequence: up to the first end token, without padding behind it or white space.

    Padding in front of the end stays, so that no molecule is read from such a sequence.
    """
    bare = _START.sub("", re.sub(r"\s+", "", text))
    return _PADDING.sub("", _END.sub("", bare))


def read_molecules(strings: Iterable[str], progress: bool = True) -> list[Molecule | None]:
    """The molecule of each SMILES string, None where it has none: wrong valences or rings, or no atom.

    Args:
        strings: SMILES.
        progress (`bool`): a progress bar on stderr, where there are many.
    """
    from rdkit import Chem, rdBase

    def read(smiles: str) -> Molecule | None:
        graph = Chem.MolFromSmiles(smiles)
        return None if graph is None or not graph.GetNumAtoms() else Molecule(Chem.MolToSmiles(graph), graph)

    strings = list(strings)
    with rdBase.BlockLogs():  # it would tell of every invalid string
        return [read(smiles) for smiles in tqdm(strings, "SMILES", disable=not progress or len(strings) < _MANY)]


def canonical(strings: Sequence[str]) -> frozenset[str]:
    """The canonical SMILES of all valid strings."""
    found: set[str] = set()
    # in parts, for rdkit's objects take much memory
    starts = range(0, len(strings), _MANY)
    for start in tqdm(starts, "canonical SMILES", disable=len(starts) < 2):
        molecules = read_molecules(strings[start : start + _MANY], progress=False)
        found.update(molecule.smiles for molecule in molecules if molecule is not None)
    return frozenset(found)


def properties(molecules: Sequence[Molecule]) -> dict[str, list[float]]:
    """Of each molecule, by rdkit: `logp`, the octanol-water partition coefficient by Crippen's method; `weight` in
    g/mol; `qed`, the drug-likeness from 0 to 1.
    """
    from rdkit.Chem import QED, Crippen, Descriptors

    crippen, descriptors = cast(Any, (Crippen, Descriptors))  # names that rdkit adds when it is imported
    measures = {"logp": crippen.MolLogP, "weight": descriptors.MolWt, "qed": QED.qed}
    return {name: [float(measure(m.graph)) for m in molecules] for name, measure in measures.items()}


class ChemNet:
    """The network of the Fréchet ChemNet distance (https://doi.org/10.1021/acs.jcim.8b00234). Its weights come with
    fcd-torch.

    Args:
        device: of the network.

    Raises:
        ImportError: without rdkit or fcd-torch; the message says how to install them.
    """

    def __init__(self, device: str | torch.device = "cpu"):
        check_packages()
        import fcd_torch
        from fcd_torch.utils import load_imported_model

        weights = Path(fcd_torch.__file__).parent / "ChemNet_v0.13_pretrained.pt"
        self.device = torch.device(device)
        layers = torch.load(weights, map_location="cpu", weights_only=True)
        self.network = load_imported_model(layers).eval().to(self.device)

    @torch.inference_mode()
    def features(self, molecules: Sequence[Molecule]) -> torch.Tensor:
        """`torch.FloatTensor` of shape `(len(molecules), 512)`, from canonical SMILES as in the published distance."""
        from fcd_torch.utils import SmilesDataset

        coded: Any = SmilesDataset([molecule.smiles for molecule in molecules], canonize=False)
        parts, starts = [torch.empty(0, FEATURES)], range(0, len(molecules), _ROWS_AT_ONCE)
        for start in tqdm(starts, "ChemNet", disable=len(molecules) < _MANY):
            rows = range(start, min(start + _ROWS_AT_ONCE, len(molecules)))
            one_hot = torch.stack([torch.as_tensor(coded[i]) for i in rows])
            parts.append(self.network(one_hot.transpose(1, 2).float().to(self.device)).cpu())
        return torch.cat(parts)
