"""Figures of a search: titles that state the finding, legible texts."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dashboards import search_figures
from dashboards.style import STATE_COLOURS
from tests.support.figure_text import all_text, assert_legible, texts


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
    figure = drawn(search_figures.curves_figure, epochs(CURVES))
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
    one = drawn(search_figures.curves_figure, epochs({"a": ("COMPLETED", [0.5])}))
    assert "50.0 % at epoch 1 is the best, of the only trial" in all_text(one)
    many = {f"{i}": ("PRUNED", [0.1 + i / 200, 0.2 + i / 200]) for i in range(120)}
    assert_legible(drawn(search_figures.curves_figure, epochs(many)))
    none = drawn(search_figures.curves_figure, epochs({"a": ("FAILED", [float("nan")])}))
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
    figure = drawn(search_figures.parameters_figure, trials(32))
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
    figure = drawn(search_figures.parameters_figure, frame)
    assert "head sets the trials apart: softmax 85.0 %, arcface 65.0 % (medians)" in all_text(figure).replace("\n", " ")
    assert "spread 20.0" in all_text(figure)
    assert "triangles are below" in all_text(figure).replace("\n", " ")


def test_nothing_varies_and_nothing_finished(drawn):
    same = trials(4)[["val_accuracy", "state", "config_head"]]
    assert "No parameter varies" in all_text(drawn(search_figures.parameters_figure, same))
    failed = trials(4).assign(val_accuracy=float("nan"))
    assert "No parameter varies" in all_text(drawn(search_figures.parameters_figure, failed))


@pytest.mark.parametrize("count", [2, 3])
def test_too_few_trials_for_a_spread_are_drawn_without_one(drawn, count):
    figure = drawn(search_figures.parameters_figure, trials(count))
    assert "spread" not in all_text(figure).replace("Spread", "")
    assert f"parameters vary over {count} trials" in all_text(figure)
    assert_legible(figure)
