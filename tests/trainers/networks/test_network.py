"""The boundary: what is trained, what is frozen, and that prefix and tail together are the whole network."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.networks import CLASSES, IMAGES, SIZES, network_of
from tests.support.tiny_fits import config
from trainers.backbones import Backbone, backbone
from trainers.errors import TrainerError
from trainers.networks.backbone import build_backbone, preprocess
from trainers.networks.graph import refresh
from trainers.networks.network import Architecture, Network
from trainers.networks.prefix import Prefix, pool


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


def liven(model: keras.Model, name: str, images: np.ndarray) -> keras.Model:
    """Random weights, and moving statistics that fit them: with those of the start all features are about 1e-12.

    One variance for all channels of a layer: a nearly constant channel would turn rounding into a large difference.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(preprocess(backbone(name), tf.constant(images)), training=True)
    for layer in norms:
        layer.moving_variance.assign(np.full(layer.moving_variance.shape, np.mean(layer.moving_variance), np.float32))
    return model


@functools.cache
def lively_mobilenet_v2() -> keras.Model:
    return liven(build_backbone("mobilenet_v2", "none", 32), "mobilenet_v2", IMAGES)


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
        # Folded and traced, as it runs, the fifty random layers round a little differently than one by one.
        eager = prefix._cut(inputs, training=False)
        assert_close(prefix(IMAGES), pool(eager, "average") if prefix.pooling else eager, 1e-3)
        assert_close(network.features(eager, training=False), expected)
    assert_close(network.features(prefix(IMAGES), training=False), expected, 1e-3)
    assert prefix.spec.is_compatible_with(prefix(IMAGES))


FAMILIES = [
    *("vgg16", "resnet50", "resnet50v2", "senet50", "xception", "inception_v3", "inception_resnet_v2", "densenet121"),
    *("mobilenet_v3_small", "efficientnet_b0", "efficientnet_v2_b0", "convnext_tiny", "nasnet_mobile"),
    *("efficientnet_lite0", "resnet18", "resnet50v1.5", "convnext_v2_atto"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_prefix_then_tail_is_the_whole_network_for_each_family(name):
    """Nothing unfrozen, five layers, the middle of a block, a half, everything; every second one at a finer stride."""
    row = backbone(name)
    model = build_backbone(name, "none", row.smallest_size)
    images = np.random.default_rng(0).integers(0, 256, (3, row.smallest_size, row.smallest_size, 3), np.uint8)
    liven(model, name, images)
    whole: dict[int, np.ndarray] = {}
    cut = 0
    for number, unfrozen in enumerate((0, 5, row.layers // 8 + 1, row.layers // 2, "all")):
        stride = 16 if number % 2 and 16 in row.output_strides else 32
        prefix, network = network_of(name, unfrozen, model, output_stride=stride)
        if stride not in whole:
            inputs = preprocess(row, tf.constant(images))
            whole[stride] = np.asarray(pool(prefix.model(inputs, training=False), "average"))
            assert np.abs(whole[stride]).max() > 0.01
        # Neither folded nor traced: both round differently, which hundreds of random layers turn into a thousandth.
        rows = prefix(images)
        if not prefix.is_identity:
            inputs = preprocess(row, tf.constant(images))
            plain, moved = (prefix._cut(x, training=False) for x in (inputs, inputs * (1 + 1e-6)))
            plain, moved = (pool(x, "average") if prefix.pooling else x for x in (plain, moved))
            # What runs differs no more than if each pixel were off by a millionth.
            rounding = max(1e-5 * np.abs(plain).max(), 2 * np.abs(moved - plain).max())
            np.testing.assert_allclose(rows, plain, rtol=0, atol=rounding)
            rows = plain
        actual = network.features(rows, training=False)
        np.testing.assert_allclose(actual, whole[stride], rtol=0, atol=1e-4 * max(np.abs(whole[stride]).max(), 1))
        cut += not prefix.is_identity
    assert cut >= (1 if name == "nasnet_mobile" else 3)


VIT = "tests.support.tiny_fits:VIT"


@pytest.mark.parametrize("pooling", ["token", "average", "max"])
@pytest.mark.parametrize(
    ("unfrozen", "layer"), [(0, "block_2"), (1, "block_1"), (2, "tokens"), (3, "patches"), (4, "")]
)
def test_prefix_then_tail_is_the_whole_transformer(unfrozen, layer, pooling):
    """Each block is one layer: 1 trains the last block, 2 both, 3 the tokens, too."""
    prefix, network = network_of(VIT, unfrozen, pooling=pooling)
    images = IMAGES[:, :16, :16]
    tokens = np.asarray(prefix.model(preprocess(network.row, tf.constant(images)), training=False))
    assert tokens.shape == (3, 2 + 16, 32)  # the class token, a register, the patches
    expected = {"token": tokens[:, 0], "average": tokens[:, 2:].mean(1), "max": tokens[:, 2:].max(1)}[pooling]
    assert np.abs(expected).max() > 0.1
    assert_close(network.features(prefix(images), training=False), expected)
    assert (prefix.layer, prefix.pooling) == (layer, pooling if unfrozen == 0 else "")
    shapes = {"block_2": (32,), "block_1": (18, 32), "tokens": (18, 32), "patches": (4, 4, 32), "": (16, 16, 3)}
    assert tuple(prefix.spec.shape[1:]) == shapes[layer]
    trained = {weight.path.split("/")[-2] for weight in network.trainable_parts() if "block" in weight.path}
    assert trained == {f"block_{number}" for number in range(3 - min(unfrozen, 2), 3)}


def test_a_transformer_trains_with_rates_that_fall_block_by_block():
    _, network = network_of(VIT, 2, pooling="token")
    in_block = {1.0, 0.5}
    assert set(network.depths()) == in_block | {0.0}
    assert network.depths().count(1.0) == 12  # two norms, four dense layers
    assert network.depths().count(0.5) == 14  # and the last norm


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
    prefix, network = network_of("tests.support.tiny_fits:RESIDUAL", 4)
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


UNNAMED = Backbone("unnamed", f"{__name__}:build_unnamed", "tf", 16, 16, 3, imagenet=False)


@pytest.mark.parametrize("backbone_name", ["small_cnn", f"{__name__}:UNNAMED"])
def test_reset_makes_a_network_as_new(backbone_name):
    _, network = network_of(backbone_name, 1 if "UNNAMED" in backbone_name else 3)
    trial = config(dropout=0.3)
    network.reset(trial, 1)
    first = network.state()
    network.reset(trial, 2)
    second = network.state()
    for variable in network.weights():
        variable.assign(np.full(variable.shape, 7.0, np.float32))
    network.reset(trial, 1)
    assert all(np.array_equal(a, b) for a, b in zip(network.state(), first, strict=True))
    kernels = [(a, b) for a, b in zip(first, second, strict=True) if a.ndim > 1]
    assert len(kernels) == 2  # one of the backbone, one of the head
    assert not any(np.array_equal(a, b) for a, b in kernels)


def test_frozen_layers_are_the_same_for_every_seed():
    _, network = network_of("tests.support.tiny_fits:RESIDUAL", 4)
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


def build_nested(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
    def block(shape: tuple[int, ...], name: str) -> keras.Model:
        start = keras.Input(shape[1:])
        return keras.Model(start, keras.layers.Conv2D(4, 3, activation="relu")(start), name=name)

    start = x = keras.Input(input_shape)
    for name in ("one", "two", "three"):
        x = block(x.shape, name)(x)
    return keras.Model(start, x)


NESTED = Backbone("nested", f"{__name__}:build_nested", "tf", 16, 16, 4, imagenet=False)


@pytest.mark.parametrize("fusion", ["none", "concat"])
@pytest.mark.parametrize("unfrozen", [0, 1, 2, "all"])
def test_a_model_within_the_model_is_one_layer(unfrozen, fusion):
    name = f"{__name__}:NESTED"
    prefix, network = network_of(name, unfrozen, build_backbone(name, "none", 16), feature_fusion=fusion)
    assert prefix.layer == {0: "three", 1: "two", 2: "one", "all": ""}[unfrozen]
    whole = network.features(prefix(IMAGES[:, :16, :16]), training=False)
    expected = pool(prefix.model(preprocess(network.row, tf.constant(IMAGES[:, :16, :16]))), "average")
    if fusion == "none":
        assert_close(whole, expected)
    assert_close(network.probabilities(prefix(IMAGES[:, :16, :16])).numpy().sum(axis=1), np.ones(len(IMAGES)))


def build_wrapped(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
    start = keras.Input(input_shape)
    x = keras.layers.Normalization(name="normalise")(start)
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    inner = keras.Model(start, keras.layers.BatchNormalization(name="norm")(x), name="inner")
    outer = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, name="after")(inner(outer))
    return keras.Model(outer, keras.layers.BatchNormalization(name="norm_after")(x))


WRAPPED = Backbone("wrapped", f"{__name__}:build_wrapped", "none", 16, 16, 4, imagenet=False)


@pytest.mark.parametrize("unfrozen", [0, 2, 3, "all"])
def test_a_model_within_the_model_keeps_what_it_derives_from_its_weights(unfrozen):
    model = build_backbone(f"{__name__}:WRAPPED", "none", 16)
    mean = np.array([100, 50, 20], np.float32)
    model.get_layer("inner").get_layer("normalise").set_weights([mean, mean**2, np.int64(1)])
    refresh(model)
    expected = pool(model(SMALL_IMAGES.astype(np.float32), training=False), "average")
    prefix, network = network_of(f"{__name__}:WRAPPED", unfrozen, model)
    np.testing.assert_allclose(network.features(prefix(SMALL_IMAGES), training=False), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_a_precision_stays_within_its_network(precision):
    chosen = config(unfrozen_layers=3)
    architecture = Architecture.of(chosen, "none", CLASSES, precision)
    network = Network(architecture, Prefix(architecture.prefix))
    assert network.tail.get_layer("conv_3").compute_dtype == precision.removeprefix("mixed_")
    assert network.tail.get_layer("conv_3").variable_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"
    plain = Architecture.of(chosen, "none", CLASSES)
    assert Network(plain, Prefix(plain.prefix)).tail.get_layer("conv_3").compute_dtype == "float32"


def build_with_dropout(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
    """Two blocks, each with a Dropout and a batch norm, and Keras' layer that derives values from its weights."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Normalization(name="normalise")(inputs)
    for block in "ab":
        x = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name=f"{block}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{block}_bn")(x)
        x = keras.layers.Dropout(0.5, name=f"{block}_drop")(x)
    return keras.Model(inputs, x)


DROPPING = Backbone("dropping", f"{__name__}:build_with_dropout", "none", 16, 16, 8, imagenet=False)
TARGET = tf.one_hot([0, 1, 2], CLASSES)
SMALL_IMAGES = IMAGES[:, :16, :16]


def losses_of(network: Network, rows: tf.Tensor, seeds: list[int]) -> list[float]:
    """One traced training step for each seed, weights as they were."""

    @tf.function
    def step(seed: tf.Tensor) -> tf.Tensor:
        logits, _ = network.training_logits(rows, TARGET, seed)
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(TARGET, logits))

    return [float(step(tf.constant([7, s], tf.int64))) for s in seeds]


@pytest.mark.parametrize("unfrozen", [3, 6, "all"])
def test_what_is_random_inside_a_backbone_comes_from_the_seed_alone(unfrozen):
    prefix, network = network_of(f"{__name__}:DROPPING", unfrozen)
    assert len(network._generators) == (1 if unfrozen == 3 else 2)
    network.reset(config(dropout=0.2), 0)
    rows = prefix(SMALL_IMAGES)
    start = network.state()
    first = losses_of(network, rows, [0, 2, 4, 2])
    network.load_state(start)
    again = losses_of(network, rows, [4, 2, 0, 2])
    assert first[1] == first[3]
    assert len(set(first)) == 3
    assert again == [first[2], first[1], first[0], first[1]]
    other = Network(network.architecture, prefix)  # as in a process of its own
    other.reset(config(dropout=0.2), 0)
    assert losses_of(other, rows, [0, 2, 4, 2]) == first


def test_two_random_layers_drop_different_units():
    _, network = network_of(f"{__name__}:DROPPING", "all")
    network.training_logits(tf.constant(SMALL_IMAGES), TARGET, tf.constant([7, 0], tf.int64))
    one, other = (tuple(np.asarray(g.state)) for g in network._generators)
    assert one != other


@pytest.mark.parametrize("unfrozen", [0, 1])
def test_frozen_layers_run_in_inference_mode_inside_the_network(unfrozen):
    """Where images are mixed the frozen part runs here: it neither drops units nor moves its statistics."""
    prefix, network = network_of(f"{__name__}:DROPPING", unfrozen, mixup=1.0)
    assert prefix.is_identity
    assert prefix.layer == ""
    network.reset(config(), 0)
    norm = network.tail.get_layer("b_bn")
    inside = keras.Model(network.tail.input, norm.output)
    before = [w.copy() for w in norm.get_weights()]
    images = preprocess(network.row, tf.constant(SMALL_IMAGES))
    np.testing.assert_array_equal(inside(images, training=True), inside(images, training=False))
    one, other = losses_of(network, tf.constant(SMALL_IMAGES), [0, 2])
    assert (one == other) == (unfrozen == 0)  # the last layer, the only one that 1 leaves open, drops units
    assert all(np.array_equal(a, b) for a, b in zip(norm.get_weights(), before, strict=True))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_mixing_puts_the_boundary_at_the_input_and_changes_no_function(mixup, cutmix):
    stored_prefix, stored = network_of("mobilenet_v2", 5, lively_mobilenet_v2())
    prefix, network = network_of("mobilenet_v2", 5, lively_mobilenet_v2(), mixup=mixup, cutmix=cutmix)
    assert prefix.key.mixes
    assert network.input_spec == tf.TensorSpec((None, 32, 32, 3), tf.uint8)
    assert count(network.trainable_parts()) == count(stored.trainable_parts())
    expected = stored.features(stored_prefix(IMAGES), training=False)
    assert_close(network.features(prefix(IMAGES), training=False), expected, 1e-3)
    assert_close(network.features(tf.constant(IMAGES, tf.float32), training=False), expected, 1e-3)
    halves = 0.5 * IMAGES[:1].astype(np.float32) + 0.5 * IMAGES[1:2]
    assert network.features(tf.constant(halves), training=True).shape == (1, 1280)


def test_unmixed_configurations_have_the_architecture_that_they_had():
    old = Architecture.of(config(), "none", CLASSES)
    assert (old.prefix.output_stride, old.prefix.feature_fusion, old.prefix.mixes) == (32, "none", False)
    assert Architecture.of(config(mixup=0.2), "none", CLASSES) != old


@pytest.mark.parametrize("unfrozen", [6, "all"])
def test_values_derived_from_weights_are_derived_again(unfrozen):
    """Keras' Normalization goes on with the mean that it had when it was built, whatever ``set_weights`` puts there."""
    model = build_backbone(f"{__name__}:DROPPING", "none", 16)
    mean = np.array([100, 50, 20], np.float32)
    model.get_layer("normalise").set_weights([mean, mean**2, np.int64(1)])
    prefix, network = network_of(f"{__name__}:DROPPING", unfrozen, model)
    by_hand = (SMALL_IMAGES.astype(np.float32) - mean) / mean
    rest = keras.Model(model.layers[1].output, model.output)
    expected = pool(rest(by_hand, training=False), "average")
    np.testing.assert_allclose(network.features(prefix(SMALL_IMAGES), training=False), expected, rtol=1e-4, atol=1e-5)
    if unfrozen == "all":
        state = network.state()
        network.reset(config(), 0)  # without weights the layer takes its pixels as they are
        assert float(np.abs(network.tail.layers[1].mean).max()) == 0
        network.load_state(state)
        np.testing.assert_array_equal(np.ravel(network.tail.layers[1].mean), mean)


@pytest.mark.slow
def test_efficientnet_drops_paths_by_the_seed_alone():
    prefix, network = network_of("efficientnet_b0", "all", image_size=32)
    assert len(network._generators) == 9
    network.reset(config(), 0)
    rows = prefix(IMAGES)
    start = network.state()
    first = losses_of(network, rows, [0, 2])
    network.load_state(start)
    assert losses_of(network, rows, [0, 2]) == first
    assert len(set(first)) == 2
