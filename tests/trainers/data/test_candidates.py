"""Hashes, keypoints and names propose pairs; the work grows with the number of photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.pictures import look_at, scene
from trainers.data import candidates
from trainers.data.candidates import (
    FEWEST_VOTES,
    HASH_DISTANCE,
    close_hashes,
    copies_by_name,
    keypoint_candidates,
    perceptual_hashes,
    whole_candidates,
)
from trainers.data.near_duplicates import Looks
from trainers.files.spool import Spool
from trainers.images.alignment import SYMMETRIES, symmetric
from trainers.images.keypoints import KEYPOINT, KEYPOINTS


def test_hashes_are_those_of_imagehash() -> None:
    import imagehash

    random = np.random.default_rng(0)
    pictures = [scene(s).convert("L") for s in range(60)]
    pictures += [Image.fromarray(random.integers(0, 256, (32, 32), np.uint8)) for _ in range(30)]
    pictures += [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.new("L", (32, 32), 7)]
    thumbnails = np.stack([np.asarray(each.resize((32, 32), Image.Resampling.LANCZOS)) for each in pictures])
    expected = [imagehash.phash(Image.fromarray(one)).hash for one in thumbnails]
    bits = np.unpackbits(perceptual_hashes(thumbnails).view(np.uint8)).reshape(-1, 8, 8)
    assert len(expected) == 93
    assert np.array_equal(bits.astype(bool), np.stack(expected))
    assert perceptual_hashes(thumbnails[:0]).shape == (0,)


@pytest.mark.parametrize("symmetry", range(8))
def test_whole_pictures_are_proposed_in_each_symmetry(symmetry: int) -> None:
    one = np.asarray(scene(0))
    turned = np.stack([symmetric(one[..., c], *SYMMETRIES[symmetry]) for c in range(3)], axis=-1)
    pictures = (scene(1), Image.fromarray(one), Image.fromarray(np.ascontiguousarray(turned)))
    with Looks(map(look_at, pictures)) as looks:
        found = [(c.first, c.second, c.symmetry) for c in whole_candidates(looks.thumbnails, np.arange(3))]
    assert found == [(1, 2, symmetry)]


def test_crops_and_turns_are_proposed_by_their_keypoints_and_mirrored_ones_too() -> None:
    crop = scene(0).crop((30, 30, 230, 180))
    turn = scene(0).rotate(40, Image.Resampling.BICUBIC)
    mirror = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    with Looks(map(look_at, [scene(0), *(scene(s) for s in range(1, 20)), crop, turn, mirror])) as looks:
        found = {(c.first, c.second, c.mirror) for c in keypoint_candidates(looks.keypoints, np.arange(23))}
    assert {(0, 20, False), (0, 21, False), (0, 22, True)} <= found


@given(st.integers(0, 2**32), st.integers(0, 60), st.sampled_from([3, 12, 64]))
@settings(max_examples=60, deadline=None)
def test_close_hashes_are_those_of_a_comparison_of_each_with_each(seed: int, n: int, bits: int) -> None:
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**bits, n, np.uint64, endpoint=False) if bits < 64 else np.zeros(n, np.uint64)
    if bits == 64:
        for i in range(n):
            flips = random.choice(64, random.integers(0, 12), replace=False)
            hashes[i] = np.uint64(sum(1 << int(bit) for bit in flips))
    found = {a: close.tolist() for a, close in close_hashes(hashes, hashes)}
    for a in range(n):
        close = [b for b in range(a + 1, n) if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= HASH_DISTANCE]
        assert found.get(a, []) == close


def test_close_hashes_come_in_order_and_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(1).integers(0, 2**16, 300, np.uint64)
    at_once = [(a, b.tolist()) for a, b in close_hashes(hashes, hashes)]
    monkeypatch.setattr(candidates, "CANDIDATES_AT_ONCE", 7)
    assert [(a, b.tolist()) for a, b in close_hashes(hashes, hashes)] == at_once
    assert [a for a, _ in at_once] == sorted({a for a, _ in at_once})
    assert all(min(b) > a for a, b in at_once)
    assert len(at_once) > 100


def planted_keypoints(photos: int, pairs: int, seed: int = 0) -> tuple[np.ndarray, set[tuple[int, int]]]:
    """Random codes for ``photos`` photos; ``pairs`` of them share 40 codes with 4 of 64 bits changed."""
    random = np.random.default_rng(seed)
    rows = np.zeros((photos, KEYPOINTS), KEYPOINT)
    rows["code"] = random.integers(0, 2**64, rows.shape, np.uint64)
    rows["size"] = 1
    chosen = random.permutation(photos)[: 2 * pairs].reshape(-1, 2)
    for a, b in chosen.tolist():
        flips = np.bitwise_or.reduce(np.uint64(1) << random.integers(0, 64, (40, 4), np.uint64), axis=1)
        rows["code"][b, :40] = rows["code"][a, :40] ^ flips
    return rows, {(min(pair), max(pair)) for pair in chosen.tolist()}


def test_common_keypoints_are_found_and_the_work_is_cut_into_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, pairs = planted_keypoints(400, 50)
    with Spool((KEYPOINTS,), KEYPOINT, rows) as points:
        at_once = [(c.first, c.second) for c in keypoint_candidates(points, np.arange(400))]
        monkeypatch.setattr(candidates, "KEYPOINTS_AT_ONCE", 2**13)
        in_parts = [(c.first, c.second) for c in keypoint_candidates(points, np.arange(400))]
    assert in_parts == at_once
    assert len(pairs & set(at_once)) >= 48
    assert len(at_once) < 100


@pytest.mark.parametrize("photos", [0, 10])
def test_votes_are_counted_but_for_one_too_many_where_two_pairs_have_one_cell(
    photos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "FEWEST_CELLS", 2**10)
    random = np.random.default_rng(0)
    pairs = random.geometric(0.002, 20_000)
    votes = candidates._Votes(photos)
    votes._most = 2_000
    for some in np.split(pairs, [1, 700, 5_000, 5_000]):
        votes.add(some)
    codes, counts = votes.enough()
    true = np.bincount(pairs, minlength=codes.max() + 1)
    assert set(np.flatnonzero(true >= FEWEST_VOTES)) <= set(codes.tolist())
    assert set((counts - true[codes]).tolist()) <= {0, 1}


def test_the_rarest_pairs_are_forgotten_where_there_are_too_many() -> None:
    votes = candidates._Votes(0)
    votes._most = 100
    for _ in range(6):
        votes.add(np.concatenate([np.arange(90), np.arange(0, 60)]))
        votes.add(np.arange(1_000, 1_200))
    votes.add(np.repeat(np.arange(5_000, 5_200), 3))
    codes, counts = votes.enough()
    assert codes[codes < 60].tolist() == list(range(60))
    assert (counts[codes < 60] == 12).all()
    assert len(codes) <= 100


def test_four_times_the_photos_take_about_four_times_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work: rows read, and entries looked up, sorted and compared. Comparing all pairs would take 16 times as much."""
    done: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any], argument: int) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            done[name] += np.size(args[argument])
            return function(*args, **options)

        return call

    for name, argument in (("bitwise_count", 0), ("searchsorted", 1), ("sort", 0), ("argsort", 0)):
        monkeypatch.setattr(np, name, counted("hashes and keypoints", getattr(np, name), argument))
    monkeypatch.setattr(candidates, "MOST_NEIGHBOURS", 4)  # is reached by so few photos, too
    monkeypatch.setattr(Spool, "take", counted("rows", Spool.take, 1))
    work = []
    for photos in (3_000, 12_000):
        done.clear()
        rows, pairs = planted_keypoints(photos, 200)
        hashes = np.random.default_rng(0).integers(0, 2**64, photos, np.uint64)
        with Spool((KEYPOINTS,), KEYPOINT, rows) as points:
            found = {(c.first, c.second) for c in keypoint_candidates(points, np.arange(photos))}
            by_keypoints = done["hashes and keypoints"]
            assert sum(1 for _ in close_hashes(hashes, hashes)) < photos
        assert len(found & pairs) >= 190
        work.append((done["rows"], by_keypoints, done["hashes and keypoints"] - by_keypoints))
    grown = [after / before for before, after in zip(*work, strict=True)]
    assert len(grown) == 3
    assert all(3.5 < each < 6 for each in grown), grown


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["a/x.jpg", "a/aug_x.jpg", "b/aug_x.jpg"], [(1, 0)]),
        (
            ["x.jpg", "x_flip.png", "x (1).jpg", "x-copy.jpg", "x - Copy (2).jpg", "x_rot90.jpg"],
            [(i, 0) for i in range(1, 6)],
        ),
        (
            ["x.jpg", "Copy of x.jpg", "x_hflip_rot180.jpg", "aug_3_x.jpg", "x_aug_12.jpg"],
            [(i, 0) for i in range(1, 5)],
        ),
        (["1.jpg", "2.jpg", "img_1.jpg", "img_10.jpg", "rotor.jpg", "copy.jpg", "flip.jpg", "(1).jpg"], []),
        (["x_flip.jpg", "y_flip.jpg"], []),
        ([], []),
    ],
)
def test_names_that_look_like_copies(names: list[str], pairs: list[tuple[int, int]]) -> None:
    assert copies_by_name(names) == pairs
