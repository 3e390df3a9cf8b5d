"""Every command that README, docs/ and orch itself print is typed by ``make road`` or ``.ci/run``, or excepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.road import pages, printed
from tests.road.printed import HOLE, Printed

FIRST_SCREENS = 90
"""Lines of README in which no command may be an exception."""


@pytest.fixture(scope="module")
def everything() -> list[Printed]:
    return printed.everything()


def test_every_printed_command_is_typed_or_excepted(everything: list[Printed]) -> None:
    typed = pages.planned()
    assert len(typed) >= 100
    left = [c for c in everything if not printed.is_typed(c, typed) and not pages.exception(c)]
    assert not left, "typed by no chapter of tests/road/pages.py:\n" + "\n".join(f"{c.place}: {c.line}" for c in left)


def test_the_extraction_sees_every_kind_of_place(everything: list[Printed]) -> None:
    seen = {c.place.partition(":")[0].partition(" ")[0] for c in everything}
    assert len(everything) >= 350
    assert len({c.line for c in everything}) >= 140
    wanted = {"README.md", "CONTRIBUTING.md", "docs/cli.md", "docs/cluster.md", "docs/results.md", "docs/backbones.md"}
    wanted |= {"search_spaces/full.yaml", printed.HELP}
    assert wanted <= seen
    assert sum(c.place.startswith(("orchestrator/", "trainers/")) and HOLE in c.line for c in everything) >= 12


def test_exceptions_are_few_have_reasons_and_are_needed(everything: list[Printed]) -> None:
    assert len(pages.EXCEPTIONS) <= 8
    typed = pages.planned()
    excepted = [c for c in everything if pages.exception(c)]
    assert {pages.exception(c) for c in excepted} == set(pages.EXCEPTIONS)
    assert not [c for c in excepted if not c.is_bare and c.line in typed]


def test_no_exception_stands_on_the_first_screens_of_readme(everything: list[Printed]) -> None:
    first = [c for c in everything if c.place.startswith("README.md:") and int(c.place.split(":")[1]) <= FIRST_SCREENS]
    assert len(first) >= 30
    assert not [c for c in first if pages.exception(c)]


def test_messages_fill_in_folders_by_the_function_that_quotes_them() -> None:
    files = [file for package in printed.CODE for file in sorted((printed.ROOT / package).rglob("*.py"))]
    assert len(files) >= 100
    found = {str(file): texts for file in files if (texts := printed.filled_in_by_hand(file))}
    assert not found, "use orchestrator.paths.command_line"


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ('f"go on: orch sweep --resume --out {root}"', True),
        ('f"go on: {command_line(resume, root)}; or start again: orch sweep FILE"', False),
        ("f'go on with `orch sync {folder}`'", True),
        ('f"{name} is not a model that orch wrote: {reason}"', False),
    ],
)
def test_a_folder_that_is_filled_in_by_hand_is_noticed(tmp_path: Path, text: str, is_found: bool) -> None:
    (tmp_path / "module.py").write_text(f"text = {text}\n")
    assert bool(printed.filled_in_by_hand(tmp_path / "module.py")) == is_found


# What counts as typed


@pytest.mark.parametrize(
    ("line", "typed", "expected"),
    [
        ("orch promote best", "orch promote best runs/my --force", True),
        ("orch data", "orch data check photos/", True),
        ("orch sweep my.yaml", "orch sweep my.yaml --fresh", False),
        ("orch sweep FILE", "orch sweep my.yaml", True),
        ("orch sweep --resume --out runs/NAME --trials +N", "orch sweep --resume --out runs/my --trials +20", True),
        (f"orch promote best {HOLE}", "orch promote best 'much worse'", True),
        ("ray start --address=HEAD:6379", "ray start --address=127.0.0.1:6379", True),
        ("export ORCH_DATA=/path/to/datasets", "export ORCH_DATA=/tmp/d", True),
        ("export ORCH_DATA=/path/to/datasets", "export ORCH_WEIGHTS=/tmp/d", False),
        ("orch plan full", "orch plan fullish", False),
    ],
)
def test_a_line_counts_as_typed_where_its_words_are_the_same(line: str, typed: str, expected: bool) -> None:
    assert printed.is_typed(Printed(line, ""), [typed]) == expected


PAGE = """
Type `orch sweep my.yaml
--fresh`, or `orch show`; the file `mlflow.db`, `--set a=b` and `orch` are none.

```sh
export A=1   # a comment
orch check my.yaml \\
  --set budget.trials=5
```

```console
$ orch sweep [OPTIONS] [FILE]
$ orch spaces
quick  an answer
```

```yaml
name: orch sweep
```
"""


def test_commands_of_a_page(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    found = printed.of_page(tmp_path / "page.md")
    assert [(c.line, c.place.rpartition(":")[2]) for c in found] == [
        ("orch sweep my.yaml --fresh", "2"),
        ("orch show", "3"),
        ("export A=1", "6"),
        ("orch check my.yaml --set budget.trials=5", "7"),
        ("orch spaces", "13"),
    ]


MODULE = '''
"""Not `orch sweep docstring`."""
def f(root):
    """Nor `orch sweep this`."""
    raise OrchError(f"there is none; go on with {command_line('sweep', '--resume', root)}. Or `orch sync DIR`.")
    print("start with: orch sweep FILE. orch wrote it")
'''


def test_commands_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    found = [c.line for c in printed.of_code(tmp_path / "module.py")]
    assert sorted(found) == sorted([f"orch sweep --resume {HOLE}", "orch sync DIR", "orch sweep FILE"])
