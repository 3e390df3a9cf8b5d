"""Bias correction: means of each layer, what it may change, and how float layers are found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support.int8_files import tiny_crops, tiny_files
from trainers.export import bias_correction
from trainers.export.bias_correction import PHOTOS, corrected, counterparts, means, photos_that_fit
from trainers.export.run import open_interpreter
from trainers.export.tflite_graph import TfliteGraph


def shifts(int8: bytes) -> list[float]:
    """For each layer, the root mean square over channels of the shift of its mean, on photos that nobody has seen."""
    floating, _ = tiny_files()
    graph, crops = TfliteGraph(int8), tiny_crops(2)
    twins = counterparts(graph, TfliteGraph(floating))
    assert len(twins) == len(graph.layers) == 5
    wanted = means(floating, [twin.outputs[0] for twin in twins.values()], crops)
    interpreter = open_interpreter(int8, 1, delegate=False, keep=True)
    found: dict[int, list[np.ndarray]] = {position: [] for position in twins}
    for crop in crops:
        interpreter.set_tensor(graph.inputs[0], crop)
        interpreter.invoke()
        for layer in graph.layers:
            codes = interpreter.get_tensor(layer.outputs[0])
            found[layer.position].append(graph.values(layer.outputs[0], codes).reshape(-1, codes.shape[-1]).mean(0))
    return [
        float(np.sqrt(np.mean((np.mean(found[at], 0) - wanted[twin.outputs[0]]) ** 2))) for at, twin in twins.items()
    ]


def test_the_means_of_layers_come_closer_on_other_photos() -> None:
    floating, int8 = tiny_files()
    before, after = shifts(int8), shifts(corrected(int8, floating, tiny_crops(1)))
    assert sum(after) < 0.6 * sum(before), (before, after)
    assert after[-1] < before[-1]


def test_only_biases_change() -> None:
    floating, int8 = tiny_files()
    made = corrected(int8, floating, tiny_crops(1))
    assert len(made) == len(int8)
    before, after = TfliteGraph(int8), TfliteGraph(made)
    biases = {layer.inputs[2] for layer in before.layers}
    assert len(biases) == 5
    changed = 0
    for layer in before.layers:
        weights = before.constant(layer.inputs[1]), after.constant(layer.inputs[1])
        np.testing.assert_array_equal(*weights)
        changed += not np.array_equal(before.constant(layer.inputs[2]), after.constant(layer.inputs[2]))
    assert changed == 5
    different = np.flatnonzero(np.frombuffer(int8, np.uint8) != np.frombuffer(made, np.uint8))
    assert len(different) <= 4 * sum(before.constant(bias).size for bias in biases)
    assert int8 == tiny_files()[1]  # the bytes given are not changed


def test_layers_are_found_by_their_weights() -> None:
    floating, int8 = tiny_files()
    graph, original = TfliteGraph(int8), TfliteGraph(floating)
    twins = counterparts(graph, original)
    assert [twin.code for twin in twins.values()] == [layer.code for layer in graph.layers]
    assert len({twin.position for twin in twins.values()}) == 5
    swapped = TfliteGraph(floating)
    first, second = (layer for layer in swapped.layers if swapped.constant(layer.inputs[1]).shape == (1, 3, 3, 16))
    one, two = swapped.constant(first.inputs[1]), swapped.constant(second.inputs[1])
    one[:], two[:] = two.copy(), one.copy()  # now the depthwise layers come in the other order
    found = [twin for twin in counterparts(graph, swapped).values() if twin.code == first.code]
    assert [twin.position for twin in found if twin in (first, second)] == [second.position, first.position]


def test_layers_of_another_network_stay_as_they_are() -> None:
    floating, int8 = tiny_files()
    other = TfliteGraph(floating)
    for layer in other.layers:
        other.constant(layer.inputs[1])[:] += 0.5
    assert counterparts(TfliteGraph(int8), other) == {}
    assert corrected(int8, bytes(other.content), tiny_crops(1, 2)) == int8


@pytest.mark.parametrize(
    ("count", "held", "expected"),
    [(5, 10**9, 5), (1000, 10**9, PHOTOS), (1000, 20, 8), (3, 20, 3)],
    ids=["few photos", "enough memory", "little memory", "few photos and little memory"],
)
def test_photos_fit_into_memory(count: int, held: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bias_correction, "HELD_BYTES", held)
    assert photos_that_fit(TfliteGraph(tiny_files()[1]), count) == expected


def test_a_shared_bias_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    floating, int8 = tiny_files()
    monkeypatch.setattr(TfliteGraph, "is_shared", lambda self, tensor: True)
    assert counterparts(TfliteGraph(int8), TfliteGraph(floating)) == {}
    assert dataclasses.is_dataclass(TfliteGraph(int8).layers[0])
