"""The cause of a worker's error, in one line."""

from __future__ import annotations

import pytest
from ray.exceptions import NodeDiedError, RayActorError, RayTaskError, WorkerCrashedError

from orchestrator.cluster.worker_errors import explain

DIED = "its worker process died; native code crashed, or the system ended it for want of memory"


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


def raised(cause: Exception) -> RayTaskError:
    return RayTaskError("train", "a traceback", cause)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (raised(ValueError("the first line\nand another")), "ValueError: the first line"),
        (raised(KeyError()), "KeyError"),
        (raised(MemoryError("a tensor is too large")), "out of memory (MemoryError: a tensor is too large)"),
        (raised(MemoryError()), "out of memory (MemoryError)"),
        (raised(ResourceExhaustedError("OOM")), "out of memory (ResourceExhaustedError: OOM)"),
        (RayActorError(), DIED),
        (WorkerCrashedError(), DIED),
        (NodeDiedError("the node has died"), "the machine that its worker ran on left the cluster"),
        (OSError("\n  no space left \n"), "OSError: no space left"),
        (OSError(), "OSError"),
    ],
)
def test_the_cause_is_one_line(error: Exception, line: str) -> None:
    assert explain(error) == line
