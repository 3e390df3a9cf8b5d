"""Weights of timm's transformers by name: what is merged, resized, renamed, and left for the comparison of shapes."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.networks.architectures.vit_names import axes_of, name_of, rearranged

WIDTH = 6


def state(positions: int, **more: tuple[int, ...]) -> dict[str, np.ndarray]:
    shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, positions, WIDTH)} | more
    draw = np.random.default_rng(0)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_class_token_takes_its_position_out_of_the_table():
    given = state(1 + 16)
    found = rearranged(given, 4)
    np.testing.assert_array_equal(found["cls_token"], given["cls_token"][0] + given["pos_embed"][0, :1])
    np.testing.assert_array_equal(found["pos_embed"], given["pos_embed"][0, 1:])


def test_registers_follow_the_class_token_which_has_no_position_then():
    given = state(16, reg_token=(1, 4, WIDTH))
    found = rearranged(given, 4, registers=4)
    assert set(found) == {"cls_token", "pos_embed"}
    np.testing.assert_array_equal(found["cls_token"], np.concatenate([given["cls_token"][0], given["reg_token"][0]]))
    np.testing.assert_array_equal(found["pos_embed"], given["pos_embed"][0])


def test_facebooks_own_file_with_registers_gives_what_timms_gives():
    timms = state(16, reg_token=(1, 4, WIDTH))
    position = np.full((1, 1, WIDTH), 0.5, np.float32)
    own = {
        "cls_token": timms["cls_token"] - position,
        "pos_embed": np.concatenate([position, timms["pos_embed"]], 1),
        "register_tokens": timms["reg_token"],
        "mask_token": np.zeros((1, WIDTH), np.float32),
    }
    found, expected = rearranged(own, 4, registers=4), rearranged(timms, 4, registers=4)
    np.testing.assert_allclose(found["cls_token"], expected["cls_token"], atol=1e-6)
    np.testing.assert_array_equal(found["pos_embed"], expected["pos_embed"])


@pytest.mark.parametrize("registers", [0, 2])
def test_registers_that_the_network_lacks_are_left(registers):
    found = rearranged(state(16, reg_token=(1, 4, WIDTH)), 4, registers)
    assert found["cls_token"].shape == (1, WIDTH)
    assert found["reg_token"].shape == (1, 4, WIDTH)
    assert rearranged(state(16), 4, registers)["cls_token"].shape == (1, WIDTH)


def test_a_table_of_another_grid_is_resized():
    assert rearranged(state(1 + 25), 4)["pos_embed"].shape == (16, WIDTH)


@pytest.mark.parametrize("more", [{"cls_token": (1, 1, WIDTH + 1)}, {"pos_embed": (1, 18, WIDTH)}, {"cls_token": (3,)}])
def test_what_has_another_form_is_left_as_it_is(more):
    given = state(17, **more)  # 18: DeiT's distilled network has two tokens
    found = rearranged(given, 4)
    assert {name: value.shape for name, value in found.items()} == {name: v.shape for name, v in given.items()}


@pytest.mark.parametrize(
    ("layer", "weight", "name"),
    [
        ("patches", "kernel", "patch_embed.proj.weight"),
        ("tokens", "leading", "cls_token"),
        ("block_1", "qkv_kernel", "blocks.0.attn.qkv.weight"),
        ("block_12", "scale2", "blocks.11.ls2.gamma"),
        ("block_12", "norm_beta", "norm.bias"),
    ],
)
def test_each_weight_has_timms_name(layer, weight, name):
    assert name_of(layer, weight) == name


def test_kernels_are_turned_and_tables_are_not():
    assert axes_of("block_1", (16, 48)) == (1, 0)
    assert axes_of("tokens", (17, 16)) == (0, 1)
    assert axes_of("patches", (4, 4, 3, 16)) == (2, 3, 1, 0)
