"""The data report: classes, sizes, duplicates and problems of a set of photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainers.data.stratify import SPLITS
from trainers.wording import count

NAMES_SHOWN = 10
LARGE_GROUP = 0.01
"""Share of the images above which one group is a warning."""
LARGE_DROP = 0.02
"""Share of the images above which it is a warning that they are, or would be, left out as duplicates."""

UNEVEN = 3.0
"""Images of the largest class over those of the smallest from which the report says what to do."""
UNREADABLE = "unreadable"
UNSUPPORTED = "unsupported"
"""Kind of a file that is an image by its name and cannot be read."""
LISTED_ABOVE = "left out, because they cannot be read:"
"""Beginning of the warning that repeats a list of the report for those who see the warnings alone."""


@dataclass(frozen=True)
class DataReport:
    """Everything that ``orch data check`` prints. Paths are relative to the folder of the source.

    ``images`` are those that are used: readable and not dropped. ``splits``: split -> class -> images, empty where no
    split could be made. ``folds``: class -> images of fold 1, 2, ..., which share out the split "train".
    ``sizes``: "width" and "height" -> (min, median, max) in px after EXIF orientation.
    ``unreadable``: path -> reason. ``exact_duplicates``: sets of files with the same bytes. ``near_duplicates``: pairs
    that, chained, make the groups. ``look_alikes``: pairs that differ in a small spot; they stay in one split and are
    not duplicates. ``conflicts``: duplicates with different labels, each a tuple of (path, label).
    ``dropped``: left out because duplicates are dropped. ``bridging``: left out because they are copies of photos in
    two splits that are kept. ``groups``: how many groups hold more than one image.
    ``too_small``: class -> its groups, where they are fewer than the splits, or than the folds and test.
    ``straddling``: groups that the data's own splits, or those that are kept, tear apart. ``left_out``: (path, reason,
    kind) of files that were never images of a class. ``root``: the folder at which paths start. ``own_splits``: whether
    the splits are the data's own. ``kept``: sentences on splits that are kept from an earlier division. ``problems``
    prevent a sweep, ``warnings`` do not.
    """

    source: str
    images: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    folds: tuple[Mapping[str, int], ...] = ()
    sizes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    exact_duplicates: tuple[tuple[str, ...], ...] = ()
    near_duplicates: tuple[tuple[str, str], ...] = ()
    conflicts: tuple[tuple[tuple[str, str], ...], ...] = ()
    dropped: tuple[str, ...] = ()
    look_alikes: tuple[tuple[str, str], ...] = ()
    bridging: tuple[str, ...] = ()
    groups: int = 0
    largest_group: int = 0
    too_small: Mapping[str, int] = field(default_factory=dict)
    straddling: tuple[tuple[str, ...], ...] = ()
    left_out: tuple[tuple[str, str, str], ...] = ()
    root: str = ""
    own_splits: bool = False
    kept: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def imbalance(self) -> float:
        """Images of the largest class over images of the smallest; NaN without images."""
        return max(self.classes.values()) / min(self.classes.values()) if self.classes else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with ``bad_files`` for the files that are left out; names that are no text escaped."""
        bad = [[text.encode(errors="backslashreplace").decode() for text in row] for row in self.bad_files()]
        values = {**dataclasses.asdict(self), "imbalance": self.imbalance if self.classes else None, "bad_files": bad}
        del values["left_out"]
        return values

    def bad_files(self) -> list[tuple[str, str, str]]:
        """(path, reason, kind) of every file that is left out or suspicious, sorted; a file may have several rows."""
        found = [*self.left_out, *((path, why, _kind_of(why)) for path, why in self.unreadable.items())]
        found += [(path, "a duplicate of another image", "dropped") for path in self.dropped]
        for members in self.exact_duplicates:
            found += [(path, f"the same bytes as {members[0]}", "duplicate") for path in members[1:]]
        for pairs in self.conflicts:
            labels = " and ".join(sorted({label for _, label in pairs}))
            found += [(path, f"{label} here, but duplicates are {labels}", "label") for path, label in pairs]
        for members in self.straddling:
            found += [(path, f"its group is in several splits, as {members[0]}", "split") for path in members]
        return sorted(found)

    def lines(self) -> list[str]:
        """Plain text, a line each, to be read from top to bottom; the problems come last."""
        return [
            f"{self.source}: {count(self.images, 'image')} in {_classes(len(self.classes))}",
            *self._class_lines(),
            *self._image_lines(),
            *_listed("unreadable, left out", (f"{path}: {reason}" for path, reason in self.unreadable.items())),
            *_listed("sets of exact duplicates", (" = ".join(s) for s in self.exact_duplicates)),
            *_listed("pairs of near duplicates", (" ~ ".join(pair) for pair in self.near_duplicates)),
            *_listed("pairs that look alike", (" ~ ".join(pair) for pair in self.look_alikes)),
            *_listed(
                "duplicates with different labels",
                (", ".join(f"{path} ({label})" for path, label in one) for one in self.conflicts),
            ),
            *_listed("left out as duplicates", self.dropped),
            *_listed("left out as copies of photos in two splits", self.bridging),
            *_listed("groups in more than one split", (", ".join(s) for s in self.straddling)),
            *([f"groups: {self.groups:,}, the largest of {self.largest_group:,} images"] if self.groups else []),
            *(f"warning: {text}" for text in self.warnings if not text.startswith(LISTED_ABOVE)),
            *(f"problem: {text}" for text in self.problems),
        ]

    def _class_lines(self) -> list[str]:
        if not self.classes:
            return []
        names = [s for s in SPLITS if s in self.splits]
        width = max(5, *(len(label) for label in self.classes))
        lines = [f"  {'class':<{width}}  {'images':>8}" + "".join(f"  {s:>10}" for s in names)]
        for label, images in self.classes.items():
            cells = "".join(f"  {self.splits[s].get(label, 0):>10,}" for s in names)
            lines.append(f"  {label:<{width}}  {images:>8,}{cells}")
        if names:
            cells = "".join(f"  {sum(self.splits[s].values()):>10,}" for s in names)
            lines.append(f"  {'all':<{width}}  {self.images:>8,}{cells}")
        if self.splits and self.own_splits:
            lines.append("splits: the data's own")
        lines += [f"splits: {sentence}" for sentence in self.kept]
        if self.folds:
            sizes = ", ".join(f"{sum(fold.values()):,}" for fold in self.folds)
            lines.append(f"folds: {len(self.folds)} of {sizes} images; train holds all of them")
        if len(self.classes) < 2:
            return lines
        advice = "; to even them out: balance: class_weights, balance: sampling, or a multiplier above 1"
        lines.append(
            f"imbalance: the largest class has {self.imbalance:.1f} times the images of the smallest"
            f"{advice if self.imbalance >= UNEVEN else ''}"
        )
        return lines

    def _image_lines(self) -> list[str]:
        if not self.sizes:
            return []
        parts = [f"{side} {low} to {high} px (median {middle})" for side, (low, middle, high) in self.sizes.items()]
        return [f"sizes: {', '.join(parts)}"]


def _classes(number: int) -> str:
    return "1 class" if number == 1 else f"{number:,} classes"


def _listed(title: str, items: Iterable[str]) -> list[str]:
    """Return a heading with the count, and the first few items; [] if there are none."""
    items = list(items)
    if not items:
        return []
    more = [f"  and {len(items) - NAMES_SHOWN:,} more"] if len(items) > NAMES_SHOWN else []
    return [f"{title}: {len(items):,}", *(f"  {item}" for item in items[:NAMES_SHOWN]), *more]


def _kind_of(reason: str) -> str:
    """Whether an image can never be read, or could be here with another package or other permissions."""
    return UNSUPPORTED if "pip install" in reason or "permission" in reason.lower() else UNREADABLE
