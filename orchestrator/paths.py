"""The cache folder, and the files and folders at the top of a sweep's folder.

Only this module joins a name to a sweep's folder. Names further down are constants of the module that writes them:
``ledger.segments``, ``cluster.checkpoint``, ``trainers.training.loop`` (a model), ``trainers.serving.model`` (the
winner), ``commands.export`` (the exports) and ``sweep.leaderboard`` (the figures).
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import OrchError

RUNS = "runs"
"""Folder of sweeps without ``--out``: ``runs/NAME`` in the current folder."""


def cache_folder() -> Path:
    """Return ``ORCH_CACHE``, or ``orch`` in the user's cache folder. Does not create it.

    Raises OrchError if neither variable is set and the user has no home folder.
    """
    given = os.environ.get("ORCH_CACHE")
    base = given or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(os.path.realpath(Path(base).expanduser()))
    except RuntimeError as error:
        raise OrchError("this user has no home folder, so set ORCH_CACHE to a folder for the cache.") from error
    return folder if given else folder / "orch"


def data_folder() -> Path | None:
    """Return the folder of what orch keeps for this user, ``orch`` in the XDG data folder; None without a home.

    Does not create it. ``orch cache`` does not touch it.
    """
    try:
        return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "orch"
    except RuntimeError:
        return None


def command_line(*words: str | Path) -> str:
    """Join ``orch`` and ``words`` into a command that can be pasted into a shell. Messages build commands with this."""
    return shlex.join(["orch", *map(str, words)])


@dataclass(frozen=True)
class SweepPaths:
    """Files and folders of one sweep. Nothing here creates them."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.resolve().name

    def name_of(self, path: Path) -> str:
        """Return ``path`` relative to the sweep's folder, with forward slashes; links to its folder are followed."""
        real = os.path.join(os.path.realpath(path.parent), path.name)
        return Path(os.path.relpath(real, os.path.realpath(self.root))).as_posix()

    def named(self, name: str) -> Path:
        """Return the file that ``name_of`` calls ``name``."""
        return self.root / name

    @property
    def spec(self) -> Path:
        """The YAML file as it runs, ``--set`` applied."""
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
        """Ray's storage for this sweep, such as checkpoints of paused trials; can be deleted when the sweep is done."""
        return self.root / "ray"

    @property
    def tracking_cursor(self) -> Path:
        """Position in the ledger up to which MLflow has received the events."""
        return self.root / "tracking.json"

    @property
    def tracking_lock(self) -> Path:
        """Lock of the one process that sends events to MLflow."""
        return self.root / "tracking.json.lock"

    @property
    def checkpoints(self) -> Path:
        """One folder per unfinished fit; empty after a finished sweep."""
        return self.root / "checkpoints"

    def checkpoint(self, fit_id: str) -> Path:
        """Folder with the state of one unfinished fit, from which it resumes."""
        return self.checkpoints / fit_id

    def fit(self, fit_id: str) -> Path:
        """Folder of one trained model."""
        return self.root / "models" / fit_id

    def probabilities(self, model: str, split: str, policy: str) -> Path:
        """Probabilities of one model averaged over a policy's crops: arrays sha256, probabilities and seconds."""
        return self.root / "probabilities" / model / f"{split}-{policy}.npz"

    @property
    def winner(self) -> Path:
        """Folder of the winner, as it is registered and served."""
        return self.root / "winner"

    @property
    def evidence(self) -> Path:
        """Images that the winner was trained, chosen and tested on; served with it."""
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
    def per_class(self) -> Path:
        """Precision, recall and F1 of each class: the winner on the test split."""
        return self.root / "per_class.csv"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def exports(self) -> Path:
        """Folder of ``orch export`` without ``--out``."""
        return self.root / "exports"
