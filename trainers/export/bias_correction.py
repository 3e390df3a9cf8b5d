"""Correct the biases of an int8 .tflite file: every layer's mean output becomes that of the float network.

Rounding weights and activations shifts the mean of each channel, and the shifts add up from layer to layer; networks of
depthwise convolutions suffer most (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction", section 4.2; Finkelstein et al. 2019, "Fighting Quantization Bias With Bias"). From the first layer to the
last, each bias gets the mean difference between the float output and the int8 output, per channel over photos and
places, where the int8 input comes from layers that are already corrected. Neither size nor speed of the file changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainers.export.run import open_interpreter
from trainers.export.tflite_graph import Operator, TfliteGraph, last_uses

PHOTOS = 64
"""Maximum number of training photos whose means are compared."""
HELD_BYTES = 256_000_000
"""Maximum bytes of the largest map, of all photos together; fewer photos are compared in a larger network."""
FEWEST_PHOTOS = 8
"""Minimum number of photos, whatever they hold."""


def corrected(int8: bytes, floating: bytes, crops: Sequence[np.ndarray]) -> bytes:
    """Return the file ``int8`` with corrected biases.

    ``floating``: the same network in float32. ``crops``: pixels of each photo, uint8 (1, size, size, 3). Layers
    without a float counterpart stay as they are.
    """
    graph, original = TfliteGraph(int8), TfliteGraph(floating)
    twins = counterparts(graph, original)
    crops = crops[: photos_that_fit(graph, len(crops))]
    wanted = means(floating, [twins[position].outputs[0] for position in twins], crops)
    values: dict[int, Sequence[np.ndarray]] = {graph.inputs[0]: crops}
    for operator, done in zip(graph.operators, last_uses(graph.operators), strict=True):
        results = graph.run(operator, values, len(crops))
        if (twin := twins.get(operator.position)) is not None:
            _shift(graph, operator, wanted[twin.outputs[0]] - _mean(graph, operator.outputs[0], results[0]))
            results = graph.run(operator, values, len(crops))
        values.update(zip(operator.outputs, results, strict=True))
        for tensor in done:
            values.pop(tensor, None)
    return bytes(graph.content)


def counterparts(graph: TfliteGraph, original: TfliteGraph) -> dict[int, Operator]:
    """Find the float layer of each int8 layer. Returns position of the int8 layer -> float layer.

    Both files come from one network, but a converter may order and name layers differently: the weights decide, which
    differ by rounding alone. Layers whose bias is not int32, or is shared, are left out.
    """
    found: dict[int, Operator] = {}
    free = list(original.layers)
    for layer in graph.layers:
        codes, bias = graph.constant(layer.inputs[1]), graph.constant(layer.inputs[2])
        if codes is None or codes.dtype != np.int8 or bias is None or bias.dtype != np.int32:
            continue
        scale = graph.scale(layer.inputs[1])
        if scale is None or graph.is_shared(layer.inputs[2]):
            continue
        rounded = graph.values(layer.inputs[1], codes)
        for twin in free:
            weights = original.constant(twin.inputs[1])
            if twin.code != layer.code or weights is None or weights.shape != codes.shape:
                continue
            if np.abs(weights - rounded).max() <= 0.51 * scale.max():
                found[layer.position] = twin
                free.remove(twin)
                break
    return found


def photos_that_fit(graph: TfliteGraph, count: int) -> int:
    """Return how many of ``count`` photos are compared: at most PHOTOS, and what HELD_BYTES allow."""
    return min(count, PHOTOS, max(FEWEST_PHOTOS, HELD_BYTES // graph.largest_bytes))


def means(floating: bytes, tensors: Sequence[int], crops: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """Return tensor -> its mean over photos and places, float64 (channels,), in the float network."""
    interpreter = open_interpreter(floating, 1, delegate=False, keep=True)
    (pixels,) = interpreter.get_input_details()
    found: dict[int, np.ndarray] = {tensor: np.zeros(()) for tensor in tensors}
    for crop in crops:
        interpreter.set_tensor(pixels["index"], crop.astype(pixels["dtype"]))
        interpreter.invoke()
        for tensor in tensors:
            found[tensor] = found[tensor] + _over_places(interpreter.get_tensor(tensor)) / len(crops)
    return found


def _mean(graph: TfliteGraph, tensor: int, codes: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean([_over_places(graph.values(tensor, each)) for each in codes], 0)


def _over_places(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1]).mean(0, dtype=np.float64)


def _shift(graph: TfliteGraph, operator: Operator, shift: np.ndarray) -> None:
    """Add ``shift`` (channels,) to the bias of ``operator``."""
    bias, scale = graph.constant(operator.inputs[2]), graph.scale(operator.inputs[2])
    bias += np.round(shift / scale).astype(np.int32)  # type: ignore[operator, misc]
