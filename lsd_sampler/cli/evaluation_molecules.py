"""`lsd-eval --molecules`: samples that are SMILES, compared with files of real molecules."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..evaluation.harness import floor_row
from ..evaluation.metric_sets import MoleculeMetrics
from ..evaluation.rows import Row
from ..sampling.left_out import LEFT_OUT
from .texts import read_texts, shuffled_texts


_NOT_OF_MOLECULES = ("judge", "features", "mauve", "frontier")
_REAL_MOLECULES = "real molecules"


def add_molecule_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of molecules."""
    parser.add_argument(
        "--molecules",
        action="store_true",
        help="the samples are SMILES: valid, unique and novel ones, Fréchet ChemNet distance to --reference (needs "
        "lsd_sampler[molecules])",
    )
    parser.add_argument(
        "--training-set",
        type=Path,
        metavar="FILE",
        help="with --molecules: the molecules that the model was trained on, .smi or .smi.xz, which are not novel",
    )


def check_molecule_options(args: argparse.Namespace) -> None:
    """Refuses flags that do not go with molecules, or without them.

    Raises:
        ValueError: if there are any; the message names the flag.
    """
    if not args.molecules:
        if args.training_set is not None:
            raise ValueError("`--training-set` says which molecules are new: give `--molecules` too.")
        return
    for name in _NOT_OF_MOLECULES:
        if getattr(args, name):
            raise ValueError(f"`--{name}` does not go with `--molecules`: leave one of them out.")
    if args.reference is None:
        raise ValueError("`--molecules` are compared with real ones: give their file, `--reference test.smi`.")


def molecule_metrics(args: argparse.Namespace, tokenizer: Any) -> tuple[MoleculeMetrics, list[str]]:
    """The metrics against one half of `--reference`, and the SMILES of the other half. Each line is a whole molecule.

    Raises:
        ValueError: if the model has no tokenizer, or there are too few real molecules.
        OSError: if a file is missing.
        ImportError: without rdkit or fcd-torch.
    """
    if tokenizer is None:
        raise ValueError(f"`--molecules`: {args.model} has no tokenizer, so its samples cannot be read as SMILES.")
    real = shuffled_texts(read_texts(args.reference, "--reference", by_lines=True))
    known = args.training_set and read_texts(args.training_set, "--training-set", by_lines=True)
    half = len(real) // 2
    return MoleculeMetrics(tokenizer, real[:half], known, device=args.device), real[half:]


def molecules_floor(
    args: argparse.Namespace, metrics: MoleculeMetrics, others: Sequence[str], length: int
) -> Row | None:
    """The row of real molecules, of the same size as those of samplers; None, with a note, where they are too few."""
    num = args.num_samples
    if len(others) < num:
        print("Too few reference molecules for a floor of the same size: it is left out.", file=sys.stderr)
        return None
    sequences = torch.full((num, length), LEFT_OUT)  # the model may have no token for what real molecules hold
    return floor_row(metrics, sequences, name=_REAL_MOLECULES, num_texts=args.num_texts, texts=others[:num])
