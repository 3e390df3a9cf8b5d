"""An index of prefixes in the cache: which shelf holds a configuration's rows, without building its backbone.

Naming a shelf takes the layer at the boundary and the weights below it, and building the backbone to find them takes
seconds. The process that builds it leaves a note under the cache. A note is valid only for the same weight file
(path, size, modification time), the same Keras and the same code of this package; a user's own backbone never gets one,
since its code is not compared. A note says where rows belong, not whether they exist: ``Shelf.count`` does. Free of
TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.backbones import BACKBONES, backbone, weight_file
from trainers.config import PrefixKey, TrialConfig
from trainers.files.atomic import atomic_write_text
from trainers.store.shelf import Shelf

FOLDER = "index"


@dataclass(frozen=True)
class PrefixRecord:
    """Output of a prefix. ``description``: ``Prefix.description()``. ``row_shape``: shape of one row.

    ``layer``: the last frozen one, "" if rows are images. ``whole``: the entire backbone is frozen. ``dtype``: that of
    a row as computed; a map of a float16 network is float16.
    """

    description: dict[str, Any]
    row_shape: tuple[int, ...]
    layer: str
    whole: bool
    dtype: str


@dataclass(frozen=True)
class FeatureLocation:
    """The shelf that a configuration's rows belong to. ``kind``: "images" or "features"; ``layer``: "" for images."""

    folder: Path
    row_shape: tuple[int, ...]
    dtype: str
    layer: str
    kind: str
    description: dict[str, Any]

    def shelf(self, cache: Path) -> Shelf:
        return Shelf(cache, self.kind, self.description)


def find(
    cache: Path,
    config: TrialConfig,
    weights: str,
    precision: str = "float32",
    store_dtype: str = "float32",
    view: str | None = None,
) -> FeatureLocation | None:
    """Find where the rows of ``config`` belong; None without a valid note.

    ``precision``: a Keras dtype policy, never "auto". ``view``: a framing, None for the configuration's; rows that
    a fit is evaluated on may have another one.
    """
    key, view = config.prefix_key(weights, precision), view or config.framing
    if key.reads_images:
        return known_images(cache, key.image_size, view)
    record = recall(cache, key)
    if record is None:
        return None
    if not record.layer:
        return known_images(cache, key.image_size, view)
    dtype = stored_dtype(record.dtype, store_dtype)
    description = features_description(record.description, view, dtype)
    folder = Shelf(cache, "features", description).folder
    return FeatureLocation(folder, record.row_shape, dtype, record.layer, "features", description)


def known_images(cache: Path, size: int, view: str) -> FeatureLocation:
    """Locate decoded images of ``size`` pixels a side."""
    description = images_description(size, view)
    return FeatureLocation(
        Shelf(cache, "images", description).folder, (size, size, 3), "uint8", "", "images", description
    )


def images_description(size: int, view: str) -> dict[str, Any]:
    """Everything that a decoded image depends on except its key."""
    return {"size": size, "view": view}


def features_description(prefix: Mapping[str, Any], view: str, dtype: str) -> dict[str, Any]:
    """Everything that features depend on except their key. float32, once the only dtype, adds no entry."""
    return {**prefix, "view": view} | ({} if dtype == "float32" else {"dtype": dtype})


def stored_dtype(computed: str, store_dtype: str) -> str:
    """The dtype that features are stored in: ``FitJob.store_dtype``, but never wider than they are computed."""
    return "float16" if "float16" in (computed, store_dtype) else "float32"


def recall(cache: Path, key: PrefixKey) -> PrefixRecord | None:
    """Read the record of ``key``; None if there is no note, or it is damaged or no longer valid."""
    identity = identify(key.backbone, key.weights, key.image_size)
    if identity is None:
        return None
    try:
        note = json.loads(_file(cache, key).read_text())
        if note["identity"] != identity or note["asked"] != dataclasses.asdict(key):
            return None
        return PrefixRecord(**{**note["answer"], "row_shape": tuple(note["answer"]["row_shape"])})
    except (OSError, ValueError, KeyError, TypeError):  # a torn note counts as missing and is written again
        return None


def remember(cache: Path, key: PrefixKey, record: PrefixRecord, identity: str | None) -> None:
    """Write the note of ``key``. ``identity``: the result of ``identify`` before the weights were read.

    Writes nothing for a user's own backbone, if the weight file has changed since, or if the cache cannot be written.
    """
    if identity is None or identity != identify(key.backbone, key.weights, key.image_size):
        return
    if recall(cache, key) == record:
        return
    note = {"identity": identity, "asked": dataclasses.asdict(key), "answer": dataclasses.asdict(record)}
    file = _file(cache, key)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(file, json.dumps(note, sort_keys=True), durable=False)


def identify(name: str, weights: str, image_size: int) -> str | None:
    """Return what must be equal for a note to stay valid; None for a backbone that never gets one."""
    if name not in BACKBONES:
        return None
    return json.dumps([importlib.metadata.version("keras"), _code(), _weights_identity(name, weights, image_size)])


def _weights_identity(name: str, weights: str, image_size: int) -> Any:
    """[path, bytes, modification time] of the weight file; "imagenet" or "none" if there is no file."""
    if weights in ("imagenet", "none"):
        return weights
    path, row = Path(weights), backbone(name)
    if not path.is_file():
        if not row.files:
            return "none"
        path = weight_file(row, path, image_size)
    about = path.stat()
    return [str(path.resolve()), about.st_size, about.st_mtime_ns]


@functools.cache
def _code() -> str:
    """Digest of the modules on disk that build a backbone: this package, the table of backbones, the code digest."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for file in (here.parent / "backbones.py", here.parent / "code_digest.py", *sorted(here.rglob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _file(cache: Path, key: PrefixKey) -> Path:
    text = json.dumps(dataclasses.asdict(key), sort_keys=True)
    return cache / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
