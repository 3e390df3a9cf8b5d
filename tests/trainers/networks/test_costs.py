"""The table of layers against the networks themselves, published figures, and what a boundary divides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.docs_programs import load_program
from trainers.backbones import BACKBONES
from trainers.config import TrialConfig
from trainers.networks.costs import Cost, cost, layers_of, measured_backbones

NAMES = sorted(BACKBONES)


def _cost(backbone: str, unfrozen_layers: int | str, **settings: object) -> Cost:
    found = cost(backbone, unfrozen_layers, **settings)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_every_backbone_of_the_table_is_in_it_with_its_layers() -> None:
    assert set(measured_backbones()) == set(BACKBONES)
    for name, row in BACKBONES.items():
        layers = layers_of(name)
        assert layers is not None
        sizes = {len(layers.macs), len(layers.trainable), len(layers.sides), len(layers.channels)}
        assert sizes == {row.layers}, name
        assert layers.image_size == row.native_size
        assert layers.boundaries[row.layers], "the whole network is a prefix"
        assert row.tokens or layers.stages[-1] == row.layers - 1
        assert set(layers.tokens.tolist()) == ({0, row.tokens} if row.tokens else {0})


def test_the_check_tells_a_row_that_is_out_of_date() -> None:
    program = load_program("make_costs_table")
    rows = {name: {"macs": [0] * row.layers, "image_size": row.native_size} for name, row in BACKBONES.items()}
    assert program.stale(rows) == []  # type: ignore[attr-defined]
    rows["resnet50"]["macs"] = [0]
    rows["gone"] = rows["vgg16"]
    assert program.stale(rows) == ["gone", "resnet50"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "billions"),
    [  # multiplications without the classifier, as the papers count them
        ("mobilenet_1.0", 0.568),  # Howard et al. 2017, table 4: 569 M with 1 M of the classifier
        ("mobilenet_0.5", 0.149),  # table 6: 149 M
        ("mobilenet_v2", 0.299),  # Sandler et al. 2018, table 4: 300 M
        ("vgg16", 15.35),  # 15.47 G with 0.12 G of the classifier
        ("resnet50", 3.86),  # He et al. 2016, table 1: 3.8 G
        ("densenet121", 2.83),  # 2.87 G is the usual count
        ("efficientnet_b0", 0.387),  # Tan & Le 2019, table 2: 0.39 G
        ("convnext_tiny", 4.46),  # Liu et al. 2022, table 1: 4.5 G
        ("vit_small_16_deit", 4.6),  # Touvron et al. 2021, table 5: 4.6 G
        ("vit_base_16_deit", 17.6),  # 17.6 G
        ("convnext_v2_atto", 0.55),  # facebookresearch/ConvNeXt-V2, its tables of models
        ("convnext_v2_nano", 2.45),
        ("convnext_v2_base", 15.4),
        ("resnet50v1.5", 4.09),  # torchvision's documentation
        ("nasnet_mobile", 0.563),  # Zoph et al. 2018, table 2: 564 M
    ],
)
def test_multiplications_agree_with_the_papers(name: str, billions: float) -> None:
    layers = layers_of(name)
    assert layers is not None
    assert layers.macs.sum() / 1e9 == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize(
    ("unfrozen_layers", "layer", "shape"),
    [(0, "conv_pw_13_relu", (1024,)), (13, "conv_pw_11_relu", (14, 14, 512)), ("all", "", (224, 224, 3))],
)
def test_a_row_of_mobilenet(unfrozen_layers: int | str, layer: str, shape: tuple[int, ...]) -> None:
    found = _cost("mobilenet_1.0", unfrozen_layers)
    assert (found.layer, found.row_shape) == (layer, shape)
    assert found.row_bytes() == math.prod(shape) * (4 if layer else 1)
    assert found.row_bytes(2) == math.prod(shape) * (2 if layer else 1)
    assert found.prefix_macs + found.tail_macs == pytest.approx(567_716_352)


def test_a_count_that_cuts_a_block_goes_down_to_where_one_tensor_carries_all() -> None:
    inside, above = _cost("resnet50", 5), _cost("resnet50", 10)
    assert inside.layer == above.layer == "conv5_block2_out"
    assert inside.prefix_work == above.prefix_work
    assert inside.trainable < above.trainable
    assert inside.train_work < above.train_work  # the frozen layers between run forward alone


def test_what_mixes_images_has_no_prefix() -> None:
    mixed = _cost("mobilenet_1.0", 0, mixes=True)
    assert mixed.is_identity
    assert mixed.prefix_work == 0
    assert mixed.tail_work == pytest.approx(mixed.train_work)  # nothing is trained but the head
    assert mixed.trainable == 0


def test_a_backbone_of_the_users_own_is_unknown() -> None:
    assert cost("my.module:NET", 0) is None


@given(st.sampled_from(NAMES), st.one_of(st.integers(0, 1100), st.just("all")), st.sampled_from([0.5, 1.0, 1.5]))
def test_a_boundary_divides_the_work(name: str, unfrozen: int | str, scale: float) -> None:
    size = round(BACKBONES[name].native_size * scale)
    found, whole = _cost(name, unfrozen, image_size=size), _cost(name, "all", image_size=size)
    assert found.prefix_work + found.tail_work == pytest.approx(whole.tail_work)
    assert found.tail_work <= found.train_work <= 3 * found.tail_work * (1 + 1e-9)
    assert 0 <= found.trainable <= found.tail_weights
    assert found.is_identity == (found.prefix_work == 0)


@given(st.sampled_from(NAMES), st.integers(0, 900), st.integers(0, 900))
def test_more_unfrozen_layers_leave_less_to_share(name: str, some: int, more: int) -> None:
    few, many = (_cost(name, n) for n in sorted((some, more)))
    assert few.length >= many.length
    assert few.prefix_work >= many.prefix_work
    assert few.train_work <= many.train_work
    assert few.trainable <= many.trainable


CASES = [
    ("small_cnn", 3, {}),
    ("mobilenet_0.25", 5, {"image_size": 96}),
    ("mobilenet_0.25", 20, {"image_size": 160}),
    ("mobilenet_0.25", 0, {"image_size": 96, "output_stride": 16}),
    ("mobilenet_0.25", 20, {"image_size": 96, "feature_fusion": "concat"}),
    ("mobilenet_0.25", 0, {"image_size": 96, "feature_fusion": "concat"}),
    ("mobilenet_v2_0.35", 10, {"image_size": 96}),
    ("vit_tiny_16_deit", 0, {"image_size": 96}),
    ("vit_tiny_16_deit", 3, {"image_size": 96}),
    ("vit_tiny_16_deit", 13, {"image_size": 96}),
    ("vit_small_14_reg4_dinov2", 5, {"image_size": 112}),
]


def test_attention_grows_with_the_square_of_the_tokens() -> None:
    """Everything of a block but attention grows with the tokens, which is what an image's area gives a convolution."""
    small, large = (_cost("vit_small_14_dinov2", 0, image_size=size) for size in (224, 448))
    tokens = np.array([16 * 16 + 1, 32 * 32 + 1])
    linear = 12 * 12 * 384**2 * tokens + 3 * 14**2 * 384 * (tokens - 1)
    attention = 12 * 2 * 384 * tokens**2
    assert [small.prefix_macs, large.prefix_macs] == pytest.approx((linear + attention).tolist())
    assert small.width == large.width == 384


@pytest.mark.parametrize(("name", "unfrozen", "settings"), CASES)
def test_a_row_is_what_the_network_gives(name: str, unfrozen: int, settings: dict) -> None:
    from trainers.networks.prefix import Prefix

    config = TrialConfig(backbone=name, unfrozen_layers=unfrozen, **{"image_size": 32, **settings})
    prefix, found = Prefix(config.prefix_key("none")), _cost(name, unfrozen, **settings)
    assert found.row_shape == tuple(prefix.spec.shape[1:])
    assert found.length == (0 if prefix.is_identity else prefix.length)
    assert found.refined == (prefix.description().get("output_stride") == 16)
    kernels = sum(math.prod(w.shape) for w in prefix.model.trainable_weights)
    assert _cost(name, "all").trainable == kernels


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet50", "efficientnet_b0", "xception", "densenet121"])
def test_the_program_writes_what_is_kept(name: str) -> None:
    layers, made = layers_of(name), load_program("make_costs_table").measure(name)  # type: ignore[attr-defined]
    assert layers is not None
    assert made["macs"] == layers.macs.tolist()
    assert made["trainable"] == layers.trainable.tolist()
    assert {int(q): layer for q, layer in made["boundaries"].items()} == layers.boundaries
