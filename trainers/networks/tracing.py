"""Traced functions that are freed with what they belong to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

CUSTOM = "CustomGradient-"
"""How TensorFlow begins the name under which it registers one call of a ``tf.custom_gradient``."""


def traced(function: Callable[..., Any], signature: Sequence[tf.TensorSpec]) -> Any:
    """``tf.function`` of ``function`` for arguments of ``signature``, without autograph, that can be freed.

    TensorFlow registers the gradient of each call of a ``tf.custom_gradient`` in a graph for as long as the process
    lives, and with it the graph and its weights; ``tf.nn.silu`` and the step of every Keras optimiser are such calls.
    It needs them while gradients are added to the graph, so here they are removed at the end of the trace: ``function``
    must compute its gradients itself. A gradient through a call of the traced function raises LookupError.
    """

    @functools.wraps(function)
    def trace(*args: Any) -> Any:
        result = function(*args)
        for name in _custom_gradients(tf.compat.v1.get_default_graph()):
            gradient_registry._registry.pop(name, None)
        return result

    return tf.function(trace, input_signature=signature, autograph=False)


def _custom_gradients(graph: tf.Graph) -> set[str]:
    """Names of the custom gradients of ``graph`` and of the functions in it, such as the body of a loop."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]
    names = {node.attr["_gradient_op_type"].s.decode() for node in nodes if "_gradient_op_type" in node.attr}
    return {name for name in names if name.startswith(CUSTOM)}
