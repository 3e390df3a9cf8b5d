"""`orch data check`, `orch data preview` and `orch data suspects`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.help import Verbs, verb
from orchestrator.cli.options import (
    AsJson,
    Folder,
    Numbers,
    Overrides,
    Source,
    number_option,
    output_file,
    output_folder,
    print_json,
    sweep_folder,
)
from orchestrator.errors import DataError
from trainers.files.suffixes import DRAWN

if TYPE_CHECKING:
    from trainers.data.data_source import DataSource

BAD_FILES = ("path", "reason", "kind")
SUSPECTS = ("path", "label", "likely_label", "label_probability", "likely_probability")
"""Columns of the tables that are written, here so that ``--help`` need not import what writes them."""

data_app = typer.Typer(cls=Verbs, no_args_is_help=True, help="Look at the photos before spending a GPU on them.")


@verb(data_app, "orch data check")
def data_check(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="A folder, archive or table of photos, or a sweep's YAML file; several are one set."
        ),
    ],
    write: Annotated[
        Path | None,
        output_file(
            "Write a CSV of every file that is left out or suspicious: path, reason, kind.",
            ".csv",
            columns=BAD_FILES,
        ),
    ] = None,
    move_bad: Annotated[
        Path | None,
        output_folder("FOLDER", "Move images that cannot be read to FOLDER, under their paths; overwrites nothing."),
    ] = None,
    encoding: Annotated[
        str,
        typer.Option(metavar="NAME", help="Encoding of names in zips and of tables that are not UTF-8, as gb18030."),
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Report on a set of photos: classes, imbalance, sizes, unreadable files, duplicates, classes too small."""
    from orchestrator.commands.data.bad_files import check_move, move_bad_files, write_bad_files
    from orchestrator.spec.data_source import refuse_among_photos
    from trainers.data.build import check_data
    from trainers.data.sources.read import names_of

    source = _data_source(sources, encoding, quiet=as_json)
    if write is not None:
        refuse_among_photos("--write", write, names_of(source.source))
    if move_bad is not None:
        check_move(names_of(source.source), move_bad)
    report = check_data(source)
    if as_json:
        print_json(report.to_dict())
    else:
        for line in report.lines():
            typer.echo(line)
    done = [write_bad_files(report, write)] if write is not None else []
    done += move_bad_files(report, move_bad) if move_bad is not None else []
    for line in done:
        typer.echo(line, err=as_json)
    if report.problems:
        raise typer.Exit(DataError.exit_code)


def _data_source(sources: list[str], encoding: str, quiet: bool) -> DataSource:
    """Return what the arguments of `orch data check` name: photos, or a file's ``data`` section."""
    from orchestrator.paths import cache_folder
    from orchestrator.spec.load import open_spec
    from orchestrator.spec.shipped import names_sweep
    from orchestrator.tracking.kept_splits import source_of, source_of_photos
    from trainers.data.data_source import DataSource

    if len(sources) == 1 and names_sweep(sources[0]):
        opened = open_spec(sources[0], needs_weights=False)
        for line in () if quiet else opened.notes:
            typer.echo(line)
        found = source_of(opened.spec)
        return found if encoding == "auto" else dataclasses.replace(found, encoding=encoding)
    source = sources[0] if len(sources) == 1 else tuple(sources)
    found = DataSource(source, "auto", cache_folder(), encoding="" if encoding == "auto" else encoding)
    return source_of_photos(found)


@verb(data_app, "orch data preview")
def data_preview(
    source: Source,
    overrides: Overrides = None,
    out: Annotated[Path, output_file("The picture to write, as .png or .pdf.", *DRAWN)] = Path("preview.png"),
    images: Annotated[
        int, number_option(metavar="N", help="Photos to show, over all classes.", allowed=Numbers(int, "12", 1, 200))
    ] = 12,
) -> None:
    """Draw what the network will see: photos of the training split as each view cuts them, and their copies."""
    from orchestrator.commands.data.preview import draw_preview
    from orchestrator.spec.load import open_spec

    opened = open_spec(source, tuple(overrides or ()), needs_weights=False)
    for line in opened.notes:
        typer.echo(line)
    typer.echo(draw_preview(opened.spec, images, out, typer.echo))


@verb(data_app, "orch data suspects")
def data_suspects(
    sweep: Folder = None,
    out: Annotated[Path, output_file("The table to write, as .csv.", ".csv", columns=SUSPECTS)] = Path("suspects.csv"),
    sheet: Annotated[Path, output_file("The sheet of photos, as .png or .pdf.", *DRAWN)] = Path("suspects.png"),
    images: Annotated[
        int, number_option(metavar="N", help="Photos on the sheet.", allowed=Numbers(int, "60", 1, 600))
    ] = 60,
    address: Annotated[str, typer.Option(metavar="ADDRESS", help="A Ray cluster; default: this machine.")] = "",
    as_json: AsJson = False,
) -> None:
    """Find photos that are probably labelled wrongly, by predictions of a classifier that did not see them.

    Looks at the training and validation photos of a sweep, with the backbone, size and view of its winner. The test
    split is not read.
    """
    from orchestrator.commands.data.suspects import check_outputs, draw_sheet, suspects_of, write_table

    folder = sweep_folder(sweep)
    check_outputs(folder, {"--out": out, "--sheet": sheet})
    found = suspects_of(folder, address, lambda line: typer.echo(line, err=True))
    write_table(found, out)
    if len(found.table):
        draw_sheet(found, sheet, images)
    if as_json:
        print_json({"photos": found.photos, "agreement": found.agreement, "suspects": found.table.to_dict("records")})
        return
    for row in found.table.head(20).itertuples():
        typer.echo(f"  {row.path}: {row.label}, probably {row.likely_label} ({row.likely_probability:.0%})")
    typer.echo(found.sentence)
    typer.echo(f"{out}{f', {sheet}' if len(found.table) else ''}")
