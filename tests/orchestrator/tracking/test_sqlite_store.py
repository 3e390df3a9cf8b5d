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
from orchestrator.tracking.mlflow_store import connect, ui_command
from orchestrator.tracking.sqlite_store import ARTIFACTS, BEING_MADE_S, prepare, read_contents
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


@pytest.mark.slow
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


# --- a full disk

MOUNT = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'
SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh"]
"""With a size and a folder: runs a command that sees a small disk of its own in that folder."""
UI = """
import os, shutil, sys
from pathlib import Path
from orchestrator.cli import app
folder, old = Path(sys.argv[1]), sys.argv[2]
os.chdir(folder)
if old:
    shutil.copy(old, "mlflow.db")
    os.utime("mlflow.db", (1e9, 1e9))
    free = shutil.disk_usage(folder).free
    Path("filler").write_bytes(bytes(free))
status = app.run(["ui"])
print(status, sorted(each.name for each in folder.iterdir()))
"""


def ui_on_small_disk(folder: Path, size: str, old: Path | str = "") -> subprocess.CompletedProcess[str]:
    """Run ``orch ui`` on a disk that is too small, with the store ``old`` there and no space left, or without one."""
    folder.mkdir()
    command = [*SMALL_DISK, size, str(folder), sys.executable, "-c", UI, str(folder), str(old)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def _small_disks(tmp_path_factory: pytest.TempPathFactory) -> None:
    tried = shutil.which("unshare") and subprocess.run(
        [*SMALL_DISK, "100k", str(tmp_path_factory.mktemp("disk")), "true"], capture_output=True, check=False
    )
    if not tried or tried.returncode:
        pytest.skip("this user may not mount a small disk")


@pytest.mark.usefixtures("_small_disks")
def test_a_disk_that_fills_up_during_the_creation_is_named_and_nothing_stays_on_it(tmp_path: Path) -> None:
    done = ui_on_small_disk(tmp_path / "disk", "100k")
    assert done.stdout == "7 ['.mlflow.db.lock']\n"
    assert "mlflow.db cannot be created or opened: the disk is full; free some space, or name another" in done.stderr
    assert len(done.stderr.splitlines()) <= 3, done.stderr
    assert "SQL" not in done.stderr


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    """A store at one of MLflow's first revisions."""
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils
    from sqlalchemy import create_engine

    uri = f"sqlite:///{tmp_path / 'old.db'}"
    engine, config = create_engine(uri), utils._get_alembic_config(uri)
    utils.InitialBase.metadata.create_all(engine)
    revisions = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revisions[-10])
    engine.dispose()
    return tmp_path / "old.db"


@pytest.mark.usefixtures("_small_disks")
def test_a_store_of_an_older_mlflow_on_a_full_disk_is_not_called_incomplete(old_store: Path, tmp_path: Path) -> None:
    done = ui_on_small_disk(tmp_path / "disk", "4m", old_store)
    assert done.stdout == "7 ['.mlflow.db.lock', 'filler', 'mlflow.db']\n"
    assert "the disk is full; free some space" in done.stderr
    assert "incomplete" not in done.stderr


# --- links


def test_a_link_to_a_store_that_is_missing_stays_and_its_store_is_created(tmp_path: Path) -> None:
    shared, mine = tmp_path / "shared" / "mlflow.db", tmp_path / "mine" / "mlflow.db"
    mine.parent.mkdir()
    mine.symlink_to(shared)
    client = connect(f"sqlite:///{mine}")
    assert mine.readlink() == shared
    assert read_contents(shared).version
    assert client.get_experiment("0").artifact_location == (shared.parent / ARTIFACTS / "0").as_uri()
    assert [each.name for each in mine.parent.iterdir()] == ["mlflow.db"]


@pytest.mark.slow
def test_two_links_to_one_store_make_one_store(tmp_path: Path) -> None:
    """Each takes the lock of the other: it lies next to the store, not next to the links."""
    shared = tmp_path / "shared" / "mlflow.db"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlflow.db").symlink_to(shared)
    both = [begin(OPEN, tmp_path / name / "mlflow.db", name) for name in ("one", "two")]
    for each in both:
        printed = each.communicate(timeout=120)[0]
        assert (each.returncode, printed) == (0, "")
    assert experiments(shared) == {"Default", "one", "two"}
    assert all((tmp_path / name / "mlflow.db").is_symlink() for name in ("one", "two"))


def test_what_a_link_names_is_moved_away_not_the_link(torn: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    shared, mine = copied(torn, tmp_path / "shared"), tmp_path / "mlflow.db"
    mine.symlink_to(shared)
    with pytest.raises(TrackingError, match=r"Move it away: `mv ") as caught:
        connect(f"sqlite:///{mine}")
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
    assert experiments(mine) == {"Default"}
    assert mine.is_symlink()


def test_artifacts_lie_next_to_the_store_and_not_next_to_a_link(tmp_path: Path) -> None:
    new_store(tmp_path / "shared")
    (tmp_path / "mlflow.db").symlink_to(tmp_path / "shared" / "mlflow.db")
    assert (tmp_path / "shared" / ARTIFACTS).as_uri() in ui_command(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
