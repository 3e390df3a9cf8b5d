"""The data, and the choice of the winner and its crop policy on validation, compared with the ledger."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.audit import figures
from orchestrator.audit.checks import (
    NOT_CHECKABLE,
    Check,
    JudgedSweep,
    compare,
    read_arrays,
    read_manifest,
    read_spec,
    unknown_version,
)
from orchestrator.ledger.segments import Event

if TYPE_CHECKING:
    import pandas as pd


def compare_data(judged: JudgedSweep) -> Iterator[Check]:
    """Compare the manifest with the ledger; no photo and no group is in two splits."""
    sweep = judged.sweep
    table, classes = read_manifest(sweep)
    ended = [e.data for e in sweep.events if (e.kind, e.stage, e.state) == ("STAGE", "data", "ENDED")]
    begun = [e.data for e in sweep.events if (e.kind, e.stage, e.state) == ("STAGE", "data", "BEGUN")]
    if ended and "images" in ended[-1]:
        sizes = {str(split): int(n) for split, n in table["split"].value_counts().items()}
        yield compare("data", "images in each split", ended[-1]["images"], sizes)
        yield compare("data", "classes", ended[-1]["classes"], classes)
    for column in ("sha256", "group"):
        splits = table.groupby(column)["split"].nunique()
        what, torn = "photo" if column == "sha256" else "group", int((splits > 1).sum())
        data, kept = read_spec(sweep).data, any(event.get("keep_splits") for event in begun)
        if torn and (data.splits in ("own", "auto") or data.names_kept_splits or kept):
            reason = f"{torn} are, as the data's own or the kept splits may have it"
            yield Check("data", f"each {what} in two splits", NOT_CHECKABLE, reason=reason)
        else:
            yield compare("data", f"each {what} in two splits", 0, torn)
    yield compare("data", "labels that are no class", 0, int((~table["label"].isin(classes)).sum()))


def choose_again(judged: JudgedSweep) -> Iterator[Check]:
    """Choose the winner and its crop policy again, from the ledger's epochs and the stored probabilities."""
    sweep, part = judged.sweep, "choice of the winner"
    spec = read_spec(sweep)
    table, _ = read_manifest(sweep)
    rows = _completed_trials(judged, spec.budget.epochs, table)
    choose, winner = spec.final.choose, judged.record["judged"]
    order = figures.best_trials(rows, choose.best or spec.objective[0], choose.at_least, choose.at_most)
    yield compare(part, f"best of {len(rows)} trials", winner["trial"], order[0] if order else "none")
    runners_up = [*winner.get("runners_up", [])]
    yield compare(part, "runners-up", runners_up, order[1 : 1 + len(runners_up)])
    yield from _policy(judged, winner)
    yield from _form(judged, winner)


def completed_trials(judged: JudgedSweep) -> int:
    """Return the number of trials from which the winner was chosen."""
    return len(_completed_trials(judged, read_spec(judged.sweep).budget.epochs, read_manifest(judged.sweep)[0]))


def _completed_trials(judged: JudgedSweep, epochs: int, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the trials COMPLETED at full budget before the leaderboard, with the metrics of their last epoch."""
    kept: dict[str, dict[int, Event]] = {}
    folds: dict[str, dict[tuple[int, int], float]] = {}
    states: dict[str, str] = {}
    for event in judged.sweep.events:
        if event.stage != "search" or not event.trial or event.seq > judged.until:
            continue
        if event.kind == "TRIAL":
            states[event.trial] = event.state
            if event.state == "PENDING":
                own = kept.get(event.trial, {})
                kept[event.trial] = {epoch: e for epoch, e in own.items() if epoch <= event.epoch}
        elif event.kind == "EPOCH" and event.fold:
            folds.setdefault(event.trial, {})[event.epoch, event.fold] = event.val_accuracy or math.nan
        elif event.kind == "EPOCH":
            kept.setdefault(event.trial, {})[event.epoch] = event
    found = []
    for trial, own in kept.items():
        if states.get(trial) != "COMPLETED" or len(own) < epochs:
            continue
        last = own[max(own)]
        seconds = [event.seconds for event in own.values() if event.seconds is not None]
        accuracy = _val_accuracy(last, folds.get(trial, {}), table)
        row = {"id": trial, "val_accuracy": accuracy, "seconds": statistics.median(seconds) if seconds else None}
        row |= {name: getattr(last, name) for name in ("val_loss", "val_macro_f1", "images_per_s")}
        if math.isfinite(accuracy):
            found.append(row)
    return found


def _val_accuracy(last: Event, folds: Mapping[tuple[int, int], float], table: pd.DataFrame) -> float:
    """Return correct photos over photos of the split validation, or of all folds."""
    own = {fold: value for (epoch, fold), value in folds.items() if epoch == last.epoch}
    if own:
        sizes = {fold: int((table["fold"] == fold).sum()) for fold in own}
        return sum(round(own[fold] * size) for fold, size in sizes.items()) / sum(sizes.values())
    photos = int((table["split"] == "validation").sum())
    value = math.nan if last.val_accuracy is None else last.val_accuracy
    return round(value * photos) / photos if photos and math.isfinite(value) else value


def _policy(judged: JudgedSweep, winner: Mapping[str, Any]) -> Iterator[Check]:
    sweep, part = judged.sweep, "choice of the crop policy"
    selects = [e.data for e in sweep.events if (e.kind, e.stage) == ("STAGE", "select") and e.seq <= judged.until]
    same = (s for s in reversed(selects) if _choice(s.get("winner") or {}) == _choice(winner))
    scores = next((s.get("policies") for s in same), None)
    if not scores:
        yield Check(part, "scores on validation", NOT_CHECKABLE, reason="the ledger does not hold them")
        return
    correct: dict[str, np.ndarray] = {}
    groups: list[str] = []
    for score in scores:
        stored = read_arrays(sweep, sweep.paths.probabilities(winner["trial"], "validation", score["policy"]), part)
        rows, labels = stored["probabilities"], stored["labels"]
        correct[score["policy"]] = rows.argmax(1) == labels
        groups = _groups(judged, stored)
        right = int(correct[score["policy"]].sum())
        yield compare(part, f"{score['policy']}: correct on validation", score["correct"], right)
        yield compare(part, f"{score['policy']}: photos", score["total"], len(labels))
        loss = figures.log_loss(rows, labels)
        yield compare(part, f"{score['policy']}: log loss", float(score["log_loss"]), loss)
    rule = figures.POLICY_RULES.get(judged.version)
    if rule is None:
        yield Check(part, "policy", NOT_CHECKABLE, reason=unknown_version(judged))
    else:
        yield compare(part, "policy", winner["policy"], rule(scores, correct, groups))


def _form(judged: JudgedSweep, winner: Mapping[str, Any]) -> Iterator[Check]:
    """Choose the winner's form again, if it was chosen, and the ingredients of its soup."""
    sweep, part = judged.sweep, "choice of the form"
    made = [e.data for e in sweep.events if (e.kind, e.stage) == ("STAGE", "forms") and e.seq <= judged.until]
    chosen = next((m for m in reversed(made) if m.get("winner") == winner and "forms" in m), None)
    if chosen is None:
        return
    correct: dict[str, np.ndarray] = {}
    groups: list[str] = []
    scores = [{**score, "policy": score["form"], "crops": score["networks"]} for score in chosen["forms"]]
    for score in scores:
        form, fits = score["form"], chosen["made_of"][score["form"]]["fits"]
        files = [sweep.paths.probabilities(fit, "validation", winner["policy"]) for fit in fits]
        stored = [read_arrays(sweep, file, part) for file in files]
        rows, labels = np.mean([s["probabilities"].astype(float) for s in stored], axis=0), stored[0]["labels"]
        correct[form] = rows.argmax(1) == labels
        groups = _groups(judged, stored[0])
        yield compare(part, f"{form}: networks", score["networks"], len(fits))
        yield compare(part, f"{form}: correct on validation", score["correct"], int(correct[form].sum()))
        yield compare(part, f"{form}: photos", score["total"], len(labels))
        yield compare(part, f"{form}: log loss", float(score["log_loss"]), figures.log_loss(rows, labels))
    rule = figures.POLICY_RULES.get(judged.version)
    if rule is None:
        yield Check(part, "form", NOT_CHECKABLE, reason=unknown_version(judged))
    else:
        yield compare(part, "form", winner["model"], rule(scores, correct, groups))
    best = 0
    for step in chosen["made_of"].get("soup", {}).get("steps", []):
        yield compare(part, f"{step['model']} is in the soup", step["kept"], step["correct"] >= best)
        best = max(best, step["correct"])


def _choice(winner: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what is chosen with the crop policy; the form is chosen later."""
    return winner.get("trial"), winner.get("policy")


def _groups(judged: JudgedSweep, stored: Mapping[str, np.ndarray]) -> list[str]:
    """Return the group of each stored photo, by its hash in the manifest; without hashes each is its own."""
    table, _ = read_manifest(judged.sweep)
    known = dict(zip(table["sha256"], table["group"], strict=True))
    hashes = [str(sha) for sha in stored.get("sha256", range(len(stored["labels"])))]
    return [str(known.get(sha, sha)) for sha in hashes]
