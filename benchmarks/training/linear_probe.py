"""The best linear probe over the backbones that are here, and a sweep's winner against it on the same test photos.

    python -m benchmarks.training.linear_probe probe clothing --to clothing.csv
    python -m benchmarks.training.linear_probe compare clothing.csv SWEEP

Needs the photos in ORCH_DATA and weights in ORCH_WEIGHTS. ``probe`` fits logistic regressions on the pooled features of
each frozen backbone at its native size, chooses backbone and penalty on validation, fits that one again on training and
validation photos, and writes its answers on the test split. ``compare`` needs a sweep over the same photos and split.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from benchmarks.training.five_splits import answers, difference_line
from benchmarks.training.words import DATA, manifest_of

PENALTIES = tuple(10.0**power for power in np.arange(-4, 2.5, 0.5))
"""Values of C, the inverse of the L2 penalty, of a logistic regression on standardised features."""
BATCH = 32


@dataclass(frozen=True)
class Probe:
    """A backbone and a penalty, and what a regression on the training photos reaches on validation."""

    backbone: str
    c: float
    correct: int
    total: int


def main() -> None:
    parser = argparse.ArgumentParser(description="The best linear probe, and a sweep's winner against it.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    of_probe = verbs.add_parser("probe")
    of_probe.add_argument("data", choices=DATA)
    of_probe.add_argument("--to", type=Path, required=True, help="the table of answers to write")
    of_compare = verbs.add_parser("compare")
    of_compare.add_argument("table", type=Path)
    of_compare.add_argument("sweep", type=Path)
    asked = parser.parse_args()
    for line in probe(asked.data, asked.to) if asked.verb == "probe" else compare(asked.table, asked.sweep):
        print(line, flush=True)


def probe(data: str, to: Path) -> Iterator[str]:
    """Yield the best probe of each backbone, and write the test answers of the best of all to ``to``."""
    from trainers.data.manifest import Manifest

    with TemporaryDirectory() as folder:
        manifest = Manifest.read(manifest_of(data, Path(folder)))
    labels, splits = manifest.labels(), manifest.table["split"].to_numpy()
    best: tuple[Probe, np.ndarray] | None = None
    for name in backbones_here():
        features = pooled_features(name, manifest.paths())
        found = max(probes(name, features, labels, splits), key=lambda each: (each.correct, -each.c))
        yield f"{name:20s} {found.correct / found.total:.4f} on validation, C {found.c:.3g}"
        if best is None or found.correct > best[0].correct:
            best = found, features
    if best is None:
        raise SystemExit("ORCH_WEIGHTS holds no weight file of a backbone.")
    chosen, features = best
    test = splits == "test"
    predicted = _fitted(chosen.c, features[~test], labels[~test]).predict(features[test])
    table = manifest.table[test][["sha256", "path", "group"]].assign(label=labels[test], predicted=predicted)
    table.to_csv(to, index=False)
    yield f"chosen: {chosen.backbone}, C {chosen.c:.3g}; test {(predicted == labels[test]).mean():.4f} of {test.sum()}"


def backbones_here() -> list[str]:
    """Names of the backbones whose weight files ORCH_WEIGHTS holds."""
    from trainers.backbones import BACKBONES, weight_file
    from trainers.errors import TrainerError

    found = []
    for name, row in BACKBONES.items():
        try:
            weight_file(row, Path(os.environ["ORCH_WEIGHTS"]), row.native_size)
        except TrainerError:
            continue
        found.append(name)
    return found


def pooled_features(name: str, paths: list[Path]) -> np.ndarray:
    """Mean over the last feature map of each photo, squashed to the backbone's native size, float32 (n, channels)."""
    import tensorflow as tf

    from trainers.backbones import backbone
    from trainers.images.decode import square
    from trainers.networks.backbone import build_backbone, preprocess

    row = backbone(name)
    size = row.native_size
    model = build_backbone(name, os.environ["ORCH_WEIGHTS"], size, "float32")
    run = tf.function(lambda images: tf.reduce_mean(model(preprocess(row, images), training=False), (1, 2)))
    found = []
    for begin in range(0, len(paths), BATCH):
        images = np.stack([square(path, size, "squash") for path in paths[begin : begin + BATCH]])
        found.append(run(tf.constant(images)).numpy())
    return np.concatenate(found)


def probes(name: str, features: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> Iterator[Probe]:
    """Yield a probe for each of ``PENALTIES``, fitted on the training photos."""
    train, validation = splits == "train", splits == "validation"
    for c in PENALTIES:
        fitted = _fitted(c, features[train], labels[train])
        correct = int((fitted.predict(features[validation]) == labels[validation]).sum())
        yield Probe(name, c, correct, int(validation.sum()))


def _fitted(c: float, features: np.ndarray, labels: np.ndarray):  # type: ignore[no-untyped-def]
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(features, labels)


def compare(table: Path, sweep: Path) -> Iterator[str]:
    """Yield the accuracies of both on the test photos, and their paired difference with its 95 % interval."""
    probed, won = pd.read_csv(table), answers(sweep)
    both = probed.merge(won, on="sha256", suffixes=("_probe", "_winner"))
    if not len(both) == len(probed) == len(won) or (both["label_probe"] != both["label_winner"]).any():
        raise SystemExit("the two were judged on different test photos or labels")
    right = [(both[f"predicted_{side}"] == both["label_probe"]).to_numpy() for side in ("probe", "winner")]
    yield f"probe {right[0].mean():.4f}, winner {right[1].mean():.4f}, {len(both)} photos"
    yield difference_line(right[0], right[1], both["group"].to_numpy())


if __name__ == "__main__":
    main()
