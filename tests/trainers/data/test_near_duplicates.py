"""The indexes propose, the pixels decide; verdicts that are kept change nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from tests.support.pictures import encoded, look_at, scene, symmetric_tile, thing, tile
from trainers.data import near_duplicates
from trainers.data.near_duplicates import Looks, Union, compared_pairs
from trainers.data.verdict_store import VERDICTS


def pairs_of(*images: Image.Image) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    with Looks(look_at(each) for each in images) as looks:
        return compared_pairs(looks, np.flatnonzero(looks.comparable))


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
    inner = near_duplicates.compare
    monkeypatch.setattr(near_duplicates, "compare", lambda *given: compared.append(given) or inner(*given))
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


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_compare(n: int) -> None:
    assert pairs_of(*[scene(0)] * n) == ([], [])


def pictures() -> list[Image.Image]:
    """Of all kinds: copies as they lie and moved, look-alikes, a symmetric layout, and others."""
    tiles = [tile(0), tile(0, spot=(150, 90)), tile(0, spot=(40, 200))]
    layout = [symmetric_tile(place) for place in ((60, 100), (195, 100), (60, 155))]
    copies = [COPIES[kind](scene(seed)) for seed, kind in enumerate(("mirrored", "cropped", "turned by 10", "darker"))]
    return [*map(scene, range(6)), *copies, *tiles, *layout, encoded(tile(0), 40)]


def test_verdicts_that_are_kept_change_nothing_and_only_new_pairs_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[str, str]] = []
    inner = near_duplicates._verdict
    names: list[str] = []

    def counted(looks: Looks, found: near_duplicates.Candidate) -> near_duplicates.Verdict:
        compared.append((names[found.first], names[found.second]))
        return inner(looks, found)

    monkeypatch.setattr(near_duplicates, "_verdict", counted)
    monkeypatch.setattr(near_duplicates, "_code", lambda: "same")
    images = pictures()
    old = [f"{i:064x}" for i in range(len(images))]

    def found(order: list[int], cache: Path | None) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        names[:] = [old[i] for i in order]
        compared.clear()
        with Looks(look_at(images[i]) for i in order) as looks:
            return compared_pairs(looks, np.arange(len(order)), names, cache)

    most = list(range(0, len(images) - 3))
    anew = found(most, None)
    assert anew == found(most, tmp_path)
    first = {*compared}
    assert len(first) > 5
    assert (anew, compared) == (found(most, tmp_path), [])
    everything = list(range(len(images)))
    expected = found(everything, None)
    assert expected == found(everything, tmp_path)
    assert compared
    assert not first & {*compared}
    shuffled = np.random.default_rng(0).permutation(len(images)).tolist()
    assert found(shuffled, tmp_path) == found(shuffled, None)
    for file in (tmp_path / VERDICTS).rglob("*.npy"):
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(bytes(content))
    assert expected == found(everything, tmp_path)
