"""Local features of a picture as short binary codes that survive turns, scales and mirroring. Free of TensorFlow.

SIFT (Lowe 2004) finds keypoints and describes each by 128 numbers, in a frame that turns and scales with the picture.
A descriptor is shortened to 64 bits: the signs of its projections on random directions (Charikar 2002, section 3),
all of them odd under mirroring. So the codes of a mirrored picture are the complements of the picture's own, and
no mirrored picture needs to be computed.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np

SIDE = 256
"""Longer side, in px, of the greyscale image in which keypoints are found, whatever the photo's size."""
KEYPOINTS = 128
"""Maximum keypoints of an image: those with the strongest response."""
CONTRAST = 0.01
"""Minimum response of a keypoint; below SIFT's usual 0.04, since a plain object on a plain ground has few."""
CODE_BITS = 64
SAME_CODE = 12
"""Maximum bits in which two codes of one place differ; of two random places one in about 500 differs in as few."""
PLACE_UNIT = 1 / 256
"""Unit, in px, of the places of keypoints."""

KEYPOINT = np.dtype([("code", "<u8"), ("x", "<u2"), ("y", "<u2"), ("size", "<f2"), ("angle", "<f2")])
"""One keypoint: its code, its place in units of ``PLACE_UNIT``, its diameter in px and its angle in degrees.

A row whose size is 0 holds no keypoint.
"""

_THREAD = threading.local()


def keypoints(grey: np.ndarray) -> np.ndarray:
    """The keypoints of ``grey``, uint8 (height, width) of a longer side of ``SIDE``: KEYPOINT (KEYPOINTS,).

    The strongest come first; rows of size 0 fill the rest. An empty image has none.
    """
    out = np.zeros(KEYPOINTS, KEYPOINT)
    if not grey.size:
        return out
    found, descriptors = _sift().detectAndCompute(grey, None)
    if not found:
        return out
    order = np.argsort([-each.response for each in found], kind="stable")[:KEYPOINTS]
    chosen = [found[i] for i in order]
    rows = out[: len(chosen)]
    places = np.clip(np.array([each.pt for each in chosen]) / PLACE_UNIT, 0, 2**16 - 1)
    rows["x"], rows["y"] = places.round().astype(np.uint16).T
    rows["size"] = [each.size for each in chosen]
    rows["angle"] = [each.angle for each in chosen]
    rows["code"] = codes(descriptors[order])
    return out


def codes(descriptors: np.ndarray) -> np.ndarray:
    """The codes, uint64 (n,), of SIFT's descriptors, float32 (n, 128).

    Each descriptor's square roots are projected (Arandjelovic & Zisserman 2012: distances between the roots compare
    histograms better).
    """
    roots = np.sqrt(np.maximum(descriptors, 0))
    projected = np.einsum("nd,kd->nk", roots, _directions())  # not BLAS, whose threads would wait for each other
    return np.packbits(projected > 0, axis=1).view(np.uint64)[:, 0]


def mirrored(descriptors: np.ndarray) -> np.ndarray:
    """What SIFT gives for the mirrored picture: rows of cells across the keypoint's axis swap, angles change sign."""
    cells = descriptors.reshape(-1, 4, 4, 8)[:, ::-1]
    return cells[..., (-np.arange(8)) % 8].reshape(len(descriptors), 128)


@cache
def _directions() -> np.ndarray:
    """64 orthonormal directions, float32 (64, 128), each of which is odd under ``mirrored``."""
    identity = np.eye(128)
    odd = (identity - mirrored(identity))[:CODE_BITS] / np.sqrt(2)  # the other 64 are these with another sign
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(CODE_BITS, CODE_BITS)))[0]
    return (turn @ odd).astype(np.float32)


def _sift() -> Any:
    """Return the thread's own SIFT: one is no use in two threads at once."""
    import cv2  # `orch --help` does without

    if not hasattr(_THREAD, "sift"):
        cv2.setNumThreads(1)  # photos are read by a pool of threads already
        _THREAD.sift = cv2.SIFT_create(nfeatures=KEYPOINTS, contrastThreshold=CONTRAST)  # type: ignore[attr-defined]
    return _THREAD.sift
