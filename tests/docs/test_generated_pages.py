"""Documentation that cannot drift: the reference is generated, and every command line in the docs parses."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

from orchestrator import errors
from orchestrator.cli import app
from orchestrator.cli.help import EXAMPLES
from tests.support.docs_programs import load_program
from tests.support.places import ROOT


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return load_program("make_cli_reference")


def test_the_reference_is_what_the_code_says(generator: ModuleType) -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == generator.reference(), "run make docs"


def test_the_check_of_the_reference_notices_a_change(generator: ModuleType, tmp_path: Path) -> None:
    script = ROOT / "docs" / "make_cli_reference.py"
    (tmp_path / "docs").mkdir()
    copy = tmp_path / "docs" / script.name
    copy.write_text(script.read_text().replace("sys.path.insert(0, str(ROOT))", f"sys.path.insert(0, {str(ROOT)!r})"))
    (tmp_path / "docs" / "cli.md").write_text(generator.reference() + "one line more\n")
    command = [sys.executable, str(copy), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "docs/cli.md differs from the code; run `make docs`.\n")


def test_every_verb_is_documented_and_has_an_example(generator: ModuleType) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    found = dict(generator.verbs())
    assert len(found) >= 12
    assert {*found, "orch"} == set(EXAMPLES)
    for path, command in found.items():
        assert f"\n## {path}\n" in page
        assert command.help
        assert EXAMPLES[path]
        assert command.epilog == app.examples(path)
        for parameter in command.params:
            assert parameter.help, f"{path} {parameter.name}"


def test_every_error_has_its_exit_code_in_the_reference() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OrchError)]
    assert len(kinds) >= 8
    for kind in kinds:
        assert f"| {kind.exit_code} | " in page


def command_lines(text: str) -> list[str]:
    """What a reader would type: lines of code blocks that start with orch, and inline code that does."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    outside = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.M | re.S)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", outside)]
    return [line for line in lines if re.match(r"(\w+=\S+ )*orch(\s|$)", line)]


def parse(line: str) -> None:
    """Raise what typer raises when ``line`` is not a command line of ours. Runs nothing."""
    words = shlex.split(line, comments=True)
    words = words[: next((i for i, word in enumerate(words) if word in ("|", ">", "&&", "&", ";")), len(words))]
    while "=" in words[0]:
        words = words[1:]
    words = [word for word in words[1:] if word not in ("--debug", "...")]
    command = get_command(app.app)
    path = "orch"
    while words and hasattr(command, "commands") and not words[0].startswith(("-", "[")):
        assert words[0] in command.commands, f"{line!r}: there is no verb {words[0]!r} in {path}"
        path, command = f"{path} {words[0]}", command.commands[words[0]]
        words = words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"-h", "--help"}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    assert not unknown, f"{line!r}: {path} has no {', '.join(unknown)}"
    is_synopsis = any(character in line for character in "[{")
    if words and not is_synopsis and not {"-h", "--help"} & set(words) and not hasattr(command, "commands"):
        command.make_context(path, words)


def documents() -> list[Path]:
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "search_spaces").glob("*.yaml")]
    return sorted(path for path in found if path.is_file())


def test_every_command_line_in_the_docs_parses() -> None:
    seen = 0
    for path in documents():
        text = path.read_text()
        if path.suffix == ".yaml":
            text = re.sub(r" *\\\n#\s+", " ", text)  # a line that goes on in the next
            text = "\n".join(f"`{line}`" for line in re.findall(r"^#\s+(orch .*?)(?:\s{2,}.*)?$", text, flags=re.M))
        for line in command_lines(text):
            parse(line)
            seen += 1
    assert seen >= 30


def test_every_example_parses() -> None:
    lines = [line for examples in EXAMPLES.values() for line, _ in examples]
    assert len(lines) >= 25
    for line in lines:
        parse(line[line.index("orch") :])


@pytest.mark.parametrize("line", ["orch swep quick", "orch sweep quick --trails 5", "orch sweep a b c"])
def test_a_wrong_command_line_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"no verb 'swep'|has no --trails|unexpected extra argument"):
        parse(line)


def test_make_targets_named_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = {
        target
        for path in documents()
        for target in re.findall(r"`make ([a-z-]+)`|^\$? ?make ([a-z-]+)(?: +#.*)?$", path.read_text(), flags=re.M)
        for target in target
        if target
    }
    assert {"sweep", "test", "check"} <= named
    assert named <= targets
