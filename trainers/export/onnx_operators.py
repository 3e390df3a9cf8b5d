"""TensorFlow's operators in ONNX: one that tf2onnx does not translate, and those that nothing translates."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np


def _translate_erfc(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Replace Erfc, by which TensorFlow computes the exact GELU: erfc(x) = 1 - erf(x)."""
    source, result = node.input[0], node.output[0]
    about = {"dtypes": [context.get_dtype(result)], "shapes": [context.get_shape(result)]}
    context.remove_node(node.name)
    erf = context.make_node("Erf", [source], **about)
    one = context.make_const(f"{name}_one", np.array(1, np.float32))
    context.make_node("Sub", [one.output[0], erf.output[0]], outputs=[result], name=name, **about)


def translations() -> dict[str, tuple[Callable[..., None], list[Any]]]:
    """Return operator -> its translation, in the form of tf2onnx's ``custom_op_handlers``."""
    return {"Erfc": (_translate_erfc, [])}


def untranslated(model: Any) -> list[str]:
    """Return the operators of ``model``, an ``onnx.ModelProto``, that ONNX does not have, each once, sorted."""
    definitions = importlib.import_module("onnx.defs")
    return sorted({node.op_type for node in model.graph.node if not definitions.has(node.op_type, node.domain)})
