"""What is read from a Keras model's graph, on a residual block whose answers can be counted by hand."""

from __future__ import annotations

import functools

import keras
import pytest

from trainers.networks.graph import carries_all, edges, lasting_name, layer_strides, output_of, own_stride, steps


@functools.cache
def block() -> keras.Model:
    """Layers: 0 input, 1 stem (stride 2), 2 inner, 3 sum of both, 4 pooling (stride 2), 5 gate (no map), 6 head."""
    inputs = keras.Input((16, 16, 3), name="images")
    stem = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(inputs)
    inner = keras.layers.Conv2D(4, 3, padding="same", name="inner")(stem)
    total = keras.layers.Add(name="total")([inner, stem])
    pooled = keras.layers.MaxPooling2D(2, name="pooling")(total)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name="gate")(pooled)
    return keras.Model(inputs, keras.layers.Multiply(name="head")([pooled, gate]))


def test_producers_come_before_consumers() -> None:
    names = [operation.name for operation, _ in steps(block())]
    assert names == ["images", "stem", "inner", "total", "pooling", "gate", "head"]


def test_edges_are_pairs_of_positions() -> None:
    assert edges(block()) == {(0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (4, 5), (4, 6), (5, 6)}


@pytest.mark.parametrize("q", range(1, 8))
def test_one_tensor_carries_all_outside_the_branches(q: int) -> None:
    assert carries_all(edges(block()), q) == (q in {1, 2, 4, 5, 7})


def test_strides_multiply_along_the_maps() -> None:
    assert layer_strides(block()) == {"images": 1, "stem": 2, "inner": 2, "total": 2, "pooling": 4, "head": 4}
    assert own_stride(block()) == 4
    assert own_stride(keras.Sequential([keras.layers.Conv2D(1, 2, strides=2), keras.layers.MaxPooling2D(2)])) == 4


def test_the_output_of_a_nested_model_is_that_of_its_call() -> None:
    inputs = keras.Input((16, 16, 3))
    outer = keras.Model(inputs, block()(inputs))
    assert output_of(outer, outer.layers[1]) is outer.output
    assert outer.layers[1].output is not outer.output


def test_names_that_keras_counts_become_positions() -> None:
    def model() -> keras.Model:
        inputs = keras.Input((4, 4, 1))
        return keras.Model(inputs, keras.layers.ReLU(name="mine")(keras.layers.Conv2D(1, 1)(inputs)))

    first, second = model(), model()
    assert first.layers[1].name != second.layers[1].name
    assert {lasting_name(m, m.layers[1].name) for m in (first, second)} == {"Conv2D@1"}
    assert lasting_name(first, "mine") == "mine"
