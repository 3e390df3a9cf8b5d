"""Start Ray or join a cluster, query its resources, and run plain jobs on its workers. Knows no trials."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import ray
import ray.exceptions
from ray._private import ray_constants, services
from ray._private.utils import read_ray_address
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster import interruptions
from orchestrator.cluster.memory_kills import Patience, PatienceSettings, gave_up, parse_kill
from orchestrator.cluster.worker import call_job
from orchestrator.errors import Interrupted, OrchError
from orchestrator.machine.places import ray_folder
from orchestrator.spec.slots import Resources
from trainers.dotted import FOLDER_VARIABLE, own_folder
from trainers.wording import first_line

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


OBJECT_STORE_BYTES = 200 * 1024**2
"""Bytes of Ray's object store; small, since images and features are passed as paths."""
JOB_RETRIES = 2
"""Maximum retries of a job whose worker crashed."""
JOB_PATIENCE = PatienceSettings()
JOB_REMEDY = "Close other programs or run fewer jobs at once, each on more CPUs (--set resources.cpus=N)"
ANSWER_WITHIN_S = 10.0
"""Maximum seconds until a cluster's address accepts a connection."""
NODE_ANSWERS_WITHIN_S = 120.0
"""Maximum seconds until each node of a cluster returns a small job; a busy node starts a process slowly."""
WITHOUT_ADDRESS = "leave --address out: the sweep then starts a Ray of its own."


def start_ray(address: str = "", cpus: int | None = None, gpus: float | None = None) -> Resources:
    """Start Ray on this machine, or join the cluster at ``address``; do nothing if Ray is running.

    Without ``address`` always start a separate local Ray, whatever else runs here and whatever RAY_ADDRESS is.
    ``cpus`` defaults to all cores, ``gpus`` to those that Ray finds; both are ignored for a cluster. Local workers
    import from the driver's ``sys.path``; a cluster's receive the two packages of this project, and other modules
    that a spec names by dotted path must be installed there. Raises OrchError if no cluster answers, or if Ray finds
    no folder for its sockets.
    """
    if ray.is_initialized():
        return machine_resources()
    # The second hides all GPUs from a worker without one; Ray's default leaves them visible.
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        _check_answers(_running_cluster() if address == "auto" else address)
        here = Path(__file__).resolve().parents[1]
        packages = [str(here), str(here.parent / "trainers")]
        options |= {"address": address, "runtime_env": {"env_vars": variables, "py_modules": packages}}
    else:
        variables[FOLDER_VARIABLE] = str(own_folder())
        variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(os.path.abspath(entry) for entry in sys.path))
        # Otherwise Ray writes a world-readable token into the home folder, which may not exist.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        options |= {
            "address": "local",
            "_temp_dir": str(ray_folder()),
            "num_cpus": cpus or os.cpu_count(),
            "num_gpus": gpus,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "runtime_env": {"env_vars": variables},
        }
    try:
        with quiet_ray(), contextlib.nullcontext() if address else _on_loopback():
            ray.init(**options)
        # The search reports dead workers with their trial; Ray would print a paragraph for each, log_to_driver or not.
        ray._private.worker._worker_logs_enabled = False
    except (OSError, ValueError, RuntimeError) as error:
        where = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
        if _wants_token(error):
            raise OrchError(
                f"could not {where}: it requires a token. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH to the token that its head node was started with."
            ) from error
        raise OrchError(f"could not {where}: {first_line(error)}.") from error
    return machine_resources()


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """While entered, Ray starts on 127.0.0.1, as on macOS: its ports are closed to other machines, and it does not
    probe the network, which it would report on stderr."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with changed_environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):  # for the processes that it starts
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _wants_token(error: BaseException | None) -> bool:
    """Return whether a rejected token caused ``error``. Ray keeps the rejection only as text in a later exception."""
    while error is not None:
        if "AuthenticationError" in f"{type(error).__name__} {error}":
            return True
        error = error.__cause__ or error.__context__
    return False


def _running_cluster() -> str:
    """Return HOST:PORT of the cluster for "auto": RAY_ADDRESS, otherwise the one that runs on this machine."""
    given = os.environ.get("RAY_ADDRESS", "")
    if given and given not in ("auto", "local"):
        return given
    with quiet_ray():
        found = sorted(services.find_gcs_addresses())
    if not found:
        raise OrchError(
            "no Ray cluster runs on this machine. Start one with `ray start --head`, name one with --address "
            f"HOST:PORT, or {WITHOUT_ADDRESS}"
        )
    recent = read_ray_address()
    return recent if recent in found else found[0]


def _check_answers(address: str) -> None:
    """Raise OrchError unless something listens at ``address``; Ray itself would retry for five minutes."""
    host, _, port = address.rpartition(":")
    if "/" in host or not host or not port.isdigit():
        raise OrchError(
            f"{address} is no address of a Ray cluster; give HOST:PORT of its head node, as in 10.0.0.1:6379, or auto. "
            "The driver must run on a machine of the cluster."
        )
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_WITHIN_S).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise OrchError(
            f"could not join the Ray cluster at {address}: nothing answers there ({why.lower()}). "
            f"Start its head node, or {WITHOUT_ADDRESS}"
        ) from error


def stop_ray() -> None:
    """Stop a local Ray, or leave the cluster; do nothing if there is none."""
    ray.shutdown()


@contextlib.contextmanager
def ray_session(address: str = "", cpus: int | None = None, gpus: float | None = None) -> Iterator[Resources]:
    """Call ``start_ray`` on entry and ``stop_ray`` on exit, unless Ray was running before."""
    was_up = ray.is_initialized()
    try:
        yield start_ray(address, cpus, gpus)
    finally:
        if not was_up:
            stop_ray()


def machine_resources() -> Resources:
    """Return the CPUs and GPUs of Ray, including busy ones. Raises OrchError if Ray is not running."""
    if not ray.is_initialized():
        raise OrchError("Ray is not running; call start_ray first.")
    found = ray.cluster_resources()
    return Resources(found.get("CPU", 0.0), found.get("GPU", 0.0))


def alive_machines() -> int:
    """Return the number of machines in the cluster; 1 if Ray is local."""
    return max(1, sum(bool(node["Alive"]) for node in ray.nodes()))


@contextlib.contextmanager
def changed_environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set variables while entered, for this process and those that it starts."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def quiet_ray() -> Iterator[None]:
    """Silence Ray's loggers while entered; the search reports what matters."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune", "ray.train", "ray.air", "ray.data")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGHUP set ``received`` instead of ending the process. Main thread only."""

    def __init__(self) -> None:
        self.received = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *interruptions.handled_signals()):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        interruptions.leave_closed_terminal()
        if not self.received:
            os.write(2, interruptions.PLEASE_WAIT)
        self.received = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


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

    Raises OrchError with the message of a TrainerError, or with the job and its error, and Interrupted upon SIGINT,
    SIGTERM or SIGHUP; running jobs are cancelled.
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
                    raise Interrupted(f"interrupted by {signals.received} with {running.remaining} jobs to go.")
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
                raise OrchError(gave_up(kill, self._patience.rounds, JOB_REMEDY)) from error
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


def check_fits(cpus: float, gpus: float, who: str) -> None:
    """Raise OrchError if ``who`` needs more than Ray has in total and would wait forever."""
    have = machine_resources()
    if gpus > have.gpus:
        raise OrchError(
            f"{who} needs {gpus:g} GPU and Ray has {have.gpus:g}; set resources.gpus to 0 to use CPUs only."
        )
    if cpus > have.cpus:
        raise OrchError(f"{who} needs {cpus:g} CPUs and Ray has {have.cpus:g}; lower resources.cpus.")


def explain(error: BaseException) -> str:
    """Return the cause of a worker's error in one line."""
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause if isinstance(error.cause, BaseException) else error
        text = str(cause).strip().splitlines()
        name = type(cause).__name__
        if isinstance(cause, MemoryError) or "ResourceExhausted" in name:
            return f"out of memory ({name}{': ' + text[0] if text else ''})"
        return f"{name}: {text[0]}" if text else name
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kill = parse_kill(str(error))
    if kill is not None:
        return kill.sentence()
    if any("node has died" in line or "NodeDiedError" in line for line in lines):
        return "the machine that its worker ran on left the cluster"
    if isinstance(error, (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError)):
        return "its worker process died; native code crashed, or the system ended it for want of memory"
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
