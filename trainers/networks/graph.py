"""Read a Keras model's graph: which layer feeds which, where one tensor carries all, strides, settings."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from trainers.code_digest import digest_of, name_of, own_classes, own_functions, plain_values
from trainers.errors import TrainerError

_WHOLE_MAP = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)


def steps(model: keras.Model) -> Iterator[tuple[Any, list[Any]]]:
    """Yield (operation, input tensors) of each call in ``model``, producers before consumers."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            yield node.operation, list(node.input_tensors)


def producer(tensor: Any) -> str:
    """Name of the layer that outputs ``tensor``."""
    return tensor._keras_history.operation.name


def output_of(model: keras.Model, layer: Any) -> Any:
    """The output of the last call of ``layer`` in ``model``.

    ``layer.output`` differs if the layer is itself a model: it is then a tensor of the inner graph.
    """
    return next(
        node.outputs[0]
        for depth in sorted(model._nodes_by_depth)
        for node in model._nodes_by_depth[depth]
        if node.operation is layer
    )


def edges(model: keras.Model) -> set[tuple[int, int]]:
    """The pairs (position of a layer, position of a consumer of its output), positions in ``model.layers``.

    Raises TrainerError for a model that computes something outside its layers.
    """
    position = {layer.name: i for i, layer in enumerate(model.layers)}
    loose = sorted(operation.name for operation in model.operations if operation.name not in position)
    if loose:
        raise TrainerError(
            f"the backbone {model.name} computes {loose[0]} outside its layers; put it into a Keras layer, so "
            "that the layers can be counted."
        )
    return {(position[producer(t)], position[operation.name]) for operation, inputs in steps(model) for t in inputs}


def carries_all(model_edges: set[tuple[int, int]], q: int) -> bool:
    """Whether the output of layer q - 1 is all that the layers from q need of those before."""
    return {source for source, target in model_edges if (source < q) != (target < q)} <= {q - 1}


def layer_strides(model: keras.Model) -> dict[str, int]:
    """Layer -> side of the image over the side of the layer's map: the product of the strides before it.

    A stride that ``strides`` has replaced counts as it was. Layers after a global pooling (the gate of squeeze and
    excitation) have no map and are left out.
    """
    found: dict[str, int] = {}
    for operation, inputs in steps(model):
        if len(operation.output.shape) != 4 or isinstance(operation, _WHOLE_MAP):
            continue
        if not inputs:
            found[operation.name] = 1
        before = [found[producer(t)] for t in inputs if producer(t) in found]
        if before:
            found[operation.name] = max(before) * own_stride(operation)
    return found


def own_stride(layer: Any) -> int:
    """Factor by which ``layer`` divides the side of its map."""
    replaced = getattr(layer, "replaced_stride", 0)
    if replaced:
        return replaced
    if isinstance(layer, keras.Sequential):  # a small model inside, such as ConvNeXt's downsampling
        return math.prod(own_stride(inner) for inner in layer.layers)
    if isinstance(layer, keras.Model):
        return max(layer_strides(layer).values())
    strides = getattr(layer, "strides", 1)
    return int(strides if isinstance(strides, int) else strides[0])


def lasting_name(model: keras.Model, name: str) -> str:
    """Name a layer equally in every process: by class and position if Keras chose its name, which ends in a counter."""
    layer = model.get_layer(name)
    named_by_keras = re.sub(r"_\d+$", "", name).replace("_", "").lower() == type(layer).__name__.lower()
    return f"{type(layer).__name__}@{model.layers.index(layer)}" if named_by_keras else name


def assign_weights(model: keras.Model, arrays: list[np.ndarray]) -> None:
    """Call ``model.set_weights``, then ``refresh``."""
    model.set_weights(arrays)
    refresh(model)


def refresh(model: keras.Model) -> None:
    """Update the values that layers derive from their weights (Keras' Normalization)."""
    for layer in model._flatten_layers(include_self=False):  # including those of nested models
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def settings(layer: Any) -> list[Any]:
    """Describe a layer as JSON takes it: class, ``get_config``, the user's own code, inner layers and their wiring.

    Equal in every process: the counters at the end of Keras' names are removed.
    """
    is_graph = hasattr(layer, "_nodes_by_depth")
    config: Any = None
    is_described_by_layers = is_graph or isinstance(layer, keras.Sequential)
    if not is_described_by_layers:
        with contextlib.suppress(NotImplementedError, TypeError):  # a user's own, or holds such an object
            config = _lasting(layer.get_config())
    inside: list[Any] = []
    if is_graph:
        inside = layer.operations
    elif isinstance(layer, keras.Model):
        inside = layer.layers
    elif isinstance(layer, keras.layers.Layer):
        inside = layer._flatten_layers(include_self=False, recursive=False)
    code: list[Any] = [digest_of(own) for own in (*own_classes(layer), *own_functions(layer))]
    if own_classes(layer) or (config is None and not is_described_by_layers):  # get_config may leave some out
        code.append(_lasting(plain_values(layer, _of_every_layer())))
    wiring = _wiring(layer) if is_graph else None
    return [name_of(type(layer)), config, code, [settings(inner) for inner in inside], wiring]


@functools.cache
def _of_every_layer() -> frozenset[str]:
    """Names of the attributes that Keras gives to every layer."""
    return frozenset(vars(keras.layers.Layer()))


def _wiring(model: keras.Model) -> list[Any]:
    """Describe the calls in ``model``, equally in every process.

    The inputs, the outputs, then each call, producers before consumers: [position of its operation, its arguments].
    A tensor is [number of the call that returned it, index among that call's outputs].
    """
    nodes = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
    number = {id(node): i for i, node in enumerate(nodes)}
    position = {id(operation): i for i, operation in enumerate(model.operations)}

    def place(value: Any) -> Any:
        if not isinstance(value, keras.KerasTensor):
            return value
        operation, call, output = value._keras_history
        return [number[id(operation._inbound_nodes[call])], output]

    calls = [[position[id(node.operation)], *node.arguments.convert(place)] for node in nodes]
    return [_lasting(part) for part in ([place(t) for t in model.inputs], [place(t) for t in model.outputs], *calls)]


def _lasting(value: Any) -> Any:
    """Convert ``value`` to JSON, without counters in names and without anything that differs between processes."""
    if isinstance(value, dict):
        named = value.get("name")
        lasting = {"name": re.sub(r"_\d+$", "", named)} if isinstance(named, str) else {}
        return {str(key): _lasting(value[key]) for key in sorted(value, key=str)} | lasting
    if isinstance(value, list | tuple):
        return [_lasting(entry) for entry in value]
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.ndarray | np.generic) or keras.ops.is_tensor(value):
        return np.asarray(value).tolist()
    return type(value).__qualname__
