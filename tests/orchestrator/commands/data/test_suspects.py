"""``orch data suspects`` on a sweep of tiny photos, one of which lies in the wrong folder."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator.cli import app
from orchestrator.cluster import jobs as cluster_jobs
from orchestrator.cluster import ray_session
from orchestrator.commands.data.suspects import draw_sheet, suspects_of, write_table
from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.training.out_of_fold import predict_out_of_fold


def photos(root: Path) -> Path:
    """Red and blue photos, 30 of each; ``red/wrong.png`` is blue."""
    draw = np.random.default_rng(0)
    for label, channel in (("red", 0), ("blue", 2)):
        for i in range(30):
            pixels = draw.integers(0, 90, (24, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            (root / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    pixels = draw.integers(0, 90, (24, 24, 3), dtype=np.uint8)
    pixels[..., 2] += 150
    Image.fromarray(pixels).save(root / "red" / "wrong.png")
    return root


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepPaths:
    """A sweep with a winner; its jobs run in this process."""
    paths = SweepPaths(tmp_path / "runs" / "my")
    source = photos(tmp_path / "photos")
    for seed in range(100):  # one whose test split does not hold the wrong photo
        manifest, _ = build_manifest(DataSource(str(source), (0.7, 0.15, 0.15), tmp_path / "cache", seed=seed))
        if manifest.table.set_index("path").at["red/wrong.png", "split"] != "test":
            break
    manifest.write(paths.manifest)
    paths.spec.write_text(
        f"name: my\ndata: {{source: {source}}}\nsearch: {{backbone: small_cnn}}\nweights: none\n"
        "budget: {trials: 1, epochs: 1}\n"
    )
    with Ledger(paths.ledger) as ledger:
        winner = {"trial": "t", "config": {"backbone": "small_cnn"}, "policy": "whole"}
        ledger.append(EventKind.STAGE, stage="select", state="ENDED", payload={"winner": winner})

    def here(function: str, jobs: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
        assert function == "trainers.training.out_of_fold:predict_out_of_fold"
        return [predict_out_of_fold(job) for job in jobs]

    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cluster_jobs, "run_jobs", here)
    monkeypatch.setattr(ray_session, "ray_session", lambda address: contextlib.nullcontext())
    return paths


def test_the_photo_in_the_wrong_folder_is_found_and_drawn(paths: SweepPaths, tmp_path: Path) -> None:
    lines: list[str] = []
    found = suspects_of(paths.root, tell=lines.append)
    assert found.table["path"].tolist()[0] == "red/wrong.png"
    assert found.table["likely_label"].tolist()[0] == "blue"
    assert "1 label of " in found.sentence
    assert lines == [f"suspects {found.photos} photos, features of small_cnn at 32 px"]
    write_table(found, tmp_path / "s.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "s.csv"), found.table, check_dtype=False)
    draw_sheet(found, tmp_path / "s.png", 10)
    with Image.open(tmp_path / "s.png") as image:
        assert image.format == "PNG"
    (found.source / "red" / "wrong.png").unlink()
    draw_sheet(found, tmp_path / "gone.png", 10)


def test_the_verb_writes_both_files(
    paths: SweepPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run(["data", "suspects", str(paths.root), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["suspects"][0]["path"] == "red/wrong.png"
    assert (tmp_path / "suspects.csv").is_file()
    assert (tmp_path / "suspects.png").is_file()
    assert app.run(["data", "suspects", str(paths.root), "--out", "x.txt"]) == 2


def test_a_sweep_without_a_result_is_a_sentence(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "s")
    manifest, _ = build_manifest(DataSource(str(photos(tmp_path / "p")), (0.7, 0.15, 0.15), tmp_path / "cache"))
    manifest.write(paths.manifest)
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING")
    with pytest.raises(OrchError, match=r"has no trial with a result yet; resume it: `orch sweep --resume --out "):
        suspects_of(paths.root)


def test_neither_table_nor_sheet_goes_among_the_photos(
    paths: SweepPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, name in (("--out", "wrong.csv"), ("--sheet", "wrong.png")):
        assert app.run(["data", "suspects", str(paths.root), option, str(tmp_path / "photos" / name)]) == 2
        assert f"{option}: {tmp_path}/photos/{name} lies in {tmp_path}/photos, the folder" in capsys.readouterr().err
