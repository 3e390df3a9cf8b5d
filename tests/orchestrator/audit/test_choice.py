"""Another choice than the ledger's epochs give, and a manifest with a photo in two splits."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.audit.audit import leaderboard_record
from orchestrator.audit.checks import DIFFERENT, JudgedSweep
from orchestrator.audit.choice import choose_again, compare_data
from orchestrator.ledger.folder import read_sweep
from orchestrator.paths import SweepPaths
from trainers.data.manifest import Manifest


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


def test_a_photo_in_two_splits_is_found(sweep: SweepPaths) -> None:
    manifest = Manifest.read(sweep.manifest)
    table = manifest.table.copy()
    train, test = (table.index[table["split"] == split][0] for split in ("train", "test"))
    table.loc[test, "sha256"] = table.loc[train, "sha256"]
    replace(manifest, table=table).write(sweep.manifest)
    wrong = [(c.what, c.computed) for c in compare_data(judged(sweep)) if c.state == DIFFERENT]
    assert wrong == [("each photo in two splits", "1")]
