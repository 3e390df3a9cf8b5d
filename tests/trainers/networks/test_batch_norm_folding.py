"""Folded batch norms: the same function to rounding, and left alone wherever somebody else sees the map between."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from trainers.backbones import Backbone
from trainers.config import canonical
from trainers.networks import prefix
from trainers.networks.backbone import build_backbone
from trainers.networks.batch_norm_folding import foldable, folded
from trainers.networks.prefix import Prefix

RANDOM = np.random.default_rng(0)


def give_values(model: keras.Model) -> None:
    """Random weights; variances of a batch norm lie above zero, some of them far below one."""
    for layer in model.layers:
        drawn = [RANDOM.normal(size=w.shape) * 0.5 for w in layer.get_weights()]
        if isinstance(layer, layers.BatchNormalization):
            drawn[-1] = 10 ** RANDOM.uniform(-2, 1, drawn[-1].shape)
        layer.set_weights(drawn)


def assert_same(model: keras.Model, count: int) -> None:
    """That ``count`` batch norms were folded and every output is as before."""
    give_values(model)
    images = RANDOM.normal(size=(3, *model.input_shape[1:])).astype(np.float32)
    copy = folded(model)
    norms = [layer for layer in copy.layers if isinstance(layer, layers.BatchNormalization)]
    had = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    assert (len(foldable(model)), len(had) - len(norms)) == (count, count)
    before, after = model(images, training=False), copy(images, training=False)
    before, after = (x if isinstance(x, list) else [x] for x in (before, after))
    for a, b in zip(before, after, strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() <= 2e-5 * np.abs(a).max()


def image() -> keras.KerasTensor:
    return keras.Input((12, 12, 3))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["conv", "depthwise", "dilated"]),
            st.booleans(),
            st.booleans(),
            st.booleans(),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_chain_of_convolutions_and_batch_norms_stays_the_same_function(blocks: list[tuple]) -> None:
    x = start = image()
    for kind, bias, scale, center, relu in blocks:
        if kind == "depthwise":
            x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=bias, padding="same")(x)
        else:
            x = layers.Conv2D(6, 3, use_bias=bias, padding="same", dilation_rate=2 if kind == "dilated" else 1)(x)
        x = layers.BatchNormalization(scale=scale, center=center, epsilon=1e-3)(x)
        x = layers.ReLU()(x) if relu else x
    assert_same(keras.Model(start, x), len(blocks))


def test_a_map_that_somebody_else_takes_is_left_alone() -> None:
    start = image()
    x = layers.Conv2D(4, 3, padding="same", name="conv")(start)
    normed = layers.BatchNormalization()(x)
    assert_same(keras.Model(start, layers.Add()([x, normed])), 0)
    assert_same(keras.Model(start, [x, normed]), 0)
    assert_same(keras.Model(start, normed), 1)


def test_what_computes_something_between_is_left_alone() -> None:
    start = image()
    x = layers.Conv2D(4, 3, activation="relu")(start)
    x = layers.BatchNormalization()(x)
    x = layers.SeparableConv2D(4, 3)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(4, 1)(x)
    x = layers.BatchNormalization(axis=1)(x)
    assert_same(keras.Model(start, x), 0)


def test_a_layer_that_is_used_twice_is_left_alone() -> None:
    start = image()
    convolution, norm = layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()
    assert_same(keras.Model(start, norm(convolution(norm(convolution(start))))), 0)


def test_a_convolution_in_half_precision_is_left_alone() -> None:
    start = image()
    x = layers.Conv2D(4, 3, dtype="mixed_float16")(start)
    model = keras.Model(start, layers.BatchNormalization(dtype="mixed_float16")(x))
    assert foldable(model) == {}
    assert folded(model) is model


class Doubled(layers.Layer):
    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return 2 * inputs


class OwnConv2D(layers.Conv2D):
    pass


@pytest.mark.parametrize("own", [Doubled(), layers.Lambda(lambda x: 2 * x), OwnConv2D(4, 1)])
def test_a_model_with_a_layer_of_the_users_own_is_not_copied(own: layers.Layer) -> None:
    start = image()
    model = keras.Model(start, own(layers.BatchNormalization()(layers.Conv2D(4, 3)(start))))
    assert foldable(model) == {}
    assert folded(model) is model


def bent(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.ops.maximum(x, 0.1 * x)


def relu(x: keras.KerasTensor) -> keras.KerasTensor:
    """Not what Keras means by this name, under which it keeps the function in a layer's settings."""
    return keras.ops.maximum(x, 0.3 * x)


@keras.saving.register_keras_serializable("test_folding")
def registered(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.ops.maximum(x, 0.2 * x)


def ones(shape: tuple[int, ...], dtype: str | None = None) -> keras.KerasTensor:
    return keras.ops.ones(shape, dtype)


def mine(shape: tuple[int, ...], dtype: str | None = None) -> keras.KerasTensor:
    return keras.ops.ones(shape, dtype)


def within(layer: layers.Layer) -> keras.Model:
    start = keras.Input((10, 10, 4))
    return keras.Model(start, layer(start))


OWN_FUNCTIONS = {
    "activation": (lambda: layers.Activation(bent), 0),
    "activation by a name of Keras": (lambda: layers.Activation(relu), 0),
    "activation by a name that it was given": (lambda: layers.Activation(registered), 1),
    "activation of a convolution": (lambda: layers.Conv2D(4, 3, activation=bent), 0),
    "lambda": (lambda: layers.Conv2D(4, 3, activation=lambda x: 2 * x), 0),
    "initialiser": (lambda: layers.Conv2D(4, 3, kernel_initializer=mine), 0),
    "initialiser by a name of Keras": (lambda: layers.Conv2D(4, 3, kernel_initializer=ones), 0),
    "within a model": (lambda: within(layers.Activation(bent)), 0),
    "within a model by a name of Keras": (lambda: within(layers.Activation(relu)), 0),
}


@pytest.mark.parametrize("name", OWN_FUNCTIONS)
def test_functions_of_the_users_own_are_the_same_in_the_copy_or_there_is_none(name: str) -> None:
    make, count = OWN_FUNCTIONS[name]
    start = image()
    assert_same(keras.Model(start, make()(layers.BatchNormalization()(layers.Conv2D(4, 3)(start)))), count)


def build_bent(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
    start = keras.Input(input_shape)
    return keras.Model(start, layers.Activation(bent)(layers.BatchNormalization()(layers.Conv2D(4, 3)(start))))


BENT = Backbone("bent", f"{__name__}:build_bent", "tf", 16, 16, 4, imagenet=False)


def test_what_is_stored_is_described_as_it_is_computed_and_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(prefix, "foldable", lambda model: asked.append(model) or foldable(model))
    for name, is_folded in ((f"{__name__}:BENT", False), ("small_cnn", True)):
        asked.clear()
        opened = Prefix(canonical({"backbone": name, "image_size": 16}).prefix_key("none"))
        described = [opened.description() for _ in range(3)]
        rows = opened(RANDOM.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8))
        assert rows.shape == (2, opened.channels)
        assert [("batch_norms" in each) for each in described] == [is_folded] * 3
        assert (opened.copied_bytes > 0) == is_folded
        assert len(asked) == 1


@pytest.mark.parametrize(
    ("name", "size", "least"),
    [
        ("mobilenet_0.25", 64, 27),
        ("resnet50", 64, 53),
        ("efficientnet_b0", 64, 49),
        ("densenet121", 64, 59),
        ("mobilenet_v3_small", 64, 34),
        ("efficientnet_lite0", 64, 49),
        ("resnet18", 64, 20),
    ],
)
def test_the_shipped_backbones_give_the_same_features(name: str, size: int, least: int) -> None:
    model = build_backbone(name, "none", size)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(size=layer.moving_mean.shape) * 0.1)
            layer.moving_variance.assign(rng.uniform(0.3, 3, layer.moving_variance.shape))
    assert len(foldable(model)) >= least
    images = rng.integers(0, 256, (2, size, size, 3)).astype(np.float32)
    before, after = np.asarray(model(images, training=False)), np.asarray(folded(model)(images, training=False))
    assert np.abs(before - after).max() <= 1e-5 * np.abs(before).max()


def test_rows_of_folded_and_of_plain_prefixes_never_meet() -> None:
    described = Prefix(canonical({"backbone": "mobilenet_0.25", "image_size": 32}).prefix_key("none"))
    plain = Prefix(canonical({"backbone": "vgg16", "image_size": 32}).prefix_key("none"))
    assert described.description()["batch_norms"] == "folded"
    assert "batch_norms" not in plain.description()


def test_photos_through_real_weights(orch_data: Path, orch_weights: Path) -> None:
    import tensorflow as tf

    from trainers.networks.backbone import preprocess

    photos = sorted((orch_data / "trashnet").rglob("*.jpg"))[:8]
    pixels = tf.stack([tf.image.resize(tf.image.decode_jpeg(p.read_bytes()), (224, 224)) for p in photos])
    pixels = tf.cast(pixels, tf.uint8)
    opened = Prefix(canonical({"backbone": "mobilenet_1.0"}).prefix_key(str(orch_weights)))
    plain = np.asarray(opened.model(preprocess(opened.row, pixels), training=False)).mean((1, 2))
    assert np.abs(plain - opened(pixels).numpy()).max() <= 2e-5
