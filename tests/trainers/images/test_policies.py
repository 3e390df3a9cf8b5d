"""The table of crop policies."""

import pytest

from trainers.errors import TrainerError
from trainers.images.policies import POLICIES, policy, valid_policy


@pytest.mark.parametrize(
    ("name", "crops"), [("whole", 1), ("centre", 1), ("flip", 2), ("ten_crop", 10), ("pyramid", 6)]
)
def test_fixed_policies(name, crops):
    assert (policy(name).name, policy(name).crops) == (name, crops)
    assert valid_policy(name) is None


def test_the_table_holds_no_other():
    assert len(POLICIES) == 5


@pytest.mark.parametrize("count", [1, 5, 10, 100])
def test_random_crops_carry_their_number(count):
    assert policy(f"random_{count}").crops == count


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
