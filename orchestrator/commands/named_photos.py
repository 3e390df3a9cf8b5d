"""From what a person names to the photos to predict: files, folders as training reads them, standard input.

Nothing is opened here, so that what cannot be read becomes an answer of its own.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from orchestrator.errors import DataError

STANDARD_INPUT = "-"
ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
FILE_ADDRESS = "file:///"


@dataclass(frozen=True)
class NamedPhotos:
    """Photos in the order to predict. ``errors``: position -> why nothing can be read there, such as a missing file."""

    paths: Sequence[str]
    errors: Mapping[int, str]


def list_photos(named: Sequence[str], warn: Callable[[str], None] = lambda sentence: None) -> NamedPhotos:
    """List the files named, whatever their suffixes, and the photos below the folders named, as training reads them.

    Sorted within a folder. ``-`` is one photo from standard input; ``file:///`` is an address as ``shown`` writes it.
    ``warn`` gets a sentence for what a folder holds and is left out. Raises DataError if nothing at all can be read.
    """
    paths: list[str] = []
    errors: dict[int, str] = {}
    for name in named:
        found, error = _below(name, warn)
        if error:
            errors[len(paths)] = error
        paths += found
    if len(errors) == len(paths):
        from trainers.data.listing import name_some

        lines = [f"{shown(paths[at])}: {error}" for at, error in errors.items()]
        raise DataError(f"there is nothing to predict. {name_some(lines)}.")
    return NamedPhotos(paths, errors)


def shown(path: str) -> str:
    """Return ``path`` as valid UTF-8: a name that is not becomes its address, ``file:///`` with its bytes as ``%XX``.

    The only such text that comes from a path, so that ``urllib.parse.unquote_to_bytes`` gives the name back.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(path).absolute().as_uri()
    return path


def _below(name: str, warn: Callable[[str], None]) -> tuple[list[str], str]:
    """Return the photos that ``name`` names; or ``name`` alone, and why it names none."""
    from trainers.files.lookup import obstacle

    if name == STANDARD_INPUT:
        return [name], _why_no_input()
    if not name:
        return [name], "an empty name names no file"
    if name.startswith(FILE_ADDRESS):
        name = os.fsdecode(unquote_to_bytes(name.removeprefix("file://")))
    elif ADDRESS.match(name) and not os.path.lexists(name):
        return [name], f"it is an address, and only files are read; download it first: `curl -O {name}`"
    path = str(Path(name))
    if os.path.isdir(path):
        return _in_folder(path, warn)
    if os.path.lexists(path):
        return [path], ""
    if why := obstacle(path):
        return [path], f"cannot be read: {why}"
    return [path], "there is no such file"


def _in_folder(root: str, warn: Callable[[str], None]) -> tuple[list[str], str]:
    from trainers.data.listing import name_some
    from trainers.data.sources.tree import left_out, walk
    from trainers.errors import TrainerError
    from trainers.files.suffixes import PHOTOS
    from trainers.wording import count

    try:
        tree = walk(Path(root))
    except TrainerError as error:
        return [root], str(error).removeprefix(f"{root} ").rstrip(".")
    for sentence in left_out(tree):
        warn(shown(f"{root}: {sentence}"))
    if others := [path for folder in tree for path in folder.paths(folder.others)]:
        named = name_some(map(shown, others))
        warn(f"{shown(root)}: {count(len(others), 'file')} without an image's suffix: left out ({named}).")
    photos = [path for folder in tree for path in folder.paths(folder.images)]
    photos.sort(key=lambda path: path.split("/"))
    if not photos:
        return [root], f"there is no photo in it (looked for {' '.join(PHOTOS)})"
    return [os.path.join(root, path) for path in photos], ""


def _why_no_input() -> str:
    if sys.stdin is None or sys.stdin.closed:
        return "standard input is closed"
    return (
        "standard input is a terminal; pipe a photo into it: `orch predict - < photo.jpg`" if sys.stdin.isatty() else ""
    )
