"""The pictures of a finished sweep, drawn after the leaderboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.evaluation.importance import find_effects
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import SweepState, TrialState
from orchestrator.spec.space.parameters import searched_parameters
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.leaderboard import Leaderboard
from trainers.data.manifest import Manifest
from trainers.wording import first_line

if TYPE_CHECKING:
    import pandas as pd


def draw_pictures(sweep: SweepContext, manifest: Manifest, board: Leaderboard) -> None:
    """Draw the search, the leaderboard and the winner's mistakes; warn of what cannot be drawn."""
    from dashboards import figures, search_figures  # matplotlib: a second

    folder, classes = sweep.paths.figures, manifest.classes
    folder.mkdir(exist_ok=True)
    predicted = board.probabilities.argmax(1)
    state = sweep.state()
    answers = ([classes[i] for i in board.labels], [classes[i] for i in predicted], board.probabilities.max(1))
    drawings: dict[str, Callable[[Path], object]] = {
        "curves.png": lambda path: search_figures.curves_figure(epochs_frame(state), path),
        "parameters.png": lambda path: _draw_parameters(sweep, state, path),
        "leaderboard.png": lambda path: figures.leaderboard_figure(board.frame, path),
        "confusion.png": lambda path: figures.confusion_figure(board.labels, predicted, classes, path),
        "mistakes.png": lambda path: figures.mistakes_figure(
            manifest.split("test").paths(), *answers, path, classes=classes
        ),
    }
    for name, draw in drawings.items():
        try:
            draw(folder / name)
        except Exception as error:  # the results are complete, whatever a figure meets
            sweep.warn(f"{folder / name} could not be drawn: {first_line(error)}. The results do not depend on it.")
    sweep.keep(folder / name for name in drawings)


def _draw_parameters(sweep: SweepContext, state: SweepState, path: Path) -> None:
    from dashboards import search_figures  # matplotlib: a second

    trials = [record for record in state.trials.values() if record.stage == Stage.SEARCH]
    accuracy = np.array([record.val_accuracy for record in trials], float)
    full = [r.state == TrialState.COMPLETED and len(r.epochs) >= sweep.spec.budget.epochs for r in trials]
    completed = np.array(full, bool) & np.isfinite(accuracy)
    configs = [record.config for record in trials]
    parameters = searched_parameters(sweep.spec.search, sweep.spec.gpu_memory_gb, configs)
    findings = find_effects(parameters, accuracy, completed, sweep.spec.budget.seed)
    search_figures.parameters_figure(findings, accuracy, completed, path)


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
