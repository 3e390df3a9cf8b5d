"""Pictures with the detail of photographs, made from a seed."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from trainers.images.keypoints import SIDE
from trainers.images.look import Look, look_of


def scene(seed: int, size: tuple[int, int] = (256, 192)) -> Image.Image:
    """Soft ground with shapes of many sizes and colours on it."""
    random = np.random.default_rng(seed)
    ground = Image.fromarray(random.integers(60, 200, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(ground)
    for _ in range(40):
        x, y = random.integers(0, size[0]), random.integers(0, size[1])
        w, h = random.integers(6, 48, 2)
        colour = tuple(int(each) for each in random.integers(0, 256, 3))
        box = (int(x), int(y), int(x + w), int(y + h))
        (draw.ellipse if random.random() < 0.5 else draw.rectangle)(box, fill=colour)
    return ground


def thing(shape: str) -> Image.Image:
    """A small shape on a white table with soft light."""
    board = Image.linear_gradient("L").resize((160, 160)).point(lambda v: 180 + v // 6)
    draw = ImageDraw.Draw(board)
    if shape == "ring":
        draw.ellipse((60, 60, 100, 100), outline=30, width=8)
    elif shape == "bar":
        draw.rectangle((72, 55, 84, 105), fill=90)
    else:
        draw.polygon([(80, 55), (60, 100), (100, 100)], fill=10)
    return board.convert("RGB")


def tile(texture: int, spot: tuple[int, int] | None = None, contrast: int = 80, side: int = 256) -> Image.Image:
    """A textured tile; ``spot``: the centre of a disc of 3 % of the side that is brighter by ``contrast``."""
    random = np.random.default_rng(texture)
    coarse = Image.fromarray(random.integers(70, 180, (24, 24), np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse).astype(float) + random.normal(0, 6, (side, side))
    if spot is not None:
        rows, columns = np.mgrid[:side, :side]
        pixels[np.hypot(columns - spot[0], rows - spot[1]) <= 0.015 * side] += contrast
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB")


def symmetric_tile(spot: tuple[int, int] | None, mark: int = 80, radius: int = 4) -> Image.Image:
    """A tile that is equal to its eight mirrored and turned forms, but for a spot."""
    plain = np.asarray(tile(0).convert("L")).astype(float)
    pixels = sum(np.rot90(side, quarters) for side in (plain, plain[:, ::-1]) for quarters in range(4)) / 8
    if spot is not None:
        rows, columns = np.mgrid[: len(pixels), : len(pixels)]
        pixels[np.hypot(columns - spot[0], rows - spot[1]) <= radius] += mark
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB")


def encoded(image: Image.Image, quality: int) -> Image.Image:
    """``image`` as a JPEG of that quality shows it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def look_at(image: Image.Image) -> Look:
    """The look of a picture that lies in no file."""
    scale = SIDE / max(image.size)
    size = (max(round(image.width * scale), 8), max(round(image.height * scale), 8))
    return look_of(np.asarray(image.resize(size, Image.Resampling.LANCZOS)), *image.size)
