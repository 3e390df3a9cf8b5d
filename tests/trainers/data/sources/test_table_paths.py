"""Paths of a table: found as the disk spells them, and advice that helps where they lead out of its folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.photos_on_disk import (
    error_of,
    photos_at,
    source,
    split_rows,
    table_of,
    written_table,
)
from trainers.data.build import build_manifest, check_data
from trainers.data.sources.tables import read_table


@pytest.mark.parametrize("prefix", ["../imgs/", "sub/../../imgs/", "{root}/imgs/"])
def test_the_advice_for_paths_that_lead_out_of_the_folder_helps(tmp_path: Path, prefix: str) -> None:
    """As typed: move the table, and write the paths as in the example."""
    root = tmp_path.resolve()
    rows = [{**r, "path": f"{prefix.format(root=root)}{r['path']}"} for r in split_rows(tmp_path / "imgs")]
    path = table_of(tmp_path / "lab", rows)
    text = error_of(source(path)) if "{root}" in prefix else next(iter(check_data(source(path)).unreadable.values()))
    advice = re.search(r"ove the table to (\S+) and write its paths relative to (\S+), (this one|the first) as", text)
    assert advice is not None, text
    assert advice[1] == advice[2] == str(root / "imgs")
    example = text.rstrip(".").rpartition(" as ")[2]
    assert example in {r["path"] for r in split_rows(tmp_path / "imgs")}
    added = prefix.format(root=root)
    moved = table_of(Path(advice[1]), [{**r, "path": r["path"].removeprefix(added)} for r in rows])
    manifest, report = build_manifest(source(moved))
    assert (len(manifest.table), report.unreadable) == (12, {})


def test_the_advice_names_a_folder_that_holds_the_photos_inside_too(tmp_path: Path) -> None:
    rows = [{**r, "path": f"../imgs/{r['path']}"} for r in split_rows(tmp_path / "imgs")]
    rows += split_rows(tmp_path / "lab")[:2]
    report = check_data(source(table_of(tmp_path / "lab", rows)))
    assert len(report.unreadable) == 12
    assert report.unreadable["../imgs/a/000.png"].endswith(
        f"move the table to {tmp_path.resolve()} and write its paths relative to {tmp_path.resolve()}, "
        "this one as imgs/a/000.png"
    )


def test_the_advice_for_photos_without_a_common_folder_is_to_copy_them(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t")
    out = os.path.relpath("/no-such-folder/x.png", (tmp_path / "t").resolve())
    more = {"label": "a", "split": "train"}
    report = check_data(source(table_of(tmp_path / "t", [*rows, {"path": out, **more}])))
    assert "copy the photo into that folder" in report.unreadable[out]
    path = table_of(tmp_path / "t", [*rows, {"path": "/no-such-folder/x.png", **more}])
    assert f"Copy those photos into {path.parent.resolve()}" in error_of(source(path))


def test_absolute_paths_into_the_tables_own_folder_are_those_below_it(tmp_path: Path) -> None:
    """As in the tables that orch writes; in the spelling of a link to the folder, too."""
    root = (tmp_path / "t").resolve()
    (tmp_path / "link").symlink_to(root)
    rows = split_rows(tmp_path / "t")
    path = table_of(tmp_path / "t", [{**r, "path": f"{root}/{r['path']}"} for r in rows[:6]] + rows[6:])
    for spelled in (path, tmp_path / "link" / path.name):
        found = read_table(spelled)
        assert (found.rows["path"].tolist(), found.problems) == (sorted(r["path"] for r in rows), ())
    elsewhere = [*rows[1:], {**rows[0], "path": f"{root}/../other/{rows[0]['path']}"}]
    assert "paths must be relative to the table's folder" in error_of(source(table_of(tmp_path / "t", elsewhere)))


def test_absolute_paths_elsewhere_refuse_the_table_with_the_folder_to_move_it_to(tmp_path: Path) -> None:
    rows = [{**r, "path": f"{tmp_path.resolve()}/imgs/{r['path']}"} for r in split_rows(tmp_path / "imgs")]
    text = error_of(source(table_of(tmp_path / "lab", rows)))
    assert f"Move the table to {tmp_path.resolve()}/imgs and write its paths relative" in text


def test_paths_are_found_as_windows_and_macs_write_them(tmp_path: Path) -> None:
    root = photos_at(
        tmp_path / "t", "img/a/000.jpg", "img/a/K\u00e4se.png", "img/b/2.png", "img/b/3.png", "img/b/3.PNG"
    )
    text = "path,label\nimg\\a\\000.JPG,a\nIMG/a/Ka\u0308se.png,a\nimg\\b\\2.png,b\nimg/b/3.pnG,b\n../t/img/b/3.png,b\n"
    found = read_table(written_table(root, text))
    assert found.rows["path"].tolist() == ["../t/img/b/3.png", "img/a/000.jpg", "img/a/K\u00e4se.png", "img/b/2.png"]
    assert found.warnings[0].startswith(
        "3 paths of t.csv are written otherwise than the files: img\\a\\000.JPG (on the "
    )
    assert "1 file of t.csv cannot be found: img/b/3.pnG." in found.problems[0]  # two files differ by case alone


def test_backslashes_lead_nowhere_else(tmp_path: Path) -> None:
    root = photos_at(tmp_path / "t", "1.png", "2.png")
    photos_at(tmp_path, "secret.png")
    found = read_table(written_table(root, "path,label\n1.png,a\n2.png,b\n..\\secret.png,b\n"))
    assert "leads out of the table's folder" in found.rows["reason"].dropna().item()
