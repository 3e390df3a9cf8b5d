"""The winner's temperature and thresholds fitted again on stored validation probabilities, and their effect on test."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.audit import figures as formulas
from orchestrator.audit.checks import (
    NOT_CHECKABLE,
    UNREADABLE,
    Check,
    JudgedSweep,
    Unreadable,
    compare,
    groups_of_test,
    in_words,
    labels_of_test,
    number,
    read_arrays,
    read_manifest,
    read_spec,
    read_table,
    unknown_version,
    winner_on_test,
)
from orchestrator.audit.choice import completed_trials
from orchestrator.ledger.stages import CALIBRATED

PART = "calibration"
LEAST, LOWEST_T, HIGHEST_T = 1e-30, 0.1, 10.0
OBJECTS_FOR_T, TENTHS, RISK = 50, 10, 0.05
CHOSEN_EITHER_WAY = 4
"""First version of the statistics in which final networks that did not train on validation count as chosen there."""


@dataclass(frozen=True, eq=False)
class _Answers:
    """Mean probabilities of some networks, (photos, classes); labels, int (photos,); groups."""

    rows: np.ndarray
    labels: np.ndarray
    groups: Sequence[str]

    @property
    def hits(self) -> np.ndarray:
        return np.asarray(self.rows.argmax(axis=1) == self.labels)


def compare_calibration(judged: JudgedSweep) -> Iterator[Check]:
    """Compare what the leaderboard recorded of its winner's calibration; nothing for sweeps from before it."""
    facts = judged.record.get(CALIBRATED)
    if facts is None:
        return
    yield compare(PART, "networks that it was fitted on", list(facts["fits"]), _expected_fits(judged))
    validation = _validation(judged, facts)
    temperature = 1.0 if validation is None else _temperature(validation)
    yield compare(PART, "temperature", float(facts["temperature"]), temperature)
    chosen_among = int(facts.get("chosen_among", 1))
    trials = 1 if _is_held_out(judged) and judged.version < CHOSEN_EITHER_WAY else max(completed_trials(judged), 1)
    yield compare(PART, "trials that it was chosen among", chosen_among, trials)
    levels = [] if validation is None else _levels(validation, temperature, RISK / max(chosen_among, 1))
    yield compare(PART, "thresholds", len(facts["levels"]), len(levels))
    for recorded, computed in zip(facts["levels"], levels, strict=False):
        for name, value in computed.items():
            what = f"threshold {recorded['threshold']:.3f}: {name}"
            yield compare(PART, what, float(recorded[name]), value)
    yield from _on_test(judged, facts, temperature, levels)
    yield from _served(judged, facts)


def _expected_fits(judged: JudgedSweep) -> list[str]:
    """The final networks if they have not trained on the validation photos, else the winning trial."""
    return list(judged.record["fits"]) if _is_held_out(judged) else [judged.record["judged"]["trial"]]


def _is_held_out(judged: JudgedSweep) -> bool:
    spec = read_spec(judged.sweep)
    return spec.final.refit == "train" and not spec.data.folds


def _validation(judged: JudgedSweep, facts: Mapping[str, Any]) -> _Answers | None:
    sweep, policy = judged.sweep, judged.record["judged"]["policy"]
    table, classes = read_manifest(sweep)
    judged_on = table["fold"].notna() & (table["split"] == "train") if read_spec(sweep).data.folds else None
    rows = table[table["split"] == "validation" if judged_on is None else judged_on]
    if not len(rows):
        return None
    stored = [read_arrays(sweep, sweep.paths.probabilities(fit, "validation", policy), PART) for fit in facts["fits"]]
    known: dict[str, list[tuple[int, str]]] = {}  # the same bytes may occur twice, also with two labels
    for sha, label, group in rows[["sha256", "label", "group"]].to_numpy():
        known.setdefault(str(sha), []).append((classes.index(label), str(group)))
    hashes = [str(sha) for sha in stored[0]["sha256"]]
    if sorted(hashes) != sorted(rows["sha256"]) or any(s["sha256"].tolist() != hashes for s in stored):
        name = sweep.paths.name_of(sweep.paths.probabilities(facts["fits"][0], "validation", policy))
        raise Unreadable(PART, name, "is not of the manifest's validation photos")
    mean = np.mean([s["probabilities"].astype(float) for s in stored], axis=0)
    photos = [known[sha].pop(0) for sha in hashes]
    return _Answers(mean, np.array([label for label, _ in photos]), [group for _, group in photos])


def _temperature(validation: _Answers) -> float:
    """Guo et al. 2017, section 4.2, for averaged probabilities: where the slope of the likelihood in 1/T is 0."""
    from scipy.optimize import brentq

    if len({*validation.groups}) < OBJECTS_FOR_T or validation.hits.all():
        return 1.0
    logs = np.log(np.clip(validation.rows, LEAST, None))

    def slope(inverse: float) -> float:
        total = 0.0
        for row, label in zip(logs, validation.labels.tolist(), strict=True):
            weights = np.exp(inverse * (row - row.max()))
            total += float(weights @ row / weights.sum() - row[label])
        return total

    if slope(1 / HIGHEST_T) >= 0:
        return HIGHEST_T
    if slope(1 / LOWEST_T) <= 0:
        return LOWEST_T
    return 1 / float(brentq(slope, 1 / HIGHEST_T, 1 / LOWEST_T, xtol=1e-13, rtol=1e-14))


def _warmed(rows: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.clip(rows.astype(float), LEAST, None) ** (1 / temperature)
    scaled = powers / powers.sum(axis=1, keepdims=True)
    return rows.astype(float) if temperature == 1 else scaled


def _levels(validation: _Answers, temperature: float, risk: float) -> list[dict[str, float]]:
    """Return the thresholds of fixed sequence testing (docs/statistics.md), by falling coverage."""
    from scipy.stats import beta

    sure = np.round(_warmed(validation.rows, temperature).max(axis=1), 12)
    order = sorted(sure, reverse=True)
    tried: list[dict[str, float]] = []
    with_one_mistake: list[float] = []
    for tenths in range(1, TENTHS + 1):
        least = order[-(-tenths * len(sure) // TENTHS) - 1] if tenths < TENTHS else 0.0
        chosen = [i for i, value in enumerate(sure) if value >= least]
        share = sum(bool(validation.hits[i]) for i in chosen) / len(chosen)
        sizes: dict[str, int] = {}
        for i in chosen:
            sizes[validation.groups[i]] = sizes.get(validation.groups[i], 0) + 1
        photos = len(chosen) ** 2 / sum(size**2 for size in sizes.values())
        bounds = [float(beta.ppf(risk, x, photos - x + 1)) if x > 0 else 0.0 for x in (share * photos, photos - 1)]
        tried.append({"threshold": float(least), "coverage": len(chosen) / len(sure), "precision": share})
        tried[-1]["lower"] = bounds[0]
        with_one_mistake.append(bounds[1])
    found: dict[float, dict[str, float]] = {}
    for wanted in sorted(level["lower"] for level in tried):
        at = min((i for i in range(TENTHS) if with_one_mistake[i] >= wanted), default=TENTHS - 1)
        chosen_level = None
        while at < TENTHS and tried[at]["lower"] >= wanted:
            chosen_level, at = tried[at], at + 1
        if chosen_level is not None:
            found[chosen_level["threshold"]] = chosen_level | {"lower": wanted}
    return [found[threshold] for threshold in sorted(found)]


def _on_test(
    judged: JudgedSweep, facts: Mapping[str, Any], temperature: float, levels: Sequence[Mapping[str, float]]
) -> Iterator[Check]:
    sweep, rows = judged.sweep, winner_on_test(judged, PART)
    _, classes = read_manifest(sweep)
    test = _Answers(rows, labels_of_test(sweep, classes), groups_of_test(sweep))
    after, statistics = _warmed(rows, temperature), formulas.STATISTICS.get(judged.version)
    for moment, given in (("before", rows), ("after", after)):
        computed = formulas.point_figures(given, given, test.labels, 0.0)
        computed |= statistics(given, given, test.labels, test.groups) if statistics else {}
        for name, recorded in facts[moment].items():
            if name in computed:
                yield compare(PART, f"{moment} the temperature: {name}", number(recorded), computed[name])
    if statistics is None:
        yield Check(PART, "intervals on test", NOT_CHECKABLE, reason=unknown_version(judged))
    highest = max((level["lower"] for level in levels), default=0.0)
    yield compare(PART, "highest precision in reach", float(facts["highest"]), highest)
    for recorded in facts["wanted"]:
        reaching = [level["threshold"] for level in levels if level["lower"] >= recorded["precision"]]
        expected: dict[str, Any] = {"threshold": min(reaching, default=None)}
        chosen = np.round(after.max(axis=1), 12) >= min(reaching, default=math.inf)
        if reaching:
            expected |= {"photos": float(chosen.sum()), "coverage": float(chosen.mean())}
        if chosen.any():
            expected["precision_on_test"] = float(test.hits[chosen].mean())
            groups = [group for group, is_chosen in zip(test.groups, chosen, strict=True) if is_chosen]
            bounds = statistics(rows[chosen], rows[chosen], test.labels[chosen], groups) if statistics else {}
            expected |= {name: bounds[f"accuracy_{name}"] for name in ("low", "high") if bounds}
        for name, value in expected.items():
            what = f"precision {recorded['precision']:g} wanted: {name}"
            yield compare(PART, what, number(recorded.get(name)), number(value))
    evidence = read_table(sweep, sweep.paths.evidence, PART)
    given = evidence.loc[evidence["role"] == "test", "probability"].to_numpy(float)
    changed = np.abs(given - after.max(axis=1)).max() if given.shape == test.labels.shape else math.inf
    yield compare(PART, "evidence: largest change of a probability", 0.0, float(changed))


def _served(judged: JudgedSweep, facts: Mapping[str, Any]) -> Iterator[Check]:
    """The winner's folder and the Markdown file have the recorded temperature."""
    paths = judged.sweep.paths
    try:
        served = json.loads((paths.winner / "model.json").read_text())["calibration"]
        text = paths.leaderboard_md.read_text(encoding="utf-8")
    except UNREADABLE as error:
        raise Unreadable(PART, "model.json, leaderboard.md", in_words(error)) from error
    for name in ("temperature", "levels", "photos"):
        yield compare(PART, f"model.json: {name}", facts[name], served[name])
    if not facts["reason"]:
        shown = f"Temperature {facts['temperature']:.3f},"
        yield compare(PART, f"leaderboard.md: {shown}", True, shown in text)
