"""Reading a .tflite file, running its operators one by one, and changing constants in place."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.int8_files import CHANNELS, CLASSES, SIZE, tiny_crops, tiny_files
from trainers.export.run import open_interpreter
from trainers.export.tflite_graph import Operator, TfliteGraph, last_uses


@pytest.mark.parametrize("number", [0, 1], ids=["float32", "int8"])
def test_operators_run_one_by_one_give_what_the_file_gives(number: int) -> None:
    content = tiny_files()[number]
    graph = TfliteGraph(content)
    crops = [crop.astype(np.uint8 if number else np.float32) for crop in tiny_crops(1, 3)]
    values = {graph.inputs[0]: crops}
    for operator in graph.operators:
        values.update(zip(operator.outputs, graph.run(operator, values, 3), strict=True))
    interpreter = open_interpreter(content, 1, delegate=False)
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
    for example, crop in enumerate(crops):
        interpreter.set_tensor(given["index"], crop)
        interpreter.invoke()
        found = values[graph.operators[-1].outputs[0]][example]
        assert found.shape == (1, CLASSES)
        np.testing.assert_array_equal(found, interpreter.get_tensor(taken["index"]))


def test_a_change_of_a_constant_changes_the_file() -> None:
    graph = TfliteGraph(tiny_files()[1])
    bias = graph.constant(graph.layers[0].inputs[2])
    assert (bias.dtype, bias.shape) == (np.int32, (CHANNELS,))
    bias[3] += 1000
    other = TfliteGraph(bytes(graph.content))
    assert other.constant(other.layers[0].inputs[2])[3] == bias[3]
    assert TfliteGraph(tiny_files()[1]).constant(graph.layers[0].inputs[2])[3] == bias[3] - 1000
    open_interpreter(bytes(graph.content), 1).invoke()


def test_codes_become_values_with_the_scale_of_each_channel() -> None:
    floating, int8 = (TfliteGraph(content) for content in tiny_files())
    for real, layer in zip(floating.layers, graph_layers(int8), strict=True):
        codes = int8.constant(layer.inputs[1])
        values, exact = int8.values(layer.inputs[1], codes), floating.constant(real.inputs[1])
        assert codes.dtype == np.int8
        assert np.abs(values - exact).max() <= 0.51 * int8.scale(layer.inputs[1]).max()
    assert floating.scale(floating.layers[0].inputs[1]) is None
    assert int8.largest_bytes == SIZE * SIZE // 4 * CHANNELS


def graph_layers(graph: TfliteGraph) -> tuple[Operator, ...]:
    assert len(graph.layers) == 5
    return graph.layers


def test_tensors_are_dropped_after_their_last_use() -> None:
    chain = [Operator(0, 0, (0,), (1,)), Operator(1, 0, (1,), (2,)), Operator(2, 0, (1, 2), (3,))]
    assert [sorted(done) for done in last_uses(chain)] == [[0], [], [1, 2, 3]]
