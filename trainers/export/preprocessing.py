"""From a photo to the network's input in numbers, for programs that use an exported file without this project.

``trainers.export.describe.how_to_cut`` says the same in words; ``trainers.images.crops`` performs it.
"""

from __future__ import annotations

from typing import Any

from trainers.config import evaluated, parts_of
from trainers.export.describe import how_to_cut
from trainers.images.crops import PLACES, SCALES, SMALLEST_RANDOM_CROP, ZOOM
from trainers.images.decode import least_side
from trainers.images.policies import BOX, CENTRE, MIRRORED, RANDOM, WHOLE, box_named
from trainers.serving.model import ServedModel


def usage(served: ServedModel) -> dict[str, Any]:
    """Return what a user of an exported file needs, as plain JSON; every format stores it inside its file.

    ``classes``: in the order of the probabilities. ``policy``: of the crops. ``photo``: steps in words.
    ``preprocessing``: the same in numbers, see ``preprocessing``. ``calibration``: the temperature that the averaged
    probabilities still need, and thresholds for a wanted precision (``trainers.calibration.Calibration.to_dict``).
    """
    return {
        "classes": list(served.classes),
        "policy": served.policy,
        "photo": how_to_cut(served),
        "preprocessing": preprocessing(served),
        "calibration": served.calibration.to_dict(),
    }


def preprocessing(served: ServedModel) -> dict[str, Any]:
    """Return the numbers behind ``how_to_cut``.

    ``size``: side of a crop in px. ``square``: "centre" if the central square is taken before resizing, None if the
    whole photo is squashed. ``crops``: see ``_crop``, in the order of the policy. ``average``: how their answers
    become one.
    """
    return {
        "size": served.image_size,
        "channels": ["red", "green", "blue"],
        "range": [0, 255],
        "background": [255, 255, 255],
        "exif_orientation": True,
        "square": None if parts_of(served.view)[0] == "squash" else "centre",
        "resize": "bilinear, antialiased",
        "crops": [_crop(name, served.image_size, served.view) for name in served.crop_names],
        "average": "arithmetic mean of the crops' probabilities",
    }


def _crop(name: str, size: int, view: str) -> dict[str, Any]:
    """Return a crop: ``name``, ``photo`` (side in px to which the photo is resized first), and ``mirrored``.

    ``jpeg_at_least``: a JPEG is decoded at a half, quarter or eighth if both sides keep this many px.
    The square at ``top``, ``left`` of side ``side``, in px of the resized photo, is resized to the network's size. A
    random crop has ``draw``, its number from 0, and ``smallest`` instead: its side is drawn from ``smallest`` to 1.
    """
    original = name.removesuffix(MIRRORED)
    canvas = size if original == WHOLE else round(size / ZOOM)
    found: dict[str, Any] = {
        "name": name,
        "photo": canvas,
        "jpeg_at_least": least_side(canvas, evaluated(view)),
        "mirrored": name != original,
    }
    if original.startswith(RANDOM):
        return found | {"draw": int(original.removeprefix(RANDOM)), "smallest": SMALLEST_RANDOM_CROP}
    if original.startswith(BOX):
        box = box_named(name)
        side = max(round(canvas * box.side), 1)
        top, left = (min(round(canvas * start), canvas - side) for start in (box.top, box.left))
        return found | {"top": top, "left": left, "side": side}
    side = size if original not in SCALES else max(round(canvas * SCALES[original]), 1)
    top, left = (round((canvas - side) * place) for place in PLACES.get(original, PLACES[CENTRE]))
    return found | {"top": top, "left": left, "side": side}
