"""The file: every mistake at once with its place, shipped sweeps, there and back, the schema."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ruamel.yaml import YAML
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.errors import SpecError
from orchestrator.spec import load as spec_module
from orchestrator.spec.budget import BudgetSpec, SchedulerSpec
from orchestrator.spec.load import dump_spec, json_schema, load_spec, open_spec, shipped_spaces
from orchestrator.spec.space.fields import FIELDS, Names, Numbers
from orchestrator.spec.space.space import DEFAULTS, Case, Choice, Constant, IntRange, Space, Uniform
from orchestrator.spec.sweep import SweepSpec
from trainers.backbones import BACKBONES, Backbone
from trainers.config import canonical
from trainers.heads import HEADS
from trainers.images.policies import valid_policy

SMALL_BACKBONE = Backbone("mine", "my:builder", preprocessing="tf", native_size=64, smallest_size=8, layers=3)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a YAML text with ``--set`` texts and environment variables, from the folder of the file."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str, **environ: str) -> SweepSpec:
        Path("f.yaml").write_text(text)
        return load_spec("f.yaml", overrides, environ)

    return load


def sweep(search: str = "dropout: {uniform: [0, 0.2]}", budget: str = "", rest: str = "") -> str:
    """A file whose search begins at 3:9 and whose budget begins at 4:9; ``rest`` starts in line 5."""
    return (
        "name: demo\ndata: {source: 'builtin:digits'}\n"
        f"search: {{{search}}}\nbudget: {{trials: 5, epochs: 3{budget}}}\n{rest}"
    )


def mistakes(load, text: str, *overrides: str, **environ: str) -> list[str]:
    with pytest.raises(SpecError) as error:
        load(text, *overrides, **environ)
    return str(error.value).splitlines()


# What comes out


def test_a_small_file_is_complete(load):
    spec = load(sweep("head: [softmax, arcface], margin: {uniform: [0.1, 0.5], when: {head: arcface}}"))
    assert (spec.name, spec.data.source, spec.data.splits.train, spec.weights) == (
        "demo",
        "builtin:digits",
        0.7,
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
        }
    )


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        ("dropout: 0", [Case(Constant(0.0))]),
        ("unfrozen_layers: all", [Case(Constant("all"))]),
        ("unfrozen_layers: [0, all]", [Case(Choice((0, "all")))]),
        ("image_size: null", [Case(Constant(None))]),
        ("image_size: [null, 128]", [Case(Choice((None, 128)))]),
        ("batch_size: [32]", [Case(Constant(32))]),
        ("learning_rate: {loguniform: [1e-4, 1e-2]}", [Case(Uniform(1e-4, 1e-2, log=True))]),
        ("batch_size: {int: [16, 60], step: 16}", [Case(IntRange(16, 48, 16))]),
        ("hidden: {int: [64, 1024], log: true}", [Case(IntRange(64, 1024, log=True))]),
        ("multiplier: {int: [1, 5]}", [Case(IntRange(1, 5))]),
        ("backbone: {choice: [vgg16, resnet50]}", [Case(Choice(("vgg16", "resnet50")))]),
        (
            "dropout: [{value: 0.1, when: {head: softmax, unfrozen_layers: [0, all]}}, {uniform: [0, 0.5]}]",
            [Case(Constant(0.1), (("unfrozen_layers", (0, "all")), ("head", ("softmax",)))), Case(Uniform(0, 0.5))],
        ),
        (f"backbone: '{__name__}:SMALL_BACKBONE'", [Case(Constant(f"{__name__}:SMALL_BACKBONE"))]),
    ],
)
def test_forms_of_a_search_value(load, text, cases):
    name = text.partition(":")[0]
    assert load(sweep(text)).space == Space.of({name: cases})


def test_configurations_take_the_constants_beside_them(load):
    text = (
        "name: ladder\ndata: {source: 'builtin:digits'}\nbudget: {epochs: 2}\nsearch:\n"
        "  image_size: 64\n  dropout: {value: 0.5, when: {head: softmax}}\n"
        "  configurations:\n"
        "    - {name: step-1, backbone: vgg16}\n    - {name: step-2, head: normface}\n"
        "    - {name: step-3, image_size: 96, dropout: 0}\n"
    )
    spec = load(text)
    assert spec.budget.trials == 3
    assert spec.configurations == (
        ("step-1", {"backbone": "vgg16", "image_size": 64, "dropout": 0.5}),
        ("step-2", {"head": "normface", "image_size": 64, "dropout": 0.0}),
        ("step-3", {"image_size": 96, "dropout": 0.0}),
    )
    assert [name for name, _ in load(text, "budget.trials=2").configurations] == ["step-1", "step-2"]


def test_policies_always_hold_whole_first(load):
    assert load(sweep(rest="final: {policies: [flip, whole]}\n")).final.policies == ("whole", "flip")
    assert load(sweep(rest="final: {policies: []}\n")).final.policies == ("whole",)


def test_policies_of_ones_own_are_looked_up(load):
    own = "tests.support.tiny_fits:OWN_POLICY"
    assert load(sweep(rest=f"final: {{policies: [{own}]}}\n")).final.policies == ("whole", own)
    with pytest.raises(SpecError) as refused:
        load(sweep(rest="final: {policies: [tests.support.tiny_fits:CLASSES]}\n"))
    assert "final.policies.0" in str(refused.value)
    assert "not a policy" in str(refused.value)


def test_tags_may_be_numbers(load):
    tags = load(sweep(rest="tracking: {tags: {team: a, year: 2024, share: 0.5, good: true}}\n")).tracking.tags
    assert tags == {"team": "a", "year": "2024", "share": "0.5", "good": "true"}


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
    with pytest.raises(ValidationError, match="cmaes sampler only takes ranges"):
        SweepSpec(**values, budget={"trials": 2, "epochs": 1, "sampler": "cmaes"})


# Mistakes in the search

SEARCH_FIELDS = ", ".join(FIELDS)

SEARCH = [
    (
        "dropuot: 1",
        f'3:10: search.dropuot: no such field; did you mean "dropout"? Allowed: {SEARCH_FIELDS}, configurations.',
    ),
    (
        "epochs: 5",
        f"3:10: search.epochs: no such field. Allowed: {SEARCH_FIELDS}, configurations. Epochs are set in budget.",
    ),
    ("dropout: 1", "3:19: search.dropout: found 1; allowed: a number, at least 0 and below 1."),
    ("smoothing: -0.1", "3:21: search.smoothing: found -0.1; allowed: a number, at least 0 and below 1."),
    ("dropout: true", "3:19: search.dropout: found true; allowed: a number, at least 0 and below 1."),
    ("dropout: '0.1'", '3:19: search.dropout: found the text "0.1"; allowed: a number, at least 0 and below 1.'),
    ("dropout: null", "3:19: search.dropout: found null; allowed: a number, at least 0 and below 1."),
    ("dropout: [0, 0.1, 1.2]", "3:28: search.dropout.2: found 1.2; allowed: a number, at least 0 and below 1."),
    ("dropout: [0, 0.0]", "3:23: search.dropout.1: found 0 twice in the list."),
    ("dropout: []", "3:19: search.dropout: found an empty list; give it at least one value."),
    ("multiplier: 0.5", "3:22: search.multiplier: found 0.5; allowed: a number, at least 1 and at most 100."),
    ("batch_size: 32.5", "3:22: search.batch_size: found 32.5; allowed: a whole number, at least 1 and at most 65536."),
    ("learning_rate: 0", "3:25: search.learning_rate: found 0; allowed: a number, above 0 and at most 10."),
    (
        "unfrozen_layers: al",
        '3:27: search.unfrozen_layers: found the text "al"; allowed: a whole number, at least 0 and at most 10000',
    ),
    ("unfrozen_layers: -1", "3:27: search.unfrozen_layers: found -1; allowed: a whole number, at least 0"),
    (
        "image_size: 4",
        "3:22: search.image_size: found 4; allowed: a whole number, at least 8 and at most 4096, or null for",
    ),
    (
        "backbone: resnet5",
        f'3:20: search.backbone: found "resnet5"; did you mean "resnet50"? Allowed: {", ".join(BACKBONES)}, or your',
    ),
    ("backbone: 'json:loads'", "3:20: search.backbone: 'json:loads' is a function, not a backbone."),
    ("head: 'nowhere_at_all:X'", "3:16: search.head: the head 'nowhere_at_all:X' cannot be imported: No module named"),
    ("head: ':X'", '3:16: search.head: found ":X"; importing it failed: ValueError: Empty module name.'),
    ("head: [softmax, cosfase]", '3:26: search.head.1: found "cosfase"; did you mean "cosface"? Allowed: softmax, '),
    (
        "recipe: flip",
        '3:18: search.recipe: found "flip"; did you mean "flips"? Allowed: none, flips, contest, colour, rich',
    ),
    (
        "view: center_crop",
        '3:16: search.view: found "center_crop"; did you mean "centre_crop"? Allowed: squash, centre_',
    ),
    ("optimizer: 5", "3:21: search.optimizer: found 5. Allowed: sgd, adam, rmsprop."),
    (
        "loss: binary_crossentropy",
        '3:16: search.loss: found "binary_crossentropy"; with a softmax over the classes it scores ',
    ),
    (
        "dropout: {unifrom: [0, 1]}",
        '3:20: search.dropout.unifrom: no such field; did you mean "uniform"? Allowed: value, ',
    ),
    (
        "dropout: {}",
        "3:19: search.dropout: a case needs exactly one of value, choice, uniform, loguniform, int; found none",
    ),
    (
        "dropout: {value: 0, uniform: [0, 0.1]}",
        "3:19: search.dropout: a case needs exactly one of value, choice, uniform, loguniform, int; found value and",
    ),
    ("dropout: {choice: 0.1}", "3:28: search.dropout.choice: found 0.1; allowed: a list of values."),
    ("dropout: {value: [0.1]}", "3:27: search.dropout.value: found a list; allowed: a number, at least 0 and below 1."),
    ("dropout: {uniform: 0.1}", "3:29: search.dropout.uniform: found 0.1; allowed: two numbers, [LOW, HIGH]."),
    (
        "dropout: {uniform: [0, 1]}",
        "3:33: search.dropout.uniform.1: found 1; allowed: a number, at least 0 and below 1.",
    ),
    (
        "dropout: {uniform: [0.5, 0.1]}",
        "3:29: search.dropout.uniform: found [0.5, 0.1]; the first must be below the second: write [0.1, 0.5].",
    ),
    (
        "dropout: {uniform: [0.5, 0.5]}",
        "3:29: search.dropout.uniform: found [0.5, 0.5]; the first must be below the second: ",
    ),
    (
        "dropout: {loguniform: [0, 0.5]}",
        "3:33: search.dropout.loguniform.0: found 0; a loguniform range starts above 0.",
    ),
    ("dropout: {uniform: [0, 0.5], step: 2}", "3:39: search.dropout.step: uniform has no step; it belongs to int."),
    (
        "dropout: {uniform: [0, 0.5], log: true}",
        "3:39: search.dropout.log: uniform has no log; write loguniform instead.",
    ),
    (
        "head: {uniform: [0, 1]}",
        "3:26: search.head.uniform: head holds names, so it takes a value or a list, not a range.",
    ),
    (
        "batch_size: {uniform: [1, 5]}",
        "3:32: search.batch_size.uniform: batch_size holds whole numbers, so its range is ",
    ),
    ("batch_size: {int: [1, 5.5]}", "3:32: search.batch_size.int.1: found 5.5; allowed: a whole number, at least 1"),
    (
        "batch_size: {int: [1, 5], step: 5}",
        "3:42: search.batch_size.step: found 5; allowed: a whole number, at least 1 and at",
    ),
    (
        "hidden: {int: [0, 5], log: true}",
        "3:37: search.hidden.log: a logarithmic int range starts at 1 or above and has no",
    ),
    ("hidden: {int: [1, 5], log: 1}", "3:37: search.hidden.log: found 1; allowed: true or false."),
    (
        "dropout: [0.1, {value: 0.2}]",
        "3:19: search.dropout: this list mixes plain values and cases; write every one of them ",
    ),
    (
        "dropout: [{value: 0.1}, {value: 0.2, when: {head: softmax}}]",
        "3:34: search.dropout.1: is never reached: the case before it has no `when`, so it always applies.",
    ),
    (
        "dropout: {value: 0.1, when: {}}",
        "3:38: search.dropout.when: found an empty mapping; allowed: a mapping of other ",
    ),
    (
        "dropout: {value: 0.1, when: {haed: a}}",
        '3:39: search.dropout.when.haed: no such field; did you mean "head"? Allowed:',
    ),
    (
        "dropout: {value: 0.1, when: {head: softmx}}",
        '3:45: search.dropout.when.head: found "softmx"; did you mean "softmax"?',
    ),
    (
        "dropout: {value: 0.1, when: {dropout: 0}}",
        "3:39: search.dropout.when.dropout: dropout cannot depend on itself.",
    ),
    (
        "dropout: {uniform: [0, 0.5]}, smoothing: {value: 0.1, when: {dropout: 0.2}}",
        "3:71: search.smoothing.when.dropout: dropout is a continuous range, which no single value can match; a",
    ),
    (
        "head: {value: arcface, when: {dropout: 0.1}}, dropout: {value: 0.1, when: {head: softmax}}",
        "3:56: search.dropout: its conditions go in a circle: dropout -> head -> dropout.",
    ),
    (
        "image_size: 16",
        "3:22: search.image_size: 16 pixels are too few for mobilenet_1.0; allowed with what it can meet: at ",
    ),
    (
        "backbone: [small_cnn, vgg16, resnet50], image_size: {int: [16, 64], step: 16}",
        "3:62: search.image_size: 16 pixels are too few for vgg16, resnet50; allowed with what it can meet: at",
    ),
    (
        "backbone: [small_cnn, vgg16], image_size: [{value: 16, when: {head: softmax}}, {value: 64}]",
        "3:53: search.image_size.0: 16 pixels are too few for vgg16",
    ),
    ("margin: 0.3", "3:18: search.margin: the head softmax has no margin; leave it out, or add a head that has one."),
    (
        "head: [softmax, normface], margin: [0.1, 0.3]",
        "3:45: search.margin: the heads softmax, normface have no margin; leave",
    ),
    ("scale: 30", "3:17: search.scale: the head softmax has no scale; leave it out, or add a head that has one."),
    (
        "head: [softmax, arcface], margin: {value: 0.3, when: {head: softmax}}",
        "3:44: search.margin: the head softmax has no margin; leave it out, or add a head that has one.",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), SEARCH)
def test_a_mistake_in_the_search(load, text, sentence):
    found = mistakes(load, sweep(text))
    assert len(found) == 1
    assert found[0].startswith(f"f.yaml:{sentence}")


@pytest.mark.parametrize(
    "text",
    [
        "backbone: [small_cnn, vgg16], image_size: [{value: 16, when: {backbone: small_cnn}}, {int: [32, 64]}]",
        "head: [softmax, arcface], margin: 0.3",
        "margin: null",
        "margin: {uniform: [0.1, 0.3], when: {head: arcface}}",
        "backbone: [small_cnn, vgg16], image_size: 32",
        "image_size: {value: 16, when: {backbone: small_cnn}}",
    ],
)
def test_what_can_fit_is_not_refused(load, text):
    assert load(sweep(text)).space.fields


CONFIGURATIONS = [
    ("configurations: []", ["search.configurations: found an empty list; allowed: a list of named trials"]),
    ("configurations: [5]", ["search.configurations.0: found 5; allowed: a mapping of fields, each with one value."]),
    ("configurations: [{dropout: 0}]", ["search.configurations.0.name: is missing; every configuration needs one."]),
    ("configurations: [{name: 5}]", ["search.configurations.0.name: found 5; allowed: text that names the trial."]),
    (
        "configurations: [{name: a, dropout: [0, 0.1]}, {name: a, dropuot: 1, epochs: 3}]",
        [
            "search.configurations.0.dropout: found a list; allowed: a number",
            'search.configurations.1.name: found "a" twice; each configuration needs a name of its own.',
            'search.configurations.1.dropuot: no such field; did you mean "dropout"? Allowed: name, backbone, ',
            "search.configurations.1.epochs: no such field. Allowed: name, backbone, ",
        ],
    ),
    (
        "configurations: [{name: a}], dropout: [0, 0.1], smoothing: {uniform: [0, 0.1]}",
        [
            "search.dropout: varies, but beside `configurations` only single values may stand.",
            "search.smoothing: varies, but beside `configurations` only single values may stand.",
        ],
    ),
    (
        "configurations: [{name: a}, {name: b, dropout: 0}, {name: c, margin: 0.1}, {name: d, image_size: 16}]",
        [
            'search.configurations.1: "b" is the same configuration as "a", and would not be trained again.',
            "search.configurations.2.margin: the head softmax has no margin; leave it out.",
            "search.configurations.3: image_size is 16, but mobilenet_1.0 takes no image below 32 pixels.",
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), CONFIGURATIONS)
def test_mistakes_in_configurations(load, text, expected):
    found = mistakes(load, sweep(text), "budget={epochs: 1}")
    assert len(found) == len(expected)
    for sentence, start in zip(found, expected, strict=True):
        assert re.sub(r"^f\.yaml:3:\d+: ", "", sentence).startswith(start)


# Mistakes elsewhere

BUDGET = [
    (
        ", trails: 4",
        '4:32: budget.trails: no such field; did you mean "trials"? Allowed: trials, epochs, hours, target_acc',
    ),
    (", hours: -1", "4:39: budget.hours: found -1; allowed: a number, above 0."),
    (", hours: soon", '4:39: budget.hours: found the text "soon"; allowed: a number, above 0.'),
    (", target_accuracy: 93", "4:49: budget.target_accuracy: found 93; allowed: a number, above 0 and at most 1."),
    (", retries: 1.5", "4:41: budget.retries: found 1.5; allowed: a whole number, at least 0 and at most 100."),
    (", seed: true", "4:38: budget.seed: found true; allowed: a whole number, at least 0 and at most 2147483647."),
    (
        ", concurrent: 0",
        "4:44: budget.concurrent: found 0; allowed: a whole number, at least 1, or auto for as many as fit.",
    ),
    (
        ", scheduler: ashaa",
        '4:43: budget.scheduler.name: found "ashaa"; did you mean "asha"? Allowed: asha, hyperband, medi',
    ),
    (
        ", scheduler: 5",
        "4:43: budget.scheduler: found 5; allowed: a mapping with the fields name, grace_epochs, reduction_fac",
    ),
    (
        ", scheduler: {name: median, reduction_factor: 2}",
        "4:58: budget.scheduler.reduction_factor: median has no reduction_factor; it takes grace_epochs, min_trials.",
    ),
    (
        ", scheduler: {name: none, grace_epochs: 1}",
        "4:56: budget.scheduler.grace_epochs: none has no grace_epochs; it takes ",
    ),
    (
        ", scheduler: {grace_epochs: 9}",
        "4:58: budget.scheduler.grace_epochs: found 9, which is more than budget.epochs (3)",
    ),
    (
        ", sampler: {name: grid, startup_trials: 3}",
        "4:54: budget.sampler.startup_trials: grid has no startup_trials; it takes",
    ),
    (
        ", sampler: grid",
        "4:41: budget.sampler: the grid sampler goes through lists, and dropout is a continuous range; give it",
    ),
    (
        ", sampler: cmaes",
        "4:41: budget.sampler: the cmaes sampler needs at least two ranges of numbers; use tpe or random.",
    ),
    (", first: 3", "4:39: budget.first: found 3; allowed: a list of configurations, each a mapping of fields."),
    (
        ", first: [{dropout: 0.3}]",
        "4:40: budget.first.0: lies outside the space: dropout is 0.3; allowed here: a number from ",
    ),
    (
        ", first: [{}]",
        "4:40: budget.first.0: lies outside the space: dropout is left out, but it varies here; give it a value",
    ),
    (
        ", first: [{dropuot: 0}]",
        '4:41: budget.first.0.dropuot: no such field; did you mean "dropout"? Allowed: backbone, ',
    ),
    (", first: [{dropout: 2}]", "4:50: budget.first.0.dropout: found 2; allowed: a number, at least 0 and below 1."),
    (
        f", first: [{', '.join(['{dropout: 0}'] * 6)}]",
        "4:32: budget.first: holds 6 configurations, more than budget.trials (5).",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), BUDGET)
def test_a_mistake_in_the_budget(load, text, sentence):
    found = mistakes(load, sweep(budget=text))
    assert len(found) == 1
    assert found[0].startswith(f"f.yaml:{sentence}")


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
        "5:19: resources.gpus: found 1.5; allowed: a share of one GPU from 0 to 1, a whole number, or",
    ),
    ("resources: {gpus: .inf}", "5:19: resources.gpus: found .inf; that is no number to work with."),
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
        '5:19: tracking.model: found "a/b"; the name of a registered model holds no "/" and no ":".',
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


DATA = [
    (
        "{source: 'builtin:digit'}",
        '2:16: data.source: found "builtin:digit"; did you mean "builtin:digits"? Built in: ',
    ),
    ("{source: 5}", "2:16: data.source: found 5; allowed: text, or a list of texts."),
    ("{}", "2:7: data.source: is missing. A folder per class, a .csv or .parquet table, an archive, or "),
    ("{source: nowhere}", "2:16: data.source: there is no file or folder "),
    (
        "{source: 'builtin:digits', splits: own}",
        "2:42: data.splits: own needs a table with a split column (.csv or .parquet)",
    ),
    (
        "{source: 'builtin:digits', splits: half}",
        '2:42: data.splits: found "half"; allowed: {train: 0.7, validation: 0.15',
    ),
    (
        "{source: 'builtin:digits', splits: {train: 0.8}}",
        "2:42: data.splits: train, validation and test add up to 1.1; they ",
    ),
    (
        "{source: 'builtin:digits', splits: {trian: 0.7}}",
        '2:43: data.splits.trian: no such field; did you mean "train"? All',
    ),
    (
        "{source: 'builtin:digits', splits: {test: 0}}",
        "2:49: data.splits.test: found 0; allowed: a number, above 0 and below",
    ),
    (
        "{source: 'builtin:digits', duplicates: dorp}",
        '2:46: data.duplicates: found "dorp"; did you mean "drop"? Allowed: ',
    ),
]


@pytest.mark.parametrize(("text", "sentence"), DATA)
def test_a_mistake_in_the_data(load, text, sentence):
    found = mistakes(load, sweep().replace("{source: 'builtin:digits'}", text))
    assert len(found) == 1
    assert found[0].startswith(f"f.yaml:{sentence}")


def test_every_mistake_is_told_at_once(load):
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


def test_the_sampler_is_checked_although_the_budget_is_wrong_elsewhere(load):
    text = sweep("head: [softmax, arcface]", ", hours: -1, sampler: cmaes, first: [{head: normface}]")
    assert [sentence.split(": ")[1] for sentence in mistakes(load, text)] == [
        "budget.hours",
        "budget.sampler",
        "budget.first.0",
    ]


def test_what_a_list_of_configurations_does_not_take(load):
    text = sweep("configurations: [{name: a}, {name: b, dropout: 0.1}]", ", sampler: random, first: [{dropout: 0}]")
    assert [sentence.split(": ", 1)[1] for sentence in mistakes(load, text)] == [
        "budget.trials: found 5, but search.configurations holds 2; leave it out, or at most 2.",
        "budget.sampler: random has nothing to propose beside search.configurations; leave the sampler out.",
        "budget.first: configurations run in the order of their list; leave `first` out.",
    ]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("budget.trails=5", 'budget.trails: no such field; did you mean "trials"? Allowed: trials, epochs, hours, '),
        ("budgett.trials=5", 'budgett: no such field; did you mean "budget"? Allowed: name, data, search, budget, '),
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


# The machine


def test_a_weights_folder_must_hold_a_file_for_each_backbone(load, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "mobilenet_0.5_160_no_top.weights.h5").touch()
    rest = "weights: w\n"
    assert load(sweep("backbone: [mobilenet_0.5, small_cnn]", rest=rest)).weights == str(tmp_path / "w")
    found = mistakes(load, sweep("backbone: [mobilenet_0.5, vgg16, resnet50]", rest=rest))
    assert len(found) == 1
    assert found[0].startswith("f.yaml:5:10: weights: no weights for resnet50 in ")
    assert "no weights for vgg16 in " in found[0]
    found = mistakes(load, sweep("configurations: [{name: a, backbone: vgg16}]", rest=rest), "budget={epochs: 1}")
    assert "weights: no weights for vgg16" in found[0]


def test_the_default_backbone_of_a_named_trial_needs_its_weights_too(load, tmp_path):
    (tmp_path / "w").mkdir()
    file = sweep("configurations: [{name: a, dropout: 0.1}, {name: b, backbone: small_cnn}]", rest="weights: w\n")
    [found] = mistakes(load, file, "budget={epochs: 1}")
    assert found.startswith(f"f.yaml:5:10: weights: no weights for {DEFAULTS['backbone']} in ")
    assert load(file, "budget={epochs: 1}", "search.backbone=small_cnn").budget.trials == 2


def test_a_missing_weights_folder_may_be_a_misspelt_word(load):
    [found] = mistakes(load, sweep(rest="weights: imagenett\n"))
    assert re.search(
        r'weights: there is no folder \S+imagenett; did you mean "imagenet"\? Allowed: imagenet, none, or', found
    )


def test_the_machine_can_be_left_out_of_it(tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text(sweep().replace("builtin:digits", "/nowhere/at/all"))
    assert load_spec(str(file), check_machine=False).data.source == "/nowhere/at/all"


def test_a_sampler_that_is_an_extra_says_how_to_get_it(load, monkeypatch):
    monkeypatch.setattr(spec_module.importlib.util, "find_spec", lambda name: None)
    text = sweep("dropout: {uniform: [0, 0.2]}, smoothing: {uniform: [0, 0.2]}", ", sampler: cmaes")
    assert mistakes(load, text) == [
        "f.yaml:4:41: budget.sampler: the sampler cmaes needs the package cmaes, which is not installed: "
        'pip install "orch[cmaes]".'
    ]


# Files


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("quik", "there is no file quik; did you mean quick? Shipped sweeps are "),
        ("nowhere/x.yaml", "there is no file nowhere/x.yaml. Shipped sweeps are "),
        (".", ". is a folder; name the YAML file in it."),
        ("a\0b", "there is no file a\0b. Shipped sweeps are "),
    ],
)
def test_a_file_that_is_not_there(name, sentence):
    with pytest.raises(SpecError) as error:
        load_spec(name)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    "path", ["search_spaces/quick.yaml", "search_spaces/quick", "./search_spaces/quick.yaml", "quick.yaml"]
)
def test_a_shipped_file_is_found_by_its_path(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = open_spec(path, environ={})
    assert found.spec == load_spec("quick", environ={})
    (line,) = found.notes
    assert f"there is no {path} here; this is the shipped quick, " in line
    assert str(shipped_spaces()["quick"]) in line
    assert open_spec("quick", environ={}).notes == ()


@pytest.mark.parametrize("path", ["search_spaces/quick.yaml", "search_spaces/quick"])
def test_a_file_of_ones_own_comes_before_the_shipped_one(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / path).write_text(shipped_spaces()["quick"].read_text().replace("name: quick", "name: own"))
    found = open_spec(path, environ={})
    assert (found.spec.name, found.notes) == ("own", ())


@pytest.mark.parametrize("path", ["other/quick.yaml", "search_spaces/quick.yml", "/search_spaces/quick.yaml"])
def test_no_other_path_stands_for_a_shipped_file(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"there is no file .*did you mean quick"):
        load_spec(path)


def test_data_check_takes_a_sweeps_file_for_its_photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["data", "check", "search_spaces/quick.yaml"]
    shown = CliRunner().invoke(app, line)
    assert shown.exit_code == 0, shown.output
    assert "this is the shipped quick" in shown.output
    assert "1,797" in shown.output.replace("1797", "1,797")
    assert CliRunner().invoke(app, ["data", "check", "quick"]).output == "".join(shown.output.splitlines(True)[1:])
    (tmp_path / "quick").mkdir()  # a folder of photos that is called so comes first
    assert CliRunner().invoke(app, ["data", "check", "quick"]).exit_code != 0
    monkeypatch.delenv("ORCH_PHOTOS", raising=False)
    unset = CliRunner().invoke(app, ["data", "check", "search_spaces/small"])
    assert "export ORCH_PHOTOS=/path/to/photos" in str(unset.exception)


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "f.yaml").write_bytes(b"name: \xff")
    with pytest.raises(SpecError, match=r"f\.yaml is not a text file in UTF-8: invalid start byte at byte 6\."):
        load_spec(str(tmp_path / "f.yaml"))


def shipped_environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "trashnet").mkdir()
    (tmp_path / "trashnet" / "split.csv").touch()
    for row in BACKBONES.values():
        if row.files:
            (tmp_path / row.files.split()[0].replace("*", "224")).touch()
    names = ("ORCH_DATA", "ORCH_WEIGHTS", "ORCH_PHOTOS", "ORCH_SENET50")
    return dict.fromkeys(names, str(tmp_path))


def test_every_shipped_sweep_is_right(tmp_path):
    environ, validator = shipped_environment(tmp_path), jsonschema.Draft202012Validator(json_schema())
    seen = {name: load_spec(name, environ=environ) for name in shipped_spaces()}
    assert {"quick", "trashnet", "full"} <= seen.keys()
    for name, spec in seen.items():
        assert spec.name == name
        validator.validate(json.loads(json.dumps(spec.model_dump())))
        assert all(valid_policy(policy) is None for policy in spec.final.policies)


def test_quick_sweep_never_mirrors_a_digit():
    spec = load_spec("quick", environ={})
    assert spec.space.field("multiplier") is None  # no copies, so no recipe has an effect
    assert not {"flip", "ten_crop", "pyramid"} & set(spec.final.policies)
    assert spec.space.domains("unfrozen_layers") == (Constant("all"),)


@pytest.mark.parametrize("name", ["trashnet", "full"])
def test_the_six_parameters_of_the_card_vary(name, tmp_path):
    space = load_spec(name, environ=shipped_environment(tmp_path)).space
    for field in ("backbone", "unfrozen_layers", "dropout", "multiplier", "head", "smoothing"):
        options = [value for domain in space.domains(field) for value in domain.values() or ("low", "high")]
        assert len(options) >= 2, field


def test_full_sweep_holds_every_backbone_with_weights_and_every_head(tmp_path):
    space = load_spec("full", environ=shipped_environment(tmp_path)).space
    assert set(space.domains("backbone")[0].values()) == {row.name for row in BACKBONES.values() if row.files}
    assert set(space.domains("head")[0].values()) == set(HEADS)


def test_full_sweep_runs_on_small_data():
    settings = (
        "data.source=builtin:digits weights=none search.backbone=mobilenet_0.25 search.unfrozen_layers=all "
        "search.image_size=32 budget.trials=2 budget.epochs=2 search.head=[softmax,cosface]"
    )
    assert load_spec("full", settings.split(), {}).budget.trials == 2


def test_shipped_trashnet_finds_the_real_photos_and_weights():
    if not os.environ.get("ORCH_DATA") or not os.environ.get("ORCH_WEIGHTS"):
        pytest.skip("ORCH_DATA and ORCH_WEIGHTS name the real photos and weights")
    spec = load_spec("trashnet")
    assert spec.data.splits == "own"
    assert spec.budget.trials >= 16


# There and back


GO_WITH_EVERYTHING = [row.name for row in BACKBONES.values() if row.smallest_size <= 32 and 16 in row.output_strides]
"""Backbones that take every image size and output stride that ``raw_sweeps`` draws."""


@st.composite
def raw_sweeps(draw):
    def value(name):
        rule = FIELDS[name]
        if name == "backbone":
            return draw(st.sampled_from(GO_WITH_EVERYTHING))
        if isinstance(rule, Names):
            return draw(st.sampled_from(list(rule.known())))
        assert isinstance(rule, Numbers)
        if rule.words and draw(st.booleans()):
            return rule.words[0]
        low, high = max(rule.low, 32), min(rule.high, 512)
        return draw(st.integers(int(low), int(high))) if rule.whole else draw(st.floats(0.001, 0.9))

    def case(name):
        rule, kinds = FIELDS[name], ["value", "choice"]
        if isinstance(rule, Numbers):
            kinds += ["int"] if rule.whole else ["uniform", "loguniform"]
        kind = draw(st.sampled_from(kinds))
        if kind == "value":
            return {"value": value(name)}
        if kind == "choice":
            return {"choice": list(dict.fromkeys(value(name) for _ in range(draw(st.integers(1, 3)))))}
        low = draw(st.integers(32, 64)) if kind == "int" else draw(st.floats(0.001, 0.5))
        return {kind: [low, low + 64] if kind == "int" else [low, low + draw(st.floats(0.001, 0.3))]}

    search = {"head": ["softmax", "arcface"]}
    for name in draw(st.lists(st.sampled_from(sorted(set(FIELDS) - {"head", "multiplier"})), unique=True, max_size=6)):
        conditional = {**case(name), "when": {"head": draw(st.sampled_from(["arcface", ["arcface", "normface"]]))}}
        search[name] = draw(st.sampled_from([case(name), conditional, [conditional, case(name)]]))
    text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)
    return {
        "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)),
        "data": {
            "source": draw(text.filter(lambda s: not s.startswith("builtin:"))),
            "seed": draw(st.integers(0, 99)),
            "splits": draw(st.sampled_from([{"train": 0.5, "validation": 0.25, "test": 0.25}, {}])),
        },
        "search": search,
        "budget": {
            "trials": draw(st.integers(1, 999)),
            "epochs": draw(st.integers(2, 99)),
            "hours": draw(st.none() | st.floats(1e-6, 1e6)),
            "scheduler": draw(st.sampled_from(["asha", "none", {"name": "median", "min_trials": 2}, "hyperband"])),
            "sampler": draw(st.sampled_from(["random", {"name": "tpe", "startup_trials": 4}])),
        },
        "tracking": {"tags": draw(st.dictionaries(text, text, max_size=3)), "experiment": draw(text)},
        "resources": {"gpus": draw(st.sampled_from(["auto", 0, 0.25, 1, 2])), "cpus": draw(st.floats(0.1, 64))},
    }


@settings(max_examples=40, deadline=None)
@given(raw=raw_sweeps())
def test_dumped_text_loads_to_an_equal_spec(raw, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "dumped.yaml"
    spec = SweepSpec.model_validate({**raw, "data": {**raw["data"], "source": os.path.abspath(raw["data"]["source"])}})
    file.write_bytes(dump_spec(spec).encode())
    assert load_spec(str(file), (), {}, check_machine=False) == spec


def test_small_numbers_are_numbers_for_every_yaml_tool(load):
    import yaml  # PyYAML reads YAML 1.1

    rates = [1e-05, 0.001, 2.5e-07, 1e-16]
    spec = load(
        "name: n\ndata: {source: 'builtin:digits'}\nweights: none\nsearch:\n  backbone: small_cnn\n"
        "  weight_decay: [1e-05, 0.001, 2.5e-07, 1e-16]\nbudget: {trials: 2, epochs: 2}\n"
    )
    assert yaml.safe_load(dump_spec(spec))["search"]["weight_decay"] == rates
    assert load(dump_spec(spec)) == spec


def test_configurations_survive_a_dump(load):
    spec = load(
        sweep("dropout: 0.1, configurations: [{name: 'no', head: arcface, margin: null}]"), "budget={epochs: 1}"
    )
    assert load(dump_spec(spec)) == spec
    assert [canonical(values).head for _, values in spec.configurations] == ["arcface"]


# Junk

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


# The schema and the table


def test_the_schema_is_one_and_describes_every_field():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    described = 0
    for part in (schema, *(schema["$defs"][name] for name in schema["$defs"] if name.endswith("Spec"))):
        for name, value in part["properties"].items():
            about = schema["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value
            assert about.get("description"), name
            described += 1
    assert described > 40
    assert schema["properties"]["search"]["properties"].keys() == FIELDS.keys() | {"configurations"}


def test_the_schema_finds_what_an_editor_can_find():
    validator, yaml = jsonschema.Draft202012Validator(json_schema()), YAML(typ="safe")
    assert validator.is_valid(
        yaml.load(sweep("dropout: {uniform: [0, 0.5], when: {head: [softmax, arcface]}}, head: arcface"))
    )
    assert validator.is_valid(yaml.load(sweep("configurations: [{name: a, dropout: 0.5}]", ", first: [{dropout: 0}]")))
    wrong = ["dropuot: 1", "dropout: 2", "view: center_crop", "dropout: {unifrom: [0, 1]}", "dropout: []"]
    wrong += ["head: {int: [1, 2]}", "configurations: [{}]", "dropout: {value: 0, choice: [0]}"]
    assert [text for text in wrong if validator.is_valid(yaml.load(sweep(text)))] == []


def test_the_table_of_fields_is_that_of_a_trial():
    assert list(FIELDS) == list(DEFAULTS)
    for name, default in DEFAULTS.items():
        assert FIELDS[name].problem(default) is None, name


def test_loading_a_spec_imports_nothing_heavy():
    code = "import sys; from orchestrator.spec.load import load_spec; load_spec('quick'); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    heavy = {"tensorflow", "keras", "ray", "mlflow", "optuna", "pandas", "numpy", "pyarrow"}
    assert heavy & set(run.stdout.split()) == set()
