"""The person of the road: what a line sees, what is noticed, what stays running."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.road import pythons
from tests.road.person import SERVERS, Person, address_of, is_server
from tests.road.steps import Walk, dry_run, next_lines


@pytest.fixture
def person(tmp_path: Path) -> Person:
    (tmp_path / "folder").mkdir()
    return Person(Path(sys.prefix), tmp_path / "folder")


def test_a_line_sees_nothing_of_this_process(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("ORCH_DATA", "/photos")
    assert person.types('echo "$PYTHONPATH$ORCH_DATA" $COLUMNS "$HOME" "$PWD"').split() == [
        "80",
        str(person.home),
        str(person.folder),
    ]
    assert person.types("command -v python").strip() == f"{sys.prefix}/bin/python"


def test_exported_variables_hold_for_later_lines(person: Person) -> None:
    person.exports("export A=1 B='two words'")
    assert person.types('echo "$A $B"') == "1 two words\n"
    assert person.typed == ["export A=1 B='two words'", 'echo "$A $B"']


@pytest.mark.parametrize("line", ["exit 3", "echo 'Traceback (most recent call last)'"])
def test_a_wrong_end_and_a_traceback_are_failures(person: Person, line: str) -> None:
    with pytest.raises(AssertionError, match=r"exit 3 instead of|Traceback"):
        person.types(line)
    walk = Walk(person)
    assert walk.line(line) == ""
    assert len(walk.failures) == 1
    assert walk.line("exit 3", allowed=(0, 3)) == ""
    assert len(walk.failures) == 1


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


SERVER = """
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_server_answers_and_ends_with_ctrl_c(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SERVERS, "python server.py", 0)
    port = free_port()
    (person.folder / "server.py").write_text(SERVER)
    (person.folder / "health").write_text("well")
    with person.keeps_running(f"python server.py --port {port}") as url:
        assert urllib.request.urlopen(url).read() == b"well"
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(url)


def test_a_port_that_another_has_is_a_failure(person: Person) -> None:
    port = free_port()
    (person.folder / "health").write_text("well")
    command = [sys.executable, "-m", "http.server", str(port), "--directory", str(person.folder)]
    other = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        with (
            pytest.raises(AssertionError, match="something else answers"),
            person.keeps_running(f"orch ui --port {port}"),
        ):
            pass
    finally:
        other.kill()
        other.wait()


def test_a_server_that_ends_at_once_is_a_failure(person: Person) -> None:
    with (
        pytest.raises(AssertionError, match="what it said"),
        person.keeps_running(f"orch ui --port {free_port()} --nonsense; echo what it said; exit 1"),
    ):
        pass


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("orch ui", "http://127.0.0.1:5000/health"),
        ("orch ui --port 5001", "http://127.0.0.1:5001/health"),
        ("mlflow models serve -m models:/a@champion --port 5001", "http://127.0.0.1:5001/ping"),
        ("mlflow server --host 0.0.0.0", "http://127.0.0.1:5000/health"),
    ],
)
def test_addresses_of_servers(line: str, url: str) -> None:
    assert is_server(line)
    assert address_of(line) == url


def test_what_to_type_next_is_read_from_the_output() -> None:
    said = "The winner\n\nNext:\n  orch promote best 'a b'   # put it\n  orch ui                   # browse\n"
    assert next_lines(said) == ["orch promote best 'a b'", "orch ui"]
    assert next_lines("nothing") == []


def test_the_card_is_the_dry_run_of_the_header() -> None:
    line = dry_run("search_spaces/full.yaml")
    assert line.startswith("orch sweep search_spaces/full.yaml --set data.source=builtin:digits ")
    assert line.count("--set") >= 8


def test_a_python_that_is_not_here_is_named() -> None:
    with pytest.raises(LookupError, match=r"no Python 9\.9 here"):
        pythons.others("9.9")
    assert f"3.{sys.version_info.minor}" not in pythons.others()
