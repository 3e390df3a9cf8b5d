"""The distilled network: what it learns from, and that its teacher's answers are made once."""

from __future__ import annotations

import numpy as np

from orchestrator.sweep.forms.distilled import ANSWERS, Teacher, distil
from orchestrator.sweep.refit import refit
from tests.orchestrator.sweep.forms.conftest import WINNER, Chosen
from tests.support.in_process import InProcess
from trainers.training.loop import read_weights


def test_a_student_learns_from_the_mean_of_its_teachers(chosen: Chosen, in_process: InProcess) -> None:
    sweep, manifest = chosen(forms=("ensemble", "distilled"), refit="train")
    teacher = Teacher(tuple(refit(sweep, manifest, WINNER)), ("train",))
    students = distil(sweep, manifest, [teacher])
    assert students is not None
    (student,) = students
    job, _ = read_weights(sweep.paths.fit(student.fit))
    how = sweep.spec.final.distillation
    assert job.distillation is not None
    assert (job.distillation.temperature, job.distillation.alpha) == (how.temperature, how.alpha)
    assert (student.name, student.config.epochs, job.start_seed) == ("winner/distilled", WINNER.config.epochs, None)
    file = sweep.paths.probabilities(student.fit, "train", ANSWERS)
    with np.load(file) as stored:
        assert stored["sha256"].tolist() == manifest.split("train").table["sha256"].tolist()
        np.testing.assert_allclose(stored["probabilities"].sum(1), 1, atol=1e-5)
    file.write_bytes(b"junk")
    assert distil(sweep, manifest, [teacher]) == students
    assert in_process.calls == ["answer", "answer"]
    assert in_process.trained == ["winner/seed-0", "winner/seed-1", "winner/distilled"]
    assert not sweep.kept().state(file).is_damage


def test_other_teachers_or_another_temperature_make_another_student(chosen: Chosen) -> None:
    sweep, manifest = chosen(forms=("ensemble", "distilled"), refit="train")
    members = tuple(refit(sweep, manifest, WINNER))
    first = distil(sweep, manifest, [Teacher(members, ("train",))])
    second = distil(sweep, manifest, [Teacher(members[:1], ("train",))])
    assert first is not None
    assert second is not None
    assert first[0].fit != second[0].fit
