"""A teacher's answers on a student's training examples."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.support import tiny_fits
from trainers.contract import Distillation, FitJob
from trainers.errors import TrainerError
from trainers.forms import teacher
from trainers.forms.teacher import answer
from trainers.networks.network import Architecture, Network
from trainers.training.loop import open_fit


def trained(job: FitJob) -> FitJob:
    fit = open_fit(job)
    fit.run_epoch()
    fit.finish()
    return job


def test_the_answers_are_the_mean_over_the_teachers_networks(tmp_path: Path) -> None:
    manifest = tiny_fits.write_manifest(tmp_path / "pictures")
    cache, file = tmp_path / "cache", tmp_path / "teacher.npz"
    fits = [
        trained(tiny_fits.job(manifest, cache, seed, str(tmp_path / f"fit-{seed}"), multiplier=2)) for seed in (0, 1)
    ]
    how = Distillation(str(file), 2.0, 1.0)
    student = dataclasses.replace(tiny_fits.job(manifest, cache, output="", multiplier=2), distillation=how)
    job = {"student": student.to_dict(), "threads": 1, "gpu_memory_share": 0.0, "output": str(file)}
    alone = []
    for chosen in ([fits[0]], [fits[1]], fits):
        assert answer({**job, "fits": [fit.output for fit in chosen]}) == {"examples": 60}  # 30 photos, 30 copies
        with np.load(file) as stored:
            alone.append(stored["probabilities"])
    np.testing.assert_allclose(np.mean(alone[:2], 0), alone[2], atol=1e-6)
    with pytest.MonkeyPatch.context() as patch:
        opened: list[Architecture] = []
        patch.setattr(teacher, "Network", lambda *arguments: opened.append(arguments[0]) or Network(*arguments))
        answer({**job, "fits": [fit.output for fit in fits]})
        assert len(opened) == 1  # any number of networks takes the memory of one
    assert np.isfinite(open_fit(student).run_epoch().loss)

    other = dataclasses.replace(student, config=dataclasses.replace(student.config, multiplier=1.0))
    with pytest.raises(TrainerError, match="on other examples than those of this fit"):
        open_fit(other)
    wide = dataclasses.replace(student, config=dataclasses.replace(student.config, hidden=8))
    with pytest.raises(TrainerError, match="of the student's own architecture"):
        answer({**job, "fits": [fits[0].output], "student": wide.to_dict()})
    fresh = dataclasses.replace(student, config=dataclasses.replace(student.config, draws="fresh"))
    with pytest.raises(TrainerError, match="takes draws: fixed"):
        answer({**job, "fits": [fits[0].output], "student": fresh.to_dict()})
    mixed = dataclasses.replace(student, config=dataclasses.replace(student.config, mixup=0.2))
    with pytest.raises(TrainerError, match="trains on mixed images cannot be distilled"):
        answer({**job, "fits": [fits[0].output], "student": mixed.to_dict()})
