"""stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


SEARCH, REFIT = "search", "refit"


FILL = "trainers.training.prefill:fill"


WINNER = "winner"
"""Name of the winner's models on the leaderboard; those after it are ``runner-up-1`` and so on."""
