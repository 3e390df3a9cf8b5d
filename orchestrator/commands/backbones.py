"""`orch weights list`: the table of backbones, with the weight files that a folder holds for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import DataError
from orchestrator.terminal_table import Column, FittedTable
from trainers.backbones import BACKBONES, weight_file
from trainers.errors import TrainerError
from trainers.files.lookup import obstacle

if TYPE_CHECKING:
    from rich.console import Console


def rows(folder: Path | None) -> list[dict[str, Any]]:
    """Return a dict for each backbone; ``file`` is the name of the file in ``folder`` that fits, or "".

    ``folder`` None: that of ORCH_WEIGHTS, if set. Raises DataError if the folder does not exist.
    """
    if folder is None and os.environ.get("ORCH_WEIGHTS"):
        folder = Path(os.environ["ORCH_WEIGHTS"])
    if folder is not None and (why := obstacle(folder)):
        raise DataError(f"the weights folder {folder} cannot be read: {why}; give another, or unset ORCH_WEIGHTS.")
    if folder is not None and not folder.is_dir():
        raise DataError(f"the weights folder {folder} does not exist; give another, or unset ORCH_WEIGHTS.")
    return [
        {
            "backbone": row.name,
            "layers": row.layers,
            "native_size": row.native_size,
            "smallest_size": row.smallest_size,
            "output_strides": list(row.output_strides),
            "download": row.imagenet,
            "licence": row.licence,
            "source": row.source,
            "file": _file(row, folder),
        }
        for row in BACKBONES.values()
    ]


def _file(row: Any, folder: Path | None) -> str:
    if folder is None or not row.files:
        return ""
    try:
        return weight_file(row, folder, row.native_size).name
    except TrainerError:
        return ""


def print_rows(found: list[dict[str, Any]], console: Console) -> None:
    """Print the table."""
    columns = (
        Column("backbone", "left"),
        Column("layers", leaves=3),
        Column("px"),
        Column("from px", leaves=2),
        Column("stride 16", "left", leaves=1),
        Column("ImageNet weights", "left", leaves=4, note="ImageNet weights: their licence"),
        Column("file here", "left"),
    )
    table = FittedTable("", columns)
    for row in found:
        numbers = [str(row[name]) for name in ("layers", "native_size", "smallest_size")]
        strided = "yes" if 16 in row["output_strides"] else ""
        table.add_row(row["backbone"], *numbers, strided, row["licence"] or "", row["file"])
    table.print(console)
