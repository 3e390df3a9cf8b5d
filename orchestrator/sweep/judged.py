"""The winner that the last finished leaderboard judged, as its stage recorded it; for promotion and export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import OrchError
from orchestrator.ledger.folder import Sweep
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.paths import command_line
from trainers.serving.model import MODEL_FILE


@dataclass(frozen=True)
class JudgedWinner:
    """``winner``: as selection recorded it (``Winner.to_dict``). ``row``: its row of the leaderboard. ``fits``: ids of
    the networks in its folder."""

    winner: Mapping[str, Any]
    row: Mapping[str, Any]
    fits: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The record, a part of the payload of the event that ends the leaderboard."""
        return {"judged": dict(self.winner), "winner_row": dict(self.row), "fits": list(self.fits)}


def judged_winner(sweep: Sweep) -> JudgedWinner:
    """Return the winner of the last finished leaderboard, whatever was selected since.

    Raises OrchError if there is none, or if a later run that did not finish left another model in the winner's folder.
    """
    ended = [e for e in sweep.events if e.kind == EventKind.STAGE and e.state == "ENDED"]
    records = [e.data for e in ended if e.stage == Stage.LEADERBOARD and {"judged", "winner_row", "fits"} <= {*e.data}]
    path = sweep.paths.winner / MODEL_FILE
    if not records or not path.is_file():
        raise not_judged(sweep)
    judged = JudgedWinner(records[-1]["judged"], records[-1]["winner_row"], tuple(records[-1]["fits"]))
    described = json.loads(path.read_text())
    if (described["fits"], described["policy"]) != (list(judged.fits), judged.winner["policy"]):
        raise OrchError(
            f"{sweep.paths.root} was given more to do after its last leaderboard and did not finish, so its model and "
            f"its figures are not of the same winner; {_resume(sweep)}"
        )
    return judged


def not_judged(sweep: Sweep) -> OrchError:
    """Return the error for a sweep without a winner."""
    return OrchError(f"{sweep.paths.root} has no finished leaderboard, so no winner; {_resume(sweep)}")


def _resume(sweep: Sweep) -> str:
    return f"resume it: `{command_line('sweep', '--resume', '--out', sweep.paths.root)}`"
