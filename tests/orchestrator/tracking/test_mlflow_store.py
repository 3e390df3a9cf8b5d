"""The MLflow store: URI, reachability, the UI's command, error messages."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from orchestrator.tracking.mlflow_store import (
    first_sentence,
    reachable,
    store_uri,
    ui_command,
    without_password,
)
from tests.support.places import ROOT

POWERLESS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
"""Takes away root's right to write where the mode forbids it."""


def test_the_stores_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert store_uri("sqlite:///sub/x.db") == f"sqlite:///{tmp_path}/sub/x.db"
    assert store_uri("sqlite:////abs/x.db") == "sqlite:////abs/x.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert store_uri() == store_uri("") == "http://server:5000"
    assert store_uri("http://other") == "http://other"


def test_the_ui_of_a_local_store(tmp_path: Path) -> None:
    command = ui_command(5001, f"sqlite:///{tmp_path}/my runs/mlflow.db", "0.0.0.0")
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options == {
        "--backend-store-uri": f"sqlite:///{tmp_path}/my runs/mlflow.db",
        "--host": "0.0.0.0",
        "--port": "5001",
        "--workers": "1",
        "--artifacts-destination": (tmp_path / "my runs" / "mlartifacts").as_uri(),
    }


def test_the_ui_of_a_server_is_its_own_address() -> None:
    assert ui_command(uri="https://mlflow.example") == [sys.executable, "-m", "webbrowser", "https://mlflow.example"]


def test_reachable_files(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "mlflow.db"
    ok, sentence = reachable(f"sqlite:///{path}")
    assert ok
    assert sentence == f"MLflow's database {path} is created by the first sweep."
    assert not path.parent.exists()
    path.parent.mkdir()
    sqlite3.connect(path).execute("create table t (x)").connection.close()
    assert reachable(f"sqlite:///{path}") == (True, f"MLflow's database {path} exists.")
    ok, sentence = reachable(f"sqlite:///{path}/below.db")
    assert not ok
    assert "cannot be created" in sentence


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root writes everywhere")
def test_a_link_is_as_writable_as_the_file_that_it_names(tmp_path: Path) -> None:
    """SQLite writes its journal in the folder of that file."""
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.db").write_bytes(b"")
    (tmp_path / "open" / "link.db").symlink_to(tmp_path / "closed" / "file.db")
    (tmp_path / "closed" / "link.db").symlink_to(tmp_path / "open" / "file.db")
    (tmp_path / "closed").chmod(0o555)
    code = "import sys; from orchestrator.tracking.mlflow_store import reachable; print(*reachable(sys.argv[1]))"
    answers = {}
    for name in ("open", "closed"):
        command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / name / 'link.db'}"]
        before = POWERLESS if os.geteuid() == 0 else []
        answers[name] = subprocess.run([*before, *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (tmp_path / "closed").chmod(0o755)
    assert answers["closed"].startswith("True ")
    assert answers["open"].startswith("False ")
    assert f"{tmp_path / 'closed'} is not writable" in answers["open"]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://127.0.0.1:9", "no MLflow server answers at http://127.0.0.1:9: "),
        ("postgresql://me:secret@127.0.0.1:9/x", "no database answers at postgresql://me:***@127.0.0.1:9/x: "),
        ("gopher:x", "gopher:x is not the address of an MLflow store"),
        ("http://[bad", "no MLflow server answers at http://[bad: "),
    ],
)
def test_unreachable_stores(uri: str, expected: str) -> None:
    ok, sentence = reachable(uri)
    assert not ok
    assert sentence.startswith(expected)


def test_passwords_are_not_shown() -> None:
    assert without_password("postgresql://a:b@h/x") == "postgresql://a:***@h/x"
    assert without_password("http://h:5000/") == "http://h:5000/"


def test_a_missing_driver_says_how_to_get_it() -> None:
    missing = ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2")
    assert first_sentence(missing) == "No module named 'psycopg2'; for Postgres, pip install 'psycopg[binary]'."


def test_errors_are_shown_short() -> None:
    assert first_sentence(ValueError("a\n  b")) == "a b."
    assert first_sentence(ValueError("a b!")) == "a b!"
    assert first_sentence(ValueError()) == "ValueError."
    assert len(first_sentence(ValueError("x" * 999))) == 300


def test_a_databases_error_is_shown_without_its_statement() -> None:
    with create_engine("sqlite://").connect() as connection:
        connection.execute(text("CREATE TABLE t (x)"))
        connection.execute(text("PRAGMA max_page_count = 2"))
        with pytest.raises(OperationalError) as full:
            connection.execute(text("INSERT INTO t VALUES (:x)"), {"x": "a value" * 10_000})
        assert first_sentence(full.value) == "the disk is full; free some space."
        with pytest.raises(OperationalError) as other:
            connection.execute(text("SELECT y FROM t"))
        assert first_sentence(other.value) == "no such column: y."
