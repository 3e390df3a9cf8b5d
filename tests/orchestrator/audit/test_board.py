"""Figures that were changed in one of the leaderboard's files, and probabilities that were, without checksums."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from orchestrator.audit.audit import audit_sweep, leaderboard_record
from orchestrator.audit.board import _markdown, compare_leaderboard
from orchestrator.audit.checks import DIFFERENT, NOT_CHECKABLE, JudgedSweep
from orchestrator.ledger.folder import read_sweep
from orchestrator.paths import SweepPaths

FIGURES = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece", "difference_high", "p_value")


def differing(sweep: SweepPaths) -> list[str]:
    return [f"{check.part}: {check.what}" for check in audit_sweep(sweep.root).having(DIFFERENT)]


@pytest.mark.parametrize("figure", FIGURES)
def test_a_changed_figure_is_found(old: SweepPaths, figure: str) -> None:
    board = pd.read_parquet(old.leaderboard_parquet)
    board.loc[0, figure] += 1e-4
    board.to_parquet(old.leaderboard_parquet, index=False)
    found = differing(old)
    assert f"leaderboard: winner/ensemble, whole: {figure}" in found
    assert f"leaderboard.csv: winner/ensemble, whole: {figure}" in found


def test_a_changed_digit_of_the_markdown_file_is_found(old: SweepPaths) -> None:
    text = old.leaderboard_md.read_text()
    old.leaderboard_md.write_text(text.replace("91.9", "91.8", 1))
    assert differing(old) == ["leaderboard.md: winner/ensemble, whole: accuracy"]


def test_another_winners_row_and_another_order_are_found(old: SweepPaths) -> None:
    board = pd.read_parquet(old.leaderboard_parquet)
    board["winner"] = [False, True, False]
    board.to_parquet(old.leaderboard_parquet, index=False)
    assert "leaderboard: the winner's row" in differing(old)
    board.iloc[::-1].to_parquet(old.leaderboard_parquet, index=False)
    assert "leaderboard: order of the rows" in differing(old)


def rewrite(path: Path, **changes: np.ndarray) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **arrays | changes)


def test_other_probabilities_are_found(old: SweepPaths) -> None:
    fit = leaderboard_record(read_sweep(old.root))[0]["fits"][0]
    path = old.probabilities(fit, "test", "whole")
    with np.load(path) as stored:
        rows = stored["probabilities"].copy()
    rows[0] = np.roll(rows[0], 1)
    rewrite(path, probabilities=rows)
    found = differing(old)
    assert any("log_loss" in what and what.startswith("leaderboard: winner/seed-0") for what in found)
    rewrite(path, sha256=np.array(["0" * 64] * len(rows)))
    assert f"leaderboard: {old.name_of(path)}" in differing(old)


def test_a_version_of_the_statistics_that_is_not_known_is_said(sweep: SweepPaths) -> None:
    found = read_sweep(sweep.root)
    record, until = leaderboard_record(found)
    checks = [*compare_leaderboard(JudgedSweep(found, {**record, "statistics": 99}, until))]
    gaps = [check for check in checks if check.state == NOT_CHECKABLE]
    assert len(gaps) == 3
    assert gaps[0].reason == "this audit does not know version 99 of the statistics"
    assert not [check for check in checks if check.state == DIFFERENT]
    assert replace(gaps[0], reason="").sentence().startswith("leaderboard: ")


@pytest.mark.parametrize(("cell", "differs"), [("95.1", False), ("95.1 (92.0\N{EN DASH}97.1)", False), ("95.2", True)])
def test_macro_f1_is_found_in_markdown_with_and_without_an_interval(cell: str, differs: bool, tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path)
    head = "| model | policy | accuracy | macro F1 | log loss |\n|---|---|---|---|--:|\n"
    paths.leaderboard_md.write_text(f"{head}| m | whole | 95.1 (92.9\N{EN DASH}97.0) | {cell} | 0.200 |\n")
    figures = {("m", "whole"): {"accuracy": 0.951, "macro_f1": 0.951, "log_loss": 0.2}}
    row = {"model": "m", "policy": "whole"}
    found = list(_markdown(SimpleNamespace(paths=paths), [row], figures))  # type: ignore[arg-type]
    assert [check.what for check in found if check.state == DIFFERENT] == ["m, whole: macro_f1"] * differs
