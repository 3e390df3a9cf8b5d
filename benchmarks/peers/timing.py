"""When a trial's epochs ended, and the report that a peer writes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras


class Stopwatch(keras.callbacks.Callback):
    """Notes each epoch's seconds, validation included, and its validation accuracy.

    ``on_epoch``: called with those of the trial so far.
    """

    def __init__(self, name: str, began: float, on_epoch: Callable[[dict[str, Any]], None] | None = None) -> None:
        super().__init__()
        self.found: dict[str, Any] = {"name": name, "began": began, "ended": began, "epochs": []}
        self._last = began
        self._on_epoch = on_epoch

    def on_train_begin(self, logs: Any = None) -> None:
        self._last = time.time()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        now = time.time()
        self.found["epochs"] = [*self.found["epochs"], now - self._last]
        self.found |= {"ended": now, "val_accuracy": float((logs or {})["val_accuracy"])}
        self._last = now
        if self._on_epoch is not None:
            self._on_epoch(self.found)


def write_report(path: str, trials: Sequence[Mapping[str, Any]]) -> None:
    """What each trial's ``Stopwatch`` found, in the order in which they began."""
    ordered = sorted(trials, key=lambda trial: trial["began"])
    Path(path).write_text(json.dumps({"trials": ordered}), encoding="utf-8")
