"""How a plan and its comparison with what happened read."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan.machines import SimulatedMachines, simulated_machine
from orchestrator.plan.plan import Estimate, make_plan
from orchestrator.plan.plan_file import planned
from orchestrator.plan.stage_times import StageComparison
from orchestrator.report.plan import comparison_lines, limit_words, summary
from tests.support.plan_files import SPEED, TWO, calibration_for, request_for, spec_of, text_of
from tests.support.sweep_costs import situation


@pytest.mark.parametrize("width", [80, 120])
def test_how_it_reads(tmp_path: Path, width: int) -> None:
    spec = spec_of(tmp_path)
    text = text_of(planned(request_for(tmp_path, spec), calibration_for(spec)).plan, ("too much.",), width)
    for words in (
        "tiny: 9 trials of at most 4 epochs",
        "2 workers at once, no GPU; 2 of 2 kinds of network measured",
        "small_cnn at 16 px to ",
        "images at 16 px",
        "start of the workers",
        "time     about ",
        "disk     ",
        "limit    ",
        "times as fast as without sharing",
        "of search is a lower bound",
        "GB at the most, of all workers",
        "warning  too much.",
        "assumed  Measured on ",
    ):
        assert words in text, words
    assert max(map(len, text.splitlines())) <= width


def test_the_first_lines_answer_how_long_how_much_and_what_limits_it(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    text = text_of(planned(request_for(tmp_path, spec), calibration_for(spec)).plan, width=300)
    assert [line.split()[0] for line in text.splitlines()[:4]] == ["plan", "time", "disk", "limit"]


PRIVATE = re.compile(r"\b(floor|leaning|fits|drawn|evenly|for itself|nobody|told)\b")


def test_a_plan_is_said_in_plain_words(tmp_path: Path) -> None:
    """Every word that the page, the summary, the assumptions and the refusals can say."""
    seen = []
    for more in (
        "budget: {trials: 9, epochs: 4}",
        "budget: {trials: 200, epochs: 4, hours: 0.1, target_accuracy: 0.9}",
    ):
        spec = spec_of(tmp_path, more=more)
        for parts in ({}, calibration_for(spec).parts):
            calibration = dataclasses.replace(calibration_for(spec), parts=parts)
            found = planned(request_for(tmp_path, spec), calibration)
            text = text_of(found.plan, (*found.refusals, *found.warnings)) + "\n".join(summary(found.plan))
            assert not PRIVATE.search(text), PRIVATE.search(text)
            seen.append(text)
            machine, notes = simulated_machine(spec, TWO, SimulatedMachines(2, 4), calibration)
            there = make_plan(spec, situation(machine=machine, calibration=calibration, notes=notes))
            assert not PRIVATE.search(text_of(there))
    assert len(seen) == 4
    assert any("estimates based on" in " ".join(text.split()) for text in seen)


@pytest.mark.parametrize(
    ("stages", "about", "expected"),
    [
        ({"search": 100.0, "prefill": 10.0}, {}, "search, 93 % of the time, most of it training on 2 workers"),
        ({"search": 100.0, "prefill": 150.0}, {}, "most of it to decode photos and run frozen layers once"),
        ({"search": 100.0, "prefill": 0.0}, {"longest_trial_s": 80.0}, "its longest trial alone takes 80 s"),
        ({"refit": 300.0, "prefill": 0.0}, {}, "refit, 97 % of the time"),
        (
            {"start": 60.0, "select": 61.0, "refit": 90.0, "leaderboard": 64.0},
            {},
            "starting the workers, 60 s in each of 4 stages",
        ),
        (
            {"start": 60.0, "select": 0.0, "refit": 0.0, "leaderboard": 0.0},
            {},
            "starting the workers, 60 s in each of 1 stage",
        ),
        ({}, {"begun": 3.0, "trials": 9}, "budget.hours: they end the search after 3 of 9 trials"),
    ],
)
def test_what_limits_a_sweep(tmp_path: Path, stages: dict[str, float], about: dict[str, Any], expected: str) -> None:
    spec = spec_of(tmp_path)
    plan = planned(request_for(tmp_path, spec), calibration_for(spec)).plan
    means = dict.fromkeys(plan.stages, 2.0) | stages
    means["total"] = sum(seconds for stage, seconds in means.items() if stage not in ("prefill", "total"))
    spans = {stage: Estimate.of([seconds]) for stage, seconds in means.items()}
    made = dataclasses.replace(plan, stages=spans, **({"longest_trial_s": 1.0} | about))
    assert expected in limit_words(made)


def test_hours_that_end_the_search_are_said(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, more="budget: {trials: 200, epochs: 4, hours: 0.1}")
    found = planned(request_for(tmp_path, spec), calibration_for(spec, speed=dataclasses.replace(SPEED, train_s=0.2)))
    text = " ".join(text_of(found.plan, found.refusals).split())
    assert found.plan.begun < 200
    assert "limit budget.hours: they end the search after" in text
    assert "trials within the hours" in text
    assert len(found.refusals) == 1


def test_a_comparison_says_what_did_not_happen() -> None:
    rows = [StageComparison("start", 10.0, 9.0, 12.0, 20.0), StageComparison("refit", 300.0, 200.0, 400.0, math.nan)]
    lines = comparison_lines(rows, processes=3)
    assert lines[1].split() == [
        "start",
        "of",
        "the",
        "workers",
        "10",
        "s",
        "9",
        "s",
        "to",
        "12",
        "s",
        "20",
        "s",
        "2.00",
    ]
    assert lines[2].split()[-2:] == ["-", "-"]
    assert "3 processes worked on it" in lines[-1]
    assert max(map(len, lines)) <= 100


def test_a_summary_without_sharing_plans_without_it(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    plan = planned(request_for(tmp_path, spec), calibration_for(spec)).plan
    shared, alone = summary(plan), summary(plan, share=False)
    assert "without sharing it would take" in shared[1]
    assert "with sharing it would take" in alone[1]
    assert len(shared) == len(alone) == 2
