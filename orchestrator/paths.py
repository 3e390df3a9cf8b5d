"""Every file name in the project. Nothing else joins a path to a sweep's folder."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import OrchError

RUNS = "runs"
"""Where sweeps go when ``--out`` is not given: ``runs/NAME`` below the current folder."""


def cache_folder() -> Path:
    """``ORCH_CACHE``, or the user's cache folder. Only named here, made by whoever writes to it.

    Raises OrchError where neither is set and this user has no home.
    """
    given = os.environ.get("ORCH_CACHE")
    base = given or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(base).expanduser().resolve()
    except RuntimeError as error:
        raise OrchError("this user has no home folder, so set ORCH_CACHE to a folder for the cache.") from error
    return folder if given else folder / "orch"


def command_line(*words: str | Path) -> str:
    """``orch`` and ``words`` as a person types them: quoted where the shell needs it. Messages print nothing else."""
    return shlex.join(["orch", *map(str, words)])


@dataclass(frozen=True)
class SweepPaths:
    """The names inside one sweep's folder. Properties never create anything."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.resolve().name

    @property
    def spec(self) -> Path:
        """The YAML as run, after ``--set``."""
        return self.root / "spec.yaml"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.parquet"

    @property
    def data_report(self) -> Path:
        return self.root / "data-report.txt"

    @property
    def ledger(self) -> Path:
        """Folder of Parquet segments."""
        return self.root / "ledger"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def ray(self) -> Path:
        """Ray's own storage for this sweep (checkpoints of paused trials); safe to delete afterwards."""
        return self.root / "ray"

    @property
    def tracking_cursor(self) -> Path:
        """How far the ledger has been shown to MLflow."""
        return self.root / "tracking.json"

    @property
    def checkpoints(self) -> Path:
        """One folder for each fit that was interrupted, from which it goes on; empty after a finished sweep."""
        return self.root / "checkpoints"

    def checkpoint(self, fit_id: str) -> Path:
        """State of one unfinished fit, for whoever goes on with it."""
        return self.checkpoints / fit_id

    def fit(self, fit_id: str) -> Path:
        """Folder of one trained model: ``weights.npz`` and ``job.json``."""
        return self.root / "models" / fit_id

    def probabilities(self, model: str, split: str, policy: str) -> Path:
        """Crop-averaged probabilities of one model under one policy: ``.npz`` of sha256, probabilities, seconds."""
        return self.root / "probabilities" / model / f"{split}-{policy}.npz"

    @property
    def winner(self) -> Path:
        """Folder of the winner in the form that is registered and served."""
        return self.root / "winner"

    @property
    def evidence(self) -> Path:
        """Which images the winner was trained, chosen and tested on; part of the served folder."""
        return self.winner / "evidence.parquet"

    @property
    def leaderboard_csv(self) -> Path:
        return self.root / "leaderboard.csv"

    @property
    def leaderboard_parquet(self) -> Path:
        return self.root / "leaderboard.parquet"

    @property
    def leaderboard_md(self) -> Path:
        return self.root / "leaderboard.md"

    @property
    def figures(self) -> Path:
        return self.root / "figures"
