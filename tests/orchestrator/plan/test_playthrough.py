"""One simulated sweep: its stages, what the hours leave out, and what sharing and stored rows save."""

from __future__ import annotations

import dataclasses
import random

import pytest

from orchestrator.ledger.stages import Stage
from orchestrator.plan.draws import trials_of
from orchestrator.plan.plan import PLANNED_STAGES
from orchestrator.plan.playthrough import DRAWING_S, DRIVER_BYTES, START, TOTAL, SimulatedOutcome, SimulatedSweep
from tests.support.sweep_costs import CALIBRATION, situation, spec_of
from trainers.config import TrialConfig

HEADS = {"backbone": "mobilenet_1.0", "unfrozen_layers": 0, "dropout": {"uniform": [0, 0.5]}}


def play(simulated: SimulatedSweep, share: bool = True) -> SimulatedOutcome:
    return simulated.run(trials_of(simulated.spec, random.Random(0)), "seed", share)


def test_every_stage_has_its_seconds() -> None:
    found = play(SimulatedSweep(spec_of(HEADS), situation()))
    assert set(found.stages) == {*PLANNED_STAGES}
    assert found.stages[START] == CALIBRATION.worker_start_s
    assert found.stages[Stage.LEADERBOARD] > DRAWING_S + CALIBRATION.worker_start_s
    alone = [seconds for stage, seconds in found.stages.items() if stage not in (Stage.PREFILL, TOTAL)]
    assert found.stages[TOTAL] == pytest.approx(sum(alone))
    assert found.epochs == (9,) * 12
    assert len(found.complete) == 12
    assert len(found.refits) == 2 * 2  # the winner and a runner-up, two seeds each
    again = play(SimulatedSweep(spec_of(HEADS), situation()))
    assert (again.stages, again.epochs) == (found.stages, found.epochs)


def test_forms_of_the_winner_are_counted() -> None:
    plain = play(SimulatedSweep(spec_of(HEADS), situation()))

    def forms(names: list[str], **more: object) -> SimulatedOutcome:
        return play(SimulatedSweep(spec_of(HEADS, final={"seeds": 2, "forms": names, **more}), situation()))

    soup, both = forms(["ensemble", "soup"]), forms(["ensemble", "soup", "distilled"])
    assert len(soup.refits) == 2 * 2 + 2  # the winner once more, without the validation photos
    assert len(both.refits) == len(soup.refits) + 2  # a distilled network with and one without them
    assert len(forms(["ensemble", "soup"], refit="train").refits) == 2 * 2
    assert plain.stages[Stage.REFIT] < soup.stages[Stage.REFIT] < both.stages[Stage.REFIT]
    assert plain.stages[Stage.LEADERBOARD] < soup.stages[Stage.LEADERBOARD] < both.stages[Stage.LEADERBOARD]
    assert plain.stages[Stage.SEARCH] == soup.stages[Stage.SEARCH]
    longer = forms(["ensemble", "distilled"], distillation={"epochs": 30})
    assert longer.refits[-1][1] == 30
    simulated = SimulatedSweep(spec_of(HEADS, final={"seeds": 2, "forms": ["ensemble", "soup"]}), situation())
    assert simulated.model_bytes(soup) > simulated.model_bytes(plain)


WHOLE_S, AGAIN_S = 20 * (4e-3 + 15e-3), 20 * 5e-4
"""Seconds to cut the 20 validation photos and run the frozen part over them, and the rest of one network."""


@pytest.mark.parametrize(
    ("forms", "refit", "seeds", "batch_norm", "multiplier", "worker_s"),
    [
        # Two networks that share the frozen part, then each soup alone; batch norms over train, then over all photos.
        ("ensemble soup", "train", 2, "inherited", 1.0, 2 * WHOLE_S + 3 * AGAIN_S + 100 * 5e-4),
        ("ensemble soup", "train+validation", 2, "inherited", 1.0, 2 * WHOLE_S + 3 * AGAIN_S + 220 * 5e-4),
        ("ensemble soup", "train+validation", 3, "inherited", 1.0, 3 * WHOLE_S + 5 * AGAIN_S + 320 * 5e-4),
        ("ensemble soup", "train+validation", 2, "frozen", 1.0, 2 * WHOLE_S + 3 * AGAIN_S),
        # Each network of a teacher answers on what its student trains on, copies included.
        ("ensemble distilled", "train", 2, "inherited", 1.0, 2 * WHOLE_S + 3 * AGAIN_S + 2 * 100 * 5e-4),
        ("ensemble distilled", "train+validation", 2, "frozen", 1.0, 2 * WHOLE_S + 3 * AGAIN_S + 2 * 220 * 5e-4),
        ("ensemble distilled", "train+validation", 2, "frozen", 2.0, 2 * WHOLE_S + 3 * AGAIN_S + 2 * 440 * 5e-4),
        ("ensemble", "train+validation", 2, "inherited", 1.0, 0.0),
    ],
)
def test_the_forms_cost_what_the_stage_computes(
    forms: str, refit: str, seeds: int, batch_norm: str, multiplier: float, worker_s: float
) -> None:
    spec = spec_of(HEADS, final={"seeds": seeds, "forms": forms.split(), "refit": refit})
    config = TrialConfig("mobilenet_1.0", unfrozen_layers=5, batch_norm=batch_norm, multiplier=multiplier)
    cost = SimulatedSweep(spec, situation()).forms_cost(config, "whole")
    assert cost.worker_s == pytest.approx(worker_s)
    assert cost.wall_s > cost.worker_s / 2 or not worker_s


def test_a_soup_is_averaged_by_one_worker_and_judged_by_all() -> None:
    spec = spec_of(HEADS, final={"seeds": 2, "forms": ["ensemble", "soup"], "refit": "train"})
    config = TrialConfig("mobilenet_1.0", unfrozen_layers=5)
    one, four = (SimulatedSweep(spec, situation(workers)).forms_cost(config, "whole") for workers in (1, 4))
    judged_s = 2 * WHOLE_S + 3 * AGAIN_S
    assert one.worker_s == four.worker_s
    assert one.wall_s - four.wall_s == pytest.approx(judged_s * 3 / 4)


def test_the_choice_of_the_form_is_planned_under_each_policy() -> None:
    def refit_s(policies: list[str], seed: str) -> float:
        spec = spec_of(HEADS, final={"seeds": 2, "forms": ["ensemble", "soup"], "policies": policies})
        simulated = SimulatedSweep(spec, situation())
        return simulated.run(trials_of(spec, random.Random(0)), seed).stages[Stage.REFIT]

    whole = refit_s(["whole"], "0")
    found = {round(refit_s(["whole", "ten_crop"], str(seed)), 6) for seed in range(8)}
    assert len(found) == 2
    assert min(found) == pytest.approx(whole)
    assert max(found) > whole


def test_a_search_that_its_hours_end_has_fewer_trials_and_one_without_a_complete_trial_no_winner() -> None:
    whole = {**HEADS, "unfrozen_layers": "all"}
    some = play(SimulatedSweep(spec_of(whole, budget={"hours": 0.05}), situation()))
    assert 0 < len(some.complete) < 12
    assert some.stages[Stage.SEARCH] == 180.0
    none = play(SimulatedSweep(spec_of(whole, budget={"epochs": 100, "hours": 0.01}), situation()))
    assert (none.complete, none.refits, none.judging_s) == ((), (), 0.0)
    assert none.stages[Stage.REFIT] == none.stages[Stage.LEADERBOARD] == 0.0
    assert none.ended == [work for work, _ in none.fits]


def test_sharing_and_stored_rows_save_time() -> None:
    simulated = SimulatedSweep(spec_of(HEADS), situation())
    shared, alone = play(simulated), play(simulated, share=False)
    assert shared.stages[Stage.SEARCH] < alone.stages[Stage.SEARCH] / 2
    assert {rows.count: (built, stored) for rows, built, stored in shared.rows} == {100: (100, 0), 20: (20, 0)}
    stored = {rows.place: rows.count for work in shared.works for rows in (*work.features, *work.images)}
    warm = SimulatedSweep(spec_of(HEADS), situation(stored=stored))
    again = play(warm)
    assert again.stages[Stage.PREFILL] == 0.0
    assert {(built, kept) for _, built, kept in again.rows} == {(0, 100), (0, 20)}
    assert warm.floor_s(again.fits) < simulated.floor_s(shared.fits) <= shared.stages[Stage.SEARCH]


def test_numbers_that_cost_nothing_make_no_fit_of_their_own() -> None:
    simulated = SimulatedSweep(spec_of(HEADS), situation())
    plain = TrialConfig("mobilenet_1.0", unfrozen_layers=5)

    def works(**values: list[float]) -> int:
        ((name, numbers),) = values.items()
        return len({simulated.work(dataclasses.replace(plain, **{name: number})) for number in numbers})

    assert works(dropout=[0.0, 0.1, 0.2]) == works(margin_warmup=[0.0, 0.1, 0.2]) == 1
    assert works(bottom_rate=[1.0, 0.3, 0.1]) == works(ema=[0.0, 0.9, 0.99]) == 2


def test_heads_that_are_trained_first_share_the_features_of_their_backbone() -> None:
    deep = {**HEADS, "unfrozen_layers": "all"}
    plain, warm = (SimulatedSweep(spec_of({**deep, "warm_head": n}), situation()) for n in (0, 3))
    without, shared, alone = play(plain), play(warm), play(warm, share=False)
    through = [(rows.count, built) for rows, built, _ in shared.rows if rows.shelf.layer]
    assert (100, 100) in through  # by twelve trials, once
    assert not [rows for rows, *_ in without.rows if rows.shelf.layer]
    assert without.stages[Stage.SEARCH] < shared.stages[Stage.SEARCH] < alone.stages[Stage.SEARCH]
    assert warm.floor_s(shared.fits) > plain.floor_s(without.fits)


def test_no_more_workers_than_trials_that_may_run_at_once() -> None:
    simulated = SimulatedSweep(spec_of(HEADS, budget={"concurrent": 1}), situation(4))
    assert simulated.speeds.machine.workers == 1
    assert simulated.memory_bytes([]) == DRIVER_BYTES + 900_000_000
