"""One table of crop policies: how an image is cut at inference before the crops' probabilities are averaged.

Values only; ``trainers.images.crops`` cuts. Imports nothing heavy, so that checking a file is quick. A policy of your
own joins by a dotted name, ``my_module:MY_POLICY``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainers.dotted import lookup
from trainers.errors import TrainerError
from trainers.wording import did_you_mean

MOST_CROPS = 100
"""Maximum crops of one policy."""
SMALLEST_SIDE = 0.05
"""Minimum side of a box, as a fraction of the image's side."""
MIRRORED = "-mirrored"
"""Suffix of the name of a crop's mirror image, left to right."""
WHOLE, CENTRE, CANVAS, CLOSER, RANDOM = "whole", "centre", "canvas", "closer", "random-"
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
BOX = "box_"
"""Prefix of the name of a box."""


@dataclass(frozen=True)
class Box:
    """A square part of an image that its view made square; lengths are fractions of the image's side.

    Cut from 1 / 0.875 times the network's input and resized to it. Raises TrainerError if the box leaves the image.
    """

    top: float
    left: float
    side: float
    mirrored: bool = False

    def __post_init__(self) -> None:
        lengths = (self.top, self.left, self.side)
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in lengths):
            raise TrainerError(f"{self} has a length that is not a number.")
        if self.side < SMALLEST_SIDE or min(lengths) < 0 or max(self.top, self.left) + self.side > 1 + 1e-9:
            raise TrainerError(
                f"{self} is not within the image; top and left must be at least 0, side at least {SMALLEST_SIDE}, and "
                "top + side and left + side at most 1."
            )

    @property
    def name(self) -> str:
        """Name of the crop, which ``box_named`` reads: equal boxes of any policies share one name."""
        lengths = (float(x) for x in (self.top, self.left, self.side))
        return BOX + "_".join(map(repr, lengths)) + (MIRRORED if self.mirrored else "")


@dataclass(frozen=True)
class Policy:
    """Crops whose probabilities are averaged, in order.

    ``crops``: boxes, and names of the crops of the built-in policies: "whole", "centre", "top-left", ... and each with
    "-mirrored". Raises TrainerError if there is none, one occurs twice or a name is unknown.
    """

    name: str
    crops: tuple[Box | str, ...]
    description: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.crops, tuple) or not 1 <= len(self.crops) <= MOST_CROPS:
            raise TrainerError(f"the policy {self.name!r} needs a tuple of 1 to {MOST_CROPS} crops.")
        for crop in self.crops:
            if not isinstance(crop, Box) and not _is_crop_name(crop):
                known = ", ".join((WHOLE, CENTRE, CANVAS, CLOSER, *CORNERS, f"{RANDOM}0"))
                raise TrainerError(
                    f"the policy {self.name!r} has a crop {crop!r}; a crop is a Box, or a name: {known}, or one of "
                    f"these followed by {MIRRORED}."
                )
        if len(set(self.crop_names)) < len(self.crops):
            raise TrainerError(f"the policy {self.name!r} has the same crop twice.")

    @property
    def crop_names(self) -> tuple[str, ...]:
        return tuple(crop.name if isinstance(crop, Box) else crop for crop in self.crops)


def _is_crop_name(name: object) -> bool:
    if not isinstance(name, str):
        return False
    original = name.removesuffix(MIRRORED)
    number = original.removeprefix(RANDOM)
    drawn = original != number and re.fullmatch(r"0|[1-9][0-9]?", number, re.ASCII)
    return original in (WHOLE, CENTRE, CANVAS, CLOSER, *CORNERS) or bool(drawn)


def _with_mirror_images(*names: str) -> tuple[str, ...]:
    return (*names, *(name + MIRRORED for name in names))


POLICIES: dict[str, Policy] = {
    row.name: row
    for row in (
        Policy("whole", (WHOLE,), "the whole image, as in training; the plain one"),
        Policy("centre", (CENTRE,), "the centre of a slightly larger image"),
        Policy("flip", _with_mirror_images(WHOLE), "the whole image and its mirror image"),
        Policy(
            "ten_crop",
            _with_mirror_images(*CORNERS, CENTRE),
            "four corners and the centre of a slightly larger image, and their mirror images",
        ),
        Policy(
            "pyramid",
            _with_mirror_images(CANVAS, CENTRE, CLOSER),
            "the centre at three scales, and their mirror images",
        ),
    )
}
"""Built-in policies with a fixed number of crops; ``policy`` adds ``random_K``."""


def policy(name: str) -> Policy:
    """Return the row called ``name``, K random crops for ``random_K``, or the ``Policy`` at a dotted name.

    Raises TrainerError with the known names.
    """
    if name in POLICIES or ":" in name:
        return lookup(name, POLICIES, Policy)
    count = re.fullmatch(r"random_([1-9][0-9]{0,2})", name, re.ASCII)
    if count and int(count[1]) <= MOST_CROPS:
        crops = tuple(f"{RANDOM}{i}" for i in range(int(count[1])))
        return Policy(name, crops, f"{count[1]} random crops of a slightly larger image")
    hint = did_you_mean(name, (*POLICIES, "random_5"))
    raise TrainerError(
        f"there is no policy {name!r}{hint} Known are {', '.join(POLICIES)}, random_K for K random crops, K from 1 to "
        f"{MOST_CROPS}, or your own by its dotted name, my_module:MY_POLICY."
    )


def crop_names(name: str) -> tuple[str, ...]:
    """Return the crops of the policy ``name``, in the order in which their probabilities are averaged.

    A crop's name identifies its pixels, whatever policy contains it: the pyramid's middle scale is ``centre``.
    ``random-3`` is the fourth draw of an image, so fewer random crops are the first of more. Raises TrainerError.
    """
    return policy(name).crop_names


def distinct_crops(policies: Sequence[str]) -> tuple[str, ...]:
    """Return every crop of ``policies`` once, in the order of first use."""
    return tuple(dict.fromkeys(crop for name in policies for crop in crop_names(name)))


def needs_canvas(names: Sequence[str]) -> bool:
    """Whether one of the crops ``names`` is cut from the larger square rather than the network's own size."""
    return any(name.removesuffix(MIRRORED) != WHOLE for name in names)


def box_named(name: str) -> Box:
    """Read the ``name`` of a ``Box``."""
    top, left, side = map(float, name.removeprefix(BOX).removesuffix(MIRRORED).split("_"))
    return Box(top, left, side, name.endswith(MIRRORED))


def describe_crop(name: str) -> str:
    """Describe a crop for people: its name, or the position of its box."""
    original = name.removesuffix(MIRRORED)
    text = f"the {original} crop"
    if name.startswith(BOX):
        box = box_named(name)
        text = f"a square of {box.side:g} of the side, {box.top:g} from the top and {box.left:g} from the left"
    elif original == WHOLE:
        text = "the whole image, resized once"
    return text if original == name else f"{text}, mirrored left to right"


def valid_policy(name: str) -> str | None:
    """Return None for a known policy, else the sentence that names the known ones."""
    try:
        policy(name)
    except TrainerError as error:
        return str(error)
    except Exception as error:  # importing the user's own module can raise anything
        return f"the policy {name!r} cannot be imported: {type(error).__name__}: {error}."
    return None
