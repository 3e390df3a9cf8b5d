"""Cross-validation as one fit: k fits in lockstep, one per fold, that take turns on a shared network.

Each fold is trained exactly as a separate fit with the job's seed: same starting weights, same random numbers, another
split. Memory holds one network with its traces, and k sets of weights.
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
    """The folder of fold ``number`` (from 1) in a fit's folder."""
    return folder / f"fold-{number}"


class FoldFit(Fit, Protocol):
    """A ``Fit`` that can hand over the shared network and take it back."""

    @property
    def validation_images(self) -> int: ...

    def state(self) -> list[np.ndarray]: ...

    def take_turn(self, state: list[np.ndarray]) -> None: ...

    def check(self) -> None: ...


class FoldedFit:
    """See ``trainers.contract.Fit``."""

    def __init__(self, job: FitJob, open_fold: Callable[[FitJob, int], FoldFit]) -> None:
        """``open_fold``: (job with the fold's output, fold from 1) -> the fold's fit; resets the network."""
        self.job = job
        self._fits: list[FoldFit] = []
        self._states: list[list[np.ndarray]] = []
        for number in range(1, job.folds + 1):
            output = str(fold_folder(Path(job.output), number)) if job.output else ""
            fit = open_fold(replace(job, output=output), number)
            self._fits.append(fit)
            self._states.append(fit.state())

    def run_epoch(self) -> EpochMetrics:
        """Train every fold for one more epoch. Raises Diverged, naming the fold, if one diverges."""
        epochs = []
        for number, fit in self._turns():
            try:
                epochs.append(fit.run_epoch())
            except Diverged as error:
                raise Diverged(f"{error} This was fold {number} of {len(self._fits)}.") from error
        return mean_of_folds(epochs, [fit.validation_images for fit in self._fits])

    def save(self, folder: Path) -> None:
        """Save each fold's state in its own folder."""
        for number, fit in self._turns():
            fit.save(fold_folder(folder, number))

    def restore(self, folder: Path) -> None:
        """See ``trainers.contract.Fit``. Raises TrainerError if ``folder`` lacks the state of a fold."""
        for number, fit in self._turns():
            fit.restore(fold_folder(folder, number))

    def finish(self) -> None:
        """Write ``fold-1`` to ``fold-k`` in the job's output. Raises Diverged first if a weight is not finite."""
        for _, fit in self._turns():
            fit.check()
        for _, fit in self._turns():
            fit.finish()

    def _turns(self) -> Iterator[tuple[int, FoldFit]]:
        """Yield each fold's number and fit while the shared network holds its values."""
        for place, fit in enumerate(self._fits):
            fit.take_turn(self._states[place])
            yield place + 1, fit
            self._states[place] = fit.state()


def mean_of_folds(epochs: Sequence[EpochMetrics], images: Sequence[int]) -> EpochMetrics:
    """Aggregate one epoch over the folds; ``images`` is the number of validation images per fold.

    ``val_loss`` and ``val_accuracy`` are means over all images, so folds are weighted by size; ``seconds`` is the sum;
    every other metric is the unweighted mean over the folds.
    """

    def mean(name: str) -> float:
        return float(np.mean([getattr(e, name) for e in epochs]))

    def over_images(name: str) -> float:
        return float(np.average([getattr(e, name) for e in epochs], weights=images))

    return EpochMetrics(
        epoch=epochs[0].epoch,
        loss=mean("loss"),
        accuracy=mean("accuracy"),
        val_loss=over_images("val_loss"),
        val_accuracy=over_images("val_accuracy"),
        val_macro_f1=mean("val_macro_f1"),
        learning_rate=mean("learning_rate"),
        seconds=sum(e.seconds for e in epochs),
        train_images_per_s=mean("train_images_per_s"),
        images_per_s=mean("images_per_s"),
        fold_val_accuracy=tuple(e.val_accuracy for e in epochs),
    )
