"""`orch sync`, `orch ui` and `orch doctor`: MLflow and this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, Numbers, console, number_option, print_json


def sync(
    folder: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="A sweep's folder or its name; the newest when left out.")
    ] = None,
) -> None:
    """Send MLflow what it has not seen of a sweep; nothing is sent twice.

    Runs that MLflow shows as running are closed if no process runs the sweep; --resume opens them again.
    """
    from orchestrator.commands.sync import sync_folder
    from orchestrator.ledger.folder import find_sweep

    typer.echo(sync_folder(find_sweep(folder)))


def ui(
    port: Annotated[
        int, number_option(metavar="PORT", help="Port on this machine.", allowed=Numbers(int, "5000", 1, 65535))
    ] = 5000,
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


def doctor(as_json: AsJson = False) -> None:
    """What this machine has: cores, memory, GPU, disk, versions, MLflow, data. Exit code 1 if something is wrong."""
    from orchestrator.commands.doctor import examine, print_findings

    findings = examine()
    if as_json:
        print_json([finding.to_dict() for finding in findings])
    else:
        print_findings(findings, console())
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)
