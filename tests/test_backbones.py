"""The table of backbones against Keras itself, and finding weight files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers.backbones import BACKBONES, Backbone, backbone, load_builder, weight_file
from trainers.contract import TrainerError
from trainers.model import build_backbone, preprocess, pretrained

MINE = Backbone("mine", "trainers.backbones:build_small_cnn", "tf", 32, 8, 10, imagenet=False)
NOT_MINE = 5


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_layers_are_those_of_the_keras_model(name):
    row = backbone(name)
    model = build_backbone(name, "none", row.smallest_size)
    assert len(model.layers) == row.layers
    assert len(model.output.shape) == 4


def test_the_table_holds_what_the_page_says():
    assert sorted(BACKBONES) == [
        *("mobilenet_0.25", "mobilenet_0.5", "mobilenet_0.75", "mobilenet_1.0"),
        *("mobilenet_v2", "resnet50", "small_cnn", "vgg16"),
    ]


def test_the_table_needs_no_tensorflow():
    code = "import sys, trainers.backbones, trainers.heads, trainers.contract; print('tensorflow' in sys.modules)"
    root = Path(__file__).resolve().parent.parent
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("name", "module"),
    [("mobilenet_1.0", "mobilenet"), ("mobilenet_v2", "mobilenet_v2"), ("resnet50", "resnet"), ("vgg16", "vgg16")],
)
def test_preprocessing_is_that_of_keras(name, module):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    expected = getattr(keras.applications, module).preprocess_input(images.astype(np.float32))
    np.testing.assert_allclose(preprocess(backbone(name), tf.constant(images)), expected, atol=1e-4)


def test_unknown_preprocessing_is_a_sentence():
    row = Backbone("odd", "", "torch", 32, 8, 1)
    with pytest.raises(TrainerError, match="odd names the preprocessing 'torch'; known are tf and caffe"):
        preprocess(row, tf.zeros((1, 8, 8, 3), tf.uint8))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet5", "there is no backbone 'resnet5'; did you mean resnet50?"),
        ("zzz", r"there is no backbone 'zzz'. Known are mobilenet_0.25, .* my_module:my_backbone"),
        ("no_such_module:X", "cannot be imported: No module named 'no_such_module'"),
        ("test_backbones:NOTHING", "cannot be imported: .*NOTHING"),
        ("test_backbones:NOT_MINE", "'test_backbones:NOT_MINE' is a int, not a backbone"),
    ],
)
def test_an_unknown_backbone_is_a_sentence(name, sentence):
    with pytest.raises(TrainerError, match=sentence):
        backbone(name)


def test_a_backbone_of_ones_own_joins_by_its_dotted_name():
    assert backbone("test_backbones:MINE").name == "mine"
    assert len(pretrained("test_backbones:MINE", "none", 16, "float32").layers) == 10


def test_a_builder_that_is_not_there_is_a_sentence():
    with pytest.raises(TrainerError, match=r"the builder 'trainers.backbones:nothing' of odd cannot be imported"):
        load_builder(Backbone("odd", "trainers.backbones:nothing", "tf", 32, 8, 1))


def test_too_small_images_are_a_sentence():
    with pytest.raises(TrainerError, match=r"mobilenet_0.25 takes images of 32 px or more, not 16"):
        build_backbone("mobilenet_0.25", "none", 16)


@pytest.mark.parametrize(("size", "found"), [(96, "128"), (128, "128"), (176, "160"), (200, "224"), (500, "224")])
def test_of_several_weight_files_the_nearest_size_is_taken(tmp_path, size, found):
    for px in (128, 160, 224):
        (tmp_path / f"mobilenet_1.0_{px}_no_top.weights.h5").touch()
    (tmp_path / "mobilenet_0.25_96_no_top.weights.h5").touch()
    assert weight_file(backbone("mobilenet_1.0"), tmp_path, size).name == f"mobilenet_1.0_{found}_no_top.weights.h5"


def test_missing_weights_are_a_sentence(tmp_path):
    row = backbone("resnet50")
    with pytest.raises(TrainerError, match=r"looked for resnet50_\*no_top\*.h5, found no .h5 file"):
        weight_file(row, tmp_path, 224)
    (tmp_path / "vgg16_no_top.h5").touch()
    with pytest.raises(TrainerError, match=r"no weights for resnet50 in .*found vgg16_no_top.h5"):
        weight_file(row, tmp_path, 224)
    with pytest.raises(TrainerError, match=r"the weights folder .*nowhere does not exist"):
        weight_file(row, tmp_path / "nowhere", 224)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_network_are_a_sentence(tmp_path):
    file = tmp_path / "tiny_32.weights.h5"
    keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(5, 3)]).save_weights(file)
    with pytest.raises(TrainerError, match=r"the weights in .*tiny_32.weights.h5 do not fit tiny_fits:TINY"):
        build_backbone("tiny_fits:TINY", str(tmp_path), 32)
    file.write_bytes(b"not a weight file")
    with pytest.raises(TrainerError, match=r"do not fit tiny_fits:TINY"):
        build_backbone("tiny_fits:TINY", str(tmp_path), 32)


def test_weights_are_read_from_a_folder(tmp_path):
    stored = build_backbone("tiny_fits:TINY", "none", 32, seed=5)
    stored.save_weights(tmp_path / "tiny_32.weights.h5")
    read = build_backbone("tiny_fits:TINY", str(tmp_path), 64)
    assert len(read.get_weights()) == len(stored.get_weights()) == 15
    for a, b in zip(read.get_weights(), stored.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_random_values_come_from_the_seed_alone():
    one, same, other = (build_backbone("small_cnn", "none", 16, seed=seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])
