"""The record: what is written is read back, whatever happens in between."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ledger import ledger as ledger_module
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import (
    EventKind,
    LedgerSegment,
    list_segments,
    read_events,
    worth_merging,
    write_segment,
)
from orchestrator.ledger.state import TrialState, derive
from tests.support.ledgers import CONFIG, create, metrics, run_whole_trial
from tests.support.places import ROOT


def test_events_are_read_back_as_they_were_appended(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger", clock=lambda: 1234.5) as ledger:
        run_whole_trial(ledger, "a")
        ledger.append(EventKind.EPOCH, epoch=1, val_accuracy=math.nan, loss=math.inf, objectives=(0.5, 0.25))
        ledger.append(EventKind.NOTE, reason="Grüße", payload={"nested": [1, None, "x"]})
        written = ledger.events()
    read = read_events(tmp_path / "ledger")
    assert read == written
    assert [event.seq for event in read] == list(range(1, 8))
    assert {event.time_s for event in read} == {1234.5}
    assert read[-2].val_accuracy is None
    assert read[-2].loss == math.inf
    assert read[-2].objectives == (0.5, 0.25)
    assert read[-1].data == {"nested": [1, None, "x"]}


def test_state_changes_are_on_disk_at_once_and_epochs_wait(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        create(ledger, "a")
        ledger.append(EventKind.TRIAL, trial="a", state="RUNNING")
        assert len(read_events(tmp_path / "ledger")) == 2
        ledger.append(EventKind.EPOCH, trial="a", epoch=1, **metrics(0.1))
        assert len(read_events(tmp_path / "ledger")) == 2
        assert len(ledger.events()) == 3
        ledger.append(EventKind.STAGE, stage="search", state="ENDED", payload={"trials": 1})
        assert len(read_events(tmp_path / "ledger")) == 4


def test_an_epoch_waits_no_longer_than_a_second_or_two_hundred_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now_s[0])
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.append(EventKind.NOTE)
        ledger.flush_if_due()
        assert len(read_events(tmp_path / "ledger")) == 0
        now_s[0] += 1.0
        ledger.flush_if_due()
        assert len(read_events(tmp_path / "ledger")) == 1
        for _ in range(199):
            ledger.append(EventKind.NOTE)
        assert len(read_events(tmp_path / "ledger")) == 1
        ledger.append(EventKind.NOTE)
        assert len(read_events(tmp_path / "ledger")) == 201


def test_many_segments_are_merged_and_nothing_changes(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with Ledger(folder) as ledger:
        most = 0
        for number in range(40):
            run_whole_trial(ledger, f"t{number}")
            most = max(most, len(list_segments(folder)))
            assert read_events(folder) == ledger.events()
        before = derive(ledger.events())
        ledger.compact()
        assert len(list_segments(folder)) == 1
        assert derive(read_events(folder)) == before
    assert 30 < most <= ledger_module.COMPACT_ABOVE_SEGMENTS
    assert len(pd.read_parquet(folder)) == 200


def segments_of(sizes: list[int]) -> list[LedgerSegment]:
    found: list[LedgerSegment] = []
    for size in sizes:
        first = found[-1].last + 1 if found else 1
        found.append(LedgerSegment(Path(f"{first}"), first, first + size - 1, ""))
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_an_event_is_written_few_times_however_long_the_record(seed: int, most: int) -> None:
    chance = random.Random(seed)
    sizes: list[int] = []
    written, longest, rounds = 0, 0, 5000
    for _ in range(rounds):
        sizes.append(chance.randint(1, most))
        written += sizes[-1]
        if len(sizes) > ledger_module.COMPACT_ABOVE_SEGMENTS:
            merged = len(worth_merging(segments_of(sizes)))
            assert merged > 1
            sizes[-merged:] = [sum(sizes[-merged:])]
            written += sizes[-1]
        longest = max(longest, len(sizes))
    assert longest <= ledger_module.COMPACT_ABOVE_SEGMENTS
    assert written <= 6 * sum(sizes)


def test_a_crash_between_merging_and_deleting_leaves_no_duplicates(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with Ledger(folder) as ledger:
        run_whole_trial(ledger, "a")
        events = ledger.events()
    write_segment(folder, events)
    write_segment(folder, events[:3])
    assert len(list_segments(folder)) > 3
    assert read_events(folder) == events
    with Ledger(folder) as ledger:
        assert ledger.events() == events
    assert len(list_segments(folder)) == 1


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[EventKind, dict[str, Any]]]:
    """Any sequence of legal events over a few trials."""
    from orchestrator.ledger.state import _ALLOWED

    states: dict[str, TrialState] = {}
    found: list[tuple[EventKind, dict[str, Any]]] = []
    for _ in range(draw(st.integers(1, 30))):
        trial = draw(st.sampled_from(["a", "b", "c"]))
        if states.get(trial) == TrialState.RUNNING and draw(st.booleans()):
            value = draw(st.floats(allow_nan=True, allow_infinity=True))
            found.append((EventKind.EPOCH, {"trial": trial, "epoch": draw(st.integers(1, 5)), "val_accuracy": value}))
        elif choices := _ALLOWED.get(states.get(trial), ()):
            states[trial] = draw(st.sampled_from(choices))
            values = {"state": str(states[trial]), "epoch": draw(st.integers(0, 5)), "reason": draw(st.text())}
            found.append((EventKind.TRIAL, {"trial": trial, **values, "payload": {"number": 1, "config": CONFIG}}))
        else:
            found.append((EventKind.STAGE, {"stage": "search", "state": "ENDED", "payload": {"note": draw(st.text())}}))
    return found


@settings(max_examples=40, deadline=None)
@given(histories(), st.data())
def test_compaction_changes_no_derived_state(
    tmp_path_factory: pytest.TempPathFactory, history: list, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("sweep") / "ledger"
    with Ledger(folder) as ledger:
        for kind, values in history:
            ledger.append(kind, **values)
            if data.draw(st.integers(0, 9)) == 0:
                ledger.compact()
        before = derive(ledger.events())
        ledger.compact()
    assert derive(read_events(folder)) == before
    assert len(list_segments(folder)) == 1


WRITER = """
import sys
from pathlib import Path
from orchestrator.ledger import ledger as module
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.ledger import Ledger
module.COMPACT_ABOVE_SEGMENTS = 8
with Ledger(Path(sys.argv[1]), clock=lambda: 1.0) as ledger:
    print("ready", flush=True)
    start = len(ledger.events())
    for n in range(start, start + 100_000):
        trial = f"t{n}"
        ledger.append(EventKind.TRIAL, trial=trial, state="PENDING", payload={"number": n})
        print(len(ledger.events()), flush=True)
        ledger.append(EventKind.TRIAL, trial=trial, state="RUNNING", attempt=1)
        ledger.append(EventKind.EPOCH, trial=trial, epoch=1, val_accuracy=n / 1000)
        ledger.append(EventKind.TRIAL, trial=trial, state="COMPLETED", epoch=1)
        print(len(ledger.events()), flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_prefix(tmp_path: Path) -> None:
    folder, chance, before = tmp_path / "ledger", random.Random(7), 0
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        first, *_ = [writer.stdout.readline() for _ in range(9)]
        assert first == "ready\n"
        until_s = time.monotonic() + chance.uniform(0.0, 0.2)
        while time.monotonic() < until_s:  # read while it writes and merges
            events = read_events(folder)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
        writer.send_signal(signal.SIGKILL)
        promised = max([int(line) for line in writer.stdout.read().split("\n") if line.isdigit()], default=0)
        writer.wait()
        events = read_events(folder)
        assert len(events) >= max(promised, before)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        derive(events)
        before = len(events)
    assert before > 100


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger, pytest.raises(ValueError, match="build"):
        ledger.append(EventKind.STAGE, stage="build", state="ENDED")
    assert read_events(tmp_path / "ledger") == []
