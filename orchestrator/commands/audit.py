"""`orch audit`: what the audit of a sweep found, as a table and as an error."""

from __future__ import annotations

from orchestrator.audit.audit import Audit
from orchestrator.audit.checks import DIFFERENT, EQUAL, NOT_CHECKABLE
from orchestrator.errors import AuditFailed
from orchestrator.paths import command_line
from orchestrator.terminal_table import Column, FittedTable
from trainers.wording import count

MOST_IN_MESSAGE = 10
"""Maximum differences that the error lists; --json has all."""


def failure(found: Audit) -> AuditFailed | None:
    """Return the error that names what differs; None if nothing does."""
    wrong = found.having(DIFFERENT)
    if not wrong:
        return None
    lines = [f"- {check.sentence()}" for check in wrong[:MOST_IN_MESSAGE]]
    lines += [f"- and {len(wrong) - MOST_IN_MESSAGE} more" if len(wrong) > MOST_IN_MESSAGE else ""]
    resume = command_line("sweep", "--resume", "--out", found.folder)
    return AuditFailed(
        f"{count(len(wrong), 'comparison')} of {len(found.checks)} found a difference in {found.folder}:\n"
        + "\n".join(line for line in lines if line)
        + f"\nWhat can be made again is made again by `{resume}`."
    )


def to_rich(found: Audit) -> FittedTable:
    """Return a table for a terminal with a row for each part, and lines on differences and gaps."""
    gaps = {f"{check.part}: {check.reason}": None for check in found.having(NOT_CHECKABLE)}
    lines = [f"not checkable: {gap}" for gap in gaps]
    lines += [] if found.having(DIFFERENT) else [f"all {len(found.having(EQUAL))} comparisons are equal"]
    columns = [Column("", "left"), *map(Column, ("checked", EQUAL, DIFFERENT, NOT_CHECKABLE))]
    table = FittedTable(f"audit of {found.sweep}", columns, notes=lines)
    for part in dict.fromkeys(check.part for check in found.checks):
        own = [check for check in found.checks if check.part == part]
        counts = [sum(check.state == state for check in own) for state in (EQUAL, DIFFERENT, NOT_CHECKABLE)]
        table.add_row(part, str(len(own)), *map(str, counts), style="bold red" if counts[1] else "")
    return table
