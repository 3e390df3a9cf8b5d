"""The winner's folder, its evidence, and the version in the registry, compared with what was judged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from orchestrator.audit.checks import (
    NOT_CHECKABLE,
    UNREADABLE,
    Check,
    JudgedSweep,
    Unreadable,
    compare,
    in_words,
    read_arrays,
    read_manifest,
    read_spec,
    read_table,
)
from orchestrator.errors import OrchError
from orchestrator.ledger.kept import FILES
from orchestrator.ledger.stages import CALIBRATED

TAGS = {"accuracy": "orch.test_accuracy", "accuracy_low": "orch.test_accuracy_low"}
TAGS |= {"accuracy_high": "orch.test_accuracy_high"}
"""Column of the leaderboard -> tag of a registered version, rounded to four decimals."""


def compare_winner(judged: JudgedSweep) -> Iterator[Check]:
    """The winner's folder holds the networks that were judged, and its evidence what they answered."""
    sweep, part = judged.sweep, "winner's folder"
    _, classes = read_manifest(sweep)
    path = sweep.paths.winner / "model.json"
    try:
        described = json.loads(path.read_text())
        found = {name: described[name] for name in ("classes", "policy", "fits", "members")}
    except UNREADABLE as error:
        raise Unreadable(part, sweep.paths.name_of(path), in_words(error)) from error
    fits = list(judged.record["fits"])
    expected = {"classes": classes, "policy": judged.record["judged"]["policy"], "fits": fits, "members": len(fits)}
    for name, value in expected.items():
        yield compare(part, f"model.json: {name}", found[name], value)
    for number, fit in enumerate(fits):
        served = read_arrays(sweep, sweep.paths.winner / f"member-{number}.npz", part)
        trained = read_arrays(sweep, sweep.paths.fit(fit) / "weights.npz", part)
        same = served.keys() == trained.keys() and all(np.array_equal(served[k], trained[k]) for k in trained)
        yield compare(part, f"member-{number}.npz holds the weights of {fit}", True, same)
    yield from _evidence(judged, classes)


def _evidence(judged: JudgedSweep, classes: Sequence[str]) -> Iterator[Check]:
    sweep, part = judged.sweep, "evidence"
    evidence, (table, _) = read_table(sweep, sweep.paths.evidence, part), read_manifest(sweep)
    for column, source in (("sha256", "sha256"), ("role", "split"), ("label", "label")):
        different = _differing(evidence[column].tolist(), table[source].tolist())
        yield compare(part, f"rows with another {column} than the manifest", 0, different)
    policy = judged.record["judged"]["policy"]
    members = [read_arrays(sweep, sweep.paths.probabilities(f, "test", policy), part) for f in judged.record["fits"]]
    mean = np.mean([member["probabilities"].astype(float) for member in members], axis=0)
    test = evidence[evidence["role"] == "test"]
    answers = [classes[i] for i in mean.argmax(1)]
    given = test["predicted"].tolist()
    yield compare(part, "other answers than the probabilities give", 0, _differing(given, answers))
    right = [label == answer for label, answer in zip(test["label"].tolist(), answers, strict=False)]
    yield compare(part, "other marks than the labels give", 0, _differing(test["correct"].tolist(), right))


def _differing(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Count the places in which two lists differ."""
    return sum(a != b for a, b in zip(first, second, strict=False)) + abs(len(first) - len(second))


def compare_champion(judged: JudgedSweep) -> Iterator[Check]:
    """The version that was promoted since the leaderboard has its figures and its files as tags."""
    from orchestrator.tracking import champions, registry

    sweep, part = judged.sweep, "registered version"
    notes = [e.data for e in sweep.events if e.kind == "NOTE" and e.seq > judged.until]
    promoted = [note for note in notes if note.get("promotion") == "champion"]
    if not promoted:
        return
    name, version = promoted[-1]["model"], str(promoted[-1]["version"])
    uri = read_spec(sweep).tracking.uri
    what = f"{name} version {version}"
    try:
        tags = next((v.tags for v in champions.versions(uri, name) if v.version == version), None)
    except OrchError as error:
        yield Check(part, what, NOT_CHECKABLE, reason=str(error))
        return
    if tags is None:
        reason = "MLflow has no such version; is this the folder where it was promoted?"
        yield Check(part, what, NOT_CHECKABLE, reason=reason)
        return
    row = judged.record["winner_row"]
    for column, tag in TAGS.items():
        yield compare(part, f"{what}: {tag}", tags.get(tag, ""), f"{row[column]:.4f}")
    yield compare(part, f"{what}: networks", json.loads(tags.get("orch.fits", "[]")), list(judged.record["fits"]))
    yield compare(part, f"{what}: orch.policy", tags.get("orch.policy", ""), judged.record["judged"]["policy"])
    if registry.TEMPERATURE in tags and CALIBRATED in judged.record:
        temperature = judged.record[CALIBRATED]["temperature"]
        yield compare(part, f"{what}: {registry.TEMPERATURE}", tags[registry.TEMPERATURE], repr(temperature))
    prefix = sweep.paths.name_of(sweep.paths.winner) + "/"
    files = {n.removeprefix(prefix): sha for n, sha in judged.record.get(FILES, {}).items() if n.startswith(prefix)}
    if files and registry.MODEL_SHA256 in tags:
        yield compare(part, f"{what}: files", tags[registry.MODEL_SHA256], registry.model_digest(files))
