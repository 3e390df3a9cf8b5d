"""Run the trials of a ``TrialSource`` on Ray Tune and record every result in the ledger.

The driver is the only writer: workers return metrics, and a Tune callback here passes them to the ``TrialRecorder``.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from orchestrator.cluster.interruptions import StopSignals
from orchestrator.cluster.lost_workers import retried
from orchestrator.cluster.ray_session import changed_environment, check_fits, quiet_ray, ray_session
from orchestrator.cluster.worker import FitTrainable, fill_job
from orchestrator.cluster.worker_errors import explain
from orchestrator.errors import OrchError, TransientError
from orchestrator.ledger.ledger import Ledger
from orchestrator.search.queue import PrefillJob
from orchestrator.search.recorder import OnEvent, TrialRecorder
from orchestrator.search.settings import SearchOutcome, SearchSettings
from orchestrator.search.source import TrialSource


def run_trials(
    source: TrialSource, settings: SearchSettings, ledger: Ledger, on_event: OnEvent | None = None
) -> SearchOutcome:
    """Run the trials of ``source`` until it is exhausted, the hours are used up or the target is reached.

    Every event goes to ``ledger`` and then to ``on_event``. ``source`` must have replayed the ledger already; the
    scheduler is replayed here. Ray is started if it is not running, and then stopped at the end.

    A trial ends COMPLETED, PRUNED by the scheduler, STOPPED by the hours or the target, or FAILED: at once for a
    TrainerError or a divergence, after ``retries`` for a crash. A failed trial never ends the search. A trial whose
    worker Ray killed because other programs filled the memory is retried, and no retry is counted. A trial that was
    requested ahead and has not started when the hours or the target stop the search stays PENDING; the next run, with
    more hours, starts it.

    Raises Interrupted upon SIGINT, SIGTERM or SIGHUP: trials that ran stay unfinished in the ledger, and the next run
    restarts them. Raises OrchError if a trial needs more than Ray has, and TransientError if Ray fails or keeps killing
    workers because the memory is full.
    """
    began_s = time.monotonic()
    with ray_session(settings.address):
        check_fits(settings.cpus, settings.gpus, "a trial")
        run = TrialRecorder(source, settings, ledger, on_event)
        with StopSignals() as signals:
            run.signals = signals
            run.look_for_end()
            try:
                _run_tune(run)
            finally:
                ledger.flush()
        run.close()
    return run.outcome(time.monotonic() - began_s)


def _run_tune(run: TrialRecorder) -> None:
    settings, name = run.settings, f"{run.settings.stage or 'trials'}-{uuid.uuid4().hex[:8]}"
    resources: dict[str, float] = {"cpu": settings.cpus}
    if settings.gpus:
        resources["gpu"] = settings.gpus
    shutil.rmtree(settings.storage, ignore_errors=True)  # left by a killed driver; never read again
    settings.storage.mkdir(parents=True, exist_ok=True)
    try:
        with quiet_ray(), _tune_environment(run.slots), retried(run.patience), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tune.run(
                FitTrainable,
                name=name,
                storage_path=str(settings.storage),
                resources_per_trial=resources,
                num_samples=-1,
                search_alg=_SourceSearcher(run),
                scheduler=run.scheduler,
                stop=_StopSearch(run),
                callbacks=[_RecorderCallback(run)],
                max_failures=settings.retries,
                reuse_actors=True,
                raise_on_failed_trial=False,
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
                verbose=0,
            )
    except RayError as error:
        raise run.broken or TransientError(f"Ray failed: {explain(error)}.") from error
    except tune.TuneError as error:
        if run.broken is not None:
            raise run.broken from error
        raise OrchError(f"Ray Tune failed: {str(error).strip().splitlines()[-1]}") from error
    finally:
        shutil.rmtree(settings.storage / name, ignore_errors=True)


@contextlib.contextmanager
def _tune_environment(slots: int) -> Iterator[None]:
    """Set what Tune reads from the environment: no files, signal handlers or output of its own, no change of folder.

    Very short epochs are returned several at once, unless the scheduler must see each one before the next.
    """
    wanted = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
        "TUNE_MAX_PENDING_TRIALS_PG": str(slots),
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_RESULT_BUFFER_LENGTH": "1000",  # above 1, so that Tune calls FitTrainable.train_buffered
        "TUNE_WARN_THRESHOLD_S": "60",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
    with changed_environment(wanted):
        yield


class _SourceSearcher(Searcher):
    """Tune's ``Searcher`` over a ``TrialSource``. The recorder passes results to the source, in the ledger's order."""

    def __init__(self, run: TrialRecorder) -> None:
        super().__init__(metric=None, mode=None)
        self._run = run

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._run.look_for_end():
            return Searcher.FINISHED
        job = self._run.next_job(trial_id)
        if job is None:
            return Searcher.FINISHED if self._run.is_drained else None
        settings, request = self._run.settings, job.request
        config = {
            "job": fill_job(request.job, settings.cpus, settings.gpus),
            "log": str(settings.logs / f"{request.id}.log"),
        }
        if isinstance(job, PrefillJob):
            return {**config, "fill": settings.fill}
        epochs = min(settings.epochs, request.job.config.epochs)
        details = {"factory": settings.factory, "epochs": epochs, "save_after_s": settings.save_after_s}
        return {**config, **details}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        return True

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Do nothing; see ``_RecorderCallback``."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing; a resumed sweep reads the ledger."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Do nothing; see ``save``."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("Ray's own restore is not used; the source replays the ledger.")


class _StopSearch(Stopper):
    """Stop the whole search, never a single trial."""

    def __init__(self, run: TrialRecorder) -> None:
        self._run = run

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        must_end = self._run.look_for_end()
        if must_end:
            self._run.kill_workers()
        return must_end

    def __reduce__(self) -> Any:
        """Pickle as None: Tune writes it into a state file that is never read, and the run cannot be pickled."""
        return (type(None), ())


class _RecorderCallback(tune.Callback):
    """Pass Tune's callbacks to the ``TrialRecorder``."""

    def __init__(self, run: TrialRecorder) -> None:
        self._run = run

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._run.ledger.flush_if_due()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._notify(self._run.on_start, trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._notify(self._run.on_epoch, trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._notify(self._run.on_end, trial)
        _drop_statistics(trial)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._notify(self._run.on_retry, trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._notify(self._run.on_failure, trial)
        _drop_statistics(trial)

    def _notify(self, handler: Callable[..., None], *arguments: Any) -> None:
        """Call ``handler``. An error in it is the driver's own; Tune would blame the trial and retry it."""
        if self._run.broken is None:
            try:
                handler(*arguments)
            except Exception as error:
                self._run.broken = error
                raise


def _drop_statistics(trial: Trial) -> None:
    """Drop Tune's running statistics of an ended trial, some 40 KB each, so that a long sweep does not grow.

    The ledger has the metrics.
    """
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()
