"""Every command that the documents and the messages tell people to type, and whether a typed line is one of them.

Read are README.md, CONTRIBUTING.md, docs/**/*.md, the headers of search_spaces/*.yaml, the examples of the help pages,
and the strings in the code. Pure: runs nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli import help as help_pages

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("orch", "make", "pip", "python", "mlflow", "ray", "docker", "watch", "export", "source", "cp", ".ci/run")
"""Programs whose lines in backticks are commands. In a shell block every line is one."""
CODE = ("orchestrator", "trainers", "dashboards")
HELP = str(Path(help_pages.__file__).relative_to(ROOT))
"""The module that holds the examples of every verb."""
HOLE = "\N{WHITE SQUARE}"
"""Stands in a line for what the code fills in."""
LINE_BUILDER = "command_line"
"""The function whose arguments are the words of a command (``orchestrator/paths.py``)."""
VERBS = tuple(sorted((verb for verb in help_pages.EXAMPLES if verb != "orch"), key=len, reverse=True))

VERBS_OF_MLFLOW = ("mlflow models serve", "mlflow server")


@dataclass(frozen=True)
class Printed:
    """A command as it is printed, without prompt and comment, and the place: ``README.md:51``."""

    line: str
    place: str

    @property
    def is_bare(self) -> bool:
        """A verb of orch or MLflow, or a group of verbs, named without arguments, as prose does."""
        return any(verb == self.line or verb.startswith(f"{self.line} ") for verb in (*VERBS, *VERBS_OF_MLFLOW))


def everything() -> list[Printed]:
    """All of them, in the order of the places."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [command for page in pages for command in of_page(page)]
    for space in sorted((ROOT / "search_spaces").glob("*.yaml")):
        found += of_header(space)
    found += [Printed(line, f"{HELP} {verb}") for verb, rows in help_pages.EXAMPLES.items() for line, _ in rows]
    for package in CODE:
        for file in sorted((ROOT / package).rglob("*.py")):
            found += of_code(file)
    return found


# --- documents ----------------------------------------------------------------------------------------------------


def of_page(page: Path) -> list[Printed]:
    """The lines of ``sh`` and ``console`` blocks, and the commands in backticks."""
    text = page.read_text(encoding="utf-8")
    place = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
    found: list[tuple[int, str]] = []
    for block in re.finditer(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S):
        if block[1] in ("sh", "console"):
            found += [(block.start(2) + at, line) for at, line in _block_lines(block[2])]
    prose = re.sub(r"^```\w*\n.*?^```", lambda block: re.sub(r"[^\n]", " ", block[0]), text, flags=re.M | re.S)
    for span in re.finditer(r"`([^`]+)`", prose):
        line = " ".join(span[1].split())
        if is_command(line):
            found.append((span.start(), line))
    return [Printed(line, f"{place}:{text.count(chr(10), 0, at) + 1}") for at, line in sorted(found)]


def blocks(page: Path, heading: str = "") -> list[tuple[str, ...]]:
    """The commands of each shell block of ``page``, or of its section ``heading`` alone."""
    text = page.read_text(encoding="utf-8")
    if heading:
        section = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", text, flags=re.M | re.S)
        if section is None:
            raise LookupError(f"{page.name} has no heading {heading!r}")
        text = section[2]
    found = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, flags=re.M | re.S)
    return [tuple(line for _, line in _block_lines(block)) for block in found]


def _block_lines(block: str) -> Iterator[tuple[int, str]]:
    """Offset and text of each command. With prompts, lines without one are output."""
    prompted, at = re.search(r"^\$ ", block, flags=re.M) is not None, 0
    for raw in re.sub(r"\\\n\s*", lambda break_: " " * len(break_[0]), block).splitlines(keepends=True):
        line = " ".join(without_comment(raw.strip().removeprefix("$ ")).split())
        if line and (not prompted or raw.lstrip().startswith("$ ")) and "[OPTIONS]" not in line:
            yield at, line
        at += len(raw)


def of_header(space: Path) -> list[Printed]:
    """The commands of the comment that begins a shipped space: indented lines, and ``orch`` after a colon."""
    header = re.match(r"(?:#.*\n)+", space.read_text(encoding="utf-8"))
    text = re.sub(r"\\\n#\s+", "", header[0] if header else "")
    place = str(space.relative_to(ROOT))
    lines = [re.split(r"\s{2,}|\s+\(", line)[0].strip() for line in re.findall(r"^#   +(\S.*)$", text, flags=re.M)]
    prose = re.sub(r"^#   .*$", "", text, flags=re.M)
    lines += [found.rstrip(".") for found in re.findall(r"(?:: |, )(orch [^,\n]*?)(?=,|\.?$)", prose, flags=re.M)]
    return [Printed(line, place) for line in lines if is_command(line)]


def is_command(line: str) -> bool:
    """Whether a line is a command with arguments, or a verb of orch by its full name; not a usage line."""
    words = line.split()
    return (
        bool(words) and words[0] in PROGRAMS and (len(words) > 1 or words[0] == ".ci/run") and "[OPTIONS]" not in line
    )


def without_comment(line: str) -> str:
    return re.sub(r"(^|\s+)#.*$", "", line)


# --- code ---------------------------------------------------------------------------------------------------------


def of_code(file: Path) -> list[Printed]:
    """Commands in the strings of a module, docstrings left out, and what is handed to ``command_line``."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    place = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    found: list[Printed] = []
    if str(place) == HELP:  # its examples are taken from the table
        return found
    for node, text in _strings(tree):
        found += [Printed(line, f"{place}:{node.lineno}") for line in _in_sentence(text)]
    return found


def filled_in_by_hand(file: Path) -> list[str]:
    """Strings of a module in which a word of a command is filled in without ``command_line``, which quotes it."""
    verbs = "|".join(verb.removeprefix("orch ") for verb in VERBS)
    by_hand = re.compile(rf"(?<![\w-])orch (?:{verbs}) (?:[^.;`]* )?[\w/]*{HOLE}")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    texts = [
        "".join(getattr(part, "value", "") if isinstance(part, ast.Constant) else HOLE for part in node.values)
        for node in joined
    ]
    return [text for text in texts if by_hand.search(text)]


def _strings(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Every string of the tree that is no docstring, its f-string's holes as HOLE, concatenations joined."""
    docstrings = {
        id(body[0].value)
        for node in ast.walk(tree)
        if (body := getattr(node, "body", None)) and isinstance(body, list) and isinstance(body[0], ast.Expr)
    }
    inside: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr) or id(node) in inside or id(node) in docstrings:
            continue
        text = _text(node)
        if text is not None:
            inside |= {id(child) for child in ast.walk(node)}
            yield node, text


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or HOLE for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _built(node.value)
    if isinstance(node, ast.Call):
        return _built(node)
    return None


def _built(node: ast.expr) -> str | None:
    """The line that a call of ``command_line`` gives, its variables as HOLE."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == LINE_BUILDER:
        words = [_text(word) or HOLE for word in node.args]
        return f"`orch {' '.join(words)}`"
    return None


def _in_sentence(text: str) -> list[str]:
    """``orch VERB ...`` in backticks, or a known verb and what follows up to where the sentence goes on."""
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    rest = re.sub(r"`[^`]+`", " ; ", text)
    verbs = "|".join(verb.removeprefix("orch ") for verb in VERBS)
    word = rf"(?:--?[a-z][\w-]*|\+?[A-Z]+|\+?\d+|[\w./]*{HOLE}[\w./]*|[a-z_]+(?=[;.]|$))"
    spans += re.findall(rf"(?<![\w-])orch (?:{verbs})(?: {word})*", rest)
    return [span for span in spans if is_command(span) and span.startswith("orch ")]


# --- typed or not -------------------------------------------------------------------------------------------------


def is_typed(printed: Printed, typed: list[str]) -> bool:
    """Whether one of the lines ``typed`` is the command; a bare verb is typed with any arguments."""
    if printed.is_bare and any(line == printed.line or line.startswith(f"{printed.line} ") for line in typed):
        return True
    pattern = re.compile(_pattern(printed.line))
    return any(pattern.fullmatch(line) for line in typed)


def _pattern(line: str) -> str:
    """The lines that ``line`` stands for: holes, CAPS and ``/path/to/...`` are any word."""
    return r"\s+".join(_word_pattern(word) for word in line.split())


def _word_pattern(word: str) -> str:
    name, equals, value = word.partition("=")
    if equals and re.fullmatch(r"[A-Z_]+", name):  # a variable's own name is no placeholder
        return re.escape(f"{name}=") + (_word_pattern(value) if value else "")
    if word.startswith(("/path/to/", "...")):
        return r"\S+"
    parts = re.split(rf"({HOLE}|\$[A-Z_]+|(?<![A-Za-z_])[A-Z]{{1,}}(?![A-Za-z_]))", word)
    return "".join(_part_pattern(part) for part in parts)


def _part_pattern(part: str) -> str:
    if part == HOLE:
        return ".+"
    return r"\S+" if re.fullmatch(r"[A-Z]+", part) else re.escape(part)
