"""Keep the messages of other libraries off the terminal.

Some settings are read when a library is imported, so call ``quiet_libraries`` first in a process.
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
from orchestrator.machine.standard_streams import is_open

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",  # TensorFlow's C++: devices it looked for, instructions it could use
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables to set before imports, unless the user set them."""


def quiet_libraries(cache: Path | None = None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Silence TensorFlow, Ray and Matplotlib; call before they are imported.

    Matplotlib keeps its list of fonts in the user's home, or in ``cache`` if the home cannot be written to.
    """
    for name, value in QUIET.items():
        environment.setdefault(name, value)
    for name in ("absl", "matplotlib", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if cache is not None and "MPLCONFIGDIR" not in environment and unwritable(_config_home(environment)):
        environment["MPLCONFIGDIR"] = str(cache / "matplotlib")


def _config_home(environment: MutableMapping[str, str]) -> Path:
    """Return the folder of this user's settings."""
    return Path(environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))


CHATTER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\)"
    rb"|[IWE]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\]"  # absl
    rb"|\d{4}-\d\d-\d\d [\d:.]+: [IWE] (external|tensorflow)/"
    rb"|To enable the following instructions: "
)
"""Start of a line that TensorFlow (2.21) writes while it loads and that no variable silences."""


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Hold back file descriptor 2 inside the block; write it at the end without TensorFlow's start-up lines."""
    with tempfile.TemporaryFile() as held:
        try:
            with _redirected(held.fileno()):
                yield
        finally:
            held.seek(0)
            _write(b"".join(line for line in held if not CHATTER.match(line)))


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Hold back file descriptor 2 inside the block; write it only after an exception."""
    with tempfile.TemporaryFile() as held:
        try:
            with _redirected(held.fileno()):
                yield
        except BaseException:
            held.seek(0)
            _write(held.read())
            raise


@contextlib.contextmanager
def _redirected(target: int) -> Iterator[None]:
    """Redirect file descriptor 2 to ``target`` inside the block; without a stderr do nothing."""
    if sys.stderr is None or not is_open(2):  # without a stderr, descriptor 2 may be any other file
        yield
        return
    _flush()
    kept = os.dup(2)
    os.dup2(target, 2)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, 2)
        os.close(kept)


def _flush() -> None:
    with contextlib.suppress(OSError):  # the terminal is gone
        sys.stderr.flush()


def _write(held: bytes) -> None:
    if held:  # none without a stderr
        with contextlib.suppress(OSError):
            os.write(2, held)
