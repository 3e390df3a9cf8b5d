"""What runs inside a Ray worker: one trial as a Tune ``Trainable``, and plain functions as tasks.

Named by dotted path on the driver's side, so that TensorFlow is imported here alone.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from trainers.contract import EpochMetrics, Fit, FitJob, TrainerError


def load_dotted(path: str) -> Callable[..., Any]:
    """The function that "module:function" names. Raises TrainerError."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TrainerError(f"{path} cannot be imported on a worker: {error}") from error


class FitTrainable(tune.Trainable):
    """One trial. ``config``: ``job`` (a ``FitJob`` as a dict), ``factory`` (dotted, ``FitJob`` -> ``Fit``), ``epochs``
    and ``log`` (the file that takes this process's output).

    ``step`` trains one epoch and answers with its metrics and an ``outcome``: "" while it goes on, "completed", or
    "failed" with a ``reason`` for what another attempt would only repeat (``TrainerError``, divergence). Any other
    exception leaves the process; Tune counts it against the retries and starts the trial in a new worker.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._fit: Fit | None = None
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._fit = None  # drop the last trial's before the next one opens
        self._job = FitJob.from_dict(config["job"])
        self._factory: str = config["factory"]
        self._epochs: int = config["epochs"]
        self._epoch = 0
        redirect_output(Path(config["log"]))

    def _open(self) -> Fit:
        if self._fit is None:
            self._fit = load_dotted(self._factory)(self._job)
        return self._fit

    def step(self) -> dict[str, Any]:
        try:
            metrics = self._open().run_epoch()
            self._epoch = metrics.epoch
            if metrics.diverged:
                return self._failed(f"diverged: the loss was {metrics.loss} in epoch {metrics.epoch}")
            if metrics.epoch >= self._epochs:
                self._open().finish()
                return self._result(metrics, "completed")
            return self._result(metrics, "")
        except TrainerError as error:
            return self._failed(str(error))

    def _result(self, metrics: EpochMetrics, outcome: str) -> dict[str, Any]:
        return {**metrics.to_dict(), "outcome": outcome, "reason": "", "done": bool(outcome)}

    def _failed(self, reason: str) -> dict[str, Any]:
        self._fit = None
        return {"epoch": self._epoch, "outcome": "failed", "reason": reason, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        self._open().save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        self._open().restore(Path(str(checkpoint)))


def redirect_output(log: Path) -> None:
    """Append this process's stdout and stderr, those of native code included, to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


def fill_job(job: FitJob, cpus: float, gpus: float) -> dict[str, Any]:
    """``job`` as a dict, told the threads and the share of a GPU's memory that its worker may use."""
    filled = dataclasses.replace(job, threads=max(1, int(cpus)), gpu_memory_share=min(1.0, gpus))
    return filled.to_dict()


def call_job(function: str, job: Mapping[str, Any]) -> tuple[str, Any]:
    """("done", what ``function`` returned), or ("refused", the sentence of a ``TrainerError``)."""
    try:
        return "done", load_dotted(function)(dict(job))
    except TrainerError as error:
        return "refused", str(error)
