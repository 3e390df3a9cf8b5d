"""The MLflow store: where it is, a client of it, whether it answers, its UI.

With ``synchroniser`` and ``registry`` one of the three modules that know MLflow. It is imported inside functions: that
takes seconds.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from orchestrator.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACTS = "mlartifacts"
"""The folder of artifacts, beside the database file of a local store."""
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def store_uri(uri: str | None = None) -> str:
    """``uri``, else ``MLFLOW_TRACKING_URI``, else a database file here; a local file's path made absolute."""
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    path = database_file(chosen)
    return f"sqlite:///{path}" if path else chosen


def database_file(uri: str) -> Path | None:
    """The file of a ``sqlite:`` URI, absolute; None for any other store."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).expanduser().absolute()


def connect(uri: str) -> MlflowClient:
    """A client of the store at ``uri``, quiet, and quick to give up: its callers try again themselves."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import logging
    import warnings

    from mlflow import MlflowClient  # takes seconds

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"mlflow\.")
    path = database_file(uri)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(uri, uri)


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises inside into a TrackingError that names the store."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise TrackingError(
            f"MLflow at {without_password(uri)} did not do it: {first_sentence(error)} "
            "`orch doctor` says whether it can be reached."
        ) from error


def first_sentence(error: BaseException) -> str:
    """The start of what ``error`` says, on one line, at most 300 characters; ends like a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "Max retries exceeded" in text:  # urllib3 wraps the reason in half a page
        reason = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)", text)
        text = f"no answer ({reason[1].lower() if reason else 'timed out' if 'timed out' in text else 'no connection'})"
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("psycopg"):
        text += "; for Postgres, pip install 'psycopg[binary]'"
    text = text if len(text) <= 300 else text[:297] + "..."
    return text if text.endswith((".", "!", "?")) else text + "."


def without_password(uri: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


def ui_command(port: int = 5000, uri: str | None = None, host: str = "127.0.0.1") -> list[str]:
    """The command behind ``orch ui``: a server on the local store, or a browser on the server's own address."""
    uri = store_uri(uri)
    if uri.startswith(("http://", "https://")):
        return [sys.executable, "-m", "webbrowser", uri]
    path = database_file(uri)
    artifacts = (path.parent if path else Path.cwd()) / ARTIFACTS
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", host]
    return [*command, "--port", str(port), "--workers", "1", "--artifacts-destination", artifacts.as_uri()]


def reachable(uri: str | None = None, timeout_s: float = 3.0) -> tuple[bool, str]:
    """Whether the store answers, and a sentence. Never raises, never creates the store."""
    uri = store_uri(uri)
    shown = without_password(uri)
    path = database_file(uri)
    if path:
        return _reachable_file(path)
    if uri.startswith(("http://", "https://")):
        return _reachable_server(uri, shown, timeout_s)
    parts = urlsplit(uri)
    if parts.hostname:
        try:
            port = parts.port or {"postgresql": 5432, "mysql": 3306, "mssql": 1433}.get(
                parts.scheme.split("+")[0], 5432
            )
            socket.create_connection((parts.hostname, port), timeout=timeout_s).close()
        except (OSError, ValueError) as error:
            return False, f"no database answers at {shown}: {first_sentence(error)} Is it started?"
        return True, f"the database at {shown} takes connections."
    folder = Path(unquote(parts.path) or uri)
    if parts.scheme in ("", "file"):
        return folder.is_dir(), f"MLflow's folder {folder} {'is there' if folder.is_dir() else 'does not exist'}."
    return False, f"{shown} is not an address of an MLflow store; use sqlite:///FILE or http://HOST:PORT."


def _reachable_file(path: Path) -> tuple[bool, str]:
    if path.is_file():
        ok = os.access(path, os.R_OK | os.W_OK)
        return ok, f"MLflow's database {path} is {'there' if ok else 'not writable; change its permissions'}."
    parent = next(folder for folder in path.parents if folder.exists())
    ok = parent.is_dir() and os.access(parent, os.W_OK)
    if ok:
        return True, f"MLflow's database {path} is made by the first sweep."
    return False, f"MLflow's database {path} cannot be made: {parent} is not writable. Set MLFLOW_TRACKING_URI."


def _reachable_server(uri: str, shown: str, timeout_s: float) -> tuple[bool, str]:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout_s) as answer:
            answer.read(16)
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", error)
        return False, f"no MLflow server answers at {shown}: {reason}. Start it, or unset MLFLOW_TRACKING_URI."
    return True, f"the MLflow server at {shown} answers."
