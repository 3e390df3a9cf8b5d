"""The page docs/search-quality.md from rows of figures. Pure: values in, Markdown out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

Interval = tuple[float, float]


@dataclass(frozen=True)
class SamplerRow:
    """Mean regret of ``searches`` by one sampler on one objective, with 95 % intervals.

    ``gain``: how much lower it is than random's with the same seeds. ``wins``: share of the seeds in which it
    beat random. random's own row has no gain.
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
        """What the interval of the difference to random says."""
        if math.isnan(self.gain):
            return ""
        low, high = self.gain_interval
        return "better" if low > 0 else "worse" if high < 0 else "no difference seen"


@dataclass(frozen=True)
class SchedulerRow:
    """``survived`` of ``searches`` ended with the planted best COMPLETED. ``epochs``: spent, as a share of all.

    ``lost``: by how much the true end of the trial that would win lies below the planted best's, on average.
    """

    curves: str
    scheduler: str
    survived: int
    searches: int
    epochs: float
    lost: float


@dataclass(frozen=True)
class Expectation:
    """``verdicts``: those of a row's that agree with what ``source`` says."""

    verdicts: tuple[str, ...]
    source: str


_BETTER = ("better",)
SAMPLER_EXPECTATIONS: Mapping[tuple[str, str], Expectation] = {
    ("bowl", "tpe"): Expectation(_BETTER, "better (Bergstra et al. 2011)"),
    ("bowl", "cmaes"): Expectation(_BETTER, "better on ranges of numbers (Loshchilov & Hutter 2016)"),
    ("bowl", "gp"): Expectation(_BETTER, "better (Snoek et al. 2012)"),
    ("lists", "grid"): Expectation(
        ("no difference seen",), "no better: one learns from neither (Bergstra & Bengio 2012)"
    ),
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
    ("late bloomer", "asha"): "may lose a slow beginner: a longer grace period is the remedy (Li et al. 2020)",
    ("late bloomer", "hyperband"): "hedges: some brackets stop late (Li et al. 2018)",
    ("late bloomer", "median"): "may lose a slow beginner (Golovin et al. 2017)",
}

_REFERENCES = """\
Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization (NeurIPS). Bergstra & Bengio 2012, Random Search for
Hyper-Parameter Optimization (JMLR 13). Snoek et al. 2012, Practical Bayesian Optimization of Machine Learning
Algorithms (NeurIPS). Loshchilov & Hutter 2016, CMA-ES for Hyperparameter Optimization of Deep Neural Networks (arXiv
1604.07269). Golovin et al. 2017, Google Vizier (KDD). Li et al. 2018, Hyperband (JMLR 18). Li et al. 2020, A System for
Massively Parallel Hyperparameter Tuning (MLSys), which is ASHA."""


def wilson(right: int, of: int) -> Interval:
    """The 95 % score interval of a share (Wilson 1927)."""
    interval = binomtest(right, of).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _points(value: float, interval: Interval, signed: bool = False) -> str:
    """A figure and its interval in hundredths."""
    form = "{:+.2f}" if signed else "{:.2f}"
    low, high = (form.format(100 * end) for end in interval)
    return f"{form.format(100 * value)} ({low} to {high})"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sampler_table(rows: Sequence[SamplerRow]) -> str:
    """One line a row, with what the literature leads one to expect."""
    lines = []
    for row in rows:
        expected = SAMPLER_EXPECTATIONS.get((row.objective, row.sampler))
        agrees = "" if expected is None else "yes" if row.verdict in expected.verdicts else "**no**"
        gain = "" if math.isnan(row.gain) else _points(row.gain, row.gain_interval, signed=True)
        wins = "" if math.isnan(row.wins) else f"{100 * row.wins:.0f} %"
        source = expected.source if expected else "the mark"
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
    """One line a row, with what the literature leads one to expect."""
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
    """What the page says about the run itself. ``spaces``: name -> description of each objective."""

    date: str
    command: str
    spaces: Mapping[str, str]
    trials: int
    curve_seeds: int
    curves: int
    epochs: int
    missing: Sequence[str] = ()


def _against(rows: Sequence[SamplerRow]) -> str:
    """The rows that do not agree with the literature, as a sentence."""
    odd = []
    for row in rows:
        expected = SAMPLER_EXPECTATIONS.get((row.objective, row.sampler))
        if expected and row.verdict not in expected.verdicts:
            odd.append(f"{row.sampler} on {row.objective} ({row.verdict})")
    if not odd:
        return "Every row agrees with what was expected."
    return f"Not as expected: {', '.join(odd)}."


def page(samplers: Sequence[SamplerRow], schedulers: Sequence[SchedulerRow], facts: PageFacts) -> str:
    """The whole page."""
    spaces = "\n".join(f"- **{name}**: {description}." for name, description in facts.spaces.items())
    missing = ""
    if facts.missing:
        names = ", ".join(facts.missing)
        missing = f" Not run, for their packages were not installed: {names}."
    return f"""\
# How good the search is

Samplers and schedulers against optima that were planted, so that the truth is known. Written by a program on
{facts.date}; do not edit by hand:

```sh
{facts.command}
```

## Samplers

Each sampler proposes {facts.trials} trials (10 of them random before it begins to learn) through the same `Proposer`
that a sweep uses, as many times as *searches* says, each with a seed of its own. What a trial measures is its true
value plus noise of 0.5 points, as much as 2,000 validation images leave open. *Regret* is how many points the true
value of the trial that measured best lies below the highest in the space; the lower, the better. *Below random's* is
the paired difference to random search with the same seeds: better where its interval (Student's t) lies above 0. Two
trials of one search are never the same configuration, for random too.

{spaces}

{sampler_table(samplers)}

{_against(samplers)}{missing}

## Schedulers

{facts.curves} learning curves of {facts.epochs} epochs, two at once, through the same Ray Tune that a sweep uses,
{facts.curve_seeds} times with different curves. One is the planted best and ends at 95.0; the others end anywhere from
50 to 92. In *orderly* curves the early leader leads at the end. In *late bloomer* the best is among the
slowest, while a third of the others rise three times as quickly. *Lost* is how many points the end of the best
COMPLETED trial lies below the planted best's.

{scheduler_table(schedulers)}

Early stopping trades epochs for the risk to stop a slow beginner. The file's words for it: `scheduler: none` takes no
risk, `grace_epochs` lowers it, `reduction_factor` raises it.

{_REFERENCES}
"""
