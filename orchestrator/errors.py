"""Errors of the orchestrator: a sentence for a person, an exit code for a script."""

from __future__ import annotations


class OrchError(Exception):
    """An error that a person can act on."""

    exit_code = 1


class SpecError(OrchError):
    """The command line, the file or a ``--set`` is wrong; the message lists every mistake with its place."""

    exit_code = 2


class DataError(OrchError):
    """The photos cannot be used."""

    exit_code = 3


class SweepExists(OrchError):
    """The sweep's folder exists; ``--resume`` continues it, ``--fresh`` or ``--out`` start another."""

    exit_code = 4


class NoWinner(OrchError):
    """No trial was COMPLETED, so there is no winner."""

    exit_code = 5


class PromotionRefused(OrchError):
    """The promotion gate refused; the message holds the figures and the flag that overrides it."""

    exit_code = 6


class TrackingError(OrchError):
    """MLflow is needed and cannot be reached."""

    exit_code = 7


class ExportRefused(OrchError):
    """A format cannot be written, or lost too much accuracy; the message holds the figures."""

    exit_code = 8


class Interrupted(OrchError):
    """Ctrl-C, SIGTERM or SIGHUP. Results so far are kept; the message says how to resume."""

    exit_code = 130
