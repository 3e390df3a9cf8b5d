"""Native chatter is held back, and shown when something goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.machine.quiet_stderr import quiet_libraries
from tests.support.places import ROOT

CHATTER = "import os; from orchestrator.machine.quiet_stderr import hushed\n"


HELD = """
with hushed():
    os.write(2, b'chatter')
os.write(2, b'after')
"""
FAILED = """
try:
    with hushed():
        os.write(2, b'why ')
        raise ValueError
except ValueError:
    os.write(2, b'told')
"""


@pytest.mark.parametrize(("body", "shown"), [(HELD, "after"), (FAILED, "why told")])
def test_what_is_written_to_stderr_inside(body: str, shown: str) -> None:
    done = subprocess.run([sys.executable, "-c", CHATTER + body], capture_output=True, text=True, check=True)
    assert done.stderr == shown


CLOSED = """
import sys
from orchestrator.machine.quiet_stderr import without_chatter
assert sys.stderr is None
for held in (hushed, without_chatter):
    with held():
        print("inside")
    try:
        with held():
            raise ValueError
    except ValueError:
        print("raised")
"""


def test_without_a_stderr_nothing_is_held_back_and_nothing_fails() -> None:
    command = ["bash", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, CHATTER + CLOSED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["inside", "raised"] * 2)


OWN_MODULE = """
import tensorflow as tf

from trainers.backbones import Backbone

tf.constant(1)
MINE = Backbone(
    name="mine", builder="mine:build", preprocessing="tf", native_size=32, smallest_size=8, layers=3, files="",
    imagenet=False,
)
"""
OWN_FILE = """
name: own
data: {source: "builtin:digits"}
search: {backbone: "mine:MINE", unfrozen_layers: all}
weights: none
budget: {trials: 1, epochs: 1}
"""


@pytest.mark.slow
def test_a_backbone_of_ones_own_is_checked_without_tensorflows_words(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN_MODULE)
    (tmp_path / "own.yaml").write_text(OWN_FILE)
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{tmp_path}"
    command = [sys.executable, "-m", "orchestrator", "check", "own.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def test_what_a_person_set_stays_and_fonts_are_kept_where_one_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/proc/version")
    environment = {"TF_CPP_MIN_LOG_LEVEL": "0"}
    quiet_libraries(tmp_path, environment)
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert environment["MPLCONFIGDIR"] == str(tmp_path / "matplotlib")
    monkeypatch.setenv("HOME", str(tmp_path))
    quiet_libraries(tmp_path, environment := {"XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert "MPLCONFIGDIR" not in environment
