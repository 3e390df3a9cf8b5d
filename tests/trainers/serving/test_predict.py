"""Crop policies: how many, which pixels, always the same; and predicting with several models at once."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny_fits import CLASSES, job
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.images.crops import Clock, crops, cut
from trainers.images.decode import square
from trainers.images.policies import POLICIES, crop_names, distinct_crops, policy
from trainers.networks.network import Architecture
from trainers.serving import predict as predicting
from trainers.serving.parts import PredictionPart, divide_rows, write_whole
from trainers.serving.predict import open_network, predict
from trainers.store.shelf import Shelf
from trainers.training.features import evaluation_examples
from trainers.training.loop import open_fit, read_weights
from trainers.training.steps import prefix_of

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


@pytest.mark.parametrize("view", ["squash", "centre_crop"])
def test_crops_of_all_policies_cut_at_once_are_those_of_each(photo, view):
    names = distinct_crops(NAMES)
    assert len(names) == 21 + 2 == len(set(names))
    together = dict(zip(names, cut(photo, 28, view, names, SHA), strict=True))
    assert len({crop.tobytes() for crop in together.values()}) == len(names), "no two names show the same pixels"
    for name in NAMES:
        np.testing.assert_array_equal(crops(photo, 28, view, name, SHA), [together[n] for n in crop_names(name)])


def test_the_clock_charges_each_policy_what_it_needs(photo):
    clock = Clock()
    names = distinct_crops(["whole", "ten_crop", "random_3"])
    assert not clock.knows(names)
    for _ in range(3):
        with clock.measure("read"):
            pass
        cut(photo, 28, "squash", names, SHA, clock)
    assert clock.knows(names)
    assert not clock.knows(["closer"])
    centre, whole, random = (clock.seconds_an_image(crop_names(p)) for p in ("centre", "whole", "random_3"))
    assert clock.seconds_an_image(names) > random > centre > 0
    assert clock.seconds_an_image(crop_names("ten_crop")) > centre
    assert clock.seconds_an_image(names) < random + whole + clock.seconds_an_image(crop_names("ten_crop"))


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


def test_each_photo_is_decoded_once_and_each_crop_computed_once(manifest, fits):
    part = run(manifest, {n: fits[n] for n in TOGETHER})
    assert len(distinct_crops(EVERY_POLICY)) == 21
    assert (part.decoded, part.computed, part.read) == (12, 12 * 21, 0)


def keep_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a tiny network are quicker to compute than to keep; here they are kept all the same."""
    monkeypatch.setattr(predicting, "CROPS_KEPT", 1e9)


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
    monkeypatch.setattr(predicting.Shelf, "has_room_for", lambda shelf, keys, row_bytes: False)
    monkeypatch.setattr(predicting, "STORE_BYTES_PER_S", 1e15)
    found = run(manifest, {"one": fits["one"]}, split="validation", cache=str(tmp_path / "cache"))
    assert (found.decoded, found.computed, found.read) == (15, 15 * 20, 15)
    expected = plainly(manifest, fits["one"], "whole", "validation")
    np.testing.assert_allclose(found.probabilities["whole"]["one"], expected, atol=1e-6)
    assert run(manifest, {"one": fits["one"]}, cache=str(tmp_path / "cache")).read == 0, "test was never stored"


@pytest.mark.parametrize(
    ("crops_kept", "whole_kept", "without_whole", "kept"),
    [(1.0, 1.0, False, 21), (0.0, 1.0, False, 1), (0.0, 1.0, True, 0), (0.0, 0.0, False, 0)],
)
def test_what_is_kept_depends_on_what_keeping_costs(
    manifest, fits, tmp_path, monkeypatch, crops_kept, whole_kept, without_whole, kept
):
    monkeypatch.setattr(predicting, "STORE_BYTES_PER_S", 1e15)
    monkeypatch.setattr(predicting, "CROPS_KEPT", crops_kept)
    monkeypatch.setattr(predicting, "WHOLE_KEPT", whole_kept)
    policies = ["ten_crop"] if without_whole else EVERY_POLICY
    for _ in range(2):
        part = run(manifest, {"one": fits["one"]}, policies, cache=str(tmp_path / "cache"))
    assert part.read == 12 * kept


def test_crops_kept_are_found_by_trials_as_whole_images(manifest, fits, tmp_path, monkeypatch):
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
    monkeypatch.setattr(predicting.Shelf, "has_room_for", lambda shelf, keys, row_bytes: True)
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
    np.testing.assert_array_equal(again.probabilities["whole"]["one"], found.probabilities["whole"]["one"])


def test_a_policy_is_charged_its_own_crops(manifest, fits):
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
    with pytest.raises(TrainerError, match="no model was named"):
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
