"""Weight files of each format, whole and broken, into networks that they fit and that they do not."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainers.backbones import build_small_cnn
from trainers.errors import TrainerError
from trainers.networks.backbone import build_backbone
from trainers.networks.weight_files import load_weights


def network(seed: int = 0, filters: int = 8) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(filters, 3, name="first")(inputs)
    x = keras.layers.BatchNormalization(name="first_bn")(x)
    return keras.Model(inputs, keras.layers.Conv2D(4, 1, name="second")(x))


def small_cnn() -> keras.Model:
    return build_small_cnn((16, 16, 3), False, None)


def same(a: keras.Model, b: keras.Model) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


def written(folder: Path, name: str, seed: int = 1) -> Path:
    """``network(seed)`` in the format that ``name`` has by Keras' rules; .h5 is the older one."""
    file = folder / name
    model = network(seed)
    model.save_weights(file) if name.endswith(".weights.h5") else model.save(file)
    return file


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("name", ["a.weights.h5", "a.h5", "a.keras"])
def test_each_format_is_read(tmp_path, name):
    model = network()
    load_weights(model, written(tmp_path, name), "net")
    assert same(model, network(1))


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("name", ["a.weights.h5", "a.h5", "a.keras"])
@pytest.mark.parametrize("other", ["b.h5", "b.weights.h5", "weights", "b.keras"])
def test_the_format_is_reported_by_what_is_in_the_file(tmp_path, name, other):
    shutil.copy(written(tmp_path, name), tmp_path / other)
    model = network()
    load_weights(model, tmp_path / other, "net")
    assert same(model, network(1))


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("name", ["a.weights.h5", "a.h5", "a.keras"])
def test_another_shape_names_the_layer_and_both_shapes(tmp_path, name):
    file, model = written(tmp_path, name), network(filters=16)
    before = model.get_weights()
    with pytest.raises(TrainerError) as error:
        load_weights(model, file, "net")
    assert str(error.value).startswith(f"the weights in {file} do not fit net: layer first: the file holds 3x3x3x8, ")
    assert "the network needs 3x3x3x16; layer first_bn: the file holds 8, the network needs 16" in str(error.value)
    assert "layer second: the file holds 1x1x8x4, the network needs 1x1x16x4." in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_too_few_layers_and_too_many_are_reported(tmp_path):
    deep, shallow = network(), keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, name="first")])
    deep.save_weights(tmp_path / "deep.weights.h5")
    shallow = keras.Model(shallow.inputs, shallow.outputs)
    shallow.save_weights(tmp_path / "shallow.weights.h5")
    with pytest.raises(
        TrainerError, match=r"layer first_bn: the file holds nothing, the network needs 8; layer second"
    ):
        load_weights(network(), tmp_path / "shallow.weights.h5", "net")
    with pytest.raises(TrainerError, match=r"the file holds 2 layers too many \(first_bn, second\)"):
        load_weights(shallow, tmp_path / "deep.weights.h5", "net")


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "a.weights.h5",
            r"1 layers too many \(predictions\); predictions is a classifier: take the file without a top",
        ),
        ("a.h5", r"holds 4 layers with weights, the network 3; predictions is a classifier: take the file without"),
    ],
)
def test_a_file_with_its_classifier_is_reported(tmp_path, name, sentence):
    model = network()
    pooled = keras.layers.GlobalAveragePooling2D()(model.output)
    topped = keras.Model(model.input, keras.layers.Dense(10, name="predictions")(pooled))
    topped.save_weights(tmp_path / name) if name.endswith(".weights.h5") else topped.save(tmp_path / name)
    with pytest.raises(TrainerError, match=sentence):
        load_weights(network(), tmp_path / name, "net")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.h5", b"<!DOCTYPE html><html>sign in</html>", "it is a web page; download the weights again"),
        ("a.h5", b"\n <html>", "it is a web page"),
        ("a.h5", b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git LFS pointer, not the file itself"),
        ("a.h5", b"", "the file is empty; download it again"),
        ("a.h5", b"not weights", r"it is neither an HDF5 file \(.h5\) nor a .keras file"),
        ("a.keras", b"PK\x03\x04 cut", "File is not a zip file"),
        ("a.safetensors", b"x", "`orch weights convert`"),
        ("a.pth", b"x", ".pth is PyTorch's format"),
    ],
)
def test_what_is_no_weight_file_is_a_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainerError, match=rf"the weights in .*{name} do not fit net: .*{sentence}"):
        load_weights(network(), tmp_path / name, "net")


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("damage", ["torn", "encrypted", "a group for an array", "a number for names"])
def test_a_damaged_file_is_a_sentence(tmp_path, damage):
    file = tmp_path / ("a.keras" if damage in ("torn", "encrypted") else "a.h5")
    network().save(file) if damage != "a group for an array" else network().save_weights(tmp_path / "a.weights.h5")
    if damage == "torn":
        with zipfile.ZipFile(file) as whole:
            data = whole.read("model.weights.h5")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("model.weights.h5", data)
        content = bytearray(file.read_bytes())
        content[60:120] = bytes(60)
        file.write_bytes(bytes(content))
    elif damage == "encrypted":
        content = bytearray(file.read_bytes())
        place = -1
        while (place := content.find(b"PK\x01\x02", place + 1)) >= 0:
            content[place + 8] |= 1
        file.write_bytes(bytes(content))
    elif damage == "a group for an array":
        file = tmp_path / "a.weights.h5"
        with h5py.File(file, "r+") as h5:
            arrays = h5["layers/conv2d/vars"]
            del arrays["0"]
            arrays.create_group("0")
    else:
        with h5py.File(file, "r+") as h5:
            h5["model_weights"].attrs["layer_names"] = 3
    with pytest.raises(TrainerError, match=rf"the weights in .*{file.name} do not fit net: .+\.$"):
        load_weights(network(), file, "net")


def test_no_file_is_a_sentence(tmp_path):
    with pytest.raises(TrainerError, match=r"nowhere.h5 do not fit net: there is no such file\."):
        load_weights(network(), tmp_path / "nowhere.h5", "net")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.floats(0.0, 0.98))
def test_a_file_cut_anywhere_is_a_sentence(tmp_path, kept):
    whole = tmp_path / "whole.weights.h5"
    if not whole.exists():
        small_cnn().save_weights(whole)
    content = whole.read_bytes()
    (tmp_path / "cut.weights.h5").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(TrainerError, match=r"cut.weights.h5 do not fit small_cnn: .*\.$"):
        load_weights(small_cnn(), tmp_path / "cut.weights.h5", "small_cnn")


def test_real_files_are_read_bit_for_bit(orch_weights):
    seen = 0
    for file in sorted(orch_weights.glob("mobilenet_*_no_top.weights.h5")):
        name = "mobilenet_v2" if file.name.startswith("mobilenet_v2") else "_".join(file.name.split("_")[:2])
        model = build_backbone(name, "none", 64)
        load_weights(model, file, name)
        ours = model.get_weights()
        model.load_weights(file)
        assert all(np.array_equal(a, b) for a, b in zip(ours, model.get_weights(), strict=True))
        seen += 1
    assert seen == 5
