"""``orch weights list``: the table with the files that a folder holds for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.commands import backbones
from orchestrator.errors import DataError
from trainers.backbones import BACKBONES


def test_every_backbone_is_listed_with_the_file_that_fits(tmp_path: Path) -> None:
    (tmp_path / "mobilenet_0.5_160_no_top.weights.h5").touch()
    (tmp_path / "mobilenet_0.5_224_no_top.weights.h5").touch()
    found = {row["backbone"]: row for row in backbones.rows(tmp_path)}
    assert list(found) == list(BACKBONES)
    assert found["mobilenet_0.5"]["file"] == "mobilenet_0.5_224_no_top.weights.h5"  # the native size is nearest
    assert [name for name, row in found.items() if row["file"]] == ["mobilenet_0.5"]
    assert found["small_cnn"]["download"] is False


def test_the_folder_is_the_one_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vgg16_weights_no_top.h5").touch()
    monkeypatch.setenv("ORCH_WEIGHTS", str(tmp_path))
    assert next(row for row in backbones.rows(None) if row["backbone"] == "vgg16")["file"]
    monkeypatch.delenv("ORCH_WEIGHTS")
    assert not any(row["file"] for row in backbones.rows(None))


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; give another, or unset ORCH_WEIGHTS"):
        backbones.rows(tmp_path / "none")
