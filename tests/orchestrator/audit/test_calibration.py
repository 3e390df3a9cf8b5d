"""The audit of a winner's temperature and thresholds, as today's leaderboard records them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from orchestrator.audit.audit import audit_sweep
from orchestrator.audit.checks import DIFFERENT, EQUAL, Check
from orchestrator.audit.intervals import INTERVAL_FIGURES
from orchestrator.evaluation.calibration import LabelledAnswers, calibrate, calibration_lines, effect_on_test
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import CALIBRATED
from orchestrator.paths import SweepPaths
from orchestrator.sweep.leaderboard import STATISTICS
from trainers.data.manifest import Manifest

Change = Callable[[dict[str, Any]], None]


def write_calibration(
    sweep: SweepPaths, change: Change = lambda facts: None, version: int = STATISTICS, among: int | None = None
) -> dict[str, Any]:
    """Record the calibration of a sweep that has none, as ``build_leaderboard`` does; ``change``: what is recorded.

    ``among``: as if chosen among so many; default: the completed trials.
    """
    spec = YAML(typ="safe").load(sweep.spec)
    held_out = spec.get("final", {}).get("refit") == "train"
    with Ledger(sweep.ledger) as ledger:
        record = [e.data for e in ledger.events() if e.stage == "leaderboard" and e.state == "ENDED"][-1]
        winner, manifest = record["judged"], Manifest.read(sweep.manifest)
        answers = {}
        asked = record["fits"] if held_out else [winner["trial"]]
        for split, fits in (("validation", asked), ("test", record["fits"])):
            table, rows = manifest.split(split).table, []
            for fit in fits:
                path = sweep.probabilities(fit, split, winner["policy"])
                first = sweep.probabilities(winner["trial"], split, winner["policy"])
                stored = dict(np.load(path if path.is_file() else first))
                np.savez(path, **stored | {"sha256": table["sha256"].to_numpy(str)})
                rows.append(stored["probabilities"].astype(float))
            answers[split] = LabelledAnswers(np.mean(rows, 0), manifest.split(split).labels(), table["group"].tolist())
        ends = [e for e in ledger.events() if e.kind == EventKind.TRIAL and e.stage == "search"]
        trials = among or len({e.trial for e in ends if e.state == "COMPLETED"})
        found, reason = calibrate(answers["validation"], trials)
        facts = found.to_dict() | {"fits": asked, "source": "validation", "reason": reason}
        facts["chosen_among"] = trials
        facts |= effect_on_test(found, answers["test"])
        described = json.loads((sweep.winner / "model.json").read_text())
        (sweep.winner / "model.json").write_text(json.dumps(described | {"calibration": found.to_dict()}))
        with open(sweep.leaderboard_md, "a") as file:
            file.write("\n" + "".join(f"- {line}\n" for line in calibration_lines(facts)))
        evidence = pd.read_parquet(sweep.evidence)
        evidence["probability"] = np.nan
        evidence.loc[evidence["role"] == "test", "probability"] = found.apply(answers["test"].probabilities).max(1)
        evidence.to_parquet(sweep.evidence)
        change(facts)
        payload = record | {CALIBRATED: facts, "statistics": version}
        ledger.append(EventKind.STAGE, stage="leaderboard", state="ENDED", payload=payload)
    return facts


def checks(sweep: SweepPaths) -> list[Check]:
    return [check for check in audit_sweep(sweep.root).checks if check.part == "calibration"]


def differing(sweep: SweepPaths) -> list[str]:
    return [check.what for check in checks(sweep) if check.state == DIFFERENT]


def test_a_sweep_from_before_has_nothing_to_compare(old: SweepPaths) -> None:
    assert checks(old) == []


def test_what_the_leaderboard_records_is_computed_again(old: SweepPaths) -> None:
    facts = write_calibration(old)
    assert facts["temperature"] != 1
    assert len(facts["levels"]) > 1
    found = checks(old)
    assert [check.sentence() for check in found if check.state != EQUAL] == []
    assert len(found) > 30
    others = {check.what.split()[-1] for check in audit_sweep(old.root).having(DIFFERENT)}
    assert others <= {*INTERVAL_FIGURES}  # those of the rows are of version 1


@pytest.mark.parametrize(
    ("version", "among", "found"),
    [
        (STATISTICS, None, []),
        (STATISTICS, 1, ["trials that it was chosen among"]),
        (3, 1, []),
        (3, None, ["trials that it was chosen among"]),
    ],
)
def test_networks_that_did_not_train_on_validation_were_chosen_there_too(
    old: SweepPaths, version: int, among: int | None, found: list[str]
) -> None:
    """Version 3 of the statistics took them for chosen elsewhere: its thresholds are checked as they were made."""
    spec = YAML(typ="safe").load(old.spec)
    spec["final"] = {**spec.get("final", {}), "refit": "train"}
    YAML(typ="safe").dump(spec, old.spec)
    assert write_calibration(old, version=version, among=among)["levels"]
    assert differing(old) == found


def doubled(name: str) -> Change:
    def change(facts: dict[str, Any]) -> None:
        facts[name] *= 1 + 1e-5

    return change


def raise_bound(facts: dict[str, Any]) -> None:
    facts["levels"][-1]["lower"] += 1e-5


def lower_threshold(facts: dict[str, Any]) -> None:
    facts["wanted"][0]["threshold"] = 0.123


def praise(facts: dict[str, Any]) -> None:
    facts["after"]["ece"] /= 1.01


def answer_more(facts: dict[str, Any]) -> None:
    facts["wanted"][0]["photos"] += 1


def ask_the_final_networks(facts: dict[str, Any]) -> None:
    facts["fits"] = ["other"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (doubled("temperature"), "temperature"),
        (doubled("highest"), "highest precision in reach"),
        (raise_bound, ": lower"),
        (lower_threshold, "precision 0.8 wanted: threshold"),
        (praise, "after the temperature: ece"),
        (answer_more, "precision 0.8 wanted: photos"),
        (ask_the_final_networks, "networks that it was fitted on"),
    ],
)
def test_a_changed_record_is_found(old: SweepPaths, change: Change, what: str) -> None:
    write_calibration(old, change)
    assert any(name.endswith(what) for name in differing(old))


def test_another_temperature_in_the_served_model_is_found(old: SweepPaths) -> None:
    write_calibration(old)
    described = json.loads((old.winner / "model.json").read_text())
    described["calibration"]["temperature"] *= 1.01
    (old.winner / "model.json").write_text(json.dumps(described))
    assert differing(old) == ["model.json: temperature"]
    del described["calibration"]
    (old.winner / "model.json").write_text(json.dumps(described))
    assert differing(old) == ["model.json, leaderboard.md"]


def test_evidence_before_calibration_is_found(old: SweepPaths) -> None:
    write_calibration(old)
    evidence = pd.read_parquet(old.evidence)
    evidence["probability"] *= 0.999
    evidence.to_parquet(old.evidence)
    assert differing(old) == ["evidence: largest change of a probability"]


def test_probabilities_of_other_photos_are_found(old: SweepPaths) -> None:
    facts = write_calibration(old)
    policy = [e.data for e in _events(old) if CALIBRATED in e.data][-1]["judged"]["policy"]
    path = old.probabilities(facts["fits"][0], "validation", policy)
    stored = dict(np.load(path))
    np.savez(path, **stored | {"sha256": stored["sha256"][::-1].copy() + "x"})
    assert any("is not of the manifest's validation photos" in c.reason for c in checks(old) if c.state == DIFFERENT)


def _events(sweep: SweepPaths) -> list[Any]:
    with Ledger(sweep.ledger) as ledger:
        return [event for event in ledger.events() if event.stage == "leaderboard"]


def test_a_file_that_has_two_labels_counts_under_both(old: SweepPaths) -> None:
    manifest = Manifest.read(old.manifest)
    table = manifest.table
    validation = table.index[table["split"] == "validation"]
    other = next(place for place in validation if table.loc[place, "label"] != table.loc[validation[0], "label"])
    table.loc[other, "sha256"] = table.loc[validation[0], "sha256"]
    replace(manifest, table=table).write(old.manifest)
    write_calibration(old)
    assert differing(old) == []
