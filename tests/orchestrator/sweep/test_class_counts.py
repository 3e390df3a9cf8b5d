"""The table of class counts that is printed before training."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.spec.load import load_spec
from orchestrator.spec.sweep import SweepSpec
from orchestrator.sweep.class_counts import class_count_lines
from trainers.data.manifest import Manifest
from trainers.images.augment import plan_copies

TRASHNET = {"cardboard": 282, "glass": 350, "metal": 286, "paper": 415, "plastic": 337, "trash": 95}
"""Training photos of TrashNet's own split."""


def manifest_of(counts: dict[str, int], test: int = 3, folds: int = 0) -> Manifest:
    rows = [(name, "train") for name, count in counts.items() for _ in range(count)]
    rows += [(name, "test") for name in counts for _ in range(test)]
    fold = [1 + i % folds if folds and split == "train" else 0 for i, (_, split) in enumerate(rows)]
    table = pd.DataFrame(rows, columns=["label", "split"]).assign(fold=fold)
    return Manifest(Path("photos"), tuple(sorted(counts)), 0, table)


def spec_of(folder: Path, search: str) -> SweepSpec:
    path = folder / "file.yaml"
    path.write_text(
        f"name: some\ndata: {{source: 'builtin:digits'}}\nsearch: {search}\n"
        "budget: {trials: 2, epochs: 1}\nweights: none\n"
    )
    return load_spec(str(path))


def test_a_multiplier_class_weights_and_sampling_next_to_each_other(tmp_path: Path) -> None:
    search = "{multiplier: [1, 2], balance: {choice: [none, class_weights, sampling], when: {multiplier: 1}}}"
    lines = class_count_lines(manifest_of(TRASHNET), spec_of(tmp_path, search))
    assert lines == [
        "1,765 photos of 6 classes to train on; the largest class has 4.4 times as many as the smallest. "
        "What each way to balance makes of them:",
        "class               photos  weight  draws     x2",
        "cardboard              282    1.04    294    589",
        "glass                  350    0.84    294    589",
        "metal                  286    1.03    294    588",
        "paper                  415    0.71    294    588",
        "plastic                337    0.87    294    588",
        "trash                   95    3.10    294    588",
        "all 6                1,765          1,765  3,530",
        "largest / smallest     4.4            1.0    1.0",
        "weight: what one example counts in the loss under class_weights; on average over the examples 1.",
        "draws: examples that an epoch takes of the class under sampling; some repeat if it has fewer.",
    ]


def test_proportional_copies_and_epochs_of_the_originals_size(tmp_path: Path) -> None:
    search = "{multiplier: 2, copies: [even, proportional], steps: originals, balance: sampling}"
    lines = class_count_lines(manifest_of({"a": 60, "b": 20}), spec_of(tmp_path, search))
    assert [line.split() for line in lines[1:5]] == [
        ["class", "photos", "x2", "draws", "x2", "proportional", "draws"],
        ["a", "60", "80", "40", "120", "40"],
        ["b", "20", "80", "40", "40", "40"],
        ["all", "2", "80", "160", "80", "160", "80"],
    ]


def test_weights_after_a_multiplier_are_those_of_its_examples(tmp_path: Path) -> None:
    search = "{multiplier: 1.5, balance: class_weights}"
    lines = class_count_lines(manifest_of({"a": 10, "b": 90}), spec_of(tmp_path, search))
    assert lines[1:4] == [
        "class               photos  x1.5  weight",
        "a                       10    60    1.25",  # 150 / (2 * 60)
        "b                       90    90    0.83",
    ]
    assert len(lines) == 7  # the two sums, and the legend of the weights alone


@pytest.mark.parametrize(
    ("counts", "advice"),
    [
        (TRASHNET, "a multiplier above 1, or balance: class_weights or sampling, would."),
        ({"a": 12, "b": 10}, "they are even enough."),
    ],
)
def test_where_nothing_balances_one_line_says_so(tmp_path: Path, counts: dict[str, int], advice: str) -> None:
    lines = class_count_lines(manifest_of(counts), spec_of(tmp_path, "{dropout: [0, 0.5]}"))
    assert len(lines) == 1
    assert lines[0].endswith(f"Nothing in this file balances them: {advice}")


def test_of_forty_classes_seven_are_shown_from_the_smallest_to_the_largest(tmp_path: Path) -> None:
    counts = {f"class {i:02d}": 100 + 10 * (i * 7 % 40) for i in range(40)}
    lines = class_count_lines(manifest_of(counts), spec_of(tmp_path, "{multiplier: [2, 5]}"))
    photos = [int(line.split()[2]) for line in lines if line.startswith("class ") and "photos" not in line]
    assert len(photos) == 7
    assert photos == sorted(photos)
    assert (photos[0], photos[-1]) == (100, 490)
    assert lines[-2].split()[:3] == ["all", "40", "11,800"]
    assert lines[-1].split()[-3:] == ["4.9", "1.0", "1.0"]


def test_a_range_of_multipliers_is_shown_by_its_ends(tmp_path: Path) -> None:
    lines = class_count_lines(manifest_of({"a": 4, "b": 8}), spec_of(tmp_path, "{multiplier: {uniform: [1, 2.5]}}"))
    assert lines[1].split() == ["class", "photos", "x2.5"]


def test_of_many_multipliers_five_are_shown(tmp_path: Path) -> None:
    search = "{multiplier: [1, 2, 3, 4, 5, 6, 7, 8, 9]}"
    lines = class_count_lines(manifest_of({"a": 4, "b": 8}), spec_of(tmp_path, search))
    assert lines[1].split() == ["class", "photos", "x3", "x5", "x7", "x9"]


def test_with_folds_all_their_photos_count(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "{multiplier: 2}")
    assert class_count_lines(manifest_of(TRASHNET, folds=5), spec) == class_count_lines(manifest_of(TRASHNET), spec)


def test_chinese_and_long_names_keep_the_columns(tmp_path: Path) -> None:
    counts = {"一次性快餐盒": 10, "x" * 60: 20, "b": 30}
    lines = class_count_lines(manifest_of(counts), spec_of(tmp_path, "{multiplier: 2}"))
    from rich.cells import cell_len

    table = lines[1:7]
    assert len({cell_len(line) for line in table}) == 1
    assert max(map(cell_len, table)) < 60


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=30),
    st.sampled_from([1.0, 1.7, 2.0, 5.0]),
    st.sampled_from(["none", "class_weights", "sampling"]),
)
@settings(max_examples=60, deadline=None)
def test_the_sums_are_those_of_the_plan(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], multiplier: float, balance: str
) -> None:
    manifest = manifest_of({f"c{i:02d}": count for i, count in enumerate(counts)})
    search = f"{{multiplier: {multiplier:g}, balance: {balance}}}"
    lines = class_count_lines(manifest, spec_of(tmp_path_factory.mktemp("spec"), search))
    total = sum(counts)
    assert lines[0].startswith(f"{total:,} photos of {len(counts)} classes")
    if multiplier == 1 and balance == "none":
        assert len(lines) == 1
        return
    sums = next(line for line in lines if line.startswith(f"all {len(counts)} "))
    numbers = [int(number.replace(",", "")) for number in re.findall(r"[\d,]+", sums)[1:]]
    examples = total + int(plan_copies(manifest.split("train").labels(), multiplier).sum())
    assert numbers[0] == total
    assert all(number in (examples, examples + 1, examples - 1) for number in numbers[1:])
    assert len(numbers) == 1 + (multiplier > 1) + (balance == "sampling")
    shown = [line for line in lines if re.match(r"c\d\d ", line)]
    assert len(shown) == (len(counts) if len(counts) <= 12 else 7)
    assert np.isfinite([float(number.replace(",", "")) for line in shown for number in line.split()[1:]]).all()
