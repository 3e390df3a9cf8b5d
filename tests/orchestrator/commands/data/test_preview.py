"""The contact sheet shows training photos alone, as the trials of a file may see them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dashboards import contact_sheet
from dashboards.contact_sheet import Cell, Row, Strip
from orchestrator.commands.data import preview
from orchestrator.commands.data.preview import (
    MOST_COPIES,
    blend,
    choose_rows,
    draw_preview,
    largest_size,
    recipes_shown,
)
from orchestrator.errors import DataError, SpecError
from orchestrator.spec import gpu
from orchestrator.spec.load import load_spec
from orchestrator.spec.sweep import SweepSpec
from tests.support.photos_on_disk import folder_of, split_rows, table_of, write_photo
from trainers.data.manifest import Manifest
from trainers.images.augment import augment
from trainers.images.decode import square
from trainers.images.decoder import ImageCopy
from trainers.images.fresh_draws import FreshDraws


def spec_of(photos: Path, search: str, data: str = "", seed: int = 0) -> SweepSpec:
    if not photos.suffix:
        photos.mkdir(exist_ok=True)
    path = photos.parent / "file.yaml"
    path.write_text(
        f"name: some\ndata: {{source: '{photos}'{data}}}\nsearch: {search}\n"
        f"budget: {{trials: 2, epochs: 1, seed: {seed}}}\nweights: none\n"
    )
    return load_spec(str(path))


def manifest_of(counts: list[int], seed: int = 0) -> Manifest:
    labels = [f"c{i:03d}" for i, count in enumerate(counts) for _ in range(count)]
    return Manifest(Path("x"), tuple(sorted(set(labels))), seed, pd.DataFrame({"label": labels}))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Strip], list[Row], str]]:
    """Strips, rows and note of each sheet, which is drawn all the same."""
    sheets: list[tuple[list[Strip], list[Row], str]] = []
    draw = contact_sheet.contact_sheet

    def record(title: str, note: str, strips: list[Strip], rows: list[Row], *more: object) -> Path:
        sheets.append((strips, rows, note))
        return draw(title, note, strips, rows, *more)

    monkeypatch.setattr(contact_sheet, "contact_sheet", record)
    return sheets


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("{dropout: 0.1}", {}),
        ("{multiplier: 2}", {"flips": 2}),
        ("{multiplier: [1, 2, 5], recipe: [none, rand]}", {"none": 5, "rand": 5}),
        (
            "{multiplier: [1, 2, 5], recipe: [{value: rand, when: {multiplier: 2}}, {value: contest}]}",
            {"rand": 2, "contest": 5},
        ),
        ("{multiplier: {uniform: [1, 3.5]}, recipe: trivial}", {"trivial": 3.5}),
        ("{configurations: [{name: a}, {name: b, multiplier: 4, recipe: rich}]}", {"rich": 4}),
    ],
)
def test_recipes_are_those_of_the_file_at_their_largest_multiplier(
    tmp_path: Path, search: str, expected: dict[str, float]
) -> None:
    assert recipes_shown(spec_of(tmp_path / "photos", search)) == expected


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("{backbone: [mobilenet_0.25, mobilenet_1.0]}", 224),
        ("{backbone: [mobilenet_0.25, mobilenet_1.0], image_size: [96, 160]}", 160),
        ("{backbone: [mobilenet_1.0, vgg16], image_size: [{value: 320, when: {backbone: vgg16}}, {value: 64}]}", 320),
    ],
)
def test_the_size_is_the_largest_that_a_trial_can_have(tmp_path: Path, search: str, expected: int) -> None:
    assert largest_size(spec_of(tmp_path / "photos", search)) == expected


def test_rows_follow_from_the_datas_seed_and_cover_the_classes() -> None:
    first, again, other = (choose_rows(manifest_of([9, 30, 1], seed), 6) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert [sum(low <= row < high for row in first) for low, high in ((0, 9), (9, 39), (39, 40))] == [3, 2, 1]


@pytest.mark.parametrize(
    ("classes", "images", "rows"), [(300, 12, 12), (300, 250, 250), (40, 40, 40), (3, 200, 200), (2, 0, 1)]
)
def test_photos_are_spread_over_the_classes(classes: int, images: int, rows: int) -> None:
    chosen = choose_rows(manifest_of([100] * classes), images)
    counts = np.bincount([row // 100 for row in chosen])
    assert len(chosen) == len(set(chosen)) == rows
    assert chosen == sorted(chosen)
    assert set(counts[counts > 0]) in ({1}, {66, 67})
    assert rows == 1 or (chosen[0] < 100 and chosen[-1] >= 100 * (classes - 1))  # the first class and the last


def test_all_photos_are_shown_where_they_are_few() -> None:
    assert choose_rows(manifest_of([2, 3]), 12) == [0, 1, 2, 3, 4]


def test_cells_are_the_pixels_that_training_makes(tmp_path: Path, drawn: list[tuple[list, list, str]]) -> None:
    photos = folder_of(tmp_path / "photos", few=6, many=20)
    search = "{backbone: small_cnn, image_size: 24, multiplier: 2, recipe: [rand, flips], view: [random_crop, squash]}"
    out = draw_preview(spec_of(photos, search, ", seed: 3"), 2, tmp_path / "new" / "sheet.png")
    assert out.is_file()
    ((strips, rows, note),) = drawn
    assert [strip.heading for strip in strips] == ["view", "rand, multiplier 2", "flips, multiplier 2"]
    assert strips[0].titles == ("random_crop", "squash")
    assert [row.name for row in rows] == ["few", "many"]
    few = rows[0]
    path = photos / "few" / few.detail
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    seed = int(digest[:8], 16)
    assert np.array_equal(few.cells[0].pixels, square(path, 24, "random_crop", seed))
    assert np.array_equal(few.cells[1].pixels, square(path, 24, "squash"))
    copies = len(strips[1].titles)
    for k in range(1, copies + 1):
        expected = augment(square(path, 24, "random_crop", seed + k), digest, k, "rand", 3)
        assert np.array_equal(few.cells[1 + k].pixels, expected)
    assert 2 <= copies <= MOST_COPIES
    assert None in rows[1].cells  # the large class gets fewer copies
    assert "Empty: the multiplier asks for no such copy of this photo." in note
    assert "at 24 x 24 pixels" in note
    assert "Copies are of the view random_crop." in note


def large_photos(folder: Path) -> Path:
    """JPEG photos that "ample" decodes at a quarter for 24 px and "needed" at an eighth, two classes of eight."""
    for number in range(16):
        pixels = np.random.default_rng(number).integers(0, 256, (300, 300, 3), np.uint8)
        path = folder / "ab"[number % 2] / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.mark.parametrize(
    ("field", "framings"),
    [
        ("", {"squash": "squash+needed"}),
        (", decode: ample", {"squash": "squash"}),
        (
            ", decode: [ample, needed]",
            {"squash, decode ample": "squash", "squash, decode needed": "squash+needed"},
        ),
    ],
)
def test_photos_are_decoded_as_in_a_new_sweep_or_as_the_file_says(
    tmp_path: Path, drawn: list[tuple[list[Strip], list[Row], str]], field: str, framings: dict[str, str]
) -> None:
    photos = large_photos(tmp_path / "photos")
    draw_preview(
        spec_of(photos, f"{{backbone: small_cnn, image_size: 24, view: squash{field}}}"), 4, tmp_path / "a.png"
    )
    ((strips, rows, _),) = drawn
    assert strips[0].titles == tuple(framings)
    assert len(rows) == 4
    for row in rows:
        path = photos / row.name / row.detail
        assert not np.array_equal(square(path, 24, "squash"), square(path, 24, "squash+needed"))
        for cell, framing in zip(row.cells, framings.values(), strict=True):
            np.testing.assert_array_equal(cell.pixels, square(path, 24, framing))


@pytest.mark.parametrize("view", ["random_crop", "centre_crop"])
@pytest.mark.parametrize(
    ("fields", "is_fresh"),
    [
        ("unfrozen_layers: all", True),
        ("unfrozen_layers: [0, all]", True),
        ("mixup: 0.2", True),
        ("unfrozen_layers: all, draws: fixed", False),
        ("unfrozen_layers: 3", False),
    ],
)
def test_copies_and_crops_are_the_first_epochs_where_they_are_drawn_anew(
    tmp_path: Path, drawn: list[tuple[list[Strip], list[Row], str]], view: str, fields: str, is_fresh: bool
) -> None:
    photos = folder_of(tmp_path / "photos", a=8, b=8)
    search = f"{{backbone: small_cnn, image_size: 24, view: {view}, multiplier: 2, recipe: contest, {fields}}}"
    spec = spec_of(photos, search, ", seed: 3", seed=5)
    draw_preview(spec, 2, tmp_path / "a.png")
    ((_, rows, note),) = drawn
    assert ("Other copies and crops in each epoch; here the first." in note) is is_fresh
    for row in rows:
        path = photos / row.name / row.detail
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if is_fresh:
            draws = FreshDraws(photos, "contest", f"{view}+needed", 24, 5)
            image = square(path, 24, f"{view}+needed")
            pictures = [ImageCopy(f"{row.name}/{row.detail}", digest, k) for k in (0, 1)]
            wanted = [draws.image(picture, 0, None if draws.reads_files else image) for picture in pictures]
        else:
            crops = [square(path, 24, f"{view}+needed", int(digest[:8], 16) + k) for k in (0, 1)]
            wanted = [crops[0], augment(crops[1], digest, 1, "contest", 3)]
        for cell, expected in zip(row.cells[:2], wanted, strict=True):
            np.testing.assert_array_equal(cell.pixels, expected)


def test_photos_of_other_splits_are_never_shown(tmp_path: Path, drawn: list[tuple[list, list, str]]) -> None:
    rows = split_rows(tmp_path / "photos", per_class=12)
    table = table_of(tmp_path / "photos", rows)
    (tmp_path / "photos" / "a" / "000.png").write_bytes(b"torn")
    said: list[str] = []
    spec = spec_of(table, "{backbone: small_cnn, image_size: 16}", ", splits: own")
    draw_preview(spec, 30, tmp_path / "a.png", said.append)
    assert sum("left out, because they cannot be read: 1 image, a/000.png." in line for line in said) == 1
    rows = rows[1:]
    train = {(row["label"], Path(row["path"]).name) for row in rows if row["split"] == "train"}
    assert {(row.name, row.detail) for row in drawn[0][1]} == train
    assert len(train) == 15


def test_mixtures_are_shown_with_their_labels(tmp_path: Path, drawn: list[tuple[list, list, str]]) -> None:
    photos = folder_of(tmp_path / "photos", a=8, b=8)
    draw_preview(spec_of(photos, "{image_size: 32, mixup: [0, 0.2], cutmix: 1}"), 2, tmp_path / "a.png")
    strips, rows, _ = drawn[0]
    assert [strip.heading for strip in strips] == ["view", "mixup, alpha 0.2", "cutmix, alpha 1"]
    captions = [cell.caption for row in rows for cell in row.cells[1:]]
    assert len(captions) == 8
    assert all(sum(int(line.split(" %")[0]) for line in caption.splitlines()) == 100 for caption in captions)
    assert {caption.splitlines()[0][-1] for caption in captions} == {"a", "b"}


def test_a_blends_share_is_that_of_its_pixels() -> None:
    white, black = np.full((40, 40, 3), 250, np.uint8), np.zeros((40, 40, 3), np.uint8)
    shares = []
    for seed in range(200):
        for kind in ("mixup", "cutmix"):
            mixed, share = blend(white, black, kind, 1.0, np.random.default_rng(seed))
            assert (mixed.shape, mixed.dtype) == ((40, 40, 3), np.uint8)
            assert mixed.mean() / 250 == pytest.approx(share, abs=0.003)
            assert kind == "mixup" or set(np.unique(mixed)) <= {0, 250}
            shares.append(share)
    assert len(shares) == 400
    assert min(shares) < 0.1
    assert max(shares) > 0.9
    assert white.min() == 250


def test_the_gpus_memory_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[tuple[list[Strip], list[Row], str]]
) -> None:
    photos = folder_of(tmp_path / "photos", a=8, b=8)
    spec = spec_of(photos, "{backbone: small_cnn, image_size: [{value: 48, when: {gpu_memory_gb: 16}}, {value: 32}]}")
    for memory_gb in (16.1, 8.0):
        monkeypatch.setattr(gpu, "smallest_gpu_gb", lambda memory_gb=memory_gb: memory_gb)
        draw_preview(spec, 2, tmp_path / "a.png")
    assert [note.partition(" pixels")[0] for _, _, note in drawn] == [
        "2 training photos at 48 x 48",
        "2 training photos at 32 x 32",
    ]


def test_the_same_file_gives_the_same_sheet_without_tensorflow(tmp_path: Path) -> None:
    photos = folder_of(tmp_path / "photos", a=8, b=9)
    spec = spec_of(photos, "{image_size: 32, multiplier: 3, recipe: [trivial, rand], mixup: 0.4}")
    loaded = "tensorflow" in sys.modules
    one, two = (draw_preview(spec, 2, tmp_path / name) for name in ("one.png", "two.png"))
    with Image.open(one) as first, Image.open(two) as second:
        assert np.array_equal(np.asarray(first), np.asarray(second))
        assert np.asarray(first).std() > 10
    assert ("tensorflow" in sys.modules) == loaded


def test_folds_and_progress(tmp_path: Path, drawn: list[tuple[list, list, str]]) -> None:
    photos = folder_of(tmp_path / "photos", a=15, b=15)
    lines: list[str] = []
    spec = spec_of(photos, "{image_size: 32}", ", folds: 3")
    draw_preview(spec, 4, tmp_path / "a.png", lines.append)
    said = [line for line in lines if not line.startswith("warning: ")]
    assert said == [f"reading {photos}", "drawing 4 photos of the training split"]
    assert [row.name for row in drawn[0][1]] == ["a", "a", "b", "b"]


def test_a_wide_file_shows_fewer_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "MOST_PICTURES", 100)
    photos = folder_of(tmp_path / "photos", a=20, b=20)
    lines: list[str] = []
    search = "{image_size: 32, multiplier: 2, recipe: [flips]}"  # a view and up to five copies
    draw_preview(spec_of(photos, search), 200, tmp_path / "a.png", lines.append)
    assert lines[-1] == "drawing 16 photos of the training split"
    search = "{image_size: 32, multiplier: 2, recipe: [flips, rich, colour, contest]}"
    draw_preview(spec_of(photos, search), 200, tmp_path / "a.png", lines.append)
    assert lines[-1] == "drawing 12 photos of the training split"


def test_large_pictures_are_kept_small(tmp_path: Path, drawn: list[tuple[list[Strip], list[Row], str]]) -> None:
    photos = folder_of(tmp_path / "photos", a=8, b=8)
    draw_preview(spec_of(photos, "{image_size: 320, mixup: 0.2}"), 2, tmp_path / "a.png")
    assert {cell.pixels.shape for row in drawn[0][1] for cell in row.cells} == {(192, 192, 3)}
    assert "at 320 x 320 pixels" in drawn[0][2]


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF"), ("a.jpg", b"\xff\xd8")]
)
def test_the_suffix_is_the_pictures_format(tmp_path: Path, name: str, start: bytes) -> None:
    photos = folder_of(tmp_path / "photos", few=6, many=6)
    out = draw_preview(spec_of(photos, "{backbone: small_cnn, image_size: 16}"), 2, tmp_path / name)
    assert out.read_bytes().startswith(start)


def test_a_suffix_of_no_picture_is_refused_before_photos_are_read(tmp_path: Path) -> None:
    lines: list[str] = []
    spec = spec_of(folder_of(tmp_path / "photos", few=6, many=6), "{backbone: small_cnn, image_size: 16}")
    for name in ("a.doc", "a"):
        with pytest.raises(SpecError, match=r"must end in \.png"):
            draw_preview(spec, 2, tmp_path / name, lines.append)
    assert lines == []


def test_photos_that_cannot_be_used_are_a_data_error(tmp_path: Path) -> None:
    write_photo(tmp_path / "photos" / "a" / "1.png", 1)
    with pytest.raises(DataError, match="class"):
        draw_preview(spec_of(tmp_path / "photos", "{image_size: 32}"), 1, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_real_photos(orch_data: Path, tmp_path: Path, drawn: list[tuple[list[Strip], list[Row], str]]) -> None:
    table = pd.read_csv(orch_data / "trashnet" / "split.csv").groupby(["label", "split"]).head(8)
    (tmp_path / "photos").symlink_to(orch_data / "trashnet")
    table.assign(path="photos/" + table["path"]).to_csv(tmp_path / "some.csv", index=False)
    search = "{backbone: mobilenet_1.0, image_size: 96, multiplier: 3, recipe: [trivial, rand]}"
    out = draw_preview(spec_of(tmp_path / "some.csv", search, ", splits: own"), 6, tmp_path / "a.png")
    assert out.stat().st_size > 100_000
    ((_, rows, note),) = drawn
    assert len(rows) == 6
    assert "more copies" not in note
    cells = [cell for row in rows for cell in row.cells if isinstance(cell, Cell)]
    assert len(cells) == 6 * (1 + 2 + 2)
    assert {cell.pixels.shape for cell in cells} == {(96, 96, 3)}
