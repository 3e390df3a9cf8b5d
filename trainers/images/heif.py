"""HEIC and HEIF photos, which phones take: read by a plugin of Pillow in an optional package, registered here alone.

Pillow itself reads AVIF, the sibling of HEIC. Imports without the package.
"""

from __future__ import annotations

import functools

PACKAGE = "pillow-heif"
"""Distribution with the plugin. Its wheels bundle x265 under the GPL, so orch offers it as an extra."""
HEVC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
"""Brands of files whose image is encoded with HEVC (ISO/IEC 23008-12, annex B)."""
LONGEST_BRANDS = 256
"""Maximum bytes of the first box that are searched for brands."""


class HeifUnsupported(Exception):
    """The package that reads HEIC is missing or broken. Its text is the reason, with what to type."""


def is_heic(data: bytes) -> bool:
    """Whether the file ``data`` begins as one whose image is encoded with HEVC; its main brand alone does not say."""
    if data[4:8] != b"ftyp":
        return False
    brands = data[8 : min(int.from_bytes(data[:4]), LONGEST_BRANDS)]
    return any(brands[at : at + 4] in HEVC_BRANDS for at in range(0, len(brands), 4))


@functools.cache
def register() -> str:
    """Register the plugin with Pillow, once a process; return why it cannot be, or "".

    The plugin opens the primary image of a burst, turned upright; thumbnails and depth maps are not read.
    """
    try:
        from pillow_heif import register_heif_opener  # 0.05 s, for those who have such photos

        register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    except ImportError as error:
        found = "is not installed" if isinstance(error, ModuleNotFoundError) else f"does not work here ({error})"
        return f"it is a HEIC photo, and the package {PACKAGE}, which reads these, {found}; `pip install {PACKAGE}`"
    return ""
