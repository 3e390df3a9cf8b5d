"""SENet50: a ResNet-50 whose blocks weight their channels (Hu, Shen, Sun 2018), as timm's ``seresnet50``.

With u the (h, w, c) output of a block's last batch norm, the gate of section 3 is

    z = mean of u over h and w                     squeeze, equation 2
    s = sigmoid(W2 relu(W1 z + b1) + b2)           excitation, equation 3, with biases; W1 leaves c / 16 channels
    block = relu(s * u + shortcut)

The ResNet is PyTorch's (``resnet``), so that published weights fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from trainers.networks.architectures.resnet import WIDTHS, refuse_top, residual_network

REDUCTION = 16
DEPTHS = (3, 4, 6, 3)


def build_senet50(input_shape: tuple[int, int, int], include_top: bool = False, weights: None = None) -> keras.Model:
    """Build SENet50 from preprocessed images ("torch") to the map of its last stage, 2,048 channels.

    Raises ValueError for a top or for weights; load a converted weight file instead.
    """
    refuse_top("senet50", include_top, weights)
    return build_se_resnet(input_shape, DEPTHS, WIDTHS)


def build_se_resnet(input_shape: tuple[int, int, int], depths: Sequence[int], widths: Sequence[int]) -> keras.Model:
    """Build a squeeze-and-excitation ResNet of bottleneck blocks, ``depths`` per stage, of ``widths`` * 4 channels."""
    return residual_network(input_shape, depths, widths, gate=_gate, name="se_resnet")


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
