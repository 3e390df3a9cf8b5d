"""One searched field: its forms, and every mistake in it."""

from __future__ import annotations

import pytest

from orchestrator.spec.space.domains import Choice, Constant, IntRange, Uniform
from orchestrator.spec.space.fields import FIELDS
from orchestrator.spec.space.space import Case, Space
from tests.support.sweep_files import mistakes, practice, sweep
from trainers.backbones import BACKBONES, Backbone

SMALL_BACKBONE = Backbone("mine", "my:builder", preprocessing="tf", native_size=64, smallest_size=8, layers=3)
"""A user's own backbone, found by its dotted name."""


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
    assert load(sweep(text)).space == Space.of({name: cases, **practice()})


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
    (
        "head: 'nowhere_at_all:X'",
        "3:16: search.head: the head 'nowhere_at_all:X' cannot be imported: there is no module nowhere_at_all",
    ),
    ("head: ':X'", '3:16: search.head: found ":X". Allowed: softmax'),
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
        '3:16: search.loss: found "binary_crossentropy"; it treats every class as a separate yes/no ',
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
        "3:19: search.dropout: this list mixes plain values and cases; write each plain value as a ",
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
        "3:56: search.dropout: its conditions form a cycle: dropout -> head -> dropout.",
    ),
    (
        "image_size: 16",
        "3:22: search.image_size: 16 pixels are too few for mobilenet_1.0; use at least 32.",
    ),
    (
        "backbone: [small_cnn, vgg16, resnet50], image_size: {int: [16, 64], step: 16}",
        "3:62: search.image_size: 16 pixels are too few for vgg16, resnet50; use at least 32.",
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
