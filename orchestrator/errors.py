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


class AuditFailed(OrchError):
    """A figure or a file of a sweep is not what was recorded; the message names each."""

    exit_code = 9


class TransientError(OrchError):
    """Ray or the machine failed, not the sweep or the command: the same again may succeed.

    ``what``: a sentence. ``first``: a clause, what to do before that. ``less``: an option of ``orch sweep`` with which
    less memory is needed, "" for none. The message of the exception is for a command without anything to resume.
    """

    def __init__(self, what: str, first: str = "", less: str = "") -> None:
        super().__init__(f"{what} {_sentence(first, 'type the command again')}")
        self.what, self.first, self.less = what, first, less

    def of_sweep(self, resume: str) -> str:
        """Return the message for a sweep that the command ``resume`` resumes."""
        advice = _sentence(self.first, f"resume: `{resume}`")
        return f"{self.what} {advice}" + (f" To need less memory, add `{self.less}`." if self.less else "")


def _sentence(first: str, then: str) -> str:
    words = f"{first}, then {then}" if first else then
    return f"{words[0].upper()}{words[1:]}."


class Interrupted(OrchError):
    """Ctrl-C, SIGTERM or SIGHUP. Results so far are kept; the message says how to resume."""

    exit_code = 130
