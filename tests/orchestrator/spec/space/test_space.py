"""The space: order, conditions, there and back, what the samplers take."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.spec.space.domains import Choice, Constant, IntRange, Uniform
from orchestrator.spec.space.space import Case, Space, find_circle
from tests.support.spaces import DEPTHS, HEADS, MARGINS
from trainers.config import canonical


def low(name, domain):
    return domain.low if isinstance(domain, Uniform | IntRange) else domain.values()[0]


def high(name, domain):
    return domain.high if isinstance(domain, Uniform | IntRange) else domain.values()[-1]


def test_fields_come_after_what_their_conditions_name():
    space = Space.of(
        {"backbone": [Case(Constant("vgg16"), (("margin", (0.2,)),))], "margin": [MARGINS], "head": [HEADS]}
    )
    assert [field.name for field in space.fields] == ["head", "margin", "backbone"]


def test_order_does_not_depend_on_how_the_file_is_written():
    assert Space.of(DEPTHS) == Space.of(dict(reversed(DEPTHS.items())))


def test_a_circle_of_conditions_is_named():
    cases = {"head": [Case(Constant("softmax"), (("margin", (0.2,)),))], "margin": [MARGINS]}
    assert find_circle(cases) == ("head", "margin", "head")
    with pytest.raises(SpecError, match="cycle: head -> margin -> head"):
        Space.of(cases)
    assert find_circle(DEPTHS) == ()


def test_the_first_matching_case_names_the_parameter():
    asked = {}

    def pick(name, domain):
        asked[name] = domain
        return low(name, domain)

    assert Space.of(DEPTHS).resolve(pick) == {"unfrozen_layers": 0, "learning_rate": 1e-3}
    assert list(asked) == ["unfrozen_layers", "learning_rate@0"]
    asked.clear()
    assert Space.of(DEPTHS).resolve(lambda n, d: "all" if n == "unfrozen_layers" else pick(n, d)) == {
        "unfrozen_layers": "all",
        "learning_rate": 1e-4,
    }
    assert list(asked) == ["learning_rate@1"]
    assert list(Space.of(DEPTHS).parameters()) == ["unfrozen_layers", "learning_rate@0", "learning_rate@1"]


def test_without_a_matching_case_a_field_keeps_its_default():
    space = Space.of({"head": [HEADS], "margin": [MARGINS]})
    assert space.resolve(low) == {"head": "softmax", "margin": None}
    assert space.resolve(high) == {"head": "arcface", "margin": 0.5}


def test_a_condition_on_a_field_outside_the_space_reads_its_default():
    space = Space.of({"dropout": [Case(Constant(0.3), (("head", ("softmax",)),)), Case(Constant(0.1))]})
    assert space.resolve(low) == {"dropout": 0.3}


def test_grid_honours_conditions_and_size_counts_canonical_configurations():
    space = Space.of(
        {"head": [HEADS], "margin": [Case(Choice((0.1, 0.2)))], "batch_size": [Case(IntRange(16, 48, 16))]}
    )
    assert len(list(space.grid())) == 3 * 2 * 3
    assert space.size() == (1 + 2 + 2) * 3  # softmax has no margin
    conditional = Space.of({"head": [HEADS], "margin": [Case(Choice((0.1, 0.2)), MARGINS.when)]})
    assert len(list(conditional.grid())) == conditional.size() == 5
    assert list(Space.of({}).grid()) == [{}]


def test_size_is_unknown_for_continuous_or_huge_spaces():
    assert Space.of({"dropout": [Case(Uniform(0, 0.5))]}).size() is None
    assert Space.of({"batch_size": [Case(IntRange(1, 60_000))]}).size() is None
    unreachable = Space.of({"margin": [MARGINS], "head": [Case(Constant("softmax"))]})
    assert unreachable.size() == 1


def test_grid_refuses_a_continuous_range():
    with pytest.raises(
        SpecError, match=r"dropout is a number from 0 to 0\.5, a continuous range, which cannot be enumerated"
    ):
        list(Space.of({"dropout": [Case(Uniform(0, 0.5))]}).grid())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"head": "softmax"}, None),
        ({"head": "softmax", "epochs": 7}, None),
        ({"head": "softmax", "optimizer": "adam"}, None),
        ({"head": "cosface", "margin": 0.3}, None),
        ({"head": "cosface"}, "margin is left out, but it varies here; give it a value: a number from 0.1 to 0.5"),
        ({"head": "cosface", "margin": 0.6}, "margin is 0.6; allowed here: a number from 0.1 to 0.5"),
        ({"head": "normface"}, 'head is "normface"; allowed here: one of "softmax", "cosface", "arcface"'),
        ({"head": "softmax", "optimizer": "sgd"}, 'optimizer is "sgd", but it is not searched here and stays "adam"'),
        ({"head": "softmax", "dropuot": 1}, "there is no field dropuot; known are backbone, "),
        ({"head": "softmax", "backbone": "vg16"}, "there is no backbone 'vg16'; did you mean vgg16?"),
    ],
)
def test_contains(values, sentence):
    answer = Space.of({"head": [HEADS], "margin": [MARGINS]}).contains(values)
    assert answer is None if sentence is None else answer.startswith(sentence)


def test_fixed_fields_may_be_left_out_of_a_configuration():
    space = Space.of({"dropout": [Case(Constant(0.3))], "smoothing": [Case(Choice((0.0, 0.1)))]})
    assert space.parameters_for({"smoothing": 0.1}) == {"smoothing": 0.1}
    assert space.parameters_for({"smoothing": 0.1, "dropout": 0.3}) == {"smoothing": 0.1}
    with pytest.raises(SpecError, match=r"dropout is 0\.2; allowed here: 0\.3"):
        space.parameters_for({"smoothing": 0.1, "dropout": 0.2})
    with pytest.raises(SpecError, match="there is no field color"):
        space.parameters_for({"color": 1})


def test_parameters_for_undoes_what_canonical_drops():
    space = Space.of(
        {
            "head": [HEADS],
            "margin": [Case(Choice((0.2, 0.4)))],
            "unfrozen_layers": [Case(IntRange(80, 100))],
            "image_size": [Case(IntRange(128, 224, 32))],
            "multiplier": [Case(Choice((1.0, 2.0)))],
            "recipe": [Case(Choice(("contest", "rich")))],
            "smoothing": [Case(Constant(0.1), (("recipe", ("rich",)),))],
        }
    )
    raw = {
        "head": "softmax",
        "margin": 0.4,
        "unfrozen_layers": 97,
        "image_size": 224,
        "multiplier": 1.0,
        "recipe": "rich",
        "smoothing": 0.1,
    }
    config = canonical(raw)
    assert (config.margin, config.unfrozen_layers, config.image_size, config.recipe) == (None, "all", None, "flips")
    parameters = space.parameters_for(config.to_dict())
    assert parameters["recipe"] == "rich"  # the only one that leads to this smoothing
    assert canonical(space.resolve(lambda name, _: parameters[name])) == config


BATCHES = {
    "backbone": [Case(Choice(("mobilenet_1.0", "vgg16")))],
    "batch_size": [
        Case(Choice((64, 128)), (("backbone", ("mobilenet_1.0",)),), gpu_memory_gb=8),
        Case(Choice((32, 64)), gpu_memory_gb=16),
        Case(Choice((16, 32))),
    ],
}


@pytest.mark.parametrize(
    ("memory_gb", "parameters", "sizes"),
    [
        (0, {"backbone", "batch_size"}, {(16, 32)}),
        (7.9, {"backbone", "batch_size"}, {(16, 32)}),
        (8, {"backbone", "batch_size@0", "batch_size@1"}, {(64, 128), (16, 32)}),
        (16, {"backbone", "batch_size@0", "batch_size@1"}, {(64, 128), (32, 64)}),
        (80, {"backbone", "batch_size@0", "batch_size@1"}, {(64, 128), (32, 64)}),
    ],
)
def test_the_gpu_decides_which_cases_there_are(memory_gb, parameters, sizes):
    space = Space.of(BATCHES).on_gpu(memory_gb)
    assert set(space.parameters()) == parameters
    assert {domain.options for domain in space.domains("batch_size")} == sizes
    assert not any(case.gpu_memory_gb for field in space.fields for case in field.cases)
    assert space.on_gpu(0) == space  # nothing is asked any more
    mobile = next(values for values in space.grid() if values["backbone"] == "mobilenet_1.0")
    assert (mobile["batch_size"] == 64) == (memory_gb >= 8)


def test_before_the_gpu_is_known_all_its_cases_are_checked_and_none_applies():
    space = Space.of(BATCHES)
    assert {domain.options for domain in space.domains("batch_size")} == {(64, 128), (32, 64), (16, 32)}
    assert {values["batch_size"] for values in space.grid()} == {16, 32}


def test_without_the_gpu_a_field_keeps_its_default():
    space = Space.of({"batch_size": [Case(Constant(64), gpu_memory_gb=16)]})
    assert space.domains("batch_size") == (Constant(64), Constant(32))
    assert space.on_gpu(15.9) == Space(())
    assert space.on_gpu(16) == Space.of({"batch_size": [Case(Constant(64))]})
    assert not space.on_gpu(16).is_conditional


def test_without_a_value_the_cases_that_need_it_are_gone():
    backbones = ("vgg16", "small_cnn", "mobilenet_1.0")
    deep, head = Choice((0, 3, 11)), Choice((0, 5))
    wide = {
        "backbone": [Case(Choice(backbones))],
        "unfrozen_layers": [Case(deep, (("backbone", ("vgg16",)),)), Case(head)],
        "hidden": [Case(Constant(64), (("unfrozen_layers", (11,)),))],
    }
    narrow = {"backbone": [Case(Choice(backbones[1:]))], "unfrozen_layers": [Case(head)]}
    assert Space.of(wide).without("backbone", ["vgg16"]) == Space.of(narrow)
    kept = Space.of(wide).without("backbone", ["small_cnn"])
    assert kept.field("unfrozen_layers") == Space.of(wide).field("unfrozen_layers")


POOL = {
    "backbone": [Constant("mobilenet_1.0"), Choice(("mobilenet_1.0", "small_cnn", "vgg16"))],
    "unfrozen_layers": [Choice((0, 13, "all")), IntRange(0, 100, 20), Choice((86, "all"))],
    "head": [Constant("arcface"), Choice(("softmax", "cosface", "normface"))],
    "margin": [Constant(0.2), Choice((None, 0.2, 0.4)), Uniform(0.1, 0.5)],
    "scale": [Choice((None, 30.0)), Uniform(5.0, 60.0, log=True)],
    "multiplier": [Constant(1.0), Choice((1.0, 2.0, 5.0))],
    "recipe": [Choice(("flips", "rich")), Choice(("contest", "none"))],
    "image_size": [Choice((None, 224, 96)), IntRange(32, 224, 32)],
    "learning_rate": [Uniform(1e-4, 1e-2, log=True), Choice((1e-3, 1e-2))],
    "batch_size": [IntRange(16, 64, 16), IntRange(1, 32, log=True)],
}


@st.composite
def spaces(draw):
    order = draw(st.permutations(list(POOL)))[: draw(st.integers(1, 7))]
    cases = {}
    for position, name in enumerate(order):
        found = []
        for _ in range(draw(st.integers(1, 3))):
            when = {}
            for other in draw(st.lists(st.sampled_from(order[:position]), max_size=2)) if position else []:
                options = [v for domain in POOL[other] if not isinstance(domain, Uniform) for v in domain.values()]
                when[other] = tuple(dict.fromkeys(draw(st.lists(st.sampled_from(options), min_size=1, max_size=3))))
            memory = draw(st.sampled_from([0, 0, 0, 8, 16]))
            found.append(Case(draw(st.sampled_from(POOL[name])), tuple(when.items()), memory))
        cases[name] = found
    return Space.of(cases)


def picker(draw):
    def pick(name, domain):
        if isinstance(domain, Uniform):
            return draw(st.floats(domain.low, domain.high))
        return draw(st.sampled_from(list(domain.values())))

    return pick


@settings(max_examples=150, deadline=None)
@given(space=spaces(), memory_gb=st.sampled_from([None, 0, 8, 16]), data=st.data())
def test_parameters_for_is_the_inverse_of_resolve(space, memory_gb, data):
    space = space if memory_gb is None else space.on_gpu(memory_gb)
    pick = picker(data.draw)
    asked = {}

    def note(name, domain):
        assert name not in asked
        assert space.parameters()[name] == domain
        asked[name] = pick(name, domain)
        return asked[name]

    raw = space.resolve(note)
    config = canonical({**raw, "epochs": 4})
    for values in (raw, config.to_dict()):
        assert space.contains(values) is None
        parameters = space.parameters_for(values)
        again = space.resolve(lambda name, _, known=parameters: known[name])
        assert canonical({**again, "epochs": 4}) == config
    assert space.resolve(lambda name, _: asked[name]) == raw


@settings(max_examples=80, deadline=None)
@given(space=spaces())
def test_every_combination_of_the_grid_lies_in_the_space(space):
    size = space.size()
    if size is None:
        return
    seen = {canonical(values) for values in space.grid()}
    assert len(seen) == size
    assert [values for values in list(space.grid())[:20] if space.contains(values)] == []
