"""The contest's format: ``img_1.jpg`` next to ``img_1.txt`` that holds ``img_1.jpg, 0``.

The classes' names are in a JSON file ({"0": "other/disposable box", ...}) in the images' folder or one above it, up to
the parent of the root; without one the labels are the numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from trainers.data.listing import Listing, SourceNotes, is_text, listing, name_some
from trainers.data.sources.split_folders import split_folders, splits_next_to_others
from trainers.data.sources.tree import Folder, note_left_out, note_odd_names, shown
from trainers.errors import TrainerError
from trainers.files.plain import Unreadable, read_plain
from trainers.files.suffixes import is_photo
from trainers.wording import count

PAIR = re.compile(r"(?P<image>.+?)\s*[,\uff0c]\s*(?P<number>[^,\uff0c]*)")
"""One line: the image's name, a comma (the Chinese one too), the class's number."""
ENCODINGS = ("utf-8-sig", "gb18030")
LONGEST_TEXT = 4096
"""Maximum bytes of a pair's text; a longer file is not read."""
SAMPLE = 50
"""Maximum texts that are read to tell pairs from class folders with captions."""
LARGEST_RULE = 2**20
"""Maximum bytes of a file of class names."""


def holds_pairs(root: Path, tree: Sequence[Folder]) -> bool:
    """Whether ``tree``, which is ``walk(root)``, holds pairs rather than class folders.

    At least half of the images need a text of the same name next to them. If images are in folders, which could be
    classes with captions, at least half of the first texts must also read like ``img_1.jpg, 0``.
    """
    paired = [(folder, text) for folder in tree for text in _texts_of(folder).values()]
    if not paired or 2 * len(paired) < sum(len(folder.images) for folder in tree):
        return False
    if not any(folder.path for folder in tree if folder.images):
        return True
    first = paired[:SAMPLE]
    return 2 * sum(_reads_like_a_pair(root / folder.path / text) for folder, text in first) >= len(first)


def read_pairs(root: Path, tree: Sequence[Folder], top: Path | None = None) -> Listing:
    """List the images of ``tree``, which is ``walk(top)``, each with the label of the text next to it.

    ``root``: the folder at or below ``top`` (by default ``root``) at which the paths of the listing start.

    Every mistake becomes a problem of the listing: a text that is no pair, that names another image or one that is
    not there, a number that the file of names lacks. An image without a text, and a text without either, is a warning.
    Raises TrainerError for several files of names that differ.
    """
    notes, found, top = SourceNotes(), _Found(), top or root
    whole = tree
    inner = "" if top == root else root.relative_to(top).as_posix()
    above = [top / path for f in tree if f"{inner}/".startswith(f"{f.path}/") for path in f.paths(f.others)]
    if inner:
        tree = [replace(f, path=f.path[len(inner) + 1 :]) for f in tree if f"{f.path}/".startswith(f"{inner}/")]
    for folder in tree:
        _read_folder(root, folder, found)
    names = _class_names(root, tree, above if inner else [], notes)
    rows = []
    folders = [PurePosixPath(path).parent.as_posix() for path, _ in found.pairs]
    own = split_folders(folders)
    if not own:
        notes.problems += splits_next_to_others(folders)
    for path, number in found.pairs:
        label = str(number) if names is None else names.get(number, "")
        if label:
            rows.append((path, label, own.get(path.partition("/")[0])))
    if names is not None:
        _note_numbers(found, names, notes)
    found.note_mistakes(notes)
    note_left_out(whole, inner, notes)
    return listing(root, pd.DataFrame(rows, columns=["path", "label", "split"], dtype=object), notes)


@dataclass
class _Found:
    """``pairs``: (image, number). The rest is what went wrong, each a list of texts or images to name."""

    pairs: list[tuple[str, int]]
    no_pair: list[str]
    other_image: list[str]
    no_image: list[str]
    unlabelled: list[str]
    stray: list[str]
    odd: list[str]

    def __init__(self) -> None:
        self.pairs = []
        self.no_pair, self.other_image, self.no_image = [], [], []
        self.unlabelled, self.stray, self.odd = [], [], []

    def note_mistakes(self, notes: SourceNotes) -> None:
        """Add a sentence per kind of mistake to ``notes``."""
        if self.no_pair:
            notes.problems.append(
                f"{count(len(self.no_pair), 'text')} next to an image must hold one line like img_1.jpg, 0 and "
                f"{'does' if len(self.no_pair) == 1 else 'do'} not: {name_some(map(shown, self.no_pair))}."
            )
        if self.other_image:
            notes.problems.append(
                f"{count(len(self.other_image), 'text')} must name the image next to it: {name_some(self.other_image)}."
            )
        if self.no_image:
            notes.problems.append(
                f"{count(len(self.no_image), 'image')} named by a text cannot be found: {name_some(self.no_image)}. "
                "Add the images, or take the texts out."
            )
        if self.unlabelled:
            notes.warnings.append(
                f"{count(len(self.unlabelled), 'image')} without a text next to it will not be read: "
                f"{name_some(self.unlabelled)}."
            )
            notes.leave(self.unlabelled, "no label", "there is no text next to it")
        if self.stray:
            notes.warnings.append(
                f"{count(len(self.stray), 'text')} without an image will not be read: "
                f"{name_some(map(shown, self.stray))}."
            )
            notes.leave(self.stray, "no image", "there is no image next to it")
        if self.odd:
            note_odd_names(self.odd, notes)


def _texts_of(folder: Folder) -> dict[str, str]:
    """Map stem to text, for texts with an image of the same stem in ``folder``."""
    stems = {Path(name).stem for name in folder.images}
    return {
        Path(name).stem: name for name in folder.others if name.lower().endswith(".txt") and Path(name).stem in stems
    }


def _read_folder(root: Path, folder: Folder, found: _Found) -> None:
    """Add the files directly in ``folder`` to ``found``."""
    texts = [name for name in folder.others if name.lower().endswith(".txt")]
    exact, spelling = set(folder.images), {name.lower(): name for name in folder.images}
    stems: dict[str, list[str]] = {}
    for name in folder.images:
        stems.setdefault(Path(name).stem, []).append(name)
    labelled = set()
    for text in texts:
        here = folder.paths([text])[0]
        partners = stems.get(Path(text).stem, [])
        parsed = _parse(root / here) if is_text(text) else None
        if parsed is None:
            (found.no_pair if partners and is_text(text) else found.stray).append(here)
            labelled.update(partners)
            continue
        named, number = parsed
        image = named if named in exact else spelling.get(named.lower())
        if image is None and not partners:
            found.no_image.append(f"{named} ({shown(here)})")
        elif image not in partners:
            found.other_image.append(f"{shown(here)} names {named}")
            labelled.update(partners)
        elif image is not None:
            labelled.add(image)
            if is_text(folder.path + image):
                found.pairs.append((folder.paths([image])[0], number))
    for path, name in zip(folder.paths(folder.images), folder.images, strict=True):
        if not is_text(path):
            found.odd.append(path)
        elif name not in labelled:
            found.unlabelled.append(path)


def _parse(path: Path) -> tuple[str, int] | None:
    """Read (image's name without its folder, number) from a text; None if it is no pair."""
    lines = _lines(path)
    match = PAIR.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None or not re.fullmatch(r"[0-9]{1,9}", match["number"]):
        return None
    return PurePosixPath(match["image"]).name, int(match["number"])


def _reads_like_a_pair(path: Path) -> bool:
    lines = _lines(path)
    match = PAIR.fullmatch(lines[0]) if lines else None
    return match is not None and is_photo(match["image"])


def _lines(path: Path) -> list[str]:
    """Read the non-blank lines of a short text, stripped; [] if it cannot be read."""
    try:
        data = read_plain(path, LONGEST_TEXT)
    except Unreadable:
        return []
    encodings = ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ENCODINGS
    for encoding in encodings:
        try:
            return [line.strip() for line in data.decode(encoding).splitlines() if line.strip()]
        except UnicodeDecodeError:
            continue
    return []


def _class_names(
    root: Path, tree: Sequence[Folder], above: Sequence[Path], notes: SourceNotes
) -> dict[int, str] | None:
    """Number -> name, from the one file of names in or above the images' folders; None if there is no such file.

    The files ``above`` the root, and the root's parent, are searched only if no folder below has one.
    """
    near = {""}
    for folder in tree:
        if folder.images:
            near |= {folder.path, *(p.as_posix() for p in PurePosixPath(folder.path).parents if p.name)}
    inside = [root / path for folder in tree if folder.path in near for path in folder.paths(folder.others)]
    rules = _rules(inside) or _rules(above)
    if not rules:
        try:
            rules = _rules(sorted(root.parent.glob("*.json")))
        except OSError:  # a parent that may not be looked into holds no names for us
            rules = {}
    if not rules:
        return None
    if len({json.dumps(rule, sort_keys=True) for rule in rules.values()}) > 1:
        raise TrainerError(
            f"there are several files with names of the classes, and they differ: {name_some(map(str, rules))}. Take "
            "out all but one."
        )
    names = next(iter(rules.values()))
    numbers: dict[str, list[int]] = {}
    for number, name in names.items():
        numbers.setdefault(name, []).append(number)
    for name, same in numbers.items():
        if len(same) > 1:
            notes.warnings.append(
                f"{next(iter(rules)).name} gives the numbers {', '.join(map(str, sorted(same)))} the same name, "
                f"{name!r}; they become one class."
            )
    return names


def _rules(files: Iterable[Path]) -> dict[Path, dict[int, str]]:
    """Read those of ``files`` that are a JSON object from numbers to names."""
    found = {}
    for file in files:
        if file.suffix.lower() != ".json":
            continue
        try:
            values = json.loads(read_plain(file, LARGEST_RULE).decode("utf-8-sig"))
        except (Unreadable, ValueError, RecursionError):  # some other file's business
            continue
        if not isinstance(values, Mapping) or not values:
            continue
        if all(re.fullmatch(r"[0-9]{1,9}", key) and isinstance(v, str) and v.strip() for key, v in values.items()):
            found[file] = {int(key): name.strip() for key, name in values.items()}
    return found


def _note_numbers(found: _Found, names: Mapping[int, str], notes: SourceNotes) -> None:
    lacking: dict[int, list[str]] = {}
    for path, number in found.pairs:
        if number not in names:
            lacking.setdefault(number, []).append(path)
    for number, paths in sorted(lacking.items()):
        notes.problems.append(
            f"the number {number} has no name in the file of class names: {name_some(paths)}. Add it there, or correct "
            "the texts."
        )
    seen = {number for _, number in found.pairs}
    absent = sorted(set(names) - seen)
    if absent and seen:
        notes.warnings.append(
            f"numbers of the file of class names without an image: {name_some(f'{n} ({names[n]})' for n in absent)}."
        )
