"""The stages of a sweep."""

from enum import StrEnum


class Stage(StrEnum):
    """A step of a sweep, as events and plans name it. PREFILL is one job within SEARCH or REFIT, not a step."""

    DATA = "data"
    PLAN = "plan"
    SEARCH = "search"
    PREFILL = "prefill"
    SELECT = "select"
    REFIT = "refit"
    LEADERBOARD = "leaderboard"
    EXPORT = "export"
