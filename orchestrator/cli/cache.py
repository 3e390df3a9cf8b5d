"""`orch cache`: list, explain, prune and clear."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.help import Verbs, verb
from orchestrator.cli.options import AsJson, Numbers, console, number_option, print_json

cache_app = typer.Typer(
    cls=Verbs, no_args_is_help=True, help="What is computed once and kept: decoded photos, features, calibrations."
)


@verb(cache_app, "orch cache list")
def cache_list(
    check: Annotated[
        bool, typer.Option("--check", metavar="", help="Read every row and compare it with its checksum.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What the cache holds, the largest first: what it is, how many rows, its size, when it was used last."""
    from orchestrator.commands.cache import entries, print_table, to_dict
    from orchestrator.paths import cache_folder
    from trainers.store.inventory import contents

    found = contents(cache_folder())
    rows = entries(found, check)
    if as_json:
        print_json(to_dict(found, rows))
    else:
        print_table(found, rows, console())


@verb(cache_app, "orch cache explain")
def cache_explain() -> None:
    """Explain what each entry is, what computing it took, what reads it again, and what happens at the limit."""
    from orchestrator.commands.cache import entries, explanation
    from orchestrator.paths import cache_folder
    from trainers.store.inventory import contents

    found = contents(cache_folder())
    for number, paragraph in enumerate(explanation(found, entries(found))):
        console().print(("\n" if number else "") + paragraph, markup=False)


@verb(cache_app, "orch cache prune")
def cache_prune(
    to_gb: Annotated[
        float | None,
        number_option(
            "--to",
            metavar="GB",
            help="Keep this many gigabytes, those used last.",
            allowed=Numbers(float, "20", least=0),
        ),
    ] = None,
    older_than_days: Annotated[
        float | None,
        number_option(
            "--older-than",
            metavar="DAYS",
            help="Remove what was not used for this many days.",
            allowed=Numbers(float, "30", least=0),
        ),
    ] = None,
) -> None:
    """Remove what killed processes left, what older versions wrote, and then the rows unused for longest.

    Without options, down to the limit (ORCH_CACHE_GB). Rows that a running sweep has open stay.
    """
    from orchestrator.commands.cache import prune
    from orchestrator.paths import cache_folder

    typer.echo(prune(cache_folder(), to_gb, older_than_days))


@verb(cache_app, "orch cache clear")
def cache_clear(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="images, features, calibration ...; everything when left out.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask.")] = False,
) -> None:
    """Remove everything of one kind, or of all. No result is lost: what is needed again is computed again."""
    from orchestrator.commands.cache import clear, kinds_in, question
    from orchestrator.paths import cache_folder
    from trainers.store.inventory import contents

    cache = cache_folder()
    sizes = kinds_in(contents(cache), kind)
    if not sizes:
        typer.echo(f"the cache {cache} is empty.")
        return
    if not yes and not typer.confirm(question(sizes)):
        typer.echo("nothing was removed.")
        raise typer.Exit(1)
    typer.echo(clear(cache, list(sizes)))
