"""Cross-validation as one fit: each fold is the fit it would be alone, and the figures are their means."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from tests.support.examples import evaluation_examples, training_examples
from tests.support.tiny_fits import CLASSES, figures, job, predict_into, write_manifest
from trainers.contract import EpochMetrics, FitJob
from trainers.data.manifest import Manifest
from trainers.errors import Diverged, TrainerError
from trainers.serving.parts import PredictionPart
from trainers.training.cross_validation import FoldedFit, mean_of_folds
from trainers.training.features import fit_examples
from trainers.training.loop import TrainingFit, open_fit, read_weights
from trainers.training.steps import prefix_of

FOLDS = 3
COUNTS = {"train": 12, "validation": 4, "test": 4}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("pictures"), COUNTS, folds=FOLDS)


def folded_job(manifest: Path, cache: Path, **values) -> FitJob:
    return dataclasses.replace(job(manifest, cache, **values), folds=FOLDS)


def alone(manifest: Path, fold: int, fit_job: FitJob, folder: Path) -> TrainingFit:
    """A plain fit on one fold's own split."""
    path = folder / f"fold-{fold}.parquet"
    one = Manifest.read(manifest).fold(fold)
    dataclasses.replace(one, table=one.table.assign(fold=0)).write(path)
    return open_fit(dataclasses.replace(fit_job, manifest=str(path), folds=0))


VALUES = {
    "plain": {"dropout": 0.3, "multiplier": 2},
    "weighted": {"balance": "class_weights", "head": "arcface"},
    "sampled": {"balance": "sampling", "batch_size": 7},
    "cropped": {"view": "random_crop", "unfrozen_layers": "all"},
    "drawn anew": {"draws": "fresh", "view": "random_crop", "multiplier": 1.5, "unfrozen_layers": "all"},
    "head first": {"warm_head": 2, "batch_norm": "measured", "ema": 0.9, "bottom_rate": 0.1},
    "mixed": {"mixup": 0.5, "cutmix": 1.0, "optimizer": "sgd"},
    "adjusted": {"head": "logit_adjusted"},
}


@pytest.mark.parametrize("name", VALUES)
def test_each_fold_is_the_fit_it_would_be_alone(manifest, cache, tmp_path, name):
    fit_job = folded_job(manifest, cache, seed=3, epochs=2, **VALUES[name])
    folded = open_fit(fit_job)
    assert isinstance(folded, FoldedFit)
    together = [folded.run_epoch() for _ in range(2)]
    for fold in range(1, FOLDS + 1):
        one = alone(manifest, fold, fit_job, tmp_path)
        each = [one.run_epoch() for _ in range(2)]
        assert [e.fold_val_accuracy[fold - 1] for e in together] == [e.val_accuracy for e in each]
        folded_state = folded._states[fold - 1]  # to the last bit of every weight and of the optimiser
        assert all(np.array_equal(a, b) for a, b in zip(folded_state, one.state(), strict=True))


def test_figures_are_the_means_of_the_folds(manifest, cache, tmp_path):
    fit_job = folded_job(manifest, cache, epochs=2)
    folded = open_fit(fit_job)
    together = [folded.run_epoch() for _ in range(2)][-1]
    epochs, images = [], []
    for fold in range(1, FOLDS + 1):
        one = alone(manifest, fold, fit_job, tmp_path)
        epochs.append([one.run_epoch() for _ in range(2)][-1])
        images.append(one.validation_images)
    assert sum(images) == 42
    assert together.epoch == 2
    assert together.loss == pytest.approx(np.mean([e.loss for e in epochs]))
    assert together.val_accuracy == pytest.approx(np.average([e.val_accuracy for e in epochs], weights=images))
    assert together.val_macro_f1 == pytest.approx(np.mean([e.val_macro_f1 for e in epochs]))


def epoch(val_accuracy: float, **values: float) -> EpochMetrics:
    plain = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_macro_f1": 0.5, "learning_rate": 0.1}
    rest = {"seconds": 2.0, "train_images_per_s": 10.0, "images_per_s": 5.0}
    return EpochMetrics(epoch=1, val_accuracy=val_accuracy, **plain | rest | values)


def test_a_fold_counts_by_its_images_in_validation_and_evenly_elsewhere():
    mean = mean_of_folds(
        [epoch(1.0, loss=1.0, val_loss=0.0, val_macro_f1=1.0), epoch(0.4, loss=2.0, val_loss=4.0, val_macro_f1=0.5)],
        [3, 1],
    )
    assert mean == EpochMetrics(1, 1.5, 0.5, 1.0, pytest.approx(0.85), 0.75, 0.1, 4.0, 10.0, 5.0, (1.0, 0.4))
    assert not mean.diverged
    assert mean_of_folds([epoch(1.0, loss=math.inf), epoch(1.0)], [1, 1]).diverged


def test_a_folded_fit_goes_on_as_if_never_interrupted(manifest, cache, tmp_path):
    fit_job = folded_job(manifest, cache, dropout=0.4, balance="sampling", mixup=0.2)
    fit = open_fit(fit_job)
    whole = [figures(fit.run_epoch()) for _ in range(3)]
    assert "fold_3_val_accuracy" in whole[0]
    first = open_fit(fit_job)
    seen = [figures(first.run_epoch()), figures(first.run_epoch())]
    first.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fold-1", "fold-2", "fold-3"]
    open_fit(folded_job(manifest, cache, mixup=1.0, seed=9)).run_epoch()  # another one has the network meanwhile
    resumed = open_fit(fit_job)
    resumed.restore(tmp_path)
    assert [*seen, figures(resumed.run_epoch())] == whole


def test_restoring_from_nowhere_is_a_sentence(manifest, cache, tmp_path):
    with pytest.raises(TrainerError, match=r"there is no saved training in .*fold-1"):
        open_fit(folded_job(manifest, cache)).restore(tmp_path)


@pytest.fixture(scope="module")
def finished(manifest, cache, tmp_path_factory) -> tuple[Path, FoldedFit, list[EpochMetrics]]:
    """The folder of two finished folded fits of one prefix, and the epochs of the first."""
    folder = tmp_path_factory.mktemp("finished")
    fits, epochs = [], []
    for name, values in (("one", {"seed": 1}), ("two", {"head": "normface"})):
        fit = open_fit(folded_job(manifest, cache, output=str(folder / name), epochs=2, **values))
        epochs.append([fit.run_epoch() for _ in range(2)])
        fit.finish()
        fits.append(fit)
    return folder, fits[0], epochs[0]


def test_finish_writes_a_folder_for_each_fold(manifest, finished):
    folder, fit, _ = finished
    assert sorted(p.name for p in (folder / "one").iterdir()) == ["fold-1", "fold-2", "fold-3"]
    states = []
    for fold in range(1, FOLDS + 1):
        written, arrays = read_weights(folder / "one" / f"fold-{fold}")
        assert written == dataclasses.replace(fit.job, output=str(folder / "one" / f"fold-{fold}"))
        states.append(np.concatenate([a.ravel() for a in arrays]))
    assert not np.array_equal(states[0], states[1])
    assert not np.array_equal(states[1], states[2])


def run_predict(
    manifest: Path, folder: Path, out: Path, names: tuple[str, ...], policy: str = "whole", **values
) -> PredictionPart:
    models = {name: str(folder / name) for name in names}
    outputs = {policy: {name: str(out / f"{name}.npz") for name in names}}
    job_values = {"models": models, "manifest": str(manifest), "split": "validation", "folds": FOLDS}
    return predict_into(outputs, **job_values | values)


def test_each_image_is_predicted_by_the_fit_that_did_not_train_on_it(manifest, finished, tmp_path):
    folder, _, epochs = finished
    answer = run_predict(manifest, folder, tmp_path, ("one", "two"))
    pool = Manifest.read(manifest).split("train")
    assert len(answer.labels) == 42 == len(pool.table)
    with np.load(tmp_path / "one.npz") as file:
        stored = dict(file)
    assert stored["sha256"].tolist() == pool.table["sha256"].tolist()
    np.testing.assert_array_equal(stored["labels"], pool.labels())
    hits = stored["probabilities"].argmax(1) == stored["labels"]
    fold = pool.table["fold"].to_numpy()
    by_fold = [hits[fold == number].mean() for number in range(1, FOLDS + 1)]
    assert by_fold == pytest.approx(epochs[-1].fold_val_accuracy)
    assert hits.mean() == pytest.approx(epochs[-1].val_accuracy)  # a mean over images, as the leaderboard's
    true_class = stored["probabilities"][np.arange(42), stored["labels"]]
    assert -np.log(true_class).mean() == pytest.approx(epochs[-1].val_loss, rel=1e-4)
    with np.load(tmp_path / "two.npz") as file:
        assert not np.allclose(file["probabilities"], stored["probabilities"])
    assert stored["seconds"] >= stored["shared_seconds"] > 0


def test_crops_of_folds_are_averaged_too(manifest, finished, tmp_path):
    run_predict(manifest, finished[0], tmp_path, ("one",), policy="ten_crop")
    with np.load(tmp_path / "one.npz") as file:
        assert file["probabilities"].shape == (42, len(CLASSES))
        np.testing.assert_allclose(file["probabilities"].sum(1), 1, atol=1e-5)


def test_what_folds_cannot_predict_is_a_sentence(manifest, finished, tmp_path):
    with pytest.raises(TrainerError, match="fits with folds can only predict the split validation, not test"):
        run_predict(manifest, finished[0], tmp_path, ("one",), split="test")
    with pytest.raises(TrainerError, match="4 folds were requested, but the manifest has 3"):
        run_predict(manifest, finished[0], tmp_path, ("one",), folds=4)
    with pytest.raises(TrainerError, match=r"there is no trained model in .*nowhere.*fold-1"):
        run_predict(manifest, finished[0], tmp_path, ("nowhere",))


def test_a_job_whose_folds_are_not_the_manifests_is_refused(manifest, cache, tmp_path):
    with pytest.raises(TrainerError, match=r"5 folds were asked for, but .*manifest.parquet has 3"):
        open_fit(dataclasses.replace(job(manifest, cache), folds=5))
    with pytest.raises(TrainerError, match="has none"):
        open_fit(dataclasses.replace(job(write_manifest(tmp_path), cache), folds=2))
    with pytest.raises(TrainerError, match="trains on the split train alone"):
        open_fit(dataclasses.replace(folded_job(manifest, cache), train_splits=("train", "validation")))


def test_a_diverged_fold_is_named_and_nothing_is_written(manifest, cache, tmp_path):
    values = {"learning_rate": 1e38, "clip_norm": 0, "warmup": 0, "optimizer": "sgd"}
    fit = open_fit(folded_job(manifest, cache, output=str(tmp_path / "fit"), **values))
    with pytest.raises(Diverged, match=r"^diverged: .* may help\. This was fold 1 of 3\.$"):
        fit.run_epoch()
    healthy = open_fit(folded_job(manifest, cache, output=str(tmp_path / "fit")))
    healthy._states[2][0][:] = math.nan
    with pytest.raises(Diverged, match="made weights non-finite"):
        healthy.finish()
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("view", ["squash", "random_crop"])
def test_folds_share_their_rows_and_read_what_each_would_alone(manifest, cache, view):
    whole = folded_job(manifest, cache, view=view, multiplier=2, unfrozen_layers="all")
    trial = whole.config
    prefix = prefix_of(trial.prefix_key("none"))
    folds = [Manifest.read(manifest).fold(number) for number in range(1, FOLDS + 1)]
    pairs = fit_examples(whole, Manifest.read(manifest), prefix)
    assert len(pairs) == FOLDS
    for fold, (train, validation) in zip(folds, pairs, strict=True):
        for examples, expected in (
            (train, training_examples(fold.split("train"), trial, prefix, cache)),
            (validation, evaluation_examples(fold.split("validation"), trial, prefix, cache)),
        ):
            places = np.arange(len(expected))
            np.testing.assert_array_equal(examples.rows.take(places), expected.rows.take(places))
            np.testing.assert_array_equal(examples.labels, expected.labels)
    sets = {id(examples.rows.rows) for pair in pairs for examples in pair}
    assert len(sets) == (1 if view == "squash" else 2)
