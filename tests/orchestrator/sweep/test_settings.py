"""What of the budget is left for the search."""

from __future__ import annotations

from orchestrator.ledger.segments import Event, EventKind
from orchestrator.sweep.settings import seconds_searched


def _event(seq: int, time_s: float, kind: EventKind, trial: str = "", stage: str = "", payload: str = "{}") -> Event:
    return Event(seq, time_s, str(kind), trial=trial, stage=stage, payload=payload)


def test_time_searched_leaves_out_pauses_and_other_stages() -> None:
    events = [
        _event(1, 0, EventKind.SWEEP),
        _event(2, 10, EventKind.TRIAL, "a", "search"),
        _event(3, 40, EventKind.EPOCH, "a", "search"),
        _event(4, 1000, EventKind.SWEEP),  # killed, and started again much later
        _event(5, 1010, EventKind.TRIAL, "a", "search"),
        _event(6, 1030, EventKind.TRIAL, "a", "search"),
        _event(7, 1500, EventKind.EPOCH, "b", "refit"),
    ]
    assert seconds_searched(events) == 30 + 20
    assert seconds_searched([]) == 0
    assert seconds_searched(events[:1]) == 0


def test_time_searched_holds_what_went_into_filling_the_store() -> None:
    """A killed process that had filled one set of rows and was at the next; refits fill the store in no search."""
    events = [
        _event(1, 0, EventKind.SWEEP),
        _event(2, 10, EventKind.TRIAL, "a", "search"),
        _event(3, 10, EventKind.TRIAL, "b", "search"),
        _event(4, 1810, EventKind.STAGE, "", "prefill", '{"for": "b"}'),
        _event(5, 9000, EventKind.SWEEP),
        _event(6, 9010, EventKind.TRIAL, "c", "refit"),
        _event(7, 9900, EventKind.STAGE, "", "prefill", '{"for": "c"}'),
    ]
    assert seconds_searched(events) == 1800
