"""The winner's forms: which are made of what, which is chosen, and that nothing is made twice."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import Any

import pytest

from orchestrator.evaluation.policy_choice import FormChoice
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.forms import choice
from orchestrator.sweep.forms.choice import add_forms
from orchestrator.sweep.forms.soup import GreedySoup, SoupStep
from orchestrator.sweep.refit import held_out_networks, refit
from tests.orchestrator.sweep.forms.conftest import WINNER, Chosen
from tests.support.in_process import InProcess
from tests.support.printed_lines import PrintedLines
from trainers.training.loop import read_weights

FORMS = ("ensemble", "soup", "distilled")


@pytest.mark.parametrize("splits", ["train", "train+validation"])
def test_the_forms_of_the_winner(chosen: Chosen, in_process: InProcess, printed: PrintedLines, splits: str) -> None:
    sweep, manifest = chosen(forms=FORMS, refit=splits)
    found, models = add_forms(sweep, manifest, WINNER, refit(sweep, manifest, WINNER))
    assert [m.name for m in models] == ["winner/seed-0", "winner/seed-1", "winner/soup", "winner/distilled"]
    held_out = ["held-out/seed-0", "held-out/seed-1"] if splits != "train" else []
    students = [*(["held-out/distilled"] if held_out else []), "winner/distilled"]
    assert in_process.trained == ["winner/seed-0", "winner/seed-1", *held_out, *students]
    jobs = {model.name: read_weights(sweep.paths.fit(model.fit))[0] for model in models}
    assert {job.train_splits for job in jobs.values()} == {tuple(splits.split("+"))}
    assert [(job.seed, job.first_seed) for job in jobs.values()] == [(0, 0), (1, 0), (0, 0), (0, 0)]
    assert jobs["winner/distilled"].distillation is not None

    (event,) = [e for e in sweep.ledger.events() if e.stage == Stage.FORMS]
    assert event.data["winner"] == found.to_dict()
    assert found.form in FORMS
    assert found.reason.startswith("It is the best. ")
    scores = {score["form"]: score for score in event.data["forms"]}
    assert {name: (score["networks"], score["total"]) for name, score in scores.items()} == {
        "ensemble": (2, 24),
        "soup": (1, 24),
        "distilled": (1, 24),
    }
    steps = event.data["made_of"]["soup"]["steps"]
    assert scores["soup"]["correct"] == max(step["correct"] for step in steps if step["kept"])

    # A sweep that was killed after its leaderboard, or is extended, asks again.
    sweep.record(EventKind.STAGE, stage=Stage.LEADERBOARD, state="ENDED", payload={"winner_row": {"winner": True}})
    calls, trained, before = list(in_process.calls), list(in_process.trained), len(sweep.ledger.events())
    assert add_forms(sweep, manifest, WINNER, refit(sweep, manifest, WINNER)) == (found, models)
    assert (in_process.calls, in_process.trained, len(sweep.ledger.events())) == (calls, trained, before)
    assert not any(line.startswith("warning") for line in printed.lines)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("forms", "splits"), [(FORMS[:2], "train"), (FORMS, "train+validation")])
def test_a_choice_that_is_killed_again_and_again_ends_as_any_other(
    chosen: Chosen, in_process: InProcess, monkeypatch: pytest.MonkeyPatch, forms: tuple[str, ...], splits: str
) -> None:
    sweep, manifest = chosen(forms=forms, refit=splits, seeds=3)
    models = refit(sweep, manifest, WINNER)
    record, kills, events, ended = SweepContext.record, 0, 0, False

    def recorded_and_killed(self: SweepContext, kind: EventKind, **values: Any) -> None:
        nonlocal events
        record(self, kind, **values)
        events += 1
        if events > kills % 2:  # after the first event, then after the second, since some say only what begins
            raise Killed

    def killed_in_removing(*arguments: Any, **more: Any) -> None:
        raise Killed

    while not ended:
        for removes in (False, True):
            events = 0
            with monkeypatch.context() as patch:
                patch.setattr(SweepContext, "record", recorded_and_killed)
                if not removes:
                    patch.setattr(shutil, "rmtree", killed_in_removing)
                try:
                    add_forms(sweep, manifest, WINNER, models)
                    ended = True
                except Killed:
                    kills += 1
        assert kills <= 40
    assert kills >= 5
    found, shown = add_forms(sweep, manifest, WINNER, models)
    (event,) = [e for e in sweep.ledger.events() if e.stage == Stage.FORMS]
    assert event.data["winner"] == found.to_dict()
    held_out = {m.fit for m in held_out_networks(sweep, manifest, WINNER, models)}
    held_out |= {*event.data["made_of"].get("distilled", {}).get("fits", [])}
    assert len(in_process.trained) == len(set(in_process.trained))
    assert not sweep.paths.checkpoints.exists()
    assert {path.name for path in sweep.paths.fit("x").parent.iterdir()} == {m.fit for m in shown} | held_out
    kept = sweep.kept()
    assert not any(kept.state(sweep.paths.named(name)).is_damage for name in kept.hashes)
    tried = 2 + (splits != "train")  # and the soup of the final networks
    assert in_process.calls.count("average") <= 2 * tried + 1


def test_a_sweep_without_forms_is_as_ever(chosen: Chosen, in_process: InProcess) -> None:
    sweep, manifest = chosen()
    models = refit(sweep, manifest, WINNER)
    assert add_forms(sweep, manifest, WINNER, models) == (WINNER, models)
    assert {read_weights(sweep.paths.fit(model.fit))[0].start_seed for model in models} == {None}
    assert in_process.calls == []
    assert Stage.FORMS not in sweep.state().stages


def test_a_sweep_that_no_longer_asks_for_forms_records_the_plain_winner(chosen: Chosen) -> None:
    sweep, manifest = chosen()
    other = dataclasses.replace(WINNER, form="soup")
    sweep.record(EventKind.STAGE, stage=Stage.FORMS, state="ENDED", payload={"winner": other.to_dict()})
    add_forms(sweep, manifest, WINNER, [])
    assert json.loads(sweep.ledger.events()[-1].payload) == {"winner": WINNER.to_dict()}


def test_a_winner_of_one_network_has_no_other_form(chosen: Chosen, printed: PrintedLines) -> None:
    sweep, manifest = chosen(forms=FORMS, refit="train")
    models = refit(sweep, manifest, WINNER)[:1]
    assert add_forms(sweep, manifest, WINNER, models) == (WINNER, models)
    assert printed.lines[-1].endswith("are not compared: fewer than two networks of the winner are left")


def test_a_soup_without_a_network_that_could_not_be_retrained_is_told_of(chosen: Chosen, printed: PrintedLines) -> None:
    sweep, manifest = chosen(forms=("ensemble", "soup"), seeds=3)
    models = refit(sweep, manifest, WINNER)
    greedy = GreedySoup(tuple(held_out_networks(sweep, manifest, WINNER, models)), (SoupStep("x/seed-0", 1, 1, True),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "greedy_soup", lambda *arguments: greedy)
        add_forms(sweep, manifest, WINNER, models[1:])
    assert any("averages 2 of the 3 networks that validation chose for it" in line for line in printed.lines)


def test_another_student_is_recorded_even_if_the_winner_stays_the_same(
    chosen: Chosen, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, manifest = chosen(forms=("ensemble", "distilled"), refit="train")
    models = refit(sweep, manifest, WINNER)
    monkeypatch.setattr(choice, "choose_form", lambda *arguments: FormChoice("ensemble", "It is the best."))
    made = []
    for temperature in (2.0, 2.0, 3.0):
        how = sweep.spec.final.distillation.model_copy(update={"temperature": temperature})
        final = sweep.spec.final.model_copy(update={"distillation": how})
        sweep = dataclasses.replace(sweep, spec=sweep.spec.model_copy(update={"final": final}))
        _, shown = add_forms(sweep, manifest, WINNER, models)
        recorded = [e.data["made_of"]["distilled"]["fits"] for e in sweep.ledger.events() if e.stage == Stage.FORMS]
        assert recorded[-1] == [shown[-1].fit]
        made.append(len(recorded))
    assert made == [1, 1, 2]


def test_students_without_the_validation_photos_are_announced(chosen: Chosen) -> None:
    sweep, manifest = chosen(forms=("ensemble", "distilled"))
    add_forms(sweep, manifest, WINNER, refit(sweep, manifest, WINNER))
    begun = [e.data for e in sweep.ledger.events() if (e.stage, e.state) == (Stage.REFIT, "BEGUN")]
    assert [(each["fits"], each["held_out"]) for each in begun] == [(4, 2), (2, 1)]


def test_a_winner_that_mixes_images_is_not_distilled(chosen: Chosen, printed: PrintedLines) -> None:
    sweep, manifest = chosen(forms=("ensemble", "distilled"), refit="train")
    mixed = dataclasses.replace(WINNER, config=dataclasses.replace(WINNER.config, mixup=0.2))
    found, models = add_forms(sweep, manifest, mixed, refit(sweep, manifest, mixed))
    assert (found.form, [m.member for m in models]) == ("ensemble", ["seed-0", "seed-1"])
    assert "there is no distilled network: the winner mixes images" in " ".join(printed.lines)
