"""Denoisers: anything that predicts clean tokens from partly masked ones, behind one interface."""

from .auto import DENOISERS, SHORT_NAMES, available_names, load_denoiser
from .base import Denoiser
from .ctmc import CTMCDenoiser
from .markov import MarkovDenoiser, countdown, random_chain
from .masked_lm import MaskedLMDenoiser
from .maskgit import MaskGITDenoiser
from .mdlm import MDLMDenoiser
from .radd import RADDDenoiser
from .sedd import SEDDDenoiser


__all__ = [
    "DENOISERS", "SHORT_NAMES", "CTMCDenoiser", "Denoiser", "MDLMDenoiser", "MarkovDenoiser", "MaskGITDenoiser",
    "MaskedLMDenoiser", "RADDDenoiser", "SEDDDenoiser", "available_names", "countdown", "load_denoiser",
    "random_chain",
]  # fmt: skip
