"""How a command line ends after an error: one sentence on stderr, and an exit code."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import sys
from pathlib import Path

import typer
from typer.exceptions import TyperException

from orchestrator.errors import OrchError, SpecError
from orchestrator.machine.standard_streams import leave_closed_terminal
from trainers.files.lookup import obstacle

UNEXPECTED = 70
"""Exit code of an unexpected error, the program's own fault (EX_SOFTWARE of sysexits.h)."""
INTERRUPTED = 130
TRAINER_ERROR = 3
BROKEN_PIPE = 1


def explain(error: Exception) -> int:
    """Print the error on stderr; return the exit code."""
    from trainers.errors import TrainerError

    if isinstance(error, TyperException):
        return _explain_usage(error)
    if isinstance(error, OrchError | TrainerError):
        placed = isinstance(error, SpecError) and re.match(r".+:\d+:\d+: ", str(error))
        _say(str(error) if placed else f"orch: {error}")  # editors read FILE:LINE:COLUMN at the start
        return error.exit_code if isinstance(error, OrchError) else TRAINER_ERROR
    if isinstance(error, BrokenPipeError) and _reader_left():
        return BROKEN_PIPE
    if isinstance(error, OSError) and (refused := _refusal(error)):
        _say(f"orch: {refused}")
        return OrchError.exit_code
    kept = _keep_traceback(error)
    text = " ".join(str(error).split()) or "no message"
    _say(
        f"orch: an unexpected error: {type(error).__name__}: {text}; run again with --debug for the traceback, "
        f"kept in {kept}"
    )
    return UNEXPECTED


def unsupported_platform(platform: str = sys.platform) -> str:
    """Return a sentence if the operating system lacks POSIX file locks (``fcntl``); else ""."""
    if platform != "win32":
        return ""
    return (
        "orch does not run on Windows itself: its ledger and its store need POSIX file locks. "
        "Install it in WSL2 (`wsl --install`), on Linux or on macOS."
    )


def hidden_package() -> str:
    """Return a sentence if another folder hides one of orch's packages, which are all in one folder; else ""."""
    home = Path(__file__).resolve().parents[2]
    for name in ("trainers", "dashboards", "search_spaces"):
        spec = importlib.util.find_spec(name)
        found = [*(spec.submodule_search_locations or [])] if spec else []
        if home / name not in (Path(folder).resolve() for folder in found):
            where = found[0] if found else "nothing"
            return (
                f"orch needs its own package {name}, in {home / name}, and Python finds {where} under that name. "
                "Take its folder out of PYTHONPATH, or rename it."
            )
    return ""


def _explain_usage(error: TyperException) -> int:
    """Print a usage error and where to read more. A group without a verb has printed its help already."""
    text = error.format_message().removeprefix("Invalid value: ").replace(": Value error, ", ": ")
    if text:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "orch"
        _say(f"orch: {text}\nTry '{path} --help'.")
    return error.exit_code


def _refusal(error: OSError) -> str:
    """Return a sentence if the operating system refused a path for a reason outside orch; else ""."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the current folder was removed; cd into another."
    if error.filename is None or error.errno not in (errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP):
        return ""
    why = obstacle(error.filename) or "permission denied"
    return f"{error.filename} cannot be used: {why}. Change its permissions, or name another place."


def _say(text: str) -> None:
    """Write ``text`` to stderr, or to nowhere if its terminal is gone."""
    leave_closed_terminal()
    typer.echo(text, err=True)


def _reader_left() -> bool:
    """Whether the reader of our output has left (``orch show | head``); silences the remaining output if so."""
    import select

    try:
        watched = select.poll()
        watched.register(sys.stdout.fileno(), select.POLLOUT)
        left = any(events & (select.POLLERR | select.POLLHUP) for _, events in watched.poll(0))
    except (OSError, ValueError):  # stdout is no file
        return False
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return left


def _keep_traceback(error: Exception) -> str:
    """Write the traceback to a file; return its name."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="orch-traceback-", suffix=".txt", delete=False) as file:
        file.write("".join(traceback.format_exception(error)))
    return file.name
