"""Errors of trainers."""

from __future__ import annotations


class TrainerError(Exception):
    """An error that a person can act on; its message is a sentence."""


class Diverged(TrainerError):
    """The loss became NaN or infinite. Never retried, since the same configuration would diverge again."""
