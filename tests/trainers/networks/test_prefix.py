"""The boundary: where the frozen part ends, and the description by which its features are found."""

from __future__ import annotations

import dataclasses

import keras
import pytest

from tests.support.networks import architecture_of
from trainers.backbones import Backbone
from trainers.config import TrialConfig
from trainers.errors import TrainerError
from trainers.networks.backbone import build_backbone
from trainers.networks.prefix import Prefix, boundary_index, prefix_length


@pytest.mark.parametrize(
    ("name", "unfrozen", "cut"),
    [
        ("mobilenet_v2", 0, "out_relu"),
        ("mobilenet_v2", 4, "block_16_project"),
        ("mobilenet_v2", 11, "block_15_add"),
        ("mobilenet_v2", 13, "block_14_add"),
        ("mobilenet_v2", 17, "block_14_add"),
        ("mobilenet_v2", 23, "block_13_project_BN"),
        ("resnet50", 3, "conv5_block2_out"),
        ("resnet50", 12, "conv5_block1_out"),
        ("small_cnn", 3, "conv_2_relu"),
        ("small_cnn", "all", ""),
        ("small_cnn", 9, ""),
    ],
)
def test_the_prefix_ends_at_the_nearest_single_tensor(name, unfrozen, cut):
    prefix = Prefix(architecture_of(name, unfrozen).prefix)
    assert prefix.layer == cut
    assert prefix.is_identity == (cut == "")
    assert prefix.length <= boundary_index(prefix.model, unfrozen)


def test_a_description_changes_with_all_that_the_features_depend_on(tmp_path):
    def description(unfrozen=0, weights="none", size=32, precision="float32", **values):
        chosen = TrialConfig(
            backbone="tests.support.tiny_fits:TINY", image_size=size, unfrozen_layers=unfrozen, **values
        )
        return Prefix(chosen.prefix_key(weights, precision)).description()

    folders = []
    for seed in (5, 6):
        folders.append(tmp_path / str(seed))
        folders[-1].mkdir()
        build_backbone("small_cnn", "none", 32, seed=seed).save_weights(folders[-1] / "tiny_32.weights.h5")
    different = [
        description(),
        description(unfrozen=3),
        description(size=64),
        description(pooling="max"),
        description(precision="mixed_bfloat16"),
        *(description(weights=str(folder)) for folder in folders),
    ]
    assert len({str(d) for d in different}) == 7
    assert description(head="arcface", dropout=0.5, learning_rate=1.0) == different[0]


VIT = "tests.support.tiny_fits:VIT"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"backbone": "small_cnn", "pooling": "token"}, "small_cnn is convolutional and has no class token"),
        ({"backbone": VIT, "feature_fusion": "concat"}, "tiny_vit is a transformer and has no stages to fuse"),
        (
            {"backbone": VIT, "image_size": 18},
            "tiny_vit cuts images into patches of 4 px, so 18 px are not possible; the nearest sizes are 16 and 20",
        ),
        ({"backbone": VIT, "output_stride": 16}, "tiny_vit cannot have output stride 16; it takes 32"),
    ],
)
def test_what_a_backbone_cannot_do_is_a_sentence(values, sentence):
    with pytest.raises(TrainerError, match=sentence):
        _ = Prefix(TrialConfig(**{"image_size": 16} | values).prefix_key("none")).model


def test_features_of_a_token_and_of_a_mean_are_kept_apart_and_tokens_are_shared():
    def description(pooling: str, unfrozen: int) -> dict:
        chosen = TrialConfig(backbone=VIT, image_size=16, pooling=pooling, unfrozen_layers=unfrozen)
        return Prefix(chosen.prefix_key("none")).description()

    assert description("token", 0) != description("average", 0)
    assert description("token", 1) == description("average", 1)


def build_with_slope(slope: float):
    def build(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
        inputs = keras.Input(input_shape)
        inner = keras.Sequential([keras.layers.ReLU(negative_slope=slope), keras.layers.ReLU()])
        return keras.Model(inputs, inner(keras.layers.Conv2D(4, 3)(inputs)))

    return build


SLOPED = Backbone("sloped", f"{__name__}:build_sloped", "tf", 16, 16, 3, imagenet=False)


def test_a_backbone_that_was_rewritten_under_its_name_has_another_description(monkeypatch):
    def description(slope: float, preprocessing: str = "tf") -> dict:
        row = dataclasses.replace(SLOPED, preprocessing=preprocessing)
        monkeypatch.setitem(globals(), "SLOPED", row)
        monkeypatch.setitem(globals(), "build_sloped", build_with_slope(slope))
        chosen = TrialConfig(backbone=f"{__name__}:SLOPED", image_size=16, unfrozen_layers=0)
        model = build_backbone(chosen.backbone, "none", 16)
        return Prefix(chosen.prefix_key("none"), model).description()

    first = description(0.1)
    assert description(0.1) == first
    assert description(0.2) == first | {"layers": description(0.2)["layers"]} != first
    assert description(0.1, "torch") == first | {"preprocessing": "torch"}


def test_descriptions_of_the_table_have_the_keys_that_they_had():
    chosen = TrialConfig(backbone="small_cnn", image_size=16, unfrozen_layers=3)
    described = Prefix(chosen.prefix_key("none")).description()
    had = ["backbone", "image_size", "layer", "pooling", "precision", "weights"]
    assert sorted(described) == sorted([*had, "batch_norms"])
    assert described["batch_norms"] == "folded"
    plain = Prefix(TrialConfig(backbone="vgg16", image_size=32).prefix_key("none")).description()
    assert sorted(plain) == had


@keras.saving.register_keras_serializable()
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def test_a_layer_used_twice_is_not_cut_in_between():
    inputs = keras.Input((4,))
    shared, first = keras.layers.Dense(4, name="shared"), Twice(name="first")
    outputs = Twice(name="last")(shared(first(shared(inputs))))
    model = keras.Model(inputs, outputs)
    position = {layer.name: i for i, layer in enumerate(model.layers)}
    assert prefix_length(model, len(model.layers)) == len(model.layers)
    inside = max(position["shared"], position["first"])
    assert prefix_length(model, inside) <= 1


def test_an_operation_outside_layers_is_a_sentence():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.sqrt(keras.layers.Dense(4)(inputs)), name="mine")
    with pytest.raises(TrainerError, match=r"the backbone mine computes sqrt\w* outside its layers; put it into"):
        prefix_length(model, 2)


def test_a_finer_map_is_cut_at_the_same_layers():
    for unfrozen, refined in ((0, True), (5, True), (13, True), (40, False)):
        plain, finer = (Prefix(architecture_of("mobilenet_v2", unfrozen, output_stride=s).prefix) for s in (32, 16))
        assert finer.layer == plain.layer
        assert finer.length == plain.length
        # Below the halving that was taken back the rows are the same, and are found again.
        assert finer.description() == plain.description() | (
            {"output_stride": 16} if refined and unfrozen != "all" else {}
        )


def test_a_served_backbone_takes_its_stride_from_the_architecture():
    plain = build_backbone("mobilenet_0.25", "none", 64)
    architecture = architecture_of("mobilenet_0.25", 5, output_stride=16, image_size=64)
    assert Prefix(architecture.prefix, plain).model.output_shape == (None, 4, 4, 256)
