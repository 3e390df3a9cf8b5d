"""KerasTuner over a list of configurations: an oracle that plays the list, and a hypermodel with its own epochs.

What makes it fast: the data and the model are those of ``ray_tune.py`` (decoded once, kept in memory, prefetched, uint8
in, a frozen base built once, ``steps_per_execution``). Either one process trains one trial after the other on all
cores, or, with several trials at once, as many processes as that ask a chief for them, the way its documents describe
for distributed tuning; the faster of the two in a probe is used. The chief checks every 20 seconds whether it can end;
that wait is not counted here. It saves each trial's best epoch, as it always does.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras_tuner

from benchmarks.peers.network import build_model, use_threads
from benchmarks.peers.photos import datasets, decode_once, read_task
from benchmarks.peers.timing import Stopwatch, write_report

ROLE = "KERASTUNER_TUNER_ID"


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
    """Train every trial of the task; run again by itself for the chief and each worker where there are several."""
    task, role = read_task(task_path), os.environ.get(ROLE, "")
    if not role:
        decode_once(task)
    if role or task["concurrent"] == 1:
        found = search(task)
        if not role and len(found) != len(task["trials"]):
            raise SystemExit(f"KerasTuner trained {len(found)} of {len(task['trials'])} trials.")
        write_report(report_path, found)
        return
    parts = [f"{report_path}.{number}" for number in range(task["concurrent"])]
    distribute(task_path, parts)
    trials = [trial for part in parts for trial in json.loads(Path(part).read_text(encoding="utf-8"))["trials"]]
    if len(trials) != len(task["trials"]):
        raise SystemExit(f"KerasTuner trained {len(trials)} of {len(task['trials'])} trials.")
    write_report(report_path, trials)


def distribute(task_path: str, reports: Sequence[str]) -> None:
    """A chief, and a worker for each of ``reports``, each a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}

    def begin(role: str, report: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.peers.keras_tuner_list", task_path, report]
        return subprocess.Popen(command, env={**os.environ, **place, ROLE: role})

    chief = begin("chief", os.devnull)
    try:
        workers = [begin(f"tuner{number}", report) for number, report in enumerate(reports)]
        codes = [worker.wait() for worker in workers]
    finally:
        chief.kill()
        chief.wait()
    if any(codes):
        raise SystemExit(f"workers of KerasTuner ended with the exit codes {codes}.")


def search(task: dict[str, Any]) -> list[dict[str, Any]]:
    """What each trial's stopwatch found, of those that this process trained. In a chief it does not return."""
    use_threads(task["threads"])
    training, validation, classes = datasets(task["cache"], task["batch_size"])
    model = ListedModel(task, classes)
    tuner = keras_tuner.Tuner(
        ListOracle(len(task["trials"])), model, directory=task["scratch"], project_name="keras_tuner", overwrite=True
    )
    tuner.search(training, validation_data=validation, verbose=0)
    return model.found


if __name__ == "__main__":
    main(*sys.argv[1:])
