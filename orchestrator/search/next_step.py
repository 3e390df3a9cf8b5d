"""What a trial reads from the store, and what a free worker does next. Pure.

A feature set is a set of rows that many trials read: decoded images, or the outputs of one frozen prefix. A prefill
computes it in a worker of its own, so that trials whose rows are stored train while the next rows are computed. The
search and the simulation of a plan both decide with ``next_step`` and ``may_ask``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainers.config import StepKind, head_first
from trainers.contract import FitJob

LOOK_AHEAD = 4
"""Trials requested beyond the slots, if the next trials depend on no result, so that some start while others wait."""
DUPLICATES_IN_A_ROW = 300
"""Maximum consecutive proposals of known configurations before the search ends."""
MAX_PREFILL_WORKERS = 16
"""Maximum workers that fill one feature set at once: the buckets of a shelf (``trainers.store.segments.BUCKETS``),
each written by one worker. A test compares the two, since the orchestrator does not import the store."""


@dataclass(frozen=True)
class FeatureSet:
    """One set of rows; trials with equal feature sets read the same rows.

    ``images``: what decides which images are decoded and how. ``prefix``: what decides the prefix that runs over them;
    () if the trial reads decoded images alone. ``head``: the same of the features by which its head is trained first.
    """

    images: tuple[Any, ...]
    prefix: tuple[Any, ...] = ()
    head: tuple[Any, ...] = ()


NO_FEATURES = FeatureSet(())


def feature_set_of(job: FitJob) -> FeatureSet:
    """Return what ``job`` reads from the store.

    Decoded images alone if nothing is frozen, if training mixes images, or if nothing is shared; of these the originals
    alone, and the validation's for random crops, if copies are drawn anew in each epoch. Two feature sets may
    differ and yet name the same rows (the last layers of a backbone that cannot be cut there); never the reverse.
    """
    config = job.config
    key = config.prefix_key(job.weights, job.precision)
    copies: tuple[Any, ...] = (config.multiplier, config.recipe, config.copies) if config.multiplier > 1 else ()
    if config.draws == "fresh":
        copies = (config.draws,) if config.view == "random_crop" else ()
    images = (job.manifest, job.train_splits, job.folds, key.image_size, config.framing, *copies)
    if not job.share:
        return FeatureSet(images)
    first = head_first(config).prefix_key(job.weights, job.precision) if config.warm_head else None
    head = () if first is None else (first, job.store_dtype)
    return FeatureSet(images, () if key.reads_images else (key, job.store_dtype), head)


def trace_key(job: FitJob) -> tuple[Any, ...]:
    """Return what decides the traced training step; a warm worker reuses the step for an equal key."""
    config = job.config
    network = (config.prefix_key(job.weights, job.precision), config.hidden, config.head, config.batch_norm)
    return (*network, job.share, StepKind.of(config))


@dataclass(frozen=True)
class WaitingTrial:
    """A trial that was requested and has not started. ``trace``: see ``trace_key``."""

    features: FeatureSet
    trace: Any = ()


@dataclass(frozen=True)
class StartTrial:
    """Start the waiting trial at ``place``."""

    place: int


@dataclass(frozen=True)
class StartPrefill:
    """Fill the feature set of the waiting trial at ``place``."""

    place: int


def next_step(
    waiting: Sequence[WaitingTrial],
    settled: Collection[FeatureSet],
    filling: Mapping[FeatureSet, int],
    warm_trace: Any = None,
    may_prefill: bool = True,
) -> StartTrial | StartPrefill | None:
    """Return what a free worker does next; None if there is nothing for it.

    ``waiting`` is in the order of the requests. ``settled``: feature sets that are filled, or failed, so that waiting
    for them gains nothing. ``filling``: feature set -> workers that fill it now. ``warm_trace``: the trace of the
    worker's last trial.

    A trial that can start goes first, one of the same trace before the others. Otherwise the first feature set that no
    worker fills. Otherwise the feature set with the fewest workers gets one more, the first of equals: the store shares
    the work among ``MAX_PREFILL_WORKERS``. A further one would wait, and keep its GPU from other trials.
    """
    ready = [place for place, trial in enumerate(waiting) if trial.features in settled]
    if ready:
        return StartTrial(next((place for place in ready if waiting[place].trace == warm_trace), ready[0]))
    if not may_prefill or not waiting:
        return None
    workers = [filling.get(trial.features, 0) for trial in waiting]
    place = workers.index(min(workers))
    return StartPrefill(place) if workers[place] < MAX_PREFILL_WORKERS else None


def may_ask(waiting: int, active: int, slots: int, knows_next: bool) -> bool:
    """Return whether a source may be asked for one more trial while ``waiting`` wait and ``active`` run.

    Ahead of its time only if that changes nothing: the next trial depends on no result (``knows_next``), or as many
    trials as there are slots would run if none had to wait for a prefill.
    """
    if not waiting:
        return True
    return waiting < slots + LOOK_AHEAD if knows_next else waiting + active < slots


def known_ahead(sampler: str, startup_trials: int) -> float:
    """Return how many trials ``sampler`` proposes before results decide the next one."""
    if sampler in ("random", "grid"):
        return math.inf
    return startup_trials if sampler in ("tpe", "gp") else 0
