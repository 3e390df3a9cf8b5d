"""Folders outside the sweep's own that it writes to: the cache, and Ray's folder of sockets and logs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.errors import OrchError
from orchestrator.paths import cache_folder
from trainers.files.lookup import obstacle

SOCKET_BYTES = 107
"""Maximum bytes in the path of a Unix socket on Linux."""
LONGEST_SOCKET = "/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""Longest name that Ray (2.60) gives a socket in its folder."""
RAY_FOLDER_BYTES = SOCKET_BYTES - len(LONGEST_SOCKET)
"""Maximum bytes in the path of Ray's folder."""


def unwritable(folder: Path) -> str:
    """Explain why ``folder``, created if missing, cannot be written to; "" if it can. Creates nothing."""
    if why := obstacle(folder):
        return why
    there = next(parent for parent in (folder, *folder.parents) if _exists(parent))
    if not there.is_dir():
        which = "it" if there == folder else str(there)
        return f"{which} is a link to nothing" if not there.exists() else f"{which} is a file"
    if not os.access(there, os.W_OK | os.X_OK):
        which = "it" if there == folder else str(there)
        return f"{which} is on a read-only disk" if _is_read_only(there) else f"{which} cannot be written to"
    return ""


def _exists(folder: Path) -> bool:
    try:
        return os.path.lexists(folder)
    except OSError:  # a parent that may not be entered
        return False


def _is_read_only(folder: Path) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def require_writable(folder: Path, remedy: str) -> None:
    """Raise OrchError with ``remedy`` unless ``folder`` can be written to or created. Creates nothing."""
    why = unwritable(folder.absolute())
    if why:
        raise OrchError(f"cannot write to {folder}: {why}. {remedy}")


def require_record(sweep: Path) -> None:
    """Raise OrchError if the folder ``sweep`` exists and what is done with its sweep cannot be recorded in it."""
    if os.path.isdir(sweep):
        require_writable(sweep, "This is recorded there: type it as the user that began the sweep, or copy the folder.")


def make_folder(folder: Path, remedy: str) -> None:
    """Create ``folder`` and its parents. Raises OrchError with ``remedy`` if that fails."""
    require_writable(folder, remedy)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OrchError(f"cannot create {folder}: {error.strerror}. {remedy}") from error


def usable_cache() -> Path | None:
    """Return the cache folder; None if it cannot be written to."""
    try:
        folder = cache_folder()
    except OrchError:
        return None
    return None if unwritable(folder) else folder


def require_places(starts_ray: bool) -> None:
    """Raise OrchError if the cache, or the folder of a Ray about to start, cannot be written to."""
    require_writable(cache_folder(), "Set ORCH_CACHE to a writable folder on a disk with room.")
    if starts_ray:
        ray_folder()


def ray_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Choose Ray's folder for sockets and logs on this machine.

    The first writable one with a short path: Ray's own choice (``RAY_TMPDIR``, ``TMPDIR``, /tmp), then a folder of this
    user in /tmp, /var/tmp and the cache. Raises OrchError if there is none.
    """
    refused = []
    for folder in _ray_folders(environment):
        why = _unfit(folder)
        if not why:
            return folder
        refused.append(f"{folder}: {why}")
    raise OrchError(
        "Ray finds no folder for its sockets. Set RAY_TMPDIR to one that can be written to and whose path has at most "
        f"{RAY_FOLDER_BYTES - len('/ray')} bytes, such as a folder in /run/user or in a short home. "
        f"Tried {'; '.join(refused)}."
    )


def _ray_folders(environment: Mapping[str, str]) -> Iterator[Path]:
    yield Path(environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp").absolute() / "ray"
    yield Path("/tmp/ray")
    for base in ("/tmp", "/var/tmp"):
        yield Path(base) / f"ray-{os.getuid()}"
    yield cache_folder() / "ray"


def _unfit(folder: Path) -> str:
    """Explain why Ray cannot use ``folder``; "" if it can."""
    length = len(os.fsencode(folder))
    if length > RAY_FOLDER_BYTES:
        return f"its path has {length} bytes, and {RAY_FOLDER_BYTES} are allowed"
    try:
        if folder.is_dir() and folder.name != "ray" and folder.stat().st_uid != os.getuid():
            return "it belongs to another user"
    except OSError as error:
        return error.strerror or errno.errorcode.get(error.errno or 0, "cannot be read")
    return unwritable(folder)
