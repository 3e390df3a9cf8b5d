"""Keras' networks with their graphs rewritten: the same function, in layers alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from trainers.backbones import backbone, load_builder
from trainers.errors import TrainerError
from trainers.networks.builders import Normalization, build_efficientnet, layered

SHAPE = (64, 64, 3)


def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype(np.float32)


def shaken(model: keras.Model) -> list[np.ndarray]:
    """Random values for every weight, positive where they have to be, so that no layer is one that does nothing."""
    draw = np.random.default_rng(1)
    return [np.asarray(draw.uniform(0.02, 0.2, value.shape), value.dtype) for value in model.get_weights()]


@pytest.mark.parametrize(
    ("name", "application", "more"),
    [("mobilenet_v3_small", "MobileNetV3Small", 18), ("convnext_tiny", "ConvNeXtTiny", 18)],
)
def test_the_rewritten_network_is_the_same_function(name, application, more):
    row = backbone(name)
    rewritten = load_builder(row)(input_shape=SHAPE, include_top=False, weights=None, **row.arguments)
    kerass = getattr(keras.applications, application)(input_shape=SHAPE, include_top=False, weights=None)
    assert len(rewritten.layers) == len(kerass.layers) + more
    values = shaken(rewritten)
    rewritten.set_weights(values)
    kerass.set_weights(values)
    expected = np.asarray(kerass(images()))
    assert np.abs(expected).max() > 0
    np.testing.assert_array_equal(np.asarray(rewritten(images())), expected)


def test_efficientnet_is_what_keras_makes_of_downloaded_weights(tmp_path, monkeypatch):
    plain = keras.applications.EfficientNetB0(input_shape=SHAPE, include_top=False, weights=None)
    plain.set_weights(shaken(plain))
    plain.save(tmp_path / "efficientnetb0_notop.h5")  # the format of Keras' downloads
    module = keras.src.applications.efficientnet
    monkeypatch.setattr(module.file_utils, "get_file", lambda *_, **__: str(tmp_path / "efficientnetb0_notop.h5"))
    downloaded = keras.applications.EfficientNetB0(input_shape=SHAPE, include_top=False, weights="imagenet")
    expected = np.asarray(downloaded(images()))
    ours = build_efficientnet(SHAPE, False, "imagenet", "EfficientNetB0")
    np.testing.assert_allclose(np.asarray(ours(images())), expected, rtol=1e-5, atol=1e-6)
    loaded = build_efficientnet(SHAPE, False, None, "EfficientNetB0")
    loaded.load_weights(tmp_path / "efficientnetb0_notop.h5")
    np.testing.assert_allclose(np.asarray(loaded(images())), expected, rtol=1e-5, atol=1e-6)
    set_by_hand = build_efficientnet(SHAPE, False, None, "EfficientNetB0")
    set_by_hand.set_weights(plain.get_weights())
    np.testing.assert_allclose(np.asarray(set_by_hand(images())), expected, rtol=1e-5, atol=1e-6)
    assert len(ours.layers) == len(loaded.layers) == backbone("efficientnet_b0").layers


def test_normalisation_follows_its_weights():
    layer = Normalization()
    layer.build((None, 3))
    layer.set_weights([np.array([1.0, 2, 3]), np.array([4.0, 4, 16]), np.array(0)])
    np.testing.assert_allclose(np.asarray(layer(np.array([[3.0, 2, 7]]))), [[1, 0, 1]])
    fixed = Normalization(mean=[1.0, 1, 1], variance=[4.0, 4, 4])
    np.testing.assert_allclose(np.asarray(fixed(np.array([[3.0, 1, 5]]))), [[1, 0, 2]])


def test_another_operation_outside_the_layers_is_a_sentence():
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.ops.maximum(keras.layers.ReLU()(inputs), 0.5), name="mine")
    with pytest.raises(TrainerError, match=r"mine computes maximum\w* \(Maximum\) outside its layers; put it into one"):
        layered(model)
