"""The command line ``orch``: the table of verbs, and how one line is run.

What a verb does is imported inside its function, so that ``orch --help`` starts at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from orchestrator import __version__
from orchestrator.cli.cache import cache_app
from orchestrator.cli.data import data_app
from orchestrator.cli.exits import INTERRUPTED, explain, hidden_package, unsupported_platform
from orchestrator.cli.export import export
from orchestrator.cli.help import MACHINE, RESULT, SEARCH, Verbs, examples, verb
from orchestrator.cli.machine import doctor, sync, ui
from orchestrator.cli.plan import plan
from orchestrator.cli.predict import evaluate, predict
from orchestrator.cli.promote import champions, promote_app
from orchestrator.cli.results import audit, compare, show, status
from orchestrator.cli.spec import check, schema, spaces
from orchestrator.cli.sweep import sweep
from orchestrator.cli.weights import weights_app
from orchestrator.machine.places import usable_cache
from orchestrator.machine.quiet_stderr import quiet_libraries
from orchestrator.machine.standard_streams import open_closed_streams

VERBS: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("sweep", SEARCH, sweep),
    ("check", SEARCH, check),
    ("plan", SEARCH, plan),
    ("schema", SEARCH, schema),
    ("spaces", SEARCH, spaces),
    ("status", RESULT, status),
    ("show", RESULT, show),
    ("compare", RESULT, compare),
    ("audit", RESULT, audit),
    ("champions", RESULT, champions),
    ("predict", RESULT, predict),
    ("evaluate", RESULT, evaluate),
    ("export", RESULT, export),
    ("sync", MACHINE, sync),
    ("ui", MACHINE, ui),
    ("doctor", MACHINE, doctor),
)
"""Name, heading and function of each verb, in the order of ``orch --help``."""

GROUPS: tuple[tuple[str, str, typer.Typer], ...] = (
    ("data", SEARCH, data_app),
    ("weights", SEARCH, weights_app),
    ("cache", MACHINE, cache_app),
    ("promote", RESULT, promote_app),
)
"""Name, heading and app of each group of verbs."""

app = typer.Typer(
    name="orch",
    cls=Verbs,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _heading, _function in VERBS:
    verb(app, f"orch {_name}", _heading)(_function)
for _name, _heading, _group in GROUPS:
    app.add_typer(_group, name=_name, rich_help_panel=_heading)


@app.callback(epilog=examples("orch"))
def start(
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Show tracebacks. May be given anywhere.")] = False,
) -> None:
    """From labelled photos to the best classifier that transfer learning can give.

    Write one YAML file, run a sweep, read its leaderboard, promote the winner.
    """
    del debug  # ``run`` takes it from the line; declared for the help page
    if version:
        typer.echo(f"orch {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point ``orch``."""
    if reason := unsupported_platform() or hidden_package():
        sys.exit(f"orch: {reason}")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code. Errors are sentences on stderr.

    With ``--debug``, anywhere before a ``--``, they are raised.
    """
    before, after = list(arguments), []
    if "--" in before:
        after = before[before.index("--") :]
        before = before[: before.index("--")]
    debug = "--debug" in before
    line = [part for part in before if part != "--debug"] + after
    open_closed_streams()
    try:
        quiet_libraries(usable_cache())
        return _invoke(line or ["--help"])
    except Exception as error:
        if debug and not isinstance(error, TyperException | BrokenPipeError):
            raise
        return explain(error)


def _invoke(line: list[str]) -> int:
    """Parse and run; turn typer's own exceptions into an exit code, raise all others."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("orch", line) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as ending:
        return ending.exit_code
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("orch: interrupted.", err=True)
        return INTERRUPTED
    return 0
