"""The arithmetic of benchmarks.overhead and benchmarks.startup, and that their sides run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.overhead import Cost, dearer
from benchmarks.startup import Times, breakdown, time_command
from tests.support.places import ROOT


def steady(trials: int, trial_s: float, rest_s: float = 0.0, memory_kb: float = 0.0) -> Cost:
    """Trials that all take ``trial_s`` and add ``memory_kb`` to the driver."""
    ended_s = tuple(trial_s * n for n in range(trials))
    return Cost(ended_s, ended_s[-1] + rest_s, 0.0, tuple(1000 + memory_kb * n for n in range(trials)))


def test_what_a_trial_costs_holds_what_is_left_at_the_end() -> None:
    cost = steady(101, 0.1, rest_s=5.0, memory_kb=40.0)
    assert cost.trial_s == pytest.approx(0.15)
    assert cost.rest_s == pytest.approx(5.0)
    assert cost.pace_s(101, 50) == cost.pace_s(50, 20) == pytest.approx(0.1)
    assert cost.growth_kb(10) == pytest.approx(40.0)


def test_dearer_takes_the_worse_of_two_ways_to_look_at_it() -> None:
    few, many = steady(100, 0.1), steady(1000, 0.1)
    assert dearer(few, many) == pytest.approx(1.0)
    assert dearer(few, steady(1000, 0.1, rest_s=99.9)) == pytest.approx(2.0)  # MLflow fell behind
    slower = tuple(0.1 * n + 0.001 * max(0, n - 900) ** 2 for n in range(1000))  # the last hundred trials
    late = Cost(slower, slower[-1], 0.0, many.memory_kb)
    assert late.trial_s / few.trial_s < 1.2
    assert dearer(few, late) > 1.9


def test_a_breakdown_says_what_each_step_took() -> None:
    steps = {"Ray is up": (2.0, 1.0, 9.0), "the first epoch has ended": (5.0, 4.0, 12.0)}
    assert breakdown(steps) == "2.0 s until Ray is up, then 3.0 s until the first epoch has ended"
    assert Times((0.2, 0.3, 0.9), {}).words(0.5) == "0.30 s, 0.20 to 0.90 (target 0.5 s)"


def test_a_command_that_fails_is_no_time() -> None:
    assert len(time_command(["--version"], 2).seconds) == 2
    with pytest.raises(SystemExit, match=r"orch check nowhere failed:\s.*there is no file nowhere"):
        time_command(["check", "nowhere"], 1)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["random", "tpe", "ray"])
def test_every_side_runs_its_trials(tmp_path: Path, side: str) -> None:
    command = [sys.executable, "-m", "benchmarks.overhead", "--side", side, "--trials", "12", "--folder", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert len(found["ended_s"]) == len(found["memory_kb"]) == 12
    assert found["total_s"] >= found["ended_s"][-1] > 0
