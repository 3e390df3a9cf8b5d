"""The smallest width of an interval that keeps its coverage whatever the networks' deviation, by linear programming.

Pure. With networks as one source of error, x has the variance P + tau^2, in units of the interaction V_I, and V_N is
(1 + tau^2) chi^2_k / k, independent of x: P = V_P / V_I and k are known here, the networks' deviation tau is not. Of
all intervals x +- h(V_N), h random or not, the one with the smallest mean width at one tau under the coverage wanted at
every tau is the solution of a linear program in P(h | V_N), on a grid of h, V_N and tau (to about 2 %).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_matrix, kron
from scipy.special import gammainc, ndtr

from trainers.metrics import Z_95

RATIOS = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0)
"""V_P / V_I for which the program is solved; rounded up to one of them, above which there is no floor worth stating."""
DEVIATIONS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The networks' deviations in units of sqrt(V_I), rounded down: the floor grows with them."""
LARGEST = 20.0
"""The largest deviation at which the coverage must hold."""


def smallest_width(df: float, ratio: float, deviation: float, level: float) -> float:
    """Return the smallest mean width over that of the interval that knows the variance; 0 where none is stated."""
    above = [each for each in RATIOS if each >= min(ratio, RATIOS[-1] + 1)]
    if not above:
        return 0.0
    return _solve(df, above[0], max(each for each in DEVIATIONS if each <= max(deviation, 0.0)), level)


@cache
def _solve(df: float, ratio: float, deviation: float, level: float) -> float:
    taus = np.unique(np.r_[DEVIATIONS, np.geomspace(0.3, LARGEST, 20)])
    edges = np.r_[0, np.geomspace(0.02, 6 * (1 + LARGEST**2), 35), np.inf]
    seen = np.array([np.diff(gammainc(df / 2, df * edges / 2 / (1 + t * t))) for t in taus])  # (taus, V_N)
    halves = np.geomspace(0.8 * np.sqrt(ratio), 5.5 * np.sqrt(ratio + LARGEST**2), 40)
    covers = np.array([2 * ndtr(halves / np.sqrt(ratio + t * t)) - 1 for t in taus])  # (taus, h)
    covered = (seen[:, :, None] * covers[:, None, :]).reshape(len(taus), -1)
    here = int(np.flatnonzero(taus == deviation)[0])
    width = (seen[here][:, None] * halves).ravel() / (Z_95 * np.sqrt(ratio + deviation**2))
    one_each = kron(np.eye(len(edges) - 1), np.ones((1, len(halves))), format="csr")
    found = linprog(
        width, A_ub=csr_matrix(-covered), b_ub=np.full(len(taus), -level), A_eq=one_each, b_eq=np.ones(len(edges) - 1)
    )
    return round(float(found.fun), 3)
