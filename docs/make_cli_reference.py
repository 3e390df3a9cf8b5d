"""Write docs/cli.md from the code of the verbs (``make docs``), or compare it with --check (``make check``)."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from typer.main import get_command

from orchestrator import errors
from orchestrator.cli import app, exits
from orchestrator.cli.help import EXAMPLES

REFERENCE = ROOT / "docs" / "cli.md"
INTRODUCTION = """# The command line

Written by `make docs` from the code; `make check` compares. Every page below is also what `--help` says.

Errors are sentences on stderr. `--debug`, anywhere in the line, shows the traceback instead. Output that is not a
terminal is plain, and `NO_COLOR` is respected. `python -m orchestrator` is `orch`.
"""


def verbs(command: Any = None, path: str = "orch") -> Iterator[tuple[str, Any]]:
    """Yield ("orch sweep", its command) and so on, for every verb, those in groups included."""
    command = get_command(app.app) if command is None else command
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    if path != "orch" and any(parameter.name != "help" for parameter in command.params):
        yield path, command  # a group that does something by itself
    for name, child in inner.items():
        yield from verbs(child, f"{path} {name}")


def exit_codes() -> list[tuple[int, str]]:
    """Return (exit code, meaning), smallest first, from the docstrings of the errors that have a code of their own."""
    every = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.OrchError)]
    kinds = [kind for kind in every if "exit_code" in vars(kind)]
    found = [(kind.exit_code, " ".join(str(kind.__doc__).split()).replace("``", "`")) for kind in kinds]
    found.append((exits.UNEXPECTED, "The program's own fault; the traceback is kept in the file that is named."))
    return sorted([(0, "Done."), *found])


def reference() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, "## Verbs\n", *_contents(), ""]
    for path, command in verbs():
        parts += _verb(path, command)
    parts += ["## Exit codes\n", "| code | meaning |", "|---|---|"]
    parts += [f"| {code} | {meaning} |" for code, meaning in exit_codes()]
    return "\n".join(parts) + "\n"


def _contents() -> list[str]:
    return [f"- [`{path}`](#{path.replace(' ', '-')}): {_summary(command)}" for path, command in verbs()]


def _summary(command: Any) -> str:
    return str(command.help).split("\n\n")[0]


def _verb(path: str, command: Any) -> list[str]:
    context = command.make_context(path, [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## {path}\n", f"{command.help}\n", "```console", f"$ {path} {usage}", "```\n"]
    rows = [_row(parameter, context) for parameter in command.get_params(context)]
    lines += ["| | |", "|---|---|", *(row for row in rows if row), ""]
    lines += ["```console"]
    for line, what in EXAMPLES[path]:
        lines += [f"# {what}", f"$ {line}"]
    return [*lines, "```\n"]


def _row(parameter: Any, context: Any) -> str:
    if getattr(parameter, "hidden", False):
        return ""
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
    else:
        kind = parameter.metavar if parameter.metavar is not None else parameter.display_type(context)
        name = " ".join([", ".join(parameter.opts), kind]).strip()
    text = " ".join(str(parameter.help or "Show this message and exit.").split())
    given = parameter.default
    default = f" Default: {given}." if given not in (None, False, ()) and not callable(given) else ""
    cells = (name.replace("|", "\\|"), (text + ("" if parameter.param_type_name == "argument" else default)))
    return f"| `{cells[0]}` | {cells[1]} |"


def main() -> int:
    if "--check" not in sys.argv[1:]:
        REFERENCE.write_text(reference(), encoding="utf-8")
        return 0
    if REFERENCE.is_file() and REFERENCE.read_text(encoding="utf-8") == reference():
        return 0
    print(f"{REFERENCE.relative_to(ROOT)} differs from the code; run `make docs`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
