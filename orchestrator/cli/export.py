"""`orch export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import (
    AsJson,
    Folder,
    Numbers,
    console,
    number_option,
    output_folder,
    print_json,
    sweep_folder,
)


def export(
    folder: Folder = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Of savedmodel, tflite, tflite-fp16, tflite-int8, onnx, commas between; left out: all.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        output_folder("DIR", "Where; default exports in the sweep's folder."),
    ] = None,
    bound: Annotated[
        float,
        number_option(
            metavar="SHARE",
            help="Test accuracy that an export may lose.",
            allowed=Numbers(float, "0.01", least=0, most=1),
        ),
    ] = 0.01,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Keep what loses more; the override is recorded.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the winner as SavedModel, TFLite (float, fp16, int8) and ONNX, each compared with the original.

    The exports predict the test split: the report gives accuracy, its paired difference, latency and size. The look is
    recorded in the sweep's ledger. A format that loses more than the bound, and more than chance would, is refused.
    """
    from orchestrator.commands.export import ExportRequest, export_winner, print_report, refusal

    formats = () if to is None else tuple(to.split(","))
    request = ExportRequest(formats=formats, out=out, bound=bound, force=force)
    tell = (lambda line: None) if as_json else typer.echo
    report = export_winner(sweep_folder(folder, finished=True), request, tell)
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report, console())
    if (refused := refusal(report)) is not None:
        raise refused
