"""`orch check`, `orch schema` and `orch spaces`: the sweep's file."""

from __future__ import annotations

import typer

from orchestrator.cli.options import Overrides, Source, print_json
from trainers.wording import count


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


def schema() -> None:
    """Print the JSON Schema of the file, for editors that complete and check YAML."""
    from orchestrator.spec.schema import json_schema

    print_json(json_schema())


def spaces() -> None:
    """List the shipped search spaces: their names and what each is."""
    from orchestrator.spec.shipped import shipped_spaces

    found = shipped_spaces()
    width = max((len(name) for name in found), default=0)
    for name, file in found.items():
        title = file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        typer.echo(f"{name.ljust(width)}  {title}")
