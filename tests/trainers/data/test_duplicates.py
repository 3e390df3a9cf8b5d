"""The indexes propose, the pixels decide; look-alikes stay together and are never called the same."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from tests.support.pictures import look_at, scene, thing, tile
from trainers.data import duplicates
from trainers.data.duplicates import (
    Duplicates,
    Looks,
    Union,
    compared_pairs,
    find_duplicates,
    make_groups,
    members_of,
    same_photos,
    to_drop,
)


def pairs_of(*images: Image.Image) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    with Looks(look_at(each) for each in images) as looks:
        return compared_pairs(looks, np.flatnonzero(looks.comparable))


def encoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned by 90": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 270": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "transposed": lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    "transverse": lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    "encoded again": lambda image: encoded(image, 30),
    "smaller": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR),
    "squashed": lambda image: image.resize((224, 224), Image.Resampling.BILINEAR),
    "cropped": lambda image: image.crop((20, 36, 20 + image.width * 8 // 10, 36 + image.height * 8 // 10)),
    "turned by 10": lambda image: image.rotate(10, Image.Resampling.BICUBIC),
    "turned by -5": lambda image: image.rotate(-5, Image.Resampling.BICUBIC, expand=True, fillcolor="white"),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "mirrored and cropped": lambda image: ImageOps.mirror(image.crop((10, 10, 10 + image.width * 8 // 10, 180))),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_every_kind_are_the_same_and_other_photos_are_not(kind: str) -> None:
    same, alike = pairs_of(scene(0), scene(1), COPIES[kind](scene(0)), scene(2), COPIES[kind](scene(2)))
    assert (sorted(same), alike) == ([(0, 2), (3, 4)], [])


@pytest.mark.parametrize("kind", ["cropped a little", "turned a little"])
def test_copies_that_are_nearly_aligned_are_more_than_look_alikes(kind: str) -> None:
    """Soft pictures, that look alike before one is laid onto the other exactly."""
    pictures = [scene(seed).filter(ImageFilter.GaussianBlur(4)) for seed in range(6)]
    if kind == "cropped a little":
        copies = [each.crop((9, 4, 9 + each.width * 95 // 100, 4 + each.height * 95 // 100)) for each in pictures]
    else:
        copies = [each.rotate(3, Image.Resampling.BICUBIC) for each in pictures]
    same, alike = pairs_of(*pictures, *copies)
    assert (sorted(same), alike) == ([(i, i + 6) for i in range(6)], [])


def test_small_turns_of_things_on_a_plain_table_are_the_same() -> None:
    """As they lie, the two differ in less than 5 % of their area."""
    tables = [Image.linear_gradient("L").resize((256, 192)).point(lambda v: 150 + v // 4).convert("RGB")] * 4
    pictures = [table.copy() for table in tables]
    for seed, picture in enumerate(pictures):
        picture.paste(scene(seed).resize((90, 68)), (70 + 10 * seed, 60))
    turned = [_turned(each, 10) for each in pictures]
    assert sorted(pairs_of(*pictures, *turned)[0]) == [(i, i + 4) for i in range(4)]


def _turned(image: Image.Image, degrees: float) -> Image.Image:
    """``image`` turned about its middle, its edges repeated."""
    wide = Image.fromarray(np.pad(np.asarray(image), ((48, 48), (64, 64), (0, 0)), "edge"))
    return wide.rotate(degrees, Image.Resampling.BICUBIC).crop((64, 48, 64 + image.width, 48 + image.height))


def test_small_things_on_a_white_table_are_not_the_same() -> None:
    assert pairs_of(thing("ring"), thing("bar"), thing("wedge")) == ([], [])


def test_flat_images_are_never_the_same() -> None:
    noise = np.random.default_rng(0).integers(250, 256, (2, 120, 160), np.uint8)
    flat = [Image.new("L", (80, 80), 255), Image.new("L", (80, 80)), *(Image.fromarray(n) for n in noise)]
    assert pairs_of(*(each.convert("RGB") for each in flat)) == ([], [])


def test_two_colours_of_one_thing_are_not_the_same() -> None:
    red = Image.merge(
        "RGB", (scene(0).convert("L"), Image.new("L", scene(0).size, 60), Image.new("L", scene(0).size, 60))
    )
    grey = np.asarray(red.convert("L")).astype(float)
    other = np.stack(
        [np.full_like(grey, 60), np.clip((grey - 0.299 * 60 - 0.114 * 60) / 0.587, 0, 255), np.full_like(grey, 60)], -1
    )
    blue = Image.fromarray(other.astype(np.uint8))
    assert np.abs(np.asarray(blue.convert("L")).astype(float) - grey).mean() < 3
    assert pairs_of(red, blue)[0] == []
    assert pairs_of(red, red.resize((200, 150)))[0] == [(0, 1)]


@pytest.mark.parametrize("contrast", [60, -60, 120])
def test_aligned_tiles_that_differ_in_a_small_spot_look_alike_and_are_not_the_same(contrast: int) -> None:
    plain = tile(0)
    same, alike = pairs_of(
        plain, tile(0, spot=(150, 90), contrast=contrast), tile(0, spot=(40, 200), contrast=contrast)
    )
    assert same == []
    assert 2 <= len(alike) <= 3  # they join all three
    assert {i for pair in alike for i in pair} == {0, 1, 2}
    assert pairs_of(plain, encoded(plain, 40)) == ([(0, 1)], [])


def symmetric_tile(spot: tuple[int, int] | None, mark: int = 80, radius: int = 4) -> Image.Image:
    """A tile that is equal to its eight mirrored and turned forms, but for a spot."""
    plain = np.asarray(tile(0).convert("L")).astype(float)
    pixels = sum(np.rot90(side, quarters) for side in (plain, plain[:, ::-1]) for quarters in range(4)) / 8
    if spot is not None:
        rows, columns = np.mgrid[: len(pixels), : len(pixels)]
        pixels[np.hypot(columns - spot[0], rows - spot[1]) <= radius] += mark
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("radius", [4, 12])
def test_symmetric_tiles_with_defects_left_and_right_are_neither_dropped_nor_wrong_labels(radius: int) -> None:
    places = [(60, 100), (195, 100), (60, 155), (195, 155)]  # mirrored places: each is a mirrored copy of each
    tiles = [symmetric_tile(None), *(symmetric_tile(place, radius=radius) for place in places)]
    rows = table(*(("left" if i % 2 else "right", f"{i}" * 64, None) for i in range(len(tiles))))
    with Looks(map(look_at, tiles)) as looks:
        same = find_duplicates(rows, looks)
    assert (same.sets, same.conflicts, to_drop(rows, same)) == ([], [], [])
    assert len(set(make_groups(rows, same, near_too=True).names[1:])) == 1
    assert pairs_of(tiles[1], ImageOps.mirror(scene(0)), scene(0))[0] == [(1, 2)]


def test_of_three_photos_of_one_layout_mirrored_ones_are_not_the_same_however_large_their_defects() -> None:
    large = [symmetric_tile(place, mark=-70, radius=45) for place in ((70, 128), (186, 128))]
    assert pairs_of(*large)[0] == [(0, 1)]  # alone they are a picture and its mirrored copy
    others = [symmetric_tile(place, mark=-70, radius=45) for place in ((75, 128), (181, 128))]
    more = [symmetric_tile(place, mark=-70, radius=45) for place in ((66, 128), (190, 128))]
    same, alike = pairs_of(*large, *others, *more)
    assert same == []
    assert len(alike) >= 2


def test_the_work_for_thousands_of_aligned_photos_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    inner = duplicates.compare
    monkeypatch.setattr(duplicates, "compare", lambda *given: compared.append(given) or inner(*given))
    random = np.random.default_rng(0)
    for n in (60, 120):
        compared.clear()
        tiles = [tile(0, spot=(int(x), int(y))) for x, y in random.permutation(400)[:n, None] // (20, 1) % 20 * 11 + 20]
        same, alike = pairs_of(*tiles, encoded(tiles[n // 2], 40), tiles[3].rotate(0).resize((200, 200)))
        assert sorted(same) == [(3, n + 1), (n // 2, n)]
        assert len(alike) >= n - 1
        assert len(compared) < 2 * n


def test_a_thousand_times_the_same_scene_is_one_group_of_n_minus_one_pairs_and_quick() -> None:
    one = look_at(scene(0))
    with Looks([one] * 1000) as looks:
        begin = time.process_time()
        same, alike = compared_pairs(looks, np.arange(1000))
        assert time.process_time() - begin < 20
    assert (len(same), alike) == (999, [])


def table(*rows: tuple[str, str, str | None]) -> pd.DataFrame:
    """Rows of (label, sha256, the source's own group)."""
    return pd.DataFrame(rows, columns=["label", "sha256", "group"], dtype=object)


def looks_of(*seeds: int, side: int = 256) -> Looks:
    return Looks(look_at(scene(seed).resize((side, side * 3 // 4))) for seed in seeds)


def test_below_32_pixels_on_both_sides_only_exact_duplicates_count() -> None:
    rows = table(("a", "s1", None), ("a", "s1", None), ("a", "s2", None))
    assert find_duplicates(rows, looks_of(0, 0, 0, side=31)).sets == [[0, 1]]
    assert find_duplicates(rows, looks_of(0, 0, 0, side=32)).sets == [[0, 1, 2]]


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


def test_a_union_refuses_sets_that_would_be_too_large() -> None:
    union = Union(6)
    assert [union.join(0, i, 3) for i in (1, 2, 3)] == [True, True, False]
    assert union.join(0, 3)


def test_members_of_lists_what_occurs_twice() -> None:
    assert members_of(["b", "a", "b", "c", "a"]) == [[0, 2], [1, 4]]


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_compare(n: int) -> None:
    assert pairs_of(*[scene(0)] * n) == ([], [])
