"""The table of state dicts that can be converted: backbone -> how the arrays of its network are named there.

A network of ``networks.architectures`` joins by a row of PUBLISHED. Its module translates the names of its layers;
``tensor_of`` knows how PyTorch stores the arrays of Keras' ordinary layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from trainers.networks.architectures import convnext_v2, efficientnet_lite, resnet, vit_names

PARTS = {
    **{"kernel": "weight", "depthwise_kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"},
    **{"moving_mean": "running_mean", "moving_variance": "running_var"},
}
"""Keras' name of an array of a layer -> PyTorch's."""


@dataclass(frozen=True)
class Tensor:
    """Where the values of one Keras array are: in the tensor ``name``, of ``shape``. ``to_keras`` arranges them."""

    name: str
    shape: tuple[int, ...]
    to_keras: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Published:
    """The published state dict of one backbone.

    ``origin``: the project whose names they are. ``tensor``: (Keras layer, one of its variables) -> ``Tensor``;
    several arrays may come from one tensor. ``left_out``: prefixes of tensors to leave out, as the classifier's.
    ``hints``: prefix of an unknown name -> a sentence about the network that has it. ``prepare``: merges or
    resizes tensors before their names and shapes are compared.
    """

    origin: str
    tensor: Callable[[Any, Any], Tensor]
    left_out: tuple[str, ...] = ("fc.", "head.", "classifier.")
    hints: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] = dict


def tensor_of(layer: Any, variable: Any, name: str) -> Tensor:
    """The tensor of an ordinary layer that PyTorch calls ``name``: a convolution, a dense layer, or a norm.

    A convolution's kernel (out, in, h, w) becomes (h, w, in, out), a depthwise one (c, 1, h, w) becomes (h, w, c, 1), a
    dense layer's (out, in) becomes (in, out); everything else is copied.
    """
    shape = tuple(int(n) for n in variable.shape)
    order = tuple(range(len(shape)))
    if isinstance(layer, keras.layers.DepthwiseConv2D) and len(shape) == 4:
        order = (2, 3, 0, 1)
    elif isinstance(layer, keras.layers.Conv2D) and len(shape) == 4:
        order = (2, 3, 1, 0)
    elif isinstance(layer, keras.layers.Dense) and len(shape) == 2:
        order = (1, 0)
    source = tuple(shape[order.index(axis)] for axis in range(len(shape)))
    return Tensor(f"{name}.{PARTS.get(variable.name, variable.name)}", source, lambda values: values.transpose(order))


def by_layer(name_of: Callable[[str], str]) -> Callable[[Any, Any], Tensor]:
    """``Published.tensor`` of a network of ordinary layers; ``name_of``: Keras layer's name -> PyTorch module's."""
    return lambda layer, variable: tensor_of(layer, variable, name_of(layer.name))


def _of_vit(layer: Any, variable: Any) -> Tensor:
    """The tensor of a variable of ``architectures.vit``."""
    shape = tuple(int(n) for n in variable.shape)
    order = vit_names.axes_of(layer.name, shape)
    source = tuple(shape[order.index(axis)] for axis in range(len(shape)))
    return Tensor(vit_names.name_of(layer.name, variable.name), source, lambda values: values.transpose(order))


def _vit(grid: int, registers: int = 0) -> Published:
    prepare = functools.partial(vit_names.rearranged, grid=grid, registers=registers)
    return Published("timm", _of_vit, left_out=vit_names.LEFT_OUT, hints=vit_names.HINTS, prepare=prepare)


def fits(tensor: Tensor, values: np.ndarray) -> bool:
    """Whether ``values`` has the tensor's shape. A dense layer may be stored as a convolution of 1x1."""
    return values.shape == tensor.shape or (len(tensor.shape) == 2 and values.shape == (*tensor.shape, 1, 1))


_CADENE = {
    "layer0.": "It looks like Cadene's se_resnet50 (timm: legacy_seresnet50), another network; take timm's seresnet50."
}
_RESNET = Published("timm or torchvision", by_layer(resnet.timm_name))
_CONVNEXT_V2 = Published("timm", by_layer(convnext_v2.timm_name), left_out=("head.fc.",))
_LITE = Published("efficientnet-lite-pytorch", by_layer(efficientnet_lite.torch_name), left_out=("_fc.",))

PUBLISHED: dict[str, Published] = {
    "senet50": Published("timm", by_layer(resnet.timm_name), hints=_CADENE),
    **dict.fromkeys(("resnet18", "resnet34", "resnet50v1.5", "resnet101v1.5", "resnet152v1.5"), _RESNET),
    **{f"convnext_v2_{size}": _CONVNEXT_V2 for size in ("atto", "femto", "pico", "nano", "tiny", "base")},
    **{f"efficientnet_lite{number}": _LITE for number in (0, 1, 2)},
    **{f"vit_{size}_16_deit": _vit(grid=14) for size in ("tiny", "small", "base")},
    **{f"vit_{size}_14_dinov2": _vit(grid=37) for size in ("small", "base")},
    **{f"vit_{size}_14_reg4_dinov2": _vit(grid=37, registers=4) for size in ("small", "base")},
}
REFUSED = {
    "resnet": "PyTorch's ResNets have the stride in the 3x3 convolution, no biases and batch norms with 1e-5, Keras' "
    "have it in the first 1x1, biases and 1.001e-5; the kernels would fit, the features would not. Their network is "
    "resnet50v1.5 (or resnet101v1.5, resnet152v1.5)",
}
"""Prefix of a backbone's name -> why PyTorch's weights do not fit it."""
