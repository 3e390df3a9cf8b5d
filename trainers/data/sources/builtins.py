"""Data sets that need no download: written to the cache from installed packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write

if TYPE_CHECKING:
    import numpy as np

BUILTIN = "builtin:"
BUILTINS = ("builtin:digits",)


def make_builtin(source: str, cache: Path) -> Path:
    """Return the folder of a built-in data set below ``cache``; write missing files first.

    Safe to call from several processes. Raises TrainerError for an unknown name or an unwritable cache.
    """
    if source not in BUILTINS:
        raise TrainerError(f"there is no built-in data set {source!r}; known are {', '.join(BUILTINS)}.")
    root = cache.expanduser().resolve() / "builtin" / source.removeprefix(BUILTIN)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _write_digits(root)
    except OSError as error:
        raise TrainerError(
            f"the cache {cache} cannot be written ({error.strerror or error}); free some space there, or set "
            "ORCH_CACHE to another folder."
        ) from error
    return root


def _write_digits(root: Path) -> None:
    import numpy as np  # these two are not needed to check a name, which `orch check` does
    from PIL import Image

    images, labels = _digits()
    names = [root / str(label) / f"{number:04d}.png" for number, label in enumerate(labels)]
    if all(name.exists() for name in names):
        return
    with FileLock(root.parent / f".{root.name}.lock"):
        for name, pixels in zip(names, images, strict=True):
            if name.exists():
                continue
            name.parent.mkdir(exist_ok=True)
            # 0..16 becomes 0..255. Uncompressed, so that the bytes do not depend on the version of zlib.
            picture = Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
            with atomic_write(name, durable=False) as path:  # 1,797 files, at the first use of the data set
                picture.save(path, format="PNG", compress_level=0)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: images (1797, 8, 8) of 0..16, and labels.

    Reads the table that scikit-learn's loader reads, since importing that loader takes two seconds.
    """
    import numpy as np

    found = importlib.util.find_spec("sklearn")
    folder = Path(found.origin).parent if found and found.origin else Path()
    table = folder / "datasets" / "data" / "digits.csv.gz"
    if table.is_file():
        rows = np.loadtxt(table, delimiter=",", dtype=np.uint8)
        return rows[:, :-1].reshape(-1, 8, 8).astype(float), rows[:, -1]
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images, data.target
