"""What a trial needs from the store before it can start quickly, and what a free worker does next. Pure.

A need is a set of rows that many trials read: decoded images, or what one frozen part makes of them. A worker fills
it as a job of its own, so that trials whose rows are there run while the next are computed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainers.backbones import backbone
from trainers.contract import FitJob

MOST_WORKERS = 16
"""Maximum workers that fill one need at once: the buckets of a shelf (``trainers.storefiles.BUCKETS``), each written by
one worker. A test compares the two, since the orchestrator does not import the store."""


@dataclass(frozen=True)
class Need:
    """One set of rows. Trials with equal needs read the same ones.

    ``images``: what decides which images are decoded and how. ``prefix``: what decides the frozen part that runs over
    them; () where the decoded images are all that is needed.
    """

    images: tuple[Any, ...]
    prefix: tuple[Any, ...] = ()


def need_of(job: FitJob) -> Need:
    """What ``job`` reads from the store.

    Decoded images alone where nothing is frozen, where training mixes images, and where nothing is shared. Two needs
    may differ and yet name the same rows (the last layers of a backbone that cannot be cut there); never the reverse.
    """
    config = job.config
    size = config.image_size or backbone(config.backbone).native_size
    copies = (config.multiplier, config.recipe) if config.multiplier > 1 else ()
    images = (job.manifest, job.train_splits, job.folds, size, config.view, *copies)
    mixes = config.mixup > 0 or config.cutmix > 0
    if not job.share or mixes or config.unfrozen_layers == "all":
        return Need(images)
    cut = (config.unfrozen_layers, config.output_stride, config.feature_fusion, config.pooling)
    return Need(images, (config.backbone, job.weights, *cut, job.precision, job.store_dtype))


def trace_of(job: FitJob) -> tuple[Any, ...]:
    """What trials share whose training step is traced once in a warm worker."""
    config = job.config
    size = config.image_size or backbone(config.backbone).native_size
    shape = (config.unfrozen_layers, config.output_stride, config.feature_fusion, config.pooling, config.hidden)
    step = (config.head, config.optimizer, config.clip_norm, config.loss, config.mixup > 0 or config.cutmix > 0)
    return (config.backbone, job.weights, size, job.share, job.precision, *shape, *step)


@dataclass(frozen=True)
class Waiting:
    """A trial that was asked for and has not started. ``trace``: see ``trace_of``."""

    need: Need
    trace: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Run:
    """Start the waiting trial at this place."""

    place: int


@dataclass(frozen=True)
class Build:
    """Fill the need of the waiting trial at this place."""

    place: int


def next_step(
    waiting: Sequence[Waiting],
    settled: Collection[Need],
    building: Mapping[Need, int],
    warm: tuple[Any, ...] | None = None,
    may_build: bool = True,
) -> Run | Build | None:
    """What a free worker does next; None where there is nothing for it.

    ``waiting`` is in the order of asking. ``settled``: needs that are filled, or failed, so that nothing is gained by
    waiting for them. ``building``: need -> workers that fill it now. ``warm``: the trace of what the worker ran last.

    A trial that can start goes first, one of the same trace before the others. Else the need asked for first that
    nobody fills. Else the need with the fewest workers gets one more, the first of equals: the store shares the work,
    among ``MOST_WORKERS``; another one would only wait, and keep its GPU from whoever else could use it.
    """
    ready = [place for place, trial in enumerate(waiting) if trial.need in settled]
    if ready:
        return Run(next((place for place in ready if waiting[place].trace == warm), ready[0]))
    if not may_build or not waiting:
        return None
    place = min(range(len(waiting)), key=lambda place: (building.get(waiting[place].need, 0), place))
    return Build(place) if building.get(waiting[place].need, 0) < MOST_WORKERS else None
