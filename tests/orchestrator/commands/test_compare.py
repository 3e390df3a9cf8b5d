"""Final models against one of them: paired differences, honest about seeds, from what the sweep kept."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from orchestrator.commands import compare
from orchestrator.errors import OrchError
from orchestrator.evaluation import comparison
from orchestrator.evaluation.comparison import COLUMNS, ScoredModel, compare_models
from orchestrator.evaluation.leaderboard import paired_difference, write
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from tests.support.sweep_on_disk import ROW, write_sweep

IMAGES = 400


def right(share: float, seed: int, networks: int = 1) -> np.ndarray:
    """``networks`` rows of images, so many of them right."""
    return np.random.default_rng(seed).random((networks, IMAGES)) < share


def row_of(frame: pd.DataFrame, model: str) -> dict[str, Any]:
    return frame[frame["model"] == model].iloc[0].to_dict()


def test_single_networks_have_the_exact_figures() -> None:
    a, b = right(0.7, 1), right(0.8, 2)
    frame = compare_models([ScoredModel("a", "", a), ScoredModel("b", "named", b)], "a")
    assert tuple(frame.columns) == COLUMNS
    assert frame["model"].tolist() == ["b", "a"]
    found, expected = row_of(frame, "b"), paired_difference(a[0], b[0])
    assert (found["difference"], found["difference_low"], found["difference_high"], found["p_value"]) == (
        expected.difference,
        expected.low,
        expected.high,
        expected.p_value,
    )
    base = row_of(frame, "a")
    assert (base["difference"], base["p_value"], base["baseline"], base["networks"]) == (0.0, 1.0, True, 1)


def test_several_seeds_are_a_mean_with_an_interval_over_images_and_seeds() -> None:
    steady, better = right(0.70, 1, 3), right(0.85, 2, 3)
    frame = compare_models([ScoredModel("a", "", steady), ScoredModel("b", "", better)], "a")
    found = row_of(frame, "b")
    assert found["accuracy"] == pytest.approx(better.mean())
    assert found["difference"] == pytest.approx(better.mean() - steady.mean())
    assert 0.05 < found["difference_low"] < found["difference"] < found["difference_high"] < 0.25
    assert found["p_value"] < 0.01
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]


def test_seeds_that_disagree_widen_the_interval() -> None:
    """The same mean gain, once from seeds that agree and once from one lucky seed."""
    base = right(0.7, 1, 3)
    agree = np.stack([right(0.75, 10 + i)[0] for i in range(3)])
    differ = np.stack([right(share, 20 + i)[0] for i, share in enumerate((0.6, 0.75, 0.9))])
    frame = compare_models(
        [ScoredModel("a", "", base), ScoredModel("agree", "", agree), ScoredModel("differ", "", differ)], "a"
    )
    widths = {m: row_of(frame, m)["difference_high"] - row_of(frame, m)["difference_low"] for m in ("agree", "differ")}
    assert widths["differ"] > 2 * widths["agree"]
    assert row_of(frame, "differ")["p_value"] > 0.1


def test_the_interval_covers_the_truth_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 comparisons of configurations that are equal but for their seeds: 95 % of the intervals should hold 0."""
    monkeypatch.setattr(comparison, "RESAMPLES", 500)
    draw, held = np.random.default_rng(0), 0
    for _ in range(200):
        ability = draw.random(100)  # how easy each image is
        seeds = 0.05 * draw.standard_normal(6)
        rows = np.stack([draw.random(100) < np.clip(ability + shift, 0, 1) for shift in seeds])
        found = row_of(compare_models([ScoredModel("a", "", rows[:3]), ScoredModel("b", "", rows[3:])], "a"), "b")
        held += found["difference_low"] <= 0 <= found["difference_high"]
    assert 0.85 <= held / 200 <= 0.99


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(ValueError, match="c must be one of the models, each named once"):
        compare_models([ScoredModel("a", "", right(0.5, 1))], "c")
    with pytest.raises(ValueError, match="all need the same images, at least 1"):
        compare_models([ScoredModel("a", "", right(0.5, 1)), ScoredModel("b", "", np.ones((1, 3), bool))], "a")


# --- from a sweep's folder ----------------------------------------------------------------------------------------

NETWORKS = {
    "winner": ("best", ("w0", "w1")),
    "runner-up-1": ("base", ("r0", "r1")),
    "runner-up-2": ("", ("s0",)),
}


def finished(root: Path) -> SweepPaths:
    """A finished sweep with five networks of three configurations, judged under two policies."""
    paths = write_sweep(root)
    rows, models = [], []
    for number, (group, (given, fits)) in enumerate(NETWORKS.items()):
        for i, fit in enumerate(fits):
            models.append({"model": f"{group}/seed-{i}", "fit": fit, "configuration": given})
            for policy in ("whole", "flip"):
                hits = right(0.9 - 0.1 * number, 10 * number + i)[0]
                probabilities = np.stack([hits, ~hits], axis=1).astype(np.float32)
                path = paths.probabilities(fit, "test", policy)
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(path, probabilities=probabilities, labels=np.zeros(IMAGES, np.int32))
                rows.append({**ROW, "model": f"{group}/seed-{i}", "policy": policy, "winner": False})
    write(pd.DataFrame(rows), paths)
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.STAGE, stage="leaderboard", state="ENDED", payload={"models": models})
    return paths


@pytest.mark.parametrize(
    ("against", "baseline", "models", "networks"),
    [
        ("winner", "winner", {"winner", "runner-up-1", "runner-up-2"}, 2),
        ("base", "runner-up-1", {"winner", "runner-up-1", "runner-up-2"}, 2),
        ("runner-up-2", "runner-up-2", {"winner", "runner-up-1", "runner-up-2"}, 1),
        ("winner/ensemble", "winner/ensemble", {"winner/ensemble", "runner-up-1/ensemble", "runner-up-2/seed-0"}, 1),
        (
            "runner-up-1/seed-1",
            "runner-up-1/seed-1",
            {"winner/seed-0", "winner/seed-1", "runner-up-1/seed-0", "runner-up-1/seed-1", "runner-up-2/seed-0"},
            1,
        ),
    ],
)
def test_the_name_decides_what_is_compared(
    tmp_path: Path, against: str, baseline: str, models: set[str], networks: int
) -> None:
    found = compare.compare_configurations(finished(tmp_path / "s").root, against, "flip")
    assert set(found.frame["model"]) == models
    base = found.frame[found.frame["baseline"]].iloc[0]
    assert (base["model"], base["networks"]) == (baseline, networks)
    assert (found.policy, found.images) == ("flip", IMAGES)


def test_a_comparison_is_printed_and_handed_on(tmp_path: Path) -> None:
    found = compare.compare_configurations(finished(tmp_path / "s").root, "base")
    rows = compare.records(found)
    json.dumps(rows, allow_nan=False)
    assert [row["configuration"] for row in rows] == ["best", "base", ""]
    assert {row["policy"] for row in rows} == {"whole"}
    text = io.StringIO()
    Console(file=text, width=120).print(compare.to_rich(found))
    for part in ("Against base (runner-up-1) on 400 test images, crop policy whole", "best (winner)", "runner-up-2"):
        assert part in text.getvalue(), part
    markdown = compare.to_markdown(found).splitlines()
    assert len([line for line in markdown if line.startswith("|")]) == 2 + 3
    assert markdown[3].startswith("| **base (runner-up-1)** | **2** |")


def test_an_older_sweep_is_compared_by_the_names_of_its_refit(tmp_path: Path) -> None:
    paths = write_sweep(tmp_path / "old")
    about: dict[str, Any] = {"stage": "refit"}
    with Ledger(paths.ledger) as ledger:
        for fit, name in (("f0", "winner/seed-0"), ("f1", "winner/seed-0"), ("f2", "runner-up-1/seed-0")):
            payload = {"name": name, "number": 1, "config": {}}
            ledger.append(EventKind.TRIAL, trial=fit, state="PENDING", payload=payload, **about)
            ledger.append(EventKind.TRIAL, trial=fit, state="RUNNING", **about)
            ledger.append(EventKind.TRIAL, trial=fit, state="COMPLETED", **about)
    for number, fit in enumerate(("f1", "f2")):
        path = paths.probabilities(fit, "test", "whole")
        path.parent.mkdir(parents=True)
        hits = right(0.9, number)[0]
        np.savez(path, probabilities=np.stack([hits, ~hits], 1), labels=np.zeros(IMAGES, np.int32))
    names = ("winner/seed-0", "runner-up-1/seed-0")
    write(pd.DataFrame([{**ROW, "model": name} for name in names]), paths)
    assert set(compare.compare_configurations(paths.root).frame["model"]) == {"winner", "runner-up-1"}


def test_what_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    paths = finished(tmp_path / "s")
    with pytest.raises(OrchError, match="called 'bse'; there are best, base, winner, runner-up-1, runner-up-2"):
        compare.compare_configurations(paths.root, "bse")
    with pytest.raises(OrchError, match="not judged under the crop policy 'random_5'; it was under flip, whole"):
        compare.compare_configurations(paths.root, "winner", "random_5")
    with pytest.raises(OrchError, match="has no finished leaderboard, so nothing to compare; resume it"):
        compare.compare_configurations(write_sweep(tmp_path / "new", ended="INTERRUPTED").root)


def test_the_same_networks_under_two_policies_are_drawn_together() -> None:
    whole = right(0.8, 1, 4)
    better = whole.copy()
    better[:, :20] = True  # the same few images in each network
    apart = row_of(compare_models([ScoredModel("whole", "", whole), ScoredModel("flip", "", better)], "whole"), "flip")
    together = row_of(
        compare_models([ScoredModel("whole", "", whole), ScoredModel("flip", "", better)], "whole", 0, True), "flip"
    )
    width = [row["difference_high"] - row["difference_low"] for row in (together, apart)]
    assert together["difference"] == apart["difference"] > 0
    assert width[0] < width[1]
    with pytest.raises(ValueError, match="the same networks stand for all"):
        compare_models([ScoredModel("whole", "", whole), ScoredModel("flip", "", better[:2])], "whole", 0, True)


def test_the_crop_policies_of_a_sweep_are_compared_over_all_its_networks(tmp_path: Path) -> None:
    folder = finished(tmp_path / "s").root
    found = compare.compare_policies(folder)
    assert found.frame.loc[found.frame["baseline"], "model"].tolist() == ["whole"]
    assert set(found.frame["networks"]) == {5}
    assert {record["policy"] for record in compare.records(found)} == {"whole", "flip"} == set(found.frame["model"])
    assert compare.to_markdown(found).startswith("| crop policy |")
    one = compare.compare_policies(folder, "winner")
    assert set(one.frame["networks"]) == {2}
    with pytest.raises(OrchError, match="no final model is called"):
        compare.compare_policies(folder, "nobody")


def test_the_steps_of_a_list_are_compared_in_the_order_of_the_file(tmp_path: Path) -> None:
    paths = finished(tmp_path / "s")
    with pytest.raises(OrchError, match=r"has no named configurations \(search.configurations\), so no steps"):
        compare.compare_steps(paths.root)
    with Ledger(paths.ledger) as ledger:
        for number, name in enumerate(("base", "best"), start=101):
            payload = {"name": name, "number": number, "config": {}}
            ledger.append(EventKind.TRIAL, trial=f"step{number}", stage="search", state="PENDING", payload=payload)
    found = compare.compare_steps(paths.root, "flip")
    assert found.frame["configuration"].tolist() == ["base", "best"]
    assert found.frame["baseline"].tolist() == [True, False]
    direct = compare.compare_configurations(paths.root, "base", "flip").frame.set_index("configuration").loc["best"]
    assert found.frame["difference"][1] == direct["difference"]
    assert found.against == "the configuration before"
