"""Typing line after line: what is a server, what is exported, what failed. And the first road and the card."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.road import printed
from tests.road.person import Person, is_server

FIRST = {"editable": "orch sweep quick --fresh", "wheel": "orch sweep quick"}
"""How each install begins: with the line that ``make sweep`` runs, and with the one for everywhere else."""
NEXT = ("orch promote best runs/quick", "orch ui")
"""What a finished sweep prints below "Next:", each typed as it is printed."""
THEN = (
    "orch show",
    "orch status",
    "orch compare",
    "orch promote best",
    "orch predict 3.png 7.png",
    "orch export",
    "orch sync",
    "orch cache list",
    "python load.py",
)
EXPECTED = {
    "orch show": ("leaderboard, on the test split", "winner"),
    "orch status": ("finished", "orch promote best runs/quick"),
    "orch promote best": ("is the champion already",),
    "orch predict 3.png 7.png": ("3.png", "7.png"),
    "orch export": ("savedmodel", "tflite-int8", "onnx"),
    "orch cache list": ("images",),
    "python load.py": ("3 7",),
}
"""What their answers hold, among other things."""
SERVE = "mlflow models serve -m models:/{model}@champion --env-manager local --port 5001"
SHOWN_DIGITS = ("3", "7")
LOAD = """
import base64, mlflow, pathlib
texts = [base64.b64encode(pathlib.Path(f"{name}.png").read_bytes()).decode() for name in "37"]
print(*mlflow.pyfunc.load_model("models:/digits@champion").predict(texts)["label"])
"""
"""A program of a person who knows MLflow alone."""
YES = "y\n"
CARDS = {"editable": "full", "wheel": "search_spaces/full.yaml"}
"""Under which name each install starts the whole space: as its header prints it, and as a path in the repository."""
QUESTIONS = ("orch cache clear",)
"""Commands that ask before they do anything."""


@dataclass
class Walk:
    """One person's walk. A line that fails is kept and the walk goes on, so that one run finds every fault."""

    person: Person
    failures: list[str] = field(default_factory=list)

    def line(self, line: str, allowed: tuple[int, ...] = (0,)) -> str:
        """Type ``line`` as what it is; what it printed, "" where it failed."""
        person = self.person
        said = ""
        with self.failing(line):
            if line.startswith("export "):
                person.exports(line)
            elif line.startswith("watch "):
                said = person.watches(line)
            elif is_server(line):
                with person.keeps_running(line):
                    pass
            else:
                answer = YES if line.startswith(QUESTIONS) else ""
                said = person.types(line, ends_with=allowed, answer=answer)
        return said

    def expect(self, line: str, said: str, *words: str) -> None:
        """Count it as a failure where ``words`` are not in what ``line`` printed."""
        lacking = [word for word in words if word not in said]
        if lacking and said:
            self._fail(f"$ {line}\nprinted no {', '.join(lacking)}\n{said}")

    def served(self, line: str, photos: Iterable[Path], labels: Iterable[str]) -> None:
        """Serve, send photos as base64 text as README says, and compare the labels."""
        with self.failing(line), self.person.keeps_running(line) as url:
            texts = [base64.b64encode(photo.read_bytes()).decode() for photo in photos]
            answered = ask(url.removesuffix("/ping"), texts)
            assert answered == list(labels), f"$ {line}\nanswered {answered} instead of {list(labels)}"

    @contextlib.contextmanager
    def serving(self, line: str) -> Iterator[None]:
        """Keep the server ``line`` running meanwhile. Where it does not start, the rest is typed all the same."""
        with contextlib.ExitStack() as stack:
            with self.failing(line):
                stack.enter_context(self.person.keeps_running(line))
            yield

    @contextlib.contextmanager
    def failing(self, line: str) -> Iterator[None]:
        """Keep what goes wrong inside as a failure of ``line``."""
        try:
            yield
        except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
            self._fail(str(error) or f"$ {line}: {type(error).__name__}")

    def _fail(self, text: str) -> None:
        self.failures.append(text)
        print(f"FAILED {text}", flush=True)


def ask(address: str, texts: list[str]) -> list[str]:
    """The labels that a served model answers to photos as base64 text."""
    body = json.dumps({"inputs": texts}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return [row["label"] for row in json.loads(answer.read())["predictions"]]


def next_lines(said: str) -> list[str]:
    """The commands below the last "Next:" of what a command printed."""
    _, found, below = said.rpartition("\nNext:\n")
    lines = below.splitlines() if found else []
    return [printed.without_comment(line.strip()) for line in lines if line.startswith("  ")]


def first_road(walk: Walk, start: str) -> None:
    """From an empty folder and the sweep ``start`` to a served answer."""
    person = walk.person
    said = walk.line(start)
    walk.expect(start, said, "Leaderboard on the test split", *NEXT)
    for line in next_lines(said) or NEXT:
        walk.line(line)
    copy_digits(person)
    (person.folder / "load.py").write_text(LOAD)
    answers = {line: walk.line(line) for line in THEN}
    for line, words in EXPECTED.items():
        walk.expect(line, answers[line], *words)
    photos = [person.folder / f"{digit}.png" for digit in SHOWN_DIGITS]
    walk.served(SERVE.format(model="digits"), photos, SHOWN_DIGITS)


def copy_digits(person: Person) -> None:
    """Photos of digits that are easy to read, next to where orch is typed."""
    for digit in SHOWN_DIGITS:
        photo = sorted((person.home / ".cache" / "orch" / "builtin" / "digits" / digit).glob("*.png"))[:1]
        if photo:
            shutil.copy(photo[0], person.folder / f"{digit}.png")


def card(walk: Walk, name: str) -> None:
    """The whole space ``name`` in the dry run that its header prints, and the winner into the registry."""
    said = walk.line(dry_run(name))
    walk.expect(dry_run(name), said, "Leaderboard on the test split")
    for line in ("orch ui", "orch promote best"):
        walk.line(line)


def dry_run(name: str) -> str:
    """The line in the header of full.yaml that needs neither photos nor weights, for the space under ``name``."""
    lines = [command.line for command in printed.of_header(printed.ROOT / "search_spaces" / "full.yaml")]
    (line,) = [line for line in lines if "data.source=builtin:digits" in line]
    return re.sub(r"^orch sweep full ", f"orch sweep {name} ", line)
