"""The trials that were asked for and wait, and the builds that they wait for: what a free worker gets next.

Holds the state that ``needs.next_step`` decides on. Knows neither Ray nor the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.search.sampling import TrialRequest, TrialSource
from trainers.contract import FitJob

LOOK_AHEAD = 4
"""Trials asked for beyond the slots, where that changes nothing, so that some can start while others wait."""


@dataclass
class LiveTrial:
    """A trial that was asked for and has not ended. ``trial``: Tune's, once it has one.

    ``active``: it holds or waits for a slot. ``kept``: epochs that the ledger has and that the trial, going on from
    its checkpoint, reports again.
    """

    request: TrialRequest
    attempt: int
    trial: Any = None
    active: bool = True
    kept: int = 0
    values: dict[int, tuple[float, ...]] = field(default_factory=dict)  # epoch -> each objective


@dataclass
class PrefillJob:
    """A worker that fills ``need``, for the trial that ``request`` asks for and whoever else wants it."""

    request: TrialRequest
    need: FeatureSet
    trial: Any = None


class TrialQueue:
    """``held``: trials that wait, in the order of asking. ``builds``: by Tune's id, the builds under way.

    Without ``fills`` nothing is ever built, and a trial that was asked for is the next to run.
    """

    def __init__(self, fills: bool) -> None:
        self.held: list[LiveTrial] = []
        self.builds: dict[str, PrefillJob] = {}
        self._fills = fills
        self._waiting: list[WaitingTrial] = []
        self._settled: set[FeatureSet] = {NO_FEATURES}
        self._warm: tuple[Any, ...] | None = None

    def may_ask(self, source: TrialSource, active: int, slots: int) -> bool:
        """Whether ``source`` may be asked for one more trial, given ``active`` ones; a slot must be free.

        Ahead of its time only where that changes nothing: the next trial is settled already, or as many trials as
        there are slots would be under way if nobody had to wait for a build.
        """
        held = len(self.held)
        if not held or not self._fills:
            return not held
        return held < slots + LOOK_AHEAD if source.knows_next else held + active < slots

    def hold(self, live: LiveTrial) -> None:
        job = live.request.job
        self.held.append(live)
        self._waiting.append(
            WaitingTrial(feature_set_of(job), trace_key(job)) if self._fills else WaitingTrial(NO_FEATURES)
        )

    def next(self, tune_id: str, may_build: bool) -> LiveTrial | PrefillJob | None:
        """The trial to start, or the build, which is then under way as ``tune_id``; None where there is nothing."""
        building = Counter(filling.need for filling in self.builds.values())
        step = next_step(self._waiting, self._settled, building, self._warm, may_build)
        if step is None:
            return None
        waiting = self._waiting[step.place]
        if isinstance(step, StartPrefill):
            filling = self.builds[tune_id] = PrefillJob(self.held[step.place].request, waiting.need)
            return filling
        del self._waiting[step.place]
        return self.held.pop(step.place)

    def trial_ended(self, live: LiveTrial) -> None:
        """Its worker is free, and warm for trials of the same trace."""
        self._warm = trace_key(live.request.job) if self._fills else None

    def build_ended(self, tune_id: str) -> PrefillJob:
        """Filled or failed: either way nobody waits for it any longer."""
        filling = self.builds.pop(tune_id)
        self._settled.add(filling.need)
        return filling


"""What a trial needs from the store before it can start quickly, and what a free worker does next. Pure.

A need is a set of rows that many trials read: decoded images, or what one frozen part makes of them. A worker fills
it as a job of its own, so that trials whose rows are there run while the next are computed.
"""


MAX_PREFILL_WORKERS = 16
"""Maximum workers per prefill: the buckets of a shelf (``trainers.store.segments.BUCKETS``), each written by
one worker. A test compares the two, since the orchestrator does not import the store."""


@dataclass(frozen=True)
class FeatureSet:
    """One set of rows. Trials with equal needs read the same ones.

    ``images``: what decides which images are decoded and how. ``prefix``: what decides the frozen part that runs over
    them; () where the decoded images are all that is needed.
    """

    images: tuple[Any, ...]
    prefix: tuple[Any, ...] = ()


NO_FEATURES = FeatureSet(())


def feature_set_of(job: FitJob) -> FeatureSet:
    """What ``job`` reads from the store.

    Decoded images alone where nothing is frozen, where training mixes images, and where nothing is shared. Two needs
    may differ and yet name the same rows (the last layers of a backbone that cannot be cut there); never the reverse.
    """
    config = job.config
    key = config.prefix_key(job.weights, job.precision)
    copies = (config.multiplier, config.recipe) if config.multiplier > 1 else ()
    images = (job.manifest, job.train_splits, job.folds, key.image_size, config.view, *copies)
    if not job.share or key.reads_images:
        return FeatureSet(images)
    return FeatureSet(images, (key, job.store_dtype))


def trace_key(job: FitJob) -> tuple[Any, ...]:
    """What trials share whose training step is traced once in a warm worker."""
    config = job.config
    step = (config.optimizer, config.clip_norm, config.loss)
    return (config.prefix_key(job.weights, job.precision), job.share, config.hidden, config.head, *step)


@dataclass(frozen=True)
class WaitingTrial:
    """A trial that was asked for and has not started. ``trace``: see ``trace_key``."""

    need: FeatureSet
    trace: tuple[Any, ...] = ()


@dataclass(frozen=True)
class StartTrial:
    """Start the waiting trial at this place."""

    place: int


@dataclass(frozen=True)
class StartPrefill:
    """Fill the need of the waiting trial at this place."""

    place: int


def next_step(
    waiting: Sequence[WaitingTrial],
    settled: Collection[FeatureSet],
    building: Mapping[FeatureSet, int],
    warm: tuple[Any, ...] | None = None,
    may_build: bool = True,
) -> StartTrial | StartPrefill | None:
    """What a free worker does next; None where there is nothing for it.

    ``waiting`` is in the order of asking. ``settled``: needs that are filled, or failed, so that nothing is gained by
    waiting for them. ``building``: need -> workers that fill it now. ``warm``: the trace of what the worker ran last.

    A trial that can start goes first, one of the same trace before the others. Else the need asked for first that
    nobody fills. Else the need with the fewest workers gets one more, the first of equals: the store shares the work,
    among ``MAX_PREFILL_WORKERS``; another one would only wait, and keep its GPU from whoever else could use it.
    """
    ready = [place for place, trial in enumerate(waiting) if trial.need in settled]
    if ready:
        return StartTrial(next((place for place in ready if waiting[place].trace == warm), ready[0]))
    if not may_build or not waiting:
        return None
    place = min(range(len(waiting)), key=lambda place: (building.get(waiting[place].need, 0), place))
    return StartPrefill(place) if building.get(waiting[place].need, 0) < MAX_PREFILL_WORKERS else None
