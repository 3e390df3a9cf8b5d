"""Vision transformers: timm's outputs at several sizes, the papers' sizes, saving, precision."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np
import pytest

from tests.support.places import FIXTURES
from trainers.backbones import backbone
from trainers.errors import TrainerError
from trainers.networks.architectures.vit import START_OF_SCALE, TransformerBlock, build_vit
from trainers.networks.architectures.vit_names import rearranged
from trainers.networks.backbone import build_backbone
from trainers.networks.conversion.convert import fill
from trainers.networks.conversion.published import PUBLISHED
from trainers.networks.conversion.state_dict import read_state_dict
from trainers.networks.prefix import pool

NARROW = {"patch": 4, "grid": 5, "width": 16, "heads": 2, "depth": 2}
NARROWS = {"narrow_vit": {}, "narrow_vit_reg": {"layer_scale": True, "registers": 2}}


def narrow(name: str, size: int) -> keras.Model:
    """The network of the fixture ``name`` for images of ``size``, with the fixture's weights."""
    model = build_vit((size, size, 3), **NARROW, **NARROWS[name])
    registers = NARROWS[name].get("registers", 0)
    prepare = functools.partial(rearranged, grid=NARROW["grid"], registers=registers)
    published = dataclasses.replace(PUBLISHED["vit_small_16_deit"], prepare=prepare)
    used, ignored, _ = fill(model, read_state_dict(FIXTURES / f"{name}.safetensors"), "the fixture", published)
    assert (len(used), ignored) == (len(model.weights), ())
    return model


@pytest.mark.parametrize("size", [20, 12, 32])
@pytest.mark.parametrize("name", NARROWS)
def test_tokens_and_both_ways_to_pool_them_are_timms(name, size):
    """At the size of the position table, at a smaller and at a larger one."""
    expected = dict(np.load(FIXTURES / f"{name}_{size}.npz"))
    tokens = np.asarray(narrow(name, size)(expected["images"]))
    assert np.abs(expected["tokens"]).max() > 1
    np.testing.assert_allclose(tokens, expected["tokens"], atol=1e-5)
    leading = 1 + NARROWS[name].get("registers", 0)
    np.testing.assert_allclose(pool(tokens, "token", leading), expected["token"], atol=1e-5)
    np.testing.assert_allclose(pool(tokens, "average", leading), expected["avg"], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "weights", "tokens"),
    [  # timm's count of parameters without a classifier
        ("vit_tiny_16_deit", 5_524_416, 5),
        ("vit_small_16_deit", 21_665_664, 5),
        ("vit_small_14_dinov2", 22_056_192, 5),
        ("vit_small_14_reg4_dinov2", 22_057_344, 9),
    ],
)
def test_the_networks_are_the_papers(name, weights, tokens):
    row = backbone(name)
    model = build_backbone(name, "none", row.smallest_size)
    first = row.arguments["width"]  # the class token and its position, two tensors there, are one here
    merged = first if row.tokens == 1 else 0
    assert sum(int(np.prod(weight.shape)) for weight in model.weights) + merged == weights
    assert model.output.shape == (None, tokens, first)
    assert [layer.name for layer in model.layers][:4] == ["images", "patches", "tokens", "block_1"]
    assert model.layers[-1].name == "block_12"
    assert [layer.normalised for layer in model.layers if isinstance(layer, TransformerBlock)] == [False] * 11 + [True]
    assert all(layer.layer_scale == ("dinov2" in name) for layer in model.layers[3:])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"dist_token": (1, 1, 16)}, "1 unknown: dist_token. It looks like DeiT's distilled network"),
        (
            {"blocks.0.ls1.gamma": (16,)},
            "1 unknown: blocks.0.ls1.gamma. It has LayerScale: its network is one of DINOv2",
        ),
        ({"cls_token": (1, 1, 8)}, "2 of another shape: cls_token is 1x1x8, not 1x16, pos_embed is 1x26x16, not 25x16"),
        ({"reg_token": (1, 2, 16)}, "1 unknown: reg_token. It has registers: its network is vit_small_14_reg4_dinov2"),
    ],
)
def test_a_file_of_another_transformer_is_a_sentence(more, sentence):
    tensors = read_state_dict(FIXTURES / "narrow_vit.safetensors")
    tensors |= {name: np.zeros(shape, np.float32) for name, shape in more.items()}
    model = build_vit((20, 20, 3), **NARROW)
    prepare = functools.partial(rearranged, grid=NARROW["grid"])
    published = dataclasses.replace(PUBLISHED["vit_small_16_deit"], prepare=prepare)
    with pytest.raises(TrainerError) as error:
        fill(model, tensors, "the file", published)
    assert sentence in str(error.value)


def test_a_network_is_saved_and_read_with_its_weights(tmp_path):
    model = narrow("narrow_vit_reg", 12)
    images = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
    model.save(tmp_path / "vit.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "vit.keras")(images), model(images))
    model.save_weights(tmp_path / "vit.weights.h5")
    larger = build_vit((32, 32, 3), **NARROW, **NARROWS["narrow_vit_reg"])  # one file serves every size
    larger.load_weights(tmp_path / "vit.weights.h5")
    expected = np.load(FIXTURES / "narrow_vit_reg_32.npz")
    np.testing.assert_allclose(larger(expected["images"]), expected["tokens"], atol=1e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("mixed_float16", 0.02), ("mixed_bfloat16", 0.15)])
def test_mixed_precision_is_near(precision, tolerance):
    single = narrow("narrow_vit", 12)
    images = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        mixed = build_vit((12, 12, 3), **NARROW)
    finally:
        keras.config.set_dtype_policy(before)
    mixed.set_weights(single.get_weights())
    assert mixed.output.dtype == precision.removeprefix("mixed_")
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    found = np.asarray(keras.ops.cast(mixed(images), "float32"))
    np.testing.assert_allclose(found, single(images), atol=tolerance)
    assert np.abs(found - single(images)).max() > 0


def test_random_weights_start_as_the_papers():
    model = build_vit((8, 8, 3), patch=4, grid=2, width=64, heads=4, depth=1, layer_scale=True)
    block = model.get_layer("block_1")
    assert float(keras.ops.std(block.fc1[0])) == pytest.approx(0.02, rel=0.15)  # cut at two deviations
    assert float(block.scale1[0]) == pytest.approx(START_OF_SCALE)
    assert float(keras.ops.max(block.fc1[1])) == 0


def test_a_top_weights_or_half_patches_are_refused():
    with pytest.raises(ValueError, match="built without a top and without weights"):
        build_vit((20, 20, 3), include_top=True, **NARROW)
    with pytest.raises(ValueError, match="multiples of 4"):
        build_vit((22, 22, 3), **NARROW)
