"""What each stage took, from a ledger's events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.plan.stage_times import STAGES, actual
from tests.support.sweep_on_disk import write_sweep


def events(*rows: tuple[float, EventKind, dict[str, Any]]) -> list[Event]:
    found = []
    for number, (time_s, kind, values) in enumerate(rows, start=1):
        payload = json.dumps(values.pop("payload", {}))
        found.append(Event(seq=number, time_s=time_s, kind=str(kind), payload=payload, **values))
    return found


def whole_sweep(begun_s: float = 0.0) -> list[tuple[float, EventKind, dict[str, Any]]]:
    """Ray and workers take 10 s during 3 s of data; a prefill of 20 s, one trial, a refit, a leaderboard."""
    sweep, stage, trial, epoch = EventKind.SWEEP, EventKind.STAGE, EventKind.TRIAL, EventKind.EPOCH
    build = {"what": "x", "decode_s": 5.0, "prefix_s": 12.0, "waited_s": 3.0, "seconds": 20.0, "for": "t"}
    rows = [
        (0.0, sweep, {"state": "RUNNING"}),
        (3.0, stage, {"stage": "data", "state": "ENDED"}),
        (7.0, stage, {"stage": "search", "state": "BEGUN"}),
        (7.5, trial, {"stage": "search", "trial": "t", "state": "PENDING"}),
        (33.0, stage, {"stage": "prefill", "state": "ENDED", "payload": build}),
        (40.0, epoch, {"stage": "search", "trial": "t", "epoch": 1, "seconds": 2.0}),
        (41.0, trial, {"stage": "search", "trial": "t", "state": "COMPLETED"}),
        (41.0, stage, {"stage": "search", "state": "ENDED"}),
        (50.0, stage, {"stage": "select", "state": "ENDED"}),
        (50.0, stage, {"stage": "refit", "state": "BEGUN"}),
        (70.0, epoch, {"stage": "refit", "trial": "r", "epoch": 1, "seconds": 2.0}),
        (71.0, stage, {"stage": "refit", "state": "ENDED"}),
        (72.0, stage, {"stage": "leaderboard", "state": "BEGUN"}),
        (91.0, stage, {"stage": "leaderboard", "state": "ENDED"}),
        (91.0, sweep, {"state": "FINISHED"}),
    ]
    return [(begun_s + time_s, kind, dict(values)) for time_s, kind, values in rows]


def test_an_export_or_a_promotion_after_the_end_is_no_stage() -> None:
    later = [
        (1000.0, EventKind.STAGE, {"stage": "export", "state": "BEGUN"}),
        (1090.0, EventKind.STAGE, {"stage": "export", "state": "ENDED"}),
        (1200.0, EventKind.NOTE, {"payload": {"promotion": "champion"}}),
    ]
    again = [(2000.0, EventKind.SWEEP, {"state": "RUNNING"}), (2001.0, EventKind.SWEEP, {"state": "FINISHED"})]
    times = actual(events(*whole_sweep(), *later, *again))
    assert times.processes == 2
    assert times.seconds["leaderboard"] == 20.0
    assert times.total_s == 92.0


def test_every_second_of_a_sweep_belongs_to_one_stage() -> None:
    times = actual(events(*whole_sweep()))
    assert times.seconds == {
        "start": 10.0,
        "data": 3.0,
        "search": 28.0,
        "select": 9.0,
        "refit": 21.0,
        "leaderboard": 20.0,
    }
    assert tuple(times.seconds) == tuple(stage for stage in STAGES if stage != "plan")
    assert times.build_s == 17.0  # waiting is not counted
    assert times.total_s == 91.0
    assert times.to_dict()["total"] == 91.0
    assert times.processes == 1


def test_planning_is_not_the_start_of_workers() -> None:
    rows = whole_sweep()
    note = (6.5, EventKind.NOTE, {"stage": "plan", "payload": {"plan": {}, "planning_s": 2.5}})
    times = actual(events(*rows[:2], note, *rows[2:]))
    assert times.seconds["plan"] == 2.5
    assert times.seconds["start"] == 7.5
    assert times.total_s == 91.0


def test_the_pause_between_two_processes_is_left_out() -> None:
    killed = whole_sweep()[:7]  # until the trial's end
    resumed = [
        (1000.0, EventKind.SWEEP, {"state": "RUNNING"}),
        (1004.0, EventKind.STAGE, {"stage": "select", "state": "ENDED"}),
        (1010.0, EventKind.SWEEP, {"state": "INTERRUPTED"}),
        (5000.0, EventKind.SWEEP, {"state": "RUNNING"}),
        (5002.0, EventKind.STAGE, {"stage": "refit", "state": "BEGUN"}),
        (5030.0, EventKind.STAGE, {"stage": "refit", "state": "ENDED"}),
    ]
    times = actual(events(*killed, *resumed))
    assert times.processes == 3
    assert times.total_s == 41.0 + 10.0 + 30.0
    assert times.seconds["select"] == 10.0
    assert times.seconds["refit"] == 30.0


def test_a_sweep_that_built_nothing_starts_until_its_first_epoch_began() -> None:
    rows = [row for row in whole_sweep() if row[2].get("stage") != "prefill"]
    times = actual(events(*rows))
    assert times.seconds["start"] == 35.0  # 38 s to the beginning of the epoch, less 3 s of data
    assert times.build_s == 0.0


@pytest.mark.parametrize("cut", range(16))
def test_a_record_that_ends_anywhere_counts_up_to_its_last_event(cut: int) -> None:
    rows = whole_sweep()[:cut]
    expected = rows[-1][0] - rows[0][0] if rows else 0.0
    assert actual(events(*rows)).total_s == pytest.approx(expected)


@given(st.lists(st.floats(0, 100), min_size=15, max_size=15))
def test_the_stages_sum_to_the_whole_whatever_the_times(gaps: list[float]) -> None:
    now_s, rows = 0.0, []
    for gap, (_, kind, values) in zip(gaps, whole_sweep(), strict=True):
        now_s += gap
        rows.append((now_s, kind, values))
    times = actual(events(*rows))
    assert times.total_s == pytest.approx(sum(gaps[1:]), abs=1e-6)
    assert all(seconds >= 0 for seconds in times.seconds.values())


def test_a_ledger_on_disk(tmp_path: Path) -> None:
    paths = write_sweep(tmp_path / "runs" / "one")
    times = actual(read_events(paths.ledger))
    assert times.total_s == pytest.approx(240.0)
    assert times.processes == 1


def test_no_event_no_time() -> None:
    assert actual([]).to_dict() == {"prefill": 0.0, "total": 0}
