"""`orch promote best`, `orch promote --rollback` and `orch champions`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.help import Verbs, examples, verb
from orchestrator.cli.options import AsJson, Folder, Numbers, console, number_option, print_json, sweep_folder, usage

promote_app = typer.Typer(cls=Verbs, no_args_is_help=True, invoke_without_command=True)


@promote_app.callback(epilog=examples("orch promote"))
def promote_group(
    rollback: Annotated[
        bool, typer.Option("--rollback", metavar="", help="Return to the champion before the present one.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --rollback: the registered model; default: the newest sweep's."),
    ] = None,
) -> None:
    """Put a sweep's winner into the registry, behind a gate; or return to the champion before the present one."""
    if not rollback:
        if model is not None:
            usage("--model goes with --rollback; a sweep's own file names its model (tracking.model).")
        return
    from orchestrator.commands.champions import roll_back

    typer.echo(roll_back(model))
    raise typer.Exit


@verb(promote_app, "orch promote best")
def promote_best(
    folder: Folder = None,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Override every reason; the override is recorded.")
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Override one reason, by its code. Repeatable.")
    ] = None,
    margin: Annotated[
        float,
        number_option(
            metavar="POINTS",
            help="Loss of accuracy, or macro F1, that the gate must exclude; 0.1 to 50, recorded.",
            allowed=Numbers(float, "3", least=0.1, most=50),
        ),
    ] = 3.0,
) -> None:
    """Register the winner as a model version and make it the champion, unless the gate refuses, with the figures."""
    from orchestrator.commands.promote import promote
    from orchestrator.evaluation.promotion_gate import FORCE

    overridden = frozenset(allow or ()) | ({FORCE} if force else frozenset())
    typer.echo(promote(sweep_folder(folder, finished=True), overridden, typer.echo, margin / 100))


def champions(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="The registered model; the newest sweep's when left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Every version that was the champion, with its evidence: sweep, test accuracy, when, what was overridden."""
    from orchestrator.commands.champions import list_champions, records, to_rich

    name, rows = list_champions(model)
    if as_json:
        print_json(records(rows))
    else:
        to_rich(name, rows).print(console())
