"""The served model: the same probabilities as the leaderboard's, from bytes, text, paths or a table."""

from __future__ import annotations

import base64
import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.places import ROOT
from tests.support.tiny_fits import CLASSES, config, predict_into, write_manifest
from trainers.calibration import Calibration, Level
from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.export.describe import how_to_cut
from trainers.networks.backbone import build_backbone
from trainers.serving import _load_pyfunc, inputs
from trainers.serving.model import BATCH_CROPS, SERVED_PRECISION, ServedModel, UnreadableImages, assemble
from trainers.training.loop import open_fit

TRIAL = {"backbone": "tests.support.tiny_fits:TINY", "head": "cosface", "hidden": 6, "view": "centre_crop", "epochs": 1}
OWN = "tests.support.tiny_fits:OWN_POLICY"
POLICIES = ("whole", "flip", "random_3", OWN)


def weights_in(folder: Path, seed: int) -> str:
    folder.mkdir()
    build_backbone("small_cnn", "none", 16, seed=seed).save_weights(folder / "tiny_16.weights.h5")
    return str(folder)


def finish(manifest: Path, folder: Path, name: str, seed: int, weights: str, **values) -> str:
    chosen = config(**TRIAL | values)
    fit = open_fit(
        FitJob(name, chosen, seed, str(manifest), weights, output=str(folder / name), cache=str(folder / "cache"))
    )
    fit.run_epoch()
    fit.finish()
    return str(folder / name)


def put_together(fits: list[str], output: Path, policy: str = "flip", calibration: dict | None = None) -> dict:
    return assemble(
        {
            "fits": fits,
            "output": str(output),
            "classes": list(CLASSES),
            "policy": policy,
            "threads": 1,
            "precision": "float32",
            "calibration": calibration,
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict:
    """Two fits of one configuration, what ``predict`` says of them under each policy, and served folders of both.

    Their weights folder is gone by the time anything is served.
    """
    folder = tmp_path_factory.mktemp("served")
    manifest, weights = write_manifest(folder / "pictures"), weights_in(folder / "weights", 5)
    fits = [finish(manifest, folder, f"fit-{seed}", seed, weights) for seed in (1, 2)]
    expected = {}
    for policy in POLICIES:
        outputs = {policy: {i: str(folder / f"{i}-{policy}.npz") for i in range(2)}}
        predict_into(outputs, models=dict(enumerate(fits)), manifest=str(manifest), split="test")
        both = [np.load(folder / f"{i}-{policy}.npz")["probabilities"] for i in range(2)]
        expected[policy] = np.mean(both, 0)
        assert put_together(fits, folder / f"model-{policy}", policy) == {"members": 2}
    shutil.rmtree(weights)
    paths = Manifest.read(manifest).split("test").paths()
    return {"folder": folder, "manifest": manifest, "fits": fits, "expected": expected, "paths": paths}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_served_model_agrees_with_the_leaderboard(made, policy):
    served = _load_pyfunc(str(made["folder"] / f"model-{policy}"))
    rows = served.probabilities([path.read_bytes() for path in made["paths"]])
    np.testing.assert_allclose(rows, made["expected"][policy], atol=1e-5)
    assert served.classes == CLASSES


def test_a_network_trained_in_half_precision_is_judged_as_it_is_served(made, tmp_path):
    """In ``SERVED_PRECISION``: judged in bfloat16, as it was trained, it would be another model."""
    weights, paths = weights_in(tmp_path / "weights", 5), made["paths"]
    trial = config(**TRIAL | {"unfrozen_layers": 3, "batch_norm": "adapted"})
    files = {"output": str(tmp_path / "fit"), "cache": str(tmp_path / "cache")}
    wanted = FitJob("half", trial, 1, str(made["manifest"]), weights, precision="mixed_bfloat16", **files)
    fit = open_fit(wanted)
    fit.run_epoch()
    assert fit.precision == "mixed_bfloat16"
    fit.finish()
    put_together([wanted.output], tmp_path / "model", "whole")
    rows = ServedModel(tmp_path / "model").probabilities([path.read_bytes() for path in paths])
    judged = {}
    for precision in (SERVED_PRECISION, "mixed_bfloat16"):
        file = str(tmp_path / f"{precision}.npz")
        asked = {"models": {0: wanted.output}, "manifest": str(made["manifest"]), "split": "test"}
        predict_into({"whole": {0: file}}, **asked, precision=precision)
        judged[precision] = np.load(file)["probabilities"]
    np.testing.assert_allclose(rows, judged[SERVED_PRECISION], atol=1e-6)
    assert np.abs(rows - judged["mixed_bfloat16"]).max() > 1e-5


def test_a_served_model_knows_its_crops_without_the_policys_module(made, tmp_path):
    folder = shutil.copytree(made["folder"] / f"model-{OWN}", tmp_path / "model")
    described = json.loads((folder / "model.json").read_text())
    assert described["policy"] == OWN
    (folder / "model.json").write_text(json.dumps(described | {"policy": "no_such_module:POLICY"}))
    rows = ServedModel(folder).probabilities([path.read_bytes() for path in made["paths"]])
    np.testing.assert_allclose(rows, made["expected"][OWN], atol=1e-5)


def test_an_export_describes_the_boxes_of_a_policy_of_ones_own(made):
    steps = how_to_cut(ServedModel(made["folder"] / f"model-{OWN}"))
    assert all(part in steps[2] for part in ("the whole image", "0.5 of the side", "0.375 from the left", "mirrored"))


def test_a_model_that_does_not_list_its_crops_has_those_of_its_policy(made, tmp_path):
    folder = shutil.copytree(made["folder"] / "model-flip", tmp_path / "model")
    described = json.loads((folder / "model.json").read_text())
    del described["crops"]
    (folder / "model.json").write_text(json.dumps(described))
    assert ServedModel(folder).crop_names == ("whole", "whole-mirrored")


def calibrated(made, tmp_path: Path, temperature: float, *levels: Level) -> ServedModel:
    folder = tmp_path / "calibrated"
    put_together(made["fits"], folder, "flip", Calibration(temperature, levels, 240).to_dict())
    return ServedModel(folder)


def test_answers_are_calibrated_and_labels_stay(made, tmp_path):
    plain, served = ServedModel(made["folder"] / "model-flip"), calibrated(made, tmp_path, 0.5)
    images = [path.read_bytes() for path in made["paths"]]
    np.testing.assert_array_equal(served.probabilities(images), plain.probabilities(images))
    before, after = plain.predict(images), served.predict(images)
    assert after["label"].tolist() == before["label"].tolist()
    squares = plain.probabilities(images).astype(float) ** 2
    expected = squares / squares.sum(1, keepdims=True)
    np.testing.assert_allclose(after["probability"], expected.max(1), atol=1e-6)
    given = [[*json.loads(text).values()] for text in after["probabilities"]]
    np.testing.assert_allclose(given, expected, atol=1e-6)
    assert plain.calibration == Calibration()  # as of a model from before


def test_below_the_threshold_it_is_none_of_these(made, tmp_path):
    images = [path.read_bytes() for path in made["paths"]]
    answers = calibrated(made, tmp_path, 0.5).predict(images)
    threshold = float(np.median(answers["probability"]))
    served = calibrated(made, tmp_path, 0.5, Level(0.0, 1.0, 0.9, 0.8), Level(threshold, 0.5, 0.99, 0.95))
    found = served.predict(images, params={"precision": 0.95})
    sure = (answers["probability"] >= threshold).tolist()
    assert 0 < sum(sure) < len(sure)
    assert [bool(label) for label in found["label"]] == sure
    assert [not reason for reason in found["reason"]] == sure
    assert found["probabilities"].tolist() == answers["probabilities"].tolist()
    assert found["label"][sure].tolist() == answers["label"][sure].tolist()
    assert all(reason.startswith("none of these: the likeliest is ") for reason in found["reason"] if reason)
    assert served.predict(images, params={"precision": 0.8})["label"].tolist() == answers["label"].tolist()
    for nothing in (None, {}, {"precision": 0.0}):
        assert served.predict(images, params=nothing).equals(answers)
    with pytest.raises(TrainerError, match=r"precision of 0\.99: the highest that the 240 validation photos .* 0\.950"):
        served.predict([], params={"precision": 0.99})
    with pytest.raises(TrainerError, match=r"between 0 and 1, such as 0\.95; found 'high'"):
        served.predict([], params={"precision": "high"})
    with pytest.raises(TrainerError, match="no thresholds for a wanted precision: it was registered before"):
        ServedModel(made["folder"] / "model-flip").predict([], params={"precision": 0.9})


@pytest.mark.parametrize(
    "junk", [3, {}, {"temperature": 0, "levels": [], "photos": 1}, {"temperature": 1, "levels": 4}]
)
def test_a_damaged_calibration_is_a_sentence(made, tmp_path, junk):
    folder = shutil.copytree(made["folder"] / "model-flip", tmp_path / "model")
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(described | {"calibration": junk}))
    with pytest.raises(TrainerError, match=r"the model in .* is damaged"):
        ServedModel(folder)


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


KINDS = {
    "bytes": lambda paths: [path.read_bytes() for path in paths],
    "base64": lambda paths: [base64.b64encode(path.read_bytes()).decode() for path in paths],
    "base64 in lines": lambda paths: [base64.encodebytes(path.read_bytes()).decode() for path in paths],
    "data URL": lambda paths: [
        f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in paths
    ],
    "path": lambda paths: [str(path) for path in paths],
    "Path": lambda paths: paths,
    "table": lambda paths: pd.DataFrame({"id": range(3), "image": [path.read_bytes() for path in paths]}),
    "table of one column": lambda paths: pd.DataFrame({"0": [str(path) for path in paths]}),
    "table of pixels": lambda paths: pd.DataFrame({"image": [pixels(path) for path in paths]}),
    "table of lists": lambda paths: pd.DataFrame({"image": [pixels(path).tolist() for path in paths]}),
    "mapping": lambda paths: {"id": [1, 2, 3], "image": np.array([str(path) for path in paths])},
    "mapping of pixels": lambda paths: {"image": np.stack([pixels(path) for path in paths])},
    "array of bytes": lambda paths: np.array([path.read_bytes() for path in paths], object),
    "array of text": lambda paths: np.array([str(path) for path in paths]),
    "array of pixels": lambda paths: np.stack([pixels(path) for path in paths]),
    "wide integers": lambda paths: np.stack([pixels(path) for path in paths]).astype(np.int64),
    "arrays of pixels": lambda paths: [pixels(path) for path in paths],
    "lists": lambda paths: [pixels(path).tolist() for path in paths],
}


NAMES_FILES = ("path", "table of one column", "mapping", "array of text")
"""Kinds of input that are taken only where ORCH_SERVE_PATHS=1."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input_gives_the_same(made, kind, monkeypatch):
    """The pictures are PNG files, so that pixels say the same as files."""
    if kind in NAMES_FILES:
        monkeypatch.setenv("ORCH_SERVE_PATHS", "1")
    given = KINDS[kind](made["paths"][:3])
    answer = ServedModel(made["folder"] / "model-flip").predict(given)
    expected = made["expected"]["flip"][:3]
    assert answer.columns.tolist() == ["label", "probability", "probabilities"]
    assert answer["label"].tolist() == [CLASSES[i] for i in expected.argmax(1)]
    np.testing.assert_allclose(answer["probability"], expected.max(1), atol=1e-5)
    for text, row in zip(answer["probabilities"], expected, strict=True):
        assert list(json.loads(text)) == list(CLASSES)
        np.testing.assert_allclose(list(json.loads(text).values()), row, atol=1e-5)


def test_one_image_need_not_be_a_list(made, monkeypatch):
    monkeypatch.setenv("ORCH_SERVE_PATHS", "1")
    served = ServedModel(made["folder"] / "model-whole")
    path = made["paths"][0]
    for one in (path.read_bytes(), str(path), path, pixels(path), pixels(path).tolist(), {"image": str(path)}):
        assert len(served.predict(one)) == 1
    for none in ([], np.zeros((0, 8, 8, 3), np.uint8), pd.DataFrame({"image": []})):
        assert len(served.predict(none)) == 0


def test_two_served_models_keep_their_own_weights(made, tmp_path):
    """Another model takes the first one's place on disk and is loaded next to it."""
    place = tmp_path / "model"
    shutil.copytree(made["folder"] / "model-whole", place)
    images = [path.read_bytes() for path in made["paths"][:4]]
    first = ServedModel(place)
    before = first.probabilities(images)
    weights = weights_in(tmp_path / "weights", 6)
    put_together([finish(made["manifest"], tmp_path, "other", 1, weights)], place, "whole")
    second = ServedModel(place)
    assert not np.allclose(second.probabilities(images), before, atol=1e-3)
    np.testing.assert_array_equal(first.probabilities(images), before)


def test_a_model_without_a_frozen_part_is_served_too(made, tmp_path):
    fit = finish(made["manifest"], tmp_path, "all", 3, "none", backbone="small_cnn", unfrozen_layers="all")
    put_together([fit], tmp_path / "model", "whole")
    outputs = {"whole": {"m": str(tmp_path / "m.npz")}}
    predict_into(outputs, models={"m": fit}, manifest=str(made["manifest"]), split="test")
    rows = ServedModel(tmp_path / "model").probabilities([path.read_bytes() for path in made["paths"]])
    np.testing.assert_allclose(rows, np.load(tmp_path / "m.npz")["probabilities"], atol=1e-5)


def test_what_cannot_be_put_together_is_a_sentence(made, tmp_path):
    with pytest.raises(TrainerError, match="no trained model was given"):
        put_together([], tmp_path)
    with pytest.raises(TrainerError, match="there is no trained model in"):
        put_together([str(tmp_path)], tmp_path / "model")
    other = finish(made["manifest"], tmp_path, "other", 1, "none", backbone="small_cnn", dropout=0.5)
    with pytest.raises(TrainerError, match="only models of one configuration and the same starting weights"):
        put_together([made["fits"][0], other], tmp_path / "model")
    assert not (tmp_path / "model").exists()


SMALL = np.zeros((8, 9, 3), np.uint8)
REFUSED = [
    ([b"no picture"], "image 1 of 1 cannot be read: it is not an image of a known format"),
    ([b""], "image 1 of 1 cannot be read: the file is empty"),
    (["no such photo.jpg"], "image 1 of 1 is not base64 text: 'no such photo.jpg'"),
    (["?" * 5000], "image 1 of 1 is not base64 text: '????"),
    (["A" * 1000], "image 1 of 1 cannot be read"),
    (["data:image/svg+xml,<svg/>"], "image 1 of 1 is a data: URL without base64: 'data:image/svg+xml,<svg/>'"),
    (pd.DataFrame({"photo": [b""], "name": ["x"]}), "the table needs a column image; it has photo, name"),
    (pd.DataFrame(), "the table needs a column image; it has none"),
    ({"a": 1, "b": 2}, "the table needs a column image; it has a, b"),
    (SMALL / 255, "image 1 of 1 holds float64 numbers; .* whole numbers from 0 to 255 .* so do not scale them"),
    (SMALL.astype(np.float32).tolist(), "image 1 of 1 holds float64 numbers"),
    (SMALL == 0, "image 1 of 1 holds bool numbers"),
    (SMALL[..., 0], r"image 1 of 1 has the shape \(8, 9\); pixels must be whole numbers"),
    (np.zeros((2, 8, 8, 4), np.uint8), r"image 1 of 2 has the shape \(8, 8, 4\)"),
    (SMALL.astype(np.int64) - 1, "image 1 of 1 holds numbers from -1 to -1; pixels"),
    (SMALL.astype(np.int64) + 256, "image 1 of 1 holds numbers from 256 to 256; pixels"),
    ([SMALL, SMALL[..., 0]], r"image 2 of 2 has the shape \(8, 9\)"),
    ([[[[0, 0, 0]]], [[[0, 0, 0], [0, 0]]]], "image 2 of 2 is a list with entries other than numbers, or with rows of"),
    (pd.DataFrame({"image": [np.stack([SMALL, SMALL])]}), r"image 1 of 1 has the shape \(2, 8, 9, 3\)"),
    ([None], "image 1 of 1 is None: give encoded bytes, base64 text, a Path or pixels"),
    (7, "image 1 of 1 is 7: give encoded bytes"),
    (np.array(7), "image 1 of 1 is 7: give encoded bytes"),
    ({"image": np.array(0.5)}, "image 1 of 1 is 0.5: give encoded bytes"),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSED)
def test_what_is_no_image_is_a_sentence(made, given, sentence):
    with pytest.raises(TrainerError, match=sentence.replace("?", r"\?").replace("+", r"\+")):
        ServedModel(made["folder"] / "model-whole").predict(given)


@pytest.mark.parametrize("value", [None, "", "0", "yes"])
def test_a_file_that_a_text_names_is_not_opened_unless_asked_for(made, monkeypatch, value):
    served, path = ServedModel(made["folder"] / "model-whole"), made["paths"][0]
    monkeypatch.delenv("ORCH_SERVE_PATHS", raising=False)
    if value is not None:
        monkeypatch.setenv("ORCH_SERVE_PATHS", value)
    opened = []
    monkeypatch.setattr(inputs, "_from_file", opened.append)
    for given in (str(path), [str(path)], {"image": [str(path)]}, pd.DataFrame({"image": [str(path)]})):
        with pytest.raises(TrainerError, match=r"image 1 of 1 is not base64 text: .*base64.*ORCH_SERVE_PATHS=1"):
            served.predict(given)
    assert opened == []
    assert len(served.predict([path.read_bytes()])) == 1


def test_mlflow_is_reported_the_sentence_alone(made):
    """MLflow's server puts the whole request before the message of what it catches."""
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException) as caught:
        ServedModel(made["folder"] / "model-whole").predict(["nothing.jpg"])
    caught.value.message = f"Failed to predict data. Error: {caught.value.message}"
    answers = json.loads(caught.value.serialize_as_json())
    assert answers["message"].startswith("image 1 of 1 is not base64 text: 'nothing.jpg'. ")
    assert caught.value.get_http_status_code() == 400
    assert isinstance(caught.value, TrainerError)


def test_the_image_that_is_wrong_is_reported_by_its_place(made):
    good = made["paths"][0].read_bytes()
    with pytest.raises(TrainerError, match="image 2 of 3 cannot be read"):
        ServedModel(made["folder"] / "model-whole").probabilities([good, good[:40], good])


DAMAGES = ["nothing there", "no member", "torn member", "torn arrays", "torn description", "a list", "other backbone"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_wrong_folder_is_a_sentence(made, tmp_path, damage):
    place = tmp_path / "model"
    shutil.copytree(made["folder"] / "model-whole", place)
    sentence = "the model in .*model is damaged .*write or download it again"
    if damage == "nothing there":
        (place / "model.json").unlink()
        sentence = "model holds no model.json; it is not a model that orch wrote"
    elif damage == "no member":
        (place / "member-1.npz").unlink()
    elif damage == "torn member":
        (place / "member-1.npz").write_bytes((place / "member-1.npz").read_bytes()[:300])
    elif damage == "torn arrays":
        data = bytearray((place / "member-1.npz").read_bytes())
        data[200] ^= 255
        (place / "member-1.npz").write_bytes(bytes(data))
    elif damage == "a list":
        (place / "model.json").write_text("[1]")
    elif damage == "torn description":
        (place / "model.json").write_text('{"classes": [')
    else:
        shutil.copy(place / "member-0.npz", place / "backbone.npz")
        sentence = "the stored weights are not those of a tests.support.tiny_fits:TINY"
    with pytest.raises(TrainerError, match=sentence):
        ServedModel(place)


def test_serving_loads_neither_mlflow_nor_the_orchestrator(made):
    code = (
        "import sys; from pathlib import Path; from trainers.serving import _load_pyfunc; "
        f"sys.path.append({str(ROOT / 'tests')!r}); "
        "early = 'tensorflow' in sys.modules; "
        "print(_load_pyfunc(sys.argv[1]).predict([Path(sys.argv[2])])['label'][0]); "
        "print(early, [m for m in ('mlflow', 'orchestrator', 'ray', 'optuna') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(made["folder"] / "model-flip"), str(made["paths"][0])]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    assert answer == [CLASSES[made["expected"]["flip"][0].argmax()], "False []"]


# --- many images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_images_together_are_answered_as_one_by_one(made, policy):
    """More than two batches, and a last one that is not full."""
    served = ServedModel(made["folder"] / f"model-{policy}")
    images = [path.read_bytes() for path in made["paths"]] * 12
    alone = np.concatenate([served.probabilities([image]) for image in images[: len(made["paths"])]] * 12)
    together = served.probabilities(images)
    assert len(images) > 2 * BATCH_CROPS // len(served.crop_names)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert np.ptp(together, 0).min() > 1e-4  # the images differ
    assert served.probabilities([]).shape == (0, len(CLASSES))


def test_all_images_that_cannot_be_decoded_are_named_at_once(made):
    served = ServedModel(made["folder"] / "model-whole")
    images = [path.read_bytes() for path in made["paths"]] * 12
    images[5], images[BATCH_CROPS + 3] = b"", b"no image"
    with pytest.raises(UnreadableImages) as caught:
        served.probabilities(images)
    assert str(caught.value) == f"image 6 of {len(images)} cannot be read: the file is empty."
    assert caught.value.reasons == {
        5: "the file is empty",
        BATCH_CROPS + 3: "it is not an image of a known format",
    }
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.reasons) == (str(caught.value), caught.value.reasons)


def test_mlflows_error_says_so_too(made):
    import mlflow.exceptions

    served = ServedModel(made["folder"] / "model-whole")
    with pytest.raises(mlflow.exceptions.MlflowException) as caught:
        served.predict([made["paths"][0], b"no image", b""])
    assert caught.value.reasons == {1: "it is not an image of a known format", 2: "the file is empty"}


def test_crops_ahead_of_the_network_are_few(made, monkeypatch):
    """A request of many images must not be decoded as a whole before the first is predicted."""
    served, cuts, ahead = ServedModel(made["folder"] / "model-whole"), [], []
    image, kept = made["paths"][0].read_bytes(), served._cut
    monkeypatch.setattr(served, "_cut", lambda image: (cuts.append(1), kept(image))[1])
    predicted = served._predict_crops
    monkeypatch.setattr(served, "_predict_crops", lambda pixels: (ahead.append(len(cuts)), predicted(pixels))[1])
    assert served.probabilities([image] * 5 * BATCH_CROPS).shape[0] == 5 * BATCH_CROPS
    assert len(ahead) == 5
    assert all(seen <= (number + 2) * BATCH_CROPS for number, seen in enumerate(ahead))


def test_a_heic_photo_is_served(made):
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    packed = io.BytesIO()
    pillow_heif.from_pillow(Image.open(made["paths"][0])).save(packed, quality=-1, chroma=444)
    served = ServedModel(made["folder"] / "model-flip")
    as_heic, as_png = served.probabilities([packed.getvalue(), made["paths"][0].read_bytes()])
    np.testing.assert_allclose(as_heic, as_png, atol=0.02)
