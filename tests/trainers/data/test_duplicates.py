"""Sets of duplicates, the groups that they make, and what is dropped; look-alikes are never called the same."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from tests.support.pictures import encoded, look_at, scene, symmetric_tile, tile
from trainers.data.duplicates import Duplicates, find_duplicates, make_groups, members_of, same_photos, to_drop
from trainers.data.near_duplicates import Looks, compared_pairs


def table(*rows: tuple[str, str, str | None]) -> pd.DataFrame:
    """Rows of (label, sha256, the source's own group)."""
    return pd.DataFrame(rows, columns=["label", "sha256", "group"], dtype=object)


def looks_of(*seeds: int, side: int = 256) -> Looks:
    return Looks(look_at(scene(seed).resize((side, side * 3 // 4))) for seed in seeds)


def test_below_32_pixels_on_both_sides_only_exact_duplicates_count() -> None:
    rows = table(("a", "s1", None), ("a", "s1", None), ("a", "s2", None))
    assert find_duplicates(rows, looks_of(0, 0, 0, side=31)).sets == [[0, 1]]
    assert find_duplicates(rows, looks_of(0, 0, 0, side=32)).sets == [[0, 1, 2]]


@pytest.mark.parametrize("radius", [4, 12])
def test_symmetric_tiles_with_defects_left_and_right_are_neither_dropped_nor_wrong_labels(radius: int) -> None:
    places = [(60, 100), (195, 100), (60, 155), (195, 155)]  # mirrored places: each is a mirrored copy of each
    tiles = [symmetric_tile(None), *(symmetric_tile(place, radius=radius) for place in places)]
    rows = table(*(("left" if i % 2 else "right", f"{i}" * 64, None) for i in range(len(tiles))))
    with Looks(map(look_at, tiles)) as looks:
        same = find_duplicates(rows, looks)
    assert (same.sets, same.conflicts, to_drop(rows, same)) == ([], [], [])
    assert len(set(make_groups(rows, same, near_too=True).names[1:])) == 1
    with Looks(map(look_at, (tiles[1], ImageOps.mirror(scene(0)), scene(0)))) as looks:
        assert compared_pairs(looks, np.arange(3))[0] == [(1, 2)]


def test_groups_join_duplicates_and_the_tables_own_and_are_named_for_good() -> None:
    rows = table(
        *(("a", sha * 64, group) for sha, group in zip("fedcba", [None, "g", "g", "h", "h", None], strict=True))
    )
    same = find_duplicates(rows, looks_of(0, 0, 1, 2, 3, 4))
    assert (same.exact, same.near, same.conflicts) == ([], [(0, 1)], [])
    g, h = (hashlib.sha256(f"group:{name}".encode()).hexdigest()[:16] for name in "gh")
    assert make_groups(rows, same, near_too=True).names == [g, g, g, h, h, "a" * 16]
    assert make_groups(rows, same, near_too=False).names == ["f" * 16, g, g, h, h, "a" * 16]
    more = pd.concat([rows, table(("a", "0" * 64, "g"))], ignore_index=True)
    same = find_duplicates(more, looks_of(0, 0, 1, 2, 3, 4, 5))
    assert make_groups(more, same, near_too=True).names[:3] == [g, g, g]  # whatever else shows the object


def test_drop_keeps_the_first_of_each_label_and_nothing_that_contradicts_itself() -> None:
    rows = table(*zip("aaaaabb", ["s0", "s1", "s0", "s2", "s2", "s3", "s4"], [None] * 7, strict=True))
    rows.loc[4, "label"] = "b"  # the same bytes, once a and once b
    rows.loc[6, "label"] = "c"  # near, once b and once c
    same = find_duplicates(rows, looks_of(0, 0, 0, 1, 1, 2, 2))
    assert same.sets == [[0, 1, 2], [3, 4], [5, 6]]
    assert same.conflicts == [[3, 4], [5, 6]]
    assert to_drop(rows, same) == [1, 2, 3, 4]
    assert to_drop(rows, same, np.arange(7) == 2) == [0, 1, 3, 4]


def test_look_alikes_share_a_group_are_no_conflict_and_are_not_dropped() -> None:
    rows = table(("good", "b" * 64, None), ("bad", "a" * 64, None), ("good", "c" * 64, None))
    with Looks([look_at(tile(0)), look_at(tile(0, spot=(60, 60))), look_at(scene(1))]) as looks:
        same = find_duplicates(rows, looks)
    assert (same.sets, same.conflicts, same.alike) == ([], [], [(0, 1)])
    assert to_drop(rows, same) == []
    assert make_groups(rows, same, near_too=True).names == ["a" * 16, "a" * 16, "c" * 16]
    assert len(set(make_groups(rows, same, near_too=False).names)) == 3


def test_a_chain_of_look_alikes_is_cut_and_counted() -> None:
    n = 100
    rows = table(*(("a", f"{i:016x}" * 4, None) for i in range(n)))
    chain = [(i, i + 1) for i in range(n - 1)]
    groups = make_groups(rows, _alike(chain), near_too=True)
    sizes = pd.Series(groups.names).value_counts()
    assert groups.most == 20
    assert sizes.max() <= 20
    assert groups.cut == n
    short = make_groups(rows, _alike(chain[:15]), near_too=True)
    assert (short.cut, pd.Series(short.names).value_counts().max()) == (0, 16)


def _alike(pairs: list[tuple[int, int]]) -> Duplicates:
    return Duplicates([], [], [], [], pairs)


def test_photos_exported_again_are_found_by_content_and_others_are_not() -> None:
    def frame(images: list[Image.Image], tag: str) -> pd.DataFrame:
        looks = [look_at(each) for each in images]
        return pd.DataFrame(
            {"sha256": [f"{tag}{i}" for i in range(len(looks))], "descriptor": [each.descriptor for each in looks]}
        )

    known = frame([scene(s) for s in range(30)] + [tile(0)], "k")
    asked = frame(
        [
            encoded(scene(3), 40),
            scene(7).resize((100, 75)),
            scene(99),
            ImageOps.mirror(scene(5)),
            tile(0, spot=(60, 60)),
        ],
        "a",
    )
    asked.loc[2, "sha256"] = "k11"
    assert same_photos(asked, known).tolist() == [3, 7, 11, -1, -1]
    assert same_photos(asked.drop(columns="descriptor"), known).tolist() == [-1, -1, 11, -1, -1]
    assert same_photos(asked, known.assign(descriptor=None)).tolist() == [-1, -1, 11, -1, -1]


def test_members_of_lists_what_occurs_twice() -> None:
    assert members_of(["b", "a", "b", "c", "a"]) == [[0, 2], [1, 4]]
