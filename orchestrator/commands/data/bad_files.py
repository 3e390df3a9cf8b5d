"""`orch data check --write` and `--move-bad`: the files that are left out or suspicious, as a table or moved aside."""

from __future__ import annotations

import csv
import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import DataError
from orchestrator.spec.data_source import refuse_among_photos
from trainers.data.report import UNREADABLE, DataReport
from trainers.files.atomic import atomic_write, make_folders
from trainers.wording import count

COLUMNS = ("path", "reason", "kind")
MOVED = (UNREADABLE, "name")
"""Kinds of files that are moved: images that can never be used. The others are used, or are no images."""


def write_bad_files(report: DataReport, out: Path) -> str:
    """Write a CSV of absolute path, reason and kind of each bad file of ``report``; return a line about it.

    A name that is not UTF-8 is written with its own bytes. Raises DataError where ``out`` cannot be written.
    """
    rows = report.bad_files()
    try:
        make_folders(out.absolute().parent)
        with (
            atomic_write(out) as temporary,
            open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            table = csv.writer(file)
            table.writerow(COLUMNS)
            table.writerows((_absolute(report, path), reason, kind) for path, reason, kind in rows)
    except OSError as error:
        raise DataError(f"--write: {out} cannot be written ({error.strerror or error}); name another file.") from error
    return f"{out}: {count(len(rows), 'row')} about files that are left out or suspicious"


def check_move(sources: Sequence[str], aside: Path) -> None:
    """Raise DataError unless files of all ``sources`` can be moved to ``aside``, SpecError if one of them holds it."""
    from trainers.data.sources.read import obstacle_to_moving

    for source in sources:
        if why := obstacle_to_moving(source):
            raise DataError(f"--move-bad: {source} {why}.")
    refuse_among_photos("--move-bad", aside, sources)
    target = aside.expanduser().resolve()
    if os.path.lexists(target) and not target.is_dir():
        raise DataError(f"--move-bad: {aside} is not a folder; name another one.")


def move_bad_files(report: DataReport, aside: Path) -> list[str]:
    """Move the images of ``report`` that cannot be used to ``aside``, with the text next to each; return what was done.

    Their paths in ``aside`` are those in the report. Nothing is overwritten: where a file is there already, and where
    moving fails, the file stays and a line says so.
    """
    paths = dict.fromkeys(path for path, _, kind in report.bad_files() if kind in MOVED)
    lines = []
    for path in paths:
        text = os.path.splitext(path)[0] + ".txt"
        for each in (path, *([text] if os.path.isfile(_absolute(report, text)) else [])):
            lines.append(_move(_absolute(report, each), aside.expanduser().resolve() / each))
    moved = sum(line.startswith("moved ") for line in lines)
    return [
        *lines,
        f"{count(moved, 'file')} moved to {aside}; {len(lines) - moved} of {len(lines)} stay where they were",
    ]


def _absolute(report: DataReport, path: str) -> str:
    return os.path.normpath(os.path.join(report.root, path))


def _move(file: str, target: Path) -> str:
    name = file.encode(errors="backslashreplace").decode()
    if os.path.lexists(target):
        return f"not moved {name}: {str(target).encode(errors='backslashreplace').decode()} exists"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _rename(file, target)
    except (OSError, shutil.Error) as error:
        return f"not moved {name}: {getattr(error, 'strerror', None) or error}"
    return f"moved {name}"


def _rename(file: str, target: Path) -> None:
    try:
        os.rename(file, target)
    except OSError as error:
        if error.errno != errno.EXDEV or not (os.path.isfile(file) or os.path.islink(file)):
            raise  # reading a pipe or a device to copy it may never end
        shutil.move(file, target)
