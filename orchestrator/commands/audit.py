"""`orch audit`: what the audit of a sweep found, as a table and as an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.audit.audit import Audit
from orchestrator.audit.checks import DIFFERENT, EQUAL, NOT_CHECKABLE
from orchestrator.errors import AuditFailed
from orchestrator.paths import command_line
from trainers.wording import count

if TYPE_CHECKING:
    from rich.table import Table

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


def to_rich(found: Audit) -> Table:
    """Return a ``rich`` table with a row for each part, and one for each difference and each gap."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"audit of {found.sweep}"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for name in ("checked", EQUAL, DIFFERENT, NOT_CHECKABLE):
        table.add_column(name, justify="right")
    for part in dict.fromkeys(check.part for check in found.checks):
        own = [check for check in found.checks if check.part == part]
        counts = [sum(check.state == state for check in own) for state in (EQUAL, DIFFERENT, NOT_CHECKABLE)]
        table.add_row(Text(part), str(len(own)), *map(str, counts), style="bold red" if counts[1] else "")
    gaps = {f"{check.part}: {check.reason}": None for check in found.having(NOT_CHECKABLE)}
    lines = [f"not checkable: {gap}" for gap in gaps]
    lines += [] if found.having(DIFFERENT) else [f"all {len(found.having(EQUAL))} comparisons are equal"]
    table.caption, table.caption_justify = Text("\n".join(lines)), "left"
    return table
