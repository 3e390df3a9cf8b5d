"""Folders that are named as splits: which of them are the data's own splits, and which only look like it.

Folders are the splits if all top folders are named so (train, val, test ...). Anything near to that is a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from trainers.data.listing import (
    SourceNotes,
    is_split,
    label_of,
    like_split,
    name_some,
    split_of,
)


def split_folders(paths: Sequence[str]) -> dict[str, str]:
    """Map top folder to split if ``paths`` have two or more top folders, all named as splits; else {}."""
    tops = {path.partition("/")[0] for path in paths}
    named = {top: split_of(top) for top in sorted(tops) if is_split(top)}
    return named if len(named) == len(tops) >= 2 else {}


def splits_next_to_others(paths: Sequence[str]) -> list[str]:
    """Return a problem if top folders of ``paths`` are named as two or more splits and others are not; else []."""
    tops = sorted({path.partition("/")[0] for path in paths})
    splits, others = [top for top in tops if is_split(top)], [top for top in tops if not is_split(top)]
    if not others or len(set(map(split_of, splits))) < 2:
        return []
    return [
        f"the folders {_and(splits)} look like splits, but {name_some(others)} next to them {_is(others)} none. "
        f"Move {name_some(others)} elsewhere or into one of them; or, if they are no splits, rename them."
    ]


def about_wrapping(inner: str) -> list[str]:
    """Warn where wrapping folders that are no part of the labels could mean something; [] for a plain wrapping."""
    if like_split(inner.rpartition("/")[2]):
        return [f"the only split is {inner}; it is not used, and all of its images are divided."]
    return []


def note_splits(paths: Sequence[str], own: dict[str, str], notes: SourceNotes) -> None:
    """Note folders that look like splits and are none; a problem where the classes would be wrong for certain."""
    tops = sorted({path.partition("/")[0] for path in paths})
    alike = {top: like_split(top) for top in tops if like_split(top)}
    if own:
        notes.problems += [
            f"the folder {path} is named as a split but holds images directly; put them into class folders inside it."
            for path in paths
            if path in own
        ]
        return
    below = {top: {label_of(p.partition("/")[2]) for p in paths if p.startswith(f"{top}/")} for top in alike}
    with_classes = [top for top in alike if below[top]]
    others = [top for top in tops if top not in alike]
    pairs = [pair for pair in combinations(with_classes, 2) if alike[pair[0]] != alike[pair[1]]]
    if any((is_split(a) and is_split(b)) or below[a] & below[b] for a, b in pairs):
        todo = "Name them train, validation and test; or, if they are classes, rename them."
        if others:
            todo = f"Move {name_some(others)} elsewhere or into one of them; or, if they are classes, rename them."
        notes.problems.append(
            f"the folders {_and(with_classes)} look like splits"
            f"{f', but {name_some(others)} next to them {_is(others)} none' if others else ''}. {todo}"
        )
    elif single := [top for top in with_classes if is_split(top)]:
        example = f"{single[0]}/{min(below[single[0]])}"
        notes.warnings.append(
            f"the folder {single[0]} is named as a split, but there is no other; it is a part of the class names, as "
            f"in {example!r}."
        )
    elif len(set(map(split_of, filter(is_split, tops)))) > 1:
        named = _and([*filter(is_split, tops)])
        notes.warnings.append(f"the folders {named} are named as splits but hold images directly, so they are classes.")
    _note_splits_below(paths, notes)


def _note_splits_below(paths: Sequence[str], notes: SourceNotes) -> None:
    """Note folders below others that are named as splits; a problem if each class folder is one."""
    below = sorted({part for path in paths for part in path.split("/")[1:] if is_split(part)})
    if len({split_of(part) for part in below}) < 2:
        return
    if all(is_split(path.rpartition("/")[2]) for path in paths):
        first = paths[0].rpartition("/")
        notes.problems.append(
            f"each class folder is divided into splits ({', '.join(below)}), as in {paths[0]}; splits must be the top "
            f"folders, as in {first[2]}/{first[0]}."
        )
    else:
        notes.warnings.append(
            f"folders named as splits ({', '.join(below)}) lie inside others and are part of the class names; "
            "splits must be the top folders."
        )


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
