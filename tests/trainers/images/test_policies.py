"""Crop policies: the table, and policies of one's own."""

import math
import sys

import pytest

from trainers.errors import TrainerError
from trainers.images.policies import (
    POLICIES,
    Box,
    Policy,
    box_named,
    crop_names,
    describe_crop,
    needs_canvas,
    policy,
    valid_policy,
)


@pytest.mark.parametrize(
    ("name", "crops"), [("whole", 1), ("centre", 1), ("flip", 2), ("ten_crop", 10), ("pyramid", 6)]
)
def test_fixed_policies(name, crops):
    assert (policy(name).name, len(crop_names(name))) == (name, crops)
    assert valid_policy(name) is None


def test_the_table_holds_no_other():
    assert len(POLICIES) == 5


@pytest.mark.parametrize("count", [1, 5, 10, 100])
def test_random_crops_carry_their_number(count):
    assert len(crop_names(f"random_{count}")) == count


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("whle", "did you mean whole?"),
        ("ten_crops", "did you mean ten_crop?"),
        ("random_0", "did you mean random_5?"),
        ("random_101", "K from 1 to 100"),
        ("random_05", "K from 1 to 100"),
        ("random_\u0665", "K from 1 to 100"),
        ("", "Known are whole, centre, flip, ten_crop, pyramid"),
    ],
)
def test_an_unknown_policy_is_answered_with_the_known_ones(name, near):
    assert near in valid_policy(name)
    with pytest.raises(TrainerError, match="there is no policy"):
        policy(name)


MODULE = """
from trainers.images.policies import Box, Policy
QUARTERS = Policy("quarters", tuple(Box(top, left, 0.5) for top in (0, 0.5) for left in (0, 0.5)))
MIXED = Policy("mixed", ("whole", "top-left-mirrored", Box(0.1, 0.2, 0.3, mirrored=True), "random-4"))
NUMBER = 5
"""


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder with modules of the user's own, where the commands are typed."""
    (tmp_path / "own_crops.py").write_text(MODULE)
    (tmp_path / "broken_crops.py").write_text("1 / 0\n")
    outside = "from trainers.images.policies import Box, Policy\nP = Policy('outside', (Box(0.6, 0, 0.5),))\n"
    (tmp_path / "outside_crops.py").write_text(outside)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("own_crops", "broken_crops", "outside_crops"):
        sys.modules.pop(name, None)


def test_a_policy_of_ones_own_is_found_by_its_dotted_name(own_folder):
    quarters = crop_names("own_crops:QUARTERS")
    assert len(quarters) == 4
    assert [box_named(name) for name in quarters] == list(policy("own_crops:QUARTERS").crops)
    assert valid_policy("own_crops:MIXED") is None
    assert crop_names("own_crops:MIXED") == ("whole", "top-left-mirrored", "box_0.1_0.2_0.3-mirrored", "random-4")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("own_crops:NUMBER", ("own_crops:NUMBER", "int", "policy")),
        ("own_crops:NO", ("own_crops:NO", "cannot be imported")),
        ("no_such_crops:P", ("no_such_crops", "neither installed")),
        ("broken_crops:P", ("broken_crops:P", "division by zero")),
        ("outside_crops:P", ("Box(top=0.6", "at most 1")),
    ],
)
def test_a_policy_that_cannot_be_used_is_explained(own_folder, name, parts):
    assert all(part in valid_policy(name) for part in parts)


BOXES = [(0, 0, 1), (0.1, 0.2, 0.3), (1 / 3, 0, 2 / 3), (0.00001, 0.5, 0.5)]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("lengths", BOXES)
def test_a_boxs_name_gives_the_box(lengths, mirrored):
    box = Box(*lengths, mirrored)
    assert box_named(box.name) == box


@pytest.mark.parametrize(
    "lengths", [(0.5, 0, 0.6), (0, 0.5, 0.6), (-0.1, 0, 0.5), (0, 0, 0), (0, 0, math.nan), ("a", 0, 1)]
)
def test_a_box_outside_the_image_is_refused(lengths):
    with pytest.raises(TrainerError, match="Box"):
        Box(*lengths)


@pytest.mark.parametrize(
    ("crops", "part"),
    [
        ((), "1 to 100 crops"),
        ("whole", "1 to 100 crops"),
        (("hole",), "'hole'"),
        (("random-x",), "'random-x'"),
        (("whole", "whole"), "twice"),
        ((Box(0, 0, 1), Box(0.0, 0.0, 1.0)), "twice"),
    ],
)
def test_a_policy_of_wrong_crops_is_refused(crops, part):
    with pytest.raises(TrainerError, match=part):
        Policy("own", crops)


def test_only_crops_of_the_whole_image_need_no_canvas():
    assert not needs_canvas(crop_names("flip"))
    assert needs_canvas(crop_names("centre"))
    assert needs_canvas([Box(0, 0, 1).name])


def test_a_crop_is_described_with_its_place():
    text = describe_crop(Box(0.1, 0.2, 0.3, mirrored=True).name)
    assert all(part in text for part in ("0.3 of the side", "0.1 from the top", "0.2 from the left", "mirrored"))
    assert "top-left" in describe_crop("top-left")
