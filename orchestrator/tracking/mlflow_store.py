"""The MLflow store: its URI, a client, a reachability check, the UI's command."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from orchestrator.errors import TrackingError
from orchestrator.tracking import sqlite_store
from orchestrator.tracking.sqlite_store import ARTIFACTS, artifacts_folder, real_file, reason_in_words
from trainers.files.lookup import obstacle

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
ANSWER_WITHIN_S = 5.0
"""Maximum seconds for a server's first answer, checked before MLflow's client, whose own timeouts are far longer."""
QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Defaults for MLflow's environment variables: give up quickly, since callers retry, and print nothing."""


def store_uri(uri: str | None = None) -> str:
    """Resolve ``uri``, else ``MLFLOW_TRACKING_URI``, else ``DEFAULT_URI``; the path of a database file is absolute."""
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    path = database_file(chosen)
    return f"sqlite:///{path}" if path else chosen


def database_file(uri: str) -> Path | None:
    """Return the absolute path of a ``sqlite:`` URI; None for any other store."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).expanduser().absolute()


def connect(uri: str) -> MlflowClient:
    """Return a client of the store at ``uri``; create a missing database file.

    Raises TrackingError if the store cannot be used.
    """
    make_ready(uri)
    from mlflow import MlflowClient

    with reaching(uri):
        return MlflowClient(uri, uri)


def make_ready(uri: str) -> None:
    """Prepare any use of MLflow: create a missing database file, apply ``QUIET``, silence logs and warnings.

    Raises TrackingError if the store cannot be used, without MLflow's own long wait for a dead server.
    """
    why_not = trouble(uri)
    if why_not:
        raise TrackingError(why_not)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import logging
    import warnings

    import mlflow  # noqa: F401  # takes seconds

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"mlflow\.")
    path = database_file(uri)
    if path:
        sqlite_store.prepare(path)
    elif _scheme(uri) in DATABASE_PORTS:
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 2  # its ten attempts at a refused login take 100 s


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn any error from MLflow into a TrackingError that names the store."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise TrackingError(
            f"MLflow at {without_password(uri)} failed: {first_sentence(error)} "
            "Check the connection with `orch doctor`."
        ) from error


def first_sentence(error: BaseException) -> str:
    """Summarise ``error`` on one line of at most 300 characters that ends like a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    database = re.match(r"\((?:\w+\.)+\w+\) (.+?)(?: \[SQL: .*| \(Background on .*)?$", text)
    if database:  # SQLAlchemy adds the statement, its values and an address
        text = reason_in_words(database[1])
    refused = re.search(r"failed with error code (\d{3})", text)
    if "Max retries exceeded" in text:  # urllib3 wraps the reason in half a page
        reason = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)", text)
        text = f"no answer ({reason[1].lower() if reason else 'timed out' if 'timed out' in text else 'no connection'})"
    elif refused or "not in a valid JSON" in text:
        text = _explain_status(int(refused[1]) if refused else 200)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("psycopg"):
        text += "; for Postgres, pip install 'psycopg[binary]'"
    text = text if len(text) <= 300 else text[:297] + "..."
    return text if text.endswith((".", "!", "?")) else text + "."


def _explain_status(status: int) -> str:
    """Explain an HTTP status of a store."""
    if status in (401, 403):
        return (
            f"it requires a login ({status}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or MLFLOW_TRACKING_TOKEN"
        )
    if status >= 500:
        return f"the server reports an internal error ({status}); see its log"
    return f"the server there is not an MLflow server ({status}); check the address"


def without_password(uri: str) -> str:
    """Mask the password in ``uri``."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


def ui_command(port: int = 5000, uri: str | None = None, host: str = "127.0.0.1") -> list[str]:
    """Return the command behind ``orch ui``: an MLflow server for a local store, or a browser at a remote one."""
    uri = store_uri(uri)
    if uri.startswith(("http://", "https://")):
        return [sys.executable, "-m", "webbrowser", uri]
    path = database_file(uri)
    artifacts = artifacts_folder(path) if path else Path.cwd() / ARTIFACTS
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", host]
    return [*command, "--port", str(port), "--workers", "1", "--artifacts-destination", artifacts.as_uri()]


def reachable(uri: str | None = None, timeout_s: float = 3.0) -> tuple[bool, str]:
    """Return whether the store answers, and a sentence about it. Never raises, never creates the store."""
    uri = store_uri(uri)
    why_not = trouble(uri, timeout_s)
    if why_not:
        return False, why_not
    shown, path = without_password(uri), database_file(uri)
    if path:
        return True, f"MLflow's database {path} {'exists' if path.is_file() else 'is created by the first sweep'}."
    if uri.startswith(("http://", "https://")):
        return True, f"the MLflow server at {shown} answers."
    if urlsplit(uri).hostname:
        return True, f"the database at {shown} accepts connections."
    return True, f"MLflow's folder {_folder(uri)} exists."


def trouble(uri: str, timeout_s: float | None = None) -> str:
    """Explain in a sentence why the store at ``uri`` cannot be used; "" if no problem is found.

    Checks the disk or the server's port without MLflow, whose own attempts can take minutes. Never creates the store.
    ``timeout_s`` defaults to ``ANSWER_WITHIN_S``.
    """
    timeout_s = ANSWER_WITHIN_S if timeout_s is None else timeout_s
    path = database_file(uri)
    if path:
        return _trouble_of_file(path)
    if uri.startswith(("http://", "https://")):
        return _trouble_of_server(uri, timeout_s)
    parts, shown = urlsplit(uri), without_password(uri)
    if parts.hostname:
        try:
            port = parts.port or DATABASE_PORTS.get(_scheme(uri), 5432)
            socket.create_connection((parts.hostname, port), timeout=timeout_s).close()
        except (OSError, ValueError) as error:
            return f"no database answers at {shown}: {_describe(error, timeout_s)}. Start it, or correct the address."
        return ""
    if parts.scheme in ("", "file"):
        if why := obstacle(_folder(uri)):
            return f"MLflow's folder {_folder(uri)} cannot be used: {why}. Correct MLFLOW_TRACKING_URI or tracking.uri."
        return "" if _folder(uri).is_dir() else f"MLflow's folder {_folder(uri)} does not exist."
    return f"{shown} is not the address of an MLflow store; use sqlite:///FILE or http://HOST:PORT."


def _scheme(uri: str) -> str:
    """Return ``postgresql`` for ``postgresql+psycopg://...``."""
    return urlsplit(uri).scheme.split("+")[0]


def _folder(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path) or uri)


def _trouble_of_file(path: Path) -> str:
    path = real_file(path)
    if why := obstacle(path):
        return f"MLflow's database {path} cannot be used: {why}. Set MLFLOW_TRACKING_URI or tracking.uri to another."
    if path.is_dir():
        return f"MLflow's database {path} is a folder; name a file in MLFLOW_TRACKING_URI or tracking.uri."
    if path.is_file() and not os.access(path, os.R_OK | os.W_OK):
        return f"MLflow's database {path} is not writable; change its permissions."
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir():
        return (
            f"MLflow's database {path} cannot be created: {parent} is a file. Set MLFLOW_TRACKING_URI or tracking.uri."
        )
    if not os.access(parent, os.W_OK):  # SQLite writes a journal next to the file
        doing = "written" if path.is_file() else "created"
        return f"MLflow's database {path} cannot be {doing}: {parent} is not writable. Set MLFLOW_TRACKING_URI."
    return ""


def _trouble_of_server(uri: str, timeout_s: float) -> str:
    shown = without_password(uri)
    without_login = re.sub(r"://[^/@]*@", "://", uri)  # urllib takes a user name for the host
    try:
        with urllib.request.urlopen(f"{without_login.rstrip('/')}/health", timeout=timeout_s) as answer:
            answer.read(16)
    except urllib.error.HTTPError as error:
        if error.code < 500:  # may be a login, or a server with the API alone: MLflow's client finds out
            return ""
        return f"the MLflow server at {shown} cannot be used: {_explain_status(error.code)}."
    except (http.client.HTTPException, UnicodeError):
        return f"the server at {shown} is not an MLflow server; check the address."
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # MLflow has its own settings for certificates
            return ""
        why = _describe(reason, timeout_s)
        return f"no MLflow server answers at {shown}: {why}. Start it, or correct MLFLOW_TRACKING_URI or tracking.uri."
    return ""


def _describe(reason: object, timeout_s: float) -> str:
    if isinstance(reason, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(reason, socket.gaierror):
        return "there is no host with that name"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    return " ".join(str(reason).split()).rstrip(".") or type(reason).__name__
