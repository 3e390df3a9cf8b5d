"""The pictures of a finished sweep, drawn after the leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import SweepState, trials_frame
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.leaderboard import Leaderboard
from trainers.data.manifest import Manifest

if TYPE_CHECKING:
    import pandas as pd


def draw_pictures(sweep: SweepContext, manifest: Manifest, board: Leaderboard) -> None:
    """Draw the search, the leaderboard and the winner's mistakes; warn of what cannot be drawn."""
    from dashboards import figures, search_figures  # matplotlib: a second

    folder, classes = sweep.paths.figures, manifest.classes
    folder.mkdir(exist_ok=True)
    predicted = board.probabilities.argmax(1)
    state = sweep.state()
    try:
        search_figures.curves_figure(epochs_frame(state), folder / "curves.png")
        search_figures.parameters_figure(search_frame(state), folder / "parameters.png")
        figures.leaderboard_figure(board.frame, folder / "leaderboard.png")
        figures.confusion_figure(board.labels, predicted, classes, folder / "confusion.png")
        figures.mistakes_figure(
            manifest.split("test").paths(),
            [classes[i] for i in board.labels],
            [classes[i] for i in predicted],
            board.probabilities.max(1),
            folder / "mistakes.png",
            classes=classes,
        )
    except (ValueError, OSError) as error:
        sweep.warn(f"a figure could not be drawn: {error}")


def search_frame(state: SweepState) -> pd.DataFrame:
    """Return a row for each trial of the search, with a ``config_`` column for each field."""
    frame = trials_frame(state)
    return frame[frame["stage"] == Stage.SEARCH].reset_index(drop=True)


def epochs_frame(state: SweepState) -> pd.DataFrame:
    """Return a row for each epoch of the search: id, epoch, val_accuracy and the trial's state."""
    import pandas as pd

    rows = [
        {"id": r.id, "epoch": epoch["epoch"], "val_accuracy": epoch["val_accuracy"], "state": str(r.state)}
        for r in state.trials.values()
        if r.stage == Stage.SEARCH
        for epoch in r.epochs
    ]
    return pd.DataFrame(rows, columns=["id", "epoch", "val_accuracy", "state"])
