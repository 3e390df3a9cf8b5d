"""The state of a fit that has not ended, on disk, so that it goes on after a crash, a pause or a killed driver.

A folder holds the state as ``Fit.save`` wrote it and ``epochs.json``, which names it and lists the epochs so far. The
list is renamed into place last: whoever is killed on the way leaves the state before, or none.
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
"""Training that may be lost. Trials that take less are never saved."""
SAVING_SHARE = 1 / 30
"""Of the time, at most so much goes into saving."""


@dataclass(frozen=True)
class Checkpoint:
    """``state``: what ``Fit.restore`` takes. ``epochs``: all that it trained; ``reported``: how many were told."""

    state: Path
    epochs: tuple[EpochMetrics, ...]
    reported: int = 0


def write(folder: Path, job: FitJob, fit: Fit, epochs: Sequence[EpochMetrics], reported: int = 0) -> None:
    """Save ``fit``, which has trained ``epochs``, in place of what ``folder`` holds of it. Raises OSError."""
    state = folder / f"state-{len(epochs):06d}-{uuid.uuid4().hex[:8]}"
    state.mkdir(parents=True)
    try:
        fit.save(state)
    except BaseException:
        shutil.rmtree(state, ignore_errors=True)  # half of one would keep a full disk full
        raise
    facts = {
        "state": state.name,
        "epochs": [epoch.to_dict() for epoch in epochs],
        "reported": reported,
        "fit": _identity(job),
    }
    # Every few seconds: after a power cut the trial begins again, which is what a lost checkpoint costs.
    atomic_write_text(folder / EPOCHS_FILE, json.dumps(facts), durable=False)
    for other in folder.glob("state-*"):
        if other.name[:12] < state.name[:12]:
            shutil.rmtree(other, ignore_errors=True)  # a few files too many, which go once the trial has ended


def read(folder: Path, job: FitJob) -> Checkpoint | None:
    """What ``write`` left of the fit of ``job``; None where there is nothing.

    Raises TrainerError where it is damaged, or of a fit that was asked for in another way.
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
        raise TrainerError(f"its checkpoint in {folder} is of other settings")
    return saved


def remove(folder: Path) -> None:
    """After the end of the fit. What a dying worker still writes there goes with the sweep's end."""
    shutil.rmtree(folder, ignore_errors=True)


def _identity(job: FitJob) -> dict[str, Any]:
    """What a fit's figures depend on, as JSON has it. Where things lie and how fast they go is not among it."""
    everything = json.loads(json.dumps(job.to_dict()))
    names = ("id", "config", "seed", "weights", "train_splits", "precision", "folds", "measure_speed", "store_dtype")
    return {name: everything[name] for name in names}


class CheckpointSaver:
    """Saves a fit now and then, in ``job.checkpoint``; never where that is "".

    ``save_after_s``: training between two saves, more where saving is slow; 0 to save after every epoch.
    """

    def __init__(
        self, job: FitJob, save_after_s: float = SAVE_AFTER_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._job = job
        self._clock = clock
        self._wait_s = self._save_after_s = save_after_s
        self._last_s = clock()

    def note(self, fit: Fit, epochs: Sequence[EpochMetrics]) -> bool:
        """``fit`` has just trained the last of ``epochs``: whether it was saved now.

        A disk that cannot take it fails no trial: it is said in the trial's log, and tried again later.
        """
        began_s = self._clock()
        if not self._job.checkpoint or began_s - self._last_s < self._wait_s:
            return False
        try:
            write(Path(self._job.checkpoint), self._job, fit, epochs)
            saved = True
        except OSError as error:
            print(f"the state could not be saved ({error}); training goes on", flush=True)
            saved = False
        self._last_s = self._clock()
        if self._save_after_s:
            self._wait_s = max(self._save_after_s, (self._last_s - began_s) / SAVING_SHARE)
        return saved
