"""Spec and calibration -> plan: by hand where it is small, by what must hold elsewhere, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.plan.calibration import Machine
from orchestrator.plan.draws import trials_of
from orchestrator.plan.plan import (
    DRAWN,
    PLANNED_STAGES,
    Estimate,
    Plan,
    cautions,
    format_duration,
    make_plan,
    refusals,
)
from orchestrator.plan.playthrough import SimulatedSweep
from orchestrator.plan.stage_times import compare_stages
from orchestrator.plan.workload import PhotoCounts
from orchestrator.spec.load import load_spec
from orchestrator.spec.shipped import shipped_spaces
from tests.support.sweep_costs import situation, spec_of

HEADS = {"backbone": "mobilenet_1.0", "unfrozen_layers": 0, "dropout": {"uniform": [0, 0.5]}}


def plan_of(search: dict[str, Any] | None = None, draws: int = 4, about: Any = None, **sections: Any) -> Plan:
    return make_plan(spec_of(search, **sections), about or situation(), draws)


def test_a_sweep_of_heads_by_hand() -> None:
    plan = plan_of(HEADS, budget={"trials": 10, "epochs": 9, "scheduler": "none"})
    assert (plan.trials, plan.rungs) == (10, ((9, 10.0),))
    assert [(build.what, build.rows, build.stored) for build in plan.builds] == [
        ("mobilenet_1.0 at 224 px to conv_pw_13_relu", 120, 0),
        ("images at 224 px", 120, 0),
    ]
    assert plan.builds[0].seconds == pytest.approx(120 * 16e-3)
    assert plan.disk["features"] == 120 * 4096
    assert plan.disk["images"] == 120 * 224 * 224 * 3
    assert plan.stages["start"].mean == 8.0  # Ray starts while the photos are read
    bare_s = 10 * 9 * (100 * 0.8 * 3e-5 + 20 * 1e-5)
    assert plan.floor_s == pytest.approx((120 * (16e-3 + 4e-3) + bare_s) / 2)
    assert plan.saving > 2
    assert (plan.measured_parts, plan.estimated_parts) == (1, 0)


def test_trials_that_draw_in_each_epoch_store_no_copies_and_take_longer() -> None:
    deep = {"backbone": "mobilenet_1.0", "unfrozen_layers": "all", "multiplier": 3, "recipe": "contest"}
    budget = {"trials": 1, "epochs": 9, "scheduler": "none"}
    fixed, fresh = (plan_of({**deep, "draws": draws}, budget=budget) for draws in ("fixed", "fresh"))
    copied = 240  # by the refit, on validation, too
    assert [sum(build.rows for build in plan.builds) for plan in (fixed, fresh)] == [120 + copied, 120]
    assert fresh.disk["images"] == 120 * 224 * 224 * 3
    copies_s = 9 * 200 * situation().calibration.augment("contest", 224)
    assert copies_s > 0
    assert fresh.floor_s > fixed.floor_s
    assert fresh.longest_trial_s == pytest.approx(fixed.longest_trial_s + copies_s)
    assert [DRAWN in plan.assumptions for plan in (fixed, fresh)] == [False, True]


def test_a_warm_store_has_no_prefixes_to_build() -> None:
    campaign = SimulatedSweep(spec_of(HEADS), situation())
    work = campaign.work(trials_of(campaign.spec, random.Random(0))[0])
    stored = {rows.place: rows.count for rows in (*work.features, *work.images)}
    cold, warm = plan_of(HEADS), plan_of(HEADS, about=situation(stored=stored))
    assert [(build.rows, build.stored) for build in warm.builds] == [(0, 120), (0, 120)]
    assert (warm.disk["features"], warm.stages["prefill"].mean) == (0, 0)
    assert cold.floor_s - warm.floor_s == pytest.approx(120 * 20e-3 / 2)


def test_the_same_arguments_give_the_same_plan_and_json_keeps_it() -> None:
    plan = plan_of()
    assert plan == plan_of()
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_named_configurations_are_planned_each_once() -> None:
    named = [{"name": f"n{n}", "unfrozen_layers": n} for n in (0, 5, 13)]
    search = {"backbone": "mobilenet_1.0", "configurations": named}
    plan = plan_of(search, budget={"trials": 3, "epochs": 3, "scheduler": "none"})
    assert plan.trials == 3
    assert len(plan.builds) == 4
    assert not any("sampled" in text for text in plan.assumptions)
    searched = plan.stages["search"]
    assert searched.high <= searched.low * 1.05  # nothing is left to chance but the order of equals


def test_folds_train_as_often_as_there_are() -> None:
    folded = PhotoCounts((60, 40), (0, 0), (15, 15), ((20, 14), (20, 13), (20, 13)))
    search = {**HEADS, "unfrozen_layers": "all"}
    once, thrice = plan_of(search), plan_of(search, about=situation(photos=folded), data={"folds": 3})
    # 200 images trained on and 100 judged an epoch, against 100 and 20
    assert thrice.stages["search"].mean > 1.9 * once.stages["search"].mean
    assert thrice.disk["images"] == pytest.approx(once.disk["images"], rel=0.2)


def test_the_scheduler_leaves_fewer_trials_at_each_rung() -> None:
    plan = plan_of(budget={"trials": 60, "epochs": 9, "scheduler": {"name": "asha", "grace_epochs": 1}}, draws=8)
    assert [epochs for epochs, _ in plan.rungs] == [1, 3, 9]
    first, second, last = (trials for _, trials in plan.rungs)
    assert first == 60
    assert 60 / 3 * 0.7 < second < 60 / 3 * 1.6
    assert last < second
    assert any("tend to score better" in text for text in plan.assumptions)


def test_a_space_that_holds_fewer_trials_than_asked_for_ends() -> None:
    search = {"backbone": "mobilenet_1.0", "unfrozen_layers": [0, 5], "head": ["softmax", "arcface"]}
    assert plan_of(search, budget={"trials": 50, "epochs": 2, "scheduler": "none"}).trials == 4


def test_the_hours_end_the_search_and_what_has_no_complete_trial_has_no_winner() -> None:
    search = {**HEADS, "unfrozen_layers": "all"}
    plan = plan_of(search, budget={"trials": 4, "epochs": 100, "scheduler": "none", "hours": 0.01})
    assert plan.stages["search"].mean == 36.0
    assert (plan.stages["refit"].mean, plan.stages["leaderboard"].mean) == (0.0, 0.0)


def test_no_more_trials_at_once_than_asked_for() -> None:
    search = {**HEADS, "unfrozen_layers": "all"}
    all_four = plan_of(search, about=situation(4))
    two = plan_of(search, about=situation(4), budget={"concurrent": 2})
    assert two.stages["search"].mean > 1.7 * all_four.stages["search"].mean
    assert two.memory_bytes < all_four.memory_bytes


def test_64_gpus_are_simulated_with_every_assumption_said() -> None:
    machine = Machine(64, nodes=8, gpus=64, network_factor=200, measured=False, name="a GPU", shared_store=False)
    plan = plan_of({**HEADS, "unfrozen_layers": "all"}, about=situation(machine=machine))
    words = " ".join(plan.assumptions)
    for expected in ("64 workers on 8 nodes", "64 GPUs (a GPU)", "200 times as fast", "a store of its own", "1 ms"):
        assert expected in words
    assert plan.stages["search"].mean < 5


@pytest.mark.parametrize("name", sorted(shipped_spaces()))
def test_every_shipped_space_is_planned_in_seconds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ORCH_PHOTOS", "ORCH_DATA", "ORCH_WEIGHTS", "ORCH_SENET50"):
        monkeypatch.setenv(variable, "none")
    spec = load_spec(name, check_machine=False)
    began_s = time.perf_counter()
    plan = make_plan(spec, situation(photos=PhotoCounts.even(15_000, 40)), draws=2)
    assert time.perf_counter() - began_s < 10
    assert plan.trials >= 1
    assert plan.floor_s <= plan.stages["search"].mean
    assert all(
        span.low <= span.mean * (1 + 1e-9) and span.mean <= span.high * (1 + 1e-9) for span in plan.stages.values()
    )


SPACES = st.fixed_dictionaries(
    {
        "backbone": st.sampled_from(["mobilenet_1.0", "mobilenet_0.5"]),
        "unfrozen_layers": st.sampled_from([0, [0, 5], [0, 13, "all"], "all"]),
        "multiplier": st.sampled_from([1, [1, 2]]),
        "dropout": st.just({"uniform": [0, 0.5]}),
    }
)


@settings(max_examples=25, deadline=None)
@given(SPACES, st.integers(1, 8), st.sampled_from(["none", "asha", "median"]), st.integers(1, 4))
def test_the_floor_lies_below_the_plan_and_sharing_saves(
    search: dict, trials: int, scheduler: str, workers: int
) -> None:
    budget = {"trials": trials, "epochs": 9, "scheduler": scheduler}
    plan = plan_of(search, 2, situation(workers), budget=budget)
    assert plan.floor_s <= plan.stages["search"].mean * (1 + 1e-9)
    assert plan.whole_floor_s <= plan.stages["total"].mean * (1 + 1e-9)
    assert set(plan.stages) == set(plan.unshared) == set(PLANNED_STAGES)
    assert plan.disk_bytes > 0
    assert plan.memory_bytes >= workers * 900e6


@settings(max_examples=15, deadline=None)
@given(SPACES, st.integers(1, 6), st.integers(1, 6))
def test_more_photos_take_no_less_of_the_disk(search: dict, some: int, more: int) -> None:
    few, many = (
        plan_of(search, 2, situation(photos=PhotoCounts.even(100 * hundreds, 4))) for hundreds in sorted((some, more))
    )
    assert few.disk["features"] <= many.disk["features"]
    assert few.disk["images"] <= many.disk["images"]


# --- what it says -------------------------------------------------------------------------------------------------

PLAN = plan_of({**HEADS, "unfrozen_layers": "all"})


@pytest.mark.parametrize(
    ("hours", "free", "cap", "expected"),
    [
        (None, math.inf, math.inf, []),
        (1.0, 1e12, 1e12, []),
        (
            0.001,
            math.inf,
            math.inf,
            ["one trial alone takes 51 s, more than the 0.001 hours of the search; raise"],
        ),
        (
            0.02,
            math.inf,
            math.inf,
            ["the search takes 5 min, more than its 0.02 hours, which not all of its 12 trials come to; raise"],
        ),
        (None, 1e6, math.inf, ["the sweep writes 0.3 GB and 0.0 GB are free; free some (orch cache prune), move"]),
        (None, 1e12, 1e6, []),
        (0.001, 1e6, 1e6, ["one trial alone", "the sweep writes"]),
    ],
)
def test_refusals(hours: float | None, free: float, cap: float, expected: list[str]) -> None:
    found = refusals(PLAN, hours, free, cap)
    assert len(found) == len(expected)
    for text, start in zip(found, expected, strict=True):
        assert text.startswith(start), text


def test_trials_that_do_not_share_need_more_hours() -> None:
    plan = plan_of(HEADS, budget={"trials": 12, "epochs": 9, "scheduler": "none"})
    assert plan.unshared_needed.low > 3 * plan.needed.mean
    assert plan.unshared_longest_trial_s > plan.longest_trial_s
    hours = 2 * plan.needed.mean / 3600
    assert refusals(plan, hours) == []
    (text,) = refusals(plan, hours, share=False)
    assert text.startswith(("the search takes ", "one trial alone takes "))
    assert format_duration(plan.unshared_needed.mean) in text or format_duration(plan.unshared_longest_trial_s) in text


def test_what_a_store_evicts_is_no_reason_to_refuse_and_is_said() -> None:
    assert refusals(PLAN, None, PLAN.disk_bytes - 1)
    rest = PLAN.disk_bytes - PLAN.store_bytes
    assert rest > 0
    assert refusals(PLAN, None, rest + 1000, cap_bytes=1000) == []
    assert refusals(PLAN, None, rest + 999, cap_bytes=1000)
    assert cautions(PLAN) == []
    assert cautions(PLAN, PLAN.disk["images"], share=False) == []
    unshared = PLAN.disk_bytes - PLAN.disk["features"]
    assert refusals(PLAN, None, unshared, share=False) == []
    assert refusals(PLAN, None, unshared - 1, share=False)
    (text,) = cautions(PLAN, cap_bytes=1e6)
    assert text.startswith("the store would hold 0.0 GB and may hold 0.0 GB, so what was computed is evicted")


def test_more_memory_than_there_is_is_said() -> None:
    small = dataclasses.replace(PLAN, machine=dataclasses.replace(PLAN.machine, memory_bytes=10**9))
    (text,) = cautions(small)
    assert "of memory at once and the machine has 1.0 GB; let fewer trials run at once" in text


def test_a_plan_that_ends_at_its_hours_says_how_far_it_comes() -> None:
    """The search itself then takes no longer than the hours, so it alone could not tell."""
    budget = {"trials": 40, "epochs": 9, "scheduler": "none", "hours": 0.05}
    plan = plan_of({**HEADS, "unfrozen_layers": "all"}, budget=budget)
    assert plan.begun < plan.trials == 40
    assert plan.stages["search"].mean == 180.0 < plan.needed.low
    (text,) = refusals(plan, 0.05)
    assert f"which about {plan.begun:.0f} of its 40 trials come to" in text
    assert refusals(plan_of({**HEADS, "unfrozen_layers": "all"}, budget=budget | {"hours": 5.0}), 5.0) == []


def test_plan_against_actual() -> None:
    rows = compare_stages(PLAN, {"start": 8.0, "search": 2 * PLAN.stages["search"].mean, "prefill": 1.0})
    by_stage = {row.stage: row for row in rows}
    assert list(by_stage) == list(PLANNED_STAGES)
    assert by_stage["start"].ratio == 1.0
    assert by_stage["search"].ratio == pytest.approx(2.0)
    assert math.isnan(by_stage["refit"].actual_s)
    total = by_stage["total"]
    assert total.actual_s == pytest.approx(8 + 2 * PLAN.stages["search"].mean)
    assert total.planned_s == pytest.approx(8 + PLAN.stages["search"].mean)
    assert compare_stages(PLAN, {}, share=False)[2].planned_s == PLAN.unshared["search"].mean


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (12_000, "3.3 h"), (300_000, "3.5 days")],
)
def test_durations(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected


def test_a_span_holds_its_values() -> None:
    assert Estimate.of([1.0, 2.0, 6.0]) == Estimate(3.0, 1.0, 6.0)
