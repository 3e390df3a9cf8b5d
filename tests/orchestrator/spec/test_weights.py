"""The ``weights`` field."""

from __future__ import annotations

import re

from orchestrator.spec.space.domains import DEFAULTS
from tests.support.sweep_files import mistakes, sweep


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
