"""What a careful author writes where nothing of the backbone is trained: features once, then one small model a trial.

No tool, no record, no parallel trials: a loop. Listed with the others as a row without a target.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers.network import CosineDense, frozen_mobilenet, use_threads
from benchmarks.peers.photos import datasets, decode_once, read_task
from benchmarks.peers.timing import Stopwatch, write_report


def features(batches: Any, base: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features and labels of a data set."""

    @tf.function(reduce_retracing=True)
    def run(images: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(base(tf.cast(images, tf.float32) / 127.5 - 1.0, training=False), (1, 2))

    found = [(run(images).numpy(), labels.numpy()) for images, labels in batches]
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


def head_model(config: dict[str, Any], task: dict[str, Any], width: int, classes: int) -> keras.Model:
    """Features -> logits, compiled."""
    normface = config["head"] == "normface"
    top = CosineDense(classes, config["scale"]) if normface else keras.layers.Dense(classes)
    model = keras.Sequential([keras.Input((width,)), keras.layers.Dropout(config["dropout"]), top])
    model.compile(
        optimizer=keras.optimizers.Adam(config["learning_rate"]),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config["smoothing"]),
        metrics=["accuracy"],
        steps_per_execution=task["steps_per_execution"],
    )
    return model


def main(task_path: str, report_path: str) -> None:
    """Train every trial of the task; all have the same frozen backbone."""
    task = read_task(task_path)
    use_threads(task["threads"])
    decode_once(task)
    training, validation, classes = datasets(task["cache"], task["batch_size"])
    name = task["trials"][0]["config"]["backbone"]
    base = frozen_mobilenet(name, task["image_size"], task["weights"][name])
    x, y = features(training, base)
    judged = features(validation, base)
    found = []
    for trial in task["trials"]:
        watch = Stopwatch(trial["name"], time.time())
        model = head_model(trial["config"], task, x.shape[1], classes)
        model.fit(
            *(x, y),
            batch_size=task["batch_size"],
            validation_data=judged,
            epochs=trial["epochs"],
            callbacks=[watch],
            verbose=0,
        )
        found.append(watch.found)
    write_report(report_path, found)


if __name__ == "__main__":
    main(*sys.argv[1:])
