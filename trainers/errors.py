"""errors."""

from __future__ import annotations


class TrainerError(Exception):
    """Something a person can act on, as one sentence."""


class Diverged(TrainerError):
    """The loss became NaN or infinite. Never retried: the same configuration would diverge again."""
