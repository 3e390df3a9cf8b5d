"""MLflow shows what the ledger says: against real stores, through outages, and never twice."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import TrackingError
from orchestrator.ledger.ledger import Ledger, TrialState, derive
from orchestrator.ledger.naming import CARD, run_name, varied_fields
from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.paths import SweepPaths
from orchestrator.spec.load import dump_spec, load_spec
from orchestrator.tracking.cursor import Cursor, read_cursor, write_cursor
from orchestrator.tracking.mlflow_store import connect
from orchestrator.tracking.run_updates import (
    RUN_STATUS,
    leaderboard_update,
    legend,
    run_updates,
    spec_params,
    sweep_note,
)
from orchestrator.tracking.settings import TrackingSettings, tracking_settings
from orchestrator.tracking.sync import MlflowWriter
from orchestrator.tracking.tracker import Tracker, delay_s, synchronise
from tests.support.fake_store import free_port, new_store, running_server, small_server
from tests.support.places import ROOT
from trainers.config import TrialConfig

CONFIG = TrialConfig(backbone="mobilenet_1.0", unfrozen_layers=13, head="cosface", multiplier=2.0).to_dict()
EPOCH = {"loss": 0.5, "accuracy": 0.8, "val_loss": 0.6, "val_accuracy": 0.75, "val_macro_f1": 0.7}
PORT_OF_NOBODY = "http://127.0.0.1:9"


# --- what a run is told, pure -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "config", "given_name", "expected"),
    [
        (3, CONFIG, "", "003 mobilenet_1.0 n=13 x2 cosface"),
        (0, {}, "", "000 mobilenet_1.0"),
        (12, {"backbone": "vgg16", "unfrozen_layers": "all", "dropout": 0.25}, "", "012 vgg16 n=all drop=0.25"),
        (1, {"backbone": "small_cnn", "smoothing": 0.1, "learning_rate": 0.5}, "", "001 small_cnn smooth=0.1"),
        (1234, CONFIG, "step 4", "1234 step 4"),
    ],
)
def test_run_name(number: int, config: dict[str, Any], given_name: str, expected: str) -> None:
    assert run_name(number, config, given=given_name) == expected


def test_run_name_shows_what_the_sweep_varies() -> None:
    config = TrialConfig(learning_rate=0.0003, image_size=160, optimizer="sgd").to_dict()
    assert run_name(7, config, varied=("learning_rate", "image_size", "optimizer")) == (
        "007 mobilenet_1.0 lr=0.0003 160px sgd"
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["003 mobilenet_1.0 n=13 x2 cosface"], "n: unfrozen_layers, x: multiplier"),
        (
            ["000 xception n=all", "001 vgg16 drop=0.25 m=0.1 lr=1e-05"],
            "n: unfrozen_layers, lr: learning_rate, m: margin",
        ),
        (["007 mobilenet_1.0 160px sgd 5ep x1.5"], "x: multiplier, px: image_size, ep: epochs"),
        (["001 resnet50v2 mixup=0.2 hidden=64 balance=draw drop=0.2 batch=64 stride=16"], ""),
        (["000 mobilenet_1.0", "1234 step 4"], ""),
        ([], ""),
    ],
)
def test_what_abbreviations_in_names_stand_for(names: list[str], expected: str) -> None:
    assert legend(names) == expected


def test_every_field_of_a_name_is_its_own_word_or_explained() -> None:
    different = {
        "unfrozen_layers": 5,
        "dropout": 0.3,
        "multiplier": 3.0,
        "smoothing": 0.2,
        "image_size": 96,
        "epochs": 7,
    }
    different |= {
        "learning_rate": 0.2,
        "weight_decay": 0.1,
        "batch_size": 8,
        "clip_norm": 1.0,
        "hidden": 9,
        "scale": 4.0,
    }
    different |= {"margin": 0.2, "warmup": 0.2, "output_stride": 16, "mixup": 0.2, "cutmix": 0.2, "balance": "draw"}
    explained = {pair.split(": ")[1] for pair in legend([run_name(1, different, tuple(different))]).split(", ")}
    words = {word.partition("=")[0] for word in run_name(1, different, tuple(different)).split() if "=" in word}
    plain = {name for name in different if any(len(word) > 2 and word in name for word in words)}
    assert explained | plain == set(different)
    assert explained == {
        *("unfrozen_layers", "multiplier", "image_size", "epochs", "learning_rate", "weight_decay", "scale", "margin")
    }


def test_the_docs_explain_every_abbreviation() -> None:
    page = (ROOT / "docs" / "file.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| `([a-z_]+)` \|$", page, re.MULTILINE)
    explained = [pair.split(": ")[1] for pair in legend(example for example, _ in rows).split(", ")]
    assert sorted(explained) == sorted(field for _, field in rows)
    assert len(rows) == 8


def test_every_state_has_a_status() -> None:
    assert {state: RUN_STATUS[state] for state in TrialState} == {
        "PENDING": "SCHEDULED",
        "RUNNING": "RUNNING",
        "PAUSED": "RUNNING",
        "COMPLETED": "FINISHED",
        "PRUNED": "KILLED",
        "STOPPED": "KILLED",
        "FAILED": "FAILED",
    }


def test_an_epoch_becomes_points_and_what_is_not_a_number_does_not() -> None:
    event = Event(5, 10.5, "EPOCH", trial="a", epoch=3, rung=1, loss=0.25, val_loss=None, accuracy=float("inf"))
    (update,) = run_updates([event])
    assert [(p.key, p.value, p.time_ms, p.step) for p in update.points] == [("loss", 0.25, 10500, 3)]
    assert update.tags == {"orch.rung": "1", "orch.epoch": "3"}
    assert update.status == ""


def test_the_epochs_of_a_fold_have_names_of_their_own() -> None:
    (update,) = run_updates(
        [
            Event(1, 0.0, "EPOCH", trial="a", epoch=1, fold=2, val_accuracy=0.5),
            Event(2, 0.0, "EPOCH", trial="a", epoch=1, val_accuracy=0.6, train_images_per_s=900.0, images_per_s=80.0),
        ]
    )
    assert [(point.key, point.value) for point in update.points] == [
        *[("val_accuracy_fold_2", 0.5), ("val_accuracy", 0.6)],
        *[("train_images_per_s", 900.0), ("images_per_s", 80.0)],
    ]


def test_a_run_is_named_after_what_its_proposal_chose() -> None:
    config = TrialConfig(learning_rate=0.02, pooling="max", batch_size=64, output_stride=16, mixup=0.2).to_dict()
    chosen = {"learning_rate@1": 0.02, "batch_size": 64, "output_stride": 16, "mixup": 0.2}
    payload = {"config": config, "number": 4, "name": "", "proposal": {"ask": 4, "parameters": chosen, "skipped": []}}
    (update,) = run_updates([Event(1, 0.0, "TRIAL", trial="a", state="PENDING", payload=json.dumps(payload))])
    assert update.name == "004 mobilenet_1.0 lr=0.02 batch=64 stride=16 mixup=0.2"
    assert varied_fields({}) == CARD


def test_a_finished_sweep_names_its_winner() -> None:
    payload = json.dumps({"winner": {"trial": "abc", "policy": "flip", "reason": "the highest accuracy"}})
    (update,) = run_updates([Event(9, 1.0, "SWEEP", state="FINISHED", payload=payload)])
    assert update.status == "FINISHED"
    assert update.ended_ms == 1000
    assert update.tags["orch.winner"] == "abc"
    assert update.tags["orch.winner.policy"] == "flip"


@pytest.mark.parametrize(("state", "status"), [("", "RUNNING"), ("RESUMED", "RUNNING"), ("INTERRUPTED", "KILLED")])
def test_a_sweep_that_is_not_finished(state: str, status: str) -> None:
    (update,) = run_updates([Event(1, 1.0, "SWEEP", state=state)])
    assert update.status == status


events = st.builds(
    Event,
    seq=st.integers(1, 10**6),
    time_s=st.floats(0, 2e9),
    kind=st.sampled_from(["TRIAL", "EPOCH"]),
    trial=st.sampled_from(["a", "b"]),
    state=st.sampled_from(list(TrialState)).map(str),
    reason=st.text(max_size=5),
    epoch=st.integers(0, 9),
    loss=st.none() | st.floats(),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(events, max_size=12), st.integers(0, 12))
def test_where_a_batch_ends_changes_nothing(told: list[Event], cut: int) -> None:
    def amount_to(batches: list[list[Event]]) -> dict[str, Any]:
        runs: dict[str, Any] = {}
        for batch in batches:
            for update in run_updates(batch):
                tags, points, end = runs.get(update.trial, ({}, (), ("", None)))
                end = (update.status, update.ended_ms) if update.status else end
                runs[update.trial] = ({**tags, **update.tags}, points + update.points, end)
        return runs

    assert amount_to([told]) == amount_to([told[:cut], told[cut:]])


def test_spec_params_are_flat() -> None:
    spec = {"name": "x", "budget": {"trials": 3, "first": []}, "search": {"dropout": {"uniform": [0, 0.5]}}, "seed": 1}
    assert spec_params(spec) == {
        "name": "x",
        "budget.trials": "3",
        "budget.first": "[]",
        "search.dropout": '{"uniform": [0, 0.5]}',
        "seed": "1",
    }


def test_only_the_winners_row_becomes_metrics() -> None:
    rows = [{"accuracy": 0.9, "winner": False}, {"accuracy": 0.8, "ece": float("nan"), "winner": True}]
    update = leaderboard_update(rows, 5)
    assert [(p.key, p.value) for p in update.points] == [("test_accuracy", 0.8)]


def test_the_note_has_the_leaderboard() -> None:
    note = sweep_note("digits", {"data.source": "builtin:digits"}, "| model |")
    assert "n: unfrozen_layers" in note
    assert "x: multiplier" in note
    assert note.startswith("# digits\n")
    assert "builtin:digits" in note
    assert note.endswith("| model |")


@pytest.mark.parametrize(("failures", "expected"), [(1, 1), (2, 2), (3, 4), (7, 60), (1000, 60)])
def test_the_delay_doubles_up_to_a_minute(failures: int, expected: float) -> None:
    assert delay_s(failures) == expected


def test_a_cursor_comes_back_as_it_was(tmp_path: Path) -> None:
    cursor = Cursor("sqlite:///x", 7, 1.1, "p", {"a": "r"}, {"spec.yaml": "0"}, {"machine.cores": "2"})
    write_cursor(tmp_path / "c.json", cursor)
    assert read_cursor(tmp_path / "c.json") == cursor
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"other": 1}'])
def test_a_damaged_cursor_has_seen_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    assert read_cursor(tmp_path / "c.json") == Cursor()


# --- a sweep to show ----------------------------------------------------------------------------------------------


def ticking(start_s: float = 1.7e9) -> Callable[[], float]:
    times = iter(range(10**6))
    return lambda: start_s + next(times) / 8


def create_trial(ledger: Ledger, name: str, number: int) -> Event:
    payload = {"config": CONFIG, "number": number, "name": name}
    return ledger.append(EventKind.TRIAL, trial=name, state="PENDING", stage="search", payload=payload)


def train(ledger: Ledger, trial: str, epochs: int, state: str, reason: str = "") -> list[Event]:
    told = [ledger.append(EventKind.TRIAL, trial=trial, state="RUNNING", attempt=1)]
    told += [ledger.append(EventKind.EPOCH, trial=trial, epoch=e + 1, rung=e // 2, **EPOCH) for e in range(epochs)]
    return [*told, ledger.append(EventKind.TRIAL, trial=trial, state=state, reason=reason, epoch=epochs)]


TRIALS = (("aa", 4, "COMPLETED"), ("bb", 2, "PRUNED"), ("cc", 1, "FAILED"), ("dd", 1, "STOPPED"))


def write_sweep(folder: Path, trials: Sequence[tuple[str, int, str]] = TRIALS) -> SweepPaths:
    """A finished sweep of (id, epochs, final state) trials, with a spec, a leaderboard and a figure."""
    paths = SweepPaths(folder)
    with Ledger(paths.ledger, ticking()) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING", payload={"name": "tiny"})
        ledger.append(EventKind.STAGE, stage="search", state="BEGAN")
        for number, (trial, epochs, state) in enumerate(trials):
            create_trial(ledger, trial, number)
            train(ledger, trial, epochs, state, "diverged" if state == "FAILED" else "")
        ledger.append(EventKind.SWEEP, state="FINISHED", payload={"winner": {"trial": "aa", "policy": "whole"}})
    paths.spec.write_text("name: tiny\nbudget: {trials: 4}\n")
    rows = [{"model": "aa", "policy": "whole", "accuracy": 0.9, "winner": True}]
    pd.DataFrame(rows).to_parquet(paths.leaderboard_parquet)
    paths.leaderboard_md.write_text("| aa | whole | 0.9 |\n")
    paths.figures.mkdir()
    (paths.figures / "leaderboard.svg").write_text("<svg/>")
    return paths


@pytest.fixture
def sweep(tmp_path: Path) -> SweepPaths:
    return write_sweep(tmp_path / "läufe und mehr" / "tiny")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return new_store(tmp_path / "a store")


def all_runs(uri: str, experiment: str = "orch") -> dict[str, Any]:
    """Trial id ("" for the parent) -> run; fails where a trial has two."""
    client = connect(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id]) if found else []
    by_trial = {run.data.tags.get("orch.trial", ""): run for run in runs}
    assert len(by_trial) == len(runs)
    return by_trial


def states(runs: dict[str, Any]) -> dict[str, str]:
    return {trial: run.data.tags["orch.state"] for trial, run in runs.items() if trial}


def ledger_states(paths: SweepPaths) -> dict[str, str]:
    return {trial: str(record.state) for trial, record in derive(read_events(paths.ledger)).trials.items()}


def histories(uri: str, runs: dict[str, Any]) -> dict[str, list[tuple[int, int, float]]]:
    client = connect(uri)
    return {
        trial: [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, "val_accuracy")]
        for trial, run in runs.items()
        if trial
    }


def recorded(paths: SweepPaths) -> dict[str, list[tuple[int, int, float]]]:
    told: dict[str, list[tuple[int, int, float]]] = {}
    for event in read_events(paths.ledger):
        if event.kind == "TRIAL":
            told.setdefault(event.trial, [])
        if event.kind == "EPOCH" and event.val_accuracy is not None:
            told[event.trial].append((event.epoch, round(event.time_s * 1000), event.val_accuracy))
    return told


def assert_mirrors(paths: SweepPaths, uri: str, experiment: str = "orch") -> dict[str, Any]:
    runs = all_runs(uri, experiment)
    assert states(runs) == ledger_states(paths)
    assert histories(uri, runs) == recorded(paths)
    parents = {run.data.tags.get("mlflow.parentRunId") for trial, run in runs.items() if trial}
    assert parents == {runs[""].info.run_id}
    return runs


# --- against a real store -----------------------------------------------------------------------------------------


def test_a_sweep_becomes_a_parent_and_its_children(sweep: SweepPaths, store: str) -> None:
    result = synchronise(sweep.root, TrackingSettings(store, tags={"team": "glass"}))

    runs = assert_mirrors(sweep, store)
    assert sorted(runs) == ["", "aa", "bb", "cc", "dd"]
    parent, best, failed = runs[""], runs["aa"], runs["cc"]
    assert result.parent_run_id == parent.info.run_id
    assert result.refused == ()
    assert parent.info.run_name == "tiny"
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"name": "tiny", "budget.trials": "4"}
    assert parent.data.tags["team"] == "glass"
    assert parent.data.tags["orch.winner"] == "aa"
    assert "| aa | whole | 0.9 |" in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics == {"test_accuracy": 0.9}
    assert best.info.run_name == "000 mobilenet_1.0 n=13 x2 cosface"
    assert best.info.status == "FINISHED"
    assert best.data.params["head"] == "cosface"
    assert len(best.data.params) == len(CONFIG)
    assert best.data.tags["orch.rung"] == "0"
    assert best.info.start_time < best.info.end_time
    assert failed.info.status == "FAILED"
    assert failed.data.tags["orch.reason"] == "diverged"
    assert {runs["bb"].info.status, runs["dd"].info.status} == {"KILLED"}
    client = connect(store)
    files = {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert files == {"spec.yaml", "leaderboard.parquet", "leaderboard.md", "figures"}
    assert [f.path for f in client.list_artifacts(parent.info.run_id, "figures")] == ["figures/leaderboard.svg"]


def test_artifacts_lie_beside_the_database(
    sweep: SweepPaths, store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    synchronise(sweep.root, TrackingSettings(store))
    assert (tmp_path / "a store" / "mlartifacts").is_dir()
    assert not (tmp_path / "mlruns").exists()
    assert not (tmp_path / "mlartifacts").exists()


def test_the_data_is_an_mlflow_dataset(sweep: SweepPaths, store: str, tmp_path: Path) -> None:
    from trainers.data.manifest import Manifest

    table = pd.DataFrame(
        {
            "path": ["a.png", "b.png"],
            "label": ["glass", "metal"],
            "split": ["train", "test"],
            "sha256": ["0" * 64, "1" * 64],
            "width": [8, 9],
            "height": [8, 9],
            "group": [0, 1],
        }
    )
    photos = tmp_path / "photos"
    photos.mkdir()
    manifest = Manifest(root=photos, classes=("glass", "metal"), seed=0, table=table)
    manifest.write(sweep.manifest)
    synchronise(sweep.root, TrackingSettings(store))
    (used,) = all_runs(store)[""].inputs.dataset_inputs
    assert used.dataset.name == "photos"
    assert used.dataset.digest == manifest.fingerprint
    assert json.loads(used.dataset.profile)["num_rows"] == 2


def test_what_mlflow_has_is_not_sent_again(sweep: SweepPaths, store: str) -> None:
    first = synchronise(sweep.root, TrackingSettings(store))
    second = synchronise(sweep.root, TrackingSettings(store))
    assert first.events == len(read_events(sweep.ledger))
    assert first.files == 4
    assert (second.events, second.files) == (0, 0)
    assert "seen everything" in str(second)


@pytest.mark.parametrize("lost", ["all of it", "its last half"])
def test_a_lost_cursor_makes_no_second_run(sweep: SweepPaths, store: str, lost: str) -> None:
    before = synchronise(sweep.root, TrackingSettings(store))
    if lost == "all of it":
        sweep.tracking_cursor.unlink()
    else:
        kept = read_cursor(sweep.tracking_cursor)
        told = read_events(sweep.ledger)[7]
        write_cursor(sweep.tracking_cursor, Cursor(kept.uri, told.seq, told.time_s, kept.parent, {}, {}))
    after = synchronise(sweep.root, TrackingSettings(store))
    assert after.parent_run_id == before.parent_run_id
    assert after.events > 0
    assert_mirrors(sweep, store)


def test_events_that_the_ledger_lost_after_they_were_shown(sweep: SweepPaths, store: str) -> None:
    synchronise(sweep.root, TrackingSettings(store))
    kept = read_cursor(sweep.tracking_cursor)
    write_cursor(sweep.tracking_cursor, Cursor(**{**kept.__dict__, "seq": 10**6, "time_s": 5.0}))
    assert synchronise(sweep.root, TrackingSettings(store)).events == len(read_events(sweep.ledger))
    assert_mirrors(sweep, store)


def test_a_run_deleted_in_mlflow_comes_back(sweep: SweepPaths, store: str) -> None:
    synchronise(sweep.root, TrackingSettings(store))
    connect(store).delete_run(all_runs(store)["bb"].info.run_id)
    assert "bb" not in all_runs(store)
    extend(sweep)
    synchronise(sweep.root, TrackingSettings(store))
    assert_mirrors(sweep, store)


def test_a_deleted_parent_is_made_again_with_all_children(sweep: SweepPaths, store: str) -> None:
    first = synchronise(sweep.root, TrackingSettings(store))
    for run in all_runs(store).values():
        connect(store).delete_run(run.info.run_id)
    extend(sweep)
    assert synchronise(sweep.root, TrackingSettings(store)).parent_run_id != first.parent_run_id
    assert sorted(assert_mirrors(sweep, store)) == ["", "aa", "bb", "cc", "dd", "ee"]


def extend(paths: SweepPaths) -> None:
    """Give a finished sweep one trial more."""
    with Ledger(paths.ledger, ticking(1.8e9)) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING")
        create_trial(ledger, "ee", 4)
        train(ledger, "ee", 2, "COMPLETED")
        ledger.append(EventKind.SWEEP, state="FINISHED")


def test_an_extended_sweep_goes_on_in_the_same_run(sweep: SweepPaths, store: str) -> None:
    first = synchronise(sweep.root, TrackingSettings(store))
    extend(sweep)
    sweep.spec.write_text("name: tiny\nbudget: {trials: 5}\n")
    second = synchronise(sweep.root, TrackingSettings(store))
    parent = assert_mirrors(sweep, store)[""]
    assert second.parent_run_id == first.parent_run_id
    assert second.refused == ()
    assert parent.data.params["budget.trials"] == "4"
    assert parent.data.tags["orch.spec.budget.trials"] == "5"


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


def test_another_store_gets_everything(sweep: SweepPaths, store: str, tmp_path: Path) -> None:
    synchronise(sweep.root, TrackingSettings(store))
    other = new_store(tmp_path / "other")
    assert synchronise(sweep.root, TrackingSettings(other)).events == len(read_events(sweep.ledger))
    assert_mirrors(sweep, other)


def test_two_sweeps_of_one_name_are_two_parents(tmp_path: Path, store: str) -> None:
    for place in ("one", "two"):
        paths = SweepPaths(tmp_path / place / "tiny")
        with Ledger(paths.ledger) as ledger:
            ledger.append(EventKind.SWEEP, state="RUNNING", payload={"name": "tiny", "place": place})
        synchronise(paths.root, TrackingSettings(store))
    client = connect(store)
    runs = client.search_runs([client.get_experiment_by_name("orch").experiment_id])
    assert [run.info.run_name for run in runs] == ["tiny", "tiny"]


def test_what_mlflow_refuses_holds_nothing_back(sweep: SweepPaths, store: str) -> None:
    synchronise(sweep.root, TrackingSettings(store))
    with Ledger(sweep.ledger, ticking(1.8e9)) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING")
        create_trial(ledger, "ee", 4)
    synchronise(sweep.root, TrackingSettings(store))
    connect(store).log_param(all_runs(store)["ee"].info.run_id, "surprise", "1")
    sweep.spec.write_text("surprise/ü|: 1\nname: tiny\nbudget: {trials: 4}\n")
    extend_from = read_events(sweep.ledger)[-1].seq
    with Ledger(sweep.ledger, ticking(1.9e9)) as ledger:
        train(ledger, "ee", 1, "COMPLETED")
        ledger.append(EventKind.SWEEP, state="FINISHED")
    result = synchronise(sweep.root, TrackingSettings(store))
    assert_mirrors(sweep, store)
    assert len(result.refused) == 1
    assert result.refused[0].startswith("MLflow refused params of the sweep: ")
    assert read_cursor(sweep.tracking_cursor).seq > extend_from


def test_a_deleted_experiment_is_a_sentence(sweep: SweepPaths, store: str) -> None:
    client = connect(store)
    client.delete_experiment(client.create_experiment("orch"))
    with pytest.raises(TrackingError, match=r"experiment 'orch' is deleted; `mlflow experiments restore -x 1`"):
        synchronise(sweep.root, TrackingSettings(store))


def test_a_store_that_is_away_is_a_sentence(sweep: SweepPaths) -> None:
    with pytest.raises(
        TrackingError, match=r"no MLflow server .*connection refused.*Nothing is lost; .*`orch sync .*tiny`"
    ):
        synchronise(sweep.root, TrackingSettings(PORT_OF_NOBODY))


def test_a_sweep_is_sent_by_one_process_at_a_time(sweep: SweepPaths, store: str) -> None:
    busy = MlflowWriter(sweep, TrackingSettings(store))
    busy.load()
    with pytest.raises(TrackingError, match="another process is sending"):
        synchronise(sweep.root, TrackingSettings(store))
    busy.release()
    assert synchronise(sweep.root, TrackingSettings(store)).events > 0


def test_a_ledger_without_events_is_nothing_to_send(tmp_path: Path, store: str) -> None:
    paths = SweepPaths(tmp_path / "empty")
    Ledger(paths.ledger).close()
    assert synchronise(paths.root, TrackingSettings(store)).events == 0
    assert all_runs(store) == {}


# --- outages ------------------------------------------------------------------------------------------------------

CHANGES = ("create_experiment", "create_run", "log_batch", "update_run", "set_terminated", "log_artifact", "log_inputs")


class Unreliable:
    """A client whose call number ``fails_at`` breaks, before or after it took effect. Counts across clients."""

    def __init__(self, fails_at: int, after: bool) -> None:
        self.calls = 0
        self.fails_at = fails_at
        self.after = after

    def open(self, uri: str) -> Any:
        real, outer = connect(uri), self

        class Client:
            def __getattr__(self, name: str) -> Any:
                method = getattr(real, name)
                return functools.partial(outer._call, method) if name in CHANGES else method

        return Client()

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        fails = self.calls == self.fails_at
        if fails and not self.after:
            raise ConnectionError("the line is dead")
        answer = method(*args, **kwargs)
        if fails:
            raise ConnectionError("the answer was lost")
        return answer


def send_all(paths: SweepPaths, settings: TrackingSettings, client: Unreliable, anew: bool = True) -> int:
    """Synchronise; after a failure go on, or start ``anew`` as another process would. How often it failed."""
    failures = 0
    synchroniser = MlflowWriter(paths, settings, client.open)
    synchroniser.load()
    while True:
        try:
            while synchroniser.flush():
                pass
        except ConnectionError:
            failures += 1
            if anew:
                synchroniser.release()
                synchroniser = MlflowWriter(paths, settings, client.open)
                synchroniser.load()
        else:
            synchroniser.release()
            return failures


@pytest.mark.parametrize(("after", "anew"), [(False, True), (True, True), (True, False)])
def test_a_failure_at_any_call_is_mended(
    tmp_path: Path, after: bool, anew: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tracking.sync.BATCH_EVENTS", 4)
    sweep = write_sweep(tmp_path / "tiny", [("aa", 2, "PRUNED")])
    uri = new_store(tmp_path / "store")
    counting = Unreliable(0, after)
    send_all(sweep, TrackingSettings(uri), counting)
    assert counting.calls >= 12
    for fails_at in range(1, counting.calls + 1):
        sweep.tracking_cursor.unlink()
        elsewhere = TrackingSettings(uri, experiment=f"fails at {fails_at}")
        assert send_all(sweep, elsewhere, Unreliable(fails_at, after), anew) == 1
        runs = assert_mirrors(sweep, uri, elsewhere.experiment)
        assert len(connect(uri).list_artifacts(runs[""].info.run_id)) == 4


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
            raise ConnectionError("nobody there")
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
    tracker._synchroniser.release()


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
        tracker = Tracker(paths, TrackingSettings(PORT_OF_NOBODY))
        tracker.start()
        started_s = time.monotonic()
        for event in (create_trial(ledger, "aa", 0), *train(ledger, "aa", 50, "COMPLETED")):
            tracker.show(event)
        assert time.monotonic() - started_s < 2.0
        warning = tracker.close(timeout_s=60)
    assert warning is not None
    assert f"has not seen all of this sweep: no MLflow server answers at {PORT_OF_NOBODY}: " in warning
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
        tracker = Tracker(paths, TrackingSettings(PORT_OF_NOBODY), hang)
        tracker.start()
        warning = tracker.close(timeout_s=0.2)
    hanging.set()
    assert warning is not None
    assert "it does not answer" in warning


# --- MLflow away from the beginning -------------------------------------------------------------------------------


def track(paths: SweepPaths, uri: str, sweep_s: float) -> tuple[list[tuple[float, str]], float, str | None]:
    """A short sweep with a tracker: what it said of MLflow and after how many seconds, how long closing took, and what
    was said at the end."""
    said: list[tuple[float, str]] = []
    with Ledger(paths.ledger) as ledger:
        began_s = time.monotonic()
        tracker = Tracker(
            paths,
            TrackingSettings(uri),
            on_trouble=lambda sentence: said.append((time.monotonic() - began_s, sentence)),
        )
        tracker.start()
        tracker.show(ledger.append(EventKind.SWEEP, state="RUNNING"))
        time.sleep(sweep_s)
        tracker.show(ledger.append(EventKind.SWEEP, state="FINISHED"))
        closing_s = time.monotonic()
        warning = tracker.close(timeout_s=60)
    return said, time.monotonic() - closing_s, warning


TROUBLES = {
    "nobody there": (PORT_OF_NOBODY, "no MLflow server answers at http://127.0.0.1:9: connection refused"),
    "no such host": ("http://mlflow.invalid:5000", "no MLflow server answers at http://mlflow.invalid:5000: "),
    "no database": ("postgresql://me:secret@127.0.0.1:9/x", "no database answers at postgresql://me:***@127.0.0.1:9/x"),
    "below a file": ("sqlite:////dev/null/mlflow.db", "cannot be made: /dev/null is a file"),
    "a folder": ("sqlite:////tmp", "cannot be /tmp, which is a folder"),
    "no address": ("gopher:x", "gopher:x is not an address of an MLflow store"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_is_said_at_the_beginning_in_one_line_and_the_end_does_not_wait(tmp_path: Path, trouble: str) -> None:
    uri, expected = TROUBLES[trouble]
    said, closing_s, warning = track(SweepPaths(tmp_path / "runs" / "tiny"), uri, 2.5)
    ((after_s, sentence),) = said
    assert after_s < 2.0
    assert expected in sentence
    assert "\n" not in sentence
    assert "The sweep goes on" in sentence
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
        said, closing_s, warning = track(SweepPaths(tmp_path / "runs" / "tiny"), uri, 2.5)
    ((after_s, sentence),) = said
    assert after_s < 2.5
    assert "no answer within 1 s" in sentence
    assert closing_s < 3.0
    assert "no answer within 1 s" in str(warning)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (500, "the server answers with an error of its own (500); its log says more."),
        (404, "what answers there is no MLflow server (404); look at the address."),
        (200, "what answers there is no MLflow server (200); look at the address."),
        (401, "it wants a login (401); set MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_what_a_server_answers_is_said_in_plain_words(sweep: SweepPaths, status: int, expected: str) -> None:
    with small_server(status) as uri, pytest.raises(TrackingError) as caught:
        synchronise(sweep.root, TrackingSettings(uri))
    assert expected in str(caught.value)
    assert f"`orch sync {sweep.root}`" in str(caught.value)


def test_a_store_that_comes_late_is_filled_and_the_end_says_nothing(tmp_path: Path, store: str) -> None:
    paths, line = SweepPaths(tmp_path / "runs" / "tiny"), Switched()
    said: list[str] = []
    with Ledger(paths.ledger) as ledger:
        tracker = Tracker(paths, TrackingSettings(store), line.open, on_trouble=said.append)
        tracker.start()
        tracker.show(ledger.append(EventKind.SWEEP, state="RUNNING"))
        deadline_s = time.monotonic() + 10
        while not said and time.monotonic() < deadline_s:
            time.sleep(0.05)
        line.up = True
        tracker.show(ledger.append(EventKind.SWEEP, state="FINISHED"))
        assert tracker.close(timeout_s=60) is None
    assert len(said) == 1
    assert all_runs(store)[""].info.status == "FINISHED"


# --- sweeps that no process runs any more -------------------------------------------------------------------------


def statuses(uri: str) -> dict[str, str]:
    return {trial: run.info.status for trial, run in all_runs(uri).items()}


def interrupted(paths: SweepPaths, ended: str = "") -> None:
    """A ledger with a trial of each state, whose process ended with the state ``ended`` or was killed ("")."""
    with Ledger(paths.ledger, ticking()) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING", payload={"name": "tiny"})
        for number, (trial, epochs, state) in enumerate((("aa", 2, "COMPLETED"), ("bb", 1, "PAUSED"))):
            create_trial(ledger, trial, number)
            train(ledger, trial, epochs, state)
        create_trial(ledger, "cc", 2)
        ledger.append(EventKind.TRIAL, trial="cc", state="RUNNING", attempt=1)
        create_trial(ledger, "dd", 3)
        if ended:
            ledger.append(EventKind.SWEEP, state=ended)


CLOSED = {"": "KILLED", "aa": "FINISHED", "bb": "KILLED", "cc": "KILLED", "dd": "KILLED"}


def test_sync_closes_the_runs_of_a_killed_sweep_and_a_resumed_one_goes_on_with_them(tmp_path: Path, store: str) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    interrupted(paths)
    result = synchronise(paths.root, TrackingSettings(store))
    assert statuses(store) == CLOSED
    assert result.closed == 4
    assert "4 open runs were closed there as KILLED" in str(result)
    before = assert_mirrors(paths, store)
    assert before["cc"].info.end_time >= before["cc"].info.start_time
    assert "orch sweep --resume" in before["cc"].data.tags["orch.reason"]
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


def test_sync_leaves_a_sweep_alone_that_still_runs(tmp_path: Path, store: str) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    interrupted(paths)
    with Ledger(paths.ledger):  # as the process that runs it holds it
        assert synchronise(paths.root, TrackingSettings(store)).closed == 0
        assert statuses(store) == {"": "RUNNING", "aa": "FINISHED", "bb": "RUNNING", "cc": "RUNNING", "dd": "SCHEDULED"}
    assert synchronise(paths.root, TrackingSettings(store)).closed == 4


def test_the_machine_of_the_sweep_is_kept_whoever_syncs(tmp_path: Path, store: str) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING")
    write_cursor(
        paths.tracking_cursor, Cursor(PORT_OF_NOBODY, environment={"machine.cores": "96", "git.commit": "abc"})
    )
    synchronise(paths.root, TrackingSettings(store))
    tags = all_runs(store)[""].data.tags
    assert tags["orch.machine.cores"] == "96"
    assert tags["mlflow.source.git.commit"] == "abc"


# --- real servers -------------------------------------------------------------------------------------------------


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


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URI of an empty Postgres database."""
    if shutil.which("pg_ctl") is None or shutil.which("initdb") is None:
        pytest.skip("pg_ctl and initdb are not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'psycopg[binary]')")
    as_user = "postgres" if os.geteuid() == 0 else None  # Postgres refuses to run as root
    folder, port = Path(tempfile.mkdtemp(prefix="orch-pg-")), free_port()
    try:
        if as_user:
            shutil.chown(folder, as_user)
        run = functools.partial(subprocess.run, user=as_user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        run(["initdb", "-D", f"{folder}/data", "-U", "orch", "-A", "trust"])
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        run(["pg_ctl", "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", "start"])
        yield f"postgresql://orch@127.0.0.1:{port}/postgres"
        run(["pg_ctl", "-D", f"{folder}/data", "-m", "fast", "-w", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_postgres_holds_the_same(sweep: SweepPaths, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sweep.root)  # artifacts of a bare database lie below the current folder
    synchronise(sweep.root, TrackingSettings(postgres))
    sweep.tracking_cursor.unlink()
    synchronise(sweep.root, TrackingSettings(postgres))
    assert_mirrors(sweep, postgres)


def test_importing_the_tracker_does_not_import_mlflow() -> None:
    code = "import sys, orchestrator.tracking, orchestrator.tracking.registry; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
