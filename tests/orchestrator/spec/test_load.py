"""Reading a file: defaults, ``--set``, every mistake at once with its place."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections.budget import BudgetSpec, SchedulerSpec
from orchestrator.spec.space.domains import DEFAULTS, Choice, Uniform
from orchestrator.spec.space.fields import FIELDS
from orchestrator.spec.space.space import Case, Space
from orchestrator.spec.sweep import SweepSpec
from tests.support.sweep_files import mistakes, practice, sweep


def test_a_small_file_is_complete(load):
    spec = load(sweep("head: [softmax, arcface], margin: {uniform: [0.1, 0.5], when: {head: arcface}}"))
    assert (spec.name, spec.data.source, spec.data.splits, spec.weights) == (
        "demo",
        "builtin:digits",
        "auto",
        "imagenet",
    )
    assert (spec.budget.trials, spec.budget.concurrent, spec.budget.retries) == (5, "auto", 2)
    assert (spec.budget.scheduler.name, spec.budget.scheduler.grace_epochs) == ("asha", 1)
    assert (spec.budget.sampler.name, spec.budget.sampler.startup_trials) == ("tpe", 10)
    assert (spec.final.seeds, spec.final.epochs, spec.final.policies[0]) == (3, None, "whole")
    assert (spec.resources.cpus, spec.resources.gpus, spec.tracking.enabled) == (1, "auto", True)
    assert spec.configurations == ()
    assert spec.space == Space.of(
        {
            "head": [Case(Choice(("softmax", "arcface")))],
            "margin": [Case(Uniform(0.1, 0.5), (("head", ("arcface",)),))],
            **practice(),
        }
    )


def test_relative_paths_start_at_the_current_folder(load, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "weights").mkdir()
    text = sweep(rest="weights: ${W}\n").replace("'builtin:digits'", "photos")
    spec = load(text, "search.backbone=small_cnn", W="weights")
    assert (spec.data.source, spec.weights) == (str(tmp_path / "photos"), str(tmp_path / "weights"))


def test_a_sweep_is_frozen(load):
    spec = load(sweep())
    with pytest.raises(ValidationError):
        spec.budget.trials = 6
    assert spec != load(sweep(), "budget.trials=6")


def test_a_spec_can_be_built_in_python_and_is_checked_too():
    values = {"name": "x", "data": {"source": "builtin:digits"}, "search": {"dropout": [0.1, 0.2]}}
    spec = SweepSpec(**values, budget=BudgetSpec(trials=2, epochs=1, scheduler=SchedulerSpec(name="none")))
    assert spec.space.size() == 2
    with pytest.raises(ValidationError, match="cmaes sampler supports numeric ranges only"):
        SweepSpec(**values, budget={"trials": 2, "epochs": 1, "sampler": "cmaes"})


REST = [
    (
        "final: {policies: [whle]}",
        "5:20: final.policies.0: there is no policy 'whle'; did you mean whole? Known are whole, ",
    ),
    ("final: {policies: [flip, flip]}", '5:26: final.policies.1: found "flip" twice in the list.'),
    (
        "final: {policies: flip}",
        '5:19: final.policies: found "flip"; allowed: a list of crop policies, as in [whole, flip, ',
    ),
    ("final: {policies: [5]}", "5:20: final.policies.0: found 5; allowed: a policy's name."),
    ("final: {refit: both}", '5:16: final.refit: found "both". Allowed: train, train+validation.'),
    ("final: {seeds: 0}", "5:16: final.seeds: found 0; allowed: a whole number, at least 1 and at most 100."),
    ("final:", "6:1: final: found null; allowed: a mapping with the fields seeds, epochs, refit, policies, runners_up"),
    (
        "resources: {gpus: 1.5}",
        "5:19: resources.gpus: found 1.5; allowed: a fraction of a GPU from 0 to 1, a whole number, or",
    ),
    ("resources: {gpus: .inf}", "5:19: resources.gpus: found .inf; it is not a finite number."),
    ("resources: {cpus: 0}", "5:19: resources.cpus: found 0; allowed: a number, above 0 and at most 4096."),
    ("resources: {precision: float16}", '5:24: resources.precision: found "float16"; did you mean "'),
    (
        "tracking: {enabled: no}",
        '5:21: tracking.enabled: found the word "no"; allowed: true or false (YAML 1.2 reads yes, no',
    ),
    ("tracking: {tags: {b: null}}", "5:22: tracking.tags.b: found null; allowed: text."),
    ("tracking: {tags: [a]}", "5:18: tracking.tags: found a list; allowed: a mapping."),
    (
        "tracking: {model: a/b}",
        '5:19: tracking.model: found "a/b"; the name of a registered model cannot contain "/" or ":".',
    ),
    ("weights: 5", "5:10: weights: found 5; allowed: imagenet, none, or a folder of weight files."),
    ("weights: ${NOPE}/w", "5:10: weights: the environment variable NOPE is not set. Type: export NOPE=..."),
    (
        "weight: none",
        '5:1: weight: no such field; did you mean "weights"? Allowed: name, data, search, budget, final, ',
    ),
    ("name: again", "5:1: name: written twice; the first is in line 1."),
]


@pytest.mark.parametrize(("text", "sentence"), REST)
def test_a_mistake_in_the_other_parts(load, text, sentence):
    found = mistakes(load, sweep(rest=text + "\n"))
    assert len(found) == 1
    assert found[0].startswith(f"f.yaml:{sentence}")


def test_every_mistake_is_reported_at_once(load):
    text = (
        "name: a b\ndata: {source: photos, splits: own}\nsearch: {head: [softmax, arcface], dropout: 2, margn: 1}\n"
        "budget: {trails: 5, epochs: 3, sampler: cmaes, scheduler: ashaa}\n"
        "weights: /nowhere/at/all\nresources: {gpu: 1}\n"
    )
    found = mistakes(load, text)
    assert [sentence.split(": ")[1] for sentence in found] == [
        "name",
        "data.source",
        "search.dropout",
        "search.margn",
        "budget.trials",
        "budget.trails",
        "budget.scheduler.name",
        "weights",
        "resources.gpu",
    ]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("budget.trails=5", 'budget.trails: no such field; did you mean "trials"? Allowed: trials, epochs, hours, '),
        ("budgett.trials=5", 'budgett: no such field; did you mean "budget"? Allowed: name, data, search, budget, '),
        ("head=softmax", "head: no such field at the top of the file; did you mean search.head?"),
        ("trials=5", "trials: no such field at the top of the file; did you mean budget.trials?"),
        ("epochs=5", "epochs: no such field at the top of the file; did you mean budget.epochs or final.epochs?"),
        (
            "budget.trials=lots",
            'budget.trials: found the text "lots"; allowed: a whole number, at least 1 and at most ',
        ),
        ("search.head=[softmax,cosfase]", 'search.head.1: found "cosfase"; did you mean "cosface"?'),
        (
            "search.dropout.loguniform=[0.1,1.5]",
            "search.dropout.loguniform.1: found 1.5; allowed: a number, at least 0",
        ),
        ("data.source=${NOPE}", "data.source: the environment variable NOPE is not set"),
        (
            "budget.sampler.startup_trials=0",
            "budget.sampler.startup_trials: found 0; allowed: a whole number, at least 1.",
        ),
        ("budget=[", "this is not YAML: "),
        ("budget", "write a field, an equals sign and a value, as in --set budget.trials=5."),
    ],
)
def test_a_mistake_in_a_setting_names_the_setting(load, setting, sentence):
    found = mistakes(load, sweep(), setting)
    assert len(found) == 1
    assert found[0].startswith(f"--set {setting}: {sentence}")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("budget.trials=7", lambda spec: spec.budget.trials == 7),
        (
            "search.dropout.loguniform=[0.1,0.2]",
            lambda spec: spec.space.fields[0].cases[0].domain == Uniform(0.1, 0.2, True),
        ),
        ("search.dropout=0.1", lambda spec: spec.space.size() == 1),
        (
            "search.head=[softmax,cosface]",
            lambda spec: spec.space.field("head").cases[0].domain.values()[1] == "cosface",
        ),
        ("budget.scheduler=none", lambda spec: spec.budget.scheduler.name == "none"),
        (
            "budget.scheduler.grace_epochs=2",
            lambda spec: spec.budget.scheduler == SchedulerSpec(name="median", grace_epochs=2),
        ),
        ("budget.first=[]", lambda spec: spec.budget.first == ()),
        ("tracking.uri=http://localhost:5000", lambda spec: spec.tracking.uri == "http://localhost:5000"),
        ("data.splits.train=0.7", lambda spec: spec.data.splits.train == 0.7),
    ],
)
def test_settings_override_any_field(load, setting, value):
    assert value(load(sweep(budget=", scheduler: median, first: [{dropout: 0.1}]"), "budget.first=[]", setting))


def test_the_machine_can_be_left_out_of_it(tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text(sweep().replace("builtin:digits", "/nowhere/at/all"))
    assert load_spec(str(file), check_machine=False).data.source == "/nowhere/at/all"


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "f.yaml").write_bytes(b"name: \xff")
    with pytest.raises(SpecError, match=r"f\.yaml is not a text file in UTF-8: invalid start byte at byte 6\."):
        load_spec(str(tmp_path / "f.yaml"))


WORDS = "configurations when value choice uniform int loguniform step all softmax arcface small_cnn own asha grid train"

words = st.sampled_from((*SweepSpec.model_fields, *BudgetSpec.model_fields, *FIELDS, *WORDS.split(), "${X}", "<<"))

scalars = words | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)

junk = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4), max_leaves=12
)

JUNK_BUDGET = {"trials": 2, "epochs": 2}


@settings(max_examples=100, deadline=None)
@given(
    top=st.dictionaries(words, junk, max_size=4),
    search=st.dictionaries(words, junk, max_size=4),
    budget=st.dictionaries(words, junk, max_size=3),
    setting=st.tuples(st.lists(words, min_size=1, max_size=4).map(".".join), junk),
)
def test_junk_is_never_more_than_a_spec_error(top, search, budget, setting, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "junk.yaml"
    whole = {"name": "x", "data": {"source": "builtin:digits"}, "search": search, "budget": {**JUNK_BUDGET, **budget}}
    file.write_text(json.dumps({**whole, **top}))
    for overrides in ((), (f"{setting[0]}={json.dumps(setting[1])}",)):
        with contextlib.suppress(SpecError):
            spec = load_spec(str(file), overrides, {})
            assert SweepSpec.model_validate(spec.model_dump()) == spec


def test_the_table_of_fields_is_that_of_a_trial():
    assert list(FIELDS) == list(DEFAULTS)
    for name, default in DEFAULTS.items():
        assert FIELDS[name].problem(default) is None, name


def test_loading_a_spec_imports_nothing_heavy():
    code = "import sys; from orchestrator.spec.load import load_spec; load_spec('quick'); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    heavy = {"tensorflow", "keras", "ray", "mlflow", "optuna", "pandas", "numpy", "pyarrow"}
    assert heavy & set(run.stdout.split()) == set()
