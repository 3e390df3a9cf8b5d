"""The trials that were asked for and wait, and the builds that they wait for: what a free worker gets next.

Holds the state that ``needs.next_step`` decides on. Knows neither Ray nor the ledger.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from orchestrator.needs import Build, Need, Waiting, need_of, next_step, trace_of
from orchestrator.proposer import TrialRequest, TrialSource

LOOK_AHEAD = 4
"""Trials asked for beyond the slots, where that changes nothing, so that some can start while others wait."""
NOTHING = Need(())


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
class Filling:
    """A worker that fills ``need``, for the trial that ``request`` asks for and whoever else wants it."""

    request: TrialRequest
    need: Need
    trial: Any = None


class Agenda:
    """``held``: trials that wait, in the order of asking. ``builds``: by Tune's id, the builds under way.

    Without ``fills`` nothing is ever built, and a trial that was asked for is the next to run.
    """

    def __init__(self, fills: bool) -> None:
        self.held: list[LiveTrial] = []
        self.builds: dict[str, Filling] = {}
        self._fills = fills
        self._waiting: list[Waiting] = []
        self._settled: set[Need] = {NOTHING}
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
        self._waiting.append(Waiting(need_of(job), trace_of(job)) if self._fills else Waiting(NOTHING))

    def next(self, tune_id: str, may_build: bool) -> LiveTrial | Filling | None:
        """The trial to start, or the build, which is then under way as ``tune_id``; None where there is nothing."""
        building = Counter(filling.need for filling in self.builds.values())
        step = next_step(self._waiting, self._settled, building, self._warm, may_build)
        if step is None:
            return None
        waiting = self._waiting[step.place]
        if isinstance(step, Build):
            filling = self.builds[tune_id] = Filling(self.held[step.place].request, waiting.need)
            return filling
        del self._waiting[step.place]
        return self.held.pop(step.place)

    def trial_ended(self, live: LiveTrial) -> None:
        """Its worker is free, and warm for trials of the same trace."""
        self._warm = trace_of(live.request.job) if self._fills else None

    def build_ended(self, tune_id: str) -> Filling:
        """Filled or failed: either way nobody waits for it any longer."""
        filling = self.builds.pop(tune_id)
        self._settled.add(filling.need)
        return filling
