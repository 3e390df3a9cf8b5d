"""SENet50: a ResNet-50 whose blocks weight their channels (Hu, Shen, Sun 2018), as timm's ``seresnet50``.

With u the (h, w, c) output of a block's last batch norm, the gate of section 3 is

    z = mean of u over h and w                     squeeze, equation 2
    s = sigmoid(W2 relu(W1 z + b1) + b2)           excitation, equation 3, with biases; W1 leaves c / 16 channels
    block = relu(s * u + shortcut)

It follows PyTorch where Keras' own ResNet-50 differs, so that published weights fit: the stride is in the 3x3
convolution, padding is symmetric, convolutions have no bias, and batch norms add 1e-5 to the variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

EPSILON = 1e-5
MOMENTUM = 0.9
EXPANSION, REDUCTION = 4, 16
STEM, DEPTHS, WIDTHS = 64, (3, 4, 6, 3), (64, 128, 256, 512)


def build_senet50(input_shape: tuple[int, int, int], include_top: bool = False, weights: None = None) -> keras.Model:
    """Build SENet50 from preprocessed images ("torch") to the map of its last stage, 2,048 channels.

    Raises ValueError for a top or for weights; load a converted weight file instead.
    """
    if include_top or weights is not None:
        raise ValueError("senet50 is built without a top and without weights; load a converted weight file into it.")
    return build_se_resnet(input_shape, DEPTHS, WIDTHS)


def build_se_resnet(input_shape: tuple[int, int, int], depths: Sequence[int], widths: Sequence[int]) -> keras.Model:
    """Build a squeeze-and-excitation ResNet of bottleneck blocks, ``depths`` per stage, of ``widths`` * 4 channels.

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
            x = _block(x, width, stride, f"stage{stage}_block{block}")
    return keras.Model(inputs, x, name="se_resnet")


def _block(x: Any, width: int, stride: int, name: str) -> Any:
    """1x1, 3x3 (with the stride), 1x1, the gate, the shortcut."""
    channels = width * EXPANSION
    y = layers.ReLU(name=f"{name}_relu1")(_norm(_conv(x, width, 1, f"{name}_conv1"), f"{name}_bn1"))
    y = _norm(_conv(y, width, 3, f"{name}_conv2", stride), f"{name}_bn2")
    y = layers.ReLU(name=f"{name}_relu2")(y)
    y = _norm(_conv(y, channels, 1, f"{name}_conv3"), f"{name}_bn3")
    y = _gate(y, f"{name}_se")
    if stride != 1 or x.shape[-1] != channels:
        x = _norm(_conv(x, channels, 1, f"{name}_shortcut_conv", stride), f"{name}_shortcut_bn")
    x = layers.Add(name=f"{name}_add")([y, x])
    return layers.ReLU(name=f"{name}_out")(x)


def _gate(u: Any, name: str) -> Any:
    """s * u: weight each channel by a number in (0, 1) that depends on all of them."""
    channels = u.shape[-1]
    z = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(u)
    s = layers.Conv2D(reduced(channels), 1, activation="relu", name=f"{name}_fc1")(z)
    s = layers.Conv2D(channels, 1, activation="sigmoid", name=f"{name}_fc2")(s)
    return layers.Multiply(name=f"{name}_scale")([u, s])


def reduced(channels: int) -> int:
    """Channels between the two layers of a gate: a sixteenth, rounded to a multiple of 8, at least 8."""
    return max(8, int(channels / REDUCTION + 4) // 8 * 8)


def _conv(x: Any, filters: int, size: int, name: str, stride: int = 1) -> Any:
    """A convolution without bias, padded by size // 2 on every side."""
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    return layers.Conv2D(filters, size, strides=stride, use_bias=False, name=name)(x)


def _norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)(x)
