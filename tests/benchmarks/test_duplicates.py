"""The benchmark of copies: what it leaves out, what it makes, and a search in small."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np

from benchmarks.duplicates import EDITS, KNOWN, Found, aligned_tiles, draw_sheets, read_known, search, take
from benchmarks.duplicates_growth import made
from tests.support.pictures import scene
from trainers.data.near_duplicates import Looks, compared_pairs


def test_known_copies_are_chained_and_each_has_a_word() -> None:
    with KNOWN.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    known, shots = read_known(), read_known("copy", "second shot")
    assert all(row["first"] != row["second"] and row["what"] for row in rows)
    assert {row["kind"] for row in rows} == {"copy", "second shot"}
    for row in rows:
        assert shots[row["first"]] == shots[row["second"]]
        assert (row["first"] in known) == (row["kind"] == "copy")
    assert Found(0, 0, (("a.jpg", "b.jpg"), (rows[0]["first"], rows[0]["second"]))).false(known) == [("a.jpg", "b.jpg")]


def test_copies_of_made_photos_are_found_and_others_are_called_by_name() -> None:
    images, draw = [scene(seed) for seed in range(4)], random.Random(0)
    for kind in ("mirrored", "cropped to 0.8", "brightness 1.2"):
        copies = [EDITS[kind][1](image, draw) for image in images[:2]]
        found = search(
            [take(each) for each in (*images, *copies, scene(3))],
            [*(f"{i}.png" for i in range(4)), *(f"{i}.png {kind}" for i in range(2)), "x.png"],
            {(0, 4), (1, 5)},
        )
        assert (found.true, found.found, found.others) == (2, 2, (("3.png", "x.png"),))


def test_aligned_tiles_differ_and_look_alike() -> None:
    looks = [take(each) for each in aligned_tiles(12)]
    with Looks(looks) as stored:
        same, alike = compared_pairs(stored, np.arange(12))
    assert (same, len(alike)) == ([], 11)


def test_made_photos_are_apart_but_for_the_planted_copies() -> None:
    looks = list(made([take(scene(seed)) for seed in range(12)], 200))
    with Looks(looks) as stored:
        same, _ = compared_pairs(stored, np.arange(200))
    assert len(same) == 2


def test_false_pairs_are_drawn(tmp_path: Path) -> None:
    for name in "ab":
        scene(0).save(tmp_path / f"{name}.png")
    draw_sheets([("a.png", "b.png")] * 13, tmp_path, tmp_path / "sheets")
    assert [path.name for path in sorted((tmp_path / "sheets").iterdir())] == ["pairs-0.png", "pairs-1.png"]
