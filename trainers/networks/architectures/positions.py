"""Position tables at other image sizes, as timm and PyTorch resize them. Pure numpy."""

from __future__ import annotations

import functools

import numpy as np

_SHARPNESS = -0.5
"""Parameter a of the cubic kernel that PyTorch takes with antialiasing, as Pillow does."""


@functools.lru_cache(maxsize=64)
def resize_matrix(old: int, new: int) -> np.ndarray:
    """The matrix (new, old), float32, that resizes a row of ``old`` values to ``new`` ones, bicubic with antialiasing.

    Each row is the kernel of Keys 1981, equation 4, around the place of the new value, widened by old / new where the
    row shrinks, cut off at the borders and divided by its sum: ``torch.nn.functional.interpolate(mode="bicubic",
    antialias=True)``, which timm resizes position tables with.
    """
    widening = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new
    distances = np.abs(np.arange(old)[None] + 0.5 - centres[:, None]) / widening
    weights = _cubic(distances)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _cubic(x: np.ndarray) -> np.ndarray:
    a = _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resized(table: np.ndarray, grid: int) -> np.ndarray:
    """Resize a square table (old * old, width) to (grid * grid, width)."""
    old = round(len(table) ** 0.5)
    if old == grid:
        return table
    matrix, square = resize_matrix(old, grid), table.reshape(old, old, -1)
    return np.einsum("ij,kl,jlc->ikc", matrix, matrix, square, optimize=True).reshape(grid * grid, -1)
