"""Commands in messages can be pasted: a folder with blanks and quotes in its name is quoted for the shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.commands import compare, export
from orchestrator.errors import OrchError
from orchestrator.ledger.folder import find_sweep, newest_unfinished, read_sweep
from orchestrator.ledger.kept import KeptFiles
from orchestrator.paths import SweepPaths, command_line
from orchestrator.report import status
from orchestrator.spec.load import load_spec
from orchestrator.sweep.judged import judged_winner
from orchestrator.sweep.open import open_new
from orchestrator.sweep.probabilities import read_probabilities
from tests.support.places import ROOT
from tests.support.since_42b062d import unpack
from tests.support.sweep_on_disk import write_sweep

HARD = "it's a folder/my sweep $1"


def words_after(message: str, start: str) -> list[str]:
    """The words that a shell makes of the command in ``message`` that begins with ``start``."""
    command = message[message.index(start) :]
    command = re.match(r"(?:[^\s'\"`;]+|'[^']*'|\"[^\"]*\"|\s+(?=['\"/\w+-]))+", command)[0]  # type: ignore[index]
    return shlex.split(command)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("sync", Path("runs/quick")), "orch sync runs/quick"),
        (("promote", "best", "my runs/a"), "orch promote best 'my runs/a'"),
        (("sweep", "--resume", "--out", "it's"), """orch sweep --resume --out 'it'"'"'s'"""),
        (("sweep", "--resume", "--trials", "+20"), "orch sweep --resume --trials +20"),
    ],
)
def test_words_are_quoted_where_the_shell_needs_it(words: tuple[str | Path, ...], expected: str) -> None:
    assert command_line(*words) == expected
    assert shlex.split(expected) == ["orch", *map(str, words)]


def exists_already(root: Path) -> None:
    spec = load_spec("quick")
    open_new(spec, root, fresh=False)
    open_new(spec, root, fresh=False)


def no_probabilities(root: Path) -> None:
    read_probabilities(KeptFiles(SweepPaths(root), {}), "f1", "test", "whole")


def unfinished(compare: Callable[[Path], object]) -> Callable[[Path], None]:
    def raise_it(root: Path) -> None:
        compare(write_sweep(root, ended="INTERRUPTED").root)

    return raise_it


@pytest.mark.parametrize(
    "raise_it",
    [
        exists_already,
        no_probabilities,
        unfinished(compare.compare_configurations),
        unfinished(lambda root: judged_winner(read_sweep(root))),
        unfinished(lambda root: export.export_winner(root, export.ExportRequest(), print)),
    ],
)
def test_messages_that_say_how_to_go_on(tmp_path: Path, raise_it: Callable[[Path], None]) -> None:
    root = tmp_path / HARD
    root.parent.mkdir()
    with pytest.raises(OrchError) as error:
        raise_it(root)
    assert words_after(str(error.value), "orch sweep") == ["orch", "sweep", "--resume", "--out", str(root)]


def test_finished_sweeps_are_extended_by_their_quoted_folder(tmp_path: Path) -> None:
    runs = tmp_path / "my runs"
    write_sweep(runs / "one")
    with pytest.raises(OrchError) as error:
        newest_unfinished(runs)
    words = words_after(str(error.value), "orch sweep")
    assert words[:-1] == ["orch", "sweep", "--resume", "--out", str(runs / "NAME"), "--trials"]
    assert find_sweep("one", runs=runs) == runs / "one"


@pytest.mark.parametrize(
    ("ended", "words"), [("FINISHED", ["promote", "best"]), ("INTERRUPTED", ["sweep", "--resume", "--out"])]
)
def test_status_says_the_next_command(tmp_path: Path, ended: str, words: list[str]) -> None:
    root = tmp_path / HARD
    root.parent.mkdir()
    write_sweep(root, ended=ended)
    console = Console(record=True, width=400)
    status.print_status(root, console)
    (line,) = [line for line in console.export_text().splitlines() if line.startswith("next ")]
    assert shlex.split(line.removeprefix("next")) == ["orch", *words, str(root)]


def test_only_this_module_joins_names_to_a_sweeps_folder() -> None:
    joins = re.compile(r"(\.root|SweepPaths\([^)]*\)) / |\{[\w.]*paths\.[\w.]+\}\.\w")
    for package in ("orchestrator", "dashboards"):
        for path in (ROOT / package).rglob("*.py"):
            found = joins.findall(path.read_text())
            assert not found or path.name == "paths.py", f"{path}: {found}"


@pytest.mark.parametrize("sweep", ["finished", "killed"])
def test_every_name_in_a_recorded_sweeps_folder_is_one_of_these(tmp_path: Path, sweep: str) -> None:
    paths = SweepPaths(unpack(tmp_path, sweep) / sweep)
    named = {getattr(paths, name) for name, value in vars(SweepPaths).items() if isinstance(value, property)}
    named |= {paths.fit("f").parent, paths.probabilities("m", "test", "whole").parents[1]}
    assert set(paths.root.iterdir()) <= named
