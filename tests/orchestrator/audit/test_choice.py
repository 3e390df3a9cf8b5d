"""Another choice than the ledger's epochs give, and a manifest with a photo in two splits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from orchestrator.audit.audit import leaderboard_record
from orchestrator.audit.checks import DIFFERENT, JudgedSweep
from orchestrator.audit.choice import choose_again, compare_data
from orchestrator.ledger.folder import read_sweep
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from trainers.data.manifest import Manifest
from trainers.metrics import log_loss


def judged(paths: SweepPaths) -> JudgedSweep:
    sweep = read_sweep(paths.root)
    return JudgedSweep(sweep, *leaderboard_record(sweep))


def test_another_trial_than_the_best_is_found(sweep: SweepPaths) -> None:
    found = judged(sweep)
    winner = found.record["judged"]
    other = next(r.id for r in found.sweep.trials if r.id != winner["trial"])
    changed = {**found.record, "judged": {**winner, "trial": other}}
    checks = [c for c in choose_again(replace(found, record=changed)) if c.state == DIFFERENT]
    assert [(c.part, c.recorded, c.computed) for c in checks] == [("choice of the winner", other, winner["trial"])]


def test_trials_after_the_leaderboard_do_not_count(sweep: SweepPaths) -> None:
    found = judged(sweep)
    rows = [c.what for c in choose_again(found) if c.what.startswith("best of")]
    assert rows == ["best of 3 trials"]
    (first,) = (c for c in choose_again(replace(found, until=1)) if c.what.startswith("best of"))
    assert (first.what, first.computed) == ("best of 0 trials", "none")


def test_another_form_than_validation_chooses_is_found(sweep: SweepPaths) -> None:
    """Of two forms that answer alike, the one of one network; of a soup's networks, those that lose no photo."""
    winner = dict(leaderboard_record(read_sweep(sweep.root))[0]["judged"])
    with np.load(sweep.probabilities(winner["trial"], "validation", winner["policy"])) as stored:
        rows, labels = stored["probabilities"].astype(float), stored["labels"]
    score = {"correct": int((rows.argmax(1) == labels).sum()), "total": len(labels), "log_loss": log_loss(rows, labels)}
    forms = [{"form": "ensemble", "networks": 2, **score}, {"form": "soup", "networks": 1, **score}]
    steps = [{"model": f"winner/seed-{i}", "correct": right, "kept": True} for i, right in enumerate((9, 10, 8))]
    made = {"ensemble": {"fits": 2 * [winner["trial"]]}, "soup": {"fits": [winner["trial"]], "steps": steps}}
    different = {}
    for form in ("soup", "ensemble"):
        chosen = {**winner, "model": form}
        with Ledger(sweep.ledger) as ledger:
            record = [e.data for e in ledger.events() if e.stage == "leaderboard" and "judged" in e.data][-1]
            payload = {"winner": chosen, "forms": forms, "made_of": made}
            ledger.append(EventKind.STAGE, stage="forms", state="ENDED", payload=payload)
            more = {"judged": chosen, "statistics": 4}
            ledger.append(EventKind.STAGE, stage="leaderboard", state="ENDED", payload=record | more)
        checks = [c for c in choose_again(judged(sweep)) if c.part == "choice of the form"]
        assert len(checks) == 2 * 4 + 1 + 3
        different[form] = [(c.what, c.recorded, c.computed) for c in checks if c.state == DIFFERENT]
    assert different["soup"] == [("winner/seed-2 is in the soup", "True", "False")]
    assert different["ensemble"] == [("form", "ensemble", "soup"), *different["soup"]]


def test_a_photo_in_two_splits_is_found(sweep: SweepPaths) -> None:
    manifest = Manifest.read(sweep.manifest)
    table = manifest.table.copy()
    train, test = (table.index[table["split"] == split][0] for split in ("train", "test"))
    table.loc[test, "sha256"] = table.loc[train, "sha256"]
    replace(manifest, table=table).write(sweep.manifest)
    wrong = [(c.what, c.computed) for c in compare_data(judged(sweep)) if c.state == DIFFERENT]
    assert wrong == [("each photo in two splits", "1")]
