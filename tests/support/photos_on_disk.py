"""Small photos for tests, and the sources that hold them."""

from __future__ import annotations

import os
import shutil
import socket
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.data.report import DataReport
from trainers.errors import TrainerError

RATIOS = (0.6, 0.2, 0.2)
HOSTILE = {
    "big.jpg": "20,000 MB, and at most 256 MB",
    "device.jpg": "device",
    "folder.jpg": "folder",
    "loop.jpg": "leads to itself",
    "pipe.jpg": "pipe",
    "socket.jpg": "socket",
    "terminal.jpg": "device",
}
"""What ``write_hostile`` writes, and words of the reason why it is not read."""


def write_photo(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> Path:
    """A smooth random picture: the same bytes for the same seed, and like no other seed's."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def folder_of(root: Path, **classes: int) -> Path:
    """A folder per class; photo i of the n-th class has seed 1000 n + i."""
    for number, (label, count) in enumerate(sorted(classes.items())):
        for i in range(count):
            write_photo(root / label / f"{i:03d}.png", 1000 * number + i)
    return root


def source(path: Path | str, splits: tuple[float, float, float] | str | None = RATIOS, **options: object) -> DataSource:
    return DataSource(str(path), splits, Path(str(path)).parent / "cache", **options)  # type: ignore[arg-type]


def warnings_of(report: DataReport) -> tuple[str, ...]:
    """The warnings but for those that every small set of photos gets: that its test split is small, all or by class."""
    small = "the test split holds ", "too few to judge by"
    return tuple(text for text in report.warnings if not text.startswith(small[0]) and small[1] not in text)


def photos_at(root: Path, *names: str) -> Path:
    """Write a photo at each of ``names`` below ``root``."""
    for number, name in enumerate(names):
        write_photo(root / name, 100 + number)
    return root


def written_table(root: Path, text: str, encoding: str = "utf-8") -> Path:
    (root / "t.csv").write_bytes(text.encode(encoding))
    return root / "t.csv"


def table_of(root: Path, rows: list[dict[str, str]], name: str = "table.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows)
    if name.endswith(".csv"):
        frame.to_csv(root / name, index=False)
    else:
        frame.to_parquet(root / name)
    return root / name


def zip_with_names(path: Path, files: Mapping[str, bytes], encoding: str = "utf-8", marked: bool = False) -> Path:
    """A zip of ``files`` (name -> content) with names in ``encoding``; ``marked``: with the flag of UTF-8 names.

    Python always sets that flag where it is needed, so names are written of ASCII and replaced by bytes.
    """
    with zipfile.ZipFile(path, "w") as packed:
        names = {}
        for number, (name, content) in enumerate(files.items()):
            raw = name.encode(encoding)
            names[raw] = f"{number:08d}".encode().ljust(len(raw), b"_") if len(raw) > 8 else raw
            packed.writestr(names[raw].decode(), content)
    data = path.read_bytes()
    for raw, written in names.items():
        data = data.replace(written, raw)
    if marked:
        flags = bytearray(data)
        for signature, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
            at = flags.find(signature)
            while at >= 0:
                flags[at + offset] |= 0x08
                at = flags.find(signature, at + 4)
        data = bytes(flags)
    path.write_bytes(data)
    return path


def split_rows(root: Path, per_class: int = 6) -> list[dict[str, str]]:
    folder_of(root, a=per_class, b=per_class)
    splits = ("train", "train", "train", "train", "validation", "test")
    return [
        {"path": f"{label}/{i:03d}.png", "label": label, "split": splits[i % 6]}
        for label in "ab"
        for i in range(per_class)
    ]


def error_of(data: DataSource) -> str:
    with pytest.raises(TrainerError) as caught:
        build_manifest(data)
    return str(caught.value)


def write_hostile(folder: Path) -> None:
    """Files that would take all memory or never end, and take nothing on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "big.jpg").touch()
    os.truncate(folder / "big.jpg", 20 * 10**9)
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").mkdir()
    (folder / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "terminal.jpg").symlink_to("/dev/tty")
    descriptor = os.open(folder, os.O_RDONLY)  # a socket's path may have 107 letters
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{descriptor}/socket.jpg")
    os.close(descriptor)


def with_duplicates(root: Path) -> Path:
    """a/000 = a/copy (bytes), a/001 ~ a/near (pixels), a/002 = b/copy (bytes, other label)."""
    folder_of(root, a=10, b=10)
    shutil.copy(root / "a" / "000.png", root / "a" / "copy.png")
    with Image.open(root / "a" / "001.png") as image:
        image.resize((96, 80)).save(root / "a" / "near.png")
    shutil.copy(root / "a" / "002.png", root / "b" / "copy.png")
    return root
