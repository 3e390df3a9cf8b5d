"""Look up a path that a person names, and explain why that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

WORDS = {
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "it is a link that leads to itself",
}


def obstacle(path: str | Path) -> str:
    """Explain why it is unknown whether ``path`` exists, such as a folder that may not be entered; "" if it is known.

    ``Path.exists`` and its relatives raise in these cases, and ``os.path.exists`` says that there is nothing.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no file has a name with a NUL
        return ""
    except OSError as error:
        if error.errno == errno.EACCES:
            return f"{_closed_folder(path)} may not be entered"
        return WORDS.get(error.errno or 0, (error.strerror or str(error)).lower())
    return ""


def _closed_folder(path: str | Path) -> Path:
    """The deepest folder on the way to ``path``, links followed, that can be looked up."""
    return next(folder for folder in Path(os.path.realpath(path)).parents if os.path.exists(folder))
