"""`orch status`, `orch show`, `orch compare` and `orch audit`: what a sweep's folder holds."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, Folder, console, print_json, sweep_folder, usage


def status(folder: Folder = None) -> None:
    """How is it going: the stage, the trials by state, the best so far, the time left. From the ledger alone."""
    from orchestrator.report.status import print_status

    print_status(sweep_folder(folder), console())


def show(folder: Folder = None, as_json: AsJson = False) -> None:
    """What won, and why: the leaderboard, the winner and the trials. From the sweep's folder alone."""
    from orchestrator.report.status import describe, print_sweep

    found = sweep_folder(folder)
    if as_json:
        print_json(describe(found))
        return
    print_sweep(found, console())


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
    from orchestrator.commands.compare import compare_configurations, compare_policies, compare_steps, records, to_rich

    root = sweep_folder(folder, finished=True)
    if policies and steps:
        usage("--policies compares crop policies and --steps configurations; choose one of them.")
    if policies:
        found = compare_policies(root)
    elif steps:
        found = compare_steps(root, policy)
    else:
        found = compare_configurations(root, against, policy)
    if as_json:
        print_json(records(found))
    else:
        to_rich(found).print(console())


def audit(folder: Folder = None, as_json: AsJson = False) -> None:
    """Compute every figure of the leaderboard again, from the stored probabilities and with other code; compare.

    Also compares checksums, the choice of the winner, and the champion's tags. Exit code 9 if anything differs.
    """
    from orchestrator.audit.audit import audit_sweep
    from orchestrator.commands.audit import failure, to_rich

    found = audit_sweep(sweep_folder(folder, finished=True))
    if as_json:
        print_json(found.to_dict())
    else:
        to_rich(found).print(console())
    if (failed := failure(found)) is not None:
        raise failed
