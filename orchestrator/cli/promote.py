"""`orch promote best`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.help import Verbs, verb
from orchestrator.cli.options import Folder

promote_app = typer.Typer(
    cls=Verbs, no_args_is_help=True, help="Put a sweep's winner into the registry, behind a gate."
)


@verb(promote_app, "orch promote best")
def promote_best(
    folder: Folder = None,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Override every reason; the override is recorded.")
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Override one reason, by its code. Repeatable.")
    ] = None,
) -> None:
    """Register the winner as a model version and make it the champion, unless the gate refuses, with the figures."""
    from orchestrator.commands.promote import promote
    from orchestrator.evaluation.promotion_gate import FORCE
    from orchestrator.ledger.folder import find_sweep

    overridden = frozenset(allow or ()) | ({FORCE} if force else frozenset())
    typer.echo(promote(find_sweep(folder, finished=True), overridden, typer.echo))
