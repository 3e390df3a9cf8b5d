"""The stages of a sweep, and a key of what one records."""

from enum import StrEnum


class Stage(StrEnum):
    """A step of a sweep, as events and plans name it. PREFILL is one job within SEARCH or REFIT, not a
    step; FORMS ends REFIT, and plans count its time there."""

    DATA = "data"
    PLAN = "plan"
    SEARCH = "search"
    PREFILL = "prefill"
    SELECT = "select"
    REFIT = "refit"
    FORMS = "forms"
    LEADERBOARD = "leaderboard"
    EXPORT = "export"


CALIBRATED = "calibrated"
"""Key of the winner's calibration and its effect on test, in the payload that ends the leaderboard since 2026-12."""
