"""What ledgers up to 42b062d hold, read in today's form."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from orchestrator.ledger.compat import upgrade
from orchestrator.ledger.segments import Event, EventKind, read_events, write_segment
from orchestrator.ledger.stages import Stage

OLD_PLAN = {
    "plan": {"name": "old", "stages": {"start": 1.0, "build": 2.0, "total": 3.0}, "unshared": {"build": 4.0}},
    "share": True,
}


def row(stage: str, payload: object) -> dict[str, object]:
    return asdict(Event(seq=1, time_s=0.0, kind=EventKind.NOTE, stage=stage, payload=json.dumps(payload)))


def test_a_build_is_a_prefill() -> None:
    assert upgrade(row("build", {"for": "t"})) == row("prefill", {"for": "t"})


def test_a_plan_keeps_the_order_of_its_stages() -> None:
    plan = json.loads(str(upgrade(row("plan", OLD_PLAN))["payload"]))["plan"]
    assert plan["unshared"] == {"prefill": 4.0}
    assert plan["stages"] == {"start": 1.0, "prefill": 2.0, "total": 3.0}


def test_a_comparison_with_the_plan_names_the_prefill() -> None:
    old = {"compared": [{"stage": "build", "actual_s": 1.0}, {"stage": "search", "actual_s": 2.0}], "processes": 1}
    new = json.loads(str(upgrade(row("plan", old))["payload"]))
    assert [line["stage"] for line in new["compared"]] == ["prefill", "search"]
    assert new["processes"] == 1


def test_what_is_written_today_is_not_touched() -> None:
    for stage in Stage:
        today = row(stage, {"text": 'a "build" of something'} if stage != Stage.PLAN else {"planning_s": 1.0})
        assert upgrade(today) is today


def test_a_segment_is_read_in_todays_form(tmp_path: Path) -> None:
    write_segment(tmp_path, [Event(seq=1, time_s=0.0, kind="STAGE", stage="build", state="ENDED")])
    assert [event.stage for event in read_events(tmp_path)] == [Stage.PREFILL]


@pytest.mark.parametrize(("model", "fits"), [("winner/ensemble", ["a", "b"]), ("winner/seed-1", ["b"])])
def test_a_leaderboard_names_the_winners_networks(model: str, fits: list[str]) -> None:
    names = ("winner/seed-0", "a"), ("winner/seed-1", "b"), ("runner-up-1/seed-0", "c")
    models = [{"model": name, "fit": fit, "configuration": ""} for name, fit in names]
    old = {"winner_row": {"model": model}, "judged": {"trial": "t"}, "models": models}
    new = json.loads(str(upgrade(row("leaderboard", old))["payload"]))
    assert new == {**old, "fits": fits}
