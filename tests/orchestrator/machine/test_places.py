"""Folders that cannot be written to, and names too long for sockets: another place, or a sentence at once."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.commands import doctor
from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.machine.places import RAY_FOLDER_BYTES, make_folder, ray_folder, unwritable
from orchestrator.paths import cache_folder
from tests.support.powerless import needs_modes, orch, powerless
from tests.support.sweep_on_disk import write_sweep


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that may be entered and not written to."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    yield folder
    folder.chmod(0o755)


def test_a_folder_is_looked_at_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert unwritable(tmp_path / "a" / "b") == ""
    assert "file is a file" in unwritable(tmp_path / "file" / "a")
    assert unwritable(tmp_path / "file") == "it is a file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    with pytest.raises(OrchError, match=r"cannot write to .*file/a: .* Do this\."):
        make_folder(tmp_path / "file" / "a", "Do this.")


def test_the_folder_for_sockets_is_rays_own_unless_its_name_is_too_long(tmp_path: Path) -> None:
    assert 40 <= RAY_FOLDER_BYTES <= 44
    assert ray_folder({}) == Path("/tmp/ray")
    short = tempfile.mkdtemp(prefix="o", dir="/tmp")
    try:
        assert ray_folder({"TMPDIR": short}) == Path(short) / "ray"
        assert ray_folder({"RAY_TMPDIR": short, "TMPDIR": str(tmp_path)}) == Path(short) / "ray"
    finally:
        os.rmdir(short)
    long = tmp_path / ("x" * 100)
    long.mkdir()
    assert ray_folder({"TMPDIR": str(long)}) == Path("/tmp/ray")
    assert ray_folder({"TMPDIR": "/tmp/" + "ü" * 19}) == Path("/tmp/ray"), "bytes count, not letters"


def test_no_folder_for_sockets_is_a_sentence_with_each_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folders = [tmp_path / ("x" * 100), Path("/proc/version/ray")]
    monkeypatch.setattr("orchestrator.machine.places._ray_folders", lambda environment: iter(folders))
    with pytest.raises(OrchError, match=r"Set RAY_TMPDIR to one .* at most 39 bytes") as raised:
        ray_folder({})
    assert "bytes, and 43 are allowed" in str(raised.value)
    assert "/proc/version is a file" in str(raised.value)
    assert doctor._ray({}).level == "problem"


def test_a_user_without_a_home_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(OrchError, match="set ORCH_CACHE"):
        cache_folder()
    assert doctor._cache().level == "problem"


@needs_modes
def test_a_cache_in_a_closed_home_is_said_before_photos_are_read(tmp_path: Path, closed: Path) -> None:
    for environment in ({"HOME": str(closed)}, {"ORCH_CACHE": str(closed / "cache")}):
        done = orch(tmp_path, "sweep", "quick", **environment)
        assert done.returncode == 1, done.stderr
        assert "Set ORCH_CACHE" in done.stderr
        assert str(closed) in done.stderr
        assert "reading" not in done.stdout
        assert [path.name for path in tmp_path.iterdir()] == ["closed"], "a second try must not find a sweep"


@needs_modes
def test_a_sweeps_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path, closed: Path) -> None:
    cache = str(tmp_path / "cache")
    done = orch(closed, "sweep", "quick", ORCH_CACHE=cache)
    assert done.returncode == 1, done.stderr
    assert "give the sweep another one with --out DIR" in done.stderr
    assert "reading" not in done.stdout
    done = orch(tmp_path, "sweep", "quick", "--out", str(closed / "sweep"), ORCH_CACHE=cache)
    assert done.returncode == 2, done.stderr  # --out itself is wrong
    assert "name another folder" in done.stderr
    assert "reading" not in done.stdout


@needs_modes
@pytest.mark.parametrize("order", [("--resume", "--out"), ("--out", "--resume")])
def test_a_sweep_of_another_user_is_resumed_by_that_user(tmp_path: Path, closed: Path, order: tuple[str, str]) -> None:
    words = [word for option in order for word in ((option, str(closed)) if option == "--out" else (option,))]
    closed.chmod(0o755)
    with Ledger(closed / "ledger"):
        pass
    (closed / "spec.yaml").write_text("name: theirs\ndata: {source: builtin:digits}\nsearch: {backbone: small_cnn}\n")
    closed.chmod(0o555)
    done = orch(tmp_path, "sweep", *words, ORCH_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1, done.stderr
    assert "Resume as the user that began the sweep" in done.stderr


@needs_modes
@pytest.mark.parametrize("line", ["promote best", "export", "export --out elsewhere", "sync"])
def test_what_cannot_be_recorded_in_a_sweep_of_another_user_is_not_done(tmp_path: Path, line: str) -> None:
    verb, *rest = line.split()
    sweep = write_sweep(tmp_path / "theirs").root
    sweep.chmod(0o555)
    try:
        place = ["best", "theirs"] if verb == "promote" else ["theirs", *rest]
        done = orch(tmp_path, verb, *place, ORCH_CACHE=str(tmp_path / "cache"))
    finally:
        sweep.chmod(0o755)
    assert done.returncode == 1, done.stderr
    assert "cannot write to theirs" in done.stderr
    assert "--out DIR" in done.stderr or "as the user that began the sweep" in done.stderr
    assert not (tmp_path / "mlflow.db").exists()


@needs_modes
def test_doctor_looks_at_all_of_them(tmp_path: Path, closed: Path) -> None:
    done = orch(closed, "doctor", HOME=str(closed), TMPDIR=str(closed))
    assert done.returncode == 1
    lines = {line[8:].partition("  ")[0].strip(): line for line in done.stdout.splitlines() if line[:8].strip()}
    assert lines["disk, here"].startswith("problem")
    assert lines["disk, cache"].startswith("problem")
    assert lines["home"].startswith("note")
    assert lines["Ray"].startswith("OK")
    assert "/tmp/ray" in lines["Ray"]


OWN = """
name: own
data: {source: "builtin:digits"}
search: {backbone: mobilenet_0.25, image_size: 32}
weights: none
budget: {trials: 1, epochs: 1}
"""
LONG = "x" * 300
VERBS = [
    ("data check secret/x", 3),
    ("check own.yaml --set data.source=secret/x", 2),
    ("sweep own.yaml --set data.source=secret/x", 2),
    ("check own.yaml --set weights=secret/x", 2),
    ("check secret/x/own.yaml", 2),
    ("sweep --resume --out secret/x", 1),
    ("sweep own.yaml --out secret/x/new --fresh", 2),
    ("sweep own.yaml --out link", 2),
    ("status secret/x", 1),
    ("show link", 1),
    ("data preview own.yaml --out secret/x/preview.png", 2),
    ("predict secret/x/a.jpg", 3),
    ("weights list secret/x", 3),
]


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be entered; ``x`` in it; ``link`` to that; a sweep's file next to it."""
    folder = tmp_path / "secret"
    (folder / "x").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder / "x")
    (tmp_path / "own.yaml").write_text(OWN)
    folder.chmod(0)
    yield folder
    folder.chmod(0o755)


@needs_modes
@pytest.mark.parametrize(("line", "code"), VERBS, ids=[line for line, _ in VERBS])
def test_a_folder_that_may_not_be_entered_is_named(tmp_path: Path, secret: Path, line: str, code: int) -> None:
    done = orch(tmp_path, *line.split(), ORCH_CACHE=str(tmp_path / "cache"))
    assert done.returncode == code, done.stdout + done.stderr
    assert f"{secret} may not be entered" in done.stderr
    assert "unexpected" not in done.stderr


@needs_modes
@pytest.mark.parametrize("line", ["ui", "predict own.yaml --model m"])
@pytest.mark.parametrize(("path", "why"), [("secret/x/m.db", "may not be entered"), (LONG, "its name is too long")])
def test_a_database_that_cannot_be_looked_up_is_a_sentence(
    tmp_path: Path, secret: Path, line: str, path: str, why: str
) -> None:
    done = orch(tmp_path, *line.split(), MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path / path}")
    assert done.returncode == 7, done.stderr
    assert why in done.stderr
    assert "Set MLFLOW_TRACKING_URI or tracking.uri" in done.stderr


@needs_modes
@pytest.mark.parametrize("name", ["HOME", "XDG_CONFIG_HOME", "ORCH_CACHE", "XDG_CACHE_HOME"])
def test_variables_that_name_such_a_folder_stop_no_verb_that_needs_none(
    tmp_path: Path, secret: Path, name: str
) -> None:
    done = orch(tmp_path, "spaces", **{name: str(tmp_path / "link")})
    assert (done.returncode, done.stderr) == (0, "")


@needs_modes
def test_a_cache_that_may_not_be_entered_is_not_called_empty(tmp_path: Path, secret: Path) -> None:
    done = orch(tmp_path, "cache", "list", ORCH_CACHE=str(secret / "x"))
    assert done.returncode == 3
    assert f"{secret} may not be entered. Set ORCH_CACHE" in done.stderr


@needs_modes
def test_doctor_lists_what_it_can(tmp_path: Path, secret: Path) -> None:
    names = ("ORCH_CACHE", "ORCH_DATA", "ORCH_WEIGHTS", "KERAS_HOME")
    store = f"sqlite:///{secret / 'x' / 'm.db'}"
    environment = {**dict.fromkeys(names, str(secret / "x")), "MLFLOW_TRACKING_URI": store}
    done = orch(tmp_path, "doctor", **environment)
    assert done.returncode == 1, done.stderr
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert [line[8:].partition("  ")[0] for line in problems] == ["disk, cache", "MLflow", "ORCH_DATA", "ORCH_WEIGHTS"]
    assert all(f"{secret} may not be entered" in line for line in problems)


def test_doctor_and_a_sweep_in_a_folder_that_was_removed(tmp_path: Path) -> None:
    for line, stream in (("doctor", "stdout"), ("sweep quick", "stderr")):
        (tmp_path / "gone").mkdir()
        script = f'cd gone && rmdir ../gone && exec "$0" -m orchestrator {line}'
        done = powerless(tmp_path, ["bash", "-c", script, sys.executable], ORCH_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 1, done.stdout + done.stderr
        assert "the current folder was removed; cd into another" in getattr(done, stream)


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs_modes
def test_a_sweep_runs_with_a_closed_home_and_a_long_folder_for_temporary_files(tmp_path: Path, closed: Path) -> None:
    """Nothing of it lands in the home, nothing but the sweep's own words on stderr."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    line = ["sweep", "quick", "--set", "budget.trials=2", "--set", "budget.epochs=2", "--set", "final.seeds=1"]
    environment = {"HOME": str(closed), "TMPDIR": str(long), "ORCH_CACHE": str(tmp_path / "cache")}
    done = orch(tmp_path, *line, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert (tmp_path / "runs" / "quick" / "figures" / "confusion.png").is_file()
