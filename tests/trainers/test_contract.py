"""What goes between the orchestrator and a worker."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.backbones import BACKBONES
from trainers.config import canonical, trial_id
from trainers.contract import Distillation, EpochMetrics, FitJob
from trainers.heads import HEADS

configurations = st.fixed_dictionaries(
    {},
    optional={
        "backbone": st.sampled_from(sorted(BACKBONES)),
        "unfrozen_layers": st.one_of(st.just("all"), st.integers(0, 300)),
        "head": st.sampled_from(sorted(HEADS)),
        "multiplier": st.floats(1, 10),
        "image_size": st.one_of(st.none(), st.integers(8, 600)),
        "scale": st.one_of(st.none(), st.floats(1, 64)),
        "margin": st.one_of(st.none(), st.floats(0, 1)),
        "recipe": st.sampled_from(["flips", "contest", "rich"]),
        "learning_rate": st.floats(1e-8, 1),
        "hidden": st.integers(0, 512),
    },
)


@given(values=configurations, seed=st.integers(0, 2**31 - 1))
def test_canonical_is_idempotent_and_survives_json(values, seed):
    once = canonical(values)
    assert canonical(once.to_dict()) == once
    assert canonical(once.non_defaults()) == once
    job = FitJob("id", once, seed, "manifest", train_splits=("train", "validation"), precision="float32")
    again = FitJob.from_dict(json.loads(json.dumps(job.to_dict())))
    assert again == job
    assert trial_id(again.config, seed, "data") == trial_id(once, seed, "data")


@pytest.mark.parametrize(("loss", "diverged"), [(1.0, False), (math.nan, True), (math.inf, True)])
def test_an_epoch_knows_whether_it_diverged(loss, diverged):
    metrics = EpochMetrics(1, loss, 0.5, math.nan, math.nan, math.nan, 0.1, 1.0, 10.0)
    assert metrics.diverged is diverged
    assert EpochMetrics(**metrics.to_dict()).epoch == 1


def test_a_job_with_a_teacher_survives_json_and_one_from_before_there_was_any_has_none() -> None:
    job = FitJob("id", canonical({}), 3, "m", start_seed=1, distillation=Distillation("t.npz", 2.0, 0.9))
    assert FitJob.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    assert job.first_seed == 1
    older = {name: value for name, value in job.to_dict().items() if name not in ("start_seed", "distillation")}
    assert (FitJob.from_dict(older).first_seed, FitJob.from_dict(older).distillation) == (3, None)
