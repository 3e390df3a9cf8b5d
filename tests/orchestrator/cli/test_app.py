"""The command line: help pages, and what makes no sense."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import pytest

from orchestrator.cli import app
from tests.support.typed import SPEC, orch

HELP_WITHIN_S = 0.3
"""Of the processor, so that a busy machine changes nothing; a start that imports pandas alone takes more."""


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
        (["sweep", "a.yaml", "--until", "refit"], "'--until': 'refit' is not one of 'data', 'search', 'final'."),
        (["plan", "a.yaml", "--photos", "500"], "--photos and --classes describe what to simulate; add --simulate."),
        (["ui", "--port", "0"], "'--port': found '0'; allowed: a whole number at least 1 and at most 65535, such as"),
        (
            ["predict", "a.jpg", "--precision", "abc"],
            "found 'abc'; allowed: a number above 0 and below 1, such as 0.95.",
        ),
        (["sweep", "a.yaml", "--hours", "0"], "'--hours': found '0'; allowed: a number above 0, such as 2.5."),
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
        (["data", "preview", "a.yaml"], "", "the name is empty; give one"),
        (["data", "preview", "a.yaml"], "a.yaml/b.png", "a.yaml is not a folder"),
        (["data", "preview", "a.yaml"], "b.doc", "does not end in .png"),
        (["sweep", "a.yaml"], "a.yaml", "a.yaml is not a folder"),
        (["sweep", "a.yaml"], "/dev/null/x", "/dev/null is a file; name another folder"),
        (["export"], "pipe", "pipe is not a folder"),
    ],
)
def test_what_out_names_is_looked_at_first(
    here: Path, verb: list[str], out: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(here / "pipe")
    (here / "a.yaml").write_text(SPEC)
    assert app.run([*verb, "--out", out]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert "--out" in captured.err
    assert sorted(path.name for path in here.iterdir()) == ["a.yaml", "pipe"]


def test_help_is_plain_in_a_pipe_and_without_colour_when_asked() -> None:
    for environment in ({}, {"NO_COLOR": "1", "FORCE_COLOR": ""}):
        assert "\x1b[" not in orch("sweep", "--help", **environment).stdout
