"""A trial's identity, and what goes between the orchestrator and a worker."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.backbones import BACKBONES
from trainers.config import TrialConfig, canonical, trial_id
from trainers.contract import EpochMetrics, FitJob
from trainers.errors import TrainerError
from trainers.heads import HEADS

GOLDEN = {
    "plain": (TrialConfig(), 0, "data"),
    "other seed": (TrialConfig(), 1, "data"),
    "other data": (TrialConfig(), 0, "atad"),
    "several values": (TrialConfig(backbone="small_cnn", dropout=0.3, unfrozen_layers=5, head="arcface"), 7, "data"),
}
GOLDEN_IDS = {
    "plain": "1bf5e03511",
    "other seed": "bd17c29d39",
    "other data": "9241793712",
    "several values": "27372c01e8",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_an_id_never_changes(name):
    assert trial_id(*GOLDEN[name]) == GOLDEN_IDS[name]


def test_a_new_field_with_a_default_changes_no_id():
    @dataclasses.dataclass(frozen=True)
    class Later(TrialConfig):
        mixup: float = 0.0
        a_first: str = "none"

    old = TrialConfig(dropout=0.3, head="arcface")
    assert trial_id(Later(dropout=0.3, head="arcface"), 0, "data") == trial_id(old, 0, "data")
    assert trial_id(Later(dropout=0.3, head="arcface", mixup=0.2), 0, "data") != trial_id(old, 0, "data")


def test_every_field_counts_towards_the_id():
    other = {"float": 0.123, "int": 77, "str": "other", "float | None": 0.123, "int | None": 77, "int | str": "all"}
    ids = {trial_id(TrialConfig(), 0, "data")}
    for field in dataclasses.fields(TrialConfig):
        ids.add(trial_id(dataclasses.replace(TrialConfig(), **{field.name: other[str(field.type)]}), 0, "data"))
    assert len(ids) == 1 + len(dataclasses.fields(TrialConfig)) == 28


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"backbone": "mobilenet_1.0", "image_size": 224}),
        ({}, {"dropout": 0, "multiplier": 1}),
        ({}, {"margin": 0.3, "scale": 12.0}),
        ({}, {"recipe": "contest"}),
        ({}, {"epochs": 10.0, "batch_size": np.int64(32)}),
        ({"learning_rate": 1}, {"learning_rate": np.float64(1)}),
        ({"unfrozen_layers": "all"}, {"unfrozen_layers": 86}),
        ({"unfrozen_layers": "all"}, {"unfrozen_layers": 1000}),
        ({"unfrozen_layers": 5}, {"unfrozen_layers": 5.0}),
        ({"head": "normface"}, {"head": "normface", "margin": 0.3}),
        ({"head": "arcface"}, {"head": "arcface", "margin": 0.2}),
        ({"backbone": "small_cnn"}, {"backbone": "small_cnn", "image_size": 32, "head": "softmax", "scale": 3}),
    ],
)
def test_equivalent_values_are_one_trial(one, other):
    assert canonical(one) == canonical(other)
    assert trial_id(canonical(one), 0, "data") == trial_id(canonical(other), 0, "data")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"unfrozen_layers": 85}),
        ({}, {"image_size": 192}),
        ({"multiplier": 2}, {"multiplier": 2, "recipe": "contest"}),
        ({"head": "normface"}, {"head": "normface", "scale": 12}),
        ({"head": "arcface"}, {"head": "arcface", "margin": 0.3}),
        ({"head": "arcface"}, {"head": "cosface"}),
    ],
)
def test_different_values_are_different_trials(one, other):
    assert trial_id(canonical(one), 0, "data") != trial_id(canonical(other), 0, "data")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"learningrate": 1}, "unknown field learningrate of a configuration; known are .*learning_rate"),
        ({"backbone": "mobilenet_1"}, "there is no backbone 'mobilenet_1'; did you mean mobilenet_1.0?"),
        ({"head": "arkface"}, "there is no head 'arkface'; did you mean arcface?"),
        ({"batch_size": 2.5}, "batch_size must be a whole number, not 2.5"),
        ({"unfrozen_layers": "most"}, "unfrozen_layers must be a whole number or all, not 'most'"),
        ({"dropout": "0.5"}, "dropout must be a number, not '0.5'"),
        ({"dropout": None}, "dropout must be a number, not None"),
        ({"backbone": 5}, "backbone must be a name, not 5"),
    ],
)
def test_a_wrong_value_is_a_sentence(values, sentence):
    with pytest.raises(TrainerError, match=sentence):
        canonical(values)


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
