"""Start Ray or join a cluster, and query its resources."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services
from ray._private.utils import read_ray_address

from orchestrator.errors import OrchError
from orchestrator.machine.places import ray_folder
from orchestrator.spec.slots import Resources
from trainers.dotted import FOLDER_VARIABLE, own_folder
from trainers.wording import first_line

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


OBJECT_STORE_BYTES = 200 * 1024**2
"""Bytes of Ray's object store; small, since images and features are passed as paths."""
ANSWER_WITHIN_S = 10.0
"""Maximum seconds until a cluster's address accepts a connection."""
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


def check_fits(cpus: float, gpus: float, who: str) -> None:
    """Raise OrchError if ``who`` needs more than Ray has in total and would wait forever."""
    have = machine_resources()
    if gpus > have.gpus:
        raise OrchError(
            f"{who} needs {gpus:g} GPU and Ray has {have.gpus:g}; set resources.gpus to 0 to use CPUs only."
        )
    if cpus > have.cpus:
        raise OrchError(f"{who} needs {cpus:g} CPUs and Ray has {have.cpus:g}; lower resources.cpus.")
