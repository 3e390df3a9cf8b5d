"""Send a sweep's ledger and files to MLflow.

The ledger is the source of truth. A cursor file holds the ``seq`` of the last event that MLflow has; later events are
sent in order. Sending is idempotent: a run is looked up by its tags before it is created, a repeated parameter, tag or
status changes nothing, and MLflow keeps one of two equal metric values. So retrying recovers from any interruption.
Files are read from the sweep's folder; those whose content MLflow has are skipped, and those that do not match their
checksum in the ledger are not sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from orchestrator.errors import TrackingError
from orchestrator.ledger.kept import KeptFiles, recorded_files
from orchestrator.ledger.looks import sweep_id
from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.paths import SweepPaths, command_line
from orchestrator.spec.yaml_file.document import read_document
from orchestrator.tracking.cursor import Cursor, read_cursor, write_cursor
from orchestrator.tracking.mlflow_store import connect, database_file, first_sentence, store_uri, without_password
from orchestrator.tracking.run_updates import RunUpdate, leaderboard_update, run_updates, spec_params, sweep_note
from orchestrator.tracking.settings import TrackingSettings
from orchestrator.tracking.sqlite_store import artifacts_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.exceptions import MlflowException

BATCH_EVENTS = 500
"""Maximum events per batch; the cursor advances after each."""
CALL_LIMITS = {"metrics": 800, "params": 100, "tags": 100}
"""Maximum entries of each kind in one call of MLflow, which accepts 1,000 in total."""
SWEEP_TAG = "orch.sweep"
TRIAL_TAG = "orch.trial"
OPEN_STATUSES = ("RUNNING", "SCHEDULED")
MAX_TEXT = 5000
"""Maximum characters of a parameter or tag, longer ones are cut; MLflow refuses more than 6,000."""


@dataclass(frozen=True)
class SyncResult:
    """``events`` and ``files`` sent by this call; ``refused``: sentences about values that MLflow rejected
    and files that were not sent because they are damaged;
    ``closed``: number of runs that were still open in MLflow although no process runs the sweep."""

    parent_run_id: str
    uri: str
    events: int
    files: int
    refused: tuple[str, ...] = ()
    closed: int = 0

    def __str__(self) -> str:
        sent = f"{self.events} events and {self.files} files were sent to MLflow at {without_password(self.uri)}"
        if not self.events and not self.files:
            sent = f"MLflow at {without_password(self.uri)} is up to date"
        closed = [f"No process runs the sweep: {self.closed} open runs were closed there as KILLED."]
        return " ".join([f"{sent} (run {self.parent_run_id}).", *(closed if self.closed else ()), *self.refused])


class MlflowWriter:
    """Send the events after the cursor and the files of the sweep's folder. Not thread-safe."""

    def __init__(
        self,
        paths: SweepPaths,
        settings: TrackingSettings,
        open_client: Callable[[str], MlflowClient] = connect,
        environment: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.uri = store_uri(settings.uri)
        self.cursor = read_cursor(paths.tracking_cursor).at(self.uri)
        self.loaded = False
        self._refused: list[str] = []
        self._damaged: list[str] = []
        self._hashes: dict[str, str] = {}
        self.steps = 0
        """Number of calls that MLflow answered, which distinguishes a slow store from one that hangs."""
        self._paths = paths
        self._settings = settings
        self._open_client = open_client
        self._environment = environment
        self._lock = filelock.FileLock(paths.tracking_lock, timeout=0)
        self._pending: dict[int, Event] = {}
        self._client: MlflowClient | None = None
        self._sweep_id = ""
        self._last_s = 0.0  # time of the latest event
        self._experiment_id = ""
        self._files_due = True
        self._events_sent = 0
        self._files_sent = 0
        self._closed = 0

    @property
    def refused(self) -> list[str]:
        """Sentences about values that MLflow rejected, and files that are damaged and were not sent."""
        return [*self._refused, *self._damaged]

    @property
    def behind(self) -> int:
        """Number of known events that MLflow does not have."""
        return len(self._pending)

    def result(self) -> SyncResult:
        sent = (self._events_sent, self._files_sent, tuple(self.refused), self._closed)
        return SyncResult(self.cursor.parent, self.uri, *sent)

    def load(self) -> None:
        """Read cursor and ledger; lock the sweep against other senders until ``release``.

        Raises TrackingError if another process holds the lock.
        """
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise TrackingError(
                f"another process is sending {self._paths.root} to MLflow; a running sweep does so by itself."
            ) from None
        self.cursor = read_cursor(self._paths.tracking_cursor).at(self.uri)
        if not self.cursor.environment:
            self.cursor = replace(self.cursor, environment=self._environment())
        self._read_ledger()
        self.loaded = True

    def release(self) -> None:
        """Release the lock; may be called twice."""
        self._lock.release()

    def add(self, events: Iterable[Event]) -> None:
        """Add events that were appended to the ledger after ``load``."""
        events = list(events)
        self._hashes |= recorded_files(events)
        for event in events:
            self._last_s = max(self._last_s, event.time_s)
            if event.seq > self.cursor.seq:
                self._pending[event.seq] = event
            if event.seq == 1:
                self._sweep_id = sweep_id(event)

    def flush(self) -> bool:
        """Send a batch of events and the files that are due; return whether more events are pending.

        Raises MLflow's errors; nothing is lost then.
        """
        if not self._sweep_id or not (self._pending or self._files_due):
            return False
        try:
            client = self._client or self._open()
            batch = [self._pending[seq] for seq in sorted(self._pending)[:BATCH_EVENTS]]
            for update in run_updates(batch):
                self._send(client, update)
            if batch:
                self._mark_sent(batch)
            if self._files_due and not self._pending:
                self._send_files(client)
                self._files_due = False
        except BaseException:
            self._client = None  # look everything up again next time
            raise
        return bool(self._pending)

    def close_runs(self) -> None:
        """End open runs as KILLED; only for a sweep that no process runs.

        A resumed sweep finds and reopens them. Raises MLflow's errors.
        """
        if not self._sweep_id:
            return
        client = self._client or self._open()
        resume = command_line("sweep", "--resume", "--out", self._paths.root)
        tags = {"orch.reason": f"the sweep stopped before this ended; resume it: `{resume}`"}
        ended_ms = round(self._last_s * 1000)
        for run in self._search(client):
            if run.info.status in OPEN_STATUSES:
                trial = run.data.tags.get(TRIAL_TAG, "")
                self._log(client, run.info.run_id, RunUpdate(trial, ended_ms, tags=tags))
                client.set_terminated(run.info.run_id, "KILLED", max(ended_ms, run.info.start_time or 0))
                self._closed += 1
                self.steps += 1

    def _read_ledger(self) -> None:
        events = read_events(self._paths.ledger)
        seq = self.cursor.seq
        if seq and (seq > len(events) or events[seq - 1].time_s != self.cursor.time_s):
            # MLflow has events that the ledger lost in a crash: send everything again
            self.cursor = replace(self.cursor, seq=0)
        self.add(events)

    def _mark_sent(self, batch: list[Event]) -> None:
        """Advance the cursor past ``batch``."""
        self._save(replace(self.cursor, seq=batch[-1].seq, time_s=batch[-1].time_s))
        self._events_sent += len(batch)
        for event in batch:
            self._pending.pop(event.seq)
            self._files_due |= event.kind in (EventKind.SWEEP, EventKind.STAGE, EventKind.NOTE)

    def _save(self, cursor: Cursor) -> None:
        write_cursor(self._paths.tracking_cursor, cursor)
        self.cursor = cursor

    # --- runs

    def _open(self) -> MlflowClient:
        """Open a client and look up the sweep's runs; send everything again if some are missing."""
        client = self._open_client(self.uri)
        self._experiment_id = self._experiment(client)
        runs = self._find_runs(client)
        parent = runs.pop("", "")
        if not parent or not set(self.cursor.runs) <= set(runs):
            parent = parent or self._create_parent(client)
            self._save(Cursor(self.uri, parent=parent, runs=runs, environment=self.cursor.environment))
            self._read_ledger()
            self._files_due = True
        else:
            self._save(replace(self.cursor, parent=parent, runs=runs))
        self._client = client
        return client

    def _experiment(self, client: MlflowClient) -> str:
        name = self._settings.experiment
        found = client.get_experiment_by_name(name)
        if found is None:
            path = database_file(self.uri)
            return client.create_experiment(name, artifacts_folder(path).as_uri() if path else None)
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the MLflow experiment {name!r} is deleted; `mlflow experiments restore -x {found.experiment_id}` "
                "brings it back, or set another tracking.experiment."
            )
        return found.experiment_id

    def _find_runs(self, client: MlflowClient) -> dict[str, str]:
        """Return trial ("" for the sweep itself) -> run id."""
        found: dict[str, str] = {}
        for run in self._search(client):
            found.setdefault(run.data.tags.get(TRIAL_TAG, ""), run.info.run_id)
        return found

    def _search(self, client: MlflowClient) -> Iterator[Run]:
        """Yield every run of the sweep, oldest first."""
        token: str | None = None
        while token != "":
            condition = f"tags.`{SWEEP_TAG}` = '{self._sweep_id}'"
            page = client.search_runs([self._experiment_id], condition, order_by=["start_time ASC"], page_token=token)
            self.steps += 1
            yield from page
            token = page.token or ""

    def _create_parent(self, client: MlflowClient) -> str:
        first = self._pending.get(1) or read_events(self._paths.ledger)[0]
        commit = self.cursor.environment.get("git.commit")
        tags = {f"orch.{key}": value for key, value in self.cursor.environment.items()}
        tags |= {"mlflow.source.git.commit": commit} if commit else {}
        tags |= {SWEEP_TAG: self._sweep_id, "orch.folder": str(self._paths.root.resolve()), **self._settings.tags}
        return client.create_run(self._experiment_id, round(first.time_s * 1000), tags, self._paths.name).info.run_id

    def _send(self, client: MlflowClient, update: RunUpdate) -> None:
        run_id = self.cursor.runs.get(update.trial, "") if update.trial else self.cursor.parent
        if not run_id:
            run_id = self._create_child(client, update)
            update = replace(update, tags={})
        self._log(client, run_id, update)
        if update.ended_ms is not None:
            client.set_terminated(run_id, update.status, update.ended_ms)
        elif update.status:
            client.update_run(run_id, status=update.status)
        self.steps += 1

    def _create_child(self, client: MlflowClient, update: RunUpdate) -> str:
        """Create a run with its tags in one call.

        The cursor file gets its id with the batch; until then the run is found by its tags.
        """
        tags = {key: value[:MAX_TEXT] for key, value in update.tags.items()}
        tags |= {SWEEP_TAG: self._sweep_id, TRIAL_TAG: update.trial, "mlflow.parentRunId": self.cursor.parent}
        made = client.create_run(self._experiment_id, update.started_ms, tags, update.name or update.trial).info.run_id
        self.cursor = replace(self.cursor, runs={**self.cursor.runs, update.trial: made})
        return made

    def _log(self, client: MlflowClient, run_id: str, update: RunUpdate) -> None:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException

        whole = {
            "metrics": [Metric(p.key, p.value, p.time_ms, p.step) for p in update.points],
            "params": [Param(key, value[:MAX_TEXT]) for key, value in update.params.items()],
            "tags": [RunTag(key, value[:MAX_TEXT]) for key, value in update.tags.items()],
        }
        try:
            if all(len(values) <= CALL_LIMITS[kind] for kind, values in whole.items()):
                client.log_batch(run_id, **whole)
                return
        except MlflowException as error:
            if not self._is_refusal(client, run_id, error):
                raise
        for kind, values in whole.items():
            for start in range(0, len(values), CALL_LIMITS[kind]):
                try:
                    client.log_batch(run_id, **{kind: values[start : start + CALL_LIMITS[kind]]})
                except MlflowException as error:
                    if not self._is_refusal(client, run_id, error):
                        raise
                    owner = f"trial {update.trial}" if update.trial else "the sweep"
                    self._refused.append(f"MLflow refused {kind} of {owner}: {first_sentence(error)}")

    @staticmethod
    def _is_refusal(client: MlflowClient, run_id: str, error: MlflowException) -> bool:
        """Return whether MLflow rejects the value for good, so later events must not wait. A deleted run can return."""
        if error.error_code != "INVALID_PARAMETER_VALUE":
            return False
        return client.get_run(run_id).info.lifecycle_stage != "deleted"

    # --- files

    def _send_files(self, client: MlflowClient) -> None:
        self._damaged = []
        for path in self._files():
            name = path.relative_to(self._paths.root).as_posix()
            if not self._is_whole(path):
                continue
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if self.cursor.files.get(name) == digest:
                continue
            if path == self._paths.manifest:
                self._send_dataset(client)
            else:
                folder = path.parent.relative_to(self._paths.root).as_posix()
                client.log_artifact(self.cursor.parent, str(path), None if folder == "." else folder)
            if path in (self._paths.spec, self._paths.leaderboard_parquet):
                self._send_summary(client)
            self._save(replace(self.cursor, files={**self.cursor.files, name: digest}))
            self._files_sent += 1
            self.steps += 1

    def _is_whole(self, path: Path) -> bool:
        """Whether ``path`` is there and matches its checksum, if it has one; note a damaged file."""
        kept = KeptFiles(self._paths, self._hashes)
        state = kept.state(path)
        if state.is_damage:
            sentence = f"It was not sent to MLflow: {kept.damaged(path, state)}"
            self._damaged += [sentence] if sentence not in self._damaged else []
        return path.is_file() and not state.is_damage

    def _files(self) -> list[Path]:
        """Return the files to send; models go to the registry, and the ledger becomes runs."""
        paths = self._paths
        single = (paths.spec, paths.manifest, paths.data_report)
        boards = (paths.leaderboard_csv, paths.leaderboard_parquet, paths.leaderboard_md, paths.per_class)
        figures = sorted(path for path in paths.figures.rglob("*") if path.is_file() and path.name[0] != ".")
        return [path for path in (*single, *boards) if path.is_file()] + figures

    def _send_dataset(self, client: MlflowClient) -> None:
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        from trainers.data.manifest import Manifest

        manifest = Manifest.read(self._paths.manifest)
        dataset = from_pandas(
            manifest.table,
            source=str(manifest.root),
            targets="label",
            name=manifest.root.name or "photos",
            digest=manifest.fingerprint,
        )
        entity = dataset._to_mlflow_entity()
        client.log_inputs(self.cursor.parent, [DatasetInput(entity, [InputTag("mlflow.data.context", "sweep")])])

    def _send_summary(self, client: MlflowClient) -> None:
        """Send the spec as parameters, the winner's metrics and the note.

        MLflow's parameters are immutable, so one that changed since (a larger budget) becomes a tag.
        """
        paths = self._paths
        params = spec_params(_written_spec(paths.spec) if self._is_whole(paths.spec) else {})
        known = client.get_run(self.cursor.parent).data.params
        changed = {f"orch.spec.{key}": value for key, value in params.items() if known.get(key, value) != value}
        table = paths.leaderboard_md.read_text() if self._is_whole(paths.leaderboard_md) else ""
        tags = changed | {"mlflow.note.content": sweep_note(paths.name, params, table)}
        new = {key: value for key, value in params.items() if key not in known}
        self._log(client, self.cursor.parent, RunUpdate("", 0, params=new, tags=tags))
        if self._is_whole(paths.leaderboard_parquet):
            import pandas as pd

            rows = pd.read_parquet(paths.leaderboard_parquet).to_dict("records")
            time_ms = round(paths.leaderboard_parquet.stat().st_mtime * 1000)
            self._log(client, self.cursor.parent, leaderboard_update(rows, time_ms))


def _written_spec(path: Path) -> dict[str, Any]:
    """Read the values of a sweep's ``spec.yaml`` as ``load_spec`` does: "on" and "no" are strings. Raises SpecError."""
    return read_document(path.read_text(encoding="utf-8"), str(path)).expand({}).data
