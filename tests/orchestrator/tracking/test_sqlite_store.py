"""MLflow's database is made by one process, whole or not at all: real processes, real kills."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.cli import app
from orchestrator.errors import TrackingError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from orchestrator.tracking.mlflow_store import connect
from orchestrator.tracking.sqlite_store import BEING_MADE_S, prepare, read_contents
from tests.support.fake_store import new_store
from tests.support.places import ROOT

OPEN = (
    "import sys; from orchestrator.tracking.mlflow_store import connect; "
    "connect(sys.argv[1]).create_experiment(sys.argv[2])"
)
PLAIN = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"


def begin(code: str, path: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, f"sqlite:///{path}", *words]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def experiments(path: Path) -> set[str]:
    return {each.name for each in connect(f"sqlite:///{path}").search_experiments()}


def kill_while_making(code: str, folder: Path, name: str, size: int = 100_000) -> None:
    """SIGKILL to a process once the file ``name``, which it writes, holds more than ``size`` bytes of tables."""
    maker = begin(code, folder / "mlflow.db", "killed")
    deadline_s = time.monotonic() + 120
    while True:
        assert time.monotonic() < deadline_s
        assert maker.poll() is None, maker.communicate()[0]
        file = folder / name
        if file.is_file() and file.stat().st_size > size:
            break
        time.sleep(0.01)
    os.killpg(maker.pid, signal.SIGKILL)
    maker.communicate()


def test_two_processes_at_once_make_one_store(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "mlflow.db"
    both = [begin(OPEN, path, name) for name in ("one", "two")]
    for each in both:
        printed = each.communicate(timeout=120)[0]
        assert (each.returncode, printed) == (0, "")
    assert experiments(path) == {"Default", "one", "two"}
    assert {each.name for each in path.parent.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}


def test_a_kill_during_the_creation_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    kill_while_making(OPEN, tmp_path, ".mlflow.db.new")
    assert not (tmp_path / "mlflow.db").exists()
    connect(f"sqlite:///{tmp_path / 'mlflow.db'}").create_experiment("next")
    assert experiments(tmp_path / "mlflow.db") == {"Default", "next"}


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What plain MLflow leaves when it is killed while it makes the tables in place."""
    for size in range(20_000, 420_000, 40_000):  # a kill between two of MLflow's steps leaves a store that it completes
        folder = tmp_path_factory.mktemp("torn")
        kill_while_making(PLAIN, folder, "mlflow.db", size)
        if read_contents(folder / "mlflow.db").is_torn:  # rolls back what is in the journal
            return folder / "mlflow.db"
    pytest.fail("no kill came in the middle of one of MLflow's steps")


def copied(torn: Path, folder: Path) -> Path:
    shutil.copy(torn, folder / "mlflow.db")
    long_ago = time.time() - 2 * BEING_MADE_S
    os.utime(folder / "mlflow.db", (long_ago, long_ago))
    return folder / "mlflow.db"


def test_a_half_made_store_is_named_with_the_way_out(torn: Path, tmp_path: Path) -> None:
    path = copied(torn, tmp_path)
    with pytest.raises(TrackingError, match=r"incomplete.*It holds no runs\. Move it away: `mv ") as caught:
        connect(f"sqlite:///{path}")
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
    assert experiments(path) == {"Default"}
    assert path.with_name("mlflow.db.incomplete").is_file()


def test_sync_says_what_to_type_about_a_half_made_store(
    torn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    copied(torn, tmp_path)
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="FINISHED")
    shutil.copy(ROOT / "search_spaces" / "quick.yaml", paths.spec)
    assert app.run(["sync"]) == 7
    output = capsys.readouterr().err
    assert "mlflow.db.incomplete" in output
    assert "`orch sync runs/tiny`" in output
    assert "when it is back" not in output
    assert app.run(["ui"]) == 7
    assert "mlflow.db.incomplete" in capsys.readouterr().err


def execute(path: Path, *statements: str) -> Path:
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()
    return path


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("CREATE TABLE _alembic_tmp_tags (x)", "incomplete"),
        ("DELETE FROM alembic_version", "incomplete"),
        ("DROP TABLE alembic_version", "incomplete"),
        ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "another version of MLflow.*mlflow db upgrade"),
    ],
)
def test_a_store_that_is_not_as_it_should_be(tmp_path: Path, statement: str, expected: str) -> None:
    new_store(tmp_path)
    path = execute(tmp_path / "mlflow.db", statement)
    os.utime(path, (1e9, 1e9))
    with pytest.raises(TrackingError, match=expected):
        prepare(path)


def test_an_incomplete_store_with_runs_is_not_called_empty(tmp_path: Path) -> None:
    client = connect(new_store(tmp_path))
    client.create_run("0")
    path = execute(tmp_path / "mlflow.db", "CREATE TABLE _alembic_tmp_tags (x)")
    os.utime(path, (1e9, 1e9))
    with pytest.raises(TrackingError, match="It holds 1 run"):
        prepare(path)


@pytest.mark.slow
def test_a_store_that_another_program_still_makes_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    maker = begin(PLAIN, path)
    while not path.is_file() or path.stat().st_size < 50_000:
        assert maker.poll() is None
        time.sleep(0.01)
    prepare(path)
    assert maker.communicate(timeout=120)[0] is not None
    assert maker.returncode == 0
    assert experiments(path) == {"Default"}


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.db"
    text.write_text("not a database at all, " * 100)
    with pytest.raises(TrackingError, match=r"not an MLflow database.*MLFLOW_TRACKING_URI"):
        prepare(text)
    other = execute(tmp_path / "other.db", "CREATE TABLE studies (x)", "CREATE TABLE alembic_version (version_num)")
    os.utime(other, (1e9, 1e9))
    with pytest.raises(TrackingError, match="not an MLflow database"):
        prepare(other)
    assert read_contents(other).tables == {"studies", "alembic_version"}
    with pytest.raises(TrackingError, match="is a folder"):
        connect(f"sqlite:///{tmp_path}")
    with pytest.raises(TrackingError, match="is a file"):
        connect(f"sqlite:///{text}/below.db")


def test_a_journal_of_a_store_that_was_moved_away_is_not_rolled_back_into_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"")
    path.with_name("mlflow.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(2000))
    prepare(path)
    assert not path.with_name("mlflow.db-journal").exists()
    assert experiments(path) == {"Default"}
