"""Keep or refuse an export: the bound and chance. Pure."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.evaluation.export_report import ExportState, Figures, decide, figures

PERFECT = np.eye(4)[[0, 1, 2, 3] * 25]


LABELS = np.arange(4).repeat(1)[[0, 1, 2, 3] * 25]


def figures_of(photos: int, lost: int, gained: int) -> Figures:
    """Of an export that has ``lost`` photos wrong which the original has right, and ``gained`` the other way round."""
    labels = np.arange(photos) % 4
    right, wrong = np.eye(4)[labels], np.eye(4)[(labels + 1) % 4]
    original, rows = right.copy(), right.copy()
    rows[:lost] = wrong[:lost]
    original[lost : lost + gained] = wrong[lost : lost + gained]
    return figures(rows, original, labels, 1.0, 1.0)


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
    assert decide(figures(PERFECT, worse, LABELS, 1.0, 1.0), 0.0, False) == (ExportState.KEPT, "")
    broken = PERFECT.copy()
    broken[0] = np.nan
    state, reason = decide(figures(broken, PERFECT, LABELS, 1.0, 1.0), 1.0, True)
    assert (state, reason) == (ExportState.REFUSED, "its probabilities are not finite numbers.")
    with pytest.raises(ValueError, match="are not of the same photos"):
        figures(PERFECT[:3], PERFECT, LABELS, 1.0, 1.0)
