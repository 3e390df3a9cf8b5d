"""What the orchestrator raises. Each is a sentence for a person and an exit code for a script."""

from __future__ import annotations


class OrchError(Exception):
    """Something went wrong that a person can act on."""

    exit_code = 1


class SpecError(OrchError):
    """The command line, the YAML file or a ``--set`` is wrong; the message lists every mistake with its place."""

    exit_code = 2


class DataError(OrchError):
    """The photos cannot be used as they are."""

    exit_code = 3


class SweepExists(OrchError):
    """The sweep's folder is already there: go on with ``--resume``, or take another with ``--fresh`` or ``--out``."""

    exit_code = 4


class NoWinner(OrchError):
    """No trial was COMPLETED at full budget, so there is nothing to choose."""

    exit_code = 5


class PromotionRefused(OrchError):
    """The gate refused; the message holds the figures and the flag that overrides it."""

    exit_code = 6


class TrackingError(OrchError):
    """MLflow was needed and could not be reached."""

    exit_code = 7


class ExportRefused(OrchError):
    """A format could not be written, or lost more accuracy than it may; the message holds the figures."""

    exit_code = 8


class Interrupted(OrchError):
    """Ctrl-C, SIGTERM or SIGHUP: everything so far is kept; the message says how to go on."""

    exit_code = 130
