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
from orchestrator.evaluation.leaderboard import write
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from tests.support.random_hits import IMAGES, right
from tests.support.sweep_on_disk import ROW, write_sweep

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


@pytest.mark.parametrize(
    ("against", "models"),
    [
        ("winner", {"winner", "runner-up-1", "runner-up-2"}),
        ("winner/soup", {"winner/ensemble", "winner/soup", "runner-up-1/ensemble", "runner-up-2/seed-0"}),
    ],
)
def test_another_form_of_the_winner_is_compared_with_ensembles(tmp_path: Path, against: str, models: set[str]) -> None:
    paths = finished(tmp_path / "s")
    with Ledger(paths.ledger) as ledger:
        listed = [event.data["models"] for event in ledger.events() if "models" in event.data][-1]
        soup = {"model": "winner/soup", "fit": "r0", "configuration": ""}
        ledger.append(EventKind.STAGE, stage="leaderboard", state="ENDED", payload={"models": [*listed, soup]})
    found = compare.compare_configurations(paths.root, against)
    assert set(found.frame["model"]) == models
    assert found.frame.loc[found.frame["baseline"], "model"].tolist() == [against]
    policies = compare.compare_policies(paths.root)
    assert policies.frame["networks"].tolist() == [5, 5]


def test_a_comparison_is_printed_and_handed_on(tmp_path: Path) -> None:
    found = compare.compare_configurations(finished(tmp_path / "s").root, "base")
    rows = compare.records(found)
    json.dumps(rows, allow_nan=False)
    assert [row["configuration"] for row in rows] == ["best", "base", ""]
    assert {row["policy"] for row in rows} == {"whole"}
    text = io.StringIO()
    Console(file=text, width=120).print(compare.to_rich(found))
    for part in (
        "Against base (runner-up-1) on 400 photos of the test split, crop policy whole",
        "best (winner)",
        "runner-up-2",
    ):
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


def test_objects_with_several_photos_widen_every_interval(tmp_path: Path) -> None:
    """The manifest's groups are found by the images' hashes, in whatever order it lists them."""
    paths = finished(tmp_path / "s")
    hashes = [f"{i:064x}" for i in range(IMAGES)]
    for path in paths.root.glob("probabilities/*/test-*.npz"):
        with np.load(path) as stored:
            arrays = dict(stored)
        hits = np.repeat(arrays["probabilities"][: IMAGES // 8], 8, axis=0)
        np.savez(path, **{**arrays, "probabilities": hits, "sha256": hashes})
    before = compare.compare_configurations(paths.root, "runner-up-1/seed-0")
    assert (before.images, before.groups) == (IMAGES, IMAGES)
    table = pd.DataFrame({"sha256": hashes, "group": [f"{i // 8}" for i in range(IMAGES)]})
    table[::-1].to_parquet(paths.manifest)
    after = compare.compare_configurations(paths.root, "runner-up-1/seed-0")
    assert after.groups == IMAGES // 8
    rows = [found.frame.set_index("model").loc["winner/seed-0"] for found in (before, after)]
    widths = [row["difference_high"] - row["difference_low"] for row in rows]
    assert widths[1] > 2 * widths[0]
    assert rows[1]["p_value"] > rows[0]["p_value"]
    assert "on 400 photos of 50 objects of the test split" in str(compare.to_rich(after).title)


def test_the_mean_of_two_networks_has_no_interval_and_a_difference_of_two_and_two_has(tmp_path: Path) -> None:
    found = compare.compare_configurations(finished(tmp_path / "s").root, "base")
    row = found.frame.set_index("model").loc["winner"]
    assert row["networks"] == 2
    assert np.isnan(row["accuracy_low"])
    assert np.isfinite(row["difference_low"])
    assert "nan" not in compare.to_markdown(found)
