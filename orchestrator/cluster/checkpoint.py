"""The state of an unfinished fit on disk, so that it resumes after a crash, a pause or a killed driver.

A folder holds the state as ``Fit.save`` wrote it and ``epochs.json``, which names it and lists the epochs so far. The
list is renamed into place last: a process killed while it writes leaves the previous state, or none.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.contract import EpochMetrics, Fit, FitJob
from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write_text

EPOCHS_FILE = "epochs.json"
SAVE_AFTER_S = 10.0
"""Seconds of training between two saves, and so the maximum that is lost; shorter trials are never saved."""
SAVING_SHARE = 1 / 30
"""Maximum share of a trial's time that is spent on saving."""


@dataclass(frozen=True)
class Checkpoint:
    """``state``: folder for ``Fit.restore``. ``epochs``: all that were trained; ``reported``: how many Tune has."""

    state: Path
    epochs: tuple[EpochMetrics, ...]
    reported: int = 0


def write_checkpoint(folder: Path, job: FitJob, fit: Fit, epochs: Sequence[EpochMetrics], reported: int = 0) -> None:
    """Save ``fit``, which has trained ``epochs``, and replace the previous state in ``folder``. Raises OSError."""
    state = folder / f"state-{len(epochs):06d}-{uuid.uuid4().hex[:8]}"
    state.mkdir(parents=True)
    try:
        fit.save(state)
    except BaseException:
        shutil.rmtree(state, ignore_errors=True)  # a partial state would keep a full disk full
        raise
    facts = {
        "state": state.name,
        "epochs": [epoch.to_dict() for epoch in epochs],
        "reported": reported,
        "fit": _identity(job),
    }
    # Not durable: after a power cut the trial starts over, which costs no more than a lost checkpoint.
    atomic_write_text(folder / EPOCHS_FILE, json.dumps(facts), durable=False)
    for other in folder.glob("state-*"):
        if other.name[:12] < state.name[:12]:
            shutil.rmtree(other, ignore_errors=True)  # leftovers are removed when the trial ends


def read_checkpoint(folder: Path, job: FitJob) -> Checkpoint | None:
    """Return the checkpoint of ``job`` in ``folder``; None if there is none.

    Raises TrainerError if it is damaged or belongs to a fit with other settings.
    """
    file = folder / EPOCHS_FILE
    if not file.is_file():
        return None
    try:
        facts = json.loads(file.read_text())
        rows = [{**row, "fold_val_accuracy": tuple(row["fold_val_accuracy"])} for row in facts["epochs"]]
        saved = Checkpoint(folder / facts["state"], tuple(EpochMetrics(**row) for row in rows), int(facts["reported"]))
        identity = facts["fit"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainerError(f"its checkpoint in {folder} is damaged ({type(error).__name__})") from error
    if [epoch.epoch for epoch in saved.epochs] != list(range(1, len(rows) + 1)) or not saved.state.is_dir():
        raise TrainerError(f"its checkpoint in {folder} is damaged (epochs or state are missing)")
    if identity != _identity(job):
        raise TrainerError(f"its checkpoint in {folder} belongs to other settings")
    return saved


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of an ended fit. Files that a dying worker still writes are removed with the sweep."""
    shutil.rmtree(folder, ignore_errors=True)


def _identity(job: FitJob) -> dict[str, Any]:
    """Return what a fit's metrics depend on, as JSON values; no paths and no speeds."""
    everything = json.loads(json.dumps(job.to_dict()))
    names = ("id", "config", "seed", "weights", "train_splits", "precision", "folds", "measure_speed", "store_dtype")
    return {name: everything[name] for name in names}


class CheckpointSaver:
    """Save a fit periodically in ``job.checkpoint``; never if that is "".

    ``save_after_s``: seconds of training between two saves, more if saving is slow; 0 to save after every epoch.
    """

    def __init__(
        self, job: FitJob, save_after_s: float = SAVE_AFTER_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._job = job
        self._clock = clock
        self._wait_s = self._save_after_s = save_after_s
        self._last_s = clock()

    def note(self, fit: Fit, epochs: Sequence[EpochMetrics]) -> bool:
        """Save ``fit``, which has just trained the last of ``epochs``, if a save is due; return whether it was saved.

        A full disk fails no trial: the error goes to the trial's log, and the next save is tried later.
        """
        began_s = self._clock()
        if not self._job.checkpoint or began_s - self._last_s < self._wait_s:
            return False
        try:
            write_checkpoint(Path(self._job.checkpoint), self._job, fit, epochs)
            saved = True
        except OSError as error:
            print(f"the state could not be saved ({error}); training continues", flush=True)
            saved = False
        self._last_s = self._clock()
        if self._save_after_s:
            self._wait_s = max(self._save_after_s, (self._last_s - began_s) / SAVING_SHARE)
        return saved
