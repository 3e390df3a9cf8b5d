"""Vision transformers (Dosovitskiy et al. 2021) whose weights fit timm's ``VisionTransformer``: DeiT, DINOv2.

With x the tokens (n, t, width), equations 2 to 4 of section 3.1, and LayerScale (Touvron et al. 2021, "Going deeper
with image transformers", section 2.1) where the weights have it:

    x <- x + s1 * attention(norm(x))
    x <- x + s2 * mlp(norm(x))
    output = norm(x)

A block is one layer, so that the last n layers are the last n blocks; the last norm belongs to the last block. Tokens
are the class token, then registers (Darcet et al. 2024), if any, then the patches, row by row. A position table belongs
to a grid of patches, but the layer resizes it to the grid of its images, so that one weight file serves every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from trainers.networks.architectures.positions import resize_matrix

EPSILON = 1e-6
"""Added to the variance by every norm."""
HIDDEN = 4
"""Units of a block's MLP over its width."""
SPREAD = 0.02
"""Standard deviation of random starting values."""
START_OF_SCALE = 1e-5
"""Starting value of LayerScale without weights."""


@dataclass(frozen=True)
class Shape:
    """``patch``: side of a patch in pixels. ``grid``: patches along a side of the position table.

    ``registers``: extra tokens after the class token. ``layer_scale``: whether a block scales what it adds.
    """

    patch: int
    grid: int
    width: int
    heads: int
    depth: int = 12
    registers: int = 0
    layer_scale: bool = False


def build_vit(
    input_shape: tuple[int, int, int], include_top: bool = False, weights: None = None, **shape: Any
) -> keras.Model:
    """Build a transformer from preprocessed images to its tokens (n, 1 + registers + patches, width).

    ``shape``: the fields of ``Shape``. Layers are named images, patches, tokens, block_1 and so on. Raises ValueError
    for a top or for weights, and for a side that is no multiple of the patch's.
    """
    if include_top or weights is not None:
        raise ValueError("vision transformers are built without a top and without weights; load a converted file.")
    of = Shape(**shape)
    if any(side % of.patch for side in input_shape[:2]):
        raise ValueError(f"the sides of images must be multiples of {of.patch}, not {input_shape[:2]}.")
    inputs = keras.Input(input_shape, name="images")
    x = keras.layers.Conv2D(of.width, of.patch, strides=of.patch, kernel_initializer=_normal(), name="patches")(inputs)
    x = Tokens(of.grid, 1 + of.registers, name="tokens")(x)
    for number in range(1, of.depth + 1):
        is_last = number == of.depth
        x = TransformerBlock(of.heads, of.layer_scale, normalised=is_last, name=f"block_{number}")(x)
    return keras.Model(inputs, x, name="vit")


def _normal() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=SPREAD)


@keras.saving.register_keras_serializable("orch")
class Tokens(keras.layers.Layer):
    """A map of patches (n, h, w, width) -> tokens (n, leading + h * w, width).

    Weights: ``leading`` (leading, width), the class token with its position and the registers, and ``positions``
    (grid * grid, width), which is added to the patches, resized to h and w as ``positions.resize_matrix`` does.
    """

    def __init__(self, grid: int, leading: int = 1, **settings: Any) -> None:
        super().__init__(**settings)
        self.grid, self.count = grid, leading

    def build(self, input_shape: Any) -> None:
        width = input_shape[-1]
        self.leading = self.add_weight((self.count, width), _normal(), name="leading", autocast=False)
        self.positions = self.add_weight((self.grid**2, width), _normal(), name="positions", autocast=False)

    def call(self, maps: Any) -> Any:
        height, width, channels = maps.shape[1:]
        table = ops.reshape(ops.convert_to_tensor(self.positions), (self.grid, self.grid, channels))
        for side in (height, width):  # each turn resizes the first axis and swaps both
            if side != self.grid:
                table = ops.tensordot(ops.convert_to_tensor(resize_matrix(self.grid, side)), table, 1)
            table = ops.transpose(table, (1, 0, 2))
        table = ops.reshape(table, (height * width, channels))
        added = ops.concatenate([ops.convert_to_tensor(self.leading), table], 0)
        patches = ops.reshape(maps, (-1, height * width, channels))
        return ops.pad(patches, ((0, 0), (self.count, 0), (0, 0))) + ops.cast(added[None], maps.dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        count, height, width, channels = input_shape
        return (count, self.count + height * width, channels)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"grid": self.grid, "leading": self.count}


@keras.saving.register_keras_serializable("orch")
class TransformerBlock(keras.layers.Layer):
    """Tokens (n, t, width) -> tokens of the same shape: attention and an MLP, each after a norm and added to its input.

    ``layer_scale``: whether a factor per channel multiplies what is added. ``normalised``: whether a norm follows.
    Kernels are (inputs, outputs); ``qkv_kernel`` holds queries, keys and values in this order.
    """

    def __init__(self, heads: int, layer_scale: bool = False, normalised: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.heads, self.layer_scale, self.normalised = heads, layer_scale, normalised

    def build(self, input_shape: Any) -> None:
        width = input_shape[-1]
        self.norm1 = self._add_norm("norm1", width)
        self.qkv = self._add_dense("qkv", width, 3 * width)
        self.out = self._add_dense("out", width, width)
        self.scale1 = self._add_scale("scale1", width)
        self.norm2 = self._add_norm("norm2", width)
        self.fc1 = self._add_dense("fc1", width, HIDDEN * width)
        self.fc2 = self._add_dense("fc2", HIDDEN * width, width)
        self.scale2 = self._add_scale("scale2", width)
        self.norm = self._add_norm("norm", width) if self.normalised else None

    def _add_norm(self, name: str, width: int) -> list[Any]:
        return [
            self.add_weight((width,), start, name=f"{name}_{part}", autocast=False)
            for part, start in (("gamma", "ones"), ("beta", "zeros"))
        ]

    def _add_dense(self, name: str, units_in: int, units: int) -> list[Any]:
        kernel = self.add_weight((units_in, units), _normal(), name=f"{name}_kernel")
        return [kernel, self.add_weight((units,), "zeros", name=f"{name}_bias")]

    def _add_scale(self, name: str, width: int) -> Any:
        start = keras.initializers.Constant(START_OF_SCALE)
        return self.add_weight((width,), start, name=name) if self.layer_scale else None

    def call(self, tokens: Any) -> Any:
        x = tokens + _scaled(self._attention(_norm(tokens, self.norm1)), self.scale1)
        hidden = _gelu(_dense(_norm(x, self.norm2), self.fc1))
        x = x + _scaled(_dense(hidden, self.fc2), self.scale2)
        return _norm(x, self.norm) if self.norm is not None else x

    def _attention(self, x: Any) -> Any:
        """softmax(q k' / sqrt(d)) v of each head (Vaswani et al. 2017, equation 1), then a dense layer."""
        count, width = x.shape[1:]
        depth = width // self.heads

        def by_head(part: Any, axes: tuple[int, ...]) -> Any:
            return ops.transpose(ops.reshape(part, (-1, count, self.heads, depth)), axes)

        q, k, v = ops.split(_dense(x, self.qkv), 3, axis=-1)
        scores = ops.matmul(by_head(q * depth**-0.5, (0, 2, 1, 3)), by_head(k, (0, 2, 3, 1)))
        mixed = ops.matmul(ops.softmax(scores, -1), by_head(v, (0, 2, 1, 3)))
        return _dense(ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, count, width)), self.out)

    def attention_costs(self) -> tuple[int, int]:
        """(multiplications, values written) that grow with the square of the tokens: the scores, their softmax."""
        count, width = self.output.shape[1:]
        return 2 * count * count * width, 2 * count * count * self.heads

    def inner_values(self) -> int:
        """Values per token that are written apart from the output and the scores.

        In widths: two norms, the queries, keys and values as one and by head, what they give by head and as one, two
        dense layers, a sum, and the MLP's hidden layer before and after its activation.
        """
        return (2 + 6 + 2 + 2 + 1 + 2 * HIDDEN) * self.output.shape[-1]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"heads": self.heads, "layer_scale": self.layer_scale, "normalised": self.normalised}
        return super().get_config() | own


def _norm(x: Any, weights: list[Any]) -> Any:
    """Layer norm, computed in float32 whatever the precision."""
    gamma, beta = weights
    return ops.cast(ops.layer_normalization(ops.cast(x, "float32"), gamma, beta, epsilon=EPSILON), x.dtype)


def _dense(x: Any, weights: list[Any]) -> Any:
    kernel, bias = weights
    return ops.add(ops.matmul(x, kernel), bias)


def _gelu(x: Any) -> Any:
    """x times the normal distribution's share below x (Hendrycks & Gimpel 2016), from erf.

    ``keras.ops.gelu`` is the same from erfc, with other rounding: features that were stored would not fit.
    """
    return 0.5 * x * (1.0 + ops.erf(x / math.sqrt(2.0)))


def _scaled(x: Any, scale: Any) -> Any:
    return x if scale is None else ops.multiply(x, scale)
