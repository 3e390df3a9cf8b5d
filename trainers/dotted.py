"""Dotted names, ``module:attribute``: how the tables of this project take a user's own rows.

A user's module is searched for on Python's path, then in the folder where ``orch`` was started. That folder comes last,
so that a file there never hides an installed module, and is searched only for a name that needs it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, TypeVar

from trainers.errors import TrainerError
from trainers.wording import did_you_mean

Row = TypeVar("Row")

FOLDER_VARIABLE = "ORCH_MODULES"
"""Environment variable with the folder of the user's own modules; workers get the driver's current folder in it."""


def lookup(name: str, table: Mapping[str, Row], kind: type[Row]) -> Row:
    """Return the row of ``table`` called ``name``, or the ``kind`` at a dotted "module:attribute".

    Raises TrainerError with the nearest known name.
    """
    if name in table:
        return table[name]
    word = kind.__name__.lower()
    if ":" not in name:
        hint = did_you_mean(name, table)
        raise TrainerError(
            f"there is no {word} {name!r}{hint} Known are {', '.join(sorted(table))}, "
            f"or your own by its dotted name, my_module:my_{word}."
        )
    try:
        found = load_dotted(name)
    except (ImportError, AttributeError) as error:
        raise TrainerError(f"the {word} {name!r} cannot be imported: {error}") from error
    if not isinstance(found, kind):
        raise TrainerError(f"{name!r} is a {type(found).__name__}, not a {word}.")
    return found


def load_dotted(path: str) -> Any:
    """Import what "module:attribute" names. Raises ImportError or AttributeError."""
    module, _, attribute = path.partition(":")
    if module not in sys.modules and find_top_level(module) is None:
        raise ModuleNotFoundError(f"there is no module {module}, neither installed nor in {own_folder()}")
    return getattr(importlib.import_module(module), attribute)


def find_top_level(module: str) -> ModuleSpec | None:
    """Find the top-level package or module of ``module`` without importing it; None if there is none.

    Asks every finder, so that an editable install counts. Side effect: appends ``own_folder()`` to ``sys.path`` if the
    module is found there alone.
    """
    top = module.partition(".")[0]
    found = _find(top)
    if found is None and str(own_folder()) not in sys.path:
        sys.path.append(str(own_folder()))
        importlib.invalidate_caches()
        found = _find(top)
        if found is None:
            sys.path.remove(str(own_folder()))
    return found


def own_folder() -> Path:
    """The folder of the user's own modules: ``ORCH_MODULES``, else the current folder."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.cwd())


def _find(top: str) -> ModuleSpec | None:
    """Ask every finder; a regular package wins over a folder without ``__init__.py``.

    Unlike ``importlib.util.find_spec`` it does not answer from ``sys.modules``, which may hold the copy that a
    registered model brought along.
    """
    specs = [finder.find_spec(top, None) for finder in sys.meta_path if hasattr(finder, "find_spec")]
    found = [spec for spec in specs if spec is not None]
    return next((spec for spec in found if spec.origin), found[0] if found else None)
