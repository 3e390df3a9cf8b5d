"""A local Ray's resources and ports, and what a wrong cluster address is answered with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest
import ray

from orchestrator.cluster import ray_session as cluster
from orchestrator.cluster.ray_session import machine_resources, ray_session, stop_ray
from orchestrator.errors import OrchError


@pytest.fixture(scope="module")
def ray_up() -> Iterator[None]:
    """One Ray for the file: two cores, and two GPUs that are only declared."""
    stop_ray()
    with ray_session(cpus=2, gpus=2):
        yield


def test_a_local_ray_listens_on_this_machine_alone(ray_up: None) -> None:
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [c.laddr.ip for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert listening
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_resources_are_those_of_the_session(ray_up: None) -> None:
    found = machine_resources()
    assert (found.cpus, found.gpus) == (2.0, 2.0)
    assert math.isfinite(found.cpus)
    assert ray.is_initialized()


def test_without_ray_the_resources_are_a_sentence() -> None:
    stop_ray()
    with pytest.raises(OrchError, match="Ray is not running; call start_ray first"):
        machine_resources()


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "head", ":6379"])
def test_an_address_of_another_kind_is_a_sentence(address: str) -> None:
    stop_ray()
    with pytest.raises(OrchError, match="is no address of a Ray cluster; give HOST:PORT"), ray_session(address):
        pass


def test_a_cluster_that_does_not_answer_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_ray()
    with pytest.raises(OrchError, match=r"could not join the Ray cluster at 127.0.0.1:9: "), ray_session("127.0.0.1:9"):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(OrchError, match=r"127.0.0.1:9: .*refused.* leave --address out"), ray_session("auto"):
        pass
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(cluster, "services", SimpleNamespace(find_gcs_addresses=frozenset))
    with pytest.raises(OrchError, match=r"no Ray cluster runs on this machine"), ray_session("auto"):
        pass
