"""Crop policies: how many, which pixels, always the same; and predicting with several models at once."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_fits import CLASSES, job, write_manifest

from trainers.contract import TrainerError
from trainers.crops import crops, predict
from trainers.images import square
from trainers.manifest import Manifest
from trainers.policies import POLICIES, policy
from trainers.training import open_fit

SHA = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
NAMES = [*POLICIES, "random_1", "random_7"]


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("view", ["squash", "centre_crop", "random_crop"])
def test_number_size_and_repeatability(photo, name, view):
    made = crops(photo, 28, view, name, SHA)
    assert made.shape == (policy(name).crops, 28, 28, 3)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, crops(photo.read_bytes(), 28, view, name, SHA))
    assert len({crop.tobytes() for crop in made}) == len(made)


@pytest.mark.parametrize("name", NAMES)
def test_only_random_crops_depend_on_the_hash(photo, name):
    same = np.array_equal(crops(photo, 28, "squash", name, SHA), crops(photo, 28, "squash", name, OTHER))
    assert same == (not name.startswith("random"))


@pytest.mark.parametrize("name", NAMES)
def test_views_differ_and_a_random_one_becomes_the_centre(photo, name):
    squash, centre, random = (crops(photo, 28, v, name, SHA) for v in ("squash", "centre_crop", "random_crop"))
    assert not np.array_equal(squash, centre)
    np.testing.assert_array_equal(centre, random)


def test_whole_and_its_mirror_image(photo):
    whole = square(photo, 28, "squash")
    np.testing.assert_array_equal(crops(photo, 28, "squash", "whole", SHA), whole[None])
    np.testing.assert_array_equal(crops(photo, 28, "squash", "flip", SHA), [whole, whole[:, ::-1]])


def test_ten_crops_lie_in_the_corners_and_the_centre(photo):
    canvas = square(photo, 32, "squash")  # 28 / 0.875
    expected = [canvas[:28, :28], canvas[:28, 4:], canvas[4:, :28], canvas[4:, 4:], canvas[2:30, 2:30]]
    made = crops(photo, 28, "squash", "ten_crop", SHA)
    np.testing.assert_array_equal(made[:5], expected)
    np.testing.assert_array_equal(made[5:], [crop[:, ::-1] for crop in expected])
    np.testing.assert_array_equal(crops(photo, 28, "squash", "centre", SHA)[0], expected[4])


def test_the_pyramid_looks_closer_and_closer(photo):
    canvas = Image.fromarray(square(photo, 32, "squash"))
    made = crops(photo, 28, "squash", "pyramid", SHA)
    for crop, mirrored, box in zip(made[:3], made[3:], [(0, 0, 32, 32), (2, 2, 30, 30), (4, 4, 28, 28)], strict=True):
        np.testing.assert_array_equal(crop, canvas.crop(box).resize((28, 28), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(mirrored, crop[:, ::-1])


def test_fewer_random_crops_are_the_first_of_more(photo):
    many = crops(photo, 28, "squash", "random_7", SHA)
    np.testing.assert_array_equal(crops(photo, 28, "squash", "random_3", SHA), many[:3])


def test_random_crops_stay_inside_and_are_of_seven_tenths_or_more():
    """A picture whose red rises from left to right and green from top to bottom tells where a crop was cut."""
    ramp = np.zeros((256, 256, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(256)[None], np.arange(256)[:, None]
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    made = crops(file.getvalue(), 224, "squash", "random_50", SHA).astype(int)
    for axis, channel in ((2, 0), (1, 1)):
        low, high = made[..., channel].min((1, 2)), made[..., channel].max((1, 2))
        sides = (high - low + 1) / 256
        assert sides.min() > 0.69
        assert sides.max() > 0.95
        assert low.min() < 10
        assert high.max() > 245
        assert (np.diff(made[..., channel], axis=axis) >= 0).all()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def fits(manifest, tmp_path_factory) -> dict[str, str]:
    """Finished fits of one prefix: two seeds and another head; and one of another prefix, one of another view."""
    folder = tmp_path_factory.mktemp("fits")
    wanted = {
        "one": {"seed": 1},
        "two": {"seed": 2},
        "arc": {"head": "arcface", "hidden": 8},
        "frozen": {"unfrozen_layers": 0},
        "centre": {"view": "centre_crop"},
    }
    for name, values in wanted.items():
        fit = open_fit(job(manifest, folder / "cache", output=str(folder / name), epochs=1, **values))
        fit.run_epoch()
        fit.finish()
    return {name: str(folder / name) for name in wanted}


def run(manifest: Path, models: dict[str, str], out: Path, policy_name: str = "flip", split: str = "test") -> dict:
    job_values = {
        "models": models,
        "outputs": {name: str(out / f"{name}.npz") for name in models},
        "manifest": str(manifest),
        "split": split,
        "policy": policy_name,
        **{"threads": 1, "gpu_memory_share": 0.0, "precision": "float32"},
    }
    return predict(job_values)


def stored(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


@pytest.mark.parametrize("policy_name", ["whole", "ten_crop", "random_3"])
def test_models_of_one_prefix_together_are_as_one_by_one(manifest, fits, tmp_path, policy_name):
    names = ("one", "two", "arc")
    answer = run(manifest, {n: fits[n] for n in names}, tmp_path / "together", policy_name)
    assert answer["images"] == 12
    assert sorted(answer["seconds"]) == sorted(names)
    for name in names:
        run(manifest, {name: fits[name]}, tmp_path / "alone", policy_name)
        together, alone = stored(tmp_path / "together", name), stored(tmp_path / "alone", name)
        np.testing.assert_allclose(together["probabilities"], alone["probabilities"], atol=1e-6)
        np.testing.assert_allclose(together["probabilities"].sum(1), 1, atol=1e-5)
        assert together["probabilities"].dtype == np.float32
        assert together["seconds"] >= together["shared_seconds"] > 0
        assert together["seconds"] == pytest.approx(answer["seconds"][name])
    test = Manifest.read(manifest).split("test")
    assert together["sha256"].tolist() == test.table["sha256"].tolist()
    np.testing.assert_array_equal(together["labels"], test.labels())
    different = [stored(tmp_path / "together", name)["probabilities"] for name in names]
    assert not np.allclose(different[0], different[1])


def test_whole_is_what_validation_saw(manifest, fits, tmp_path):
    """The accuracy of the last epoch is that of the stored probabilities."""
    fit = open_fit(job(manifest, tmp_path / "cache", seed=1, output=str(tmp_path / "fit"), epochs=2))
    fit.run_epoch()
    metrics = fit.run_epoch()
    fit.finish()
    run(manifest, {"fit": str(tmp_path / "fit")}, tmp_path, "whole", "validation")
    arrays = stored(tmp_path, "fit")
    true_class = arrays["probabilities"][np.arange(len(arrays["labels"])), arrays["labels"]]
    assert (arrays["probabilities"].argmax(1) == arrays["labels"]).mean() == pytest.approx(metrics.val_accuracy)
    assert -np.log(true_class).mean() == pytest.approx(metrics.val_loss, rel=1e-4)


@pytest.mark.parametrize("other", ["frozen", "centre"])
def test_models_of_different_prefixes_or_views_are_refused(manifest, fits, tmp_path, other):
    with pytest.raises(TrainerError, match="different prefixes or views cannot be predicted in one job"):
        run(manifest, {"one": fits["one"], other: fits[other]}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_predicted_is_a_sentence(manifest, fits, tmp_path):
    with pytest.raises(TrainerError, match=r"there is no trained model in .*nowhere"):
        run(manifest, {"one": str(tmp_path / "nowhere")}, tmp_path)
    with pytest.raises(TrainerError, match="there is no policy 'hundred'"):
        run(manifest, {"one": fits["one"]}, tmp_path, "hundred")
    with pytest.raises(TrainerError, match="no model was named"):
        run(manifest, {}, tmp_path)
    whole = Manifest.read(manifest)
    dataclasses.replace(whole, table=whole.split("train").table).write(tmp_path / "train.parquet")
    with pytest.raises(TrainerError, match="there is no image in the split test"):
        run(tmp_path / "train.parquet", {"one": fits["one"]}, tmp_path)
    dataclasses.replace(whole, classes=(*CLASSES, "violet")).write(tmp_path / "more.parquet")
    with pytest.raises(TrainerError, match="stored weights do not fit"):
        run(tmp_path / "more.parquet", {"one": fits["one"]}, tmp_path)
