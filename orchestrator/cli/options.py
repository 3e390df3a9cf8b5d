"""Options that several verbs share, and how results are printed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from orchestrator.machine.places import unwritable

if TYPE_CHECKING:
    from rich.console import Console

PIPE_COLUMNS = 160
"""Columns of a table if the output is no terminal and COLUMNS is not set."""

Source = Annotated[str, typer.Argument(metavar="FILE", help="A YAML file, or the name of a shipped one (orch spaces).")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the file, as budget.trials=5. Repeatable."),
]
Folder = Annotated[
    str | None, typer.Argument(metavar="SWEEP", help="A sweep's folder or its name; the newest when left out.")
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="For programs.")]


def check_out_file(out: Path | None) -> Path | None:
    """Typer callback of an option that names a file to write: refuse a folder, a device and the like."""
    from trainers.files.atomic import NotAFile, refuse_special

    if out is not None:
        try:
            refuse_special(out)
        except NotAFile as error:
            usage(str(error))
        _refuse_unwritable(out.absolute().parent)
    return out


def check_out_folder(context: typer.Context, out: Path | None) -> Path | None:
    """Typer callback of an option that names a folder to write to: refuse a file, a device and the like.

    With ``--resume`` the folder is a sweep's, and ``sweep.open`` has better advice.
    """
    if out is not None and not context.params.get("resume"):
        _refuse_unwritable(out.absolute())
    return out


def _refuse_unwritable(folder: Path) -> None:
    if why := unwritable(folder):
        usage(f"{folder} is not a folder that can be written to: {why}; name another folder.")


def console() -> Console:
    """Return the console for results: coloured on a terminal (unless NO_COLOR), plain and wide in a pipe."""
    from rich.console import Console

    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=PIPE_COLUMNS if piped else None)


def print_json(values: Any) -> None:
    """Print one JSON document on stdout, with null for NaN, which parsers refuse."""
    import json

    from orchestrator.plain_json import json_ready

    typer.echo(json.dumps(json_ready(values), indent=2, ensure_ascii=False))


def usage(sentence: str) -> NoReturn:
    """Refuse a command line that parses but makes no sense, with exit code 2."""
    raise typer.BadParameter(sentence)
