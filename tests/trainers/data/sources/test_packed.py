"""The same content is the same data however it is packed: labels, hashes and splits."""

from __future__ import annotations

import csv
import io
import shutil
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.photos_on_disk import write_photo, zip_with_names
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource

CLASSES = ("glass", "玻璃", "ガラス", "유리", "стекло", "Käse", "007", "paper box", "a.b", "other/纸", "τεχνικά")
FILES = ("0", "照片", "фото 1", "Größe", "写真", "a,b;c", "x'y")
Tree = dict[str, str]
"""Path of a photo below the folder -> its class."""


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _as_zip(root: Path, tree: Tree, out: Path) -> str:
    return str(zip_with_names(out / "p.zip", _named(root), marked=True))


def _as_mac_zip(root: Path, tree: Tree, out: Path) -> str:
    """Names in UTF-8 and decomposed, without the flag that says so."""
    return str(zip_with_names(out / "mac.zip", {unicodedata.normalize("NFD", n): f for n, f in _named(root).items()}))


def _as_windows_zip(root: Path, tree: Tree, out: Path) -> str:
    return str(zip_with_names(out / "windows.zip", {n.replace("/", "\\"): f for n, f in _named(root).items()}))


def _named(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in _files(root)}


def _as_tar(root: Path, tree: Tree, out: Path) -> str:
    with tarfile.open(out / "p.tar.gz", "w:gz") as packed:
        packed.add(root, "deep/er/photos")
        packed.addfile(tarfile.TarInfo("deep/docs/README.txt"))
    return str(out / "p.tar.gz")


def _as_nested(root: Path, tree: Tree, out: Path) -> str:
    shutil.copytree(root, out / "one" / "two")
    (out / "one" / "README.md").write_text("photos")
    (out / "docs").mkdir()
    (out / "docs" / "notes.txt").write_text("x")
    return str(out)


def _as_merged(root: Path, tree: Tree, out: Path) -> tuple[str, ...]:
    files = _files(root)
    for place, file in enumerate(files):
        target = out / "ab"[place % 2] / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    # A class in one of the sources alone must not lose its folder above: both get the same other top folder.
    return tuple(str(_table(out / name, {p: tree[p] for p in _relative(out / name)}, ",")) for name in "ab")


def _relative(root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in _files(root)]


def _table(root: Path, tree: Tree, separator: str, encoding: str = "utf-8", end: str = "") -> Path:
    text = io.StringIO(newline="")
    rows = csv.writer(text, delimiter=separator)
    rows.writerow(["path", "label", *([""] if end else [])])
    rows.writerows([[path, label, *([""] if end else [])] for path, label in tree.items()])
    (root / "labels.csv").write_bytes(text.getvalue().encode(encoding))
    return root / "labels.csv"


def _as_table(separator: str, encoding: str = "utf-8", end: str = "") -> Callable[[Path, Tree, Path], str]:
    def pack(root: Path, tree: Tree, out: Path) -> str:
        flat = {}
        for number, (path, label) in enumerate(tree.items()):
            flat[f"batch {number % 2}/{number}{Path(path).suffix}"] = label
            (out / f"batch {number % 2}").mkdir(exist_ok=True)
            shutil.copy(root / path, out / f"batch {number % 2}" / f"{number}{Path(path).suffix}")
        _table(out, flat, separator, encoding, end)
        return str(out if separator == ";" else out / "labels.csv")

    return pack


def _as_parquet(root: Path, tree: Tree, out: Path) -> str:
    shutil.copytree(root, out, dirs_exist_ok=True)
    pd.DataFrame({"path": list(tree), "label": list(tree.values())}).to_parquet(out / "p.parquet")
    return str(out / "p.parquet")


WAYS: dict[str, Callable[[Path, Tree, Path], str | tuple[str, ...]]] = {
    "zip": _as_zip,
    "mac zip": _as_mac_zip,
    "windows zip": _as_windows_zip,
    "tar": _as_tar,
    "nested": _as_nested,
    "merged": _as_merged,
    "commas": _as_table(","),
    "semicolons": _as_table(";"),
    "tabs": _as_table("\t", "utf-16", end="yes"),
    "bars": _as_table("|", "utf-8-sig"),
    "parquet": _as_parquet,
}


def rows_of(source: str | tuple[str, ...], cache: Path) -> list[tuple[str, str, str]]:
    manifest, _ = build_manifest(DataSource(source, "auto", cache))
    return sorted(zip(*(manifest.table[c] for c in ("label", "sha256", "split")), strict=True))


@given(
    labels=st.lists(st.sampled_from(CLASSES), min_size=2, max_size=3, unique=True),
    names=st.lists(st.sampled_from(FILES), min_size=4, max_size=5, unique=True),
    own_splits=st.booleans(),
)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_tree_is_the_same_data_in_every_packing(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], names: list[str], own_splits: bool
) -> None:
    top = tmp_path_factory.mktemp("packed")
    tree: Tree = {}
    for n, label in enumerate(labels):
        for i, name in enumerate(names):
            part = ("Train", "train", "val", "test", "test")[i] + "/" if own_splits else ""
            write_photo(top / "plain" / f"{part}{label}/{name}.png", 1000 * n + i, (12, 10))
            tree[f"{part}{label}/{name}.png"] = label
    if own_splits:  # on a disk that tells upper from lower case, both are the split train
        assert (top / "plain" / "Train").is_dir()
    expected = rows_of(str(top / "plain"), top / "cache")
    assert {label for label, _, _ in expected} == set(labels)
    seen = 0
    for way, pack in WAYS.items():
        if own_splits and way in ("merged", "commas", "semicolons", "tabs", "bars", "parquet"):
            continue  # these tables have no column split
        out = top / way
        out.mkdir()
        assert rows_of(pack(top / "plain", tree, out), top / "cache") == expected, way
        seen += 1
    assert seen == (5 if own_splits else len(WAYS))
