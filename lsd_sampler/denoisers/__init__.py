"""Denoisers: anything that predicts clean tokens from partly masked ones, behind one interface."""

from .auto import DENOISERS, SHORT_NAMES, available_names, load_denoiser
from .base import Denoiser
from .chains import chain_of_text, hidden_chain, second_order_chain
from .constraints import brackets, colouring, hamming, linear_code, replace_one, shuffle, sudoku4
from .ctmc import CTMCDenoiser
from .hidden_markov import HiddenMarkovDenoiser
from .markov import MarkovDenoiser, countdown, random_chain
from .masked_lm import MaskedLMDenoiser
from .maskgit import MaskGITDenoiser
from .mdlm import MDLMDenoiser
from .oracle import Oracle
from .oracle_names import ORACLES
from .radd import RADDDenoiser
from .sedd import SEDDDenoiser
from .table import TableDenoiser, read_table
from .translation import TranslationDenoiser


__all__ = [
    "DENOISERS", "ORACLES", "SHORT_NAMES", "CTMCDenoiser", "Denoiser", "HiddenMarkovDenoiser", "MDLMDenoiser",
    "MarkovDenoiser", "MaskGITDenoiser", "MaskedLMDenoiser", "Oracle", "RADDDenoiser", "SEDDDenoiser", "TableDenoiser",
    "TranslationDenoiser", "available_names", "brackets", "chain_of_text", "colouring", "countdown", "hamming",
    "hidden_chain", "linear_code", "load_denoiser", "random_chain", "read_table", "replace_one",
    "second_order_chain", "shuffle", "sudoku4",
]  # fmt: skip
