"""Keep other libraries' words off the terminal.

Some are read from the environment when a library is imported, so ``quiet_libraries`` comes first in a process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from orchestrator.machine.places import unwritable

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",  # TensorFlow's C++: devices it looked for, instructions it could use
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""What libraries are asked before they are imported, unless a person set it."""


def quiet_libraries(cache: Path | None = None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Ask TensorFlow, Ray and Matplotlib for silence; before any of them is imported.

    Matplotlib keeps its list of fonts in the home. Where that cannot be written to, it is kept in ``cache``.
    """
    for name, value in QUIET.items():
        environment.setdefault(name, value)
    for name in ("absl", "matplotlib", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if cache is not None and "MPLCONFIGDIR" not in environment and unwritable(_config_home(environment)):
        environment["MPLCONFIGDIR"] = str(cache / "matplotlib")


def _config_home(environment: MutableMapping[str, str]) -> Path:
    """Where programs of this user keep their settings."""
    return Path(environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))


CHATTER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\)"
    rb"|[IWE]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\]"  # absl
    rb"|\d{4}-\d\d-\d\d [\d:.]+: [IWE] (external|tensorflow)/"
    rb"|To enable the following instructions: "
)
"""How a line of TensorFlow's start begins. No variable silences those that it writes while it is loaded (2.21)."""


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """While inside, file descriptor 2 is held back; at the end it gets all but TensorFlow's start-up lines."""
    with tempfile.TemporaryFile() as held:
        try:
            with _redirected(held.fileno()):
                yield
        finally:
            held.seek(0)
            os.write(2, b"".join(line for line in held if not CHATTER.match(line)))


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """While inside, what anything writes to file descriptor 2 is held back; after an exception it is shown."""
    with tempfile.TemporaryFile() as held:
        try:
            with _redirected(held.fileno()):
                yield
        except BaseException:
            held.seek(0)
            os.write(2, held.read())
            raise


@contextlib.contextmanager
def _redirected(target: int) -> Iterator[None]:
    """While inside, what this process writes to file descriptor 2 goes to ``target``."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(target, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
