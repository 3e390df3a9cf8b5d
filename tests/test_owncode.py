"""Features of a backbone of the user's own are found again while it is the same, and never once it was changed."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from trainers.backbones import Backbone
from trainers.contract import TrialConfig
from trainers.model import Architecture, Prefix, build_backbone
from trainers.owncode import digest_of, own_classes, own_functions

Build = Callable[[keras.KerasTensor], keras.KerasTensor]
ROW = Backbone("mine", f"{__name__}:build_mine", "tf", 16, 16, 3, imagenet=False)


def build_mine(**_: Any) -> keras.Model:
    raise AssertionError("each test puts its own in this place")


@pytest.fixture
def description(monkeypatch: pytest.MonkeyPatch) -> Callable[[Build], dict[str, Any]]:
    """What the store knows a backbone by that does so to its images, at the end of its last layer."""

    def description(build: Build) -> dict[str, Any]:
        def build_mine(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
            start = keras.Input(input_shape)
            return keras.Model(start, build(start))

        monkeypatch.setitem(globals(), "build_mine", build_mine)
        name = f"{__name__}:ROW"
        config = TrialConfig(backbone=name, image_size=16, unfrozen_layers=0)
        return Prefix(Architecture.of(config, "none", 2), build_backbone(name, "none", 16)).description()

    return description


def skip(from_relu: bool, turned: bool = False) -> Build:
    """Two convolutions; what is added to the second comes from before the activation between them, or from after."""

    def build(start: keras.KerasTensor) -> keras.KerasTensor:
        x = layers.Conv2D(4, 3, name="first")(start)
        y = layers.ReLU()(x)
        z = layers.Conv2D(4, 3, padding="same", name="second")(y)
        pair = [y if from_relu else x, z]
        return layers.Subtract()(pair[::-1] if turned else pair)

    return build


def inside(build: Build, factor: float = 1.0) -> Build:
    """The same in a model within the model, times a number that no layer holds."""

    def outer(start: keras.KerasTensor) -> keras.KerasTensor:
        inner = keras.Input(start.shape[1:])
        return layers.ReLU()(keras.Model(inner, build(inner) * factor)(start))

    return outer


def test_what_feeds_what_is_part_of_the_key(description: Callable[[Build], dict[str, Any]]) -> None:
    wired = [skip(False), skip(True), skip(False, turned=True)]
    builds = [*wired, *map(inside, wired), inside(wired[0], 2.0)]
    found = [description(build) for build in builds]
    assert [description(build) for build in builds] == found, "names that Keras counts up are part of the key"
    assert len({each["layers"] for each in found}) == len(builds) == 7
    for each in found[1:3]:  # no other part tells them apart
        assert each | {"layers": ""} == found[0] | {"layers": ""}


MODULE = """
import keras
from keras import layers


def bent(x):
    return {function}


class Inner(layers.Layer):
    def call(self, x):
        return {inner}


class Base(layers.Layer):
    def call(self, x):
        return {base}


class Block(Base):
    def __init__(self, **values):
        super().__init__(**values)
        self.inner = Inner()

    def call(self, x):
        return self.inner(super().call(x)) * {block}


def build(start):
    body = keras.Sequential([layers.Conv2D(4, 3, activation=bent), Block()])
    return body(start)
"""
PLAIN = {"function": "x", "inner": "x", "base": "x", "block": "1.0"}


def test_code_of_layers_and_functions_is_part_of_the_key(
    description: Callable[[Build], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def written(**changes: str) -> str:
        (tmp_path / "my_layers.py").write_text(MODULE.format(**PLAIN | changes))
        sys.modules.pop("my_layers", None)
        importlib.invalidate_caches()
        return description(importlib.import_module("my_layers").build)["layers"]

    try:
        first = written()
        changed = [written(**{part: f"{value} + 0.5"}) for part, value in PLAIN.items()]
        assert len({first, *changed}) == 1 + len(PLAIN) == 5
        assert written() == first
    finally:
        sys.modules.pop("my_layers", None)


def test_code_that_was_made_at_run_time_is_told_apart() -> None:
    def made(text: str) -> Any:
        names: dict[str, Any] = {}
        exec(f"class Made:\n    def call(self, x):\n        return {text}\n\nlambda_ = lambda x: {text}", names)
        return names

    one, same, other = made("x + 1"), made("x + 1"), made("x + 2")
    for name in ("Made", "lambda_"):
        assert digest_of(one[name]) == digest_of(same[name]) != digest_of(other[name])
    assert digest_of(functools.partial(one["lambda_"], 1)) != digest_of(functools.partial(one["lambda_"], 2))


def test_kerass_layers_and_this_packages_have_no_code_of_the_users_own() -> None:
    from trainers.strides import AlignedConv2D

    ours = AlignedConv2D(pads=(1, 1), replaced_stride=2, filters=2, kernel_size=3)
    for layer in (layers.Conv2D(2, 3, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.1), ours):
        assert (own_classes(layer), own_functions(layer)) == ([], [])
    mine = layers.Activation(skip)
    assert (own_classes(mine), own_functions(mine)) == ([], [skip])
