"""Output stride: replace the strides beyond it by 1 and dilate the layers after them, for a finer last map.

DeepLab (Chen et al. 2017, section 3.1): with the last stride at 1 and every later convolution dilated by two, the
pretrained weights see the neighbours that they were trained with, at twice as many positions.

Every second position of the new map is a position of the old one and has its value, borders included, because each
layer keeps its padding before the image's first row, and zeros beyond the map stay zeros. Only what reads the whole map
changes a little: a gate that pools it (squeeze and excitation) and the pooling at the end.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from trainers.errors import TrainerError
from trainers.networks.graph import assign_weights, layer_strides, own_stride, producer, steps


class _Aligned:
    """A convolution or pooling padded by ``pads`` (before, after) on both axes, instead of "same" or "valid".

    ``replaced_stride``: its former stride. Names and weights are those of the plain layer.
    """

    def __init__(self, *, pads: tuple[int, int], replaced_stride: int, **config: Any) -> None:
        super().__init__(**config)
        self.pads, self.replaced_stride = tuple(pads), replaced_stride

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"pads": self.pads, "replaced_stride": self.replaced_stride}  # type: ignore[misc]

    def call(self, inputs: Any) -> Any:
        return super().call(self._padded(inputs))  # type: ignore[misc]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return super().compute_output_shape(self._padded_shape(input_shape))  # type: ignore[misc]

    def _padded_shape(self, shape: Any) -> tuple[int | None, ...]:
        grown = [None if side is None else side + sum(self.pads) for side in shape[1:3]]
        return (shape[0], *grown, shape[3])

    def _padded(self, x: Any) -> Any:
        width = ((0, 0), self.pads, self.pads, (0, 0))
        return ops.pad(x, width) if any(self.pads) else x


class AlignedConv2D(_Aligned, keras.layers.Conv2D):
    pass


class AlignedDepthwiseConv2D(_Aligned, keras.layers.DepthwiseConv2D):
    pass


class AlignedSeparableConv2D(_Aligned, keras.layers.SeparableConv2D):
    pass


class AlignedMaxPooling2D(_Aligned, keras.layers.MaxPooling2D):
    def _padded(self, x: Any) -> Any:
        width = ((0, 0), self.pads, self.pads, (0, 0))
        return ops.pad(x, width, constant_values=float("-inf")) if any(self.pads) else x


class AlignedAveragePooling2D(_Aligned, keras.layers.AveragePooling2D):
    def _padded(self, x: Any) -> Any:
        """Repeat the edge, so that the last position is a mean of pixels alone."""
        width = ((0, 0), self.pads, self.pads, (0, 0))
        return ops.pad(x, width, mode="symmetric") if any(self.pads) else x


_ALIGNED = {
    keras.layers.Conv2D: AlignedConv2D,
    keras.layers.DepthwiseConv2D: AlignedDepthwiseConv2D,
    keras.layers.SeparableConv2D: AlignedSeparableConv2D,
    keras.layers.MaxPooling2D: AlignedMaxPooling2D,
    keras.layers.AveragePooling2D: AlignedAveragePooling2D,
}


def is_refined(layers: list[Any]) -> bool:
    """Whether the stride of one of ``layers`` was replaced."""
    return any(getattr(layer, "replaced_stride", 0) for layer in layers)


def with_output_stride(model: keras.Model, stride: int) -> keras.Model:
    """Copy ``model`` with a last map of 1 / ``stride`` of the image's side and the same layers and weights.

    Names, order and number of the layers are kept, so boundaries and weight files fit both. Returns ``model`` itself if
    it has this stride already. Square images of a fixed size, channels last. Raises TrainerError if the map is finer
    already or a stride cannot be replaced.
    """
    strides = layer_strides(model)
    total = strides[producer(model.output)]
    if total == stride or is_refined(model.layers):
        return model
    if total < stride:
        raise TrainerError(f"the map of {model.name} has output stride {total}, finer than the {stride} asked for.")
    sources = {operation.name: inputs[0] for operation, inputs in steps(model) if inputs}
    changes: dict[str, tuple[Any, dict[str, Any]]] = {}
    side = 0
    for operation, inputs in steps(model):
        if operation.name not in strides or not inputs:
            continue
        dilation = max(1, strides[operation.name] // own_stride(operation) // stride)
        if own_stride(operation) > 1 and strides[operation.name] > stride:
            # At most twice the old map: if halving an odd map drops its last row, the finer one drops it too.
            side = side or min(
                _unpadded(inputs[0], sources).shape[1], own_stride(operation) * operation.output.shape[1]
            )
            changes[operation.name] = _unstrided(model, operation, inputs[0], (side, dilation))
        elif dilation > 1:
            changes[operation.name] = _dilated(model, operation, dilation)

    def clone(layer: Any) -> Any:
        kind, config = changes.get(layer.name, (type(layer), {}))
        return kind.from_config(layer.get_config() | config)

    start = keras.Input(batch_shape=model.input.shape, dtype=model.input.dtype, name=model.layers[0].name)
    finer = keras.models.clone_model(model, input_tensors=start, clone_function=clone)
    assign_weights(finer, model.get_weights())
    return finer


def _unpadded(tensor: Any, sources: dict[str, Any]) -> Any:
    """``tensor``, or the input of its zero padding."""
    is_padding = isinstance(tensor._keras_history.operation, keras.layers.ZeroPadding2D)
    return sources[producer(tensor)] if is_padding else tensor


def _unstrided(model: keras.Model, layer: Any, tensor: Any, side_and_dilation: tuple[int, int]) -> tuple[type, dict]:
    """``layer`` at stride 1: keeps the padding before, and pads after it to a map of ``side``."""
    side, dilation = side_and_dilation
    if type(layer) not in _ALIGNED:
        raise TrainerError(
            f"{model.name} cannot have a finer map: the stride of its layer {layer.name} cannot be replaced."
        )
    window = (layer.kernel_size if hasattr(layer, "kernel_size") else layer.pool_size)[0]
    old, step, before = tensor.shape[1], own_stride(layer), 0
    if layer.padding == "same":
        before = max((-(-old // step) - 1) * step + window - old, 0) // 2
    given = old
    if dilation > 1:
        padding = tensor._keras_history.operation
        given = side + (dilation * sum(padding.padding[0]) if isinstance(padding, keras.layers.ZeroPadding2D) else 0)
    after = side + dilation * (window - 1) - given - dilation * before
    is_pooling = hasattr(layer, "pool_size")
    if after < 0 or (is_pooling and dilation > 1 and window > 1):
        raise TrainerError(
            f"{model.name} cannot have a finer map: the stride of its layer {layer.name} cannot be replaced."
        )
    config = {"strides": 1, "padding": "valid", "pads": (dilation * before, after), "replaced_stride": step}
    return _ALIGNED[type(layer)], config if is_pooling else config | {"dilation_rate": dilation}


def _dilated(model: keras.Model, layer: Any, dilation: int) -> tuple[type, dict]:
    """``layer``, which runs after a replaced stride, dilated by ``dilation``."""
    kind = type(layer)
    if isinstance(layer, keras.layers.ZeroPadding2D):
        return kind, {"padding": tuple(tuple(dilation * p for p in pads) for pads in layer.padding)}
    if isinstance(layer, keras.Model) or getattr(layer, "pool_size", (1,))[0] > 1 or hasattr(layer, "cropping"):
        raise TrainerError(f"{model.name} cannot have a finer map: its layer {layer.name} cannot be dilated.")
    window = getattr(layer, "kernel_size", (1,))
    if max(window) == 1:
        return kind, {}
    if kind not in _ALIGNED:
        raise TrainerError(f"{model.name} cannot have a finer map: its layer {layer.name} cannot be dilated.")
    if layer.padding == "same" and any(w % 2 == 0 for w in window):
        before, all_around = dilation * ((window[0] - 1) // 2), dilation * (window[0] - 1)
        pads = {"padding": "valid", "pads": (before, all_around - before), "replaced_stride": 1}
        return _ALIGNED[kind], {"dilation_rate": dilation} | pads
    return kind, {"dilation_rate": dilation}
