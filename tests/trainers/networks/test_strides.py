"""Output stride 16: at every second place the finer map holds what the old map held, and nothing else changes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.layers import (
    Add,
    AveragePooling2D,
    Conv2D,
    Conv2DTranspose,
    DepthwiseConv2D,
    MaxPooling2D,
    SeparableConv2D,
    ZeroPadding2D,
)

from trainers.backbones import BACKBONES
from trainers.errors import TrainerError
from trainers.networks.backbone import build_backbone
from trainers.networks.graph import layer_strides
from trainers.networks.strides import is_refined, with_output_stride

RANDOM = np.random.default_rng(0)


def give_values(model: keras.Model) -> None:
    """Random weights of a size that neither dies out nor explodes, biases included."""
    for layer in model.layers:
        drawn = []
        for w in layer.get_weights():
            fan_in = max(np.prod(w.shape[:-1]) if w.ndim > 1 else 1, 1)
            drawn.append(
                RANDOM.normal(size=w.shape) * np.sqrt(2 / fan_in) if w.ndim > 1 else RANDOM.uniform(size=w.shape)
            )
        layer.set_weights(drawn)


def liven(model: keras.Model) -> None:
    """Moving statistics that fit the random weights: with those of the start deep features are about 1e-12."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(RANDOM.normal(size=(4, *model.input_shape[1:])).astype(np.float32), training=True)
    for layer in norms:
        mean = np.mean(layer.moving_variance)
        layer.moving_variance.assign(np.full(layer.moving_variance.shape, mean + 1e-6, np.float32))


def close_gates(model: keras.Model) -> int:
    """Let each gate of squeeze and excitation give a constant, for it sees the whole map. Returns how many layers."""
    on_maps = layer_strides(model)
    gates = [layer for layer in model.layers if layer.name not in on_maps and layer.weights]
    for layer in gates:
        layer.set_weights([np.zeros_like(w) if w.ndim > 1 else w for w in layer.get_weights()])
    return len(gates)


def assert_every_second_place_is_the_old_map(model: keras.Model, finer: keras.Model) -> None:
    images = RANDOM.normal(size=(2, *model.input_shape[1:])).astype(np.float32)
    old, new = (np.asarray(m(images, training=False)) for m in (model, finer))
    side = old.shape[1]
    assert 2 * side - 1 <= new.shape[1] <= 2 * side
    assert new.shape[3] == old.shape[3]
    assert old.std() > 1e-3
    np.testing.assert_allclose(new[:, ::2, ::2], old, atol=1e-4 * np.abs(old).max(), rtol=0)


def halving(kind: str, window: int, padded: tuple[int, int]):
    """A layer that halves: ``kind`` says which and how it pads."""
    shared = {"strides": 2, "padding": "same" if kind.endswith("same") else "valid", "name": "halving"}
    if kind.startswith("conv"):
        layer = Conv2D(5, window, **shared)
    elif kind.startswith("depthwise"):
        layer = DepthwiseConv2D(window, **shared)
    elif kind.startswith("separable"):
        layer = SeparableConv2D(5, window, **shared)
    elif kind.startswith("max"):
        layer = MaxPooling2D(window, **shared)
    else:
        layer = AveragePooling2D(window, **shared)
    if "padded" not in kind:
        return layer
    return lambda x: layer(ZeroPadding2D((padded, padded), name="padding_before")(x))


def small(kind: str, size: int, window: int, padded: tuple[int, int] = (1, 1)) -> keras.Model:
    """One plain halving, the halving in question, then convolutions of many kinds, some of them lopsided."""
    inputs = keras.Input((size, size, 3))
    x = Conv2D(4, 3, strides=2, padding="same", activation="relu")(inputs)
    x = halving(kind, window, padded)(x)
    x = Conv2D(6, 3, padding="same", activation="relu")(x)
    y = SeparableConv2D(6, 3, padding="same")(x)
    x = Add()([x, y])
    x = Conv2D(4, 2, padding="same", activation="relu")(x)
    x = DepthwiseConv2D(5)(ZeroPadding2D(2)(x))
    x = Conv2D(4, 4, padding="same")(x)
    return keras.Model(inputs, Conv2D(3, 1)(x), name="small")


KINDS = (
    *("conv same", "conv valid", "conv padded", "depthwise same", "depthwise padded", "separable same"),
    *("max same", "max valid", "max padded", "average valid"),
)


@given(
    kind=st.sampled_from(KINDS),
    size=st.integers(14, 23),
    window=st.integers(1, 5),
    padded=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_every_kind_of_halving_keeps_its_values(kind, size, window, padded):
    if kind.endswith("padded"):  # a window as wide as its padding, as in every network there is
        window = max(window, 1 + sum(padded))
    model = small(kind, size, window, padded)
    give_values(model)
    assert_every_second_place_is_the_old_map(model, with_output_stride(model, 2))


def test_two_ways_to_one_sum_stay_in_step():
    """Xception's block: a pooling that looks right and down next to a convolution that looks at its own place."""
    inputs = keras.Input((16, 16, 3))
    x = Conv2D(4, 3, strides=2, padding="same")(inputs)
    side = Conv2D(6, 1, strides=2, padding="same")(x)
    x = MaxPooling2D(3, strides=2, padding="same")(SeparableConv2D(6, 3, padding="same")(x))
    model = keras.Model(inputs, SeparableConv2D(5, 3, padding="same")(Add()([x, side])))
    give_values(model)
    assert_every_second_place_is_the_old_map(model, with_output_stride(model, 2))


def test_names_order_and_weights_are_kept():
    model = build_backbone("mobilenet_0.25", "none", 64, seed=4)
    finer = build_backbone("mobilenet_0.25", "none", 64, seed=4, output_stride=16)
    assert [layer.name for layer in finer.layers[1:]] == [layer.name for layer in model.layers[1:]]
    assert len(finer.layers) == BACKBONES["mobilenet_0.25"].layers
    weights = [(a.name, b.name, np.array_equal(a, b)) for a, b in zip(model.weights, finer.weights, strict=True)]
    assert len(weights) == 137 - 2
    assert all(one == other and same for one, other, same in weights)
    assert model.output_shape == (None, 2, 2, 256)
    assert finer.output_shape == (None, 4, 4, 256)
    copy = with_output_stride(model, 16)
    assert copy.layers[0].name == model.layers[0].name
    assert layer_strides(copy) == layer_strides(model)
    assert with_output_stride(finer, 16) is finer
    assert with_output_stride(model, 32) is model
    assert is_refined(finer.layers)
    assert not is_refined(model.layers)


QUICK = [("mobilenet_0.25", 64), ("mobilenet_0.25", 112), ("mobilenet_v2_0.35", 80), ("vgg16", 80)]
SLOW = [
    *(("mobilenet_v3_small", 64), ("mobilenet_v3_large", 80), ("resnet50", 80), ("resnet50v2", 64), ("senet50", 80)),
    *(("xception", 71), ("xception", 96), ("densenet121", 64), ("densenet121", 80)),
    *(("efficientnet_b0", 64), ("efficientnet_b0", 80), ("efficientnet_v2_b0", 80), ("efficientnet_v2_s", 64)),
    *(("efficientnet_lite0", 64), ("efficientnet_lite0", 80), ("resnet18", 80), ("resnet50v1.5", 64)),
]


@pytest.mark.parametrize(("name", "size"), [*QUICK, *(pytest.param(*c, marks=pytest.mark.slow) for c in SLOW)])
def test_a_pretrained_backbone_would_see_what_it_was_trained_on(name, size):
    """Of each family that the table lets have a finer map. Gates see the whole map, so here they give a constant."""
    model = build_backbone(name, "none", size)
    liven(model)
    gates = close_gates(model)
    assert (gates > 0) == name.startswith(("mobilenet_v3", "senet", "efficientnet_b", "efficientnet_v2"))
    finer = with_output_stride(model, 16)
    assert finer.output_shape[1] == min(-(-size // 16), 2 * model.output_shape[1])
    assert_every_second_place_is_the_old_map(model, finer)


def test_those_are_all_the_families_with_a_finer_map():
    def family(name: str) -> str:
        return "".join(re.findall(r"^[a-z]+?(?=\d|v\d|_|$)|v[23]", name)[:2])

    able = {family(name) for name, row in BACKBONES.items() if 16 in row.output_strides}
    assert {family(name) for name, _ in QUICK + SLOW} == able
    assert len(able) == 11


def test_a_model_inside_counts_with_all_its_halvings():
    inputs = keras.Input((32, 32, 3))
    row = keras.Sequential([Conv2D(2, 3, strides=2, padding="same"), MaxPooling2D(2)], name="row")
    x = row(inputs)
    graph = keras.Model(x, Conv2D(2, 2, strides=2)(x), name="graph")
    whole = keras.Model(inputs, graph(x), name="own")
    assert layer_strides(whole) == {whole.layers[0].name: 1, "row": 4, "graph": 8}
    with pytest.raises(TrainerError, match=r"own cannot have a finer map: .* layer graph cannot be replaced"):
        with_output_stride(whole, 4)


def test_a_gate_sees_the_finer_map_and_changes_a_little():
    model = build_backbone("mobilenet_v3_small", "none", 64)
    liven(model)
    finer = with_output_stride(model, 16)
    images = RANDOM.normal(size=(2, 64, 64, 3)).astype(np.float32)
    old, new = (np.asarray(m(images, training=False)) for m in (model, finer))
    difference = np.abs(new[:, ::2, ::2] - old).mean() / np.abs(old).mean()
    assert 0 < difference < 0.5


@pytest.mark.skipif("ORCH_WEIGHTS" not in os.environ, reason="ORCH_WEIGHTS names no folder of real weights")
def test_real_weights_see_what_they_were_trained_on():
    folder = os.environ["ORCH_WEIGHTS"]
    assert list(Path(folder).glob("mobilenet_0.25_*.h5"))
    model, finer = (build_backbone("mobilenet_0.25", folder, 128, output_stride=s) for s in (32, 16))
    assert_every_second_place_is_the_old_map(model, finer)


def test_what_cannot_be_done_is_a_sentence():
    with pytest.raises(TrainerError, match=r"^inception_v3 cannot have output stride 16; it takes 32\.$"):
        build_backbone("inception_v3", "none", 96, output_stride=16)
    with pytest.raises(TrainerError, match=r"^vgg16 cannot have output stride 8; it takes 16 or 32\.$"):
        build_backbone("vgg16", "none", 64, output_stride=8)
    cnn = build_backbone("small_cnn", "none", 32)
    padded = small("conv padded", 16, 1, (2, 2))
    with pytest.raises(TrainerError, match=r"small cannot have a finer map: .* layer halving cannot be replaced"):
        with_output_stride(padded, 2)
    with pytest.raises(TrainerError, match=r"the map of small_cnn has output stride 4, finer than the 16 asked for"):
        with_output_stride(cnn, 16)

    class Halving(Conv2D):
        pass

    inputs = keras.Input((16, 16, 3))
    halved = keras.Model(inputs, Halving(2, 3, strides=2, name="mine")(Conv2D(2, 3, strides=2)(inputs)), name="own")
    with pytest.raises(TrainerError, match=r"own cannot have a finer map: .* layer mine cannot be replaced"):
        with_output_stride(halved, 2)
    for after in (
        MaxPooling2D(2, strides=1, name="late"),
        Halving(2, 3, name="late"),
        Conv2DTranspose(2, 3, name="late"),
    ):
        x = after(Conv2D(2, 3, strides=2)(Conv2D(2, 3, strides=2)(inputs)))
        with pytest.raises(TrainerError, match=r"own cannot have a finer map: its layer late cannot be dilated"):
            with_output_stride(keras.Model(inputs, x, name="own"), 2)
