"""The suffixes of photos, tables and archives. Imports no heavy library, because `orch check` imports it."""

from __future__ import annotations

from pathlib import Path

PHOTOS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    ".png": "PNG",
    ".gif": "GIF",
    ".bmp": "BMP",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".webp": "WEBP",
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    ".avif": "AVIF",
    **dict.fromkeys((".heic", ".heif"), "HEIF"),
    ".jp2": "JPEG2000",
    ".tga": "TGA",
}
"""Suffix of a photo -> Pillow's name of its format.

A file with such a suffix is a photo; one that cannot be read is reported by name. TGA comes last: it has no signature.
"""
TABLES = (".csv", ".parquet")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")


def is_photo(name: str | Path) -> bool:
    """Whether a file called ``name`` ends like a photo."""
    return str(name).lower().endswith(tuple(PHOTOS))


def is_table(name: str | Path) -> bool:
    return str(name).lower().endswith(TABLES)


def is_archive(name: str | Path) -> bool:
    return str(name).lower().endswith(ARCHIVES)
