"""Class folders, nested or not, and top folders that are splits: what becomes a class, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.photos_on_disk import RATIOS, error_of, folder_of, source, told, write_photo
from trainers.data.folders import read_classes, split_folders, walk
from trainers.data.manifest import build_manifest, check_data
from trainers.errors import TrainerError


def test_nested_class_folders_are_labelled_by_their_path(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"recyclable/paper": 4, "recyclable/glass": 4, "other/box/wet": 4})
    manifest, report = build_manifest(source(root))
    assert manifest.classes == ("other/box/wet", "recyclable/glass", "recyclable/paper")
    assert manifest.table["path"][0] == "other/box/wet/000.png"
    assert told(report) == ()


def test_a_folder_with_images_and_class_folders_is_a_class_itself_with_a_warning(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"a": 4, "a/more": 4, "b": 4})
    manifest, report = build_manifest(source(root))
    assert manifest.classes == ("a", "a/more", "b")
    assert told(report) == (
        "the folder a holds images and class folders; its own images are the class 'a', beside 'a/more'.",
    )


def test_one_folder_around_all_classes_is_named_to_be_passed(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"data/train/a": 3, "data/test/a": 3})
    assert error_of(source(root)) == f"the class folders lie deeper than {root}; pass {root / 'data'} instead."
    only = folder_of(tmp_path / "q", **{"train/a": 4, "train/b": 4})
    assert error_of(source(only)).endswith(f"pass {only / 'train'} instead.")


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Training", "val", "TEST"), ("train", "dev", "testing")]
)
def test_top_folders_named_as_splits_are_the_datas_own_splits(tmp_path: Path, names: tuple[str, str, str]) -> None:
    root = tmp_path / "p"
    for number, name in enumerate(names):
        for label in ("glass", "organic/wet"):
            for i in range(4 - number):
                write_photo(root / name / label / f"{i}.png", 1000 * number + 100 * len(label) + i)
    manifest, report = build_manifest(source(root, None))
    assert manifest.classes == ("glass", "organic/wet")
    assert {s: sum(c.values()) for s, c in report.splits.items()} == {"train": 8, "validation": 6, "test": 4}
    by_folder = {p.split("/")[0]: s for p, s in zip(manifest.table["path"], manifest.table["split"], strict=True)}
    assert by_folder == dict(zip(names, ("train", "validation", "test"), strict=True))
    anew, report = build_manifest(source(root, RATIOS))
    assert told(report) == ("the data has splits of its own; they are not used, because ratios are given.",)
    assert anew.classes == manifest.classes


def test_split_folders_that_lack_something_are_sentences(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    assert error_of(source(root, None)).startswith("no image has the split validation; all of train, validation, test")
    pooled, _ = build_manifest(source(root, None, folds=2))  # folds need no validation
    assert pooled.table.groupby("split").size().to_dict() == {"test": 4, "train": 8}
    write_photo(root / "test" / "loose.png", 5)
    assert error_of(source(root, None, folds=2)) == (
        "the folder test is named as a split but holds images directly; put them into class folders inside it."
    )
    inner = folder_of(tmp_path / "q", **{"a/train": 4, "a/test": 4, "b": 4})
    assert told(check_data(source(inner))) == (
        "folders named as splits (test, train) lie inside others and are part of the class names; splits must be the "
        "top folders.",
    )


def test_folders_that_link_in_a_circle_end(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=4)
    (root / "a" / "round").symlink_to(root, target_is_directory=True)
    (root / "b" / "far").symlink_to(folder_of(tmp_path / "far", c=3) / "c", target_is_directory=True)
    assert [folder.path for folder in walk(root)] == ["", "a", "b", "b/far"]


def test_split_folders_need_two_and_no_other() -> None:
    assert split_folders(["train/a", "VAL/b"]) == {"train": "train", "VAL": "validation"}
    assert split_folders(["train/a", "train/b"]) == {}
    assert split_folders(["train/a", "plane/b", "test/c"]) == {}
    assert split_folders([]) == {}


NAMES = st.sampled_from(["a", "b", "c d", "train", "test", "纸", "x.y"])
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=4).map("/".join), st.integers(1, 3), max_size=6)


@given(TREES)
@settings(max_examples=80, deadline=None)
def test_every_image_in_a_folder_is_listed_once_or_there_is_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, int]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for folder, images in tree.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            (root / folder / f"{i}.jpg").write_bytes(b"")
    tops = {folder.split("/")[0] for folder in tree}
    if not tree or (len(tops) == 1 and not tops & set(tree)):
        with pytest.raises(TrainerError, match=r"holds no images|pass .* instead"):
            read_classes(root, walk(root))
        return
    found = read_classes(root, walk(root))
    listed = set(found.rows["path"])
    everything = {f"{folder}/{i}.jpg" for folder, images in tree.items() for i in range(images)}
    assert len(listed) == len(found.rows)
    assert listed == everything or (listed < everything and found.problems)
    assert all(row.path.endswith(row.label + "/" + Path(row.path).name) for row in found.rows.itertuples())
