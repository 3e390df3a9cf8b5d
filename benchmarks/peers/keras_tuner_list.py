"""KerasTuner over a list of configurations: an oracle that plays the list, and a hypermodel with its own epochs.

What makes it fast: the data and the model are those of ``ray_tune.py`` (decoded once, kept in memory, prefetched, uint8
in, a frozen base built once, ``steps_per_execution``). One process trains one trial after the other on all cores, which
is how KerasTuner works on one machine; it saves each trial's best epoch, as it always does.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras_tuner

from benchmarks.peers.network import build_model, use_threads
from benchmarks.peers.photos import datasets, decode_once, read_task
from benchmarks.peers.timing import Stopwatch, write_report


class ListOracle(keras_tuner.Oracle):
    """Trial i has the i-th configuration; its only hyperparameter is that number."""

    def __init__(self, count: int) -> None:
        numbers = keras_tuner.HyperParameters()
        numbers.Choice("number", list(range(count)))
        super().__init__(
            objective=keras_tuner.Objective("val_accuracy", "max"), max_trials=count, hyperparameters=numbers
        )
        self._handed_out = 0

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next of the list."""
        number = self._handed_out
        self._handed_out += 1
        return {"status": "RUNNING", "values": {"number": number}}


class ListedModel(keras_tuner.HyperModel):
    """Builds and fits what the list says."""

    def __init__(self, task: dict[str, Any], classes: int) -> None:
        super().__init__()
        self.task, self.classes = task, classes
        self.found: list[dict[str, Any]] = []

    def build(self, hp: Any) -> Any:
        """The model of trial ``hp["number"]``."""
        self.began = time.time()
        return build_model(self.task["trials"][hp.get("number")]["config"], self.task, self.classes)

    def fit(self, hp: Any, model: Any, *data: Any, callbacks: Any = (), **kwargs: Any) -> Any:
        """Train it for its own epochs."""
        trial = self.task["trials"][hp.get("number")]
        watch = Stopwatch(trial["name"], self.began)
        self.found.append(watch.found)
        return model.fit(*data, epochs=trial["epochs"], callbacks=[*callbacks, watch], **kwargs)


def main(task_path: str, report_path: str) -> None:
    """Train every trial of the task."""
    task = read_task(task_path)
    use_threads(task["threads"])
    decode_once(task)
    training, validation, classes = datasets(task["cache"], task["batch_size"])
    model = ListedModel(task, classes)
    tuner = keras_tuner.Tuner(
        ListOracle(len(task["trials"])), model, directory=task["scratch"], project_name="keras_tuner", overwrite=True
    )
    tuner.search(training, validation_data=validation, verbose=0)
    if len(model.found) != len(task["trials"]):
        raise SystemExit(f"KerasTuner trained {len(model.found)} of {len(task['trials'])} trials.")
    write_report(report_path, model.found)


if __name__ == "__main__":
    main(*sys.argv[1:])
