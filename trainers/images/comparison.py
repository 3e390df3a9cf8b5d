"""Decide from the pixels whether two pictures, one laid onto the other, are the same, look alike or differ.

The correlation of all pixels cannot tell a copy from a picture in which a small spot is another; the largest local
difference can.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

CHROMA = 32
"""Side, in cells, of the table of colours that is compared."""
PREVIEW = 128
"""Longer side, in px, of the greyscale images that are compared."""
ROUNDS = 4
"""Steps of Gauss and Newton by which a map is refined."""
EDGE = 2
"""Pixels at the edges of the overlap that do not count: interpolation changes them, and a crop has other edges."""
CORNERS = 0.5
"""Maximum pixels by which a map takes the corners of a picture beside those of the other for edges to count, too: the
whole of one then lies on the whole of the other, and a spot at an edge is a difference."""
SMALLEST_OVERLAP = 0.3
"""Minimum share of the first picture's area that the second covers."""
CLIPPED = (5.0, 248.0)
"""Values of a channel at and beyond which it may have been clipped by another brightness."""
SMALLEST_UNCLIPPED = 0.1
"""Minimum share of the overlap that is not clipped; below it clipped pixels count."""
PARTLY = 6.0
"""Grey values by which clipping changes a pixel whose mean is at the limit; none four times as far from it."""
FITTED_AT = 3
"""Every n-th pixel decides on the curve of brightness and on the step of the map."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
FROM_CHROMA = np.array([[0, 1.402], [-0.344136, -0.714136], [1.772, 0]], np.float32)
"""Red, green and blue less grey, of Cb and Cr less 128 (ITU-R BT.601, as in JPEG)."""
BLUR = 0.7
"""Standard deviation, in px, of the blur that evens out how the two were resized."""
MISPLACED = 0.25
"""Pixels by which an edge may be misplaced without counting as a difference."""
SPOT = 15.0
"""Minimum difference, in grey values over 3 x 3 px, that counts as another content."""
CORRELATION = 0.9
"""Minimum correlation of pictures that are the same or look alike."""
SMALL = 0.05
"""Maximum share of the overlap in which pictures that look alike differ."""
COLOUR = 24.0
"""Maximum difference, over 3 x 3 cells, of the chroma (0 to 255) of pictures that are the same."""
CLOSE, CLOSE_CHANGED = 0.97, 0.2
"""Correlation from which pictures still look alike if they differ in at most this share: one object, taken twice."""
SAME, ALIKE = "same", "look alike"
EQUAL, HOPELESS, SMALL_STEP = 6.0, 0.5, 0.02
"""The refinement ends at this difference, below this correlation, or at a step, in px, below this one."""


@dataclass(frozen=True, eq=False)
class Preview:
    """A small form of a picture. ``grey``: uint8 (height, width). ``chroma``: uint8 (CHROMA, CHROMA, 2), the Cb and Cr
    of its cells, the aspect ratio ignored."""

    grey: np.ndarray
    chroma: np.ndarray


_Pixels = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Pixels of a picture: grey values (n,), channels (n, 3), and 1 where none is clipped, (n,); float32."""


@dataclass(frozen=True)
class Comparison:
    """``overlap``: share of the first picture that the second covers. ``correlation``: of the overlap's pixels.

    ``difference``: the largest local one, in grey values of 0 to 255 beyond what small misalignment explains.
    ``changed``: share of the overlap that differs by more than ``SPOT``. ``colour``: the largest difference of chroma.
    """

    overlap: float
    correlation: float
    difference: float
    changed: float
    colour: float


def compare(one: Preview, other: Preview, start: np.ndarray) -> Comparison | None:
    """Compare two pictures, of which ``start`` maps the first onto the second.

    The map is refined by least squares of the pixels' differences (Lucas & Kanade 1981) until the two are as good as
    equal or ``ROUNDS`` are over; the round with the smallest difference counts. None where the two hardly overlap.
    """
    import cv2  # `orch --help` does without

    first, second = one.grey, other.grey
    a, b = (cv2.GaussianBlur(each.astype(np.float32), (0, 0), BLUR) for each in (first, second))
    matrix = _in_pixels(start, first.shape, second.shape)
    colours, other_colours = (_channels(each) for each in (one, other))
    whole, other_whole = _unclipped(colours), _unclipped(other_colours)
    steep = _slopes(a)
    slopes = None
    best, best_matrix = None, matrix
    for last in range(ROUNDS + 1):
        moved, inside = _moved(b, matrix, a.shape)
        if inside.mean() < SMALLEST_OVERLAP:
            break
        here = a[inside], colours[inside], whole[inside]
        there = (_warp(each, matrix, a.shape)[inside] for each in (other_colours, other_whole))
        residual, slope = _residual(here, (moved[inside], *there))
        found = _measure(a, moved, inside, residual, slope, steep)
        if best is None or found.difference < best.difference:
            best, best_matrix = found, matrix
        if last == ROUNDS or best.difference <= EQUAL or (last and best.correlation < HOPELESS):
            break
        slopes = slopes or _slopes(b)
        step = _step(residual, inside, [_warp(each, matrix, a.shape) * slope for each in slopes])
        matrix = matrix + step
        if np.abs(step @ np.array([*a.shape[::-1], 1.0])).max() < SMALL_STEP:
            break
    if best is None or best.correlation < CORRELATION:
        return best
    return replace(best, colour=_colour_difference(one, other, best_matrix))


def _colour_difference(one: Preview, other: Preview, matrix: np.ndarray) -> float:
    """The largest difference of chroma over 3 x 3 cells; one factor on all colours, as brightness has, is allowed."""
    import cv2

    cells = np.vstack([matrix, [0, 0, 1]])
    to_pixels, to_cells = _cell_grid(one.grey.shape), np.linalg.inv(_cell_grid(other.grey.shape))
    cells = (to_cells @ cells @ to_pixels)[:2]
    a, b = (each.chroma.astype(np.float32) - 128 for each in (one, other))
    inside = _warp(np.ones((CHROMA, CHROMA), np.float32), cells, a.shape, cv2.BORDER_CONSTANT) > 0.999
    moved = _warp(b, cells, a.shape)
    here, there = a[inside], moved[inside]
    if not len(here):
        return 0.0
    factor = float(np.clip((here * there).sum() / max(float((there * there).sum()), 1e-6), 0.4, 2.5))
    off = np.where(inside[..., None], (a - factor * moved) / max(factor, 1.0), 0)
    return float(np.abs(cv2.blur(off, (3, 3))).max())


def _cell_grid(shape: tuple[int, ...]) -> np.ndarray:
    """From the centres of cells to those of a preview's pixels."""
    down, across = shape[0] / CHROMA, shape[1] / CHROMA
    return np.array([[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5], [0, 0, 1]])


def _warp(image: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...], border: int | None = None) -> np.ndarray:
    """``image`` seen from a picture of ``shape``; its edges are repeated around it, unless ``border`` is another."""
    import cv2

    if shape[:2] == image.shape[:2] and np.abs(matrix - np.eye(2, 3)).max() < 1e-9:
        return image
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE if border is None else border
    return np.asarray(cv2.warpAffine(image, matrix, (shape[1], shape[0]), flags=how, borderMode=border))


def _moved(b: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """``b`` seen from the first picture, and where that counts: where all of a pixel's surroundings come from inside of
    ``b``; everywhere if the whole of one lies on the whole of the other."""
    import cv2

    moved = _warp(b, matrix, shape)
    if _is_whole(matrix, shape, b.shape):
        return moved, np.ones(shape, bool)
    inside = (_warp(np.ones_like(b), matrix, shape, cv2.BORDER_CONSTANT) > 0.999).astype(np.uint8)
    inside = cv2.erode(
        inside, np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    return moved, inside > 0


def _is_whole(matrix: np.ndarray, first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether a map takes each corner of the first picture to within ``CORNERS`` of one of the second."""
    high, wide = first
    corners = np.array([[x, y, 1] for x in (-0.5, wide - 0.5) for y in (-0.5, high - 0.5)])
    places = corners @ matrix.T + 0.5
    ends = np.array(second[::-1])
    return bool(np.minimum(np.abs(places), np.abs(places - ends)).max() <= CORNERS)


def _slopes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    return cv2.Sobel(image, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(image, cv2.CV_32F, 0, 1, scale=1 / 8)


def _step(residual: np.ndarray, inside: np.ndarray, slopes: list[np.ndarray]) -> np.ndarray:
    """The change of the map, (2, 3), by which the residual falls most; every third pixel decides, outliers do not."""
    rows, columns = np.nonzero(inside)
    kept = np.flatnonzero(np.abs(residual) < 2.5 * np.median(np.abs(residual[::FITTED_AT])) + 2)[::FITTED_AT]
    y, x = rows[kept].astype(np.float32), columns[kept].astype(np.float32)
    across, down = (each[rows[kept], columns[kept]] for each in slopes)
    jacobian = np.stack([across * x, across * y, across, down * x, down * y, down], axis=1)
    system = (jacobian.T @ jacobian).astype(np.float64)
    system += np.eye(6) * (1e-6 * np.trace(system) + 1e-6)
    return np.linalg.solve(system, (jacobian.T @ residual[kept]).astype(np.float64)).reshape(2, 3)


def _residual(here: _Pixels, there: _Pixels) -> tuple[np.ndarray, float]:
    """``here`` less what ``there`` predicts, in grey values; and the slope of here over there.

    The one with less contrast predicts the other.
    """
    kept = np.flatnonzero(here[2] * there[2] > 0.999)
    if len(kept) < SMALLEST_UNCLIPPED * len(here[0]):
        kept = np.arange(len(here[0]))
    kept = kept[::FITTED_AT]
    if here[0][kept].std() >= there[0][kept].std():
        return _predicted(there, here[0], kept)
    off, slope = _predicted(here, there[0], kept)
    return (-off / slope, 1 / slope) if slope > 0 else (off, slope)


def _channels(picture: Preview) -> np.ndarray:
    """Red, green and blue, float32 (height, width, 3), as fine in colour as ``chroma`` is."""
    import cv2

    chroma = cv2.resize(picture.chroma, picture.grey.shape[::-1]).astype(np.float32) - 128
    return np.asarray(cv2.transform(chroma, FROM_CHROMA)) + picture.grey[..., None]


def _unclipped(channels: np.ndarray) -> np.ndarray:
    """1 where no channel may have been clipped, float32 (height, width)."""
    import cv2

    return np.asarray(cv2.inRange(channels, (CLIPPED[0],) * 3, (CLIPPED[1],) * 3), np.float32) / 255


def _predicted(dark: _Pixels, bright: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, float]:
    """``bright``, (n,), less a parabola of ``dark`` whose every channel is clipped; and its slope in the middle.

    Fitted to the pixels ``kept``, the second time without outliers. A program that brightens a picture clips each
    channel: a saturated red turns pink where grey is far from white.
    """
    import cv2

    grey, colours, _ = dark
    t = (grey - 128) / 128
    part = np.stack([np.ones_like(t[kept]), t[kept], t[kept] ** 2], axis=1)
    wanted = bright[kept]
    used = np.ones(len(kept), bool)
    for _ in range(2):
        some = part[used]
        system = some.T @ some + np.diag([1e-3, 1e-3, 0.02 * len(some)]).astype(np.float32)
        weights = np.linalg.solve(system.astype(np.float64), (some.T @ wanted[used]).astype(np.float64))
        constant, linear, square = weights.astype(np.float32)
        off = np.abs(wanted - part @ weights.astype(np.float32))
        used = off < 2.5 * np.median(off) + 2
    off = bright - (constant + t * (linear + t * square))
    t = (colours - 128) / 128
    channels = constant + t * (linear + t * square)
    near = np.flatnonzero(cv2.inRange(channels[None], (4 * PARTLY,) * 3, (255 - 4 * PARTLY,) * 3) == 0)
    channels = channels[near]  # the others are not clipped
    off[near] -= (np.clip(channels, 0, 255) - channels) @ LUMA
    # Parts of a pixel are clipped before its mean is: near white it may be darker, near black lighter than its mean.
    white, black = (np.maximum(PARTLY - np.abs(channels - limit) / 4, 0) @ LUMA for limit in (255, 0))
    off[near] -= np.clip(off[near], -white, black)
    return off, float(weights[1]) / 128


def _measure(
    a: np.ndarray,
    moved: np.ndarray,
    inside: np.ndarray,
    residual: np.ndarray,
    slope: float,
    steep: tuple[np.ndarray, np.ndarray],
) -> Comparison:
    import cv2

    overlap, here, there = float(inside.mean()), a[inside], moved[inside]
    if slope <= 0 or here.std() < 1 or there.std() < 1:
        return Comparison(overlap, 0.0, 255.0, 1.0, 255.0)
    whole = np.zeros_like(a)
    whole[inside] = residual / float(np.clip(slope, 0.3, 1.0))
    allowed = MISPLACED * cv2.blur(cv2.magnitude(*steep), (3, 3))
    beyond = np.maximum(np.abs(cv2.blur(whole, (3, 3))) - allowed, 0)[inside]
    correlation = float(np.corrcoef(here, there)[0, 1])
    return Comparison(overlap, correlation, float(beyond.max()), float((beyond > SPOT).mean()), 0.0)


def _in_pixels(start: np.ndarray, first: tuple[int, ...], second: tuple[int, ...]) -> np.ndarray:
    """``start`` between the centres of pixels, which is how OpenCV counts them."""
    long_a, long_b = max(first), max(second)
    matrix = np.vstack([start, [0, 0, 1]])
    to_unit = np.array([[1 / long_a, 0, 0.5 / long_a], [0, 1 / long_a, 0.5 / long_a], [0, 0, 1]])
    to_pixels = np.array([[long_b, 0, -0.5], [0, long_b, -0.5], [0, 0, 1]])
    return (to_pixels @ matrix @ to_unit)[:2]


def verdict(found: Comparison | None) -> tuple[str, float]:
    """``SAME``, ``ALIKE`` or "", and the largest local difference."""
    if found is None or found.correlation < CORRELATION:
        return "", 255.0
    if found.difference <= SPOT and found.colour <= COLOUR:
        return SAME, found.difference
    limit = CLOSE_CHANGED if found.correlation >= CLOSE else SMALL
    return (ALIKE if found.changed <= limit and found.colour <= 2 * COLOUR else ""), found.difference


def ambiguous(as_they_lie: Comparison | None) -> bool:
    """Whether pictures that are the same mirrored, turned or shifted may be two objects of one symmetric layout.

    ``as_they_lie`` compares them unmoved: pictures of one layout then differ in a small part alone, however strongly.
    """
    return as_they_lie is not None and (as_they_lie.changed <= SMALL or bool(verdict(as_they_lie)[0]))
