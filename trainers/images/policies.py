"""One table of crop policies: how an image is cut at inference before the crops' probabilities are averaged.

Names and counts only; ``trainers.images.crops`` cuts. Imports nothing heavy, so that checking a file is quick.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainers.errors import TrainerError
from trainers.wording import did_you_mean

MOST_RANDOM_CROPS = 100
MIRRORED = "-mirrored"
"""End of the name of a crop's mirror image, left to right."""
WHOLE, CENTRE, CANVAS, CLOSER, RANDOM = "whole", "centre", "canvas", "closer", "random-"
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")


@dataclass(frozen=True)
class Policy:
    """One row. ``crops`` is how many pictures the network sees for one image."""

    name: str
    crops: int
    description: str


POLICIES: dict[str, Policy] = {
    row.name: row
    for row in (
        Policy("whole", 1, "the whole image, as in training; the plain one"),
        Policy("centre", 1, "the centre of a slightly larger image"),
        Policy("flip", 2, "the whole image and its mirror image"),
        Policy("ten_crop", 10, "four corners and the centre of a slightly larger image, and their mirror images"),
        Policy("pyramid", 6, "the centre at three scales, and their mirror images"),
    )
}
"""The fixed ones. ``random_K`` for a whole number K, K random crops, comes on top."""


def policy(name: str) -> Policy:
    """The row called ``name``, or K random crops for ``random_K``. Raises TrainerError with the known names."""
    if name in POLICIES:
        return POLICIES[name]
    count = re.fullmatch(r"random_([1-9][0-9]{0,2})", name, re.ASCII)
    if count and int(count[1]) <= MOST_RANDOM_CROPS:
        return Policy(name, int(count[1]), f"{count[1]} random crops of a slightly larger image")
    raise TrainerError(_no_such_policy(name))


def crop_names(name: str) -> tuple[str, ...]:
    """The crops of the policy ``name``, in the order in which their probabilities are averaged.

    A crop's name says which pixels it shows, whatever policy asks for it: the pyramid's middle scale is ``centre``.
    ``random-3`` is the fourth draw of an image, so fewer random crops are the first of more. Raises TrainerError.
    """
    if name == "flip":
        return _with_mirror_images(WHOLE)
    if name == "ten_crop":
        return _with_mirror_images(*CORNERS, CENTRE)
    if name == "pyramid":
        return _with_mirror_images(CANVAS, CENTRE, CLOSER)
    if name in POLICIES:
        return (name,)
    return tuple(f"{RANDOM}{i}" for i in range(policy(name).crops))


def distinct_crops(policies: Sequence[str]) -> tuple[str, ...]:
    """Every crop that one of ``policies`` averages over, once, in the order of their first use."""
    return tuple(dict.fromkeys(crop for name in policies for crop in crop_names(name)))


def _with_mirror_images(*names: str) -> tuple[str, ...]:
    return (*names, *(name + MIRRORED for name in names))


def valid_policy(name: str) -> str | None:
    """None for a known policy, else the sentence that says which there are."""
    try:
        policy(name)
    except TrainerError as error:
        return str(error)
    return None


def _no_such_policy(name: str) -> str:
    random = f"random_K for K random crops, K from 1 to {MOST_RANDOM_CROPS}"
    hint = did_you_mean(name, (*POLICIES, "random_5"))
    return f"there is no policy {name!r}{hint} Known are {', '.join(POLICIES)}, and {random}."
