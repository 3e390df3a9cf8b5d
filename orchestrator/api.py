"""orch from Python: ``import orchestrator as orch``. Reads sweeps' folders; starts no Ray, TensorFlow or MLflow.

The stable surface of this package: what is here keeps its name and meaning within a major version. Everything else
may move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.ledger import folder as sweep_folder
from orchestrator.ledger.stages import Stage
from orchestrator.paths import RUNS

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.spec.sweep import SweepSpec


@dataclass(frozen=True)
class SweepView:
    """A sweep's folder as it was when it was opened. Tables are ``pandas.DataFrame`` objects of the caller's own."""

    sweep: sweep_folder.Sweep

    @property
    def folder(self) -> Path:
        return self.sweep.paths.root

    @property
    def stage(self) -> str:
        """The current or last stage; "finished" after the last one, "" before the first."""
        return self.sweep.stage

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial of the search in order of creation: ``config_`` columns and the last epoch's metrics."""
        from orchestrator.ledger.state import trials_frame

        frame = trials_frame(self.sweep.state)
        return frame[frame["stage"].isin(["", Stage.SEARCH])].reset_index(drop=True)

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row per retrained model and crop policy, best first; empty before there is one.

        Raises OrchError if its file is damaged.
        """
        import pandas as pd

        return pd.DataFrame(sweep_folder.read_leaderboard(self.sweep.kept))


def open_sweep(folder: str | Path | None = None) -> SweepView:
    """Open a sweep by its path or its name below ``runs/``; None is the newest that has trials. Raises OrchError."""
    given = None if folder is None else str(folder)
    return SweepView(sweep_folder.read_sweep(sweep_folder.find_sweep(given, sweep_folder.Wanted.STARTED)))


def sweeps(runs: str | Path = RUNS) -> list[Path]:
    """Folders of the sweeps below ``runs``, the one written to last first."""
    return sweep_folder.list_sweeps(Path(runs))


def load_spec(source: str | Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read and check a file, or a shipped one by its name. Raises SpecError with every mistake at once."""
    from orchestrator.spec import load

    return load.load_spec(str(source), overrides)
