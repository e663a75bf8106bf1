"""Pearson's test of draws against an exact law."""

import numpy as np
from scipy.stats import chi2


def p_value(observed: np.ndarray, law: np.ndarray) -> float:
    """Of Pearson's test; outcomes that are expected less than 8 times are pooled."""
    assert observed[law == 0].sum() == 0
    expected = law * observed.sum()
    rare = expected < 8
    x = np.append(observed[~rare], observed[rare].sum())
    e = np.append(expected[~rare], expected[rare].sum())
    x, e = x[e > 0], e[e > 0]
    if len(x) == 1:
        return 1.0  # nothing but one outcome was possible, or told apart
    return float(chi2.sf(((x - e) ** 2 / e).sum(), len(x) - 1))
