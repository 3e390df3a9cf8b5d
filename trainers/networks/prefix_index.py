"""Which shelf holds the rows of a configuration, answered without building its backbone. Free of TensorFlow.

To name a shelf one must know the layer at the boundary and the weights below it, and that takes seconds: the backbone
is built for it. Whoever has done so writes down, under the cache, what was asked and what came out. A note counts only
for the same weight files (path, size, time of change), the same Keras and the same code of the builders; a backbone of
the user's own, whose code nobody compares, is never answered from here. A note says where rows would be, not that they
are there: ``Shelf.count`` does.
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
from trainers.config import TrialConfig
from trainers.files.atomic import atomic_write_text
from trainers.store.shelf import Shelf

FOLDER = "index"


@dataclass(frozen=True)
class PrefixQuery:
    """What of a configuration decides which rows it reads; the fields are ``prefix.Architecture``'s."""

    backbone: str
    weights: str
    image_size: int
    unfrozen_layers: int | str
    pooling: str
    precision: str
    output_stride: int
    feature_fusion: str
    mixes: bool

    @classmethod
    def of(cls, config: TrialConfig, weights: str, precision: str) -> PrefixQuery:
        """``precision``: a Keras dtype policy, never "auto"."""
        return cls(
            config.backbone,
            weights,
            config.image_size or backbone(config.backbone).native_size,
            config.unfrozen_layers,
            config.pooling,
            precision,
            config.output_stride,
            config.feature_fusion,
            config.mixup > 0 or config.cutmix > 0,
        )

    @property
    def reads_images(self) -> bool:
        """Nothing is frozen, or training mixes images. False also where only a backbone's graph can tell."""
        return self.mixes or self.unfrozen_layers == "all"


@dataclass(frozen=True)
class PrefixRecord:
    """What the prefix of a query gives. ``description``: ``Prefix.description()``. ``row_shape``: of one row.

    ``layer``: the last frozen one, "" where rows are images. ``whole``: the entire backbone is frozen. ``dtype``: of a
    row as it is computed; a map of a float16 network is float16.
    """

    description: dict[str, Any]
    row_shape: tuple[int, ...]
    layer: str
    whole: bool
    dtype: str


@dataclass(frozen=True)
class FeatureLocation:
    """Where a configuration's rows are, or would be. ``kind``: "images" or "features"; ``layer`` is "" for images."""

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
    """Where the rows of ``config`` are kept; None where nobody has asked yet. ``view``: the configuration's if None.

    Whatever is judged under a random crop lies under another view: see ``items.judged_view``.
    """
    asked, view = PrefixQuery.of(config, weights, precision), view or config.view
    if asked.reads_images:
        return known_images(cache, asked.image_size, view)
    answer = recall(cache, asked)
    if answer is None:
        return None
    if not answer.layer:
        return known_images(cache, asked.image_size, view)
    dtype = stored_dtype(answer.dtype, store_dtype)
    description = features_description(answer.description, view, dtype)
    folder = Shelf(cache, "features", description).folder
    return FeatureLocation(folder, answer.row_shape, dtype, answer.layer, "features", description)


def known_images(cache: Path, size: int, view: str) -> FeatureLocation:
    """Where decoded images of ``size`` pixels a side are kept."""
    description = images_description(size, view)
    return FeatureLocation(
        Shelf(cache, "images", description).folder, (size, size, 3), "uint8", "", "images", description
    )


def images_description(size: int, view: str) -> dict[str, Any]:
    """What a decoded image depends on besides its key."""
    return {"size": size, "view": view}


def features_description(prefix: Mapping[str, Any], view: str, dtype: str) -> dict[str, Any]:
    """What features depend on besides their key. float32 adds nothing: what was stored before there was a choice."""
    return {**prefix, "view": view} | ({} if dtype == "float32" else {"dtype": dtype})


def stored_dtype(computed: str, store_dtype: str) -> str:
    """What features are kept in: as ``FitJob.store_dtype`` says, but never wider than they are computed."""
    return "float16" if "float16" in (computed, store_dtype) else "float32"


def recall(cache: Path, asked: PrefixQuery) -> PrefixRecord | None:
    """What was written down for ``asked`` and still holds; None where there is nothing that can be read, or a damaged
    note."""
    identity = identify(asked)
    if identity is None:
        return None
    try:
        note = json.loads(_file(cache, asked).read_text())
        if note["identity"] != identity or note["asked"] != dataclasses.asdict(asked):
            return None
        return PrefixRecord(**{**note["answer"], "row_shape": tuple(note["answer"]["row_shape"])})
    except (OSError, ValueError, KeyError, TypeError):  # a torn note is no note: it is written anew
        return None


def remember(cache: Path, asked: PrefixQuery, answer: PrefixRecord, identity: str | None) -> None:
    """Write down what ``asked`` came to. ``identity``: what ``identify`` said before the weights were read.

    Nothing is written for a backbone of the user's own, nor where the weight file has changed since, nor where the
    cache cannot be written: without a note the backbone is built to know.
    """
    if identity is None or identity != identify(asked) or recall(cache, asked) == answer:
        return
    note = {"identity": identity, "asked": dataclasses.asdict(asked), "answer": dataclasses.asdict(answer)}
    file = _file(cache, asked)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(file, json.dumps(note, sort_keys=True), durable=False)  # a torn note is written anew


def identify(asked: PrefixQuery) -> str | None:
    """What must be the same for a note to hold besides the question; None where no note ever does."""
    if asked.backbone not in BACKBONES:
        return None
    return json.dumps([importlib.metadata.version("keras"), _code(), _weights_identity(asked)])


def _weights_identity(asked: PrefixQuery) -> Any:
    """The file that the weights are read from, its size and its time of change; a name where there is no file."""
    if asked.weights in ("imagenet", "none"):
        return asked.weights
    path, row = Path(asked.weights), backbone(asked.backbone)
    if not path.is_file():
        if not row.files:
            return "none"
        path = weight_file(row, path, asked.image_size)
    about = path.stat()
    return [str(path.resolve()), about.st_size, about.st_mtime_ns]


@functools.cache
def _code() -> str:
    """Digest of the modules that build a backbone, as they are on disk: this package and the table of backbones."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for file in (here.parent / "backbones.py", here.parent / "code_digest.py", *sorted(here.glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _file(cache: Path, asked: PrefixQuery) -> Path:
    text = json.dumps(dataclasses.asdict(asked), sort_keys=True)
    return cache / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
