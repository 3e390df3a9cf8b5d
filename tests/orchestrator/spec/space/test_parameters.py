"""What a space says about its trials: which parameter applied where, and on which scale."""

from __future__ import annotations

import numpy as np

from orchestrator.spec.space.parameters import searched_parameters
from orchestrator.spec.space.section import Search, read_search
from trainers.config import canonical


def configs(*given: dict[str, object]) -> list[dict[str, object]]:
    return [canonical(values).to_dict() for values in given]


SEARCH = read_search(
    {
        "backbone": ["mobilenet_1.0", "resnet50", "vgg16"],
        "head": ["softmax", "cosface"],
        "margin": [{"when": {"head": "cosface"}, "uniform": [0.1, 0.5]}],
        "learning_rate": {"loguniform": [1e-5, 1e-2]},
        "image_size": [None, 128],
        "pooling": "average",
    }
)


def trial(backbone: str, head: str, rate: float, **more: object) -> dict[str, object]:
    return {"backbone": backbone, "head": head, "learning_rate": rate, **more}


def test_a_conditional_parameter_applies_where_its_condition_held() -> None:
    found = searched_parameters(
        SEARCH,
        0,
        configs(
            trial("vgg16", "softmax", 1e-3),
            trial("resnet50", "cosface", 1e-4, margin=0.25, image_size=128),
            trial("resnet50", "cosface", 1e-5, margin=0.4),
        ),
    )
    by_name = {parameter.name: parameter for parameter in found}
    assert list(by_name) == ["backbone", "head", "image_size", "learning_rate", "margin"]
    assert by_name["backbone"].levels == ("mobilenet_1.0", "resnet50", "vgg16")
    margin = by_name["margin"]
    assert (margin.applies.tolist(), margin.values[1:], margin.levels) == ([False, True, True], (0.25, 0.4), ())
    assert margin.label == "margin (head cosface)"
    rate = by_name["learning_rate"]
    assert (rate.log, rate.low, rate.high, rate.levels) == (True, 1e-5, 1e-2, ())
    assert by_name["image_size"].applies.all()
    assert by_name["image_size"].levels == (None, 128)


def test_what_does_not_vary_is_left_out_and_trials_outside_the_space_have_no_values() -> None:
    inside = trial("vgg16", "softmax", 1e-3)
    found = searched_parameters(
        SEARCH, 0, configs(inside, trial("vgg16", "softmax", 1e-4), trial("xception", "softmax", 1.0))
    )
    assert [parameter.name for parameter in found] == ["learning_rate"]
    assert found[0].applies.tolist() == [True, True, False]


def test_named_configurations_have_the_fields_that_differ() -> None:
    search = Search(SEARCH.space, (("plain", ()), ("smooth", (("smoothing", 0.1),))))
    found = searched_parameters(search, 0, configs({}, {"smoothing": 0.1}))
    assert [(parameter.name, parameter.levels) for parameter in found] == [("smoothing", (0.0, 0.1))]
    assert found[0].applies.dtype == np.bool_
