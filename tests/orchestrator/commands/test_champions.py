"""`orch champions`, and the way back, on a real registry whose files nobody reads."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.commands.champions import list_champions, records, roll_back, to_rich
from orchestrator.errors import OrchError
from orchestrator.tracking.champions import REPLACES, set_champion
from orchestrator.tracking.mlflow_store import connect
from tests.support.fake_store import new_store

EN_DASH = "\N{EN DASH}"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Three versions; the first two were champions before championships were recorded."""
    monkeypatch.chdir(tmp_path)
    uri = new_store(tmp_path / "store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = connect(uri)
    client.create_registered_model("trash")
    for number in ("1", "2", "3"):
        tags = {"orch.sweep_name": f"s{number}", "orch.form": "ensemble", "orch.policy": "flip"}
        tags |= {"orch.test_accuracy": f"0.9{number}00", "orch.test_accuracy_low": "0.8", "orch.test_photos": "380"}
        client.create_model_version("trash", "s3://nowhere/model", tags=tags | {"orch.test_accuracy_high": "0.95"})
    client.set_model_version_tag("trash", "2", REPLACES, "1")
    client.set_model_version_tag("trash", "2", "orch.override", "lower-accuracy, different-classes")
    client.set_registered_model_alias("trash", "champion", "2")
    return uri


def test_every_champion_is_listed_with_its_evidence(store: str) -> None:
    assert set_champion(store, "trash", "3", instead_of="2")
    name, rows = list_champions("trash")
    assert name == "trash"
    assert [(row.version, row.replaces, row.is_champion) for row in rows] == [
        ("3", "2", True),
        ("2", "1", False),
        ("1", "", False),
    ]
    assert rows[1].overridden == ("lower-accuracy", "different-classes")
    assert (rows[0].sweep, rows[0].accuracy, rows[0].test_photos) == ("s3", 0.93, 380)
    assert records(rows)[0]["since"].endswith("+00:00")
    text = io.StringIO()
    Console(file=text, width=140).print(to_rich(name, rows))
    assert f"93.0 (80.0{EN_DASH}95.0)" in text.getvalue()
    assert text.getvalue().count("★") == 2  # the row, and the caption


def test_after_a_rollback_the_row_of_the_return_is_the_champions(store: str) -> None:
    assert set_champion(store, "trash", "3", instead_of="2")
    said = roll_back("trash")
    assert said == "trash version 2 is the champion again, in place of version 3. Both stay in the registry."
    _, rows = list_champions("trash")
    assert [(row.version, row.by) for row in rows if row.is_champion] == [("2", "rollback")]


def test_a_model_without_a_champion(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OrchError, match="no champion of glass yet; trash has one"):
        list_champions("glass")
    with pytest.raises(OrchError, match=r"which model\? .* Name one: `orch champions NAME`"):
        list_champions(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(OrchError, match="there is no MLflow database"):
        list_champions("trash")
    assert not (tmp_path / "mlflow.db").exists()


def test_the_way_back_is_named_only_where_there_is_one(store: str) -> None:
    assert set_champion(store, "trash", "3", instead_of="2")
    name, rows = list_champions("trash")
    assert "`orch promote --rollback`" in to_rich(name, rows).notes[0]
    first = [dataclasses.replace(row, replaces="") for row in rows]
    assert to_rich(name, first).notes == ("★ in use now",)


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_no_word_is_cut_at_any_width(store: str, columns: int) -> None:
    connect(store).set_model_version_tag("trash", "3", "orch.sweep_name", "clothing-ladder-with-a-long-name")
    assert set_champion(store, "trash", "3", instead_of="2", override=("lower-accuracy", "different-classes"))
    text = io.StringIO()
    to_rich(*list_champions("trash")).print(Console(file=text, width=columns))
    printed = text.getvalue()
    assert max(map(len, printed.splitlines())) <= columns
    words = printed.replace(";", " ").replace(",", " ").split()
    for word in ("clothing-ladder-with-a-long-name", "lower-accuracy", "different-classes", f"(80.0{EN_DASH}95.0)"):
        assert word in words
    assert ("\n    test accuracy" in printed) == (columns < 140)
    assert ("ensemble, flip" in printed) == (columns < 140)
