"""`orch predict`: the champion's label and probability for each photo."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import DataError, OrchError
from orchestrator.paths import SweepPaths

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Prediction:
    """The champion's answer for one file. ``error``: "", or why there is no answer; the other fields are then None."""

    path: str
    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; ``error`` only if there is one."""
        if self.error:
            return {"path": self.path, "error": self.error}
        return {
            "path": self.path,
            "label": self.label,
            "probability": self.probability,
            "probabilities": self.probabilities,
        }


def predict_photos(
    paths: Sequence[Path], model: str | None, warn: Callable[[str], None] = lambda sentence: None
) -> list[Prediction]:
    """Ask the champion of ``model`` about every photo, in the order given. None: the newest sweep's model.

    ``warn`` gets a sentence for folders that cannot be listed. An unreadable photo gets an error of its own. Raises
    DataError if a path does not exist or holds no photo, TrackingError if there is no champion or MLflow does not
    answer.
    """
    from trainers.files.plain import batches

    files = photos(paths, warn)
    uri, name = model_of(model, "orch predict PATH --model NAME")
    from orchestrator.tracking.registry import load_champion

    champion = load_champion(uri, name)
    found: list[Prediction] = []
    for together in batches(files):
        found += _ask(champion, together)
    return found


def photos(paths: Iterable[Path], warn: Callable[[str], None] = lambda sentence: None) -> list[Path]:
    """List the files given, whatever their names, and the photos below the folders given, as training reads them.

    Sorted within a folder. ``warn`` gets a sentence for folders that cannot be listed. Raises DataError.
    """
    from trainers.data.folders import left_out, walk
    from trainers.files.lookup import obstacle
    from trainers.files.suffixes import PHOTOS

    files: list[Path] = []
    missing = []
    for path in paths:
        if os.path.isdir(path):
            tree = walk(path)
            files += sorted(path / photo for folder in tree for photo in folder.paths(folder.images))
            for sentence in left_out(tree):
                warn(f"{path}: {sentence}")
        elif os.path.lexists(path):
            files.append(path)
        elif why := obstacle(path):
            raise DataError(f"{path} cannot be read: {why}.")
        else:
            missing.append(str(path))
    if missing:
        raise DataError(f"there is no {', '.join(missing)}.")
    if not files:
        raise DataError(f"there is no photo in {', '.join(map(str, paths))} (looked for {' '.join(PHOTOS)}).")
    return files


def model_of(model: str | None, command: str) -> tuple[str | None, str]:
    """Return MLflow's URI and the model's name, by default those of the newest sweep.

    ``command``: with which a person names a model. Raises OrchError if there is neither a name nor a sweep.
    """
    from orchestrator.ledger.folder import find_sweep
    from orchestrator.spec.load import load_spec
    from orchestrator.tracking.settings import model_name

    try:
        spec = load_spec(str(SweepPaths(find_sweep(None)).spec), check_machine=False)
    except OrchError as error:
        if model is not None:
            return None, model
        raise OrchError(f"which model? {error} Name one: `{command}`.") from error
    return spec.tracking.uri, model or model_name(spec)


def _ask(champion: Any, files: Sequence[Path]) -> list[Prediction]:
    """Call the model once for all; if one file is no photo, once for each, so that the others get answers."""
    from trainers.errors import TrainerError

    try:
        return _answers(champion, files)
    except TrainerError as error:
        if len(files) == 1:
            return [Prediction(str(files[0]), error=_reason(error, files[0]))]
    return [answer for file in files for answer in _ask(champion, [file])]


def _reason(error: Exception, file: Path) -> str:
    """Return the error in one line, without the photo's name and index: the answer holds its path."""
    return " ".join(str(error).removeprefix(f"{file} ").split()).removeprefix("image 1 of 1 ")


def _answers(champion: Any, files: Sequence[Path]) -> list[Prediction]:
    import pandas as pd

    from trainers.files.plain import read_plain

    answers = champion.predict(pd.DataFrame({"image": [read_plain(file) for file in files]}))
    return [
        Prediction(str(file), str(row["label"]), float(row["probability"]), json.loads(row["probabilities"]))
        for file, row in zip(files, answers.to_dict("records"), strict=True)
    ]


def print_predictions(found: Sequence[Prediction], console: Console) -> None:
    """Print a line for each photo."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for one in found:
        if one.error:
            table.add_row(Text(one.path), "", Text(one.error, style="red"))
        else:
            table.add_row(Text(one.path), f"{one.probability:.3f}", Text(one.label or ""))
    console.print(table)
