"""Build Keras' networks whose graphs must be rewritten before their layers can be counted, cut and loaded.

Keras computes some sums and products of MobileNetV3 and ConvNeXt outside any layer, and EfficientNet has one more layer
when Keras downloads the weights itself. The builders return the same function as layers alone, always the same layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from trainers.errors import TrainerError

DEVIATIONS = (0.229, 0.224, 0.225)
"""Standard deviations of ImageNet's red, green and blue in 0..1."""


@keras.saving.register_keras_serializable("orch")
class Normalization(keras.layers.Normalization):
    """(x - mean) / sqrt(variance) with the present values of its weights.

    Keras' layer keeps using those that it had when it last loaded a file, whatever ``set_weights`` assigned since.
    """

    def call(self, inputs: Any) -> Any:
        if self.input_mean is not None:
            return super().call(inputs)
        x = keras.ops.cast(inputs, self.compute_dtype)
        mean, variance = (keras.ops.cast(value, self.compute_dtype) for value in (self.adapt_mean, self.adapt_variance))
        return (x - mean) / keras.ops.maximum(keras.ops.sqrt(variance), keras.config.epsilon())


def build_layered(
    input_shape: tuple[int, int, int], include_top: bool, weights: str | None, application: str
) -> keras.Model:
    """Build ``keras.applications.<application>`` with every operation inside a layer."""
    return layered(_build(application, input_shape, include_top, weights))


def build_efficientnet(
    input_shape: tuple[int, int, int], include_top: bool, weights: str | None, application: str
) -> keras.Model:
    """Build EfficientNet B0 to B7 as its published weights need it, with or without them.

    Its authors divided by the variance, Keras' layer divides by its root; Keras corrects that with a Rescaling by
    1 / sqrt(deviation), but only when it downloads the weights itself. Here the Rescaling is always included.
    """
    model = _build(application, input_shape, include_top, weights)
    has_it = sum(isinstance(layer, keras.layers.Rescaling) for layer in model.layers) > 1

    def remake(operation: Any) -> Any:
        if type(operation) is not keras.layers.Normalization:
            return operation
        normalise = Normalization.from_config(operation.get_config())
        if has_it:
            return normalise
        rescale = keras.layers.Rescaling([1 / math.sqrt(deviation) for deviation in DEVIATIONS], name="rescaling_back")
        return _Then(normalise, rescale)

    values = {layer.name: layer.get_weights() for layer in model.layers if type(layer) is keras.layers.Normalization}
    made = _rewired(model, remake)
    for name, arrays in values.items():
        made.get_layer(name).set_weights(arrays)
    return made


def layered(model: keras.Model) -> keras.Model:
    """Return the same function and weights with each sum and product outside the layers of ``model`` put into a layer.

    A sum of two tensors becomes an ``Add``; a number added or multiplied becomes a ``Rescaling``. Takes over the layers
    of ``model``, which is unusable afterwards. Raises TrainerError for any other operation.
    """
    names = {layer.name for layer in model.layers}
    counts = {"sum": 0, "shift": 0, "factor": 0}

    def remake(operation: Any) -> Any:
        return operation if operation.name in names else _Loose(operation, model.name, counts)

    return _rewired(model, remake)


class _Then:
    """Two layers in sequence."""

    def __init__(self, first: keras.layers.Layer, second: keras.layers.Layer) -> None:
        self.first, self.second = first, second

    def __call__(self, x: Any) -> Any:
        return self.second(self.first(x))


class _Loose:
    """Makes the layer for one call of an operation outside the layers, once its arguments are known."""

    def __init__(self, operation: Any, model: str, counts: dict[str, int]) -> None:
        self.operation, self.model, self.counts = operation, model, counts

    def __call__(self, a: Any, b: Any) -> Any:
        kind = type(self.operation).__name__
        tensors = [x for x in (a, b) if isinstance(x, keras.KerasTensor)]
        numbers = [x for x in (a, b) if isinstance(x, int | float)]
        if kind == "Add" and len(tensors) == 2:
            return keras.layers.Add(name=self._name("sum"))(tensors)
        if kind == "Add" and len(tensors) == len(numbers) == 1:
            return keras.layers.Rescaling(1.0, numbers[0], name=self._name("shift"))(tensors[0])
        if kind == "Multiply" and len(tensors) == len(numbers) == 1:
            return keras.layers.Rescaling(numbers[0], name=self._name("factor"))(tensors[0])
        raise TrainerError(f"{self.model} computes {self.operation.name} ({kind}) outside its layers; put it into one.")

    def _name(self, what: str) -> str:
        self.counts[what] += 1
        return f"{what}_{self.counts[what]}"


def _build(application: str, input_shape: tuple[int, int, int], include_top: bool, weights: str | None) -> keras.Model:
    builder = getattr(keras.applications, application)
    return builder(input_shape=input_shape, include_top=include_top, weights=weights)


def _rewired(model: keras.Model, remake: Callable[[Any], Any]) -> keras.Model:
    """Rebuild ``model`` from ``remake`` of each of its operations. Takes over its layers."""
    for layer in model.layers:
        layer._inbound_nodes.clear()  # else it would have two outputs, and ``layer.output`` would be ambiguous
        layer._outbound_nodes.clear()
    return keras.models.clone_model(
        model, clone_function=remake, call_function=lambda operation, *args, **kwargs: operation(*args, **kwargs)
    )
