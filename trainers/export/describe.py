"""Describe exported files for their users: how to cut crops, limits of a file, versions of its writers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from trainers.config import parts_of
from trainers.export.formats import ExportFormat
from trainers.export.run import float_tensors, takes_xnnpack
from trainers.images.crops import PYRAMID_SCALES, SMALLEST_RANDOM_CROP, ZOOM
from trainers.images.policies import describe_crop, needs_canvas
from trainers.serving.model import ServedModel


def notes(files: Mapping[str, Path], lacking: Mapping[str, str]) -> dict[str, str]:
    """Return format -> sentences about the limits of its file; formats without limits are left out.

    ``lacking``: format -> what its writer says that the file lacks, "" for nothing.
    """
    found: dict[str, str] = {}
    for name, path in files.items():
        sentences = [lacking[name]] if lacking.get(name) else []
        if name == "tflite-int8" and (floats := float_tensors(path)):
            sentences.append(f"{floats} of its tensors stay float32, so integer-only hardware cannot run it.")
        if path.suffix == ".tflite" and not takes_xnnpack(path):
            sentences.append("XNNPACK, the delegate for CPUs, cannot run it; measured without, which is slower.")
        if sentences:
            found[name] = " ".join(sentences)
    return found


def how_to_cut(served: ServedModel) -> list[str]:
    """Return the steps from a photo to the network's input, as ``trainers.images.crops`` performs them, and from its
    output to the answer."""
    size, crops = served.image_size, len(served.crop_names)
    side = round(size / ZOOM) if needs_canvas(served.crop_names) else size
    square = "" if parts_of(served.view)[0] == "squash" else "take the central square, "
    steps = [
        "decode to 8-bit RGB; apply the EXIF orientation; lay transparency on white",
        f"{square}resize to {side} x {side}, bilinear with antialiasing",
    ]
    each = f"resized to {size} x {size}"
    scales = " and ".join(f"{scale:g}" for scale in PYRAMID_SCALES)
    cut = {
        "whole": "that is the only crop",
        "flip": "two crops: that, and its mirror image left to right",
        "centre": f"one crop: the central {size} x {size}",
        "ten_crop": f"ten crops: {size} x {size} in each corner and in the centre, and their mirror images",
        "pyramid": f"six crops: the central {scales} of the side, each {each}, and their mirror images",
    }
    other = f"{crops} crops at random places, each of {SMALLEST_RANDOM_CROP:g} to 1 times the side, {each}"
    if ":" in served.policy:
        other = f"crops, each {each}: {'; '.join(map(describe_crop, served.crop_names))}"
    steps.append(cut.get(served.policy, other))
    if crops > 1:
        steps.append("the answer is the mean of the crops' probabilities")
    if served.calibration.temperature != 1:
        power = f"1 / {served.calibration.temperature:.6g}"
        steps.append(f"calibrate: each probability to the power of {power}, then divided by their sum")
    return steps


def versions(rows: Iterable[ExportFormat]) -> dict[str, str]:
    """Return module -> version of the installed modules that write ``rows``."""
    modules = dict.fromkeys(["tensorflow", "keras", "numpy", *(module for row in rows for module in row.needs)])
    found = {name: importlib.util.find_spec(name) for name in modules}
    return {name: metadata.version(name) for name, spec in found.items() if spec is not None}


def size_mb(path: Path) -> float:
    """Return the size of a file, or of all files in a folder, in MB (10^6 bytes)."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files) / 1e6
