"""Recall and precision of the search for copies: ``ORCH_DATA=... python -m benchmarks.duplicates [--photos 300]``.

For each kind of copy and each strength, copies of photos of TrashNet and Clothing join 1,000 originals of their set,
and the pairs that are called the same are compared with the true ones. All originals of a set, without copies, are
searched as well. Real copies in the sets, listed by eye in ``duplicates_known.csv``, are neither true nor false.

Marks: recall 0.95 (mirrored, right angles, encoded or resized again, cropped to 0.8 of the sides), 0.9 (turned by up to
10 degrees), precision 0.99 over all, 20 ms of CPU a photo besides decoding.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from trainers.data.duplicates import Looks, Union, compared_pairs
from trainers.images.decode import decode
from trainers.images.keypoints import SIDE
from trainers.images.look import Look, look_of

Edit = Callable[[Image.Image, random.Random], Image.Image]
KNOWN = Path(__file__).with_name("duplicates_known.csv")
BACKGROUND = 1000
"""Originals among which the copies of one kind are searched."""


def _jpeg(quality: int) -> Edit:
    def edit(image: Image.Image, draw: random.Random) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return edit


def _resized(factor: float, squash: bool = False) -> Edit:
    def edit(image: Image.Image, draw: random.Random) -> Image.Image:
        width, height = (max(image.size),) * 2 if squash else image.size
        return image.resize((round(width * factor), round(height * factor)), Image.Resampling.BILINEAR)

    return edit


def _cropped(share: float, mirror: bool = False) -> Edit:
    def edit(image: Image.Image, draw: random.Random) -> Image.Image:
        width, height = (round(side * share) for side in image.size)
        left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
        part = image.crop((left, top, left + width, top + height))
        return ImageOps.mirror(part) if mirror else part

    return edit


def _turned(degrees: float, fill: str | None = "black") -> Edit:
    def edit(image: Image.Image, draw: random.Random) -> Image.Image:
        angle = degrees * draw.choice((-1, 1))
        if fill is not None:
            return image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=fill)
        wide = Image.fromarray(
            np.pad(np.asarray(image), ((image.height // 4,) * 2, (image.width // 4,) * 2, (0, 0)), "edge")
        )
        turned = wide.rotate(angle, Image.Resampling.BICUBIC)
        left, top = image.width // 4, image.height // 4
        return turned.crop((left, top, left + image.width, top + image.height))

    return edit


def _brightness(factor: float) -> Edit:
    return lambda image, draw: ImageEnhance.Brightness(image).enhance(factor)


def _contrast(factor: float) -> Edit:
    return lambda image, draw: ImageEnhance.Contrast(image).enhance(factor)


def _transposed(*methods: Image.Transpose) -> Edit:
    return lambda image, draw: image.transpose(draw.choice(methods))


EDITS: dict[str, tuple[float, Edit]] = {
    "mirrored": (0.95, _transposed(Image.Transpose.FLIP_LEFT_RIGHT)),
    "upside down": (0.95, _transposed(Image.Transpose.FLIP_TOP_BOTTOM)),
    "turned by right angles": (
        0.95,
        _transposed(Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270),
    ),
    "transposed": (0.95, _transposed(Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE)),
    "JPEG quality 60": (0.95, _jpeg(60)),
    "JPEG quality 20": (0.95, _jpeg(20)),
    "resized to 0.5": (0.95, _resized(0.5)),
    "resized to 2": (0.95, _resized(2)),
    "resized to a square": (0.95, _resized(1, squash=True)),
    "cropped to 0.95": (0.95, _cropped(0.95)),
    "cropped to 0.9": (0.95, _cropped(0.9)),
    "cropped to 0.8": (0.95, _cropped(0.8)),
    "turned by 3 degrees": (0.9, _turned(3)),
    "turned by 10 degrees": (0.9, _turned(10)),
    "turned by 10 degrees, edges repeated": (0.9, _turned(10, None)),
    "brightness 0.7": (0.95, _brightness(0.7)),
    "brightness 1.2": (0.95, _brightness(1.2)),
    "brightness 1.4": (0.0, _brightness(1.4)),
    "contrast 0.7": (0.95, _contrast(0.7)),
    "contrast 1.4": (0.0, _contrast(1.4)),
    "mirrored, cropped to 0.8": (0.0, _cropped(0.8, mirror=True)),
    "cropped to 0.7": (0.0, _cropped(0.7)),
}
"""Kind of copy -> the recall that it must reach (0: none is demanded), and the edit."""


@dataclass(frozen=True)
class Found:
    """Of one search: pairs that had to be found, those that were, and others that were called the same."""

    true: int
    found: int
    false: tuple[tuple[str, str], ...]


def search(
    looks: Sequence[Look], names: Sequence[str], true: set[tuple[int, int]], known: set[frozenset[str]]
) -> Found:
    """Search ``looks``; ``true``: pairs of positions, ascending."""
    with Looks(looks) as stored:
        same, _ = compared_pairs(stored, np.flatnonzero(stored.comparable))
    sets = Union(len(looks))
    for a, b in same:
        sets.join(a, b)
    photos = [(names[a].split(" ")[0], names[b].split(" ")[0]) for a, b in same]
    false = tuple(pair for pair in photos if pair[0] != pair[1] and frozenset(pair) not in known)
    return Found(len(true), sum(sets.labels[a] == sets.labels[b] for a, b in true), false)


def take(image: Image.Image) -> Look:
    """The look of a decoded photo."""
    scale = SIDE / max(image.size)
    size = max(round(image.width * scale), 8), max(round(image.height * scale), 8)
    return look_of(np.asarray(image.resize(size, Image.Resampling.LANCZOS)), *image.size)


def read_known() -> set[frozenset[str]]:
    """Pairs of real copies, listed by eye."""
    with KNOWN.open(encoding="utf-8", newline="") as file:
        return {frozenset((row["first"], row["second"])) for row in csv.DictReader(file)}


def measure(folder: Path, photos: int, known: set[frozenset[str]]) -> list[tuple[str, float, Found]]:
    """Search one set of photos for each kind of copy; print CPU time."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    draw = random.Random(0)
    names = [path.name for path in paths]
    images = [decode(path) for path in paths]
    begin = time.process_time()
    looks = [take(image) for image in images]
    look_s = time.process_time() - begin
    begin = time.process_time()
    plain = search(looks, names, set(), known)
    search_s = time.process_time() - begin
    print(
        f"{folder.name}: {len(paths)} photos; CPU a photo besides decoding "
        f"{1e3 * (look_s + search_s) / len(paths):.1f} ms "
        f"({1e3 * look_s / len(paths):.1f} to look, {1e3 * search_s / len(paths):.1f} to search)"
    )
    for pair in plain.false:
        print("  not listed as a copy:", *pair)
    rows = [("no copies", 0.0, plain)]
    chosen = draw.sample(range(len(paths)), min(BACKGROUND, len(paths)))
    for kind, (mark, edit) in EDITS.items():
        copies = [take(edit(images[i], draw)) for i in chosen[:photos]]
        true = {(k, len(chosen) + k) for k in range(len(copies))}
        of = [names[i] for i in chosen]
        found = search([*(looks[i] for i in chosen), *copies], [*of, *(f"{name} {kind}" for name in of)], true, known)
        rows.append((kind, mark, found))
        print(f"  {kind:<38} recall {found.found / found.true:.3f}  false {len(found.false)}", flush=True)
    return rows


def main() -> int:
    """Print the tables; return 1 if a mark is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=300, help="copies of each kind and set")
    parser.add_argument("--sets", nargs="*", default=["trashnet", "clothing"])
    options = parser.parse_args()
    known = read_known()
    root = Path(os.environ["ORCH_DATA"])
    rows = [row for name in options.sets for row in measure(root / name, options.photos, known)]
    found, false = sum(row[2].found for row in rows), sum(len(row[2].false) for row in rows)
    precision = found / max(found + false, 1)
    missed = [kind for kind, mark, each in rows if each.true and each.found < mark * each.true]
    print(f"precision {precision:.4f} ({false} false of {found + false})")
    print(f"marks missed: {', '.join(missed) or 'none'}")
    return int(bool(missed) or precision < 0.99)


if __name__ == "__main__":
    raise SystemExit(main())
