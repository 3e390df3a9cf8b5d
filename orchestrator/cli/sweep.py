"""`orch sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.cli.options import Numbers, Overrides, console, number_option, output_folder, usage

Until = Literal["data", "search", "final"]


def sweep(  # one parameter for each option; they become one SweepRequest at once
    source: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A YAML file, or the name of a shipped one (orch spaces).")
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        output_folder("DIR", "The sweep's folder; default runs/NAME."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", metavar="", help="Take the next free folder: runs/NAME, runs/NAME-2 ...")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", metavar="", is_eager=True, help="Resume a sweep that stopped, or extend one."),
    ] = False,
    trials: Annotated[
        str | None,
        typer.Option(
            metavar="N|+N", help="Trials in all, instead of the file's; with --resume also +N, that many more."
        ),
    ] = None,
    hours: Annotated[
        float | None,
        number_option(
            metavar="HOURS",
            help="Limit of the search in hours, instead of the file's.",
            allowed=Numbers(float, "2.5", least=0, is_open=True),
        ),
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
            help="Share no frozen part among trials: the same results, more slowly. Give it again with --resume.",
        ),
    ] = False,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", metavar="", help="Start even if the plan fits neither the hours nor the disk."),
    ] = False,
) -> None:
    """Run a sweep: check the data, search, retrain the winner, read the test split once, write the leaderboard.

    The sweep's folder holds everything. Ctrl-C stops it; --resume resumes it without training a finished trial again.
    """
    _check_options(source, out, fresh, resume, trials)
    from orchestrator.report.progress import ProgressReporter
    from orchestrator.sweep import pipeline

    request = pipeline.SweepRequest(
        spec_source=source,
        overrides=tuple(overrides or ()),
        out=out or (_folder_to_resume(trials, hours) if source is None else None),
        fresh=fresh,
        resume=resume,
        trials=trials,
        hours=hours,
        until=until,
        address=address,
        share=not no_share,
        anyway=anyway,
    )
    pipeline.sweep(request, ProgressReporter(console()))


def _check_options(source: str | None, out: Path | None, fresh: bool, resume: bool, trials: str | None) -> None:
    """Refuse options that contradict each other."""
    if source is None and not resume:
        usage("which sweep? Name a YAML file or a shipped space (`orch spaces`), or resume one: `orch sweep --resume`.")
    if fresh and (resume or out is not None):
        usage(f"--fresh takes a new folder by itself and cannot go with {'--resume' if resume else '--out'}.")
    if trials is not None and not trials.removeprefix("+").isdigit():
        usage(f"--trials wants a number of trials in all (40) or of additional ones (+20), not {trials!r}.")
    if trials is not None and trials.startswith("+") and not resume:
        usage("--trials +N extends a sweep; name it with --resume, or give a number of trials in all.")


def _folder_to_resume(trials: str | None, hours: float | None) -> Path:
    """The newest sweep if it gets a larger budget, else the newest unfinished one."""
    from orchestrator.ledger.folder import find_sweep, newest_unfinished

    return find_sweep(None) if trials is not None or hours is not None else newest_unfinished()
