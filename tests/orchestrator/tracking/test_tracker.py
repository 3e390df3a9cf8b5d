"""A running sweep appears in MLflow, through outages, without waiting for it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths, command_line
from orchestrator.tracking.mlflow_store import connect
from orchestrator.tracking.settings import TrackingSettings
from orchestrator.tracking.tracker import Tracker, retry_delay_s, synchronise
from tests.support.fake_store import free_port, running_server, small_server
from tests.support.tracked_sweep import (
    CLOSED,
    CLOSED_PORT,
    all_runs,
    assert_mirrors,
    create_trial,
    interrupted,
    statuses,
    ticking,
    train,
)


@pytest.mark.parametrize(("failures", "expected"), [(1, 1), (2, 2), (3, 4), (7, 60), (1000, 60)])
def test_the_delay_doubles_up_to_a_minute(failures: int, expected: float) -> None:
    assert retry_delay_s(failures) == expected


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Switched:
    """Opens clients while ``up``; an outage otherwise."""

    def __init__(self) -> None:
        self.up = False
        self.asked = 0

    def open(self, uri: str) -> Any:
        self.asked += 1
        if not self.up:
            raise ConnectionError("connection refused")
        return connect(uri)


def test_an_outage_is_waited_out_ever_longer(tmp_path: Path, store: str) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    clock, line = Clock(), Switched()
    with Ledger(paths.ledger, ticking()) as ledger:
        opened = ledger.append(EventKind.SWEEP, state="RUNNING")
        tracker = Tracker(paths, TrackingSettings(store), line.open, clock)
        tracker.show(opened)
        assert tracker.pump() == 1.0
        assert tracker.pump() == 1.0
        assert line.asked == 1  # not before its time
        for expected in (2.0, 4.0, 8.0):
            clock.now_s += 60
            assert tracker.pump() == expected
        for event in (create_trial(ledger, "aa", 0), *train(ledger, "aa", 3, "COMPLETED")):
            tracker.show(event)
        line.up = True
        clock.now_s += 60
        assert tracker.pump() > 8.0  # idle
    assert_mirrors(paths, store)
    tracker._writer.release()


def test_a_tracker_shows_a_sweep_as_it_runs(tmp_path: Path, store: str) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    with Ledger(paths.ledger) as ledger:
        opened = ledger.append(EventKind.SWEEP, state="RUNNING")
        tracker = Tracker(paths, TrackingSettings(store))
        tracker.start()
        tracker.show(opened)  # is in the ledger as well
        tracker.show(create_trial(ledger, "aa", 0))
        for event in train(ledger, "aa", 2, "COMPLETED"):
            tracker.show(event)
        assert tracker.close(timeout_s=60) is None
    runs = assert_mirrors(paths, store)
    assert tracker.parent_run_id == runs[""].info.run_id
    assert int(runs[""].data.tags["orch.machine.cores"]) >= 1
    assert "orch.version.mlflow" in runs[""].data.tags


def test_a_tracker_says_what_stayed_behind_and_sync_sends_it(tmp_path: Path, store: str) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING")
        tracker = Tracker(paths, TrackingSettings(CLOSED_PORT))
        tracker.start()
        started_s = time.monotonic()
        for event in (create_trial(ledger, "aa", 0), *train(ledger, "aa", 50, "COMPLETED")):
            tracker.show(event)
        assert time.monotonic() - started_s < 2.0
        warning = tracker.close(timeout_s=60)
    assert warning is not None
    assert f"no MLflow server answers at {CLOSED_PORT}: " in warning
    assert f"`orch sync {paths.root}` sends the rest" in warning
    assert tracker.parent_run_id == ""
    synchronise(paths.root, TrackingSettings(store))
    assert_mirrors(paths, store)


def test_closing_does_not_wait_for_a_store_that_hangs(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    hanging = threading.Event()

    def hang(uri: str) -> Any:
        hanging.wait(30)
        raise ConnectionError("at last")

    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING")
        tracker = Tracker(paths, TrackingSettings(CLOSED_PORT), hang)
        tracker.start()
        warning = tracker.close(timeout_s=0.2)
    hanging.set()
    assert warning is not None
    assert "it does not answer" in warning


def track(paths: SweepPaths, uri: str, sweep_s: float) -> tuple[list[tuple[float, str]], float, str | None]:
    """Track a short sweep; return (seconds, message) of each trouble, the seconds of closing and the final warning."""
    messages: list[tuple[float, str]] = []
    with Ledger(paths.ledger) as ledger:
        began_s = time.monotonic()
        tracker = Tracker(
            paths,
            TrackingSettings(uri),
            on_trouble=lambda sentence: messages.append((time.monotonic() - began_s, sentence)),
        )
        tracker.start()
        tracker.show(ledger.append(EventKind.SWEEP, state="RUNNING"))
        time.sleep(sweep_s)
        tracker.show(ledger.append(EventKind.SWEEP, state="FINISHED"))
        closing_s = time.monotonic()
        warning = tracker.close(timeout_s=60)
    return messages, time.monotonic() - closing_s, warning


TROUBLES = {
    "connection refused": (CLOSED_PORT, "no MLflow server answers at http://127.0.0.1:9: connection refused"),
    "no such host": ("http://mlflow.invalid:5000", "no MLflow server answers at http://mlflow.invalid:5000: "),
    "no database": ("postgresql://me:secret@127.0.0.1:9/x", "no database answers at postgresql://me:***@127.0.0.1:9/x"),
    "below a file": ("sqlite:////dev/null/mlflow.db", "cannot be created: /dev/null is a file"),
    "a folder": ("sqlite:////tmp", "/tmp is a folder"),
    "no address": ("gopher:x", "gopher:x is not the address of an MLflow store"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_is_said_at_the_beginning_in_one_line_and_the_end_does_not_wait(tmp_path: Path, trouble: str) -> None:
    uri, expected = TROUBLES[trouble]
    messages, closing_s, warning = track(SweepPaths(tmp_path / "runs" / "tiny"), uri, 2.5)
    ((after_s, sentence),) = messages
    assert after_s < 2.0
    assert expected in sentence
    assert "\n" not in sentence
    assert "The sweep continues" in sentence
    assert f"`orch sync {tmp_path / 'runs' / 'tiny'}`" in sentence
    assert closing_s < 2.0
    assert warning is not None
    assert expected in warning
    assert f"`orch sync {tmp_path / 'runs' / 'tiny'}`" in warning


def test_a_server_that_hangs_is_said_after_seconds_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tracking.mlflow_store.ANSWER_WITHIN_S", 1.0)
    with small_server(None) as uri:
        messages, closing_s, warning = track(SweepPaths(tmp_path / "runs" / "tiny"), uri, 2.5)
    ((after_s, sentence),) = messages
    assert after_s < 2.5
    assert "no answer within 1 s" in sentence
    assert closing_s < 3.0
    assert "no answer within 1 s" in str(warning)


def test_a_store_that_comes_late_is_filled_and_the_end_says_nothing(tmp_path: Path, store: str) -> None:
    paths, line = SweepPaths(tmp_path / "runs" / "tiny"), Switched()
    messages: list[str] = []
    with Ledger(paths.ledger) as ledger:
        tracker = Tracker(paths, TrackingSettings(store), line.open, on_trouble=messages.append)
        tracker.start()
        tracker.show(ledger.append(EventKind.SWEEP, state="RUNNING"))
        deadline_s = time.monotonic() + 10
        while not messages and time.monotonic() < deadline_s:
            time.sleep(0.05)
        line.up = True
        tracker.show(ledger.append(EventKind.SWEEP, state="FINISHED"))
        assert tracker.close(timeout_s=60) is None
    assert len(messages) == 1
    assert all_runs(store)[""].info.status == "FINISHED"


def test_sync_closes_the_runs_of_a_killed_sweep_and_a_resumed_one_goes_on_with_them(tmp_path: Path, store: str) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    interrupted(paths)
    result = synchronise(paths.root, TrackingSettings(store))
    assert statuses(store) == CLOSED
    assert result.closed == 4
    assert "4 open runs were closed there as KILLED" in str(result)
    before = assert_mirrors(paths, store)
    assert before["cc"].info.end_time >= before["cc"].info.start_time
    resume = command_line("sweep", "--resume", "--out", paths.root)
    assert before["cc"].data.tags["orch.reason"].endswith(f"resume it: `{resume}`")
    assert synchronise(paths.root, TrackingSettings(store)).closed == 0

    with Ledger(paths.ledger, ticking(1.8e9)) as ledger:
        tracker = Tracker(paths, TrackingSettings(store))
        tracker.start()
        tracker.show(ledger.append(EventKind.SWEEP, state="RUNNING"))
        for trial in ("bb", "cc", "dd"):
            tracker.show(ledger.append(EventKind.TRIAL, trial=trial, state="PENDING", reason="started again"))
            tracker.show(ledger.append(EventKind.TRIAL, trial=trial, state="RUNNING", attempt=2))
        wait_for(lambda: statuses(store) == {trial: "RUNNING" for trial in ("", "bb", "cc", "dd")} | {"aa": "FINISHED"})
        for trial in ("bb", "cc", "dd"):
            tracker.show(ledger.append(EventKind.TRIAL, trial=trial, state="COMPLETED"))
        tracker.show(ledger.append(EventKind.SWEEP, state="FINISHED"))
        assert tracker.close(timeout_s=60) is None
    after = assert_mirrors(paths, store)
    assert {trial: run.info.run_id for trial, run in after.items()} == {
        trial: run.info.run_id for trial, run in before.items()
    }
    assert set(statuses(store).values()) == {"FINISHED"}
    assert after["cc"].data.tags["orch.reason"] == ""


def wait_for(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


@pytest.mark.parametrize("ended", ["INTERRUPTED", "FAILED"])
def test_a_tracker_that_closes_closes_the_runs(tmp_path: Path, store: str, ended: str) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    interrupted(paths, ended)
    tracker = Tracker(paths, TrackingSettings(store))
    tracker.start()
    assert tracker.close(timeout_s=60) is None
    assert statuses(store) == CLOSED | {"": "KILLED" if ended == "INTERRUPTED" else "FAILED"}


@pytest.mark.slow
def test_a_server_that_starts_late_misses_nothing(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING")
        tracker = Tracker(paths, TrackingSettings(uri))
        tracker.start()
        for event in (create_trial(ledger, "aa", 0), *train(ledger, "aa", 3, "PRUNED", "below the rung's best")):
            tracker.show(event)
        paths.spec.write_text("name: tiny\n")
        time.sleep(3)
        with running_server(tmp_path / "server", port):
            tracker.show(create_trial(ledger, "bb", 1))
            assert tracker.close(timeout_s=90) is None
            runs = assert_mirrors(paths, uri)
            assert runs["aa"].data.tags["orch.reason"] == "below the rung's best"
            assert [f.path for f in connect(uri).list_artifacts(runs[""].info.run_id)] == ["spec.yaml"]


def test_importing_the_tracker_does_not_import_mlflow() -> None:
    code = "import sys, orchestrator.tracking.tracker, orchestrator.tracking.registry; print('mlflow' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
