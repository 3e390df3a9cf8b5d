"""Coverage, false positives and width of every interval and test that orch prints, by simulation.

``python -m benchmarks.coverage`` simulates each cell of ``grid()`` that ``benchmarks/coverage.json`` lacks and writes
docs/statistics.md; ``--small`` a few cells alone, and no page. What is called are the functions behind the tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import multivariate_normal

from benchmarks.common.coverage_floor import smallest_width
from benchmarks.common.coverage_page import MIN_COVERAGE, write_page
from orchestrator.evaluation.intervals import (
    LEVEL,
    difference_bounds,
    has_interval,
    macro_f1_bounds,
    score_bounds,
    sign_flip,
)
from orchestrator.evaluation.variance import Components, Groups, components, difference_components, gain_components
from trainers.files.atomic import atomic_write_text
from trainers.metrics import Z_95

RESULTS = Path(__file__).with_suffix(".json")
SEED = 15
DATA_SETS = 2_000
"""Simulated data sets a cell: the standard error of a coverage of 0.95 is 0.005."""
AT_ONCE = 3_000_000
"""Maximum simulated answers in memory at once, per model."""
MIXED = 0
"""A group size that stands for sizes drawn evenly from 1 to 20."""
SHARED = 0.6
"""Share of a photo's and a group's difficulty, on the latent scale, that all networks have in common."""
POLICY_NOISE = 0.05
"""Share of a photo's difficulty that another crop policy draws anew."""
BETTER = 0.02
"""By how much the second configuration is truly better where a difference is covered; at most half of the errors."""
CLASS_SHARES = (0.30, 0.25, 0.20, 0.15, 0.07, 0.03)
"""Shares of the classes for macro F1."""


@dataclass(frozen=True)
class Cell:
    """One setting. ``correlation``: intraclass, of one network's answers in a group. ``deviation``: of the networks'
    true accuracies, as a fraction; at most half of the errors, for no accuracy is above 1."""

    photos: int
    networks: int
    accuracy: float
    group: int
    correlation: float
    deviation: float

    @property
    def deviation_used(self) -> float:
        return min(self.deviation, (1 - self.accuracy) / 2)

    @property
    def better(self) -> float:
        return min(BETTER, (1 - self.accuracy) / 2)

    @property
    def errors(self) -> float:
        """Expected errors of one network."""
        return self.photos * (1 - self.accuracy)


def grid() -> tuple[Cell, ...]:
    """The reported cells, fixed before the first run."""
    photos, accuracies = (100, 380, 1500, 5000), (0.6, 0.9, 0.97, 0.995)
    groups = ((1, 0.0), (5, 0.3), (20, 0.5))
    seeds = ((1, 0.0), (2, 0.01), (3, 0.0), (3, 0.03), (5, 0.01))
    found = [
        Cell(n, s, a, m, icc, sd) for n, a, (m, icc), (s, sd) in itertools.product(photos, accuracies, groups, seeds)
    ]
    fewer = (380, 1500), (0.6, 0.9, 0.97)
    others = ((2, 0.1), (10, 0.1), (20, 0.0), (MIXED, 0.5))
    found += [
        Cell(n, s, a, m, icc, sd)
        for n, a, (m, icc), (s, sd) in itertools.product(*fewer, others, ((1, 0.0), (3, 0.01), (5, 0.03)))
    ]
    found += [
        Cell(n, s, a, 1, 0.0, sd) for n, a, (s, sd) in itertools.product(*fewer, ((2, 0.0), (2, 0.03), (4, 0.005)))
    ]
    return tuple(found)


SMALL = (
    Cell(382, 1, 0.9, 1, 0.0, 0.0),
    Cell(380, 1, 0.9, 4, 0.2, 0.0),
    Cell(380, 3, 0.93, 1, 0.0, 0.0),
    Cell(380, 3, 0.9, 4, 0.2, 0.015),
    Cell(120, 2, 0.9, 1, 0.0, 0.01),
    Cell(60, 3, 0.9, 20, 0.1, 0.0),
)
"""Cells of the quick suite; none is reported."""


@cache
def latent_correlation(correlation: float, accuracy: float) -> float:
    """Correlation of two normals whose being below a threshold has this intraclass correlation."""
    if correlation == 0:
        return 0.0
    bound = ndtri(accuracy)

    def gap(rho: float) -> float:
        both = multivariate_normal.cdf([bound, bound], [0, 0], [[1, rho], [rho, 1]])
        return float((both - accuracy**2) / (accuracy * (1 - accuracy)) - correlation)

    return float(brentq(gap, 1e-6, 0.9999))


@cache
def threshold_deviation(deviation: float, accuracy: float) -> float:
    """Standard deviation tau of the networks' thresholds at which their accuracies have ``deviation``."""
    if deviation == 0:
        return 0.0
    normal = ndtri((np.arange(4000) + 0.5) / 4000)

    def gap(tau: float) -> float:
        return float(ndtr(ndtri(accuracy) * np.sqrt(1 + tau**2) + tau * normal).std() - deviation)

    return float(brentq(gap, 0, 5))


def group_of(cell: Cell) -> np.ndarray:
    """The group of each photo, int (photos,)."""
    if cell.group != MIXED:
        return np.arange(cell.photos) // cell.group
    sizes = np.random.default_rng(SEED).integers(1, 21, cell.photos)
    return np.repeat(np.arange(cell.photos), sizes)[: cell.photos]


@dataclass(frozen=True, eq=False)
class Draws:
    """Correct answers, bool (data sets, networks, photos): ``first``; ``equal``, another configuration as accurate;
    ``better``, one more accurate by ``Cell.better``; ``policy``, ``first``'s networks under an equal policy. Per data
    set and network the true accuracies of the first three."""

    first: np.ndarray
    equal: np.ndarray
    better: np.ndarray
    policy: np.ndarray
    accuracy: np.ndarray
    accuracy_equal: np.ndarray
    accuracy_better: np.ndarray


def draw(cell: Cell, group: np.ndarray, number: int, rng: np.random.Generator) -> Draws:
    """Simulate ``number`` data sets. An answer is right where a standard normal latent is below the network's threshold
    Phi^-1(a) sqrt(1 + tau^2) + tau z, so that the mean accuracy over networks is exactly ``cell.accuracy``."""
    rho, n, s = latent_correlation(cell.correlation, cell.accuracy), cell.photos, cell.networks
    groups = int(group.max()) + 1

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    def level(share: float, rows: int) -> np.ndarray:
        """Photo and group effects of weight ``share`` of the latent variance, (data sets, rows, photos)."""
        found = np.sqrt(np.float32((1 - rho) * share)) * normal(number, rows, n)
        if rho:
            found += np.sqrt(np.float32(rho * share)) * normal(number, rows, groups)[..., group]
        return found

    def threshold(accuracy: float, z: np.ndarray) -> np.ndarray:
        tau = threshold_deviation(cell.deviation_used, accuracy)
        return np.asarray(ndtri(accuracy) * np.sqrt(1 + tau**2) + tau * z, np.float32)

    shared = level(SHARED, 1)
    latent = shared + level(1 - SHARED, s)
    bound = threshold(cell.accuracy, normal(number, s, 1))
    again = np.sqrt(np.float32(1 - POLICY_NOISE)) * latent + level(POLICY_NOISE, s)
    first, policy = latent < bound, again < bound
    latent, z = shared + level(1 - SHARED, s), normal(number, s, 1)
    same, more = threshold(cell.accuracy, z), threshold(cell.accuracy + cell.better, z)
    true = (ndtr(each[..., 0].astype(np.float64)) for each in (bound, same, more))
    return Draws(first, latent < same, latent < more, policy, *true)


def class_of(cell: Cell, group: np.ndarray) -> np.ndarray:
    """The class of each photo, int (photos,): one group a class, the others by ``CLASS_SHARES``, as splits are
    stratified. With fewer groups than classes the last classes are left out."""
    groups, classes = int(group.max()) + 1, len(CLASS_SHARES)
    places = (np.arange(max(groups - classes, 0)) + 0.5) / max(groups - classes, 1)
    others = np.searchsorted(np.cumsum(CLASS_SHARES), places).clip(0, classes - 1)
    return np.asarray(np.r_[np.arange(classes), others][:groups][group], np.int8)


def class_answers(correct: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One network's answers (data sets, photos); a wrong one is any other class, evenly."""
    classes = int(labels.max()) + 1
    other = (labels + rng.integers(1, classes, correct.shape, dtype=np.int8)) % classes
    return np.where(correct, labels, other)


def true_macro_f1(accuracy: np.ndarray, labels: np.ndarray) -> np.ndarray:
    shares = (np.bincount(labels) / len(labels))[:, None]
    predicted = shares * accuracy + (1 - accuracy) / (len(shares) - 1) * (1 - shares)
    return np.asarray((2 * shares * accuracy / (shares + predicted)).mean(axis=0))


@dataclass
class Tally:
    """What one interval did in a cell, chunk by chunk. ``groups``: the effective number of groups with an error or a
    difference of each data set, (sum e^2)^2 / sum e^4; ``variances``: V_P, V_N and V_I, (3, data sets)."""

    name: str
    covered: int = 0
    seen: int = 0
    widths: list[np.ndarray] = dataclasses.field(default_factory=list)
    errors: list[np.ndarray] = dataclasses.field(default_factory=list)
    groups: list[np.ndarray] = dataclasses.field(default_factory=list)
    variances: list[np.ndarray] = dataclasses.field(default_factory=list)
    network_df: float = 0.0

    def add(
        self, bounds: tuple[np.ndarray, np.ndarray], estimate: np.ndarray, truth: np.ndarray | float, parts: Components
    ) -> None:
        low, high = bounds
        squares, self.network_df = parts.deviations**2, parts.network_df
        above, below = squares.sum(-1) ** 2, (squares**2).sum(-1)
        self.groups.append(np.divide(above, below, out=np.zeros_like(above), where=below > 0))
        self.variances.append(np.stack([parts.photos, parts.networks, parts.interaction]))
        self.covered += int(((low <= truth) & (truth <= high)).sum())
        self.seen += len(low)
        self.widths.append(high - low)
        self.errors.append(np.asarray(estimate - truth))

    def facts(self, accuracy: float | None = None) -> dict[str, float]:
        """Coverage, and the median width over that of the best interval that knows the variance V of the estimate:
        Wilson's with the effective size a (1 - a) / V for an ``accuracy``, else +-1.96 sqrt(V)."""
        errors, width = np.concatenate(self.errors), float(np.median(np.concatenate(self.widths)))
        variance = float((errors**2).mean())
        best = 2 * Z_95 * np.sqrt(variance)
        if accuracy is not None and variance > 0:
            c = Z_95**2 * variance / (accuracy * (1 - accuracy))
            x = np.clip(accuracy + errors, 0, 1)
            best = float(np.median(np.sqrt(4 * c * x * (1 - x) + c**2) / (1 + c)))
        # JSON has no infinity; 0 marks a cell where no data set had an error.
        found = {"coverage": self.covered / self.seen, "width": round(width / best, 4) if best > 0 else 0.0}
        found["groups"] = round(float(np.median(np.concatenate(self.groups))), 1)
        return found | ({"floor": self._floor()} if self.network_df else {})

    def _floor(self) -> float:
        """``smallest_width`` for the cell's mean variances, at the coverage of the mark."""
        of_photos, of_networks, shared = np.concatenate(self.variances, axis=1).mean(axis=1).tolist()
        if shared <= 0:
            return 0.0
        deviation = np.sqrt(max(of_networks / shared - 1, 0.0))
        return smallest_width(self.network_df, of_photos / shared, float(deviation), MIN_COVERAGE)


def run_cell(cell: Cell, data_sets: int, seed: Sequence[int]) -> dict[str, Any]:
    """Simulate one cell; interval or test -> its figures, {} where it is withheld."""
    rng, group = np.random.default_rng(seed), group_of(cell)
    groups, labels = Groups.of(group, cell.photos), class_of(cell, group)
    names = ("mean_accuracy", "difference", "equal", "policy", "macro_f1")
    tallies = {name: Tally(name) for name in names}
    false = {"difference": 0, "policy": 0}
    chunk = max(1, min(data_sets, AT_ONCE // (cell.photos * cell.networks)))
    for start in range(0, data_sets, chunk):
        drawn = draw(cell, group, min(chunk, data_sets - start), rng)
        _accuracies(cell, groups, drawn, tallies)
        _differences(cell, groups, drawn, tallies, false)
        figure, *bounds = macro_f1_bounds(labels, class_answers(drawn.first[:, 0], labels, rng), groups)
        truth, hits = true_macro_f1(drawn.accuracy[:, 0], labels), components(drawn.first[:, :1], groups)
        tallies["macro_f1"].add((bounds[0], bounds[1]), figure, truth, hits)
    one, two, same = (has_interval(groups, k) for k in _degrees(cell))
    shown = {"mean_accuracy": one, "difference": two, "equal": two, "policy": same, "macro_f1": has_interval(groups)}
    accuracy = {"mean_accuracy": cell.accuracy}
    found: dict[str, Any] = {n: tallies[n].facts(accuracy.get(n)) if shown[n] else {} for n in names}
    for name, count in false.items():
        if shown[name]:
            found[name]["false_positives"] = count / data_sets
    return dataclasses.asdict(cell) | found


def _degrees(cell: Cell) -> tuple[int, int, int]:
    """Degrees of freedom of the networks: of one configuration, of two, of two policies."""
    return cell.networks - 1, 2 * (cell.networks - 1), cell.networks - 1


def _accuracies(cell: Cell, groups: Groups, drawn: Draws, tallies: dict[str, Tally]) -> None:
    parts = components(drawn.first, groups)
    truth = drawn.accuracy[:, 0] if cell.networks == 1 else cell.accuracy
    tallies["mean_accuracy"].add(score_bounds(parts, groups), parts.mean, truth, parts)


def _differences(cell: Cell, groups: Groups, drawn: Draws, tallies: dict[str, Tally], false: dict[str, int]) -> None:
    parts = difference_components(drawn.first, drawn.better, groups)
    truth = (drawn.accuracy_better - drawn.accuracy)[:, 0] if cell.networks == 1 else cell.better
    tallies["difference"].add(difference_bounds(parts, groups), parts.mean, truth, parts)
    for name, key, parts in (
        ("equal", "difference", difference_components(drawn.first, drawn.equal, groups)),
        ("policy", "policy", gain_components(drawn.first, drawn.policy, groups)),
    ):
        low, high = difference_bounds(parts, groups)
        tallies[name].add((low, high), parts.mean, 0.0, parts)
        false[key] += _false_positives(cell, groups, parts, low, high)


def _false_positives(cell: Cell, groups: Groups, parts: Components, low: np.ndarray, high: np.ndarray) -> int:
    """Count p < 0.05. With several networks p is below it exactly where the interval leaves 0 out."""
    if cell.networks > 1:
        return int(((low > 0) | (high < 0)).sum())
    sums = np.rint(parts.deviations + parts.mean[:, None] * groups.sizes)
    return sum(sign_flip(row) < 1 - LEVEL for row in sums)


def simulate(
    cells: Sequence[Cell], data_sets: int, known: Sequence[dict[str, Any]] = (), processes: int = 1
) -> Iterator[dict[str, Any]]:
    """Yield the figures of each cell that ``known`` lacks, in order; a cell's numbers depend on its place alone."""
    have = {tuple(row[f.name] for f in dataclasses.fields(Cell)) for row in known}
    missing = [(c, data_sets, (SEED, i)) for i, c in enumerate(cells) if dataclasses.astuple(c) not in have]
    if processes == 1:
        yield from itertools.starmap(run_cell, missing)
        return
    with multiprocessing.Pool(processes) as pool:
        yield from pool.imap(_run_one, missing)


def _run_one(asked: tuple[Cell, int, Sequence[int]]) -> dict[str, Any]:
    return run_cell(*asked)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a few cells of 400 data sets, printed")
    parser.add_argument("--cells", type=int, default=len(grid()), help="stop after this many new cells")
    parser.add_argument("--processes", type=int, default=1, help="cells simulated at a time")
    asked = parser.parse_args(arguments)
    if asked.small:
        for row in simulate(SMALL, 400):
            print(json.dumps(row))
        return 0
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    began_s = time.perf_counter()
    for row in itertools.islice(simulate(grid(), DATA_SETS, rows, asked.processes), asked.cells):
        rows.append(row)
        atomic_write_text(RESULTS, "[\n" + ",\n".join(json.dumps(each) for each in rows) + "\n]\n")
    print(f"{len(rows)} of {len(grid())} cells; {time.perf_counter() - began_s:.0f} s in this run")
    if len(rows) == len(grid()):
        write_page(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
