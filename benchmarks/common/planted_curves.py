"""A trainer without a network: learning curves whose ends are known, for measuring schedulers.

What a curve looks like is read from the configuration: ``dropout`` is its end's distance from 1 and ``smoothing`` its
slowness as a share of all epochs. It rises as end * (1 - exp(-epoch / (slowness * epochs))), with a little noise.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from trainers.config import TrialConfig
from trainers.contract import EpochMetrics, FitJob

NOISE = 0.003


def accuracy(config: TrialConfig, epoch: int) -> float:
    """The curve without its noise after ``epoch`` epochs. Pure."""
    return (1 - config.dropout) * (1 - math.exp(-epoch / (config.smoothing * config.epochs)))


class PlantedFit:
    """Implements ``trainers.contract.Fit``."""

    def __init__(self, job: FitJob) -> None:
        self.job = job
        self.epoch = 0

    def run_epoch(self) -> EpochMetrics:
        self.epoch += 1
        noise = np.random.default_rng([self.job.seed, self.epoch, *self.job.id.encode()]).standard_normal()
        value = accuracy(self.job.config, self.epoch) + NOISE * float(noise)
        return EpochMetrics(self.epoch, 1.0, value, 1.0, value, value, 0.001, 0.001, 1.0)

    def save(self, folder: Path) -> None:
        (folder / "epoch").write_text(str(self.epoch))

    def restore(self, folder: Path) -> None:
        self.epoch = int((folder / "epoch").read_text())

    def finish(self) -> None:
        """There are no weights to write."""


def open_fit(job: FitJob) -> PlantedFit:
    return PlantedFit(job)
