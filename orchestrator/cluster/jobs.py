"""Run plain functions on Ray's workers: jobs in parallel, or one question to every node. Knows no trials."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.interruptions import StopSignals
from orchestrator.cluster.memory_kills import Patience, PatienceSettings, gave_up, parse_kill
from orchestrator.cluster.ray_session import check_fits
from orchestrator.cluster.worker import call_job
from orchestrator.cluster.worker_errors import explain
from orchestrator.errors import Interrupted, OrchError
from trainers.wording import count

JOB_RETRIES = 2
"""Maximum retries of a job whose worker crashed."""
JOB_PATIENCE = PatienceSettings()
NODE_ANSWERS_WITHIN_S = 120.0
"""Maximum seconds until each node of a cluster returns a small job; a busy node starts a process slowly."""


def run_jobs(
    function: str,
    jobs: Sequence[Mapping[str, Any]],
    cpus: float = 1.0,
    on_done: Callable[[int, Any], None] | None = None,
    gpus: float = 0.0,
    fresh: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Any]:
    """Call ``function`` ("module:function", takes a dict) on every job in parallel; return results in the jobs' order.

    ``cpus`` and ``gpus``: of one job; a job's ``threads``, if present, is set to its CPUs. ``on_done(index, result)``
    is called in the driver as each ends. A job whose worker dies is retried ``JOB_RETRIES`` times, one that Ray killed
    because other programs filled the memory as often as ``JOB_PATIENCE`` allows; ``tell`` gets a line for each.
    ``fresh``: run each job in a new process, so that its memory is freed.

    Raises OrchError with the message of a TrainerError, or with the job and its error, TransientError if Ray keeps
    killing workers because the memory is full, and Interrupted upon SIGINT, SIGTERM or SIGHUP; running jobs are
    cancelled.
    """
    check_fits(cpus, gpus, "a job")
    more = {"max_calls": 1} if fresh else {}
    # Ray's own retries after a memory kill are unlimited and silent.
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, **more)(call_job)
    filled = [{**job, "threads": max(1, int(cpus))} if "threads" in job else dict(job) for job in jobs]
    running = _RunningJobs(function, lambda index: task.remote(function, filled[index]), len(jobs), tell)
    results: dict[int, Any] = {}
    with StopSignals() as signals:
        try:
            while running.remaining:
                for index, result in running.ended(within_s=0.2):
                    results[index] = result
                    if on_done is not None:
                        on_done(index, result)
                if signals.received and running.remaining:
                    raise Interrupted(
                        f"interrupted by {signals.received} with {count(running.remaining, 'job')} to go."
                    )
        finally:
            running.cancel()
    return [results[index] for index in range(len(jobs))]


def ask_nodes(function: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Call ``function`` ("module:function", takes a dict) once on each node with CPUs; return node's name -> result.

    Reserves no CPU, so that a busy cluster answers too. Raises OrchError with the message of a TrainerError, or with
    the names of nodes that do not answer within ``NODE_ANSWERS_WITHIN_S``.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = {}
    for node in nodes:
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        name += f" {node['NodeID'][:8]}" if name in asked else ""
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[name] = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=where)(call_job).remote(
            function, dict(job)
        )
    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=NODE_ANSWERS_WITHIN_S)
    silent = [name for name, reference in asked.items() if reference not in done]
    if silent:
        names = ", ".join(silent)
        raise OrchError(f"{names} did not answer within {NODE_ANSWERS_WITHIN_S:.0f} s; see ray status.")
    return {name: _job_result(reference, f"{function} on {name}") for name, reference in asked.items()}


def _job_result(reference: Any, name: str) -> Any:
    try:
        how, value = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise OrchError(f"{name} failed: {explain(error)}") from error
    if how == "refused":
        raise OrchError(value)
    return value


class _RunningJobs:
    """Running jobs; a job that lost its worker is submitted again."""

    def __init__(
        self, function: str, submit: Callable[[int], ray.ObjectRef], jobs: int, tell: Callable[[str], None]
    ) -> None:
        self._function, self._submit, self._jobs, self._tell = function, submit, jobs, tell
        self._patience = Patience(JOB_PATIENCE)
        self._crashes: Counter[int] = Counter()
        self._waiting: list[int] = []  # for memory
        self._running = {submit(index): index for index in range(jobs)}

    @property
    def remaining(self) -> int:
        return len(self._running) + len(self._waiting)

    def ended(self, within_s: float) -> Iterator[tuple[int, Any]]:
        """Yield index and result of the jobs that end within ``within_s``."""
        if self._waiting and self._patience.ready(time.monotonic()):
            self._running |= {self._submit(index): index for index in self._waiting}
            self._waiting = []
        if not self._running:
            time.sleep(within_s)
            return
        done, _ = ray.wait(list(self._running), timeout=within_s)
        for reference in done:
            index = self._running.pop(reference)
            try:
                how, value = ray.get(reference)
            except ray.exceptions.RayError as error:
                self._retry(index, error)
                continue
            if how == "refused":
                raise OrchError(value)
            self._patience.progress()
            yield index, value

    def _retry(self, index: int, error: ray.exceptions.RayError) -> None:
        """Submit the job again, now or after a pause for memory. Raises OrchError once its retries are used up."""
        name = f"job {index + 1} of {self._jobs} ({self._function})"
        by_itself = isinstance(error, ray.exceptions.RayTaskError | ray.exceptions.RuntimeEnvSetupError)
        kill = None if by_itself else parse_kill(str(error))
        if kill is not None and not kill.is_own:
            self._patience.killed(kill, time.monotonic())
            if self._patience.is_exhausted:
                raise gave_up(kill, self._patience.rounds) from error
            self._waiting.append(index)
            self._tell(f"{name} is retried: {kill.sentence()}")
            return
        self._crashes[index] += 1
        if by_itself or self._crashes[index] > JOB_RETRIES:
            raise OrchError(f"{name} failed: {explain(error)}") from error
        self._running[self._submit(index)] = index

    def cancel(self) -> None:
        for reference in self._running:
            ray.cancel(reference, force=True)
