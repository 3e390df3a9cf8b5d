"""What the pictures of a sweep are drawn from."""

from __future__ import annotations

from pathlib import Path

from orchestrator.ledger.state import derive
from orchestrator.sweep.pictures import epochs_frame, search_frame
from tests.support.two_trials import two_trials


def test_figures_are_drawn_from_the_search_alone(tmp_path: Path) -> None:
    state = derive(two_trials(tmp_path))
    assert search_frame(state)["id"].tolist() == ["aaa"]
    frame = epochs_frame(state)
    assert frame[["id", "epoch", "state"]].to_numpy().tolist() == [["aaa", 1, "COMPLETED"], ["aaa", 2, "COMPLETED"]]
