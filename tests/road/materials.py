"""What a person has before they type: photos that can be learnt, a table of them, weight files, a small sweep file."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("glass", "metal", "paper")
KINDS = ("cardboard", "glass", "metal", "paper", "plastic", "trash")
SPLITS = ("train", "train", "train", "validation", "test")
MOBILENETS = {"mobilenet_0.5": (0.5, 160), "mobilenet_0.75": (0.75, 192), "mobilenet_1.0": (1.0, 224)}
SMALL = {
    "data": {"source": "photos"},
    "search": {
        **{"backbone": "small_cnn", "image_size": 16, "unfrozen_layers": "all"},
        "learning_rate": {"loguniform": [0.001, 0.01]},
    },
    "budget": {"trials": 2, "epochs": 2, "scheduler": "none"},
    "final": {"seeds": 1, "runners_up": 1, "policies": ["whole", "flip"]},
    "weights": "none",
}


def photos(folder: Path, classes: tuple[str, ...] = CLASSES, count: int = 20, first: int = 0) -> None:
    """A folder for each class; a class has a colour. ``first``: the seed of the first photo."""
    for kind, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(first, first + count):
            picture(kind, i).save(folder / name / f"{name}{i}.jpg")


def picture(kind: int, seed: int) -> Image.Image:
    """64 x 48 pixels of noise in the colour of the class."""
    cells = np.random.default_rng((kind, seed)).integers(0, 130, (12, 16, 3), np.uint8)
    cells[..., kind % 3] += 120 if kind < 3 else 60
    return Image.fromarray(cells.repeat(4, 0).repeat(4, 1))


def photo(path: Path) -> None:
    picture(0, 999).save(path)


def new_photos(folder: Path) -> None:
    """Photos that no sweep has seen in ``new_photos``, and what mistakes about them cost, ``costs.csv``."""
    photos(folder / "new_photos", count=6, first=100)
    rows = [",".join([given, *("0" if given == answer else "1" for answer in CLASSES)]) for given in CLASSES]
    (folder / "costs.csv").write_text("\n".join([",".join(["label", *CLASSES]), *rows]) + "\n")


def table(folder: Path, name: str = "split.csv") -> None:
    """A table of the photos in ``folder`` with columns path, label and split."""
    with (folder / name).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for kind in sorted(p for p in folder.iterdir() if p.is_dir()):
            for i, path in enumerate(sorted(kind.iterdir())):
                rows.writerow([f"{kind.name}/{path.name}", kind.name, SPLITS[i % len(SPLITS)]])


def trashnet(folder: Path) -> None:
    """Ten photos of each kind, in the form of TrashNet."""
    photos(folder, KINDS, 10)
    table(folder)


def weights(folder: Path, venv: Path) -> None:
    """Files of MobileNet without top in ``folder``: those of ORCH_WEIGHTS, else random ones that Keras writes."""
    folder.mkdir()
    given = os.environ.get("ORCH_WEIGHTS", "")
    found = [next(iter(Path(given).glob(f"{name}_*")), None) if given else None for name in MOBILENETS]
    for file in found:
        if file is not None:
            shutil.copy(file, folder)
    made = "; ".join(
        f"keras.applications.MobileNet(alpha={alpha}, weights=None, include_top=False, "
        f"input_shape=({side}, {side}, 3)).save_weights('{name}_{side}_no_top.weights.h5')"
        for (name, (alpha, side)), file in zip(MOBILENETS.items(), found, strict=True)
        if file is None
    )
    if made:
        command = [str(venv / "bin" / "python"), "-c", f"import keras; {made}"]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)


def sweep_file(path: Path, name: str, named: bool = False) -> None:
    """A sweep of a minute; ``named``: with configurations instead of ranges, and a model called garbage."""
    values: dict[str, Any] = {"name": name, **SMALL}
    if named:
        fixed = {key: value for key, value in SMALL["search"].items() if key != "learning_rate"}
        configurations = [{"name": "base", "learning_rate": 0.003}, {"name": "smaller-steps", "learning_rate": 0.001}]
        values["search"] = {**fixed, "configurations": configurations}
        values["budget"] = {"epochs": 2, "scheduler": "none"}
        values["tracking"] = {"model": "garbage"}
    path.write_text(json.dumps(values, indent=1))


def seresnet50(path: Path) -> None:
    """A state dict with the names and shapes of timm's seresnet50, of random numbers."""
    from safetensors.numpy import save_file

    draw = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}

    def conv(name: str, *shape: int) -> None:
        tensors[f"{name}.weight"] = draw.normal(0, 0.05, shape).astype(np.float32)

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{name}.{part}"] = draw.uniform(0.5, 1.5, width).astype(np.float32)

    conv("conv1", 64, 3, 7, 7)
    norm("bn1", 64)
    into = 64
    for stage, (depth, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for block in range(depth):
            name, out = f"layer{stage}.{block}", 4 * width
            for number, shape in enumerate(((width, into, 1, 1), (width, width, 3, 3), (out, width, 1, 1)), start=1):
                conv(f"{name}.conv{number}", *shape)
                norm(f"{name}.bn{number}", shape[0])
            for part, (a, b) in {"fc1": (out // 16, out), "fc2": (out, out // 16)}.items():
                conv(f"{name}.se.{part}", a, b, 1, 1)
                tensors[f"{name}.se.{part}.bias"] = np.zeros(a, np.float32)
            if block == 0:
                conv(f"{name}.downsample.0", out, into, 1, 1)
                norm(f"{name}.downsample.1", out)
            into = out
    conv("fc", 1000, 2048)
    tensors["fc.bias"] = np.zeros(1000, np.float32)
    save_file(tensors, path)
