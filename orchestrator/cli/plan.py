"""`orch plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, Numbers, Overrides, Source, console, number_option, print_json, usage


def plan(
    source: Source,
    overrides: Overrides = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", metavar="", help="Play the sweep on other machines, from this one's speed.")
    ] = False,
    gpus: Annotated[
        int, number_option(metavar="N", help="GPUs in all, with --simulate.", allowed=Numbers(int, "8", 0))
    ] = 0,
    nodes: Annotated[
        int, number_option(metavar="M", help="Machines, with --simulate.", allowed=Numbers(int, "2", 1))
    ] = 1,
    gpu: Annotated[str, typer.Option(metavar="NAME", help="v100 or a100: whose published speed is taken.")] = "v100",
    gpu_speed: Annotated[
        float | None,
        number_option(
            metavar="TIMES",
            help="Or its speed, as a multiple of one worker here.",
            allowed=Numbers(float, "50", least=0.01),
        ),
    ] = None,
    shared_store: Annotated[
        bool,
        typer.Option("--shared-store", metavar="", help="ORCH_CACHE is one folder for all nodes, with --simulate."),
    ] = False,
    photos: Annotated[
        int,
        number_option(
            metavar="N",
            help="Photos in all, instead of the file's, with --simulate.",
            allowed=Numbers(int, "10000", least=0),
        ),
    ] = 0,
    classes: Annotated[
        int, number_option(metavar="N", help="Classes of those photos.", allowed=Numbers(int, "40", least=0))
    ] = 0,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", metavar="", help="Measure this machine again, even if it was measured.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What a sweep will take, before it starts: time, disk, memory, trials, what is computed once, a lower bound.

    Measures this machine first, in under a minute, and keeps the result: the next plan of the space takes seconds.
    """
    from orchestrator.plan.machines import SimulatedMachines
    from orchestrator.plan.plan_file import plan_file
    from orchestrator.report.plan import print_plan
    from orchestrator.spec.load import open_spec

    if not simulate and (gpus or nodes > 1 or gpu_speed is not None or shared_store or photos or classes):
        usage(
            "--gpus, --nodes, --gpu-speed, --shared-store, --photos and --classes describe what to simulate; "
            "add --simulate."
        )
    devices = SimulatedMachines(nodes, gpus, gpu, gpu_speed, shared_store, photos, classes) if simulate else None
    tell = (lambda line: None) if as_json else (lambda line: typer.echo(line, err=True))
    opened = open_spec(source, tuple(overrides or ()), needs_weights=not simulate)
    for line in opened.notes:
        tell(line)
    found = plan_file(opened.spec, recalibrate, devices, tell)
    if as_json:
        print_json(found.to_dict())
    else:
        print_plan(found.plan, (*found.refusals, *found.warnings), console())
