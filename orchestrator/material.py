"""The verbs on what a sweep starts from: ``orch data`` and ``orch weights``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.errors import DataError
from orchestrator.help_pages import Verbs, verb
from orchestrator.options import AsJson, Overrides, Source, console, print_json

data_app = typer.Typer(cls=Verbs, no_args_is_help=True, help="Look at the photos before spending a GPU on them.")
weights_app = typer.Typer(cls=Verbs, no_args_is_help=True, help="Starting weights: what fits which backbone.")


@verb(data_app, "orch data check")
def data_check(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="A folder, archive or table of photos; several are read as one set."),
    ],
    as_json: AsJson = False,
) -> None:
    """Report on a set of photos: classes, imbalance, sizes, unreadable files, duplicates, classes too small."""
    from orchestrator.paths import cache_folder
    from trainers.manifest import DataSource, check_data

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
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture to write.")] = Path("preview.png"),
    images: Annotated[int, typer.Option(metavar="N", min=1, max=200, help="Photos to show, over all classes.")] = 12,
) -> None:
    """Draw what the network will see: photos of the training split as each view cuts them, and their copies."""
    from orchestrator import preview
    from orchestrator.spec import load_spec

    typer.echo(preview.preview(load_spec(source, tuple(overrides or ())), images, out, typer.echo))


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
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A PyTorch state dict, .safetensors or .pth.")],
    backbone: Annotated[str, typer.Option(metavar="NAME", help="The backbone it is for.")] = "senet50",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write; default: beside it, under the usual name.")
    ] = None,
) -> None:
    """Turn published PyTorch weights into a file for a weights folder; every name and shape is checked."""
    from orchestrator.worker import load_dotted

    convert = load_dotted("trainers.convert:convert")  # builds the network: TensorFlow, in this process alone
    for line in convert(source, backbone, out).lines():
        typer.echo(line)
