"""Figures of a search: titles that state the finding, legible texts."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dashboards import search_figures
from dashboards.style import STATE_COLOURS
from orchestrator.evaluation.importance import Finding, Parameter, find_effects
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


TRIALS = 32


def the_search(effect: float = 0.07, trials: int = TRIALS) -> tuple[tuple[Finding, ...], np.ndarray, np.ndarray]:
    """Findings, accuracies and completed trials of a search in which vgg16 is worse by ``effect``."""
    rng = np.random.default_rng(0)
    everywhere = np.ones(trials, bool)
    backbone = np.array(["mobilenet_1.0", "vgg16"])[rng.integers(0, 2, trials)]
    completed = np.arange(trials) % 4 != 3
    accuracy = np.where(backbone == "vgg16", 0.92 - effect, 0.92) + rng.uniform(-0.01, 0.01, trials)
    parameters = [
        Parameter("unfrozen_layers", tuple((0, 5, "all")[i % 3] for i in range(trials)), everywhere, (0, 5, "all")),
        Parameter("backbone", tuple(backbone), everywhere, ("mobilenet_1.0", "vgg16")),
        Parameter(
            "learning_rate", tuple(10 ** rng.uniform(-5, -2, trials)), everywhere, log=True, low=1e-5, high=1e-2
        ),
        Parameter("dropout", tuple(rng.choice([0.1, 0.5], trials)), everywhere, low=0.0, high=0.6),
        Parameter(
            "margin", tuple(rng.uniform(0.1, 0.5, trials)), backbone == "vgg16", low=0.1, high=0.5,
            condition="backbone vgg16",
        ),
    ]  # fmt: skip
    return find_effects(parameters, accuracy, completed), accuracy, completed


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_a_panel_for_every_parameter_and_a_title_that_a_test_supports(drawn):
    figure = drawn(search_figures.parameters_figure, *the_search())
    found = panels(figure)
    assert set(found) == {"backbone", "unfrozen_layers", "learning_rate", "dropout", "margin"}
    assert next(iter(found)) == "backbone"
    title = all_text(figure).replace("\n", " ")
    assert re.search(r"backbone = \S+: \S+ points \(\S+ to \S+\) against its other values", title)
    assert "Blue: 24 completed trials, with their medians; hollow: 8 stopped before the last epoch" in title
    assert title.count("no effect shown") == 4
    assert [t.get_text() for t in found["unfrozen_layers"].get_xticklabels()] == ["0", "5", "all"]
    assert "backbone vgg16: no effect shown" in title
    assert_legible(figure)


def test_axes_have_the_scale_and_the_limits_of_the_space(drawn):
    found = panels(drawn(search_figures.parameters_figure, *the_search()))
    assert found["learning_rate"].get_xscale() == "log"
    low, high = found["learning_rate"].get_xlim()
    assert low < 1e-5 < 1e-2 < high
    # Two values drawn from a range are still on a scale, not categories.
    assert found["dropout"].get_xscale() == "linear"
    low, high = found["dropout"].get_xlim()
    assert low < 0 < 0.6 < high


def test_without_an_effect_nothing_is_claimed(drawn):
    title = all_text(drawn(search_figures.parameters_figure, *the_search(effect=0.0))).replace("\n", " ")
    assert "None of 5 parameters sets the trials apart beyond chance" in title
    assert "points" not in title


def test_stopped_trials_are_drawn_apart_from_completed_ones(drawn):
    figure = drawn(search_figures.parameters_figure, *the_search())
    done, hollow = panels(figure)["backbone"].lines[:2]
    assert (len(done.get_xdata()), len(hollow.get_xdata())) == (24, 8)
    assert hollow.get_markerfacecolor() == "none"
    for x in (0, 1):
        assert max(done.get_xdata()[np.round(done.get_xdata()) == x]) < min(
            hollow.get_xdata()[np.round(hollow.get_xdata() - 0.3) == x]
        )


def test_nothing_varies_and_nothing_finished(drawn):
    assert "No parameter varies" in all_text(drawn(search_figures.parameters_figure, (), np.ones(4), np.ones(4, bool)))
    findings, *_ = the_search()
    none = find_effects([f.parameter for f in findings], np.full(TRIALS, np.nan), np.zeros(TRIALS, bool))
    figure = drawn(search_figures.parameters_figure, none, np.full(TRIALS, np.nan), np.zeros(TRIALS, bool))
    assert "5 parameters vary; too few completed trials" in all_text(figure).replace("\n", " ")


@pytest.mark.parametrize("count", [2, 7])
def test_too_few_trials_for_a_test_are_drawn_without_a_claim(drawn, count):
    figure = drawn(search_figures.parameters_figure, *the_search(trials=count))
    assert "too few completed trials to tell their effects apart" in all_text(figure).replace("\n", " ")
    assert_legible(figure)


def test_many_parameters_and_many_levels_stay_legible(drawn):
    rng, everywhere = np.random.default_rng(0), np.ones(200, bool)
    names = [f"backbone_with_a_long_name_{i}" for i in range(48)]
    parameters = [Parameter("backbone", tuple(rng.choice(names, 200)), everywhere, tuple(names))]
    parameters += [
        Parameter("unfrozen_layers", tuple(rng.choice([0, 5], 200)), everywhere, (0, 5), condition=f"backbone {name}")
        for name in names[:15]
    ]
    accuracy = rng.uniform(0.8, 0.9, 200)
    figure = drawn(
        search_figures.parameters_figure, find_effects(parameters, accuracy, everywhere), accuracy, everywhere
    )
    assert len(figure.axes) == search_figures.PANELS
    ticks = [tick.get_text() for tick in panels(figure)["backbone"].get_xticklabels()]
    assert len(ticks) == search_figures.MOST_LEVELS
    assert re.fullmatch(r"\d+ others", ticks[8])
    assert "4 more parameters are not drawn" in all_text(figure).replace("\n", " ")
    assert_legible(figure)
