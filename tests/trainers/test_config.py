"""What of a configuration decides its network, and what only trains it."""

from __future__ import annotations

import dataclasses

import pytest

from trainers.backbones import backbone
from trainers.config import PrefixConfig, PrefixKey, TrialConfig

CONFIG = TrialConfig(backbone="small_cnn")
OTHER = {
    **{"backbone": "vgg16", "unfrozen_layers": 2, "image_size": 64, "output_stride": 16, "feature_fusion": "sum"},
    **{"pooling": "max", "mixup": 0.2, "cutmix": 1.0, "head": "arcface", "hidden": 8},
    **{"dropout": 0.5, "multiplier": 2.0, "smoothing": 0.1, "view": "centre_crop", "learning_rate": 0.1},
    **{"optimizer": "sgd", "weight_decay": 0.1, "batch_size": 8, "schedule": "constant", "warmup": 0.1},
    **{"clip_norm": 1.0, "scale": 9.0, "margin": 0.5, "recipe": "rand", "balance": "sampling", "epochs": 3},
    "loss": "categorical_focal_crossentropy",
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
    assert changed == DECIDES_THE_PREFIX | {"head", "hidden"}
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
