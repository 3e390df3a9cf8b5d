"""The verbs as a person types them: what comes out, where, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import errors
from orchestrator.cli import app, exits
from orchestrator.sweep import pipeline
from tests.support.places import ROOT
from tests.support.sweep_on_disk import write_sweep
from trainers.errors import TrainerError

HELP_WITHIN_S = 0.3
"""Of the processor, so that a busy machine changes nothing; a start that imports pandas alone takes more."""

SPEC = """\
name: tiny
data: {source: "builtin:digits"}
search: {backbone: small_cnn, dropout: [0.0, 0.2]}
budget: {trials: 2, epochs: 3}
weights: none
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def orch(*line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, as a shell starts it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "orchestrator", *line]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)


# --- help and usage -----------------------------------------------------------------------------------------------


def test_help_lists_every_verb_under_a_heading_and_starts_at_once() -> None:
    times_s = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = orch("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.returncode == 0
    assert done.stderr == ""
    for word in ("Search", "Result", "Machine and tracking", "sweep", "check", "promote", "doctor", "orch sweep quick"):
        assert word in done.stdout
    assert min(times_s) < HELP_WITHIN_S, times_s


def test_without_a_verb_the_help_page_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([]) == 0
    assert "Usage: orch" in capsys.readouterr().out
    assert app.run(["data"]) == 2
    assert "Usage: orch data" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--version"]) == 0
    assert re.fullmatch(r"orch \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["swep"], "No such command 'swep'. Did you mean 'sweep'?\nTry 'orch --help'."),
        (["show", "--jsn"], "No such option: --jsn (Possible options: --json)\nTry 'orch show --help'."),
        (["promote", "bets"], "No such command 'bets'. Did you mean 'best'?\nTry 'orch promote --help'."),
        (["check"], "Missing argument 'FILE'."),
        (["sweep"], "which sweep? Name a YAML file or a shipped space (`orch spaces`), or resume one"),
        (
            ["sweep", "a.yaml", "--fresh", "--resume"],
            "--fresh takes a new folder by itself and cannot go with --resume",
        ),
        (["sweep", "a.yaml", "--fresh", "--out", "x"], "--fresh takes a new folder by itself and cannot go with --out"),
        (["sweep", "a.yaml", "--trials", "many"], "--trials wants a number of trials in all (40)"),
        (["sweep", "a.yaml", "--trials", "+5"], "name it with --resume"),
        (["sweep", "a.yaml", "--until", "refit"], "'refit' is not one of"),
        (["plan", "a.yaml", "--photos", "500"], "--photos and --classes describe what to simulate; add --simulate."),
        (["ui", "--port", "0"], "'--port': Input should be greater than or equal to 1"),
    ],
)
def test_usage_errors_are_sentences_with_exit_code_2(
    line: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(line) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("orch: ")
    assert sentence in captured.err


@pytest.mark.parametrize(
    ("verb", "out", "sentence"),
    [
        (["data", "preview", "a.yaml"], "/dev/null", "/dev/null is a device, not a file"),
        (["data", "preview", "a.yaml"], "pipe", "pipe is a pipe, not a file"),
        (["data", "preview", "a.yaml"], ".", ". is a folder, not a file"),
        (["data", "preview", "a.yaml"], "", ". is a folder, not a file"),
        (["data", "preview", "a.yaml"], "a.yaml/b.png", "a.yaml is not a folder"),
        (["data", "preview", "a.yaml"], "b.doc", "must end in .png"),
        (["sweep", "a.yaml"], "a.yaml", "a.yaml is not a folder"),
        (["sweep", "a.yaml"], "/dev/null/x", "/dev/null is not a folder"),
        (["export"], "pipe", "pipe is not a folder"),
    ],
)
def test_what_out_names_is_looked_at_first(
    here: Path, verb: list[str], out: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(here / "pipe")
    (here / "a.yaml").write_text(SPEC)
    assert app.run([*verb, "--out", out]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert sentence in told.err
    assert "--out" in told.err
    assert sorted(path.name for path in here.iterdir()) == ["a.yaml", "pipe"]


def test_help_is_plain_in_a_pipe_and_without_colour_when_asked() -> None:
    for environment in ({}, {"NO_COLOR": "1", "FORCE_COLOR": ""}):
        assert "\x1b[" not in orch("sweep", "--help", **environment).stdout


# --- errors -------------------------------------------------------------------------------------------------------

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


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(request: object, reporter: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "sweep", interrupt)
    assert app.run(["sweep", "quick"]) == 130
    assert capsys.readouterr().err == "orch: interrupted.\n"


def test_a_traceback_is_shown_with_debug_and_only_then(here: Path) -> None:
    plain, debug = orch("show", "nothing"), orch("show", "--debug", "nothing")
    assert (plain.returncode, plain.stdout) == (1, "")
    assert (
        plain.stderr == "orch: there is no sweep 'nothing'. Below runs/ there is none yet; orch sweep FILE makes one.\n"
    )
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


# --- verbs --------------------------------------------------------------------------------------------------------


def _requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(pipeline, "sweep", lambda request, reporter: seen.append(request))
    return seen


def test_sweep_hands_its_options_on_as_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _requests(monkeypatch)
    line = ["sweep", "a.yaml", "--set", "budget.trials=5", "--set", "data.seed=1", "--out", "there", "--hours", "1.5"]
    assert app.run([*line, "--until", "search", "--address", "auto", "--trials", "7"]) == 0
    (request,) = seen
    assert (request.spec_source, request.overrides) == ("a.yaml", ("budget.trials=5", "data.seed=1"))
    assert (request.out, request.hours, request.until, request.address) == (Path("there"), 1.5, "search", "auto")
    assert (request.trials, request.fresh, request.resume) == ("7", False, False)


def test_resume_without_a_file_goes_on_with_the_newest_unfinished_sweep(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = _requests(monkeypatch)
    write_sweep(here / "runs" / "done")
    assert app.run(["sweep", "--resume"]) == 1
    assert "there is no unfinished sweep" in capsys.readouterr().err
    write_sweep(here / "runs" / "half", ended="INTERRUPTED")
    assert app.run(["sweep", "--resume"]) == 0
    assert (seen[0].out, seen[0].resume, seen[0].spec_source) == (Path("runs/half"), True, None)
    assert app.run(["sweep", "--resume", "--out", "runs/done", "--trials", "+20"]) == 0
    os.utime(here / "runs" / "done" / "ledger", (2e9, 2e9))
    assert app.run(["sweep", "--resume", "--trials", "+5"]) == 0
    assert seen[2].out == Path("runs/done")
    assert (seen[1].out, seen[1].trials) == (Path("runs/done"), "+20")


def test_check_says_what_the_file_asks_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.yaml").write_text(SPEC)
    assert app.run(["check", "a.yaml", "--set", "budget.trials=1"]) == 0
    said = capsys.readouterr().out
    assert said == "a.yaml: all right. The sweep tiny: 1 trial of at most 3 epochs, out of 2 configurations.\n"


def test_check_tells_every_mistake_with_its_place(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.yaml").write_text(SPEC.replace("small_cnn", "small_cn").replace("epochs: 3", "epochs: 0"))
    assert app.run(["check", "a.yaml"]) == 2
    said = capsys.readouterr().err
    assert "a.yaml:3:" in said
    assert "small_cnn" in said
    assert "a.yaml:4:" in said


def test_schema_is_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["schema"]) == 0
    assert "search" in json.loads(capsys.readouterr().out)["properties"]


def test_spaces_lists_each_shipped_file_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((ROOT / "search_spaces").glob("*.yaml"))
    assert app.run(["spaces"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [file.stem for file in files]
    assert len(lines) >= 1
    assert all(len(line.split()) > 3 for line in lines)


def test_data_check_prints_the_report_and_a_problem_is_exit_code_3(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for label, count in (("cat", 6), ("dog", 1)):
        (here / "photos" / label).mkdir(parents=True)
        for i in range(count):
            pixels = noise.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(here / "photos" / label / f"{i}.png")
    assert app.run(["data", "check", "photos"]) == 3
    assert "photos: 7 images in 2 classes" in capsys.readouterr().out
    assert app.run(["data", "check", "photos", "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["classes"] == {"cat": 6, "dog": 1}
    assert report["problems"]
    assert app.run(["data", "check", "nowhere"]) == 3
    assert "nowhere" in capsys.readouterr().err


def test_show_and_status_read_the_folder_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(here / "runs" / "tiny")
    assert app.run(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "finished"
    assert app.run(["show", "tiny"]) == 0
    assert "winner/ensemble" in capsys.readouterr().out
    assert app.run(["status", "runs/tiny"]) == 0
    assert "tiny: finished" in capsys.readouterr().out


def test_doctor_speaks_to_programs_too_and_a_problem_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ORCH_DATA", raising=False)
    monkeypatch.delenv("ORCH_WEIGHTS", raising=False)
    assert app.run(["doctor", "--json"]) == 0
    subjects = [finding["subject"] for finding in json.loads(capsys.readouterr().out)]
    assert {"Python", "packages", "cores", "memory", "GPU", "MLflow", "ORCH_DATA"} <= set(subjects)
    monkeypatch.setenv("ORCH_DATA", "/no/such/folder")
    assert app.run(["doctor"]) == 1
    assert "set ORCH_DATA to a folder that exists" in capsys.readouterr().out


def test_predict_names_what_is_missing_and_asks_which_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["predict", "a.jpg"]) == 3
    assert capsys.readouterr().err == "orch: there is no a.jpg.\n"
    (here / "a.jpg").write_bytes(b"no photo")
    assert app.run(["predict", "a.jpg"]) == 1
    assert "which model?" in capsys.readouterr().err
