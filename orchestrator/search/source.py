"""Where trials come from: the ``TrialSource`` protocol, and a source of given trials. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.state import TrialState
from trainers.contract import FitJob


@dataclass(frozen=True)
class TrialRequest:
    """A trial to run. ``name`` is "" unless the file names it; ``number`` counts the trials of a source from 1.

    ``proposal`` is recorded in the ledger with the trial's creation, so that a source can replay itself.
    """

    id: str
    name: str
    number: int
    job: FitJob
    proposal: Mapping[str, Any] = field(default_factory=dict)


class TrialSource(Protocol):
    """Ask-and-tell interface: ``ask`` returns a trial, ``tell`` takes its result once it has ended.

    A trial without a result when the search stops is returned again after a ``replay``.
    """

    @property
    def exhausted(self) -> str:
        """Why there will be no further trial, as a sentence; "" while there may be one."""
        ...

    @property
    def knows_next(self) -> bool:
        """Whether the next trial depends on no result."""
        ...

    def ask(self) -> TrialRequest | None:
        """Return the next trial; None if there is none before the next ``tell``, or ever if ``exhausted``."""
        ...

    def tell(self, trial: str, state: TrialState, values: Sequence[float], last: Sequence[float] = ()) -> None:
        """Record that ``trial`` (an id) ended as ``state``.

        ``values``: the first objective after each epoch. ``last``: every objective after the last epoch; may be left
        out with one objective.
        """
        ...


class FixedTrials:
    """A ``TrialSource`` of given trials in order: named configurations, or the refits."""

    def __init__(self, requests: Sequence[TrialRequest]) -> None:
        self._remaining = list(requests)
        self.results: dict[str, TrialState] = {}

    @property
    def exhausted(self) -> str:
        return "" if self._remaining else "All of the listed trials were started."

    @property
    def knows_next(self) -> bool:
        return True

    def ask(self) -> TrialRequest | None:
        return self._remaining.pop(0) if self._remaining else None

    def tell(self, trial: str, state: TrialState, values: Sequence[float], last: Sequence[float] = ()) -> None:
        self.results[trial] = state

    def replay(self, events: Iterable[Event]) -> None:
        """Drop the trials that ended in an earlier process; ``ask`` returns the others again."""
        wanted = {request.id for request in self._remaining}
        for event in events:
            if event.kind == EventKind.TRIAL and event.trial in wanted and TrialState(event.state).is_final:
                self.results[event.trial] = TrialState(event.state)
        self._remaining = [request for request in self._remaining if request.id not in self.results]
