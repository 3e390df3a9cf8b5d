"""Lay one picture onto another: a similarity from matched keypoints, then an affine map from the pixels.

A map is float64 (2, 3): it takes (x, y, 1) of the first picture to (x, y) of the second, in units of the longer side
of each, from the upper left corner.
"""

from __future__ import annotations

import numpy as np

from trainers.images.keypoints import PLACE_UNIT, SAME_CODE, SIDE

FEWEST_MATCHES = 4
"""Minimum matches that agree on one map."""
ROUGH, FINE = 0.025, 0.01
"""Maximum distance of a match from where the map takes it, in longer sides: of one match's own map, of the fit."""
SCALES = (1 / 3, 3.0)
"""Minimum and maximum of how much larger, in longer sides, the first picture's content is in the second."""
CORRECTION = 0.08
"""Maximum distance, in longer sides, that the middle moves by a map that leaves a picture as it lies."""
SMALL_TURN = 15.0
"""Maximum degrees by which such a map turns."""
OTHER_SCALE = 0.04
"""Minimum logarithm of a scale by which a picture is a crop of another, and no other object of its layout."""

SYMMETRIES = tuple((quarter, mirror) for mirror in (False, True) for quarter in range(4))
"""The eight ways to lay a rectangle onto itself: (quarter turns, whether it is mirrored first), as ``symmetric``."""


def symmetric(grey: np.ndarray, quarters: int, mirror: bool) -> np.ndarray:
    """``grey``, (height, width), mirrored left to right if ``mirror``, then turned anticlockwise by quarters."""
    return np.rot90(grey[:, ::-1] if mirror else grey, quarters)


def symmetric_map(quarters: int, mirror: bool, first: tuple[int, int], second: tuple[int, int]) -> np.ndarray:
    """The map from all of the first picture to all of ``symmetric`` of it; shapes are (height, width)."""
    to_corner = np.array([[-1.0, 0, 1], [0, 1, 0], [0, 0, 1]]) if mirror else np.eye(3)
    quarter = np.array([[0.0, 1, 0], [-1, 0, 1], [0, 0, 1]])
    unit = np.linalg.matrix_power(quarter, quarters) @ to_corner
    return (_extent(second) @ unit @ np.linalg.inv(_extent(first)))[:2]


def may_be_layout(matrix: np.ndarray, first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether a map may take a symmetric layout to itself: of the same scale, and more than a small correction.

    Shapes are (height, width) of the two pictures.
    """
    middle = _extent(first) @ np.array([0.5, 0.5, 1])
    off = (matrix - symmetric_map(0, False, first, second)) @ middle
    determinant = np.linalg.det(matrix[:, :2])
    turned = abs(np.rad2deg(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])))
    correction = determinant > 0 and turned <= SMALL_TURN and np.linalg.norm(off) <= CORRECTION
    return bool(not correction and abs(np.log(abs(determinant))) < 2 * OTHER_SCALE)


def map_of_keypoints(first: np.ndarray, second: np.ndarray, mirror: bool) -> np.ndarray | None:
    """The map on which most matches of two pictures' keypoints agree; None where too few do.

    ``mirror``: the second picture is a mirrored one. Each match proposes a similarity by its two diameters and
    angles (Lowe 2004, section 7.3), and those that agree with the best proposal are fitted by least squares
    (Umeyama 1991).
    """
    first, second = first[first["size"] > 0], second[second["size"] > 0]
    a, b = _matches(first["code"], ~second["code"] if mirror else second["code"])
    if len(a) < FEWEST_MATCHES:
        return None
    first, second = first[a], second[b]
    x, y = _places(first), _places(second)
    matrices = _proposals(first, second, mirror)
    shifts = y - np.einsum("nij,nj->ni", matrices, x)
    off = np.linalg.norm(np.einsum("nij,mj->nmi", matrices, x) + shifts[:, None] - y, axis=2)
    votes = (off < ROUGH).sum(axis=1)
    agree = off[votes.argmax()] < ROUGH
    found = None
    for limit in (FINE, FINE):
        if agree.sum() < FEWEST_MATCHES:
            return None
        found = _similarity(x[agree], y[agree], mirror)
        agree = np.linalg.norm(x @ found[:, :2].T + found[:, 2] - y, axis=1) < limit
    if found is None or agree.sum() < FEWEST_MATCHES:
        return None
    scale = np.sqrt(abs(np.linalg.det(found[:, :2])))
    return found if SCALES[0] <= scale <= SCALES[1] else None


def _extent(shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    return np.diag([width / max(shape), height / max(shape), 1.0])


def _matches(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the codes that are nearest to each other both ways, and near enough."""
    if not len(first) or not len(second):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    distance = np.bitwise_count(first[:, None] ^ second[None])
    nearest = distance.argmin(axis=1)
    a = np.arange(len(first))
    mutual = (distance.argmin(axis=0)[nearest] == a) & (distance[a, nearest] <= SAME_CODE)
    return a[mutual], nearest[mutual]


def _places(points: np.ndarray) -> np.ndarray:
    """(n, 2), in longer sides; a pixel's centre is half a pixel from its corner."""
    return (np.stack([points["x"], points["y"]], axis=1) * PLACE_UNIT + 0.5) / SIDE


def _proposals(first: np.ndarray, second: np.ndarray, mirror: bool) -> np.ndarray:
    """The similarity, (n, 2, 2), that each match proposes."""
    scale = second["size"].astype(float) / first["size"].astype(float)
    flip = np.diag([1.0, -1.0 if mirror else 1.0])
    return scale[:, None, None] * _turns(second["angle"]) @ flip @ _turns(first["angle"]).transpose(0, 2, 1)


def _turns(degrees: np.ndarray) -> np.ndarray:
    angle = np.deg2rad(degrees.astype(float))
    return np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=-1).reshape(-1, 2, 2)


def _similarity(x: np.ndarray, y: np.ndarray, mirror: bool) -> np.ndarray:
    """The similarity that takes ``x`` to ``y`` with the least squared distance (Umeyama 1991, equations 40 to 42)."""
    centre_x, centre_y = x.mean(axis=0), y.mean(axis=0)
    u, d, v = np.linalg.svd((y - centre_y).T @ (x - centre_x))
    sign = np.array([1.0, np.sign(np.linalg.det(u @ v)) * (-1 if mirror else 1)])
    spread = max(float(((x - centre_x) ** 2).sum()), 1e-12)
    matrix = float((d * sign).sum()) / spread * (u * sign) @ v
    return np.concatenate([matrix, (centre_y - matrix @ centre_x)[:, None]], axis=1)
