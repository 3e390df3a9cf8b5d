"""A trainer that does nothing, so that what a trial costs is what its orchestrator costs. Free of TensorFlow."""

from __future__ import annotations

from pathlib import Path

from trainers.contract import EpochMetrics, FitJob


def open_fit(job: FitJob) -> NoWork:
    return NoWork(job)


class NoWork:
    """Implements ``trainers.contract.Fit``; its accuracy is 1 less the configuration's dropout."""

    def __init__(self, job: FitJob) -> None:
        self._accuracy = 1 - job.config.dropout
        self._epoch = 0

    def run_epoch(self) -> EpochMetrics:
        self._epoch += 1
        value = self._accuracy
        return EpochMetrics(self._epoch, 1 - value, value, 1 - value, value, value, 0.001, 0.001, 1.0)

    def save(self, folder: Path) -> None:
        (folder / "epoch").write_text(str(self._epoch))

    def restore(self, folder: Path) -> None:
        self._epoch = int((folder / "epoch").read_text())

    def finish(self) -> None:
        """There are no weights to write."""
