"""The contest's format: a text with a number next to every image, and a file with the names of the numbers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.photos_on_disk import HOSTILE, error_of, folder_of, source, warnings_of, write_hostile, write_photo
from trainers.data.build import build_manifest, check_data
from trainers.data.manifest import Manifest
from trainers.data.sources.contest_pairs import holds_pairs, read_pairs
from trainers.data.sources.tree import walk

NAMES = {"0": "其他垃圾/一次性快餐盒", "1": "recyclable/glass", "2": "harmful/battery"}


def pairs(root: Path, *counts: int, first: int = 1) -> Path:
    """``counts[n]`` images of the number n, img_1 ... on, each with its text."""
    i = first
    for number, count in enumerate(counts):
        for _ in range(count):
            write_photo(root / f"img_{i}.jpg", i)
            (root / f"img_{i}.txt").write_text(f"img_{i}.jpg, {number}")
            i += 1
    return root


def rule(path: Path, names: dict[str, str] | None = None, encoding: str = "utf-8") -> None:
    path.write_text(json.dumps(NAMES if names is None else names, ensure_ascii=False), encoding=encoding)


def test_pairs_get_the_names_of_the_rule_file(tmp_path: Path) -> None:
    root = pairs(tmp_path / "garbage" / "train_data", 4, 5, 6)
    rule(root.parent / "garbage_classify_rule.json", encoding="utf-8-sig")
    for place in (root, root.parent):
        manifest, report = build_manifest(source(place))
        assert manifest.classes == tuple(sorted(NAMES.values()))
        assert manifest.table["label"].value_counts().to_dict() == {
            "其他垃圾/一次性快餐盒": 4,
            "recyclable/glass": 5,
            "harmful/battery": 6,
        }
        assert warnings_of(report) == ()
    assert manifest.table["path"][0] == "train_data/img_1.jpg"


def test_without_a_rule_file_the_labels_are_the_numbers(tmp_path: Path) -> None:
    root = pairs(tmp_path / "p", 4, 4)
    (root / "settings.json").write_text('{"rate": 1}')
    (root / "list.json").write_text("[1, 2")
    assert build_manifest(source(root))[0].classes == ("0", "1")


def test_several_rule_files_that_differ_are_a_sentence_and_copies_are_not(tmp_path: Path) -> None:
    root = pairs(tmp_path / "p", 4, 4)
    rule(root / "a.json")
    rule(root / "b.json")
    assert len(build_manifest(source(root))[0].classes) == 2
    rule(root / "b.json", {"0": "cat", "1": "dog"})
    text = error_of(source(root))
    assert text.startswith("there are several files with names of the classes, and they differ: ")
    assert text.endswith("b.json. Take out all but one.")


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    root = pairs(tmp_path / "p", 6, 6)
    rule(root / "rule.json", {"0": "cat", "1": "dog"})
    (root / "img_1.txt").write_text("img_1.jpg; 0")
    (root / "img_2.txt").write_text("img_3.jpg, 0")
    (root / "img_4.txt").write_text("img_4.jpg, 7")
    (root / "img_5.txt").write_text("")
    (root / "img_6.txt").write_text("img_6.jpg, cat")
    (root / "img_77.txt").write_text("img_77.jpg, 1")
    (root / "img_7.txt").write_text("img_7.jpg, 1\nimg_7.jpg, 0\n")
    assert error_of(source(root)).split("\n") == [
        "the number 7 has no name in the file of class names: img_4.jpg. Add it there, or correct the texts.",
        "4 texts next to an image must hold one line like img_1.jpg, 0 and do not: img_1.txt, img_5.txt, img_6.txt, "
        "img_7.txt.",
        "1 text must name the image next to it: img_2.txt names img_3.jpg.",
        "1 image named by a text cannot be found: img_77.jpg (img_77.txt). Add the images, or take the texts out.",
    ]


def test_what_is_passed_over_is_a_warning(tmp_path: Path) -> None:
    root = pairs(tmp_path / "p", 5, 5)
    rule(root / "rule.json", {"0": "cat", "1": "dog", "2": "owl", "3": "cat"})
    (root / "readme.txt").write_text("photos of a contest")
    write_photo(root / "img_99.jpg", 99)
    manifest, report = build_manifest(source(root))
    assert manifest.classes == ("cat", "dog")
    assert warnings_of(report) == (
        "rule.json gives the numbers 0, 3 the same name, 'cat'; they become one class.",
        "numbers of the file of class names without an image: 2 (owl), 3 (cat).",
        "1 image without a text next to it will not be read: img_99.jpg.",
        "1 text without an image will not be read: readme.txt.",
    )


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfimg_1.jpg, 0",
        b"img_1.jpg, 0\r\n",
        b"  img_1.jpg ,0  \n\n",
        b"img_1.jpg,0",
        "img_1.jpg\uff0c0".encode(),
        "img_1.jpg, 0".encode("utf-16"),
        b"train_data/img_1.jpg, 0",
        b"img_1.JPG, 00",
    ],
)
def test_texts_as_people_and_programs_write_them(tmp_path: Path, text: bytes) -> None:
    root = pairs(tmp_path / "p", 2)
    (root / "img_1.txt").write_bytes(text)
    found = read_pairs(root, walk(root))
    assert (found.problems, found.rows["label"].tolist()) == ((), ["0", "0"])


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_chinese_names_of_images(tmp_path: Path, encoding: str) -> None:
    root = tmp_path / "p"
    write_photo(root / "垃圾 1.jpg", 1)
    (root / "垃圾 1.txt").write_bytes("垃圾 1.jpg, 3\n".encode(encoding))
    assert read_pairs(root, walk(root)).rows[["path", "label"]].values.tolist() == [["垃圾 1.jpg", "3"]]


def test_class_folders_with_captions_are_no_pairs(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=4)
    for image in root.rglob("*.png"):
        image.with_suffix(".txt").write_text("a photo of a cat, sitting")
    assert not holds_pairs(root, walk(root))
    assert build_manifest(source(root))[0].classes == ("a", "b")
    for image in root.rglob("*.png"):
        image.with_suffix(".txt").write_text(f"{image.name}, {int(image.parent.name == 'b')}")
    assert holds_pairs(root, walk(root))
    assert build_manifest(source(root))[0].classes == ("0", "1")


def test_two_images_of_one_stem_share_a_text_that_names_one(tmp_path: Path) -> None:
    root = pairs(tmp_path / "p", 3)
    write_photo(root / "img_1.png", 9)
    found = read_pairs(root, walk(root))
    assert found.rows["path"].tolist() == ["img_1.jpg", "img_2.jpg", "img_3.jpg"]
    assert found.warnings == ("1 image without a text next to it will not be read: img_1.png.",)


def test_names_that_differ_in_capitals_alone_are_kept_apart(tmp_path: Path) -> None:
    root = tmp_path / "p"
    for number, name in enumerate(("IMG_1", "Img_1", "img_1", "img_2")):
        write_photo(root / f"{name}.jpg", number)
        (root / f"{name}.txt").write_text(f"{name}.jpg, {number}")
    if len([*root.iterdir()]) < 8:
        pytest.skip("this disk does not tell capitals apart")
    (root / "img_2.txt").write_text("IMG_2.JPG, 3")
    found = read_pairs(root, walk(root))
    assert found.problems == ()
    assert found.rows[["path", "label"]].values.tolist() == [
        ["IMG_1.jpg", "0"],
        ["Img_1.jpg", "1"],
        ["img_1.jpg", "2"],
        ["img_2.jpg", "3"],
    ]


def test_a_json_that_is_nested_too_deep_is_no_rule_file(tmp_path: Path) -> None:
    root = pairs(tmp_path / "p", 2)
    (root / "deep.json").write_text("[" * 100_000)
    assert read_pairs(root, walk(root)).rows["label"].tolist() == ["0", "0"]


def test_pairs_in_top_folders_named_as_splits(tmp_path: Path) -> None:
    for n, part in enumerate(("train", "val", "test")):
        pairs(tmp_path / "p" / part, 4, 4, first=1 + 100 * n)
    manifest, _ = build_manifest(source(tmp_path / "p", None))
    assert manifest.table.groupby("split").size().to_dict() == {"train": 8, "validation": 8, "test": 8}


LINES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.tuples(st.sampled_from(["x.jpg", "y.jpg", "../x.jpg", "x"]), st.integers(-5, 10**12)).map(
        lambda pair: f"{pair[0]}, {pair[1]}".encode()
    ),
)


@given(st.lists(LINES, min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_whatever_the_texts_hold_every_image_is_listed_or_reported(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes]
) -> None:
    root = tmp_path_factory.mktemp("wild")
    names = [f"{chr(120 + i)}.jpg" for i in range(len(texts))]
    for name, text in zip(names, texts, strict=True):
        (root / name).write_bytes(b"")
        (root / name).with_suffix(".txt").write_bytes(text)
    found = read_pairs(root, walk(root))
    told_of = " ".join((*found.problems, *found.warnings))
    for name in names:
        assert name in set(found.rows["path"]) or Path(name).with_suffix(".txt").name in told_of
    assert all(label.isdigit() for label in found.rows["label"])


@pytest.mark.timeout(60)
def test_pairs_leave_out_what_is_no_plain_file(tmp_path: Path) -> None:
    root = tmp_path / "p"
    write_hostile(root)
    for i, name in enumerate([f"{i}.jpg" for i in range(12)] + [*HOSTILE]):
        if name not in HOSTILE:
            write_photo(root / name, i)
        (root / name).with_suffix(".txt").write_text(f"{name}, {i % 2}")
    os.mkfifo(root / "names.json")
    os.mkfifo(root / "stray.txt")
    (root / "endless.txt").symlink_to("/dev/zero")
    manifest, report = build_manifest(source(root))
    assert len(manifest.table) == 12
    assert all(HOSTILE[name] in reason for name, reason in report.unreadable.items())
    assert {**report.unreadable}.keys() == {*HOSTILE}
    assert any("endless.txt, stray.txt" in text for text in report.warnings)


def test_texts_that_are_all_wrong_are_sentences_and_no_crash(tmp_path: Path) -> None:
    root = pairs(tmp_path / "p", 3, 3)
    for text in root.glob("*.txt"):
        text.write_text("cat")
    report = check_data(source(root, "auto"))
    assert report.images == 0
    assert [text.partition(" next to")[0] for text in report.problems] == ["6 texts"]
    assert "must hold one line like img_1.jpg, 0 and do not" in error_of(source(root, "auto"))


def test_the_file_of_names_is_found_above_folders_that_only_wrap_an_archive(tmp_path: Path) -> None:
    root = pairs(tmp_path / "p" / "data" / "v1" / "images", 4, 5, 6)
    rule(tmp_path / "p" / "data" / "garbage_classify_rule.json")
    archive = shutil.make_archive(str(tmp_path / "p"), "zip", tmp_path / "p")
    plain, _ = build_manifest(source(tmp_path / "p", "auto"))
    packed, _ = build_manifest(source(archive, "auto"))
    assert packed.classes == plain.classes == tuple(sorted(NAMES.values()))
    assert packed.fingerprint == plain.fingerprint
    assert packed.root.name == root.parent.name


def test_images_without_a_label_are_listed_as_left_out(tmp_path: Path) -> None:
    root = pairs(tmp_path / "p", 4, 4)
    write_photo(root / "extra.jpg", 99)
    (root / "stray.txt").write_text("x")
    report = check_data(source(root, "auto"))
    assert report.bad_files() == [
        ("extra.jpg", "there is no text next to it", "no label"),
        ("stray.txt", "there is no image next to it", "no image"),
    ]


def test_splits_next_to_another_folder_of_pairs_are_refused(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        pairs(tmp_path / "p" / part, 3, 3, first=10 * number + 1)
    assert parts(build_manifest(source(tmp_path / "p", "auto"))[0]) == {"train", "validation", "test"}
    pairs(tmp_path / "p" / "more", 2, 2, first=50)
    assert error_of(source(tmp_path / "p", "auto")) == (
        "the folders test, train and val look like splits, but more next to them is none. Move more elsewhere or into "
        "one of them; or, if they are no splits, rename them."
    )


def parts(manifest: Manifest) -> set[str]:
    return set(manifest.table["split"])
