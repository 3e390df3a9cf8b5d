"""Cross-validation as one fit: k fits in step, one for each fold, on one network that they take in turns.

Each fold is trained exactly as a fit of its own with the job's seed would be: same starting weights, same random
numbers, another split. Memory holds one network and its traces, and k sets of values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from trainers.contract import EpochMetrics, Fit, FitJob
from trainers.errors import Diverged


def fold_folder(folder: Path, number: int) -> Path:
    """Where fold ``number``, counted from 1, lies within a fit's folder."""
    return folder / f"fold-{number}"


class FoldFit(Fit, Protocol):
    """What one fold's fit can do besides: give the shared network up and take it again."""

    @property
    def validation_images(self) -> int: ...

    def state(self) -> list[np.ndarray]: ...

    def take_turn(self, state: list[np.ndarray]) -> None: ...

    def check(self) -> None: ...


class FoldedFit:
    """See ``trainers.contract.Fit``."""

    def __init__(self, job: FitJob, open_fold: Callable[[FitJob, int], FoldFit]) -> None:
        """``open_fold``: (a job with the fold's own output, the fold from 1) -> its fit; it resets the network."""
        self.job = job
        self._fits: list[FoldFit] = []
        self._states: list[list[np.ndarray]] = []
        for number in range(1, job.folds + 1):
            output = str(fold_folder(Path(job.output), number)) if job.output else ""
            fit = open_fold(replace(job, output=output), number)
            self._fits.append(fit)
            self._states.append(fit.state())

    def run_epoch(self) -> EpochMetrics:
        """One more epoch of every fold. Raises Diverged, naming the fold, where one of them does."""
        epochs = []
        for number, fit in self._turns():
            try:
                epochs.append(fit.run_epoch())
            except Diverged as error:
                raise Diverged(f"{error} This was fold {number} of {len(self._fits)}.") from error
        return mean_of_folds(epochs, [fit.validation_images for fit in self._fits])

    def save(self, folder: Path) -> None:
        """Each fold's state in a folder of its own."""
        for number, fit in self._turns():
            fit.save(fold_folder(folder, number))

    def restore(self, folder: Path) -> None:
        """See ``trainers.contract.Fit``. Raises TrainerError where ``folder`` does not hold every fold's state."""
        for number, fit in self._turns():
            fit.restore(fold_folder(folder, number))

    def finish(self) -> None:
        """Write ``fold-1`` to ``fold-k`` below the job's output; nothing where one holds a weight that is no number."""
        for _, fit in self._turns():
            fit.check()
        for _, fit in self._turns():
            fit.finish()

    def _turns(self) -> Iterator[tuple[int, FoldFit]]:
        """Each fold's number and fit, while the shared network holds its values."""
        for place, fit in enumerate(self._fits):
            fit.take_turn(self._states[place])
            yield place + 1, fit
            self._states[place] = fit.state()


def mean_of_folds(epochs: Sequence[EpochMetrics], images: Sequence[int]) -> EpochMetrics:
    """One epoch of all folds; ``images`` is how many each fold validates on.

    ``val_loss`` and ``val_accuracy`` are means over all images, so a fold counts by its size; every other figure is
    the plain mean over the folds, ``seconds`` the sum.
    """

    def plain(name: str) -> float:
        return float(np.mean([getattr(e, name) for e in epochs]))

    def over_images(name: str) -> float:
        return float(np.average([getattr(e, name) for e in epochs], weights=images))

    return EpochMetrics(
        epoch=epochs[0].epoch,
        loss=plain("loss"),
        accuracy=plain("accuracy"),
        val_loss=over_images("val_loss"),
        val_accuracy=over_images("val_accuracy"),
        val_macro_f1=plain("val_macro_f1"),
        learning_rate=plain("learning_rate"),
        seconds=sum(e.seconds for e in epochs),
        train_images_per_s=plain("train_images_per_s"),
        images_per_s=plain("images_per_s"),
        fold_val_accuracy=tuple(e.val_accuracy for e in epochs),
    )
