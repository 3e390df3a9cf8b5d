"""Feature fusion: which layers end the stages, that rows hold them, and that the fused vector is what it says."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiny_fits import config
from trainers.backbones import BACKBONES, Backbone, backbone
from trainers.config import TrialConfig
from trainers.networks.backbone import build_backbone, preprocess
from trainers.networks.fusion import SUM_WIDTH, Packing, comparable, fuse, stage_layers
from trainers.networks.graph import layer_strides
from trainers.networks.network import Architecture, Network
from trainers.networks.prefix import Prefix
from trainers.networks.strides import with_output_stride

CLASSES = 4
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
SEED = tf.constant([0, 0], tf.int64)


@functools.cache
def lively(name: str, size: int = 32) -> keras.Model:
    """Random weights whose moving statistics fit them, so that deep features are not about 1e-12."""
    model = build_backbone(name, "none", size)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(preprocess(backbone(name), tf.constant(IMAGES[:, :size, :size])), training=True)
    for layer in norms:
        layer.moving_variance.assign(np.full(layer.moving_variance.shape, np.mean(layer.moving_variance), np.float32))
    return model


def opened(name: str, fusion: str, unfrozen: int | str, pooling: str = "average", **values) -> tuple[Prefix, Network]:
    size = 16 if name == "small_cnn" else 32
    chosen = TrialConfig(
        backbone=name,
        image_size=size,
        unfrozen_layers=unfrozen,
        feature_fusion=fusion,
        pooling=pooling,
        **values,
    )
    prefix = Prefix(chosen.prefix_key("none"), lively(name, size))
    network = Network(Architecture.of(chosen, "none", CLASSES), prefix)
    network.reset(chosen, 5)
    if network.tail is not None:  # reset drew new random weights for what is unfrozen; those of the model are better
        network.tail.set_weights(network._start)
    return prefix, network


def fused_in_numpy(name: str, fusion: str, pooling: str, neck: list[np.ndarray]) -> np.ndarray:
    """From the whole backbone, without any boundary."""
    size = 16 if name == "small_cnn" else 32
    model = lively(name, size)
    outputs = keras.Model(model.input, [model.get_layer(n).output for n in stage_layers(model)])
    maps = outputs(preprocess(backbone(name), tf.constant(IMAGES[:, :size, :size])), training=False)
    vectors = []
    for each in maps:
        each = np.asarray(each)
        pooled = each.mean((1, 2)) if pooling == "average" else each.max((1, 2))
        vectors.append(pooled / np.sqrt((pooled**2).mean(1, keepdims=True) + 1e-6))
    if fusion == "concat":
        return np.concatenate(vectors, 1)
    return np.maximum(sum(v @ w for v, w in zip(vectors, neck, strict=True)), 0)


STAGES = {
    "small_cnn": ("conv_1_relu", "conv_2_relu", "conv_3_relu"),
    "mobilenet_0.25": ("conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"),
    "mobilenet_v2": ("block_6_expand_relu", "block_13_expand_relu", "out_relu"),
    "vgg16": ("block4_conv3", "block5_conv3", "block5_pool"),
}
SLOW_STAGES = {
    "resnet50": ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    "resnet50v2": ("conv3_block3_out", "conv4_block5_out", "post_relu"),
    "densenet121": ("pool3_conv", "pool4_conv", "relu"),
    "inception_v3": ("mixed2", "mixed7", "mixed10"),
    "efficientnet_b0": ("block4a_expand_activation", "block6a_expand_activation", "top_activation"),
    "efficientnet_lite0": ("block5_expand_relu", "block11_expand_relu", "top_relu"),
    "resnet18": ("stage2_block2_out", "stage3_block2_out", "stage4_block2_out"),
    "convnext_v2_atto": ("stage3_downsample_norm", "stage4_downsample_norm", "norm"),
}


@pytest.mark.parametrize(
    ("name", "stages"),
    [*STAGES.items(), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_STAGES.items())],
)
def test_stages_end_where_their_networks_authors_would_say(name, stages):
    model = build_backbone(name, "none", max(BACKBONES[name].smallest_size, 32))
    assert stage_layers(model) == stages
    strides = layer_strides(model)
    assert [strides[s] for s in stages] == ([1, 2, 4] if name == "small_cnn" else [8, 16, 32])
    if 16 in BACKBONES[name].output_strides:
        assert stage_layers(with_output_stride(model, 16)) == stages


FUSED = (
    *(("small_cnn", 0, 3), ("small_cnn", 3, 1), ("small_cnn", 5, 1), ("small_cnn", 6, 0), ("small_cnn", "all", 0)),
    *(("mobilenet_v2", 0, 3), ("mobilenet_v2", 5, 2), ("mobilenet_v2", 38, 1), ("mobilenet_v2", 37, 1)),
    *(("mobilenet_v2", 110, 0), ("mobilenet_v2", "all", 0)),
)
"""Backbone, unfrozen layers, and how many fused stages lie below the boundary."""
WAYS = (("average", "concat"), ("max", "sum"), ("average", "sum"), ("max", "concat"))


@pytest.mark.parametrize(
    ("name", "unfrozen", "below", "pooling", "fusion"),
    [
        pytest.param(*case, *way, marks=pytest.mark.slow if case[0] == "mobilenet_v2" and way in WAYS[2:] else ())
        for case in FUSED
        for way in WAYS
    ],
)
def test_prefix_and_network_fuse_what_the_whole_backbone_holds(name, unfrozen, below, pooling, fusion):
    prefix, network = opened(name, fusion, unfrozen, pooling)
    assert (len(prefix.packing.widths) if prefix.packing else 0) == below
    rows = prefix(IMAGES[:, :16, :16] if name == "small_cnn" else IMAGES)
    assert prefix.spec.is_compatible_with(rows)
    actual = network.features(rows, training=False)
    expected = fused_in_numpy(name, fusion, pooling, [np.asarray(k) for k in network.neck])
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(actual, expected, atol=2e-3 * np.abs(expected).max(), rtol=0)
    assert network.kernel.shape[0] == actual.shape[1]
    logits = actual @ np.asarray(network.kernel) + np.asarray(network.bias)
    np.testing.assert_allclose(network.predict(rows), tf.nn.softmax(logits), atol=1e-2)


def test_where_all_is_frozen_a_row_holds_pooled_features_alone():
    prefix, network = opened("mobilenet_v2", "concat", 0)
    assert prefix.packing == Packing(None, (192, 576, 1280))
    assert prefix.spec == tf.TensorSpec((None, 2048), tf.float32)
    assert network.tail is None


def test_elsewhere_it_holds_the_map_first():
    prefix, _ = opened("small_cnn", "concat", 3)
    assert prefix.layer == "conv_2_relu"
    assert prefix.packing == Packing((8, 8, 32), (16,))
    assert prefix.spec.shape == (None, 8 * 8 * 32 + 16)


@given(
    shape=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    count=st.integers(0, 3),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_unpacking_gives_what_was_packed(shape, widths, count):
    random = np.random.default_rng(0)
    packing = Packing(shape, tuple(widths))
    image_map = None if shape is None else tf.constant(random.normal(size=(count, *shape)), tf.float32)
    pooled = [tf.constant(random.normal(size=(count, w)), tf.float32) for w in widths]
    rows = packing.pack(image_map, pooled)
    assert rows.shape == (count, packing.width)
    first, rest = packing.unpack(rows)
    assert (first is None) == (shape is None)
    if shape is not None:
        np.testing.assert_array_equal(first, image_map)
    assert len(rest) == len(pooled)
    for a, b in zip(rest, pooled, strict=True):
        np.testing.assert_array_equal(a, b)


@given(factor=st.floats(1e-1, 1e4), width=st.integers(1, 40))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_vectors_of_every_size_become_comparable(factor, width):
    vector = (np.random.default_rng(width).normal(size=(2, width)) + 0.5).astype(np.float32)
    made = np.asarray(comparable(tf.constant(factor * vector)))
    np.testing.assert_allclose(made, comparable(tf.constant(vector)), atol=5e-3, rtol=5e-3)
    np.testing.assert_allclose((made**2).mean(1), 1, atol=0.02)


def test_a_vector_of_zeros_stays_and_has_a_slope():
    x = tf.Variable(tf.zeros((1, 5)))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(fuse([comparable(x)], []))
    assert float(total) == 0
    assert np.isfinite(tape.gradient(total, x)).all()


def test_the_neck_is_trained_stored_and_drawn_after_the_head():
    _, plain = opened("small_cnn", "none", 3)
    _, network = opened("small_cnn", "sum", 3, hidden=7)
    _, without = opened("small_cnn", "none", 3, hidden=7)
    draw = np.random.default_rng((5, 1))
    shapes = [(SUM_WIDTH, 7), (7, CLASSES), (16, SUM_WIDTH), (32, SUM_WIDTH), (64, SUM_WIDTH)]
    for variable, (rows, columns) in zip([network.hidden.kernel, network.kernel, *network.neck], shapes, strict=True):
        limit = np.sqrt(6 / (rows + columns))
        expected = draw.uniform(-limit, limit, (rows, columns)).astype(np.float32)
        np.testing.assert_array_equal(variable, expected)
    assert [tuple(k.shape) for k in network.neck] == [(16, SUM_WIDTH), (32, SUM_WIDTH), (64, SUM_WIDTH)]
    assert all(any(k is v for v in network.trainable_parts()) for k in network.neck)
    assert len(network.state()) == len(without.state()) + 3
    state = network.state()
    network.reset(config(feature_fusion="sum", hidden=7), 6)
    assert not np.array_equal(network.neck[0], state[-3])
    network.load_state(state)
    assert all(np.array_equal(a, b) for a, b in zip(network.state(), state, strict=True))
    assert plain.neck == []


def test_gradients_reach_the_neck_and_every_unfrozen_stage():
    prefix, network = opened("small_cnn", "sum", "all")
    rows, target = prefix(IMAGES[:, :16, :16]), tf.one_hot([0, 1, 2], CLASSES)
    with tf.GradientTape() as tape:
        trained, _ = network.training_logits(rows, target, SEED)
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, trained))
    parts = network.trainable_parts()
    gradients = tape.gradient(loss, [v.value for v in parts])
    assert len(parts) == 3 * 3 + 2 + 3
    assert all(g is not None and np.abs(g).max() > 0 for g in gradients)


def test_a_description_tells_fused_rows_from_plain_ones_and_no_more():
    def description(fusion: str, unfrozen: int, pooling: str = "average"):
        return opened("small_cnn", fusion, unfrozen, pooling)[0].description()

    plain = description("none", 3)
    assert set(plain) == {"backbone", "batch_norms", "weights", "image_size", "layer", "pooling", "precision"}
    fused = description("concat", 3)
    assert fused == plain | {"pooling": "average", "stages": ["conv_1_relu", "conv_2_relu"]}
    assert description("sum", 3) == fused
    assert description("concat", 3, "max") != fused
    assert description("concat", 6) == description("none", 6)  # no stage ends below: the same rows, found again


def build_unnamed(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
    """Keras names the sums, and counts on from model to model, as in Xception and NASNet."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="one", kernel_initializer="ones")(inputs)
    x = keras.layers.Add()([x, x])
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="two", kernel_initializer="ones")(x)
    x = keras.layers.Add()([x, x])
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="three", kernel_initializer="ones")(x)
    return keras.Model(inputs, x)


UNNAMED = Backbone("unnamed", f"{__name__}:build_unnamed", "tf", 16, 16, 6, imagenet=False)


def test_rows_are_found_again_where_keras_names_the_layers():
    described = []
    for _ in range(2):
        chosen = TrialConfig(backbone=f"{__name__}:UNNAMED", image_size=16, unfrozen_layers=1, feature_fusion="concat")
        model = build_backbone(chosen.backbone, "none", 16)
        prefix = Prefix(chosen.prefix_key("none"), model)
        described.append((prefix.layer, prefix.description()))
    assert described[0][0] != described[1][0]
    assert described[0][1] == described[1][1]
    assert (described[0][1]["layer"], described[0][1]["stages"]) == ("Add@4", ["Add@2", "Add@4"])


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_fused_rows_are_float32_whatever_the_network(precision):
    chosen = config(feature_fusion="sum", unfrozen_layers=3)
    prefix = Prefix(chosen.prefix_key("none", precision))
    network = Network(Architecture.of(chosen, "none", CLASSES, precision), prefix)
    network.reset(chosen, 0)
    rows = prefix(IMAGES[:, :16, :16])
    assert rows.dtype == network.features(rows, training=True).dtype == "float32"
    assert np.isfinite(network.predict(rows)).all()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_backbone_takes_every_stride_and_fusion():
    """Shapes for each row of the table, at its smallest size, the boundary in the middle."""
    seen, finer = 0, 0
    with_stages = {name: row for name, row in sorted(BACKBONES.items()) if not row.tokens}
    for name, row in with_stages.items():
        for stride in row.output_strides:
            model = build_backbone(name, "none", row.smallest_size, output_stride=stride)
            expected = -(-row.smallest_size // stride) if name != "small_cnn" else row.smallest_size // 4
            if row.smallest_size == 32:
                assert model.output_shape[1] == expected, name
            stages = stage_layers(model)
            widths = [model.get_layer(s).output.shape[-1] for s in stages]
            assert len(stages) == 3, name
            values = {"image_size": row.smallest_size, "unfrozen_layers": row.layers // 2, "output_stride": stride}
            chosen = TrialConfig(backbone=name, feature_fusion="concat", **values)
            prefix = Prefix(chosen.prefix_key("none"), model)
            tail = Network(Architecture.of(chosen, "none", CLASSES), prefix)
            images = np.zeros((1, row.smallest_size, row.smallest_size, 3), np.uint8)
            assert tail.predict(prefix(images)).shape == (1, CLASSES)
            assert tail.kernel.shape[0] == sum(widths), name
            finer += stride == 16
        seen += 1
        del model, prefix, tail
        keras.backend.clear_session()
    assert seen == len(with_stages) == len(BACKBONES) - 7
    assert finer > 30
