"""Features of a backbone of the user's own are found again while it is the same, and never once it was changed."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from tests.support.places import ROOT
from trainers.backbones import Backbone
from trainers.code_digest import digest_of, name_of, own_classes, own_functions
from trainers.config import TrialConfig
from trainers.networks.backbone import build_backbone
from trainers.networks.prefix import Prefix

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
        return Prefix(config.prefix_key("none"), build_backbone(name, "none", 16)).description()

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


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("trainers.builders", "trainers.builders.Layer"),
        ("trainers.networks.builders", "trainers.builders.Layer"),
        ("my_nets.networks.builders", "my_nets.networks.builders.Layer"),
        ("my_nets", "my_nets.Layer"),
    ],
)
def test_a_module_of_trainers_may_move_to_another_package(module: str, name: str) -> None:
    assert name_of(type("Layer", (), {"__module__": module})) == name


def test_code_that_was_made_at_run_time_is_kept_apart() -> None:
    def made(text: str) -> Any:
        names: dict[str, Any] = {}
        exec(f"class Made:\n    def call(self, x):\n        return {text}\n\nlambda_ = lambda x: {text}", names)
        return names

    one, same, other = made("x + 1"), made("x + 1"), made("x + 2")
    for name in ("Made", "lambda_"):
        assert digest_of(one[name]) == digest_of(same[name]) != digest_of(other[name])
    assert digest_of(functools.partial(one["lambda_"], 1)) != digest_of(functools.partial(one["lambda_"], 2))


def test_kerass_layers_and_this_packages_have_no_code_of_the_users_own() -> None:
    from trainers.networks.strides import AlignedConv2D

    ours = AlignedConv2D(pads=(1, 1), replaced_stride=2, filters=2, kernel_size=3)
    for layer in (layers.Conv2D(2, 3, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.1), ours):
        assert (own_classes(layer), own_functions(layer)) == ([], [])
    mine = layers.Activation(skip)
    assert (own_classes(mine), own_functions(mine)) == ([], [skip])


HELD = """
import functools

STRENGTH = {strength}


def helper(x):
    return x + {helper}


def plain(x, by={default}):
    return helper(x) * STRENGTH + by


def made(far):
    def inner(x):
        return x * far
    return inner


class Jitter:
    kind = {kind}

    def __init__(self, far):
        self.far, self.seen, self.me = far, [], self

    def __call__(self, x):
        return x * self.far * self.kind

    def bound(self, x):
        return x


captured = made({captured})
called = Jitter({state})
bound = called.bound
partial = functools.partial(plain, by={default})
"""
HELD_PLAIN = {"strength": "1", "helper": "1", "default": "1", "kind": "1", "captured": "1", "state": "1"}
READS = {
    "plain": {"strength", "helper", "default"},
    "captured": {"captured"},
    "called": {"kind", "state"},
    "bound": {"kind", "state"},
    "partial": {"strength", "helper", "default"},
}


def test_what_code_captures_and_names_in_its_module_is_part_of_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def digests(**changes: str) -> dict[str, str]:
        (tmp_path / "my_code.py").write_text(HELD.format(**HELD_PLAIN | changes))
        sys.modules.pop("my_code", None)
        importlib.invalidate_caches()
        module = importlib.import_module("my_code")
        return {name: digest_of(getattr(module, name)) for name in READS}

    try:
        first = digests()
        assert digests() == first
        for part in HELD_PLAIN:
            changed = digests(**{part: "2"})
            assert {name for name in READS if changed[name] != first[name]} == {
                n for n, r in READS.items() if part in r
            }
    finally:
        sys.modules.pop("my_code", None)


def test_a_file_edited_since_changes_nothing_of_the_code_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "my_edited.py"
    file.write_text(HELD.format(**HELD_PLAIN))
    module = importlib.import_module("my_edited")
    before = digest_of(module.plain), digest_of(type(module.called))
    file.write_text(HELD.format(**HELD_PLAIN | {"helper": "1000", "kind": "1000"}))
    os.utime(file, (1e9, 1e9))
    assert (digest_of(module.plain), digest_of(type(module.called))) == before


def test_digests_are_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "my_lasting.py").write_text(HELD.format(**HELD_PLAIN | {"captured": "frozenset('abcdefgh')"}))
    ask = "import my_lasting; from trainers.code_digest import digest_of; "
    ask += f"print([digest_of(getattr(my_lasting, name)) for name in {list(READS)}])"
    answers = set()
    for seed in ("1", "2", "3"):  # the second and third load what the first has compiled
        told = {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | told
        answers.add(
            subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, check=True).stdout
        )
    assert len(answers) == 1


class Scaled(layers.Layer):
    """A layer of the user's own whose settings leave out what it does."""

    def __init__(self, factor: float, **values: Any) -> None:
        super().__init__(**values)
        self._factor = factor

    def call(self, x: Any) -> Any:
        return x * self._factor


class Leak:
    """An activation that is an object."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def __call__(self, x: Any) -> Any:
        return keras.ops.maximum(x, x * self.slope)


def leaky(slope: float) -> Callable[[Any], Any]:
    def inner(x: Any) -> Any:
        return keras.ops.maximum(x, x * slope)

    return inner


@pytest.mark.parametrize(
    "made",
    [
        lambda value: Scaled(value),
        lambda value: layers.Conv2D(4, 3, activation=leaky(value)),
        lambda value: layers.Activation(Leak(value)),
    ],
)
def test_what_settings_leave_out_is_part_of_the_key(
    description: Callable[[Build], dict[str, Any]], made: Callable[[float], layers.Layer]
) -> None:
    keys = [description(lambda start, by=by: made(by)(start))["layers"] for by in (0.1, 0.1, 0.3)]
    assert keys[0] == keys[1] != keys[2]
