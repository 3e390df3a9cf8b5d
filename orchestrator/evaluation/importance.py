"""Which parameters of a search set its trials apart, and whether chance alone would show the same. Pure.

A space may be conditional, so every parameter is tested on the trials in which it applied. Trials that were stopped
early have figures of fewer epochs and take no part.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIGNIFICANCE = 0.03
"""Maximum probability that a search without any effect is given a finding."""
PERMUTATIONS = 4_999
"""Permutations of each test: with 40 parameters the smallest p-value, 1/5,000, still passes Holm's first bound."""
MIN_TRIALS = 8
"""Minimum completed trials of a parameter that is tested."""
MIN_PER_LEVEL = 2
"""Minimum completed trials of a level that is compared with the others."""
ROUNDING = 1e-9
"""Share of the variance that counts as none."""
AT_ONCE = 2**22
"""Numbers in memory at once while permuting."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a space and its value in every trial.

    ``values``: one per trial; ignored where ``applies`` (bool (trials,)) is False. ``levels``: the values to choose
    from, in the order of the file; () for a range, whose values are numbers from ``low`` to ``high``, sampled on a
    logarithmic scale if ``log``. ``condition``: under which the parameter exists, in words; "" for none.
    """

    name: str
    values: tuple[object, ...]
    applies: np.ndarray
    levels: tuple[object, ...] = ()
    log: bool = False
    low: float = math.nan
    high: float = math.nan
    condition: str = ""

    @property
    def label(self) -> str:
        return f"{self.name} ({self.condition})" if self.condition else self.name


@dataclass(frozen=True)
class Finding:
    """What a search says about one parameter.

    ``trials``: completed trials in which it applied. ``share``: of the variance of their accuracies that the parameter
    explains, with a 95 % interval; NaN if it was not tested. ``p_value``: of the permutation test, 1 if not tested.
    ``significant``: whether the test holds for all parameters of the search together. If so, ``level`` is the value
    that differs most from the others, or of a range "low", "middle" or "high", where the accuracy is best; and
    ``difference`` is its accuracy minus that of the others, as a fraction, with a 95 % interval (of a range: its best
    third minus its worst).
    """

    parameter: Parameter
    trials: int
    share: float = math.nan
    share_low: float = math.nan
    share_high: float = math.nan
    p_value: float = 1.0
    significant: bool = False
    level: object = None
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan

    @property
    def sentence(self) -> str:
        """Return the finding in words; "" if there is none."""
        if not self.significant:
            return ""
        points, low, high = (100 * x for x in (self.difference, self.difference_low, self.difference_high))
        figures = f"{points:+.1f} points ({low:+.1f} to {high:+.1f})".replace("-", "\N{MINUS SIGN}")
        if self.parameter.levels:
            return f"{self.parameter.label} = {self.level}: {figures} against its other values"
        return f"{self.parameter.label} is best at its {self.level} values: {figures} against the worst third"


def find_effects(
    parameters: Sequence[Parameter], accuracy: np.ndarray, completed: np.ndarray, seed: int = 0
) -> tuple[Finding, ...]:
    """Test every parameter; return one finding each, in the same order.

    ``accuracy``: float (trials,), fractions. ``completed``: bool (trials,), trained to the last epoch.

    A permutation test (Fisher 1935) per parameter: of levels, the largest |t| between one level and all others; of a
    range, the larger |t| of a line and of a parabola through the values. Holm's bound (1979) keeps the probability of
    any false finding in a search below ``SIGNIFICANCE``. The most significant parameter is accepted first and its
    effect subtracted (Freedman & Lane 1983), so that one that merely varies together with it is not named as well.
    The share is omega squared, (SS_between - df MS_within) / (SS_total + MS_within) (Hays 1963);
    its interval inverts the noncentral F distribution (Steiger 2004, Psychological Methods 9).
    """
    designs = [_Test.of(parameter, completed) for parameter in parameters]
    tests = {i: test for i, test in enumerate(designs) if test is not None}
    found = [Finding(parameter, int((parameter.applies & completed).sum())) for parameter in parameters]
    residual = np.array(accuracy, dtype=np.float64)
    draw = np.random.default_rng(seed)
    left = list(tests)
    for i in left:
        found[i] = _with_share(found[i], tests[i], residual)
    p_values: dict[int, float] = {}
    while left:
        p_values = {i: _p_value(tests[i], residual, draw) for i in left}
        first = min(left, key=lambda i: (p_values[i], -tests[i].statistics(residual[tests[i].rows]).max(), i))
        if p_values[first] * len(left) > SIGNIFICANCE:
            break
        found[first] = _accepted(found[first], tests[first], residual, p_values[first])
        residual = tests[first].without_effect(residual)
        left.remove(first)
    for i in left:
        found[i] = dataclasses.replace(found[i], p_value=p_values[i])
    return tuple(found)


@dataclass(frozen=True)
class _Test:
    """The design of one parameter's test.

    ``rows``: int (n,), its completed trials. ``groups``: int (n,), the level or the third of the range of each.
    ``basis``: float (n, columns), standardised contrasts, of which the largest counts.
    """

    parameter: Parameter
    rows: np.ndarray
    groups: np.ndarray
    basis: np.ndarray

    @classmethod
    def of(cls, parameter: Parameter, completed: np.ndarray) -> _Test | None:
        """Return None if there are too few trials, or all have one value."""
        rows = np.flatnonzero(parameter.applies & completed)
        if len(rows) < MIN_TRIALS:
            return None
        values = [parameter.values[i] for i in rows]
        if parameter.levels:
            groups = np.array([parameter.levels.index(value) for value in values])
            basis = _level_contrasts(groups, len(parameter.levels))
        else:
            number = np.array(values, np.float64)
            x = np.log(number) if parameter.log else number
            groups = np.searchsorted(np.quantile(x, [1 / 3, 2 / 3]), x, side="left")
            basis = _range_contrasts(x)
        return cls(parameter, rows, groups, basis) if basis.shape[1] else None

    def statistics(self, y: np.ndarray) -> np.ndarray:
        """Return |t| of each contrast; ``y``: float (..., n), of the rows. The shape is (..., columns)."""
        n = len(self.rows)
        centred = y - y.mean(axis=-1, keepdims=True)
        scale = np.linalg.norm(centred, axis=-1, keepdims=True)
        r = np.divide(centred @ self.basis, scale, out=np.zeros((*y.shape[:-1], self.basis.shape[1])), where=scale > 0)
        r2 = np.minimum(r**2, 1 - 1e-12)
        return np.sqrt(r2 * (n - 2) / (1 - r2))

    def without_effect(self, y: np.ndarray) -> np.ndarray:
        """Return ``y`` of all trials after each group's mean is replaced by the mean of all groups."""
        out, own = y.copy(), y[self.rows]
        for group in np.unique(self.groups):
            inside = self.groups == group
            out[self.rows[inside]] += own.mean() - own[inside].mean()
        return out


def _level_contrasts(groups: np.ndarray, levels: int) -> np.ndarray:
    sizes = np.bincount(groups, minlength=levels)
    able = np.flatnonzero((sizes >= MIN_PER_LEVEL) & (len(groups) - sizes >= MIN_PER_LEVEL))
    return _standardised((groups[:, None] == able).astype(np.float64))


def _range_contrasts(x: np.ndarray) -> np.ndarray:
    if np.ptp(x) == 0:
        return np.zeros((len(x), 0))
    line = _standardised(x[:, None])
    bent = line**2
    bent -= line @ (line.T @ bent)
    return np.hstack([line, _standardised(bent)])


def _standardised(columns: np.ndarray) -> np.ndarray:
    """Centre each column and scale it to length 1; columns that do not vary are left out."""
    centred = columns - columns.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=0)
    keep = lengths > 1e-9
    return np.asarray(centred[:, keep] / lengths[keep])


def _p_value(test: _Test, accuracy: np.ndarray, draw: np.random.Generator) -> float:
    y = accuracy[test.rows]
    observed = test.statistics(y).max() - 1e-9
    count, done = 0, 0
    per_chunk = max(1, AT_ONCE // max(1, len(y) + test.basis.shape[1]))
    while done < PERMUTATIONS:
        size = min(per_chunk, PERMUTATIONS - done)
        shuffled = draw.permuted(np.broadcast_to(y, (size, len(y))), axis=1)
        count += int((test.statistics(shuffled).max(axis=1) >= observed).sum())
        done += size
    return (1 + count) / (1 + PERMUTATIONS)


def _with_share(finding: Finding, test: _Test, accuracy: np.ndarray) -> Finding:
    y, groups = accuracy[test.rows], test.groups
    means = [y[groups == group].mean() for group in np.unique(groups)]
    sizes = [int((groups == group).sum()) for group in np.unique(groups)]
    df, df_error = len(means) - 1, len(y) - len(means)
    total = float(((y - y.mean()) ** 2).sum())
    between = float(sum(n * (m - y.mean()) ** 2 for n, m in zip(sizes, means, strict=True)))
    if df < 1 or df_error < 1 or total <= 0:
        return finding
    within = (total - between) / df_error
    share = max(0.0, (between - df * within) / (total + within))
    is_exact = within <= ROUNDING * total
    low, high = (1.0, 1.0) if is_exact else _share_interval(between / df / within, df, df_error)
    return dataclasses.replace(finding, share=share, share_low=low, share_high=high)


def _share_interval(f: float, df: int, df_error: int) -> tuple[float, float]:
    """Return the 95 % interval of the explained share: noncentralities at which ``f`` is a 2.5 % tail, over n."""
    from scipy.optimize import brentq  # SciPy: a second to import
    from scipy.stats import ncf

    n = df + df_error + 1
    largest = 10 * (f * df + n)
    shares = []
    for tail in (0.975, 0.025):
        at_zero = float(ncf.cdf(f, df, df_error, 0))
        if at_zero <= tail:
            shares.append(0.0)
            continue
        noncentrality = brentq(lambda nc, tail=tail: float(ncf.cdf(f, df, df_error, nc)) - tail, 0, largest)
        shares.append(noncentrality / (noncentrality + n))
    return shares[0], shares[1]


def _accepted(finding: Finding, test: _Test, accuracy: np.ndarray, p_value: float) -> Finding:
    y, groups = accuracy[test.rows], test.groups
    if test.parameter.levels:
        sizes = np.bincount(groups, minlength=len(test.parameter.levels))
        able = [g for g in range(len(sizes)) if min(sizes[g], len(y) - sizes[g]) >= MIN_PER_LEVEL]
        best = max(able, key=lambda g: abs(_welch(y[groups == g], y[groups != g])[3]))
        level: object = test.parameter.levels[best]
        one, others = y[groups == best], y[groups != best]
    else:
        ranked = sorted(np.unique(groups), key=lambda g: y[groups == g].mean())
        level = ("low", "middle", "high")[int(ranked[-1])]
        one, others = y[groups == ranked[-1]], y[groups == ranked[0]]
    difference, low, high, _ = _welch(one, others)
    return dataclasses.replace(
        finding,
        p_value=p_value,
        significant=True,
        level=level,
        difference=difference,
        difference_low=low,
        difference_high=high,
    )


def _welch(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float, float]:
    """Return the difference of the means of ``a`` and ``b``, its 95 % interval and t (Welch 1947)."""
    from scipy.stats import t as student  # SciPy: a second to import

    difference = float(a.mean() - b.mean())
    parts = [x.var(ddof=1) / len(x) if len(x) > 1 else 0.0 for x in (a, b)]
    variance = float(sum(parts))
    if variance <= 0:
        return difference, difference, difference, math.copysign(math.inf, difference) if difference else 0.0
    df = variance**2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True) if len(x) > 1)
    half = float(student.ppf(0.975, df)) * math.sqrt(variance)
    return difference, difference - half, difference + half, difference / math.sqrt(variance)
