"""MLflow shows what the ledger says: against real stores, through failures, and never twice."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.errors import TrackingError
from orchestrator.ledger.kept import FILES, checksums
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind, read_events
from orchestrator.paths import SweepPaths, command_line
from orchestrator.tracking.cursor import Cursor, read_cursor, write_cursor
from orchestrator.tracking.mlflow_store import connect
from orchestrator.tracking.mlflow_writer import MlflowWriter
from orchestrator.tracking.settings import TrackingSettings
from orchestrator.tracking.tracker import synchronise
from tests.support.fake_store import free_port, new_store, small_server
from tests.support.tracked_sweep import (
    CLOSED_PORT,
    CONFIG,
    all_runs,
    assert_mirrors,
    create_trial,
    extend,
    interrupted,
    statuses,
    ticking,
    train,
    write_sweep,
)


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


@pytest.mark.parametrize("name", ["leaderboard.parquet", "leaderboard.md", "spec.yaml"])
def test_a_damaged_file_is_not_sent_and_is_named(sweep: SweepPaths, store: str, name: str) -> None:
    path = sweep.named(name)
    content = path.read_bytes()
    with Ledger(sweep.ledger, ticking(1.8e9)) as ledger:
        ledger.append(EventKind.NOTE, payload={FILES: checksums(sweep, [path])})
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (sentence,) = synchronise(sweep.root, TrackingSettings(store)).refused
    assert sentence.startswith(f"It was not sent to MLflow: {path} is damaged: its bytes do not match the checksum")
    client = connect(store)
    parent = all_runs(store)[""]
    assert name not in {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert (parent.data.metrics == {}) == (name == "leaderboard.parquet")
    assert ("| aa | whole" not in parent.data.tags["mlflow.note.content"]) == (name == "leaderboard.md")
    path.write_bytes(content)
    assert synchronise(sweep.root, TrackingSettings(store)).refused == ()
    assert name in {f.path for f in client.list_artifacts(parent.info.run_id)}


def test_artifacts_are_next_to_the_database(
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
    assert "up to date" in str(second)


@pytest.mark.parametrize("lost", ["all of it", "its last half"])
def test_a_lost_cursor_makes_no_second_run(sweep: SweepPaths, store: str, lost: str) -> None:
    before = synchronise(sweep.root, TrackingSettings(store))
    if lost == "all of it":
        sweep.tracking_cursor.unlink()
    else:
        kept = read_cursor(sweep.tracking_cursor)
        last = read_events(sweep.ledger)[7]
        write_cursor(sweep.tracking_cursor, Cursor(kept.uri, last.seq, last.time_s, kept.parent, {}, {}))
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
        TrackingError, match=r"no MLflow server .*connection refused.*Nothing is lost; .*`orch sync .*tiny'`"
    ):
        synchronise(sweep.root, TrackingSettings(CLOSED_PORT))


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


def send_all(paths: SweepPaths, settings: TrackingSettings, client: Unreliable, restart: bool = True) -> int:
    """Send everything, retrying after failures, with a new writer if ``restart``; return the number of failures."""
    failures = 0
    writer = MlflowWriter(paths, settings, client.open)
    writer.load()
    while True:
        try:
            while writer.flush():
                pass
        except ConnectionError:
            failures += 1
            if restart:
                writer.release()
                writer = MlflowWriter(paths, settings, client.open)
                writer.load()
        else:
            writer.release()
            return failures


@pytest.mark.parametrize(
    ("after", "restart"),
    [(True, True), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((False, True), (True, False)))],
)
def test_a_failure_at_any_call_is_retried(
    tmp_path: Path, after: bool, restart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tracking.mlflow_writer.BATCH_EVENTS", 4)
    sweep = write_sweep(tmp_path / "tiny", [("aa", 2, "PRUNED")])
    uri = new_store(tmp_path / "store")
    counting = Unreliable(0, after)
    send_all(sweep, TrackingSettings(uri), counting)
    assert counting.calls >= 12
    for fails_at in range(1, counting.calls + 1):
        sweep.tracking_cursor.unlink()
        elsewhere = TrackingSettings(uri, experiment=f"fails at {fails_at}")
        assert send_all(sweep, elsewhere, Unreliable(fails_at, after), restart) == 1
        runs = assert_mirrors(sweep, uri, elsewhere.experiment)
        assert len(connect(uri).list_artifacts(runs[""].info.run_id)) == 4


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (500, "internal error (500)"),
        (404, "not an MLflow server (404)"),
        (200, "not an MLflow server (200)"),
        (401, "login (401); set MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_what_a_server_answers_is_said_in_plain_words(sweep: SweepPaths, status: int, expected: str) -> None:
    with small_server(status) as uri, pytest.raises(TrackingError) as caught:
        synchronise(sweep.root, TrackingSettings(uri))
    assert expected in str(caught.value)
    assert f"`{command_line('sync', sweep.root)}`" in str(caught.value)


def test_sync_leaves_a_sweep_alone_that_still_runs(tmp_path: Path, store: str) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    interrupted(paths)
    with Ledger(paths.ledger):  # as the process that runs it holds it
        assert synchronise(paths.root, TrackingSettings(store)).closed == 0
        assert statuses(store) == {"": "RUNNING", "aa": "FINISHED", "bb": "RUNNING", "cc": "RUNNING", "dd": "SCHEDULED"}
    assert synchronise(paths.root, TrackingSettings(store)).closed == 4


def test_the_machine_of_the_sweep_is_kept_when_another_syncs(tmp_path: Path, store: str) -> None:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING")
    write_cursor(paths.tracking_cursor, Cursor(CLOSED_PORT, environment={"machine.cores": "96", "git.commit": "abc"}))
    synchronise(paths.root, TrackingSettings(store))
    tags = all_runs(store)[""].data.tags
    assert tags["orch.machine.cores"] == "96"
    assert tags["mlflow.source.git.commit"] == "abc"


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
