"""The lock on a sweep's folder: one process at a time writes its ledger."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import filelock

from orchestrator.errors import OrchError
from orchestrator.paths import SweepPaths


def take_lock(path: Path) -> filelock.FileLock:
    """Take the sweep's lock and write this process's PID to it. Raises OrchError with the PID of its holder."""
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        holder = path.read_text().strip() if path.exists() else ""
        raise OrchError(
            f"the sweep in {path.parent} is being run by another process (PID {holder or 'unknown'}); "
            "wait until it ends, or stop it with Ctrl-C there."
        ) from None
    path.write_text(f"{os.getpid()}\n")
    return lock


def running_process(paths: SweepPaths) -> str | None:
    """Return the PID of the process that runs the sweep, "unknown" before it is written; None if there is none.

    Takes a shared lock for an instant on a file opened for reading, so the file is neither created nor changed.
    """
    try:
        file = paths.lock.open()
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown"
        fcntl.flock(file, fcntl.LOCK_UN)
    return None
