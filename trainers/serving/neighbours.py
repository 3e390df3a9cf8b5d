"""How far photos are from those that a served model was trained on, in the features of its own network.

The distance of a photo is that to its k-th nearest training photo, r_k(z) = ||z - z_(k)||, with z = f / ||f|| and f the
input of the head for the whole photo (Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors",
ICML, section 3). As there, part of the training photos is enough. A served folder holds theirs in ``NEIGHBOURS_FILE``;
one from before 2026-12 has none. Imports TensorFlow only where a network runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainers.config import evaluated
from trainers.errors import TrainerError
from trainers.files.arrays import write_arrays
from trainers.images.crops import cut
from trainers.images.policies import WHOLE

if TYPE_CHECKING:
    from trainers.data.manifest import Manifest
    from trainers.serving.model import ServedModel

NEIGHBOURS_FILE = "neighbours.npz"
"""Name of the file in a served folder: ``vectors``, float16 (photos, width), and ``k``."""
MOST_VECTORS = 2_000
"""Maximum training photos whose features are kept: 4 MB at 1,024 features."""
K = 5
"""Maximum rank of the neighbour: more than one, so that one odd training photo is no proof. The smallest class that was
drawn bounds it too, or the photos of that class would be as far as strangers."""
ROWS_AT_ONCE = 512
"""Photos whose distances to all vectors are in memory together."""
PHOTOS_AT_ONCE = 16
"""Photos that run through the network together."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Normalised features of training photos, ``vectors``: float16 (photos, width)."""

    vectors: np.ndarray
    k: int

    @classmethod
    def of(cls, features: np.ndarray, labels: Sequence[str]) -> Neighbours:
        """``features``: of training photos, (photos, width), at least one; ``labels``: theirs."""
        return cls(normalised(features).astype(np.float16), min(K, *Counter(labels).values()))

    @classmethod
    def read(cls, folder: Path) -> Neighbours | None:
        """Read those of a served folder; None if it has none. Raises one of ``trainers.files.arrays.DAMAGED``."""
        path = folder / NEIGHBOURS_FILE
        if not path.is_file():
            return None
        with np.load(path) as stored:
            vectors, k = stored["vectors"], int(stored["k"])
        if vectors.ndim != 2 or not 1 <= k <= len(vectors) or not np.isfinite(vectors).all():
            raise ValueError(f"{path} does not hold features")
        return cls(vectors, k)

    def write(self, folder: Path) -> None:
        write_arrays(folder / NEIGHBOURS_FILE, {"vectors": self.vectors, "k": self.k})

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Return the distance of each photo from 0 to 2, float64 (photos,). ``features``: (photos, width)."""
        known, wanted = self.vectors.astype(np.float32), normalised(features)
        out = np.zeros(len(wanted))
        for start in range(0, len(wanted), ROWS_AT_ONCE):
            rows = wanted[start : start + ROWS_AT_ONCE]
            squared = (rows**2).sum(1)[:, None] + (known**2).sum(1) - 2 * rows @ known.T
            out[start : start + len(rows)] = np.sqrt(np.partition(squared, self.k - 1)[:, self.k - 1].clip(0))
        return out


def normalised(features: np.ndarray) -> np.ndarray:
    """Return rows of length 1, float32; a row of zeros stays."""
    rows = np.asarray(features, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def served_distances(model: ServedModel, images: Sequence[bytes]) -> np.ndarray:
    """Return the distance of each of the encoded ``images``, float64 (images,); NaN if the model has no neighbours.

    Raises Unreadable for one that cannot be decoded.
    """
    if model.neighbours is None:
        return np.full(len(images), np.nan)
    network = model.networks[0]

    def whole(image: bytes) -> np.ndarray:
        return cut(image, model.image_size, model.view, (WHOLE,), hashlib.sha256(image).hexdigest())

    found = []
    with ThreadPoolExecutor(min(PHOTOS_AT_ONCE, max(1, len(images)))) as pool:
        for start in range(0, len(images), PHOTOS_AT_ONCE):
            pixels = np.concatenate(list(pool.map(whole, images[start : start + PHOTOS_AT_ONCE])))
            found.append(model.neighbours.distances(network.head_input(model.prefix(pixels))))
    return np.concatenate(found) if found else np.zeros(0)


class _Features:
    """A network whose prediction is the input of its head."""

    def __init__(self, network: Any) -> None:
        self.predict = network.head_input


def write_neighbours(job: Mapping[str, Any]) -> dict[str, Any]:
    """Write the neighbours of a served folder, from its first network; a job for a worker.

    ``job``: ``fit`` (the folder of that network's finished fit), ``output`` (the served folder), ``manifest``,
    ``cache``, ``share``, ``threads``, ``gpu_memory_share``. Returns ``distances``, of the test photos in the order of
    the manifest. Where a photo can no longer be read, ``reason`` instead, and nothing is written.
    """
    from trainers.data.manifest import Manifest
    from trainers.serving.predict import row_shelf
    from trainers.training import device
    from trainers.training.loop import open_network, read_weights
    from trainers.training.steps import prefix_of

    device.prepare(job["threads"], job["gpu_memory_share"], "float32")
    fit, arrays = read_weights(Path(job["fit"]))
    manifest = Manifest.read(Path(job["manifest"]))
    network = open_network(fit, arrays, len(manifest.classes))
    prefix, view = prefix_of(network.architecture.prefix), evaluated(fit.config.framing)
    shelf = row_shelf(job, prefix, view)
    try:
        drawn = _drawn(manifest, fit.train_splits)
        trained = _features(drawn, (network, prefix, view), shelf)
        tested = _features(manifest.split("test"), (network, prefix, view), shelf)
    except TrainerError as error:
        return {"reason": str(error)}
    neighbours = Neighbours.of(trained, drawn.table["label"].tolist())
    neighbours.write(Path(job["output"]))
    return {"distances": neighbours.distances(tested).tolist()}


def _drawn(manifest: Manifest, splits: Sequence[str]) -> Manifest:
    """Return up to ``MOST_VECTORS`` photos of ``splits``, drawn by their content: the same in every run.

    ``K`` of each class come first, so that none is missing.
    """
    table = manifest.table[manifest.table["split"].isin(splits)]
    order = np.argsort([hashlib.sha256(f"neighbours {sha}".encode()).hexdigest() for sha in table["sha256"]])
    drawn = table.iloc[order]
    first = drawn.groupby("label").cumcount().clip(upper=K).to_numpy().argsort(kind="stable")
    return dataclasses.replace(manifest, table=drawn.iloc[first[:MOST_VECTORS]].sort_values("path", ignore_index=True))


def _features(photos: Manifest, network: tuple[Any, Any, str], shelf: Any) -> np.ndarray:
    """Return the input of the head for each whole photo, float32 (photos, width). ``network``: it, prefix and view."""
    from trainers.serving.crop_predictor import CropPredictor, SplitImages, TrainedModel, prefix_sample_s

    its, prefix, view = network
    hashes = photos.table["sha256"].tolist()
    found = np.zeros((len(hashes), 1, its.head_width), np.float32)
    features: Any = _Features(its)
    models = [TrainedModel("features", Path(), features, found)]
    images = SplitImages(photos.paths(), hashes, (WHOLE,), prefix.key.image_size, view)
    predictor = CropPredictor(images, prefix, models, prefix_sample_s(prefix, models))
    predictor.run(np.arange(len(hashes)), shelf, predictor.kept(shelf))
    return found[:, 0]
