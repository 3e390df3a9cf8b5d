"""The hash proposes, the pixels decide; what merely looks alike to a hash stays apart."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from trainers.data import duplicates
from trainers.data.duplicates import (
    HASH_DISTANCE,
    Thumbnails,
    Union,
    close_hashes,
    find_duplicates,
    group_names,
    members_of,
    near_pairs,
    perceptual_hashes,
    to_drop,
)


def scene(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)


def small(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS))


def pairs_of(*images: Image.Image) -> list[tuple[int, int]]:
    with Thumbnails(small(i) for i in images) as thumbnails:
        return near_pairs(thumbnails, np.ones(len(images), bool))


def test_a_resized_a_brighter_and_a_slightly_cropped_copy_are_near_and_another_scene_is_not() -> None:
    one = scene(0)
    brighter = ImageEnhance.Brightness(one).enhance(0.8)
    cropped = one.crop((2, 1, 158, 119))
    assert pairs_of(one, scene(1), one.resize((64, 48)), brighter, cropped) == [(0, 2), (0, 3), (0, 4)]


def test_small_things_on_a_white_table_are_not_near() -> None:
    def thing(shape: str) -> Image.Image:
        board = Image.linear_gradient("L").resize((160, 160)).point(lambda v: 180 + v // 6)
        draw = ImageDraw.Draw(board)
        if shape == "ring":
            draw.ellipse((60, 60, 100, 100), outline=30, width=8)
        elif shape == "bar":
            draw.rectangle((72, 55, 84, 105), fill=90)
        else:
            draw.polygon([(80, 55), (60, 100), (100, 100)], fill=10)
        return board

    assert pairs_of(thing("ring"), thing("bar"), thing("wedge")) == []


def test_flat_images_are_never_near() -> None:
    noise = np.random.default_rng(0).integers(250, 256, (2, 120, 160), np.uint8)
    assert pairs_of(*(Image.fromarray(n) for n in noise), Image.new("L", (80, 80), 255), Image.new("L", (80, 80))) == []


def test_hashes_are_those_of_imagehash() -> None:
    import imagehash

    random = np.random.default_rng(0)
    pictures = [scene(s) for s in range(60)]
    pictures += [Image.fromarray(random.integers(0, 256, (32, 32), np.uint8)) for _ in range(30)]
    pictures += [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.new("L", (32, 32), 7)]
    thumbnails = np.stack([small(picture) for picture in pictures])
    expected = [imagehash.phash(Image.fromarray(one)).hash for one in thumbnails]
    bits = np.unpackbits(perceptual_hashes(thumbnails).view(np.uint8)).reshape(-1, 8, 8)
    assert len(expected) == 93
    assert np.array_equal(bits.astype(bool), np.stack(expected))
    assert perceptual_hashes(thumbnails[:0]).shape == (0,)


def test_a_thousand_times_the_same_scene_is_one_group_of_n_minus_one_pairs_and_quick() -> None:
    thumbnails = Thumbnails([small(scene(0))] * 1000)
    begin = time.perf_counter()
    pairs = near_pairs(thumbnails, np.ones(1000, bool))
    assert len(pairs) == 999
    assert time.perf_counter() - begin < 5


def table(*rows: tuple[str, str, str | None], side: int = 160) -> pd.DataFrame:
    """Rows of (label, sha256, the source's own group)."""
    frame = pd.DataFrame(rows, columns=["label", "sha256", "group"], dtype=object)
    return frame.assign(width=side, height=side // 2)


def test_below_32_pixels_on_both_sides_only_exact_duplicates_count() -> None:
    thumbnails = Thumbnails([small(scene(0))] * 3)
    rows = table(("a", "s1", None), ("a", "s1", None), ("a", "s2", None))
    assert find_duplicates(rows.assign(width=31, height=31), thumbnails).sets == [[0, 1]]
    assert find_duplicates(rows.assign(width=32, height=8), thumbnails).sets == [[0, 1, 2]]


def test_groups_join_duplicates_and_the_tables_own_and_are_named_by_content() -> None:
    thumbnails = Thumbnails(small(scene(s)) for s in (0, 0, 1, 2, 3, 4))
    rows = table(
        *(("a", sha * 64, group) for sha, group in zip("fedcba", [None, "g", "g", "h", "h", None], strict=True))
    )
    same = find_duplicates(rows, thumbnails)
    assert (same.exact, same.near, same.conflicts) == ([], [(0, 1)], [])
    assert group_names(rows, same, near_too=True) == [c * 16 for c in "dddbba"]
    assert group_names(rows, same, near_too=False) == [c * 16 for c in "fddbba"]


def test_drop_keeps_the_first_of_each_label_and_nothing_that_contradicts_itself() -> None:
    thumbnails = Thumbnails(small(scene(s)) for s in (0, 0, 0, 1, 1, 2, 2))
    rows = table(*zip("aaaaabb", ["s0", "s1", "s0", "s2", "s2", "s3", "s4"], [None] * 7, strict=True))
    rows.loc[4, "label"] = "b"  # the same bytes, once a and once b
    rows.loc[6, "label"] = "c"  # near, once b and once c
    same = find_duplicates(rows, thumbnails)
    assert same.sets == [[0, 1, 2], [3, 4], [5, 6]]
    assert same.conflicts == [[3, 4], [5, 6]]
    assert to_drop(rows, same) == [1, 2, 3, 4]


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_union_equals_a_graph_search(edges: list[tuple[int, int]]) -> None:
    union = Union(20)
    for a, b in edges:
        apart = union.labels[a] != union.labels[b]
        assert union.join(a, b) == apart
    reach = np.eye(20, dtype=bool)
    for a, b in edges:
        reach[a, b] = reach[b, a] = True
    for _ in range(5):
        reach = reach @ reach
    assert np.array_equal(union.labels[:, None] == union.labels[None], reach)


def test_members_of_lists_what_occurs_twice() -> None:
    assert members_of(["b", "a", "b", "c", "a"]) == [[0, 2], [1, 4]]


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_compare(n: int) -> None:
    assert near_pairs(Thumbnails([np.zeros((32, 32), np.uint8)] * n), np.ones(n, bool)) == []


@given(st.integers(0, 2**32), st.integers(0, 60), st.sampled_from([3, 12, 64]))
@settings(max_examples=60, deadline=None)
def test_close_hashes_are_those_of_a_comparison_of_each_with_each(seed: int, n: int, bits: int) -> None:
    """Few bits that vary make everything alike, which takes the other way through."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**bits, n, np.uint64, endpoint=False) if bits < 64 else np.zeros(n, np.uint64)
    if bits == 64:
        for i in range(n):
            flips = random.choice(64, random.integers(0, 12), replace=False)
            hashes[i] = np.uint64(sum(1 << int(bit) for bit in flips))
    found = {(a, b) for a, close in close_hashes(hashes) for b in close.tolist()}
    expected = {
        (a, b)
        for a in range(n)
        for b in range(a + 1, n)
        if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= HASH_DISTANCE
    }
    assert found == expected


def test_close_hashes_come_in_order_and_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(1).integers(0, 2**16, 300, np.uint64)
    at_once = [(a, b.tolist()) for a, b in close_hashes(hashes)]
    monkeypatch.setattr(duplicates, "CANDIDATES_AT_ONCE", 7)
    assert [(a, b.tolist()) for a, b in close_hashes(hashes)] == at_once
    assert [a for a, _ in at_once] == sorted({a for a, _ in at_once})
    assert all(b == sorted(b) and b[0] > a for a, b in at_once)
    assert len(at_once) > 100


def test_close_hashes_of_70000_images_are_found_without_comparing_all() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 70_000, np.uint64)
    planted = random.integers(0, len(hashes), (500, 2))
    for a, b in planted:
        flips = random.choice(64, random.integers(0, HASH_DISTANCE + 1), replace=False)
        hashes[b] = hashes[a] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    begin = time.process_time()
    found = {(a, int(b)) for a, close in close_hashes(hashes) for b in close}
    spent_s = time.process_time() - begin
    still = [
        (min(a, b), max(a, b))
        for a, b in planted.tolist()
        if a != b and np.bitwise_count(hashes[a] ^ hashes[b]) <= HASH_DISTANCE
    ]
    assert len(still) > 450
    assert found >= set(still)
    assert spent_s < 8  # a comparison of each with each takes 2.4 billion steps
