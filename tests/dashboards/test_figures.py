"""Figures of results: titles that state the finding, no text over another or off the page."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dashboards import figures
from dashboards.style import BLUE, VERMILION
from tests.support.figure_text import all_text, assert_legible, texts

CLASSES = ("cardboard", "glass", "metal", "paper", "plastic", "trash")


def leaderboard(rows: int, winner: int, name: str = "4f2c8a91d0-s{}") -> pd.DataFrame:
    policies = ("whole", "ten_crop", "random_16", "pyramid", "flip")
    accuracy = 0.95 - 0.004 * np.arange(rows)
    return pd.DataFrame(
        {
            "model": [name.format(i // 5) for i in range(rows)],
            "policy": [policies[i % 5] for i in range(rows)],
            "accuracy": accuracy,
            "accuracy_low": accuracy - 0.025,
            "accuracy_high": accuracy + 0.02,
            "winner": np.arange(rows) == winner,
        }
    )


@pytest.mark.parametrize(("rows", "winner"), [(1, 0), (4, 3), (12, 2), (40, 39)])
def test_the_leaderboard_shows_every_row_once_and_marks_the_winner(drawn, rows, winner):
    figure = drawn(figures.leaderboard_figure, leaderboard(rows, winner))
    assert assert_legible(figure) >= 2 * rows + 3
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == rows
    blue = [i for i, label in enumerate(labels) if label.get_color() == BLUE]
    assert blue == [winner]
    figure_text = all_text(figure)
    percent = 95 - 0.4 * winner
    assert f"The winner is right on {percent:.1f} % of the test images" in figure_text
    assert f"ranks {winner + 1} of {rows} on test" in figure_text.replace("\n", " ")


@pytest.mark.parametrize(("winner", "line"), [(3, 3), (300, 39)])
def test_a_long_leaderboard_is_cut_and_keeps_the_winner(drawn, winner, line):
    figure = drawn(figures.leaderboard_figure, leaderboard(414, winner).assign(accuracy_low=0.5, configuration="given"))
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == figures.MAX_ROWS
    assert [i for i, label in enumerate(labels) if label.get_color() == BLUE] == [line]
    assert "given" in labels[0].get_text()
    text = all_text(figure).replace("\n", " ")
    assert f"ranks {winner + 1} of 414 on test" in text
    assert "374 more rows in leaderboard.csv" in text


def test_the_leaderboard_with_names_longer_than_any_room(drawn):
    figure = drawn(figures.leaderboard_figure, leaderboard(6, 1, "a very long name of a model without an end {}"))
    assert_legible(figure)
    assert "…" in figure.axes[0].get_yticklabels()[0].get_text()


def confused(classes: int, images: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.integers(0, classes, images)
    return truth, np.where(rng.random(images) < 0.9, truth, rng.integers(0, classes, images))


@pytest.mark.parametrize("classes", [2, 6, 10, 20, 40])
def test_the_confusion_matrix_is_legible_and_counts_every_image(drawn, classes):
    truth, guess = confused(classes, 1500, np.random.default_rng(classes))
    names = [f"kitchen waste/no {i}" for i in range(classes)]
    figure = drawn(figures.confusion_figure, truth, guess, names)
    assert assert_legible(figure) > 3 * classes
    axes = figure.axes[0]
    cells = [t for t in axes.texts if t.get_text().isdigit()]
    assert sum(int(t.get_text()) for t in cells) == 1500
    right = sum(int(t.get_text()) for t in cells if t.get_position()[0] == t.get_position()[1])
    assert right == (truth == guess).sum()
    assert f"{right} of 1500 images right" in all_text(figure)


def test_the_confusion_matrix_names_the_most_common_mistake(drawn):
    truth = np.array([0] * 10 + [1] * 10 + [2] * 5)
    guess = np.array([0] * 7 + [1] * 3 + [1] * 9 + [0] + [2] * 5)
    figure = drawn(figures.confusion_figure, truth, guess, ("glass", "metal", "paper"))
    assert "Most common mistake: glass taken for metal, 3 of 10 images" in all_text(figure).replace("\n", " ")
    assert "70 %" in all_text(figure)


def test_the_confusion_matrix_without_a_mistake_and_with_an_empty_class(drawn):
    figure = drawn(figures.confusion_figure, np.array([0, 1]), np.array([0, 1]), CLASSES)
    assert "No image is taken for another class" in all_text(figure)
    assert all_text(figure).count("no images") == 4
    assert_legible(figure)


def photo(path: Path, size=(90, 60), colour=(200, 30, 30), **more) -> Path:
    Image.new("RGB", size, colour).save(path, **more)
    return path


def test_the_mistakes_are_the_most_confident_ones_worst_first(drawn, tmp_path):
    paths = [photo(tmp_path / f"{i}.jpg") for i in range(40)]
    true = ["glass"] * 40
    predicted = ["glass"] * 10 + ["metal"] * 20 + ["paper"] * 10
    probability = [0.999] * 10 + [0.5 + i / 100 for i in range(30)]
    figure = drawn(figures.mistakes_figure, paths, true, predicted, probability, most=24)
    shown = [t.get_text() for t in texts(figure) if t.get_text().endswith(".jpg")]
    assert shown == [f"{i}.jpg" for i in range(39, 15, -1)]
    assert "30 of 40 images are wrong; 20 of them taken for metal" in all_text(figure)
    assert "The 24 most confident, worst first" in all_text(figure)
    assert next(t.get_text() for t in texts(figure) if t.get_color() == VERMILION) == "79 % paper"
    assert_legible(figure)
    assert len(figure.axes) == 24


def test_the_mistakes_when_there_is_none(drawn, tmp_path):
    figure = drawn(figures.mistakes_figure, [tmp_path / "a.jpg"], ["glass"], ["glass"], [0.9])
    assert "No mistakes among 1 image" in all_text(figure)


def test_a_mistake_that_cannot_be_read_gets_a_tile_that_says_so(drawn, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing more")
    paths = [tmp_path / "broken.jpg", tmp_path / "gone.jpg", photo(tmp_path / "c.jpg")]
    figure = drawn(figures.mistakes_figure, paths, ["glass"] * 3, ["metal"] * 3, [0.9, 0.8, 0.7])
    assert all_text(figure).count("cannot be read") == 2
    assert "3 of 3 images are wrong, taken for metal\nAll of them, worst first" in all_text(figure)


def test_a_photo_that_pillow_alone_refuses_is_drawn_as_it_was_trained_on(drawn, tmp_path, capfd):
    """200 megapixels, more than Pillow's limit; and a PNG with a text chunk above Pillow's."""
    Image.new("L", (16_000, 12_500), 90).save(tmp_path / "large.jpg")
    text = PngInfo()
    text.add_text("comment", "x" * 2**21, zip=True)
    Image.new("RGB", (20, 10)).save(tmp_path / "text.png", pnginfo=text)
    paths = [tmp_path / "large.jpg", tmp_path / "text.png"]
    figure = drawn(figures.mistakes_figure, paths, ["glass"] * 2, ["metal"] * 2, [0.9, 0.8])
    assert "cannot be read" not in all_text(figure)
    assert figures.thumbnail(tmp_path / "large.jpg", 300).shape == (234, 300, 3)
    assert capfd.readouterr().err == ""


def test_long_class_and_file_names_stay_in_their_tile(drawn, tmp_path):
    paths = [photo(tmp_path / f"{'WWMW' * 20}{i}.jpg") for i in range(6)]
    figure = drawn(
        figures.mistakes_figure, paths, ["kitchen waste/egg shells"] * 6, ["WIDE WIDE WIDE WIDE"] * 6, [1.0] * 6
    )
    assert_legible(figure)


def test_a_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = photo(tmp_path / "turned.jpg", size=(90, 60), exif=exif)
    assert figures.thumbnail(path, 300).shape == (90, 60, 3)


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("L", 200, (200, 200, 200)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("LA", (0, 0), (255, 255, 255)),
        ("I;16", 200 << 8, (199, 199, 199)),
        ("P", 0, None),
    ],
)
def test_every_kind_of_image_comes_out_as_rgb(tmp_path, mode, colour, seen):
    path = tmp_path / "image.png"
    Image.new(mode, (20, 10), colour).save(path)
    pixels = figures.thumbnail(path, 300)
    assert pixels.shape == (10, 20, 3)
    assert pixels.dtype == np.uint8
    if seen:
        assert tuple(pixels[5, 10]) == seen


def test_a_cmyk_photo_comes_out_as_rgb(tmp_path):
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (20, 10), (0, 255, 255, 0)).save(path)
    red, green, blue = figures.thumbnail(path, 300)[5, 10]
    assert red > 200
    assert max(green, blue) < 60


def test_real_photos(drawn):
    folder = os.environ.get("ORCH_DATA")
    if not folder:
        pytest.skip("ORCH_DATA is not set: no real photos")
    paths = sorted((Path(folder) / "trashnet" / "glass").glob("*.jpg"))[:7]
    assert len(paths) == 7
    figure = drawn(figures.mistakes_figure, paths, ["glass"] * 7, ["plastic"] * 7, [0.9] * 7)
    assert [len(axes.images) for axes in figure.axes] == [1] * 7
    assert_legible(figure)
