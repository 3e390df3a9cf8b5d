"""The cause of a worker's error, in one line."""

from __future__ import annotations

import ray.exceptions

from orchestrator.cluster.memory_kills import parse_kill


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
