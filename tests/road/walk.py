"""Walk the whole road as a person, outside the checkout: ``make road``.

    python -m tests.road.walk --install both --documents
    python -m tests.road.walk --install wheel --pythons "3.12 3.13"

The first road: a sweep from an empty folder and every command that follows, to a served answer; then the card, which is
the whole space in its dry run. ``--documents`` types every other line that README, docs/ and orch itself print. Exit
code 1 if a line fails; the lines after it are typed all the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.road import installs, pages, pythons
from tests.road.person import Person
from tests.road.steps import CARDS, FIRST, Walk, card, first_road


def main() -> int:
    asked = arguments()
    began_s = time.monotonic()
    walks: list[Walk] = []
    for together in installs_of(asked):
        with tempfile.TemporaryDirectory(prefix="road-") as name:  # 3 GB a wheel's environment, gone before the next
            walks += walked(together, Path(name), asked)
    failures = [failure for walk in walks for failure in walk.failures]
    for failure in failures:
        print(f"\nFAILED {failure}")
    typed, failed = sum(len(walk.person.typed) for walk in walks), len(failures)
    minutes = (time.monotonic() - began_s) / 60
    print(f"\nroad: {typed} commands typed in {minutes:.1f} minutes; {typed - failed} passed, {failed} failed")
    return 1 if failures else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Walk the whole road as a person, outside the checkout.")
    parser.add_argument("--install", choices=["editable", "wheel", "both"], default="both")
    parser.add_argument("--python", default=sys.executable, help="the Python of the wheel's environment")
    parser.add_argument("--pythons", metavar="VERSIONS", help='of several in turn, as "3.12 3.13"; "": each other one')
    parser.add_argument("--documents", action="store_true", help="type the lines of the documents, too")
    parser.add_argument("--chapter", metavar="NAME", action="append", help="of the documents, this chapter alone")
    return parser.parse_args()


def installs_of(asked: argparse.Namespace) -> list[list[tuple[str, str]]]:
    """(way, Python) of each install; those of one list at the same time."""
    if asked.pythons is not None:
        found = pythons.others(asked.pythons)
        print(f"pythons  {', '.join(found) or 'there is no other from 3.11 to 3.13 here'}", flush=True)
        return [[("wheel", program)] for program in found.values()]
    ways = ("editable", "wheel") if asked.install == "both" else (asked.install,)
    return [[(way, asked.python) for way in ways]]


def walked(together: list[tuple[str, str]], folder: Path, asked: argparse.Namespace) -> list[Walk]:
    """Install and walk each way of ``together``; then type the documents with the wheel, alone: some lines install."""
    with ThreadPoolExecutor(len(together)) as pool:
        found = list(pool.map(lambda way: _walked(*way, folder / way[0], asked), together))
    walks = [walk for some in found for walk in some]
    if asked.documents and (folder / "wheel" / "venv").is_dir():
        walks += pages.walked(folder / "wheel" / "venv", folder / "wheel", asked.chapter)
    return walks


def _walked(way: str, python: str, folder: Path, asked: argparse.Namespace) -> list[Walk]:
    """The first road and the card with one install; where it cannot be installed, that failure."""
    began_s = time.monotonic()
    folder.mkdir()
    installed = Walk(Person(folder / "venv", folder / "install"))
    with installed.failing(f"install {way}, {python}"):
        venv = installs.editable() if way == "editable" else installs.wheel(folder, python)
        if way == "wheel":
            (folder / "empty").mkdir()
            installs.assert_no_checkout(venv, folder / "empty")
        print(f"install  {way}, {python}, in {time.monotonic() - began_s:.0f} s", flush=True)
    if installed.failures or asked.chapter:
        return [installed]
    first, whole_space = (Walk(_person(venv, folder / f"{way}-{name}")) for name in ("first", "card"))
    first_road(first, FIRST[way])
    card(whole_space, CARDS[way])
    return [first, whole_space]


def _person(venv: Path, folder: Path) -> Person:
    folder.mkdir()
    return Person(venv, folder)


if __name__ == "__main__":
    sys.exit(main())
