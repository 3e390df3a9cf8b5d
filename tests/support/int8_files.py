"""A tiny depthwise network as .tflite files: float32, and int8 as the converter alone makes it."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

SIZE, CHANNELS, CLASSES = 24, 16, 5


@functools.cache
def tiny_files() -> tuple[bytes, bytes]:
    """(float32, int8) of a network of convolution, two depthwise convolutions and a softmax; random weights."""
    draw = np.random.default_rng(3)

    def kernel(*shape: int) -> tf.Tensor:
        spread = np.prod(shape[:-1]) if shape[-1] > 1 else shape[0] * shape[1]
        return tf.constant(draw.normal(0, 1.6 / np.sqrt(spread), shape), tf.float32)

    stem, deep, deeper = kernel(3, 3, 3, CHANNELS), kernel(3, 3, CHANNELS, 1), kernel(3, 3, CHANNELS, 1)
    wide, head = kernel(1, 1, CHANNELS, CHANNELS), kernel(CHANNELS, CLASSES)
    offsets = [tf.constant(draw.normal(0, 0.3, CHANNELS), tf.float32) for _ in range(4)]

    @tf.function(input_signature=[tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32, name="pixels")], autograph=False)
    def run(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        x = tf.nn.relu6(tf.nn.conv2d(pixels / 127.5 - 1, stem, 2, "SAME") + offsets[0])
        x = tf.nn.relu6(tf.nn.depthwise_conv2d(x, deep, (1, 1, 1, 1), "SAME") + offsets[1])
        x = tf.nn.relu6(tf.nn.conv2d(x, wide, 1, "SAME") + offsets[2])
        x = tf.nn.relu6(tf.nn.depthwise_conv2d(x, deeper, (1, 1, 1, 1), "SAME") + offsets[3])
        return {"probabilities": tf.nn.softmax(tf.matmul(tf.reduce_mean(x, (1, 2)), head) + offsets[0][:CLASSES])}

    def converter() -> tf.lite.TFLiteConverter:
        return tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])

    integers = converter()
    integers.optimizations = [tf.lite.Optimize.DEFAULT]
    integers.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    integers.inference_input_type = integers.inference_output_type = tf.uint8
    integers.representative_dataset = lambda: ([crop.astype(np.float32)] for crop in tiny_crops(1))
    return converter().convert(), integers.convert()


def tiny_crops(seed: int, count: int = 24) -> list[np.ndarray]:
    """Smooth random pictures, uint8 (1, SIZE, SIZE, 3) each."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 1, 6, 6, 3))
    return [crop.repeat(SIZE // 6, 1).repeat(SIZE // 6, 2).astype(np.uint8) for crop in coarse]
