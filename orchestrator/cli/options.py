"""Options that several verbs share, and how results are printed."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from orchestrator.machine.places import unwritable

if TYPE_CHECKING:
    from rich.console import Console

SEARCHED_BYTES = 4096
"""Bytes at either end of a picture among which its program is named."""
PIPE_COLUMNS = 160
"""Columns of a table if the output is no terminal and COLUMNS is not set."""

Source = Annotated[str, typer.Argument(metavar="FILE", help="A YAML file, or the name of a shipped one (orch spaces).")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the file, as budget.trials=5. Repeatable."),
]
Folder = Annotated[
    str | None,
    typer.Argument(metavar="SWEEP", help="A sweep's folder or its name; the newest with results when left out."),
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="For programs.")]


@dataclass(frozen=True)
class Numbers:
    """The numbers that an option takes: of ``kind``, from ``least`` to ``most``, the ends excluded if ``is_open``.

    ``example``: as a person types it. Only finite numbers are taken.
    """

    kind: type[int] | type[float]
    example: str
    least: float = -math.inf
    most: float = math.inf
    is_open: bool = False

    def __str__(self) -> str:
        ends = ("above", "below") if self.is_open else ("at least", "at most")
        known = [
            f"{word} {end:g}" for word, end in zip(ends, (self.least, self.most), strict=True) if abs(end) < math.inf
        ]
        what = "a whole number" if self.kind is int else "a number"
        return f"{' '.join([what, ' and '.join(known)]).strip()}, such as {self.example}"

    def read(self, text: Any) -> float:
        """Return the number that ``text`` is; a default is taken as it is. Raises BadParameter."""
        if not isinstance(text, str):
            return text  # type: ignore[no-any-return]
        try:
            number = self.kind(text)
        except ValueError:
            number = math.nan
        inside = self.least < number < self.most if self.is_open else self.least <= number <= self.most
        if not (inside and math.isfinite(number)):
            usage(f"found {text!r}; allowed: {self}.")
        return number


def number_option(*names: str, metavar: str, help: str, allowed: Numbers, show_default: bool = True) -> Any:
    """Return a Typer option that takes a number; another value is refused with what is allowed and an example."""
    return typer.Option(*names, metavar=metavar, help=help, parser=allowed.read, show_default=show_default)


def output_file(help: str, *suffixes: str, replaces: bool = True, columns: Sequence[str] = ()) -> Any:
    """Return a Typer option that names a file to write, which ends in one of ``suffixes``; any without them.

    A folder, a device, an empty name, another suffix and a place that cannot be written to are refused before any
    work. ``replaces``: the verb writes over an existing file, which is then said. ``columns``: of the table that it
    writes; it writes over no file that begins with others.
    """

    def check(out: Path | None) -> Path | None:
        return check_out_file(out, suffixes, replaces, columns)

    return typer.Option(metavar="FILE", parser=named_path, callback=check, help=help)


def output_folder(metavar: str, help: str) -> Any:
    """Return a Typer option that names a folder to write to, refused as that of ``output_file`` is."""
    return typer.Option(metavar=metavar, parser=named_path, callback=check_out_folder, help=help)


def output_file_or_folder(help: str, suffix: str) -> Any:
    """Return a Typer option that names a file to write, or the folder in which to write it."""

    def check(out: Path | None) -> Path | None:
        if out is None or not os.path.isdir(out):
            return check_out_file(out, (suffix,), replaces=False)
        _refuse_unwritable(out.absolute())
        return out

    return typer.Option(metavar="FILE", parser=named_path, callback=check, help=help)


def named_path(text: str | Path) -> Path:
    """Typer parser of an option that names what to write: an empty name is not the current folder."""
    if not str(text).strip():
        usage("the name is empty; give one, or leave the option out.")
    return Path(text)


def check_out_file(
    out: Path | None, suffixes: Sequence[str] = (), replaces: bool = False, columns: Sequence[str] = ()
) -> Path | None:
    """Refuse a folder, a device and the like, and a name that does not end in one of ``suffixes``.

    Says that an existing file will be replaced, if ``replaces``; a picture that is not orch's is not, nor is a table
    with other ``columns``.
    """
    from trainers.files.atomic import NotAFile, refuse_special

    if out is None:
        return None
    try:
        refuse_special(out)
    except NotAFile as error:
        usage(str(error))
    if suffixes and not out.name.lower().endswith(tuple(suffixes)):
        usage(f"{out} does not end in {_or(suffixes)}, which is what is written; name another file.")
    _refuse_unwritable(out.absolute().parent)
    if replaces and out.is_file():
        if _is_a_photo(out):
            usage(f"{out} exists and may be a photo of yours, so it is not replaced; name another file.")
        if columns and not _begins_with(out, ",".join(columns)):
            usage(f"{out} exists and is not a table that this verb wrote, so it is not replaced; name another file.")
        typer.echo(f"note     {out} exists and will be replaced", err=True)
    return out


def _is_a_photo(path: Path) -> bool:
    """Whether it is called a picture and holds none of Matplotlib's, which names itself (``dashboards.style``)."""
    from trainers.files.suffixes import PHOTOS

    if path.suffix.lower() not in PHOTOS:
        return False
    with path.open("rb") as file:
        head = file.read(SEARCHED_BYTES)
        file.seek(max(0, os.fstat(file.fileno()).st_size - SEARCHED_BYTES))
        return b"Matplotlib" not in head + file.read()


def _begins_with(path: Path, line: str) -> bool:
    """Whether the file is empty or its first line is ``line``."""
    with path.open("rb") as file:
        first = file.readline(SEARCHED_BYTES)
    return not first or first.rstrip(b"\r\n") == line.encode()


def check_out_folder(context: typer.Context, out: Path | None) -> Path | None:
    """Typer callback of an option that names a folder to write to: refuse a file, a device and the like.

    With ``--resume`` the folder is a sweep's, and ``sweep.open`` has better advice.
    """
    if out is not None and not context.params.get("resume"):
        _refuse_unwritable(out.absolute())
    return out


def _or(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _refuse_unwritable(folder: Path) -> None:
    if why := unwritable(folder):
        usage(f"{folder} is not a folder that can be written to: {why}; name another folder.")


def sweep_folder(given: str | None, finished: bool = False) -> Path:
    """Return the folder of the sweep that is ``given``, by default of the newest one with trials, or ``finished`` one.

    Newer ones that are passed over are named on stderr. Raises OrchError.
    """
    from orchestrator.ledger.folder import Wanted, find_sweep

    wanted = Wanted.FINISHED if finished else Wanted.STARTED
    return find_sweep(given, wanted, tell=lambda sentence: typer.echo(f"note     {sentence}", err=True))


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
