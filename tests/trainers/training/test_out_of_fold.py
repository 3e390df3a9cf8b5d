"""Out-of-fold predictions: no photo is predicted by a classifier that saw it or a copy of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from orchestrator.commands.data.confident_learning import find_suspects
from tests.support.tiny_fits import write_manifest
from trainers.config import TrialConfig
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.training.out_of_fold import cross_predict, predict_out_of_fold


def job(manifest: Path, cache: Path, output: Path, weights: str = "none", **values: object) -> dict[str, object]:
    return {
        "manifest": str(manifest),
        "splits": ["train", "validation"],
        "config": TrialConfig(**{"backbone": "small_cnn", **values}).to_dict(),  # type: ignore[arg-type]
        "weights": weights,
        "cache": str(cache),
        "threads": 1,
        "gpu_memory_share": 0.0,
        "precision": "float32",
        "output": str(output),
    }


def test_a_copy_in_the_same_group_does_not_give_its_label_away() -> None:
    """Pairs of equal rows with random labels: only a classifier that saw the twin could know them."""
    draw = np.random.default_rng(0)
    features = np.repeat(draw.normal(size=(60, 1500)), 2, axis=0)
    labels = np.repeat(draw.integers(0, 2, 60), 2)
    groups = [str(i // 2) for i in range(120)]
    probabilities = cross_predict(features, labels, groups, 2)
    assert probabilities.shape == (120, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert 0.3 < (probabilities.argmax(1) == labels).mean() < 0.7
    torn = cross_predict(features, labels, [str(i) for i in range(120)], 2)
    assert (torn.argmax(1) == labels).mean() > 0.9


def test_a_class_of_one_photo_is_a_sentence_and_an_absent_class_has_probability_0() -> None:
    features = np.random.default_rng(0).normal(size=(21, 4))
    labels = np.array([0] * 10 + [2] * 11)
    probabilities = cross_predict(features, labels, [str(i) for i in range(21)], 4)
    assert (probabilities[:, [1, 3]] == 0).all()
    labels[-1] = 1
    with pytest.raises(TrainerError, match="a class has a single photo"):
        cross_predict(features, labels, [str(i) for i in range(21)], 4)


def test_every_photo_of_train_and_validation_is_predicted(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "photos")
    output = tmp_path / "out.npz"
    answer = predict_out_of_fold(job(manifest, tmp_path / "cache", output, unfrozen_layers="all", multiplier=2.0))
    wanted = Manifest.read(manifest).split("train", "validation")
    with np.load(output) as stored:
        probabilities = stored["probabilities"]
    assert probabilities.shape == (len(wanted.table), 3)
    assert answer["photos"] == len(wanted.table)
    assert answer["accuracy"] == pytest.approx((probabilities.argmax(1) == wanted.labels()).mean())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_planted_errors_in_clothing_are_most_of_the_first_suspects(tmp_path: Path) -> None:
    """3 % wrong labels in its training photos: of the first 92 suspects at least 55 are planted."""
    data, weights = os.environ.get("ORCH_DATA"), os.environ.get("ORCH_WEIGHTS")
    if not data or not weights:
        pytest.skip("ORCH_DATA and ORCH_WEIGHTS name the real photos and weights")
    manifest, _ = build_manifest(DataSource(str(Path(data) / "clothing"), None, tmp_path / "cache"))
    table, draw = manifest.table.copy(), np.random.default_rng(2026)
    train = np.flatnonzero(table["split"] == "train")
    planted = draw.choice(train, round(0.03 * len(train)), replace=False)
    for row in planted:
        others = [label for label in manifest.classes if label != table.at[row, "label"]]
        table.at[row, "label"] = others[int(draw.integers(len(others)))]
    wrong = Manifest(manifest.root, manifest.classes, manifest.seed, table)
    wrong.write(tmp_path / "wrong.parquet")
    values = {"backbone": "mobilenet_1.0", "image_size": 160}
    asked = job(tmp_path / "wrong.parquet", tmp_path / "cache", tmp_path / "out.npz", weights, **values)
    predict_out_of_fold(asked | {"splits": ["train"]})
    own = wrong.split("train")
    with np.load(tmp_path / "out.npz") as stored:
        found = find_suspects(own.table["path"].tolist(), own.labels(), stored["probabilities"], own.classes)
    paths = set(table["path"].iloc[planted])
    assert len(planted) == 92
    hits = len(paths & set(found["path"].head(92)))
    print(f"{hits} of the first 92 of {len(found)} suspects are planted")
    assert hits >= 55
