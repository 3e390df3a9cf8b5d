"""The head that a deeper training begins with, trained first on the features of the frozen backbone.

A head of random weights would pull the pretrained layers apart in the first steps (Kumar et al. 2022, "Fine-tuning can
distort pretrained features", section 3). The features are stored, so all trials of one backbone share them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.config import head_first
from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.networks.network import Architecture
from trainers.training.examples import example_sets
from trainers.training.features import LabelledRows, ReadCost, ReadSettings, RecomputedRows, RowSubset, read_sets
from trainers.training.steps import prefix_of


@dataclass(frozen=True)
class HeadStart:
    """``job`` trains the head of ``architecture`` on ``rows``."""

    job: FitJob
    architecture: Architecture
    rows: LabelledRows


@dataclass(frozen=True)
class _RowsInMemory:
    """Rows that were computed once, (n, ...)."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.values[indices]


def head_starts(job: FitJob, manifest: Manifest, precision: str, cost: ReadCost | None = None) -> list[HeadStart]:
    """Read what the head of each fold of ``job`` is trained on first (without folds, of the one fit).

    [] if the configuration has no ``warm_head``. Raises TrainerError.
    """
    if not job.config.warm_head:
        return []
    own = dataclasses.replace(
        job,
        config=head_first(job.config),
        seed=job.first_seed,
        devices=1,
        output="",
        checkpoint="",
        measure_speed=False,
        distillation=None,
    )
    architecture = Architecture.of(own.config, own.weights, len(manifest.classes), precision)
    sets = [train for train, _ in example_sets(own, manifest)]
    reading = ReadSettings(own.share, own.store_dtype, own.threads, cost or ReadCost())
    prefix = prefix_of(architecture.prefix, Path(own.cache))
    return [
        HeadStart(own, architecture, rows) for rows in read_sets(sets, own.config, prefix, Path(own.cache), reading)
    ]


def computed_once(read: LabelledRows) -> LabelledRows:
    """Return ``read`` with features that are not stored computed now and kept in memory, a few kilobytes each."""
    rows = read.rows.rows if isinstance(read.rows, RowSubset) else read.rows
    if not isinstance(rows, RecomputedRows):
        return read
    return dataclasses.replace(read, rows=_RowsInMemory(read.rows.take(np.arange(len(read)))))
