"""Native chatter is held back, and shown when something goes wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHATTER = "import os; from orchestrator.hush import hushed\n"


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
