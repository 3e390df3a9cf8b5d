"""Plain functions on the workers of a real, local Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.jobs import run_jobs
from orchestrator.cluster.ray_session import ray_session, stop_ray
from orchestrator.errors import OrchError


@pytest.fixture(scope="module")
def ray_up() -> Iterator[None]:
    """One Ray for the file: two cores."""
    stop_ray()
    with ray_session(cpus=2):
        yield


def test_jobs_run_on_workers_and_come_back_in_order(tmp_path: Path, ray_up: None) -> None:
    seen: dict[int, dict[str, Any]] = {}
    jobs = [{"x": n, "crash_once": str(tmp_path / "mark") if n == 2 else ""} for n in range(5)]
    results = run_jobs("tests.support.fake_trainer:double", jobs, on_done=seen.__setitem__)
    assert results == [{"x": 2 * n} for n in range(5)]
    assert [seen[n] for n in range(5)] == results
    assert (tmp_path / "mark").exists()
    assert run_jobs("tests.support.fake_trainer:double", []) == []


@pytest.mark.parametrize(
    ("job", "text"),
    [
        ({"refuse": True}, "the fake job refuses 1."),
        ({"error": True}, r"job 2 of 2 .*fake_trainer:double.* failed: ValueError: a fake mistake in the job"),
    ],
)
def test_a_job_that_fails_is_a_sentence(ray_up: None, job: dict[str, Any], text: str) -> None:
    with pytest.raises(OrchError, match=text):
        run_jobs("tests.support.fake_trainer:double", [{"x": 0}, {"x": 1, **job}])


def test_a_function_that_is_not_there_is_a_sentence(ray_up: None) -> None:
    with pytest.raises(OrchError, match=r"tests.support.fake_trainer:triple cannot be imported on a worker"):
        run_jobs("tests.support.fake_trainer:triple", [{"x": 1}])
    with pytest.raises(OrchError, match="a job needs 99 CPUs and Ray has 2"):
        run_jobs("tests.support.fake_trainer:double", [{"x": 1}], cpus=99)
