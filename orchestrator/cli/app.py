"""The verbs. What they do lies elsewhere and is imported inside them, so that ``orch --help`` starts at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.exceptions import TyperException

from orchestrator import __version__
from orchestrator.cli.cache import cache_app
from orchestrator.cli.data import data_app
from orchestrator.cli.exits import INTERRUPTED, explain, hidden_package
from orchestrator.cli.help import MACHINE, RESULT, SEARCH, Verbs, examples, verb
from orchestrator.cli.options import AsJson, Folder, Overrides, Source, check_out_folder, console, print_json, usage
from orchestrator.cli.plan import plan
from orchestrator.cli.weights import weights_app
from orchestrator.errors import DataError
from orchestrator.machine.places import usable_cache
from orchestrator.machine.quiet_stderr import quiet_libraries
from trainers.wording import count

Until = Literal["data", "search", "final"]

app = typer.Typer(
    name="orch",
    cls=Verbs,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
promote_app = typer.Typer(
    cls=Verbs, no_args_is_help=True, help="Put a sweep's winner into the registry, behind a gate."
)


@app.callback(epilog=examples("orch"))
def start(
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Show tracebacks. May stand anywhere.")] = False,
) -> None:
    """From labelled photos to the best classifier that transfer learning can give.

    Write one YAML file, run a sweep, believe its leaderboard, promote the winner.
    """
    del debug  # taken from the line by ``run``; declared here for the help page
    if version:
        typer.echo(f"orch {__version__}")
        raise typer.Exit


@verb(app, "orch sweep", SEARCH)
def sweep(  # one parameter for each option; they become one SweepRequest at once
    source: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A YAML file, or the name of a shipped one (orch spaces).")
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", callback=check_out_folder, help="The sweep's folder; default runs/NAME."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", metavar="", help="Take the next free folder: runs/NAME, runs/NAME-2 ...")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Go on with a sweep that stopped, or extend one.")
    ] = False,
    trials: Annotated[
        str | None,
        typer.Option(metavar="N|+N", help="Trials in all, instead of the file's; or, with --resume, so many more."),
    ] = None,
    hours: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Limit of the search in hours, instead of the file's.")
    ] = None,
    until: Annotated[
        Until | None, typer.Option(help="Stop after the data, or after the search and before test is read.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="A running Ray cluster, as auto or ray-head:6379.")
    ] = None,
    no_share: Annotated[
        bool,
        typer.Option(
            "--no-share",
            metavar="",
            help="Share no frozen part among trials: the same results, later. Give it again with --resume.",
        ),
    ] = False,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", metavar="", help="Start even where the plan fits neither the hours nor the disk."),
    ] = False,
) -> None:
    """Run a sweep: check the data, search, retrain the winner, read the test split once, write the leaderboard.

    The sweep is a folder that says everything by itself. Ctrl-C stops it; --resume goes on without training a finished
    trial again.
    """
    if source is None and not resume:
        usage("which sweep? Name a YAML file or a shipped space (orch spaces), or go on with one: orch sweep --resume.")
    if fresh and (resume or out is not None):
        usage(f"--fresh takes a new folder by itself and cannot go with {'--resume' if resume else '--out'}.")
    if trials is not None and not trials.removeprefix("+").isdigit():
        usage(f"--trials wants a number of trials in all (40) or of additional ones (+20), not {trials!r}.")
    if trials is not None and trials.startswith("+") and not resume:
        usage("--trials +N gives a sweep more to do; name it with --resume, or say a number of trials in all.")
    if resume and source is None and out is None:
        from orchestrator.ledger.folder import find_sweep, newest_unfinished

        more_to_do = trials is not None or hours is not None
        out = find_sweep(None) if more_to_do else newest_unfinished()
    from orchestrator.sweep import pipeline

    request = pipeline.SweepRequest(
        spec_source=source,
        overrides=tuple(overrides or ()),
        out=out,
        fresh=fresh,
        resume=resume,
        trials=trials,
        hours=hours,
        until=until,
        address=address,
        share=not no_share,
        anyway=anyway,
        console=console(),
    )
    pipeline.sweep(request)


@verb(app, "orch check", SEARCH)
def check(source: Source, overrides: Overrides = None) -> None:
    """Check a file and nothing else: every mistake at once, with its line, what is allowed and the nearest spelling."""
    from orchestrator.spec.load import open_spec

    opened = open_spec(source, tuple(overrides or ()))
    spec = opened.spec
    trials, epochs = spec.budget.trials, spec.budget.epochs
    what = f"{count(trials, 'trial')} of at most {count(epochs, 'epoch')}"
    if not spec.configurations:
        size = spec.space.size()
        of = "endlessly many" if size is None else f"{size:,}"
        what += f", out of {of} configurations"
        if spec.asks_for_gpu_memory and spec.resources.gpu_memory_gb == "auto":
            what += " without a GPU; its memory is measured when the sweep starts"
    for line in opened.notes:
        typer.echo(line)
    typer.echo(f"{source}: all right. The sweep {spec.name}: {what}.")


verb(app, "orch plan", SEARCH)(plan)


@verb(app, "orch schema", SEARCH)
def schema() -> None:
    """Print the JSON Schema of the file, for editors that complete and check YAML."""
    from orchestrator.spec.load import json_schema

    print_json(json_schema())


@verb(app, "orch spaces", SEARCH)
def spaces() -> None:
    """List the shipped search spaces: their names and what each is."""
    from orchestrator.spec.load import shipped_spaces

    found = shipped_spaces()
    width = max((len(name) for name in found), default=0)
    for name, file in found.items():
        title = file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        typer.echo(f"{name.ljust(width)}  {title}")


@verb(app, "orch status", RESULT)
def status(folder: Folder = None) -> None:
    """How is it going: the stage, the trials by state, the best so far, the time left. From the ledger alone."""
    from orchestrator.ledger.folder import find_sweep
    from orchestrator.report import status as show

    show.print_status(find_sweep(folder), console())


@verb(app, "orch show", RESULT)
def show_sweep(folder: Folder = None, as_json: AsJson = False) -> None:
    """What won, and why: the leaderboard, the winner and the trials. From the sweep's folder alone."""
    from orchestrator.ledger.folder import find_sweep
    from orchestrator.report import status as show

    found = find_sweep(folder)
    if as_json:
        print_json(show.describe(found))
        return
    show.print_sweep(found, console())


@verb(app, "orch compare", RESULT)
def compare(
    folder: Folder = None,
    against: Annotated[
        str, typer.Option(metavar="NAME", help="The configuration to compare with: its own name, or winner.")
    ] = "winner",
    policy: Annotated[str, typer.Option(metavar="NAME", help="The crop policy under which.")] = "whole",
    policies: Annotated[
        bool, typer.Option("--policies", metavar="", help="Compare the crop policies instead, over all networks.")
    ] = False,
    steps: Annotated[
        bool, typer.Option("--steps", metavar="", help="Compare each named configuration with the one before it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Every retrained configuration against one of them: paired differences on the same test images, with intervals.

    From the probabilities that the sweep kept; the test split is not read again.
    """
    from orchestrator.commands import compare as comparing
    from orchestrator.ledger.folder import find_sweep

    root = find_sweep(folder, finished=True)
    if policies and steps:
        usage("--policies compares crop policies and --steps configurations; choose one of them.")
    if policies:
        found = comparing.compare_policies(root)
    elif steps:
        found = comparing.compare_steps(root, policy)
    else:
        found = comparing.compare(root, against, policy)
    if as_json:
        print_json(comparing.records(found))
    else:
        console().print(comparing.to_rich(found))


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
    from orchestrator.commands import promote
    from orchestrator.evaluation import promotion_gate
    from orchestrator.ledger.folder import find_sweep

    overridden = frozenset(allow or ()) | ({promotion_gate.FORCE} if force else frozenset())
    typer.echo(promote.promote(find_sweep(folder, finished=True), overridden, typer.echo))


@verb(app, "orch predict", RESULT)
def predict(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Photos, or folders of photos.")],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The registered model; default: the newest sweep's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Label and probability of each photo, from the champion."""
    from orchestrator.commands import predict as predictions

    found = predictions.predict(paths, model)
    if as_json:
        print_json([one.to_dict() for one in found])
    else:
        predictions.print_predictions(found, console())
    if any(one.error for one in found):
        raise typer.Exit(DataError.exit_code)


@verb(app, "orch export", RESULT)
def export(
    folder: Folder = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Of savedmodel, tflite, tflite-fp16, tflite-int8, onnx, commas between; left out: all.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", callback=check_out_folder, help="Where; default exports in the sweep's folder."),
    ] = None,
    bound: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="Test accuracy that an export may lose.")
    ] = 0.01,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Keep what loses more; the override is recorded.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the winner as SavedModel, TFLite (float, fp16, int8) and ONNX, each judged beside the original.

    The exports answer the test split: accuracy, its paired difference, latency and size stand in the report, the look
    is recorded in the sweep's ledger, and a format that loses more than the bound, and more than chance alone would
    take, is refused.
    """
    from orchestrator.commands import export as exporting
    from orchestrator.ledger.folder import find_sweep

    formats = () if to is None else tuple(to.split(","))
    request = exporting.ExportRequest(formats=formats, out=out, bound=bound, force=force)
    tell = (lambda line: None) if as_json else typer.echo
    report = exporting.export(find_sweep(folder, finished=True), request, tell)
    if as_json:
        print_json(report.to_dict())
    else:
        exporting.print_report(report, console())
    if (refusal := exporting.refusal(report)) is not None:
        raise refusal


@verb(app, "orch sync", MACHINE)
def sync(folder: Folder = None) -> None:
    """Send MLflow what it has not seen of a sweep; what it has is not sent twice.

    Runs that MLflow shows as running are closed where no process runs the sweep; --resume opens them again.
    """
    from orchestrator.commands import promote
    from orchestrator.ledger.folder import find_sweep

    typer.echo(promote.sync(find_sweep(folder)))


@verb(app, "orch ui", MACHINE)
def ui(
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Open the MLflow UI on the store that the sweeps write to. Ctrl-C ends it."""
    import subprocess

    from orchestrator.tracking import mlflow_store
    from orchestrator.tracking.cursor import newest_store

    store = mlflow_store.store_uri(newest_store())
    mlflow_store.make_ready(store)
    command = mlflow_store.ui_command(port, store)
    typer.echo(f"the MLflow UI: http://127.0.0.1:{port}  (Ctrl-C ends it)")
    try:
        ended = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        ended = 0
    raise typer.Exit(ended)


@verb(app, "orch doctor", MACHINE)
def doctor(as_json: AsJson = False) -> None:
    """What this machine has: cores, memory, GPU, disk, versions, MLflow, data. Exit code 1 if something is wrong."""
    from orchestrator.commands import doctor as examination

    findings = examination.examine()
    if as_json:
        print_json([finding.to_dict() for finding in findings])
    else:
        examination.print_findings(findings, console())
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


app.add_typer(data_app, name="data", rich_help_panel=SEARCH)
app.add_typer(weights_app, name="weights", rich_help_panel=SEARCH)
app.add_typer(cache_app, name="cache", rich_help_panel=MACHINE)
app.add_typer(promote_app, name="promote", rich_help_panel=RESULT)


def main() -> None:
    """The entry point ``orch``."""
    if hidden := hidden_package():
        sys.exit(f"orch: {hidden}")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit code. Errors are sentences on stderr, and tracebacks with --debug.

    ``--debug`` may stand anywhere before a ``--``. Raises whatever went wrong when it is given.
    """
    before, after = list(arguments), []
    if "--" in before:
        after = before[before.index("--") :]
        before = before[: before.index("--")]
    debug = "--debug" in before
    quiet_libraries(usable_cache())
    line = [part for part in before if part != "--debug"] + after
    try:
        return _invoke(line or ["--help"])
    except Exception as error:
        if debug and not isinstance(error, TyperException | BrokenPipeError):
            raise
        return explain(error)


def _invoke(line: list[str]) -> int:
    """Parse and run; typer's own control flow becomes an exit code, everything else is raised."""
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
