"""Keep or refuse an export: the bound and chance. Pure."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from rich.console import Console

from orchestrator.evaluation.export_report import (
    Export,
    ExportReport,
    ExportState,
    Figures,
    decide,
    figures,
    how_to_read,
    to_markdown,
    to_rich,
)
from orchestrator.evaluation.variance import Groups

PERFECT = np.eye(4)[[0, 1, 2, 3] * 25]


LABELS = np.arange(4).repeat(1)[[0, 1, 2, 3] * 25]
SINGLE = Groups.of(None, 100)


def figures_of(photos: int, lost: int, gained: int, groups: Sequence[int] | None = None) -> Figures:
    """Of an export that has ``lost`` photos wrong which the original has right, and ``gained`` the other way round."""
    labels = np.arange(photos) % 4
    right, wrong = np.eye(4)[labels], np.eye(4)[(labels + 1) % 4]
    original, rows = right.copy(), right.copy()
    rows[:lost] = wrong[:lost]
    original[lost : lost + gained] = wrong[lost : lost + gained]
    return figures(rows, original, labels, Groups.of(groups, photos), (1.0, 1.0))


@pytest.mark.parametrize(
    ("photos", "lost", "gained", "bound", "force", "state"),
    [
        (100, 0, 0, 0.0, False, ExportState.KEPT),
        (100, 1, 0, 0.01, False, ExportState.KEPT),  # exactly the bound
        (64, 1, 0, 0.01, False, ExportState.KEPT),  # 1.6 points by one photo, p = 0.5
        (64, 4, 0, 0.01, False, ExportState.KEPT),  # p = 0.06
        (64, 5, 0, 0.01, False, ExportState.REFUSED),  # p = 0.03
        (64, 5, 0, 0.08, False, ExportState.KEPT),
        (64, 5, 0, 0.01, True, ExportState.OVERRIDDEN),
        (380, 15, 0, 0.01, False, ExportState.REFUSED),
        (380, 21, 6, 0.01, False, ExportState.REFUSED),  # int8, 3.9 points, p = 0.003
        (380, 30, 15, 0.01, False, ExportState.REFUSED),
        (380, 4, 0, 0.01, False, ExportState.KEPT),
        (10_000, 150, 0, 0.01, False, ExportState.REFUSED),
        (10_000, 90, 0, 0.01, False, ExportState.KEPT),  # surely worse, by less than may be lost
        (100, 100, 0, 1.0, False, ExportState.KEPT),
    ],
)
def test_the_bound_and_chance(
    photos: int, lost: int, gained: int, bound: float, force: bool, state: ExportState
) -> None:
    its = figures_of(photos, lost, gained)
    found, reason = decide(its, bound, force)
    assert found == state
    assert its.accuracy == (photos - lost) / photos
    beyond = (lost - gained) / photos > bound
    assert ("may be lost" in reason) == beyond
    assert ("chance" in reason) == (beyond and state == ExportState.KEPT)


def test_equals_are_seldom_refused_and_a_real_loss_seldom_kept() -> None:
    """500 tests of 64 and of 380 photos each: a format changes 3 % of the answers, either way, or loses 5 %."""
    draw = np.random.default_rng(0)
    for photos in (64, 380):
        refused = {True: 0, False: 0}
        for _ in range(500):
            changed = draw.binomial(photos, 0.03)
            lost = draw.binomial(changed, 0.5)
            refused[True] += decide(figures_of(photos, lost, changed - lost), 0.01, False)[0] == ExportState.REFUSED
            lost = draw.binomial(photos, 0.05)
            refused[False] += decide(figures_of(photos, lost, 0), 0.01, False)[0] == ExportState.REFUSED
        assert refused[True] <= 0.05 * 500
        if photos == 380:
            assert refused[False] >= 0.99 * 500


def test_an_export_may_be_better_and_may_never_answer_with_nan() -> None:
    worse = np.roll(PERFECT, 1, 1)
    assert decide(figures(PERFECT, worse, LABELS, SINGLE, (1.0, 1.0)), 0.0, False) == (ExportState.KEPT, "")
    broken = PERFECT.copy()
    broken[0] = np.nan
    state, reason = decide(figures(broken, PERFECT, LABELS, SINGLE, (1.0, 1.0)), 1.0, True)
    assert (state, reason) == (ExportState.REFUSED, "its probabilities are not finite numbers.")
    with pytest.raises(ValueError, match="are not of the same photos"):
        figures(PERFECT[:3], PERFECT, LABELS, SINGLE, (1.0, 1.0))


def test_photos_of_one_object_are_one_piece_of_evidence() -> None:
    """15 of 380 photos lost: of 15 objects a loss, of one object with 15 photos one flip of a coin."""
    spread = [i % 95 for i in range(380)]
    assert decide(figures_of(380, 15, 0, spread), 0.01, False)[0] == ExportState.REFUSED
    together = [0] * 15 + [1 + i for i in range(365)]
    its = figures_of(380, 15, 0, together)
    state, reason = decide(its, 0.01, False)
    assert state == ExportState.KEPT
    assert "one-sided p 0.5)" in reason
    alone = figures_of(380, 15, 0)
    assert its.difference.low < alone.difference.low - 0.01
    assert its.accuracy_low < alone.accuracy_low


def test_few_objects_are_tested_exactly_and_fewer_by_the_bound_alone() -> None:
    """Eight objects have no interval but a test; on four no loss could be significant, so it is refused."""
    eight = figures_of(80, 80, 0, [i % 8 for i in range(80)])
    assert (np.isnan(eight.difference.low), eight.difference.p_value) == (True, pytest.approx(2 * 2**-8))
    state, reason = decide(eight, 0.01, False)
    assert state == ExportState.REFUSED
    assert "original's (one-sided p 0.0039); 1 may be lost." in reason
    state, reason = decide(figures_of(80, 3, 0, [i % 4 for i in range(80)]), 0.01, False)
    assert state == ExportState.REFUSED
    assert "(on too few objects to test it)" in reason
    assert decide(figures_of(80, 0, 0, [0] * 80), 0.01, False) == (ExportState.KEPT, "")


@pytest.mark.parametrize(("objects", "words"), [(380, "on 380 test photos"), (95, "on 380 test photos of 95 objects")])
def test_the_report_says_how_many_objects(objects: int, words: str) -> None:
    its = figures_of(380, 4, 0, [i % objects for i in range(380)])
    made = (Export("onnx", "model.onnx", ExportState.KEPT, "", its),)
    report = ExportReport("s", "t", "winner/seed-0", "whole", 1, 380, objects, 0.01, 1, its, made, None, {})
    assert f"{words}." in to_markdown(report)
    assert str(to_rich(report).title).endswith(words)
    assert ("McNemar" in how_to_read(report)) == (objects == 380)
    assert "nan" not in to_markdown(report)


@pytest.mark.parametrize("columns", [60, 70, 80, 100])
def test_p_is_explained_where_it_is_shown(columns: int) -> None:
    made = (Export("tflite-int8", "model.tflite", ExportState.OVERRIDDEN, "", figures_of(380, 4, 0)),)
    its = figures_of(380, 4, 0)
    report = ExportReport("s", "t", "winner/seed-0", "whole", 1, 380, 380, 0.01, 1, its, made, None, {})
    console = Console(width=columns, file=io.StringIO())
    to_rich(report).print(console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("p: exact McNemar" in printed) == ("0.12" in printed) == (columns != 70)
    assert "p: exact McNemar. Largest change" in how_to_read(report)
    assert "Largest change" not in how_to_read(report, columns=False)
    assert "p: " not in how_to_read(report, columns=False)
