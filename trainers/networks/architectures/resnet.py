"""ResNets as PyTorch has them (He et al. 2016), so that weights of timm and torchvision fit.

A block of two 3x3 convolutions (table 1: 18 and 34 layers) or a bottleneck of 1x1, 3x3 and 1x1 (50 and more) adds to
its shortcut and is rectified (equation 1). Keras' own ResNet-50 differs: there the stride is in the first 1x1
convolution, which drops three quarters of its input; here it is in the 3x3, a change known as ResNet v1.5. Padding is
symmetric, convolutions have no bias, and batch norms add 1e-5 to the variance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

EPSILON = 1e-5
MOMENTUM = 0.9
EXPANSION = 4
"""Channels that a bottleneck block returns over those of its 3x3 convolution."""
STEM, WIDTHS = 64, (64, 128, 256, 512)

Gate = Callable[[Any, str], Any]
"""(output of a block's last batch norm, prefix of layer names) -> the same, weighted."""


def build_resnet(
    input_shape: tuple[int, int, int],
    include_top: bool,
    weights: None,
    depths: Sequence[int],
    bottleneck: bool = True,
) -> keras.Model:
    """Build a ResNet from preprocessed images ("torch") to the map of its last stage: 512 channels, bottlenecks 2,048.

    ``depths``: blocks of each stage. Raises ValueError for a top or for weights; load a converted weight file instead.
    """
    refuse_top("a ResNet", include_top, weights)
    return residual_network(input_shape, depths, WIDTHS, bottleneck)


def refuse_top(name: str, include_top: bool, weights: str | None) -> None:
    """Raise ValueError if Keras' arguments ask for a classifier or for weights to download."""
    if include_top or weights is not None:
        raise ValueError(f"{name} is built without a top and without weights; load a converted weight file into it.")


def residual_network(
    input_shape: tuple[int, int, int],
    depths: Sequence[int],
    widths: Sequence[int],
    bottleneck: bool = True,
    gate: Gate | None = None,
    name: str = "resnet",
) -> keras.Model:
    """Build a ResNet of ``depths`` blocks per stage, whose 3x3 convolutions have ``widths`` channels.

    Layers are named stem_conv, stem_bn, stem_relu, stem_pool, then stage1_block1_conv1 and so on; the last layer of a
    stage is stageN_blockM_out.
    """
    inputs = keras.Input(input_shape, name="images")
    x = _conv(inputs, STEM, 7, "stem_conv", stride=2)
    x = _norm(x, "stem_bn")
    x = layers.ReLU(name="stem_relu")(x)
    # Zeros equal PyTorch's padding with minus infinity: the output of a ReLU is never below them.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        for block in range(1, depth + 1):
            stride = 2 if block == 1 and stage > 1 else 1
            x = _block(x, width, stride, f"stage{stage}_block{block}", bottleneck, gate)
    return keras.Model(inputs, x, name=name)


def timm_name(layer: str) -> str:
    """Translate a layer's name to timm's and torchvision's: stage1_block2_se_fc1 -> layer1.1.se.fc1."""
    if layer.startswith("stem_"):
        return {"stem_conv": "conv1", "stem_bn": "bn1"}[layer]
    stage, block, rest = layer.split("_", 2)
    rest = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(rest, rest.replace("se_", "se."))
    return f"layer{stage.removeprefix('stage')}.{int(block.removeprefix('block')) - 1}.{rest}"


def _block(x: Any, width: int, stride: int, name: str, bottleneck: bool, gate: Gate | None) -> Any:
    """1x1, 3x3 (with the stride), 1x1; or 3x3 (with the stride), 3x3. Then the gate, and the shortcut."""
    channels = width * EXPANSION if bottleneck else width
    # (size, channels, stride) of each convolution
    convolutions = (
        [(1, width, 1), (3, width, stride), (1, channels, 1)] if bottleneck else [(3, width, stride), (3, width, 1)]
    )
    y = x
    for number, (size, filters, step) in enumerate(convolutions, start=1):
        y = _norm(_conv(y, filters, size, f"{name}_conv{number}", step), f"{name}_bn{number}")
        if number < len(convolutions):
            y = layers.ReLU(name=f"{name}_relu{number}")(y)
    y = gate(y, f"{name}_se") if gate else y
    if stride != 1 or x.shape[-1] != channels:
        x = _norm(_conv(x, channels, 1, f"{name}_shortcut_conv", stride), f"{name}_shortcut_bn")
    x = layers.Add(name=f"{name}_add")([y, x])
    return layers.ReLU(name=f"{name}_out")(x)


def _conv(x: Any, filters: int, size: int, name: str, stride: int = 1) -> Any:
    """A convolution without bias, padded by size // 2 on every side."""
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    return layers.Conv2D(filters, size, strides=stride, use_bias=False, name=name)(x)


def _norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)(x)
