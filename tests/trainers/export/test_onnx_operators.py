"""Operators that tf2onnx does not translate."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import tensorflow as tf

from trainers.export.onnx_operators import translations, untranslated

pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
X = np.linspace(-4, 4, 33, dtype=np.float32).reshape(3, 11)


def converted(function: tf.types.experimental.Callable, known: bool = True) -> object:
    traced = tf.function(function, input_signature=[tf.TensorSpec((None, 11), tf.float32, name="x")], autograph=False)
    handlers = translations() if known else None
    convert = importlib.import_module("tf2onnx.convert")
    return convert.from_function(traced, traced.input_signature, opset=18, custom_op_handlers=handlers)[0]


@pytest.mark.parametrize(
    "function",
    [
        tf.math.erfc,
        lambda x: tf.nn.gelu(x, approximate=False),
        lambda x: tf.math.erfc(x) * tf.math.erfc(2.0 * x) + tf.math.erf(x),
    ],
    ids=["erfc", "gelu", "several"],
)
def test_erfc_is_translated(function: tf.types.experimental.Callable) -> None:
    model = converted(lambda x: {"y": tf.identity(function(x), name="y")})
    assert untranslated(model) == []
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": X})
    np.testing.assert_allclose(found, function(tf.constant(X)), rtol=1e-5, atol=1e-6)


def test_what_onnx_does_not_have_is_named_once() -> None:
    model = converted(lambda x: {"y": tf.math.erfc(tf.math.erfc(x))}, known=False)
    assert untranslated(model) == ["Erfc"]
