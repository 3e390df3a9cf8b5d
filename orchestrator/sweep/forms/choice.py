"""The last part of the stage ``refit``: make the winner's other forms, and choose its form on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.evaluation.leaderboard import ensemble
from orchestrator.evaluation.policy_choice import FormScore, choose_form
from orchestrator.evaluation.variance import groups_of_hashes
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.spec.sections.final import DISTILLED, ENSEMBLE, SOUP
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.forms.distilled import Teacher, distil
from orchestrator.sweep.forms.soup import average, discard, greedy_soup, predicted, soup_in_words
from orchestrator.sweep.probabilities import predict_missing, read_probabilities
from orchestrator.sweep.refit import WINNER, FinalModel, held_out_networks
from orchestrator.sweep.select import Winner
from trainers.data.manifest import Manifest
from trainers.metrics import log_loss


@dataclasses.dataclass(frozen=True)
class Form:
    """A form of the winner: ``fits`` whose mean it answers on validation, and the network that stands for it among the
    final models; None for the ensemble, which is all of them."""

    name: str
    fits: tuple[str, ...]
    model: FinalModel | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def add_forms(
    sweep: SweepContext, manifest: Manifest, winner: Winner, models: Sequence[FinalModel]
) -> tuple[Winner, list[FinalModel]]:
    """Return the winner with the form that validation chooses, and ``models`` with its other forms."""
    final, shown = sweep.spec.final, list(models)
    if not final.makes_forms:
        return _plain(sweep, winner), shown
    members = [model for model in models if model.group == WINNER]
    judged = held_out_networks(sweep, manifest, winner, shown)
    if len(members) < 2 or len(judged) < 2:
        sweep.warn(f"{' and '.join(final.forms)} are not compared: fewer than two networks of the winner are left")
        return _plain(sweep, winner), shown
    forms = _make(sweep, manifest, winner, members, judged)
    if not forms:
        return _plain(sweep, winner), shown
    scores, correct, groups = _scores(sweep, manifest, winner.policy, forms)
    choice = choose_form(scores, correct, groups)
    winner = dataclasses.replace(winner, form=choice.form, reason=f"{winner.reason} {choice.reason}")
    shown += [form.model for form in forms if form.model is not None]
    facts = {form.name: {"fits": list(form.fits)} | form.facts for form in forms}
    _record(sweep, winner, {"forms": [dataclasses.asdict(s) for s in scores], "made_of": facts, "why": choice.reason})
    return winner, shown


def _plain(sweep: SweepContext, winner: Winner) -> Winner:
    """Return ``winner``, recorded once more if the ledger holds one whose form was chosen."""
    if Stage.FORMS in sweep.state().stages:
        _record(sweep, winner, {})
    return winner


def _make(
    sweep: SweepContext, manifest: Manifest, winner: Winner, members: Sequence[FinalModel], judged: Sequence[FinalModel]
) -> list[Form]:
    """Make the forms that the file asks for, of ``members``; those of ``judged`` are compared on validation."""
    final, forms = sweep.spec.final, list[Form]()
    if ENSEMBLE in final.forms:
        forms.append(Form(ENSEMBLE, tuple(model.fit for model in judged)))
    if SOUP in final.forms and (soup := _soup(sweep, winner.policy, members, judged)):
        forms.append(soup)
    if DISTILLED in final.forms:
        teachers = [Teacher(tuple(judged), ("train",)), Teacher(tuple(members), final.splits)]
        students = distil(sweep, manifest, teachers[: 1 + int(final.trains_held_out)])
        if students:
            facts = {"teacher": [member.fit for member in members]}
            forms.append(Form(DISTILLED, (students[0].fit,), students[-1], facts))
    return forms


def _soup(sweep: SweepContext, policy: str, members: Sequence[FinalModel], judged: Sequence[FinalModel]) -> Form | None:
    """Return the soup of ``judged``, and that of the ``members`` with the same seeds; None if none of these is left."""
    seed = sweep.spec.budget.seed
    greedy = greedy_soup(sweep, judged, policy, seed, ("train",))
    chosen = {model.member for model in greedy.ingredients}
    same = [member for member in members if member.member in chosen]
    if not same:
        discard(sweep, greedy.tried)
        sweep.warn("there is no soup: none of the networks that validation chose for it could be retrained")
        return None
    if len(same) < len(chosen):
        sweep.warn(
            f"the soup on the leaderboard averages {len(same)} of the {len(chosen)} networks that validation chose for "
            "it: the others could not be retrained"
        )
    compared = predicted(sweep, greedy.ingredients, policy, seed, ("train",))
    fit = average(sweep, same, seed, sweep.spec.final.splits)
    discard(sweep, {*greedy.tried, compared} - {fit})
    model = FinalModel(f"{WINNER}/{SOUP}", fit, same[0].config, same[0].configuration)
    facts = {"steps": [dataclasses.asdict(step) for step in greedy.steps], "text": soup_in_words(greedy)}
    return Form(SOUP, (compared,), model, facts)


def _scores(
    sweep: SweepContext, manifest: Manifest, policy: str, forms: Sequence[Form]
) -> tuple[list[FormScore], dict[str, np.ndarray], list[str]]:
    """Return each form's score on validation, which images it gets right, and the images' groups."""
    predict_missing(sweep, [[fit for form in forms for fit in form.fits]], "validation", policies=[policy])
    kept, scores, correct = sweep.kept(), list[FormScore](), dict[str, np.ndarray]()
    groups: list[str] = []
    for form in forms:
        stored = [read_probabilities(kept, fit, "validation", policy) for fit in form.fits]
        rows, labels = ensemble([each["probabilities"] for each in stored]), stored[0]["labels"]
        correct[form.name] = rows.argmax(1) == labels
        right = int(correct[form.name].sum())
        scores.append(FormScore(form.name, right, len(labels), log_loss(rows, labels), len(form.fits)))
        groups = groups_of_hashes(stored[0]["sha256"], manifest.table["sha256"], manifest.table["group"])
    return scores, correct, groups


def _record(sweep: SweepContext, winner: Winner, facts: dict[str, Any]) -> None:
    """Record the winner with its form and what it was chosen by, unless that is what the ledger says last."""
    events = sweep.ledger.events()
    stages = [e.data for e in events if e.kind == EventKind.STAGE and '"winner"' in e.payload]
    said = [data for data in stages if isinstance(data.get("winner"), Mapping)]  # the leaderboard's row has such a flag
    payload = {"winner": winner.to_dict()} | facts
    if not said or any(said[-1].get(name) != value for name, value in payload.items()):
        sweep.record(EventKind.STAGE, stage=Stage.FORMS, state="ENDED", payload=payload)
