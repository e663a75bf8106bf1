"""Solvers. A new one is its own file and one line here.

`tweedie` and `euler` are update rules: `LSDScheduler` chooses positions by its `order` and `count`, and times and
coefficients can be learned for them. The others are baselines that choose positions and tokens themselves, all within
the M network calls of `set_timesteps(M)`; their constants are `solver_options`.
"""

from ...support.registry import Registry
from .base import Solver, UpdateRule
from .credit_decoding import CreditDecoding
from .dndm import DNDM, DNDMK
from .dus import DUS
from .entropy_bounded import EntropyBounded
from .euler import Euler
from .fast_dllm import FastDLLMFactor, FastDLLMThreshold
from .k_gillespie import KGillespie
from .klass import KLASS
from .mean_field import MeanField
from .own_step import OwnStep
from .p2 import P2
from .predictor_corrector import PredictorCorrector
from .prophet import Prophet
from .punt import PUNT
from .random_steps import RandomSteps
from .remdm import ReMDMCap, ReMDMConf, ReMDMForwardBackward, ReMDMLoop, ReMDMRescale
from .theta import ThetaRK2, ThetaTrapezoidal
from .tweedie import Tweedie
from .wino import WINO


SOLVERS: Registry[Solver] = Registry("solver")
for _solver in (
    Tweedie(), Euler(), KGillespie(), ThetaRK2(), ThetaTrapezoidal(), PredictorCorrector(), ReMDMCap(),
    ReMDMRescale(), ReMDMConf(), ReMDMLoop(), ReMDMForwardBackward(), DNDM(), DNDMK(), EntropyBounded(),
    FastDLLMThreshold(), FastDLLMFactor(), KLASS(), WINO(), DUS(), PUNT(), MeanField(), Prophet(),
    CreditDecoding(), P2(), RandomSteps(),
):  # fmt: skip
    SOLVERS.register(_solver.name, _solver)

__all__ = [
    "DNDM", "DNDMK", "DUS", "KLASS", "P2", "PUNT", "SOLVERS", "WINO", "CreditDecoding", "EntropyBounded", "Euler",
    "FastDLLMFactor", "FastDLLMThreshold", "KGillespie", "MeanField", "OwnStep", "PredictorCorrector", "Prophet",
    "RandomSteps", "ReMDMCap", "ReMDMConf", "ReMDMForwardBackward", "ReMDMLoop", "ReMDMRescale", "Solver", "ThetaRK2",
    "ThetaTrapezoidal", "Tweedie", "UpdateRule",
]  # fmt: skip
