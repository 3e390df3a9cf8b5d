"""ConvNeXt V2: the stored features of timm's blocks, GRN by hand, and the papers' sizes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.support.timm_stages import require_timms_stages
from trainers.backbones import backbone, load_builder
from trainers.networks.architectures.convnext_v2 import GlobalResponseNormalization, build_convnext_v2, timm_name

MILLIONS = {"atto": 3.7, "femto": 5.2, "pico": 9.1, "nano": 15.6, "tiny": 28.6, "base": 89}
"""Parameters in the tables of facebookresearch/ConvNeXt-V2, with the classifier of 1,000 classes."""


def test_every_stage_gives_what_timms_gives():
    def narrow(shape: tuple[int, int, int]) -> keras.Model:
        return build_convnext_v2(shape, False, None, (2, 1, 1, 1), (4, 4, 8, 8))

    require_timms_stages("narrow_convnextv2", "convnext_v2_atto", narrow, ("head.fc.bias", "head.fc.weight"))


def test_grn_has_a_gradient_where_a_channel_is_zero():
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    x[..., 1] = 0
    layer = GlobalResponseNormalization()
    layer.build(x.shape)
    layer.gamma.assign(np.ones(5))
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(layer(inputs) ** 2)
    assert np.isfinite(tape.gradient(loss, inputs)).all()


def test_grn_is_the_papers_equations():
    rng = np.random.default_rng(0)
    x, gamma, beta = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=5), rng.normal(size=5)
    layer = GlobalResponseNormalization()
    layer.build(x.shape)
    np.testing.assert_array_equal(layer(x.astype(np.float32)), x.astype(np.float32))  # gamma and beta begin at 0
    layer.set_weights([gamma, beta])
    norms = np.sqrt((x**2).sum((1, 2), keepdims=True))
    expected = gamma * x * norms / (norms.mean(-1, keepdims=True) + 1e-6) + beta + x
    np.testing.assert_allclose(layer(x.astype(np.float32)), expected, rtol=1e-5, atol=1e-5)


def test_grn_survives_half_precision():
    x = np.full((1, 32, 32, 4), 30, np.float16)  # the sum of squares is 921,600, above float16's 65,504
    layer = GlobalResponseNormalization(dtype="mixed_float16")
    layer.build(x.shape)
    layer.set_weights([np.ones(4), np.zeros(4)])
    found = np.asarray(layer(x))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, 60, rtol=1e-3)


@pytest.mark.parametrize("size", ["atto", *(pytest.param(s, marks=pytest.mark.slow) for s in list(MILLIONS)[1:])])
def test_the_networks_are_the_papers(size):
    row = backbone(f"convnext_v2_{size}")
    model = load_builder(row)(input_shape=(64, 64, 3), include_top=False, weights=None, **row.arguments)
    classifier = (row.arguments["widths"][-1] + 1) * 1000
    assert (model.count_params() + classifier) / 1e6 == pytest.approx(
        MILLIONS[size], abs=0.06 if size != "base" else 0.6
    )
    assert model.output.shape == (None, 2, 2, row.arguments["widths"][-1])
    keras.backend.clear_session()


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("stem_norm", "stem.1"),
        ("norm", "head.norm"),
        ("stage2_downsample_conv", "stages.1.downsample.1"),
        ("stage3_block6_grn", "stages.2.blocks.5.mlp.grn"),
    ],
)
def test_layers_have_timms_names(layer, name):
    assert timm_name(layer) == name


def test_a_saved_model_is_read_again(tmp_path):
    model = build_convnext_v2((32, 32, 3), False, None, (1, 1, 1, 1), (4, 4, 8, 8))
    model.save(tmp_path / "x.keras")
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "x.keras")(images), model(images), atol=1e-6)


def test_a_top_or_weights_are_refused():
    with pytest.raises(ValueError, match="ConvNeXt V2 is built without a top and without weights"):
        build_convnext_v2((32, 32, 3), False, "imagenet", (1,), (4,))
