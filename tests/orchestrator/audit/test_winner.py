"""A winner's folder and tags that are not what was judged, found without checksums."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from orchestrator.audit.audit import audit_sweep
from orchestrator.audit.checks import DIFFERENT, EQUAL, NOT_CHECKABLE, Check
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from orchestrator.tracking import champions
from orchestrator.tracking.registry import ChampionInfo


def differing(sweep: SweepPaths) -> list[str]:
    return [check.what for check in audit_sweep(sweep.root).having(DIFFERENT)]


def test_swapped_classes_are_found(old: SweepPaths) -> None:
    path = old.winner / "model.json"
    described = json.loads(path.read_text())
    described["classes"][:2] = reversed(described["classes"][:2])
    path.write_text(json.dumps(described))
    assert differing(old) == ["model.json: classes"]
    path.write_text("{")
    assert differing(old) == ["winner/model.json"]


def test_other_weights_are_found(old: SweepPaths) -> None:
    shutil.copy(old.winner / "member-0.npz", old.winner / "member-1.npz")
    (what,) = differing(old)
    assert what.startswith("member-1.npz holds the weights of ")


def test_other_evidence_is_found(old: SweepPaths) -> None:
    evidence = pd.read_parquet(old.evidence)
    place = evidence.index[evidence["role"] == "test"][0]
    evidence.loc[place, "correct"] = not evidence.loc[place, "correct"]
    evidence.to_parquet(old.evidence)
    assert differing(old) == ["other marks than the labels give"]


def promoted(sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch, **changes: str) -> list[Check]:
    """The checks of the version that was promoted, whose tags are those of today but for ``changes``."""
    with Ledger(sweep.ledger) as ledger:
        record = [e for e in ledger.events() if e.stage == "leaderboard" and e.state == "ENDED"][-1].data
        note = {"promotion": "champion", "model": "trash", "version": "3", "overridden": []}
        ledger.append(EventKind.NOTE, payload=note)
    row = record["winner_row"]
    tags = {f"orch.test_{name}": f"{row[name]:.4f}" for name in ("accuracy", "accuracy_low", "accuracy_high")}
    tags |= {"orch.fits": json.dumps(record["fits"]), "orch.policy": record["judged"]["policy"]}
    info = ChampionInfo("trash", "3", "run", tags | {f"orch.{name}": value for name, value in changes.items()}, "")
    monkeypatch.setattr(champions, "versions", lambda uri, name: [info])
    return [check for check in audit_sweep(sweep.root).checks if check.part == "registered version"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"test_accuracy": "0.9999"}, ["trash version 3: orch.test_accuracy"]),
        ({"policy": "flip"}, ["trash version 3: orch.policy"]),
        ({"fits": "[]"}, ["trash version 3: networks"]),
        ({"model_sha256": "0" * 64}, ["trash version 3: files"]),
    ],
)
def test_the_tags_of_the_registered_version(
    sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], found: list[str]
) -> None:
    checks = promoted(sweep, monkeypatch, **changes)
    assert [check.what for check in checks if check.state == DIFFERENT] == found
    assert len([check for check in checks if check.state == EQUAL]) >= 4


def test_a_store_that_is_not_there_is_said_and_not_made(old: SweepPaths) -> None:
    with Ledger(old.ledger) as ledger:
        ledger.append(EventKind.NOTE, payload={"promotion": "champion", "model": "trash", "version": "3"})
    (check,) = (check for check in audit_sweep(old.root).checks if check.part == "registered version")
    assert check.state == NOT_CHECKABLE
    assert "MLflow has no such version" in check.reason
