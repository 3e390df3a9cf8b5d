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
DRAWN = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".pdf", ".svg")
"""Suffixes of pictures that are drawn, each in its own format."""
TABLES = (".csv", ".tsv", ".parquet")
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
"""Suffixes of tables that are not read."""
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
SYSTEM = ("lost+found", "$RECYCLE.BIN", "System Volume Information")
"""Folders of file systems, which may hold photos that were rescued or deleted."""
RUBBISH = ("__MACOSX", "@eaDir", ".DS_Store", ".ipynb_checkpoints", ".git", ".thumbnails", ".Trash", ".cache")
"""Beginnings of names of what systems and programs leave next to photos: previews, resource forks, histories."""


def is_photo(name: str | Path) -> bool:
    """Whether a file called ``name`` ends like a photo."""
    return str(name).lower().endswith(tuple(PHOTOS))


def is_table(name: str | Path) -> bool:
    return str(name).lower().endswith(TABLES)


def is_archive(name: str | Path) -> bool:
    return str(name).lower().endswith(ARCHIVES)


def is_spreadsheet(name: str | Path) -> bool:
    return str(name).lower().endswith(SPREADSHEETS)


def is_system(name: str, rubbish: bool = False) -> bool:
    """Whether a system or a program makes entries of this name, and a person does not.

    ``rubbish``: only those whose photos are copies of others or no photos at all.
    """
    if name.startswith((*RUBBISH, "._")):
        return True
    return not rubbish and name in SYSTEM
