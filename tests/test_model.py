"""The boundary: what is trained, what is frozen, and that prefix and tail together are the whole network."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_fits import config

from trainers.backbones import Backbone, backbone
from trainers.contract import TrainerError, TrialConfig
from trainers.model import (
    Architecture,
    Network,
    Prefix,
    boundary_index,
    build_backbone,
    pool,
    prefix_length,
    preprocess,
)

SIZES = {"small_cnn": 16, "mobilenet_0.25": 32, "mobilenet_v2": 32, "resnet50": 32, "vgg16": 32}
CLASSES = 4
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def architecture_of(name: str, unfrozen: int | str, **values) -> Architecture:
    chosen = TrialConfig(backbone=name, image_size=SIZES.get(name, 16), unfrozen_layers=unfrozen, **values)
    return Architecture.of(chosen, "none", CLASSES)


def network_of(name: str, unfrozen: int | str, model: keras.Model | None = None, **values) -> tuple[Prefix, Network]:
    architecture = architecture_of(name, unfrozen, **values)
    prefix = Prefix(architecture, model)
    return prefix, Network(architecture, prefix)


def count(variables) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def expected_trainable(name: str, unfrozen: int | str) -> int:
    """Weights of the last n Keras layers, a batch norm's moving statistics not among them."""
    layers = build_backbone(name, "none", SIZES[name]).layers
    last = layers if unfrozen == "all" else layers[len(layers) - unfrozen :]
    total = 0
    for layer in last:
        weights = layer.get_weights()
        total += sum(w.size for w in (weights[:2] if isinstance(layer, keras.layers.BatchNormalization) else weights))
    return total


# The last residual block of resnet50 is 10 layers long: 5 cuts it, 13 cuts the one before. 13 and 17 of mobilenet_v2
# cut block_15.
@pytest.mark.parametrize(
    ("name", "unfrozen"),
    [
        *(("small_cnn", n) for n in (0, 1, 3, 5, 9, "all")),
        *(("mobilenet_0.25", n) for n in (0, 5, 13, "all")),
        *(("mobilenet_v2", n) for n in (0, 5, 13, 17, "all")),
        *(("resnet50", n) for n in (5, 13)),
        *(("vgg16", n) for n in (0, 5)),
    ],
)
def test_trainable_weights_are_those_of_the_last_layers_and_the_head(name, unfrozen):
    prefix, network = network_of(name, unfrozen)
    channels = prefix.model.output.shape[-1]
    trainable = network.trainable_parts()
    assert count(trainable) == expected_trainable(name, unfrozen) + channels * CLASSES + CLASSES
    assert len({id(v) for v in trainable}) == len(trainable)


def test_the_counts_of_two_backbones_in_figures():
    """So that a mistake made twice, above and in the model, is seen: numbers taken from Keras' own summary."""
    head = 2048 * CLASSES + CLASSES
    _, network = network_of("resnet50", 5)
    # conv5_block3: _3_conv (512 * 2048 + 2048) and _3_bn (2 * 2048); add and out have none, 2_relu neither.
    assert count(network.trainable_parts()) == 512 * 2048 + 2048 + 2 * 2048 + head
    _, network = network_of("mobilenet_0.25", "all")
    assert count(network.trainable_parts()) == 218_544 - 5_472 + 256 * CLASSES + CLASSES


@pytest.mark.parametrize("hidden", [0, 7])
def test_a_hidden_layer_is_trained_too(hidden):
    _, network = network_of("small_cnn", 0, hidden=hidden)
    expected = 64 * hidden + hidden + hidden * CLASSES + CLASSES if hidden else 64 * CLASSES + CLASSES
    assert count(network.trainable_parts()) == expected


@pytest.mark.parametrize(
    ("name", "unfrozen", "cut"),
    [
        ("mobilenet_v2", 0, "out_relu"),
        ("mobilenet_v2", 4, "block_16_project"),
        ("mobilenet_v2", 11, "block_15_add"),
        ("mobilenet_v2", 13, "block_14_add"),
        ("mobilenet_v2", 17, "block_14_add"),
        ("mobilenet_v2", 23, "block_13_project_BN"),
        ("resnet50", 3, "conv5_block2_out"),
        ("resnet50", 12, "conv5_block1_out"),
        ("small_cnn", 3, "conv_2_relu"),
        ("small_cnn", "all", ""),
        ("small_cnn", 9, ""),
    ],
)
def test_the_prefix_ends_at_the_nearest_single_tensor(name, unfrozen, cut):
    prefix = Prefix(architecture_of(name, unfrozen))
    assert prefix.layer == cut
    assert prefix.is_identity == (cut == "")
    assert prefix.length <= boundary_index(prefix.model, unfrozen)


@functools.cache
def lively_mobilenet_v2() -> keras.Model:
    """Random weights, and moving statistics that fit them: with those of the start all features are about 1e-12.

    One variance for all channels of a layer: a nearly constant channel would turn rounding into a large difference.
    """
    model = build_backbone("mobilenet_v2", "none", 32)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(preprocess(backbone("mobilenet_v2"), tf.constant(IMAGES)), training=True)
    for layer in norms:
        layer.moving_variance.assign(np.full(layer.moving_variance.shape, np.mean(layer.moving_variance), np.float32))
    return model


def assert_close(actual, expected, relative: float = 1e-5) -> None:
    """To ``relative`` of the largest value."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * np.abs(expected).max())


@pytest.mark.parametrize("unfrozen", [0, 3, 12, 13, 60, "all"])
def test_prefix_then_tail_is_the_whole_network(unfrozen):
    prefix, network = network_of("mobilenet_v2", unfrozen, lively_mobilenet_v2())
    inputs = preprocess(network.row, tf.constant(IMAGES))
    expected = pool(prefix.model(inputs, training=False), "average")
    assert np.abs(expected).max() > 0.1
    if not prefix.is_identity:
        # Traced, as it runs, the fifty random layers round a little differently than one by one.
        eager = prefix._frozen(inputs, training=False)
        assert_close(prefix(IMAGES), pool(eager, "average") if prefix.pooling else eager, 1e-3)
        assert_close(network.features(eager, training=False), expected)
    assert_close(network.features(prefix(IMAGES), training=False), expected, 1e-3)
    assert prefix.spec.is_compatible_with(prefix(IMAGES))


def test_prefix_then_tail_of_the_other_residual_network():
    prefix, network = network_of("resnet50", 8, pooling="max")
    expected = pool(prefix.model(preprocess(network.row, tf.constant(IMAGES)), training=False), "max")
    assert_close(network.features(prefix(IMAGES), training=False), expected)
    assert prefix.layer == "conv5_block2_out"


@pytest.mark.parametrize(("unfrozen", "moves"), [(3, {"conv_3_bn"}), (5, {"conv_3_bn", "conv_2_bn"}), (1, set())])
def test_only_unfrozen_batch_norms_move(unfrozen, moves):
    prefix, network = network_of("small_cnn", unfrozen)
    images = tf.constant(IMAGES[:, :16, :16])
    layers = {} if network.tail is None else {layer.name: layer for layer in network.tail.layers}
    norms = {n: layer for n, layer in layers.items() if isinstance(layer, keras.layers.BatchNormalization)}
    before = {name: layer.moving_mean.numpy() for name, layer in norms.items()}
    frozen_before = [w.copy() for w in prefix.model.get_weights()]
    network.features(prefix(images), training=True)
    moved = {name for name, layer in norms.items() if not np.array_equal(layer.moving_mean.numpy(), before[name])}
    assert moved == moves
    assert all(np.array_equal(a, b) for a, b in zip(prefix.model.get_weights(), frozen_before, strict=True))


def test_a_frozen_batch_norm_inside_the_tail_is_in_inference_mode():
    """The end of a block is open, so its beginning is run with the tail; its output must not see the batch."""
    prefix, network = network_of("tiny_fits:RESIDUAL", 4)
    frozen = [layer for layer in network.tail.layers if not layer.trainable and layer.weights]
    norms = [layer for layer in frozen if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    before = [layer.moving_mean.numpy() for layer in norms]
    middle = keras.Model(network.tail.inputs, norms[0].output)
    x = prefix(IMAGES[:, :16, :16])
    np.testing.assert_allclose(middle(x, training=True), middle(x, training=False), rtol=1e-6, atol=1e-6)
    network.features(x, training=True)
    assert all(np.array_equal(layer.moving_mean.numpy(), b) for layer, b in zip(norms, before, strict=True))


def test_training_one_network_leaves_every_other_alone():
    prefix, one = network_of("small_cnn", 3)
    other = Network(one.architecture, prefix)
    start = other.state()
    for variable in one.trainable_parts():
        variable.assign(np.ones(variable.shape, np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(other.state(), start, strict=True))


def build_unnamed(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
    """A backbone whose layers are named by Keras, which counts on from model to model."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=2)(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(x)
    return keras.Model(inputs, x)


UNNAMED = Backbone("unnamed", "test_model:build_unnamed", "tf", 16, 16, 3, imagenet=False)


@pytest.mark.parametrize("backbone_name", ["small_cnn", "test_model:UNNAMED"])
def test_reset_makes_a_network_as_new(backbone_name):
    _, network = network_of(backbone_name, 1 if "UNNAMED" in backbone_name else 3)
    trial = config(dropout=0.3)
    network.reset(trial, 1)
    first = network.state()
    network.reset(trial, 2)
    second = network.state()
    for variable in network._all_weights():
        variable.assign(np.full(variable.shape, 7.0, np.float32))
    network.reset(trial, 1)
    assert all(np.array_equal(a, b) for a, b in zip(network.state(), first, strict=True))
    kernels = [(a, b) for a, b in zip(first, second, strict=True) if a.ndim > 1]
    assert len(kernels) == 2  # one of the backbone, one of the head
    assert not any(np.array_equal(a, b) for a, b in kernels)


def test_frozen_layers_are_the_same_for_every_seed():
    _, network = network_of("tiny_fits:RESIDUAL", 4)
    network.reset(config(), 1)
    frozen = [layer for layer in network.tail.layers if not layer.trainable and layer.weights]
    first = [layer.get_weights()[0] for layer in frozen]
    network.reset(config(), 2)
    assert frozen
    assert all(np.array_equal(layer.get_weights()[0], w) for layer, w in zip(frozen, first, strict=True))


def test_dropout_keeps_the_mean_and_follows_its_seed():
    _, network = network_of("small_cnn", 0)
    network.reset(config(dropout=0.5, unfrozen_layers=0), 0)
    ones = tf.ones((200, 64))
    dropped, same, other = (network._drop(ones, tf.constant([0, s], tf.int64)).numpy() for s in (0, 0, 2))
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert np.array_equal(dropped, same)
    assert not np.array_equal(dropped, other)


def test_stored_weights_of_another_architecture_are_a_sentence():
    _, network = network_of("small_cnn", 0)
    with pytest.raises(TrainerError, match="do not fit the configuration"):
        network.load_state([np.zeros((1, 1), np.float32)])


def test_a_description_changes_with_all_that_the_features_depend_on(tmp_path):
    def description(unfrozen=0, weights="none", size=32, precision="float32", **values):
        chosen = TrialConfig(backbone="tiny_fits:TINY", image_size=size, unfrozen_layers=unfrozen, **values)
        return Prefix(Architecture.of(chosen, weights, CLASSES, precision)).description()

    folders = []
    for seed in (5, 6):
        folders.append(tmp_path / str(seed))
        folders[-1].mkdir()
        build_backbone("small_cnn", "none", 32, seed=seed).save_weights(folders[-1] / "tiny_32.weights.h5")
    different = [
        description(),
        description(unfrozen=3),
        description(size=64),
        description(pooling="max"),
        description(precision="mixed_bfloat16"),
        *(description(weights=str(folder)) for folder in folders),
    ]
    assert len({str(d) for d in different}) == 7
    assert description(head="arcface", dropout=0.5, learning_rate=1.0) == different[0]


@keras.saving.register_keras_serializable()
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def test_a_layer_used_twice_is_not_cut_in_between():
    inputs = keras.Input((4,))
    shared, first = keras.layers.Dense(4, name="shared"), Twice(name="first")
    outputs = Twice(name="last")(shared(first(shared(inputs))))
    model = keras.Model(inputs, outputs)
    position = {layer.name: i for i, layer in enumerate(model.layers)}
    assert prefix_length(model, len(model.layers)) == len(model.layers)
    inside = max(position["shared"], position["first"])
    assert prefix_length(model, inside) <= 1


def test_an_operation_outside_layers_is_a_sentence():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.sqrt(keras.layers.Dense(4)(inputs)), name="mine")
    with pytest.raises(TrainerError, match=r"the backbone mine computes sqrt\w* outside its layers; put it into"):
        prefix_length(model, 2)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_a_precision_stays_within_its_network(precision):
    chosen = config(unfrozen_layers=3)
    architecture = Architecture.of(chosen, "none", CLASSES, precision)
    network = Network(architecture, Prefix(architecture))
    assert network.tail.get_layer("conv_3").compute_dtype == precision.removeprefix("mixed_")
    assert network.tail.get_layer("conv_3").variable_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"
    plain = Architecture.of(chosen, "none", CLASSES)
    assert Network(plain, Prefix(plain)).tail.get_layer("conv_3").compute_dtype == "float32"
