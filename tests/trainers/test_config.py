"""A configuration: its canonical form, its id, and what of it decides the frozen part."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trainers.backbones import backbone
from trainers.config import PrefixConfig, PrefixKey, TrialConfig, canonical, evaluated, parts_of, trial_id
from trainers.errors import TrainerError

CONFIG = TrialConfig(backbone="small_cnn")
OTHER = {
    **{"backbone": "vgg16", "unfrozen_layers": 2, "image_size": 64, "output_stride": 16, "feature_fusion": "sum"},
    **{"pooling": "max", "mixup": 0.2, "cutmix": 1.0, "head": "arcface", "hidden": 8},
    **{"dropout": 0.5, "multiplier": 2.0, "smoothing": 0.1, "view": "centre_crop", "learning_rate": 0.1},
    **{"optimizer": "sgd", "weight_decay": 0.1, "batch_size": 8, "schedule": "constant", "warmup": 0.1},
    **{"clip_norm": 1.0, "scale": 9.0, "margin": 0.5, "recipe": "rand", "balance": "sampling", "epochs": 3},
    **{"loss": "categorical_focal_crossentropy", "copies": "proportional", "steps": "originals"},
    **{"batch_norm": "measured", "bottom_rate": 0.1, "margin_warmup": 0.5, "ema": 0.99, "warm_head": 2},
    **{"accumulation_steps": 4, "draws": "fresh", "decode": "needed"},
}
"""Another value for each field."""
DECIDES_THE_PREFIX = {
    *("backbone", "unfrozen_layers", "image_size", "output_stride", "feature_fusion", "pooling", "mixup", "cutmix")
}


def test_a_new_field_is_sorted_into_those_that_decide_the_prefix_and_the_others() -> None:
    assert set(OTHER) == {field.name for field in dataclasses.fields(TrialConfig)}


@pytest.mark.parametrize("field", OTHER)
def test_the_prefix_is_decided_by_its_fields_alone(field: str) -> None:
    other = dataclasses.replace(CONFIG, **{field: OTHER[field]})
    assert (other.prefix() != CONFIG.prefix()) == (field in DECIDES_THE_PREFIX)
    assert (other.prefix_key("none") != CONFIG.prefix_key("none")) == (field in DECIDES_THE_PREFIX)


def test_the_architecture_adds_what_is_above_the_prefix() -> None:
    from trainers.networks.network import Architecture

    plain = Architecture.of(CONFIG, "none", 3)
    changed = {
        name
        for name, value in OTHER.items()
        if Architecture.of(dataclasses.replace(CONFIG, **{name: value}), "none", 3) != plain
    }
    assert changed == DECIDES_THE_PREFIX | {"head", "hidden", "batch_norm"}
    assert plain != Architecture.of(CONFIG, "none", 4)


def test_a_key_holds_the_weights_and_the_precision() -> None:
    assert CONFIG.prefix_key("imagenet") != CONFIG.prefix_key("none")
    assert CONFIG.prefix_key("none", "mixed_float16").precision == "mixed_float16"
    assert dataclasses.asdict(CONFIG.prefix_key("none")) == {**dataclasses.asdict(CONFIG.prefix()), "weights": "none"}
    assert CONFIG.prefix() != PrefixKey(**vars(CONFIG.prefix()), weights="")


@pytest.mark.parametrize(("size", "resolved"), [(None, 299), (150, 150)])
def test_the_native_size_is_the_default(size: int | None, resolved: int) -> None:
    config = TrialConfig(backbone="xception", image_size=size)
    assert backbone("xception").native_size == 299
    assert config.resolved_image_size == config.prefix().image_size == resolved


@pytest.mark.parametrize(
    ("key", "reads"),
    [
        (PrefixConfig("vgg16", 32, 0), False),
        (PrefixConfig("vgg16", 32, 5), False),
        (PrefixConfig("vgg16", 32, "all"), True),
        (PrefixConfig("vgg16", 32, 0, mixes=True), True),
    ],
)
def test_rows_are_images_if_nothing_is_frozen_or_images_are_mixed(key: PrefixConfig, reads: bool) -> None:
    assert key.reads_images is reads


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
    assert len(ids) == 1 + len(dataclasses.fields(TrialConfig)) == 38


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"backbone": "mobilenet_1.0", "image_size": 224}),
        ({}, {"dropout": 0, "multiplier": 1}),
        ({}, {"margin": 0.3, "scale": 12.0}),
        ({}, {"recipe": "contest"}),
        ({}, {"copies": "proportional", "steps": "originals"}),
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


FRESH = {"draws": "fresh"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"unfrozen_layers": "all", "multiplier": 2}, "fresh"),
        ({"unfrozen_layers": 9999, "multiplier": 2}, "fresh"),
        ({"unfrozen_layers": "all", "view": "random_crop"}, "fresh"),
        ({"mixup": 0.2, "multiplier": 2}, "fresh"),
        ({"cutmix": 1, "view": "random_crop"}, "fresh"),
        ({"unfrozen_layers": "all"}, "fixed"),
        ({"unfrozen_layers": "all", "multiplier": 2, "recipe": "none"}, "fixed"),
        ({"unfrozen_layers": 20, "multiplier": 2}, "fixed"),
        ({"view": "random_crop"}, "fixed"),
        ({"mixup": 0.2}, "fixed"),
    ],
)
def test_draws_are_fresh_where_the_configuration_alone_allows_it(values: dict, expected: str):
    config = canonical(FRESH | values)
    assert config.draws == expected
    assert canonical(values).draws == "fixed"
    assert config.draws == "fixed" or config.prefix().reads_images


def test_the_framing_names_how_a_jpeg_is_decoded_only_where_it_is_not_as_it_was() -> None:
    assert CONFIG.framing == "squash"
    other = dataclasses.replace(CONFIG, view="random_crop", decode="needed")
    assert other.framing == "random_crop+needed"
    assert evaluated(other.framing) == "centre_crop+needed"
    assert [parts_of(framing) for framing in (CONFIG.framing, other.framing)] == [
        ("squash", "ample"),
        ("random_crop", "needed"),
    ]
