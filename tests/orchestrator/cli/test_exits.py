"""How a command line ends after an error: a sentence on stderr, and an exit code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.cli import app, exits
from orchestrator.sweep import pipeline
from tests.support.places import ROOT
from tests.support.typed import orch
from trainers.errors import TrainerError

ERRORS = [
    (errors.OrchError("what a pity."), 1),
    (errors.SpecError("a.yaml:1:1: wrong."), 2),
    (errors.DataError("no photos."), 3),
    (TrainerError("no such backbone."), 3),
    (errors.SweepExists("runs/x exists."), 4),
    (errors.NoWinner("nothing to choose."), 5),
    (errors.PromotionRefused("lower."), 6),
    (errors.TrackingError("away."), 7),
    (errors.ExportRefused("it lost too much."), 8),
    (errors.AuditFailed("a figure is another one."), 9),
    (errors.TransientError("Ray failed."), 1),
    (errors.Interrupted("stopped."), 130),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_each_error_is_one_sentence_and_its_exit_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(request: object, reporter: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "sweep", fail)
    assert app.run(["sweep", "quick"]) == code
    prefix = "" if isinstance(error, errors.SpecError) else "orch: "  # FILE:LINE:COLUMN comes first, for editors
    assert capsys.readouterr().err == f"{prefix}{error}\n"
    with pytest.raises(type(error)):
        app.run(["sweep", "quick", "--debug"])


def test_every_kind_of_error_was_tried() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OrchError)]
    assert {type(error) for error, _ in ERRORS} == {*kinds, TrainerError}


def test_an_unexpected_error_keeps_its_traceback_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(request: object, reporter: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(pipeline, "sweep", fail)
    assert app.run(["sweep", "quick"]) == exits.UNEXPECTED
    said = capsys.readouterr().err
    assert said.startswith("orch: an unexpected error: ZeroDivisionError: division by zero; run again with --debug")
    kept = Path(said.strip().rpartition("kept in ")[2])
    assert "in fail" in kept.read_text()
    kept.unlink()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "closed cannot be used: permission denied."),
        (errno.ENOSPC, "an unexpected error: OSError"),
    ],
)
def test_a_place_that_the_system_refuses_is_no_unexpected_error(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(request: object, reporter: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "closed"))

    monkeypatch.setattr(pipeline, "sweep", fail)
    assert app.run(["sweep", "quick"]) == (1 if number == errno.EACCES else exits.UNEXPECTED)
    said = capsys.readouterr().err
    assert words in said
    if "kept in" in said:
        Path(said.strip().rpartition("kept in ")[2]).unlink()


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(request: object, reporter: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "sweep", interrupt)
    assert app.run(["sweep", "quick"]) == 130
    assert capsys.readouterr().err == "orch: interrupted.\n"


def test_a_traceback_is_shown_with_debug_and_only_then(here: Path) -> None:
    plain, debug = orch("show", "nothing"), orch("show", "--debug", "nothing")
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr.startswith("orch: there is no sweep 'nothing'.")
    assert "`orch sweep FILE`" in plain.stderr
    assert len(plain.stderr.splitlines()) == 1
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr


def test_a_reader_that_leaves_early_is_no_error(here: Path) -> None:
    line = f"{sys.executable} -m orchestrator schema | true; echo ${{PIPESTATUS[0]}}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, env=env, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", str(exits.BROKEN_PIPE))


def test_a_broken_connection_is_not_taken_for_a_reader_that_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(request: object, reporter: object) -> None:
        raise BrokenPipeError("to the Ray cluster")

    monkeypatch.setattr(pipeline, "sweep", fail)
    assert app.run(["sweep", "quick"]) == exits.UNEXPECTED
    said = capsys.readouterr().err
    assert "to the Ray cluster" in said
    Path(said.strip().rpartition("kept in ")[2]).unlink()


def test_windows_is_answered_with_what_to_do() -> None:
    assert exits.unsupported_platform("linux") == exits.unsupported_platform("darwin") == ""
    assert "WSL2" in exits.unsupported_platform("win32")
