"""Out-of-fold predictions for labelled photos: a linear classifier on stored features, which never saw the photo.

Costs one pass through the frozen backbone, which the store shares with the sweep's trials, and a fit for each fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainers.config import TrialConfig, canonical
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write
from trainers.training import device
from trainers.training.examples import evaluation_set
from trainers.training.features import ReadSettings, read_sets
from trainers.training.steps import prefix_of

FOLDS = 5
INVERSE_PENALTY = 0.003
"""scikit-learn's C on standardised features: a strong penalty, since a classifier that fits wrong labels finds none."""
MAX_ITERATIONS = 200


def predict_out_of_fold(job: Mapping[str, Any]) -> dict[str, Any]:
    """Predict every photo of ``job["splits"]`` by a classifier trained on the other folds; a job for a worker.

    ``job``: ``manifest``; ``splits``; ``config`` (``TrialConfig`` as a dict), of which the backbone, the image size and
    the view count; ``weights``, ``cache``, ``threads``, ``gpu_memory_share``, ``precision`` as in a ``FitJob``;
    ``output``, an .npz file that gets ``probabilities``, float64 (photos, classes), in the manifest's order.

    Multinomial logistic regression on standardised features, pooled over space; ``FOLDS`` stratified folds that keep
    groups together. Returns ``photos`` and ``accuracy``, the share of labels predicted. Raises TrainerError if a class
    has fewer groups than there are folds to train on (2).
    """
    given = TrialConfig(**job["config"])
    kept = ("backbone", "image_size", "view", "decode", "pooling")
    config = canonical({name: getattr(given, name) for name in kept})
    precision = device.prepare(job["threads"], job["gpu_memory_share"], job["precision"])
    manifest = Manifest.read(Path(job["manifest"])).split(*job["splits"])
    prefix = prefix_of(config.prefix_key(job["weights"], precision), Path(job["cache"]))
    reading = ReadSettings(threads=job["threads"])
    (rows,) = read_sets([evaluation_set(manifest, config)], config, prefix, Path(job["cache"]), reading)
    features = _pooled(rows.rows.take(np.arange(len(rows))))
    probabilities = cross_predict(features, rows.labels, manifest.table["group"].tolist(), len(manifest.classes))
    with atomic_write(Path(job["output"])) as temporary, temporary.open("wb") as file:
        np.savez(file, probabilities=probabilities)
    return {"photos": len(rows), "accuracy": float((probabilities.argmax(1) == rows.labels).mean())}


def cross_predict(features: np.ndarray, labels: np.ndarray, groups: list[str], classes: int) -> np.ndarray:
    """Return float64 (n, classes): each row's probabilities by a classifier trained without its fold.

    ``features``: float (n, width). A class that a fold's training part lacks has probability 0 there. Raises
    TrainerError if a class is in one group alone, so that it could not be learnt without it.
    """
    from sklearn.linear_model import LogisticRegression  # scikit-learn: seconds to import
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sizes = [len({g for g, own in zip(groups, labels, strict=True) if own == label}) for label in np.unique(labels)]
    if min(sizes) < 2:
        raise TrainerError("a class has a single photo, or copies of a single one; add photos, or take the class out.")
    folds = StratifiedGroupKFold(min(FOLDS, *sizes), shuffle=True, random_state=0)
    out = np.zeros((len(labels), classes))
    for train, held_out in folds.split(features, labels, groups):
        regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=MAX_ITERATIONS)
        model = make_pipeline(StandardScaler(), regression).fit(features[train], labels[train])
        out[np.ix_(held_out, model.classes_)] = model.predict_proba(features[held_out])
    return out


def _pooled(features: np.ndarray) -> np.ndarray:
    """float32 (n, width): the mean over space of features that have one."""
    return features.reshape(len(features), -1, features.shape[-1]).mean(1, dtype=np.float32)
