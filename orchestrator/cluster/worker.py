"""The code that runs in a Ray worker: one trial as a Tune ``Trainable``, and plain functions as tasks.

The driver names functions by dotted path, so that only workers import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.result import DONE

from orchestrator.cluster.checkpoint import CheckpointSaver, read_checkpoint, write_checkpoint
from orchestrator.cluster.worker_memory import measure
from trainers.contract import EpochMetrics, Fit, FitJob
from trainers.dotted import load_dotted
from trainers.errors import TrainerError

ANSWER_AFTER_S = 0.1
"""Seconds that a worker trains before it reports, always for at least one epoch: a report costs as much as a short
epoch. Epochs past the one that stops a trial are dropped, and a process that dies loses this much."""


def load_job(path: str) -> Callable[..., Any]:
    """Return the function named "module:function". Raises TrainerError."""
    try:
        function: Callable[..., Any] = load_dotted(path)
    except (ImportError, AttributeError) as error:
        raise TrainerError(f"{path} cannot be imported on a worker: {error}") from error
    return function


class FitTrainable(tune.Trainable):
    """One trial, or one prefill.

    ``config``: ``job`` (a ``FitJob`` as a dict), ``log`` (file for this process's output), and for a trial ``factory``
    (dotted name, ``FitJob`` -> ``Fit``), ``epochs`` and ``save_after_s`` (see ``CheckpointSaver``); for a prefill
    ``fill`` (dotted name, job -> dict).

    ``step`` trains one epoch and returns its metrics and an ``outcome``: "" while the trial continues, "completed", or
    "failed" with a ``reason`` if a retry would fail alike (``TrainerError``, divergence). Any other exception leaves
    the process; Tune counts it against the retries and restarts the trial in a new worker.

    A trial with a checkpoint resumes from it: its epochs are reported one by one, untrained and marked ``repeated``. If
    the checkpoint is unusable the trial starts over and reports the reason in ``restarted``.

    A prefill is one step: its outcome is "built", with the return value of ``fill`` as ``built``, or "failed".
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._fit: Fit | None = None
        self._jobs = 0
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._fit = None  # free the previous trial's fit before the next opens
        self._jobs += 1
        self._config = config
        self._job = FitJob.from_dict(config["job"])
        self._done: list[EpochMetrics] = []  # epochs trained, in order
        self._reported = 0
        self._restarted = ""
        self._raised: Exception | None = None
        redirect_output(Path(config["log"]))

    def _open(self) -> Fit:
        if self._fit is None:
            open_fit = load_job(self._config["factory"])
            self._fit = open_fit(self._job)
            try:
                saved = read_checkpoint(Path(self._job.checkpoint), self._job) if self._job.checkpoint else None
                if saved is not None:
                    self._fit.restore(saved.state)
                    self._done = list(saved.epochs)
            except TrainerError as error:
                self._restarted = f"starts over: {error}"
                self._fit = None
                self._fit = open_fit(self._job)  # a damaged state may be partly loaded
            self._saver = CheckpointSaver(self._job, self._config["save_after_s"])
        return self._fit

    def train_buffered(self, *_: Any) -> list[dict[str, Any]]:
        """Return the epochs of one report.

        Tune calls its own method with its two limits swapped (Ray 2.60), so that one never buffers. A trial's last
        epoch is reported alone, since the scheduler may stop the trial before it.
        """
        if self._raised is not None:
            raise self._raised
        ends_s = time.monotonic() + ANSWER_AFTER_S
        answers = [self.train()]
        while not answers[-1].get(DONE) and time.monotonic() < ends_s and self._reported + 1 < self._config["epochs"]:
            try:
                answers.append(self.train())
            except Exception as error:  # report the epochs before it first
                self._raised = error
                break
        return answers

    def step(self) -> dict[str, Any]:
        try:
            return self._prefill() if "fill" in self._config else self._epoch()
        except TrainerError as error:
            return self._failed(str(error))

    def _prefill(self) -> dict[str, Any]:
        built = load_job(self._config["fill"])(self._config["job"])
        return {"outcome": "built", "built": built, "reason": "", "done": True, **measure(self._jobs)}

    def _epoch(self) -> dict[str, Any]:
        fit, epochs = self._open(), self._config["epochs"]
        repeated = self._reported < len(self._done)
        if not repeated:
            self._done.append(fit.run_epoch())
        metrics = self._done[self._reported]
        self._reported += 1
        if metrics.diverged:
            return self._failed(f"diverged: the loss was {metrics.loss} in epoch {metrics.epoch}")
        outcome = ""
        if metrics.epoch >= epochs:
            fit.finish()
            outcome = "completed"
        elif not repeated:
            self._saver.note(fit, self._done)
        status = {
            "outcome": outcome,
            "reason": "",
            "done": bool(outcome),
            "repeated": repeated,
            "restarted": self._restarted,
        }
        self._restarted = ""
        return {**metrics.to_dict(), **status, **measure(self._jobs)}

    def _failed(self, reason: str) -> dict[str, Any]:
        self._fit = None
        last = {"epoch": self._reported, "outcome": "failed", "reason": reason, "done": True}
        return {**last, **measure(self._jobs)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        write_checkpoint(Path(checkpoint_dir), self._job, self._open(), self._done, self._reported)

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        """Restore Tune's checkpoint of a paused trial; the sweep's may hold more epochs if the trial crashed since."""
        fit = self._open()
        saved = read_checkpoint(Path(str(checkpoint)), self._job)
        if saved is None:
            raise TrainerError(f"there is no checkpoint of {self._job.id} in {checkpoint}.")
        if len(self._done) < len(saved.epochs):
            fit.restore(saved.state)
            self._done = list(saved.epochs)
        self._reported = saved.reported


def redirect_output(log: Path) -> None:
    """Append this process's stdout and stderr, including native code's, to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


def fill_job(job: FitJob, cpus: float, gpus: float) -> dict[str, Any]:
    """Return ``job`` as a dict, with the threads, the GPUs and the share of their memory that its worker may use."""
    threads, devices = max(1, int(cpus)), max(1, int(gpus))
    filled = dataclasses.replace(job, threads=threads, gpu_memory_share=min(1.0, gpus), devices=devices)
    return filled.to_dict()


def call_job(function: str, job: Mapping[str, Any]) -> tuple[str, Any]:
    """Return ("done", result of ``function``), or ("refused", message of its ``TrainerError``)."""
    try:
        return "done", load_job(function)(dict(job))
    except TrainerError as error:
        return "refused", str(error)
