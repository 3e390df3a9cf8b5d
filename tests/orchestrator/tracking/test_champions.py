"""Champions one after the other, the way back, and two processes at once, in a real registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import OrchError
from orchestrator.tracking import registry
from orchestrator.tracking.champions import one_promotion, roll_back, set_champion, versions
from orchestrator.tracking.mlflow_store import connect
from tests.support.fake_store import free_port, new_store, running_server
from tests.support.places import ROOT


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A registry with four versions of ``trash``, whose files nobody reads."""
    return filled(new_store(tmp_path / "store"))


def filled(uri: str) -> str:
    client = connect(uri)
    client.create_registered_model("trash")
    for _ in range(4):
        client.create_model_version("trash", "s3://nowhere/model")
    return uri


def champion_of(uri: str) -> str:
    found = registry.champion(uri, "trash")
    assert found is not None
    return found.version


def test_a_rollback_returns_to_the_one_before_and_is_recorded(store: str) -> None:
    assert set_champion(store, "trash", "1", instead_of=None)
    assert set_champion(store, "trash", "2", ("lower-accuracy",), instead_of="1")
    assert set_champion(store, "trash", "4", instead_of="2")
    assert roll_back(store, "trash") == ("4", "2")
    assert roll_back(store, "trash") == ("2", "1")
    assert champion_of(store) == "1"
    with pytest.raises(OrchError, match="no champion of trash before version 1: it replaced none"):
        roll_back(store, "trash")
    told = {
        info.version: [(c["by"], c["replaces"], c["override"]) for c in info.championships]
        for info in versions(store, "trash")
    }
    assert told == {
        "1": [("promote", "", []), ("rollback", "2", [])],
        "2": [("promote", "1", ["lower-accuracy"]), ("rollback", "4", [])],
        "3": [],
        "4": [("promote", "2", [])],
    }
    assert all(c["since"].endswith("+00:00") for info in versions(store, "trash") for c in info.championships)
    assert set_champion(store, "trash", "3", instead_of="1")
    assert roll_back(store, "trash") == ("3", "1")


def test_a_champion_that_was_deleted_is_not_returned_to(store: str) -> None:
    assert set_champion(store, "trash", "1", instead_of=None)
    assert set_champion(store, "trash", "2", instead_of="1")
    connect(store).delete_model_version("trash", "1")
    with pytest.raises(OrchError, match="version 1, which it replaced, was deleted"):
        roll_back(store, "trash")
    assert champion_of(store) == "2"


def test_without_a_champion_there_is_nothing_to_return_to(store: str) -> None:
    with pytest.raises(OrchError, match="there is no champion of trash yet"):
        roll_back(store, "trash")
    assert versions(store, "glass") == []


def test_the_alias_moves_only_from_where_it_was(store: str) -> None:
    assert not set_champion(store, "trash", "2", instead_of="1")
    assert set_champion(store, "trash", "2", instead_of=None)
    assert not set_champion(store, "trash", "3", instead_of=None)
    assert champion_of(store) == "2"
    assert [info.championships == [] for info in versions(store, "trash")] == [True, False, True, True]


@pytest.mark.slow
def test_a_long_history_is_cut_to_what_a_tag_holds(store: str) -> None:
    assert set_champion(store, "trash", "1", instead_of=None)
    for _ in range(33):
        assert set_champion(store, "trash", "2", instead_of="1")
        roll_back(store, "trash")
    first, second, *_ = versions(store, "trash")
    assert len(first.championships) == len(second.championships) == 30
    assert len(first.tags[registry.CHAMPIONSHIPS]) < 5000


RACE = """
import sys
from orchestrator.tracking import registry
from orchestrator.tracking.champions import one_promotion, set_champion
uri, version = sys.argv[1:]
registry.champion(uri, "trash")  # MLflow takes seconds to import
print("ready", flush=True)
sys.stdin.readline()
with one_promotion(uri, "trash"):
    found = registry.champion(uri, "trash")
    assert set_champion(uri, "trash", version, instead_of=found.version if found else None)
"""


RACED = [0, 0], [[""], ["first"]], ("last", "first")


def race(uri: str) -> tuple[list[int], list[list[str]], tuple[str, ...]]:
    """Two processes promote at the same instant; return their exit codes, which champions the first and the last of
    them replaced, and the two of a rollback."""
    command = [sys.executable, "-c", RACE, uri]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    both = [subprocess.Popen([*command, version], **pipes) for version in ("2", "3")]  # type: ignore[call-overload]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    codes = [process.wait(120) for process in both]
    last = champion_of(uri)
    first = "2" if last == "3" else "3"
    names, by_version = {first: "first", last: "last"}, {info.version: info for info in versions(uri, "trash")}
    replaced = [[c["replaces"] for c in by_version[version].championships] for version in (first, last)]
    back = tuple(names.get(str(version), str(version)) for version in roll_back(uri, "trash"))
    return codes, [[names.get(version, version) for version in each] for each in replaced], back


def test_two_processes_at_once_end_with_one_champion_and_both_recorded(store: str) -> None:
    assert race(store) == RACED


@pytest.mark.slow
def test_the_same_through_a_server(tmp_path: Path) -> None:
    with running_server(tmp_path / "server", free_port()) as uri:
        assert race(filled(uri)) == RACED


def test_the_lock_of_one_model_does_not_hold_off_another(store: str) -> None:
    with one_promotion(store, "trash"), one_promotion(store, "glass"):
        assert registry.champion(store, "glass") is None
