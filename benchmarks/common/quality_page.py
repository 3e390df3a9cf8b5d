"""Format docs/search-quality.md from rows of figures. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

Interval = tuple[float, float]


@dataclass(frozen=True)
class SamplerRow:
    """Mean regret over ``searches`` of one sampler on one objective, with 95 % intervals.

    ``gain``: mean regret of random search with the same seeds, minus this one. ``wins``: share of seeds in which it
    beats random search. The row of random search has no gain.
    """

    objective: str
    sampler: str
    searches: int
    regret: float
    regret_interval: Interval
    gain: float = math.nan
    gain_interval: Interval = (math.nan, math.nan)
    wins: float = math.nan

    @property
    def verdict(self) -> str:
        """Verdict from the interval of the difference to random search; "" for random search."""
        if math.isnan(self.gain):
            return ""
        low, high = self.gain_interval
        return "better" if low > 0 else "worse" if high < 0 else "no difference seen"


@dataclass(frozen=True)
class SchedulerRow:
    """Results of one scheduler on one kind of curves.

    ``survived``: searches, of ``searches``, in which the planted best was COMPLETED. ``epochs``: share of all epochs
    spent. ``lost``: mean of the planted best's true end minus that of the trial that would win.
    """

    curves: str
    scheduler: str
    survived: int
    searches: int
    epochs: float
    lost: float


@dataclass(frozen=True)
class Expectation:
    """``verdicts``: verdicts of a row that agree with ``source``."""

    verdicts: tuple[str, ...]
    source: str


_BETTER = ("better",)
SAMPLER_EXPECTATIONS: Mapping[tuple[str, str], Expectation] = {
    ("bowl", "tpe"): Expectation(_BETTER, "better (Bergstra et al. 2011)"),
    ("bowl", "cmaes"): Expectation(_BETTER, "better on numeric ranges (Loshchilov & Hutter 2016)"),
    ("bowl", "gp"): Expectation(_BETTER, "better (Snoek et al. 2012)"),
    ("lists", "grid"): Expectation(("no difference seen",), "no better: neither learns (Bergstra & Bengio 2012)"),
    ("lists", "tpe"): Expectation(_BETTER, "better (Bergstra et al. 2011)"),
    ("lists", "gp"): Expectation(_BETTER, "better (Snoek et al. 2012)"),
    ("conditional", "tpe"): Expectation(_BETTER, "better on conditional spaces (Bergstra et al. 2011)"),
}

SCHEDULER_EXPECTATIONS: Mapping[tuple[str, str], str] = {
    ("orderly", "none"): "keeps the best, spends everything",
    ("orderly", "asha"): "keeps the best at a fraction of the epochs (Li et al. 2020)",
    ("orderly", "hyperband"): "keeps the best, spends more than asha (Li et al. 2018)",
    ("orderly", "median"): "keeps the best, saves less (Golovin et al. 2017)",
    ("late bloomer", "none"): "keeps the best, spends everything",
    ("late bloomer", "asha"): "may lose a slow starter: a longer grace period is the remedy (Li et al. 2020)",
    ("late bloomer", "hyperband"): "hedges: some brackets stop late (Li et al. 2018)",
    ("late bloomer", "median"): "may lose a slow starter (Golovin et al. 2017)",
}

_REFERENCES = """\
Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization (NeurIPS). Bergstra & Bengio 2012, Random Search for
Hyper-Parameter Optimization (JMLR 13). Snoek et al. 2012, Practical Bayesian Optimization of Machine Learning
Algorithms (NeurIPS). Loshchilov & Hutter 2016, CMA-ES for Hyperparameter Optimization of Deep Neural Networks (arXiv
1604.07269). Golovin et al. 2017, Google Vizier (KDD). Li et al. 2018, Hyperband (JMLR 18). Li et al. 2020, A System for
Massively Parallel Hyperparameter Tuning (MLSys), which is ASHA."""


def wilson(right: int, of: int) -> Interval:
    """Return the 95 % score interval of a share (Wilson 1927)."""
    interval = binomtest(right, of).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _points(value: float, interval: Interval, signed: bool = False) -> str:
    """Format a figure and its interval in points (hundredths)."""
    form = "{:+.2f}" if signed else "{:.2f}"
    low, high = (form.format(100 * end) for end in interval)
    return f"{form.format(100 * value)} ({low} to {high})"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sampler_table(rows: Sequence[SamplerRow]) -> str:
    """Return the table: one line per row, with the expectation from the literature."""
    lines = []
    for row in rows:
        expected = SAMPLER_EXPECTATIONS.get((row.objective, row.sampler))
        agrees = "" if expected is None else "yes" if row.verdict in expected.verdicts else "**no**"
        gain = "" if math.isnan(row.gain) else _points(row.gain, row.gain_interval, signed=True)
        wins = "" if math.isnan(row.wins) else f"{100 * row.wins:.0f} %"
        source = expected.source if expected else "the reference"
        regret = _points(row.regret, row.regret_interval)
        lines.append([row.objective, row.sampler, str(row.searches), regret, gain, wins, row.verdict, source, agrees])
    header = [
        "objective",
        "sampler",
        "searches",
        "regret, points (95 %)",
        "below random's (95 %)",
        "seeds won",
        "verdict",
    ]
    return _table([*header, "expected", "agrees"], lines)


def scheduler_table(rows: Sequence[SchedulerRow]) -> str:
    """Return the table: one line per row, with the expectation from the literature."""
    lines = []
    for row in rows:
        low, high = wilson(row.survived, row.searches)
        kept = f"{row.survived} of {row.searches} ({100 * low:.0f} to {100 * high:.0f} %)"
        expected = SCHEDULER_EXPECTATIONS.get((row.curves, row.scheduler), "")
        lines.append([row.curves, row.scheduler, kept, f"{100 * row.epochs:.0f} %", f"{100 * row.lost:.2f}", expected])
    header = ["curves", "scheduler", "the best survived (95 %)", "epochs spent", "lost, points", "expected"]
    return _table(header, lines)


@dataclass(frozen=True)
class PageFacts:
    """Facts about the run. ``spaces``: name -> description of each objective."""

    date: str
    command: str
    spaces: Mapping[str, str]
    trials: int
    curve_seeds: int
    curves: int
    epochs: int
    missing: Sequence[str] = ()


def _against(rows: Sequence[SamplerRow]) -> str:
    """Return a sentence about the rows that disagree with the literature."""
    odd = []
    for row in rows:
        expected = SAMPLER_EXPECTATIONS.get((row.objective, row.sampler))
        if expected and row.verdict not in expected.verdicts:
            odd.append(f"{row.sampler} on {row.objective} ({row.verdict})")
    if not odd:
        return "Every row agrees with what was expected."
    return f"Not as expected: {', '.join(odd)}."


def page(samplers: Sequence[SamplerRow], schedulers: Sequence[SchedulerRow], facts: PageFacts) -> str:
    """Return the page as Markdown."""
    spaces = "\n".join(f"- **{name}**: {description}." for name, description in facts.spaces.items())
    missing = ""
    if facts.missing:
        names = ", ".join(facts.missing)
        missing = f" Not run, because their packages are not installed: {names}."
    return f"""\
# How good the search is

Samplers and schedulers are run against planted optima, so that the true best is known. Generated on {facts.date}; do
not edit by hand:

```sh
{facts.command}
```

## Samplers

Each sampler proposes {facts.trials} trials (the first 10 at random) through the same `OptunaSampler` that a sweep
uses. *Searches* is the number of repetitions, each with its own seed. A trial measures its true value plus noise with
a standard deviation of 0.5 points, that of 2,000 validation images. *Regret* is the distance, in points, from the
highest value in the space down to the true value of the trial that measured best; lower is better. *Below random's*
is the paired difference to random search with the same seeds; the verdict is *better* if its interval (Student's t)
lies above 0. The trials of a search are all distinct, also with random search.

{spaces}

{sampler_table(samplers)}

{_against(samplers)}{missing}

## Schedulers

{facts.curves} learning curves of {facts.epochs} epochs, two at a time, run through the same Ray Tune set-up that a
sweep uses, {facts.curve_seeds} times with different curves. One is the planted best and ends at 95.0; the others end
anywhere from 50 to 92. In *orderly* curves, a trial that is ahead early is ahead at the end. In *late bloomer*, the
best is among the slowest, while a third of the others rise three times as quickly. *Lost* is the distance, in points,
from the end of the planted best down to that of the best COMPLETED trial.

{scheduler_table(schedulers)}

Early stopping saves epochs at the risk of stopping a slow starter. In the file, `scheduler: none` avoids the risk,
`grace_epochs` lowers it, and `reduction_factor` raises it.

{_REFERENCES}
"""
