"""What a person would read of events."""

from __future__ import annotations

import io

from rich.console import Console

from orchestrator.ledger.segments import Event
from orchestrator.report.progress import ProgressReporter


class PrintedLines:
    """A reporter whose lines are kept; ``on_event`` is the callback to give to what records events."""

    def __init__(self) -> None:
        self._file = io.StringIO()
        self.reporter = ProgressReporter(Console(file=self._file, width=200))

    def on_event(self, event: Event) -> None:
        self.reporter.on_event(event)

    @property
    def lines(self) -> list[str]:
        return self._file.getvalue().splitlines()

    def clear(self) -> None:
        self._file.truncate(0)
        self._file.seek(0)
