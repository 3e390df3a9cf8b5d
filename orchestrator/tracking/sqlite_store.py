"""MLflow's SQLite database: created atomically, by one process.

MLflow creates its tables in dozens of steps, each its own commit, so a kill or a second process leaves a database that
it cannot use. Here the tables are created in a file next to the database, which is then renamed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from orchestrator.errors import TrackingError
from trainers.wording import first_line

ARTIFACTS = "mlartifacts"
"""Name of the artifacts' folder, next to the database file."""
REASONS = {
    "database or disk is full": "the disk is full; free some space",
    "disk i/o error": "the disk refuses to read or write; check its free space, its quota and its log",
    "readonly database": "the file or its folder is not writable; change its permissions",
    "unable to open database file": "the file or its folder cannot be opened; check their permissions",
}
"""Part of SQLite's message, in lower case -> what it means and what to do."""
CREATION_LOCK_S = 120.0
"""Maximum seconds to wait for another process that is creating the database."""
BEING_MADE_S = 10.0
"""Seconds without a change after which an incomplete database counts as abandoned."""
ASK_AGAIN_S = 0.5
"""Seconds between two looks at a database that another program is creating."""


@dataclass(frozen=True)
class Contents:
    """What a database file holds.

    ``version``: MLflow's schema revision, "" if none is recorded. ``runs``: number of runs, 0 without such a table.
    """

    tables: frozenset[str] = frozenset()
    version: str = ""
    runs: int = 0

    @property
    def is_foreign(self) -> bool:
        """Whether the database belongs to another program."""
        return bool(self.tables) and "experiments" not in self.tables

    @property
    def is_torn(self) -> bool:
        """Whether the file shows traces of an interrupted creation or upgrade."""
        return bool(self.tables) and (not self.version or any(name.startswith("_alembic_tmp") for name in self.tables))


def prepare(path: Path) -> None:
    """Create the database in ``path`` unless it exists. Raises TrackingError if it cannot be created or used.

    A symbolic link stays, and the file that it names is created, under one lock for all links to it.
    """
    path = real_file(path)
    with _as_tracking_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_complete(read_contents(path)):
            return
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=CREATION_LOCK_S):
            contents = _settled(path)
            if not contents.tables:
                _create(path)
            elif contents.is_foreign:
                raise TrackingError(_unusable(path, "not an MLflow database"))
            elif contents.is_torn:
                raise TrackingError(incomplete(path, contents))
            elif not _is_complete(contents):
                _open_store(path, path, contents)


def real_file(path: Path) -> Path:
    """Resolve the symbolic links of ``path``, which need not exist: SQLite and ``ARTIFACTS`` use the folder of that."""
    return Path(os.path.realpath(path))


def artifacts_folder(path: Path) -> Path:
    """Return the folder of the artifacts of the database in ``path``; the same for every link to the database."""
    return real_file(path).parent / ARTIFACTS


def reason_in_words(text: str) -> str:
    """Return what a message of SQLite means; ``text`` if it is none of ``REASONS``."""
    return next((words for part, words in REASONS.items() if part in text.lower()), text)


def read_contents(path: Path) -> Contents:
    """Read what the file holds; empty contents if it is missing or empty. Raises sqlite3.Error, OSError."""
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return Contents()
    # "rw": a read-only connection cannot roll back the journal of a killed process
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=20)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        versions = database.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else ()
        version = next((str(number) for (number,) in versions), "")
        runs = database.execute("SELECT COUNT(*) FROM runs").fetchone()[0] if "runs" in tables else 0
    return Contents(frozenset(tables), version, int(runs))


def incomplete(path: Path, contents: Contents) -> str:
    """Explain an incomplete database and how to move it away."""
    kept = f"It holds {contents.runs} runs, which the moved file keeps." if contents.runs else "It holds no runs."
    return (
        f"MLflow's database {path} is incomplete: its creation was interrupted, or two processes created it at once. "
        f"{kept} Move it away: `{_mv(path, 'incomplete')}`."
    )


def _is_complete(contents: Contents) -> bool:
    if contents.is_torn or not contents.tables:
        return False
    from mlflow.store.db import utils  # noqa: F401  # registers all tables
    from mlflow.store.db.base_sql_model import Base

    return set(Base.metadata.tables) <= contents.tables and contents.version == _newest_version()


@functools.cache
def _newest_version() -> str:
    from mlflow.store.db import utils

    return str(utils._get_latest_schema_revision())


def _settled(path: Path) -> Contents:
    """Wait until a program that creates the tables in place (plain ``mlflow``) is done or dead; return the contents."""
    contents = read_contents(path)
    while contents.tables and not _is_complete(contents) and time.time() - path.stat().st_mtime < BEING_MADE_S:
        time.sleep(ASK_AGAIN_S)
        contents = read_contents(path)
    return contents


def _create(path: Path) -> None:
    """Write the empty store next to ``path`` and rename it. The caller holds the lock."""
    temporary = path.with_name(f".{path.name}.new")
    files = (temporary, temporary.with_name(f"{temporary.name}-journal"))
    _remove(*files, path.with_name(f"{path.name}-journal"), path.with_name(f"{path.name}-wal"))  # of a killed process
    try:
        _open_store(temporary, path, Contents())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove(*files)
        raise


def _remove(*files: Path) -> None:
    """Remove ``files``: SQLite would apply the journal of an earlier database to a new one."""
    for file in files:
        file.unlink(missing_ok=True)


def _open_store(file: Path, path: Path, contents: Contents) -> None:
    """Let MLflow create or upgrade the tables in ``file``, which is or will be the database ``path``; close it.

    ``contents``: what the file holds. Raises TrackingError if MLflow cannot use them, and sqlite3.Error.
    """
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.exc import SQLAlchemyError

    uri = f"sqlite:///{file}"
    try:
        SqlAlchemyStore(uri, artifacts_folder(path).as_uri())  # creates the default experiment too
    except (CommandError, MlflowException, SQLAlchemyError) as error:
        cause = _sqlite_error(error)
        if cause is not None and not _is_about_tables(cause):
            raise cause from error
        raise TrackingError(_why_not_opened(path, contents, error)) from error
    finally:
        engine = SqlAlchemyStore._engine_map.pop(uri, None)  # the file may be renamed or removed
        if engine is not None:
            engine.dispose()


def _why_not_opened(path: Path, contents: Contents, error: Exception) -> str:
    """Explain why MLflow cannot use the tables of the database."""
    from mlflow.exceptions import MlflowException

    text = str(error)
    if "locate revision" in text:
        return (
            f"MLflow's database {path} was written by a newer MLflow than the installed one. "
            "Type: `pip install -U mlflow`."
        )
    if "out-of-date" in text:
        return (
            f"MLflow's database {path} was written by another version of MLflow. Keep a copy of it, "
            f"then type: `mlflow db upgrade {shlex.quote(f'sqlite:///{path}')}`."
        )
    if not contents.tables or (isinstance(error, MlflowException) and _sqlite_error(error) is None):
        return f"MLflow's database {path} cannot be created or opened: {first_line(error)}."
    return incomplete(path, contents)  # tables or rows are missing, or there already


def _sqlite_error(error: BaseException | None) -> sqlite3.Error | None:
    """Return SQLite's error among the causes of ``error``."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__ or error.__context__
    return error


def _is_about_tables(error: sqlite3.Error) -> bool:
    """Whether the tables are not as MLflow expects; any other error is about the file, the disk or a lock."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # missing if Python found the error
    return code & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT)


@contextlib.contextmanager
def _as_tracking_errors(path: Path) -> Iterator[None]:
    """Turn errors of the lock, SQLite and the disk into TrackingErrors."""
    try:
        yield
    except filelock.Timeout:
        raise TrackingError(
            f"another process has been creating MLflow's database {path} for {CREATION_LOCK_S:.0f} s; "
            "wait for it to end, or stop it."
        ) from None
    except sqlite3.DatabaseError as error:
        raise TrackingError(_why_unreadable(path, str(error))) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TrackingError(f"MLflow's database {path} cannot be created or opened: {reason}.") from error


def _why_unreadable(path: Path, reason: str) -> str:
    if "not a database" in reason:
        return _unusable(path, "not an MLflow database")
    if "malformed" in reason:
        return _unusable(path, "damaged")
    if "locked" in reason:
        return f"another program keeps MLflow's database {path} locked; close it."
    if path.is_dir():
        return f"MLflow's database {path} is a folder; name a file in MLFLOW_TRACKING_URI or tracking.uri."
    words = reason_in_words(reason)
    advice = ", or name another store" if words != reason else "; name another store"
    return (
        f"MLflow's database {path} cannot be created or opened: {words}{advice} in MLFLOW_TRACKING_URI or tracking.uri."
    )


def _unusable(path: Path, what: str) -> str:
    return (
        f"the file {path} is {what}. Move it away (`{_mv(path, 'moved')}`), "
        "or name another store in MLFLOW_TRACKING_URI or tracking.uri."
    )


def _mv(path: Path, suffix: str) -> str:
    """Return the command that renames the database."""
    return shlex.join(["mv", str(path), f"{path}.{suffix}"])
