"""Read the graph of a .tflite file, run single operators of it, and change its constants in place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from trainers.export.run import open_interpreter

IDENTIFIER = b"TFL3"
"""File identifier of .tflite files, at byte 4."""
LAYERS = (
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
)
"""Operators with inputs (map, weights, bias)."""


@dataclass(frozen=True)
class Operator:
    """One operator. ``inputs`` and ``outputs``: numbers of tensors; optional inputs that are absent are left out."""

    position: int
    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def has_bias(self) -> bool:
        return self.code in LAYERS and len(self.inputs) == 3


class TfliteGraph:
    """The first subgraph of a .tflite file; ``content`` holds the file, including changes of constants."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        # Arrays of the tree are views of ``content``.
        self._model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(self.content, 0))
        self._graph = self._model.subgraphs[0]
        codes = [max(row.builtinCode, row.deprecatedBuiltinCode) for row in self._model.operatorCodes]
        self.operators = tuple(
            Operator(i, codes[row.opcodeIndex], _present(row.inputs), _present(row.outputs))
            for i, row in enumerate(self._graph.operators)
        )
        self.inputs = _present(self._graph.inputs)

    @property
    def layers(self) -> tuple[Operator, ...]:
        """Convolutions and fully connected layers that have a bias."""
        return tuple(operator for operator in self.operators if operator.has_bias)

    def constant(self, tensor: int) -> np.ndarray | None:
        """Return the values of a constant tensor, None for others. Writing to them changes ``content``."""
        described = self._graph.tensors[tensor]
        data = self._model.buffers[described.buffer].data
        if data is None or not len(data):
            return None
        return data.view(DTYPES[described.type]).reshape(described.shape)

    def scale(self, tensor: int) -> np.ndarray | None:
        """Return the scales of a quantised tensor: one, or one per channel; None if it is not quantised."""
        found = self._graph.tensors[tensor].quantization
        return None if found is None or found.scale is None or not len(found.scale) else np.asarray(found.scale)

    def axis(self, tensor: int) -> int:
        """Return the axis of the channels that have scales of their own."""
        return int(self._graph.tensors[tensor].quantization.quantizedDimension)

    def values(self, tensor: int, codes: np.ndarray) -> np.ndarray:
        """Convert codes of a tensor to float32: scale * (code - zero point)."""
        scale = self.scale(tensor)
        if scale is None:
            return codes.astype(np.float32)
        quantization = self._graph.tensors[tensor].quantization
        shape = np.ones(codes.ndim, int)
        if len(scale) > 1:
            shape[self.axis(tensor)] = -1
        zero = np.asarray(quantization.zeroPoint, np.float32).reshape(shape)
        return (codes.astype(np.float32) - zero) * scale.astype(np.float32).reshape(shape)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest tensor that is not constant."""
        sizes = [
            int(np.prod(row.shape)) * np.dtype(DTYPES[row.type]).itemsize
            for number, row in enumerate(self._graph.tensors)
            if row.shape is not None and row.type in DTYPES and self.constant(number) is None
        ]
        return max(sizes)

    def is_shared(self, tensor: int) -> bool:
        """Whether another tensor has the same buffer, or several operators take ``tensor``."""
        buffer = self._graph.tensors[tensor].buffer
        return (
            sum(row.buffer == buffer for row in self._graph.tensors) > 1
            or sum(tensor in operator.inputs for operator in self.operators) > 1
        )

    def run(
        self, operator: Operator, values: Mapping[int, Sequence[np.ndarray]], examples: int
    ) -> list[list[np.ndarray]]:
        """Run one operator on each example. ``values``: tensor -> its array in each example.

        Returns the arrays of each output.
        """
        wanted = [tensor for tensor in dict.fromkeys(operator.inputs) if self.constant(tensor) is None]
        interpreter = open_interpreter(self._alone(operator, wanted), 1, delegate=False)
        places = [row["index"] for row in interpreter.get_input_details()]
        results = [row["index"] for row in interpreter.get_output_details()]
        found: list[list[np.ndarray]] = [[] for _ in results]
        for example in range(examples):
            for tensor, place in zip(wanted, places, strict=True):
                interpreter.set_tensor(place, values[tensor][example])
            interpreter.invoke()
            for rows, index in zip(found, results, strict=True):
                rows.append(interpreter.get_tensor(index))
        return found

    def _alone(self, operator: Operator, wanted: Sequence[int]) -> bytes:
        """Return a .tflite file of ``operator`` alone, whose inputs are the tensors ``wanted``."""
        row = copy.copy(self._graph.operators[operator.position])
        tensors = list(dict.fromkeys([*operator.inputs, *operator.outputs]))
        number = {tensor: i for i, tensor in enumerate(tensors)} | {-1: -1}
        made, graph = schema.ModelT(), schema.SubGraphT()
        made.version, made.operatorCodes, made.subgraphs = self._model.version, self._model.operatorCodes, [graph]
        made.buffers = [schema.BufferT()]
        graph.tensors = [copy.copy(self._graph.tensors[tensor]) for tensor in tensors]
        for tensor in graph.tensors:
            made.buffers.append(self._model.buffers[tensor.buffer])
            tensor.buffer = len(made.buffers) - 1
        row.inputs, row.outputs = ([number[int(t)] for t in part] for part in (row.inputs, row.outputs))
        graph.operators, graph.outputs = [row], list(row.outputs)
        graph.inputs = [number[tensor] for tensor in wanted]
        builder = flatbuffers.Builder()
        builder.Finish(made.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())


DTYPES: dict[int, Any] = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.BOOL: np.bool_,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT8: np.int8,
}
"""Type of a tensor in the file -> numpy's."""


def _present(tensors: Any) -> tuple[int, ...]:
    return tuple(int(tensor) for tensor in tensors if tensor >= 0)


def last_uses(operators: Sequence[Operator]) -> Iterator[list[int]]:
    """Yield, for each operator in turn, the tensors that no later one takes."""
    last = {tensor: operator.position for operator in operators for tensor in operator.inputs}
    for operator in operators:
        yield [tensor for tensor in {*operator.inputs, *operator.outputs} if last.get(tensor, -1) <= operator.position]
