"""A source of given trials."""

from __future__ import annotations

from pathlib import Path

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.state import TrialState
from orchestrator.search.source import FixedTrials, TrialRequest
from trainers.config import TrialConfig
from trainers.contract import FitJob


def test_a_fixed_list_is_handed_out_in_order_and_leaves_out_what_ended(tmp_path: Path) -> None:
    requests = [TrialRequest(f"t{n}", f"step-{n}", n, FitJob(f"t{n}", TrialConfig(), 0, "m")) for n in (1, 2, 3)]
    source = FixedTrials(requests)
    assert [source.ask() for _ in range(3)] == requests
    assert source.ask() is None
    assert source.exhausted == "All of the listed trials were started."
    with Ledger(tmp_path / "ledger") as ledger:
        for trial, states in (("t1", ["PENDING", "RUNNING"]), ("t2", ["PENDING", "RUNNING", "FAILED"])):
            for state in states:
                ledger.append(EventKind.TRIAL, trial=trial, state=state)
        resumed = FixedTrials(requests)
        resumed.replay(ledger.events())
    assert resumed.results == {"t2": TrialState.FAILED}
    assert [resumed.ask(), resumed.ask(), resumed.ask()] == [requests[0], requests[2], None]
