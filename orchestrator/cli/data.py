"""`orch data check` and `orch data preview`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.help import Verbs, verb
from orchestrator.cli.options import AsJson, Overrides, Source, check_out_file, print_json
from orchestrator.errors import DataError

data_app = typer.Typer(cls=Verbs, no_args_is_help=True, help="Look at the photos before spending a GPU on them.")


@verb(data_app, "orch data check")
def data_check(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="A folder, archive or table of photos, or a sweep's YAML file; several are one set."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Report on a set of photos: classes, imbalance, sizes, unreadable files, duplicates, classes too small."""
    from orchestrator.paths import cache_folder
    from orchestrator.spec.load import open_spec
    from orchestrator.spec.shipped import names_sweep
    from trainers.data.manifest import DataSource, check_data

    if len(sources) == 1 and names_sweep(sources[0]):
        opened = open_spec(sources[0], needs_weights=False)
        for line in () if as_json else opened.notes:
            typer.echo(line)
        sources = list(opened.spec.data.sources)
    source = sources[0] if len(sources) == 1 else tuple(sources)
    report = check_data(DataSource(source, splits=None, cache=cache_folder()))
    if as_json:
        print_json(report.to_dict())
    else:
        for line in report.lines():
            typer.echo(line)
    if report.problems:
        raise typer.Exit(DataError.exit_code)


@verb(data_app, "orch data preview")
def data_preview(
    source: Source,
    overrides: Overrides = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", callback=check_out_file, help="The picture to write, as .png or .pdf.")
    ] = Path("preview.png"),
    images: Annotated[int, typer.Option(metavar="N", min=1, max=200, help="Photos to show, over all classes.")] = 12,
) -> None:
    """Draw what the network will see: photos of the training split as each view cuts them, and their copies."""
    from orchestrator.commands.preview import draw_preview
    from orchestrator.spec.load import open_spec

    opened = open_spec(source, tuple(overrides or ()), needs_weights=False)
    for line in opened.notes:
        typer.echo(line)
    typer.echo(draw_preview(opened.spec, images, out, typer.echo))
