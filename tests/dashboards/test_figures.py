"""The pictures: files that open, titles that state the finding, and no text over another or off the page."""

import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from dashboards import figures, searchfigures
from dashboards.style import BLUE, STATE_COLOURS, VERMILION, shorten

CLASSES = ("cardboard", "glass", "metal", "paper", "plastic", "trash")


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Call a figure function; get the figure, drawn, after its file was checked."""
    kept: list[Figure] = []
    save = figures.save
    for module in (figures, searchfigures):
        monkeypatch.setattr(module, "save", lambda figure, path: kept.append(figure) or save(figure, path))

    def draw(function, *arguments, **more) -> Figure:
        path = tmp_path / "not there yet" / f"{len(kept)}.png"
        assert function(*arguments, path=path, **more) == path
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            assert max(image.size) <= 2600
        assert [p for p in path.parent.iterdir() if p.name.startswith(".")] == []
        return kept[-1]

    return draw


def texts(figure: Figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def all_text(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in texts(figure))


def ticks_out_of_view(axes: Axes) -> list[Text]:
    """Labels of ticks beyond the limits, or of axes switched off: matplotlib keeps them and does not draw them."""
    found = []
    for labels, limits, place in (
        (axes.get_xticklabels(), axes.get_xlim(), 0),
        (axes.get_yticklabels(), axes.get_ylim(), 1),
    ):
        found += [t for t in labels if not axes.axison or not min(limits) <= t.get_position()[place] <= max(limits)]
    return found


def assert_legible(figure: Figure) -> int:
    """No text overlaps another or leaves the page; returns how many were looked at."""
    page, boxes = figure.bbox, []
    unseen = {id(label) for axes in figure.axes for label in ticks_out_of_view(axes)}
    for text in texts(figure):
        box = text.get_window_extent()
        if id(text) in unseen or text.get_rotation() not in (0, 90):
            continue  # a tilted label's box is not its ink
        assert box.x0 >= page.x0 - 1, f"{text.get_text()!r} leaves the page at the left"
        assert box.x1 <= page.x1 + 1, f"{text.get_text()!r} leaves the page at the right"
        assert box.y0 >= page.y0 - 1, f"{text.get_text()!r} leaves the page at the bottom"
        assert box.y1 <= page.y1 + 1, f"{text.get_text()!r} leaves the page at the top"
        boxes.append((text.get_text(), box))
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(over) <= 2, f"{one!r} lies over {other!r}"
    return len(boxes)


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
    assert f"stands at place {winner + 1} of {rows} on test" in figure_text.replace("\n", " ")


@pytest.mark.parametrize(("winner", "line"), [(3, 3), (300, 39)])
def test_a_long_leaderboard_is_cut_and_keeps_the_winner(drawn, winner, line):
    figure = drawn(figures.leaderboard_figure, leaderboard(414, winner).assign(accuracy_low=0.5, configuration="given"))
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == figures.MOST_ROWS
    assert [i for i, label in enumerate(labels) if label.get_color() == BLUE] == [line]
    assert "given" in labels[0].get_text()
    text = all_text(figure).replace("\n", " ")
    assert f"stands at place {winner + 1} of 414 on test" in text
    assert "374 rows more in leaderboard.csv" in text


def test_the_leaderboard_with_names_longer_than_any_room(drawn):
    figure = drawn(
        figures.leaderboard_figure, leaderboard(6, 1, "a very long name of a model that nobody asked for {}")
    )
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
    assert "No mistake among 1 images" in all_text(figure)


def test_a_mistake_that_cannot_be_read_gets_a_tile_that_says_so(drawn, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing more")
    paths = [tmp_path / "broken.jpg", tmp_path / "gone.jpg", photo(tmp_path / "c.jpg")]
    figure = drawn(figures.mistakes_figure, paths, ["glass"] * 3, ["metal"] * 3, [0.9, 0.8, 0.7])
    assert all_text(figure).count("cannot be read") == 2
    assert "3 of 3 images are wrong, taken for metal\nAll of them, worst first" in all_text(figure)


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
        ("I;16", 200 << 8, (200, 200, 200)),
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


def epochs(trials: dict[str, tuple[str, list[float]]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"id": trial, "name": f"#{trial} resnet50", "epoch": e, "val_accuracy": accuracy, "state": state}
            for trial, (state, figures) in trials.items()
            for e, accuracy in enumerate(figures, start=1)
        ]
    )


CURVES = {
    "a": ("COMPLETED", [0.6, 0.8, 0.9, 0.91]),
    "b": ("COMPLETED", [0.5, 0.7, 0.93, 0.92]),
    "c": ("PRUNED", [0.4]),
    "d": ("PRUNED", [0.99]),
    "e": ("STOPPED", [0.6, 0.7]),
    "f": ("FAILED", [0.3, float("nan")]),
    "g": ("FAILED", [float("nan")]),
}


def test_the_curves_are_coloured_by_state_and_the_best_completed_one_is_named(drawn):
    figure = drawn(searchfigures.curves_figure, epochs(CURVES))
    found = all_text(figure)
    assert "92.0 % at epoch 4 is the best of 7 trials, 2 of them pruned" in found
    assert "#b resnet50\n92.0 %" in found
    for state, count in (("COMPLETED", 2), ("PRUNED", 2), ("STOPPED", 1), ("FAILED", 2)):
        key = next(t for t in texts(figure) if t.get_text().endswith(f"{state} {count}"))
        assert key.get_color() == STATE_COLOURS[state]
    drawn_lines = [line for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    assert len(drawn_lines) == 6
    assert_legible(figure)


def test_the_curves_of_one_epoch_of_many_trials_and_of_none(drawn):
    one = drawn(searchfigures.curves_figure, epochs({"a": ("COMPLETED", [0.5])}))
    assert "50.0 % at epoch 1 is the best, of the only trial" in all_text(one)
    many = {f"{i}": ("PRUNED", [0.1 + i / 200, 0.2 + i / 200]) for i in range(120)}
    assert_legible(drawn(searchfigures.curves_figure, epochs(many)))
    none = drawn(searchfigures.curves_figure, epochs({"a": ("FAILED", [float("nan")])}))
    assert "No trial has a validation accuracy" in all_text(none)


def trials(count: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    backbone = np.array(["mobilenet_1.0", "vgg16"])[np.arange(count) % 2]
    return pd.DataFrame(
        {
            "id": [f"{i}" for i in range(count)],
            "state": np.where(np.arange(count) % 4 == 3, "PRUNED", "COMPLETED"),
            "val_accuracy": np.where(backbone == "vgg16", 0.85, 0.92) + rng.uniform(-0.01, 0.01, count),
            "config_backbone": backbone,
            "config_unfrozen_layers": [(0, 5, "all")[i % 3] for i in range(count)],
            "config_learning_rate": 10 ** rng.uniform(-5, -2, count),
            "config_dropout": rng.uniform(0, 0.6, count),
            "config_margin": [None if i % 3 else 0.2 for i in range(count)],
            "config_head": ["softmax"] * count,
        }
    )


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_a_panel_for_every_parameter_that_varies_the_widest_spread_first(drawn):
    figure = drawn(searchfigures.parameters_figure, trials(32))
    found = panels(figure)
    assert set(found) == {"backbone", "unfrozen_layers", "learning_rate", "dropout", "margin"}
    assert next(iter(found)) == "backbone"
    title = all_text(figure).replace("\n", " ")
    assert "backbone sets the trials apart: mobilenet_1.0 92." in title
    assert "Blue: 24 COMPLETED trials; grey: 8 others" in title
    assert found["learning_rate"].get_xscale() == "log"
    assert found["dropout"].get_xscale() == "linear"
    assert [t.get_text() for t in found["unfrozen_layers"].get_xticklabels()] == ["0", "5", "all"]
    assert [t.get_text() for t in found["margin"].get_xticklabels()] == ["0.2", "default"]
    assert_legible(figure)


def test_a_median_is_of_completed_trials_only_and_of_two_at_least(drawn):
    frame = pd.DataFrame(
        {
            "state": ["COMPLETED"] * 5 + ["PRUNED"] * 3,
            "val_accuracy": [0.8, 0.9, 0.6, 0.7, 0.99, 0.1, 0.1, 0.1],
            "config_head": ["softmax", "softmax", "arcface", "arcface", "cosface", "softmax", "softmax", "softmax"],
        }
    )
    figure = drawn(searchfigures.parameters_figure, frame)
    assert "head sets the trials apart: softmax 85.0 %, arcface 65.0 % (medians)" in all_text(figure).replace("\n", " ")
    assert "spread 20.0" in all_text(figure)
    assert "triangles lie below" in all_text(figure).replace("\n", " ")


def test_nothing_varies_and_nothing_finished(drawn):
    same = trials(4)[["val_accuracy", "state", "config_head"]]
    assert "No parameter varies" in all_text(drawn(searchfigures.parameters_figure, same))
    failed = trials(4).assign(val_accuracy=float("nan"))
    assert "No parameter varies" in all_text(drawn(searchfigures.parameters_figure, failed))


@pytest.mark.parametrize("count", [2, 3])
def test_too_few_trials_for_a_spread_are_drawn_without_one(drawn, count):
    figure = drawn(searchfigures.parameters_figure, trials(count))
    assert "spread" not in all_text(figure).replace("Spread", "")
    assert f"parameters vary over {count} trials" in all_text(figure)
    assert_legible(figure)


@pytest.mark.parametrize(("text", "most", "short"), [("abc", 3, "abc"), ("abcdef", 5, "ab…ef"), ("abcdef", 4, "ab…f")])
def test_shorten_leaves_out_the_middle(text, most, short):
    assert shorten(text, most) == short
    assert len(short) <= most


def test_real_photos(drawn):
    folder = os.environ.get("ORCH_DATA")
    if not folder:
        pytest.skip("ORCH_DATA is not set: no real photos")
    paths = sorted((Path(folder) / "trashnet" / "glass").glob("*.jpg"))[:7]
    assert len(paths) == 7
    figure = drawn(figures.mistakes_figure, paths, ["glass"] * 7, ["plastic"] * 7, [0.9] * 7)
    assert [len(axes.images) for axes in figure.axes] == [1] * 7
    assert_legible(figure)
