"""Trials in, results out: Ray Tune runs what a ``TrialSource`` asks for, and the ledger is told everything.

With ``cluster.py``, ``schedulers.py`` and ``worker.py`` the only code that knows Ray. The driver is the only writer:
workers answer with metrics, and a Tune callback here turns them into events.
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

from orchestrator.cluster.lost_workers import retried
from orchestrator.cluster.ray_session import (
    StopSignals,
    changed_environment,
    check_fits,
    explain,
    quiet_ray,
    ray_session,
)
from orchestrator.cluster.worker import FitTrainable, fill_job
from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.search.queue import PrefillJob
from orchestrator.search.recorder import OnEvent, TrialRecorder
from orchestrator.search.sampling import TrialSource
from orchestrator.search.settings import SearchOutcome, SearchSettings


def run_trials(
    source: TrialSource, settings: SearchSettings, ledger: Ledger, on_event: OnEvent | None = None
) -> SearchOutcome:
    """Run what ``source`` asks for until it is exhausted, the hours are used up or the target is reached.

    Every event goes to ``ledger`` and then to ``on_event``. ``source`` must have replayed the ledger already; the
    scheduler is replayed here. Ray is started if it is not up, and then stopped at the end.

    A trial ends COMPLETED, PRUNED by the scheduler, STOPPED by the hours or the target, or FAILED: at once for a
    TrainerError or a divergence, after ``retries`` for a crash. A failed trial never ends the search. A trial whose
    worker Ray killed because other programs filled the memory is tried again, and no retry is counted. One that was
    asked for ahead and has not begun when the hours or the target stop the search stays PENDING; the next run, with
    more hours, starts it.

    Raises Interrupted upon SIGINT, SIGTERM or SIGHUP: trials that ran stay unfinished in the ledger, for the next run
    to start again. Raises OrchError where a trial asks for more than Ray has, and where Ray kills workers for want of
    memory again and again.
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
    shutil.rmtree(settings.storage, ignore_errors=True)  # what a killed driver left: nobody reads it again
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
                search_alg=_AskSource(run),
                scheduler=run.scheduler,
                stop=_StopEarly(run),
                callbacks=[_Recorder(run)],
                max_failures=settings.retries,
                reuse_actors=True,
                raise_on_failed_trial=False,
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
                verbose=0,
            )
    except RayError as error:
        raise run.broken or OrchError(f"Ray failed: {explain(error)}. Go on with: orch sweep --resume") from error
    except tune.TuneError as error:
        if run.broken is not None:
            raise run.broken from error
        raise OrchError(f"Ray Tune failed: {str(error).strip().splitlines()[-1]}") from error
    finally:
        shutil.rmtree(settings.storage / name, ignore_errors=True)


@contextlib.contextmanager
def _tune_environment(slots: int) -> Iterator[None]:
    """What Tune reads from the environment: none of its own files, signal handlers or output, no change of folder; and
    epochs that take no time come several in one answer, unless the scheduler has to see each before the next."""
    wanted = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
        "TUNE_MAX_PENDING_TRIALS_PG": str(slots),
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_RESULT_BUFFER_LENGTH": "1000",  # more than one: FitTrainable.train_buffered is asked, which decides
        "TUNE_WARN_THRESHOLD_S": "60",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
    with changed_environment(wanted):
        yield


class _AskSource(Searcher):
    """Tune's ``Searcher`` over the source. Results go to the source from the recorder, in the ledger's order."""

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
        """Nothing: see ``_Recorder``."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a resumed sweep reads."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing, as ``save``."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("Ray's own restore is not used; the source replays the ledger.")


class _StopEarly(Stopper):
    """Ends the search as a whole; never a single trial."""

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
        """Tune pickles it into a state file that nobody reads; the run itself cannot be pickled."""
        return (type(None), ())


class _Recorder(tune.Callback):
    """Tune's news, to the run."""

    def __init__(self, run: TrialRecorder) -> None:
        self._run = run

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._run.ledger.flush_if_due()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._tell(self._run.on_start, trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._tell(self._run.on_epoch, trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._tell(self._run.on_end, trial)
        _forget_figures(trial)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._tell(self._run.on_retry, trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._tell(self._run.on_failure, trial)
        _forget_figures(trial)

    def _tell(self, take: Callable[..., None], *news: Any) -> None:
        """An error here is the driver's own; Tune would take it for the trial's and start that again."""
        if self._run.broken is None:
            try:
                take(*news)
            except Exception as error:
                self._run.broken = error
                raise


def _forget_figures(trial: Trial) -> None:
    """Drop Tune's running statistics of an ended trial's figures, the larger half of what it keeps of one; it is the
    ledger that remembers. A long sweep would otherwise grow by some 40 KB a trial."""
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()
