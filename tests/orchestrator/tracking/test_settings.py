"""The tracking section of a sweep's file reaches MLflow unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orchestrator.paths import SweepPaths
from orchestrator.spec.dump import dump_spec
from orchestrator.spec.load import load_spec
from orchestrator.tracking.settings import tracking_settings
from orchestrator.tracking.tracker import synchronise
from tests.support.tracked_sweep import all_runs


def test_texts_that_yaml_1_1_takes_for_something_else_arrive_as_they_are(
    sweep: SweepPaths, store: str, tmp_path: Path
) -> None:
    tags = {"team": "off", "night": "yes", "day": "2026-11-24", "at": "12:30", "cost": "${HOME}"}
    file = tmp_path / "words.yaml"
    file.write_text(
        "name: on\ndata: {source: 'builtin:digits'}\nweights: none\nsearch: {backbone: small_cnn}\n"
        "budget: {trials: 1, epochs: 1}\n"
        "tracking: {experiment: no, tags: {team: off, night: yes, day: 2026-11-24, at: '12:30', cost: '$${HOME}'}}\n"
    )
    spec = load_spec(str(file))
    sweep.spec.write_text(dump_spec(spec))
    asked = tracking_settings(spec)
    assert (asked.experiment, asked.tags) == ("no", tags)

    synchronise(sweep.root, replace(asked, uri=store))

    parent = all_runs(store, "no")[""].data
    assert (parent.params["name"], parent.params["tracking.experiment"]) == ("on", "no")
    assert {name: parent.params[f"tracking.tags.{name}"] for name in tags} == tags
    assert {name: parent.tags[name] for name in tags} == tags
