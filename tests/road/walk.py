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
from pathlib import Path

from tests.road import installs, pages, pythons
from tests.road.person import Person
from tests.road.steps import CARDS, FIRST, Walk, card, first_road


def main() -> int:
    asked = arguments()
    began_s = time.monotonic()
    walks: list[Walk] = []
    for way, python in installs_of(asked):
        with tempfile.TemporaryDirectory(prefix="road-") as name:  # 3 GB a wheel's environment, gone before the next
            walks += walked(way, Path(name), python, asked)
    for walk in walks:
        for failure in walk.failures:
            print(f"\nFAILED {failure}")
    typed, failed = sum(len(walk.person.typed) for walk in walks), sum(len(walk.failures) for walk in walks)
    seconds = time.monotonic() - began_s
    print(f"\nroad: {typed} commands typed in {seconds / 60:.1f} minutes; {typed - failed} passed, {failed} failed")
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Walk the whole road as a person, outside the checkout.")
    parser.add_argument("--install", choices=["editable", "wheel", "both"], default="both")
    parser.add_argument("--python", default=sys.executable, help="the Python of the wheel's environment")
    parser.add_argument("--pythons", metavar="VERSIONS", help='of several in turn, as "3.12 3.13"; "": each other one')
    parser.add_argument("--documents", action="store_true", help="type the lines of the documents, too")
    parser.add_argument("--chapter", metavar="NAME", action="append", help="of the documents, this chapter alone")
    return parser.parse_args()


def installs_of(asked: argparse.Namespace) -> list[tuple[str, str]]:
    """(way, Python) of each install in turn."""
    if asked.pythons is not None:
        found = pythons.others(asked.pythons)
        print(f"pythons  {', '.join(found) or 'there is no other from 3.11 to 3.13 here'}", flush=True)
        return [("wheel", program) for program in found.values()]
    ways = ("editable", "wheel") if asked.install == "both" else (asked.install,)
    return [(way, asked.python) for way in ways]


def walked(way: str, folder: Path, python: str, asked: argparse.Namespace) -> list[Walk]:
    """The walks with one install; the documents are typed with the wheel alone."""
    began_s = time.monotonic()
    venv = installs.editable() if way == "editable" else installs.wheel(folder, python)
    print(f"install  {way}, {python}, in {time.monotonic() - began_s:.0f} s", flush=True)
    walks = [Walk(_person(venv, folder / name)) for name in ("first", "card")]
    if way == "wheel":
        installs.assert_no_checkout(venv, walks[0].person.folder)
    if not asked.chapter:
        first_road(walks[0], FIRST[way])
        card(walks[1], CARDS[way])
    if not asked.documents or way == "editable":  # some lines install into the environment
        return walks
    return walks + pages.walked(venv, folder, asked.chapter)


def _person(venv: Path, folder: Path) -> Person:
    folder.mkdir()
    return Person(venv, folder)


if __name__ == "__main__":
    sys.exit(main())
