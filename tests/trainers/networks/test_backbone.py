"""Whole backbones: their starting weights, and what their images are scaled to."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers.backbones import BACKBONES, Backbone, backbone
from trainers.errors import TrainerError
from trainers.networks.backbone import build_backbone, is_random, preprocess


def test_torch_preprocessing_is_that_of_keras():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    plain = dataclasses.replace(BACKBONES["small_cnn"], preprocessing="none")
    row = dataclasses.replace(plain, preprocessing="torch")
    expected = keras.applications.densenet.preprocess_input(images.astype(np.float32))
    np.testing.assert_allclose(preprocess(row, tf.constant(images)), expected, atol=1e-5)
    np.testing.assert_array_equal(preprocess(plain, tf.constant(images)), images.astype(np.float32))
    odd = dataclasses.replace(plain, preprocessing="grey")
    with pytest.raises(TrainerError, match="names the preprocessing 'grey'; known are tf, caffe, torch and none"):
        preprocess(odd, tf.constant(images))


def test_weights_may_be_one_file(tmp_path):
    stored = build_backbone("small_cnn", "none", 32, seed=5)
    file = tmp_path / "mine.weights.h5"
    stored.save_weights(file)
    for name in ("tests.support.tiny_fits:TINY", "small_cnn"):
        read = build_backbone(name, str(file), 32)
        assert not is_random(name, str(file))
        assert all(np.array_equal(a, b) for a, b in zip(read.get_weights(), stored.get_weights(), strict=True))
    assert is_random("small_cnn", str(tmp_path))  # no pattern says which file in a folder would be its own
    with pytest.raises(TrainerError, match=r"mine.weights.h5"):
        build_backbone("mobilenet_0.25", str(file), 32)


def test_weights_without_a_download_are_a_sentence():
    with pytest.raises(TrainerError, match=r"Keras has no weights of senet50 to download; let weights name a file"):
        build_backbone("senet50", "imagenet", 32)
    assert is_random("small_cnn", "imagenet")


MODULES = {
    **{"mobilenet_1.0": "mobilenet", "mobilenet_v2": "mobilenet_v2", "mobilenet_v3_small": "mobilenet_v3"},
    **{"vgg16": "vgg16", "vgg19": "vgg19", "resnet50": "resnet", "resnet50v2": "resnet_v2", "xception": "xception"},
    **{"inception_v3": "inception_v3", "inception_resnet_v2": "inception_resnet_v2", "densenet121": "densenet"},
    **{
        "efficientnet_b0": "efficientnet",
        "efficientnet_v2_b0": "efficientnet_v2",
        "efficientnet_v2_s": "efficientnet_v2",
    },
    **{"convnext_tiny": "convnext", "nasnet_mobile": "nasnet"},
}


@pytest.mark.parametrize(("name", "module"), sorted(MODULES.items()))
def test_preprocessing_is_that_of_keras(name, module):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    expected = getattr(keras.applications, module).preprocess_input(images.astype(np.float32))
    np.testing.assert_allclose(preprocess(backbone(name), tf.constant(images)), expected, atol=1e-4)


def test_unknown_preprocessing_is_a_sentence():
    row = Backbone("odd", "", "pytorch", 32, 8, 1)
    with pytest.raises(
        TrainerError, match="odd names the preprocessing 'pytorch'; known are tf, caffe, torch and none"
    ):
        preprocess(row, tf.zeros((1, 8, 8, 3), tf.uint8))


def test_too_small_images_are_a_sentence():
    with pytest.raises(TrainerError, match=r"mobilenet_0.25 takes images of 32 px or more, not 16"):
        build_backbone("mobilenet_0.25", "none", 16)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_network_are_a_sentence(tmp_path):
    file = tmp_path / "tiny_32.weights.h5"
    keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(5, 3)]).save_weights(file)
    with pytest.raises(TrainerError, match=r"tiny_32.weights.h5 do not fit tests.support.tiny_fits:TINY"):
        build_backbone("tests.support.tiny_fits:TINY", str(tmp_path), 32)
    file.write_bytes(b"not a weight file")
    with pytest.raises(TrainerError, match=r"do not fit tests.support.tiny_fits:TINY"):
        build_backbone("tests.support.tiny_fits:TINY", str(tmp_path), 32)


def test_weights_are_read_from_a_folder(tmp_path):
    stored = build_backbone("tests.support.tiny_fits:TINY", "none", 32, seed=5)
    stored.save_weights(tmp_path / "tiny_32.weights.h5")
    read = build_backbone("tests.support.tiny_fits:TINY", str(tmp_path), 64)
    assert len(read.get_weights()) == len(stored.get_weights()) == 15
    for a, b in zip(read.get_weights(), stored.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_random_values_come_from_the_seed_alone():
    one, same, other = (build_backbone("small_cnn", "none", 16, seed=seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])
