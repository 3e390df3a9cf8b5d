"""Errors of lost workers, as Ray Tune retries them."""

from __future__ import annotations

import contextlib
import pickle

import pytest
from ray.exceptions import NodeDiedError, RayActorError, RayTaskError
from ray.tune.execution import tune_controller

from orchestrator.cluster.lost_workers import WorkerLostError, as_actor_error, retried
from orchestrator.cluster.memory_kills import Patience, PatienceSettings
from orchestrator.cluster.worker_errors import explain


def test_only_errors_that_end_tunes_run_are_renamed() -> None:
    died = as_actor_error(NodeDiedError("its node has died"))
    assert isinstance(died, RayActorError)
    assert not died.preempted
    assert explain(died) == "the machine that its worker ran on left the cluster"
    for error in (RayActorError(), RayTaskError("f", "low on memory", ValueError("x")), ValueError("low on memory")):
        assert as_actor_error(error) is error


@pytest.mark.parametrize("forgiven", [True, False])
def test_a_lost_worker_survives_the_way_between_processes(forgiven: bool) -> None:
    found = pickle.loads(pickle.dumps(WorkerLostError("low on memory", forgiven)))
    assert (str(found), found.preempted) == ("low on memory", forgiven)


def test_tune_has_its_own_actors_again_afterwards() -> None:
    before = tune_controller.RayActorManager
    with contextlib.suppress(ZeroDivisionError), retried(Patience(PatienceSettings())):
        assert issubclass(tune_controller.RayActorManager, before)
        assert tune_controller.RayActorManager is not before
        raise ZeroDivisionError
    assert tune_controller.RayActorManager is before
