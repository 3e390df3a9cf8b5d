"""What runs inside a Ray worker: one trial as a Tune ``Trainable``, and plain functions as tasks.

Named by dotted path on the driver's side, so that TensorFlow is imported here alone.
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

from orchestrator.cluster import checkpoint as unfinished
from orchestrator.cluster.worker_memory import measure
from trainers.contract import EpochMetrics, Fit, FitJob
from trainers.dotted import load_dotted
from trainers.errors import TrainerError

ANSWER_AFTER_S = 0.1
"""A worker trains on for so long before it answers, and always for one epoch: an answer costs as much as a short one.
What a trial trains past the epoch that stops it is dropped, and a process that dies takes so much with it."""


def load_job(path: str) -> Callable[..., Any]:
    """The function that "module:function" names. Raises TrainerError."""
    try:
        function: Callable[..., Any] = load_dotted(path)
    except (ImportError, AttributeError) as error:
        raise TrainerError(f"{path} cannot be imported on a worker: {error}") from error
    return function


class FitTrainable(tune.Trainable):
    """One trial, or one build. ``config``: ``job`` (a ``FitJob`` as a dict), ``log`` (the file that takes this
    process's output), and for a trial ``factory`` (dotted, ``FitJob`` -> ``Fit``), ``epochs`` and ``save_after_s``
    (training after which its state is saved in ``job.checkpoint``); for a build ``fill`` (dotted, job -> dict).

    ``step`` trains one epoch and answers with its metrics and an ``outcome``: "" while it goes on, "completed", or
    "failed" with a ``reason`` for what another attempt would only repeat (``TrainerError``, divergence). Any other
    exception leaves the process; Tune counts it against the retries and starts the trial in a new worker.

    A trial that finds its checkpoint goes on from there: the epochs that it holds are answered one by one, untrained
    and ``held``. One that cannot use it starts anew and says why in ``restarted``.

    A build is one step: its outcome is "built", with what ``fill`` returned as ``built``, or "failed".
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._fit: Fit | None = None
        self._jobs = 0
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._fit = None  # drop the last trial's before the next one opens
        self._jobs += 1
        self._config = config
        self._job = FitJob.from_dict(config["job"])
        self._done: list[EpochMetrics] = []  # the epochs that the fit has trained, in order
        self._reported = 0
        self._restarted = ""
        self._raised: Exception | None = None
        redirect_output(Path(config["log"]))

    def _open(self) -> Fit:
        if self._fit is None:
            open_fit = load_job(self._config["factory"])
            self._fit = open_fit(self._job)
            try:
                saved = unfinished.read(Path(self._job.checkpoint), self._job) if self._job.checkpoint else None
                if saved is not None:
                    self._fit.restore(saved.state)
                    self._done = list(saved.epochs)
            except TrainerError as error:
                self._restarted = f"starts anew: {error}"
                self._fit = None
                self._fit = open_fit(self._job)  # a damaged state may be loaded by half
            self._keeper = unfinished.CheckpointSaver(self._job, self._config["save_after_s"])
        return self._fit

    def train_buffered(self, *_: Any) -> list[dict[str, Any]]:
        """The epochs of one answer. Tune's own method is called with its two limits exchanged (2.60), so it never
        gathers any. A trial's last epoch comes by itself: only one that was not stopped before it is finished.
        """
        if self._raised is not None:
            raise self._raised
        ends_s = time.monotonic() + ANSWER_AFTER_S
        answers = [self.train()]
        while not answers[-1].get(DONE) and time.monotonic() < ends_s and self._reported + 1 < self._config["epochs"]:
            try:
                answers.append(self.train())
            except Exception as error:  # what came before it is told first
                self._raised = error
                break
        return answers

    def step(self) -> dict[str, Any]:
        try:
            return self._build() if "fill" in self._config else self._epoch()
        except TrainerError as error:
            return self._failed(str(error))

    def _build(self) -> dict[str, Any]:
        built = load_job(self._config["fill"])(self._config["job"])
        return {"outcome": "built", "built": built, "reason": "", "done": True, **measure(self._jobs)}

    def _epoch(self) -> dict[str, Any]:
        fit, epochs = self._open(), self._config["epochs"]
        held = self._reported < len(self._done)
        if not held:
            self._done.append(fit.run_epoch())
        metrics = self._done[self._reported]
        self._reported += 1
        if metrics.diverged:
            return self._failed(f"diverged: the loss was {metrics.loss} in epoch {metrics.epoch}")
        outcome = ""
        if metrics.epoch >= epochs:
            fit.finish()
            outcome = "completed"
        elif not held:
            self._keeper.note(fit, self._done)
        said = {"outcome": outcome, "reason": "", "done": bool(outcome), "held": held, "restarted": self._restarted}
        self._restarted = ""
        return {**metrics.to_dict(), **said, **measure(self._jobs)}

    def _failed(self, reason: str) -> dict[str, Any]:
        self._fit = None
        last = {"epoch": self._reported, "outcome": "failed", "reason": reason, "done": True}
        return {**last, **measure(self._jobs)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        unfinished.write(Path(checkpoint_dir), self._job, self._open(), self._done, self._reported)

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        """Tune's own, of a trial that was paused. The sweep's checkpoint may hold more epochs, if it crashed since."""
        fit = self._open()
        saved = unfinished.read(Path(str(checkpoint)), self._job)
        if saved is None:
            raise TrainerError(f"there is no checkpoint of {self._job.id} in {checkpoint}.")
        if len(self._done) < len(saved.epochs):
            fit.restore(saved.state)
            self._done = list(saved.epochs)
        self._reported = saved.reported


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
        return "done", load_job(function)(dict(job))
    except TrainerError as error:
        return "refused", str(error)
