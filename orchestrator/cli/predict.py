"""`orch predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, console, print_json
from orchestrator.errors import DataError


def predict(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Photos, or folders of photos.")],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The registered model; default: the newest sweep's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Label and probability of each photo, from the champion."""
    from orchestrator.commands.predict import predict_photos, print_predictions

    found = predict_photos(paths, model, lambda sentence: typer.echo(f"warning  {sentence}", err=True))
    if as_json:
        print_json([one.to_dict() for one in found])
    else:
        print_predictions(found, console())
    if any(one.error for one in found):
        raise typer.Exit(DataError.exit_code)
