"""Predicting a split with several models under several policies at once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.examples import evaluation_examples
from tests.support.tiny_fits import CLASSES, job
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.images.crops import crops
from trainers.images.policies import POLICIES, distinct_crops
from trainers.networks.network import Architecture
from trainers.serving import crop_predictor
from trainers.serving.parts import PredictionPart, divide_rows, write_whole
from trainers.serving.predict import predict
from trainers.store.shelf import Shelf
from trainers.training.loop import open_fit, open_network, read_weights
from trainers.training.steps import prefix_of

FITS = {
    "one": {"seed": 1},
    "two": {"seed": 2},
    "arc": {"head": "arcface", "hidden": 8},
    "norm": {"head": "normface"},
    "frozen": {"unfrozen_layers": 0},
    "centre": {"view": "centre_crop"},
    "random": {"view": "random_crop"},
    "all": {"unfrozen_layers": "all"},
}
"""Four of one prefix; the others of another prefix or view each."""
TOGETHER = ("one", "two", "arc", "norm")
EVERY_POLICY = (*POLICIES, "random_5", "random_2")


@pytest.fixture(scope="module")
def fits(manifest, tmp_path_factory) -> dict[str, str]:
    """Finished fits."""
    folder = tmp_path_factory.mktemp("fits")
    for name, values in FITS.items():
        fit = open_fit(job(manifest, folder / "cache", output=str(folder / name), epochs=1, **values))
        fit.run_epoch()
        fit.finish()
    return {name: str(folder / name) for name in FITS}


def run(manifest: Path, models: dict[str, str], policies: Sequence[str] = EVERY_POLICY, **values) -> PredictionPart:
    """One job in this process."""
    job_values = {"models": models, "policies": list(policies), "manifest": str(manifest), "split": "test"}
    return predict(job_values | {"threads": 1, "gpu_memory_share": 0.0, "precision": "float32"} | values)


def plainly(manifest: Path, folder: str, policy_name: str, split: str = "test") -> np.ndarray:
    """The probabilities of one model under one policy, photo by photo: nothing shared, nothing kept."""
    fit, arrays = read_weights(Path(folder))
    network = open_network(fit, arrays, len(CLASSES))
    prefix, part = prefix_of(network.architecture.prefix), Manifest.read(manifest).split(split)
    size = network.architecture.prefix.image_size
    rows = [
        network.predict(prefix(crops(path, size, fit.config.view, policy_name, sha256))).mean(0)
        for path, sha256 in zip(part.paths(), part.table["sha256"], strict=True)
    ]
    return np.array(rows)


@pytest.mark.parametrize("names", [TOGETHER, ("frozen",), ("centre",), ("random",), ("all",)])
def test_all_policies_at_once_are_as_the_plain_way(manifest, fits, tmp_path, names):
    part = run(manifest, {n: fits[n] for n in names}, cache=str(tmp_path))
    assert list(part.probabilities) == list(EVERY_POLICY)
    seen = 0
    for policy_name, of_models in part.probabilities.items():
        assert list(of_models) == list(names)
        for name, found in of_models.items():
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, plainly(manifest, fits[name], policy_name), atol=1e-6)
            seen += 1
    assert seen == len(names) * len(EVERY_POLICY)
    test = Manifest.read(manifest).split("test")
    assert part.sha256.tolist() == test.table["sha256"].tolist()
    np.testing.assert_array_equal(part.labels, test.labels())
    different = [part.probabilities["flip"][name] for name in names]
    assert not any(np.allclose(different[0], other) for other in different[1:])


def test_a_policy_of_ones_own_shares_the_crops_of_others(manifest, fits):
    own = "tests.support.tiny_fits:OWN_POLICY"
    part = run(manifest, {"one": fits["one"]}, ["whole", own])
    assert part.computed == 12 * 3
    assert (part.precision, part.device) == ("float32", "cpu")
    np.testing.assert_allclose(part.probabilities[own]["one"], plainly(manifest, fits["one"], own), atol=1e-6)


def test_each_photo_is_decoded_once_and_each_crop_computed_once(manifest, fits):
    part = run(manifest, {n: fits[n] for n in TOGETHER})
    assert len(distinct_crops(EVERY_POLICY)) == 21
    assert (part.decoded, part.computed, part.read) == (12, 12 * 21, 0)


def keep_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a tiny network are quicker to compute than to keep; here they are kept all the same."""
    monkeypatch.setattr(crop_predictor, "MAX_CROPS_WRITE_SHARE", 1e9)


def test_what_is_in_the_store_is_read_and_the_figures_stay(manifest, fits, tmp_path, monkeypatch):
    keep_everything(monkeypatch)
    cache = {"cache": str(tmp_path / "cache")}
    first = run(manifest, {"one": fits["one"]}, ["whole", "ten_crop"], **cache)
    assert (first.decoded, first.computed, first.read) == (12, 12 * 11, 0)
    more = run(manifest, {"two": fits["two"], "arc": fits["arc"]}, EVERY_POLICY, **cache)
    assert (more.decoded, more.computed, more.read) == (12, 12 * 10, 12 * 11)
    again = run(manifest, {n: fits[n] for n in TOGETHER}, EVERY_POLICY, **cache)
    assert (again.decoded, again.computed, again.read) == (0, 0, 12 * 21)
    live = run(manifest, {n: fits[n] for n in TOGETHER}, EVERY_POLICY, share=False, **cache)
    assert (live.decoded, live.computed, live.read) == (12, 12 * 21, 0)
    for policy_name in EVERY_POLICY:
        for name in TOGETHER:
            expected = live.probabilities[policy_name][name]
            np.testing.assert_allclose(again.probabilities[policy_name][name], expected, atol=1e-6)
            if name in more.probabilities[policy_name]:
                np.testing.assert_allclose(more.probabilities[policy_name][name], expected, atol=1e-6)
        assert again.shared_seconds[policy_name] > 0, "read from the store, charged as if computed"


def test_whole_images_of_a_search_are_read_where_crops_are_not_kept(manifest, fits, tmp_path, monkeypatch):
    fit = open_fit(job(manifest, tmp_path / "cache", seed=1, epochs=1))
    fit.run_epoch()
    monkeypatch.setattr(Shelf, "has_room_for", lambda shelf, keys, row_bytes: False)
    monkeypatch.setattr(crop_predictor, "DISK_BYTES_PER_S", 1e15)
    found = run(manifest, {"one": fits["one"]}, split="validation", cache=str(tmp_path / "cache"))
    assert (found.decoded, found.computed, found.read) == (15, 15 * 20, 15)
    expected = plainly(manifest, fits["one"], "whole", "validation")
    np.testing.assert_allclose(found.probabilities["whole"]["one"], expected, atol=1e-6)
    assert run(manifest, {"one": fits["one"]}, cache=str(tmp_path / "cache")).read == 0, "test was never stored"


@pytest.mark.parametrize(
    ("crops_share", "whole_share", "without_whole", "kept"),
    [(1.0, 1.0, False, 21), (0.0, 1.0, False, 1), (0.0, 1.0, True, 0), (0.0, 0.0, False, 0)],
)
def test_what_is_kept_depends_on_what_keeping_costs(
    manifest, fits, tmp_path, monkeypatch, crops_share, whole_share, without_whole, kept
):
    monkeypatch.setattr(crop_predictor, "DISK_BYTES_PER_S", 1e15)
    monkeypatch.setattr(crop_predictor, "MAX_CROPS_WRITE_SHARE", crops_share)
    monkeypatch.setattr(crop_predictor, "MAX_WHOLE_WRITE_SHARE", whole_share)
    policies = ["ten_crop"] if without_whole else EVERY_POLICY
    for _ in range(2):
        part = run(manifest, {"one": fits["one"]}, policies, cache=str(tmp_path / "cache"))
    assert part.read == 12 * kept


def test_crops_share_are_found_by_trials_as_whole_images(manifest, fits, tmp_path, monkeypatch):
    """The whole image's row lies where a trial looks for it."""
    keep_everything(monkeypatch)
    run(manifest, {"one": fits["one"]}, ["whole"], split="validation", cache=str(tmp_path / "cache"))
    config = job(manifest, tmp_path / "cache").config
    architecture = Architecture.of(config, "none", len(CLASSES))
    part = Manifest.read(manifest).split("validation")
    shelf = Shelf(tmp_path / "cache", "features", {**prefix_of(architecture.prefix).description(), "view": "squash"})
    assert shelf.count(part.table["sha256"].tolist()) == 15
    evaluation_examples(part, config, prefix_of(architecture.prefix), tmp_path / "cache")
    assert not (tmp_path / "cache" / "images").exists(), "nothing had to be decoded"


def test_crops_that_find_no_room_are_computed_all_the_same(manifest, fits, tmp_path, monkeypatch):
    """Each once, whether it was kept or not."""
    keep_everything(monkeypatch)
    expected = run(manifest, {n: fits[n] for n in TOGETHER})
    monkeypatch.setattr(Shelf, "has_room_for", lambda shelf, keys, row_bytes: True)
    monkeypatch.setenv("ORCH_CACHE_GB", "0.0006")  # three or four of twelve images
    found = run(manifest, {n: fits[n] for n in TOGETHER}, cache=str(tmp_path / "cache"))
    assert (found.computed, found.read) == (12 * 21, 0)
    assert list((tmp_path / "cache").glob("features/*/*.keys"))
    for policy_name in EVERY_POLICY:
        for name in TOGETHER:
            np.testing.assert_allclose(
                found.probabilities[policy_name][name], expected.probabilities[policy_name][name], atol=1e-6
            )


def test_maps_of_a_float16_network_are_read_where_trials_keep_them(manifest, fits, tmp_path, monkeypatch):
    asked = {"split": "validation", "precision": "mixed_float16", "cache": str(tmp_path)}
    expected = run(manifest, {"one": fits["one"]}, ["whole"], share=False, **asked).probabilities["whole"]["one"]
    open_fit(dataclasses.replace(job(manifest, tmp_path), precision="mixed_float16"))
    keep_everything(monkeypatch)
    found = run(manifest, {"one": fits["one"]}, ["whole", "flip"], **asked)
    assert (found.computed, found.read) == (15, 15)  # mirror images, whole ones
    np.testing.assert_allclose(found.probabilities["whole"]["one"], expected, atol=2e-3)
    again = run(manifest, {"one": fits["one"]}, ["whole", "flip"], **asked)
    assert (again.computed, again.read) == (0, 30)
    # The same rows in batches of other sizes, which some processors round differently.
    np.testing.assert_allclose(again.probabilities["whole"]["one"], found.probabilities["whole"]["one"], rtol=1e-6)


def test_a_policy_is_charged_its_own_crops(manifest, fits, monkeypatch):
    ticks = itertools.count(step=0.001)
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))  # each step takes a millisecond
    monkeypatch.setattr("trainers.images.crops.time", clock)
    part = run(manifest, {n: fits[n] for n in ("one", "two")})
    for name in ("one", "two"):
        own = {policy_name: part.own_seconds[policy_name][name] for policy_name in EVERY_POLICY}
        assert own["ten_crop"] == pytest.approx(10 * own["whole"])
        assert own["flip"] == pytest.approx(2 * own["centre"])
    shared = part.shared_seconds
    assert shared["ten_crop"] > shared["flip"] > shared["whole"] > 0
    assert shared["random_5"] > shared["random_2"] > shared["centre"] > 0


def test_parts_make_up_the_whole(manifest, fits, tmp_path):
    models = {"one": fits["one"]}
    whole = run(manifest, models)
    parts = [run(manifest, models, part=part) for part in divide_rows(12, 21, 3, 50)]
    assert [(p.start, p.stop) for p in parts] == [(0, 4), (4, 8), (8, 12)]
    outputs = {p: {"one": str(tmp_path / f"{p}.npz")} for p in EVERY_POLICY}
    write_whole(outputs, parts[::-1])
    seen = 0
    for policy_name, expected in whole.probabilities.items():
        with np.load(tmp_path / f"{policy_name}.npz") as stored:
            np.testing.assert_allclose(stored["probabilities"], expected["one"], atol=1e-6)
            assert stored["sha256"].tolist() == whole.sha256.tolist()
            np.testing.assert_array_equal(stored["labels"], whole.labels)
            assert stored["seconds"] > stored["shared_seconds"] > 0
            seen += 1
    assert seen == len(EVERY_POLICY)


def test_whole_is_what_validation_saw(manifest, tmp_path):
    """The accuracy of the last epoch is that of the stored probabilities."""
    fit = open_fit(job(manifest, tmp_path / "cache", seed=1, output=str(tmp_path / "fit"), epochs=2))
    fit.run_epoch()
    metrics = fit.run_epoch()
    fit.finish()
    part = run(manifest, {"fit": str(tmp_path / "fit")}, ["whole"], split="validation", cache=str(tmp_path / "cache"))
    found = part.probabilities["whole"]["fit"]
    true_class = found[np.arange(len(part.labels)), part.labels]
    assert (found.argmax(1) == part.labels).mean() == pytest.approx(metrics.val_accuracy)
    assert -np.log(true_class).mean() == pytest.approx(metrics.val_loss, rel=1e-4)


@pytest.mark.parametrize("other", ["frozen", "centre"])
def test_models_of_different_prefixes_or_views_are_refused(manifest, fits, other):
    with pytest.raises(TrainerError, match="different prefixes or views cannot be predicted in one job"):
        run(manifest, {"one": fits["one"], other: fits[other]})


def test_what_cannot_be_predicted_is_a_sentence(manifest, fits, tmp_path):
    with pytest.raises(TrainerError, match=r"there is no trained model in .*nowhere"):
        run(manifest, {"one": str(tmp_path / "nowhere")})
    with pytest.raises(TrainerError, match="there is no policy 'hundred'"):
        run(manifest, {"one": fits["one"]}, ["hundred"])
    with pytest.raises(TrainerError, match="no model was given"):
        run(manifest, {})
    whole = Manifest.read(manifest)
    dataclasses.replace(whole, table=whole.split("train").table).write(tmp_path / "train.parquet")
    with pytest.raises(TrainerError, match="there is no image in the split test"):
        run(tmp_path / "train.parquet", {"one": fits["one"]})
    dataclasses.replace(whole, classes=(*CLASSES, "violet")).write(tmp_path / "more.parquet")
    with pytest.raises(TrainerError, match="stored weights do not fit"):
        run(tmp_path / "more.parquet", {"one": fits["one"]})
    table = whole.table.assign(sha256=["0" * 64] * len(whole.table))
    dataclasses.replace(whole, table=table).write(tmp_path / "changed.parquet")
    with pytest.raises(TrainerError, match=r"test-0.png changed since the manifest was made; put the file back"):
        run(tmp_path / "changed.parquet", {"one": fits["one"]})
    dataclasses.replace(whole, root=tmp_path).write(tmp_path / "moved.parquet")
    with pytest.raises(TrainerError, match=r"test-0.png cannot be read: there is no such file"):
        run(tmp_path / "moved.parquet", {"one": fits["one"]})
