"""The record: what is written is read back, whatever happens in between."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import OrchError
from orchestrator.ledger import ledger as ledger_module
from orchestrator.ledger import segments as segments_module
from orchestrator.ledger.ledger import Ledger, TrialState, derive, trials_frame
from orchestrator.ledger.segments import (
    METRICS,
    Event,
    EventKind,
    LedgerSegment,
    list_segments,
    read_events,
    worth_merging,
    write_segment,
)
from tests.support.places import ROOT

CONFIG = {"backbone": "small_cnn", "dropout": 0.2, "unfrozen_layers": "all"}


def metrics(value: float) -> dict[str, float]:
    return {name: value for name in METRICS}


def create(ledger: Ledger, trial: str, number: int = 1) -> None:
    payload = {"config": CONFIG, "name": "", "number": number, "proposal": {"ask": 0}}
    ledger.append(EventKind.TRIAL, trial=trial, stage="search", state="PENDING", payload=payload)


def run_whole_trial(ledger: Ledger, trial: str, epochs: int = 2) -> None:
    create(ledger, trial)
    ledger.append(EventKind.TRIAL, trial=trial, state="RUNNING", attempt=1, payload={"log": f"logs/{trial}.log"})
    for epoch in range(1, epochs + 1):
        ledger.append(EventKind.EPOCH, trial=trial, epoch=epoch, **metrics(epoch / 10))
    ledger.append(EventKind.TRIAL, trial=trial, state="COMPLETED", epoch=epochs)


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


def test_pandas_opens_the_folder_even_with_a_half_written_file_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with Ledger(folder) as ledger:
        run_whole_trial(ledger, "a")
        ledger.flush()
        (folder / ".0000000099-0000000099-0123456789ab.parquet.tmp").write_bytes(b"PAR1 half of a segm")
        frame = pd.read_parquet(folder)
    assert sorted(frame["seq"]) == [1, 2, 3, 4, 5]
    assert frame.loc[frame["kind"] == "EPOCH", "val_accuracy"].tolist() == [0.1, 0.2]
    assert list(frame.columns)[:6] == ["seq", "time_s", "kind", "trial", "stage", "state"]


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


def test_a_second_driver_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger"):
        with pytest.raises(OrchError, match=rf"run by another process \(PID {os.getpid()}\); wait until it ends"):
            Ledger(tmp_path / "ledger")
        with pytest.raises(OrchError, match=str(os.getpid())):
            Ledger(tmp_path / "ledger")
    with Ledger(tmp_path / "ledger") as again:
        assert again.events() == []


@pytest.mark.parametrize("where", [0, 100, -1])
def test_a_damaged_segment_is_named(tmp_path: Path, where: int) -> None:
    folder = tmp_path / "ledger"
    with Ledger(folder) as ledger:
        run_whole_trial(ledger, "a")
    path = list_segments(folder)[1].path
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(OrchError, match=f"{path.name} is damaged.*Restore that file from a copy; or move it"):
        read_events(folder)
    with pytest.raises(OrchError, match="is damaged"):
        Ledger(folder)
    path.rename(tmp_path / "moved")
    with pytest.raises(OrchError, match="misses events 2 to 2"):
        Ledger(folder)
    for segment in list_segments(folder)[1:]:
        segment.path.unlink()
    with Ledger(folder) as ledger:  # the lock was given back, and what is before the damage is used
        assert len(ledger.events()) == 1


# --- compaction ---------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("sizes", "merged"),
    [
        ([], 0),
        ([5], 0),
        ([5, 1], 0),
        ([1, 1], 2),
        ([100, 1, 1, 1], 3),
        ([100, 1, 5, 1], 3),
        ([100, 7, 5, 1], 0),
        ([4, 2, 1, 1], 4),
    ],
)
def test_the_small_segments_at_the_end_are_merged(sizes: list[int], merged: int) -> None:
    assert [segment.events for segment in worth_merging(segments_of(sizes))] == sizes[len(sizes) - merged :]


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
    from orchestrator.ledger.ledger import _ALLOWED

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


# --- killed while writing -----------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from orchestrator import ledger as module
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


# --- derived state ------------------------------------------------------------------------------------------------


def test_the_state_of_trials_is_derived(tmp_path: Path) -> None:
    clock = iter(range(100, 200))
    with Ledger(tmp_path / "ledger", clock=lambda: float(next(clock))) as ledger:
        ledger.append(EventKind.SWEEP, state="OPENED")
        run_whole_trial(ledger, "a")
        create(ledger, "b", number=2)
        ledger.append(EventKind.TRIAL, trial="b", state="RUNNING", attempt=1)
        ledger.append(EventKind.EPOCH, trial="b", epoch=1, **metrics(0.7))
        ledger.append(EventKind.TRIAL, trial="b", state="PENDING", reason="retry 1 of 2 after: it died")
        ledger.append(EventKind.STAGE, stage="search", state="BEGUN", payload={"trials": 2})
        state = derive(ledger.events())
    a, b = state.trials["a"], state.trials["b"]
    assert (a.state, a.number, a.name, a.stage, a.config) == (TrialState.COMPLETED, 1, "a", "search", CONFIG)
    assert (a.created_s, a.started_s, a.ended_s) == (101.0, 102.0, 105.0)
    assert (a.val_accuracy, a.attempts, a.log) == (0.2, 1, "logs/a.log")
    assert [epoch["epoch"] for epoch in a.epochs] == [1, 2]
    assert (b.state, b.reason, b.epochs, b.attempts) == (TrialState.PENDING, "retry 1 of 2 after: it died", (), 1)
    assert math.isnan(b.val_accuracy)
    assert state.stages == {"search": {"trials": 2, "state": "BEGUN"}}
    assert state.counts() == {"PENDING": 1, "COMPLETED": 1}


def test_a_retry_from_a_checkpoint_keeps_the_epochs_before_it(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        create(ledger, "a")
        ledger.append(EventKind.TRIAL, trial="a", state="RUNNING", attempt=1)
        for epoch in (1, 2, 3):
            ledger.append(EventKind.EPOCH, trial="a", epoch=epoch, **metrics(epoch / 10))
        ledger.append(EventKind.TRIAL, trial="a", state="PENDING", epoch=2)
        ledger.append(EventKind.TRIAL, trial="a", state="RUNNING", attempt=2)
        ledger.append(EventKind.EPOCH, trial="a", epoch=3, **metrics(0.9))
        record = derive(ledger.events()).trials["a"]
    assert [epoch["val_accuracy"] for epoch in record.epochs] == [0.1, 0.2, 0.9]
    assert record.attempts == 2


FINAL = [state for state in TrialState if state.is_final]


@pytest.mark.parametrize("final", FINAL)
@pytest.mark.parametrize("after", list(TrialState))
def test_a_final_state_never_changes(tmp_path: Path, final: TrialState, after: TrialState) -> None:
    assert [str(state) for state in FINAL] == ["COMPLETED", "PRUNED", "STOPPED", "FAILED"]
    with Ledger(tmp_path / "ledger") as ledger:
        create(ledger, "a")
        ledger.append(EventKind.TRIAL, trial="a", state="RUNNING")
        ledger.append(EventKind.TRIAL, trial="a", state=str(final))
        with pytest.raises(OrchError, match=f"trial a cannot go from {final} to {after}"):
            ledger.append(EventKind.TRIAL, trial="a", state=str(after))
        with pytest.raises(OrchError, match=f"trial a is {final} and cannot report an epoch"):
            ledger.append(EventKind.EPOCH, trial="a", epoch=1)
        events = ledger.events()
    assert len(events) == 3
    bad = Event(seq=4, time_s=0.0, kind="TRIAL", trial="a", state=str(after))
    with pytest.raises(OrchError, match="event 4"):
        derive([*events, bad])


@pytest.mark.parametrize(
    ("before", "after"),
    [([], "RUNNING"), (["PENDING"], "COMPLETED"), (["PENDING"], "PAUSED"), (["PENDING", "RUNNING"], "RUNNING")],
)
def test_other_illegal_changes_are_refused(tmp_path: Path, before: list[str], after: str) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        for state in before:
            ledger.append(EventKind.TRIAL, trial="a", state=state)
        with pytest.raises(OrchError, match="cannot go from"):
            ledger.append(EventKind.TRIAL, trial="a", state=after)


def test_trials_frame_has_a_column_for_each_field_of_a_configuration(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        run_whole_trial(ledger, "a")
        create(ledger, "b", number=2)
        frame = trials_frame(derive(ledger.events()))
    assert frame["id"].tolist() == ["a", "b"]
    assert frame["state"].tolist() == ["COMPLETED", "PENDING"]
    assert frame["epochs"].tolist() == [2, 0]
    assert frame["config_dropout"].tolist() == [0.2, 0.2]
    assert frame.loc[0, "val_accuracy"] == 0.2
    assert frame.loc[0, "seconds"] == pytest.approx(0.3)
    assert math.isnan(frame.loc[1, "val_accuracy"])
    json.loads(frame.to_json())


# --- folds and speeds ---------------------------------------------------------------------------------------------


def test_each_fold_is_kept_apart_from_the_trials_own_figures(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        create(ledger, "a")
        ledger.append(EventKind.TRIAL, trial="a", state="RUNNING", attempt=1)
        for epoch in (1, 2):
            for fold in (1, 2, 3):
                value = epoch / 10 + fold / 100
                ledger.append(EventKind.EPOCH, trial="a", epoch=epoch, fold=fold, val_accuracy=value)
            ledger.append(EventKind.EPOCH, trial="a", epoch=epoch, **metrics(epoch / 10 + 0.02))
        ledger.append(EventKind.EPOCH, trial="a", epoch=3, fold=1, val_accuracy=0.9)  # killed before the others
        record = derive(ledger.events()).trials["a"]
        assert [epoch["epoch"] for epoch in record.epochs] == [1, 2]
        assert record.val_accuracy == pytest.approx(0.22)
        assert record.fold_val_accuracy == pytest.approx((0.21, 0.22, 0.23))
        ledger.append(EventKind.TRIAL, trial="a", state="PENDING", epoch=1)  # a new attempt from epoch 1 on
        record = derive(ledger.events()).trials["a"]
        assert record.fold_val_accuracy == pytest.approx((0.11, 0.12, 0.13))
        assert len(record.folds) == 3
    assert derive(read_events(tmp_path / "ledger")).trials["a"] == record
    assert trials_frame(derive(read_events(tmp_path / "ledger")))["val_accuracy"].tolist() == pytest.approx([0.12])


def test_the_one_speed_of_an_older_record_was_that_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = segments_module._schema()
    older = whole.remove(whole.get_field_index("train_images_per_s"))
    monkeypatch.setattr(segments_module, "_schema", lambda: older)
    monkeypatch.setattr(segments_module, "fields", lambda kind: [f for f in fields(kind) if f.name in older.names])
    with Ledger(tmp_path / "ledger") as ledger:
        run_whole_trial(ledger, "a", epochs=1)
    monkeypatch.undo()
    with Ledger(tmp_path / "ledger") as ledger:  # goes on with the record as it is written now
        run_whole_trial(ledger, "b", epochs=1)
        ledger.compact()
    state = derive(read_events(tmp_path / "ledger"))
    speeds = {key: (r.figure("train_images_per_s"), r.figure("images_per_s")) for key, r in state.trials.items()}
    assert math.isnan(speeds["a"][1])
    assert (speeds["a"][0], speeds["b"]) == (0.1, (0.1, 0.1))
