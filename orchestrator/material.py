"""The verbs on what a sweep starts from: ``orch data``, ``orch weights`` and ``orch cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.errors import DataError
from orchestrator.help_pages import Verbs, verb
from orchestrator.options import AsJson, Overrides, Source, check_out_file, console, print_json

data_app = typer.Typer(cls=Verbs, no_args_is_help=True, help="Look at the photos before spending a GPU on them.")
weights_app = typer.Typer(cls=Verbs, no_args_is_help=True, help="Starting weights: what fits which backbone.")
cache_app = typer.Typer(
    cls=Verbs, no_args_is_help=True, help="What is computed once and kept: decoded photos, features, calibrations."
)


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
    from orchestrator.spec import names_sweep, open_spec
    from trainers.manifest import DataSource, check_data

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
    from orchestrator import preview
    from orchestrator.spec import open_spec

    opened = open_spec(source, tuple(overrides or ()), needs_weights=False)
    for line in opened.notes:
        typer.echo(line)
    typer.echo(preview.preview(opened.spec, images, out, typer.echo))


@verb(weights_app, "orch weights list")
def weights_list(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A folder of weight files; default: ORCH_WEIGHTS.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Every backbone: layers, sizes, the licence of its ImageNet weights, and the file of the folder that fits."""
    from orchestrator import backbonelist

    rows = backbonelist.rows(folder)
    if as_json:
        print_json(rows)
    else:
        backbonelist.print_rows(rows, console())


@verb(weights_app, "orch weights convert")
def weights_convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A PyTorch state dict: .safetensors (extra convert) or .pth (needs torch)."
        ),
    ],
    backbone: Annotated[str, typer.Option(metavar="NAME", help="The backbone it is for.")] = "senet50",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write; default: beside it, under the usual name.")
    ] = None,
) -> None:
    """Turn published PyTorch weights into a file for a weights folder; every name and shape is checked."""
    from orchestrator.hush import without_chatter
    from trainers.dotted import load_dotted

    with without_chatter():  # builds the network: TensorFlow, in this process alone
        converted = load_dotted("trainers.convert:convert")(source, backbone, out)
    for line in converted.lines():
        typer.echo(line)


@verb(cache_app, "orch cache list")
def cache_list(
    check: Annotated[
        bool, typer.Option("--check", metavar="", help="Read every row and compare it with its checksum.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What the cache holds, the largest first: what it is, how many rows, its size, when it was used last."""
    from orchestrator import cachereport
    from orchestrator.paths import cache_folder

    found = cachereport.contents(cache_folder())
    rows = cachereport.entries(found, check)
    if as_json:
        print_json(cachereport.to_dict(found, rows))
    else:
        cachereport.print_table(found, rows, console())


@verb(cache_app, "orch cache explain")
def cache_explain() -> None:
    """In words: what each entry is, what computing it took, who reads it again, and what happens at the limit."""
    from orchestrator import cachereport
    from orchestrator.paths import cache_folder

    found = cachereport.contents(cache_folder())
    for number, paragraph in enumerate(cachereport.explanation(found, cachereport.entries(found))):
        console().print(("\n" if number else "") + paragraph, markup=False)


@verb(cache_app, "orch cache prune")
def cache_prune(
    to_gb: Annotated[
        float | None, typer.Option("--to", metavar="GB", min=0, help="Keep so many gigabytes, those used last.")
    ] = None,
    older_than_days: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Remove what was not used for so long.")
    ] = None,
) -> None:
    """Remove what killed processes left, what older versions wrote, and then the rows unused for longest.

    Without options down to the limit that holds anyway (ORCH_CACHE_GB). Rows that a running sweep has open stay.
    """
    from orchestrator import cachereport
    from orchestrator.paths import cache_folder

    typer.echo(cachereport.prune(cache_folder(), to_gb, older_than_days))


@verb(cache_app, "orch cache clear")
def cache_clear(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="images, features, calibration ...; everything when left out.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask.")] = False,
) -> None:
    """Remove everything of one kind, or of all. No result is lost: what is needed again is computed again."""
    from orchestrator import cachereport
    from orchestrator.paths import cache_folder

    cache = cache_folder()
    sizes = cachereport.kinds_in(cachereport.contents(cache), kind)
    if not sizes:
        typer.echo(f"the cache {cache} is empty.")
        return
    if not yes and not typer.confirm(cachereport.question(sizes)):
        typer.echo("nothing was removed.")
        raise typer.Exit(1)
    typer.echo(cachereport.clear(cache, list(sizes)))
