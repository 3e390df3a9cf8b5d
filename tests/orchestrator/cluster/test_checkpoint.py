"""The state of an unfinished fit: written so that no reader sees half of it, and not too often."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.checkpoint import CheckpointSaver, read_checkpoint, remove_checkpoint, write_checkpoint
from tests.support.fake_trainer import FakeFit
from trainers.config import TrialConfig
from trainers.contract import EpochMetrics, FitJob
from trainers.errors import TrainerError


def fit_job(folder: Path, **changes: Any) -> FitJob:
    return dataclasses.replace(FitJob("t", TrialConfig(), 0, "m", checkpoint=str(folder)), **changes)


def train(job: FitJob, epochs: int) -> tuple[FakeFit, list[EpochMetrics]]:
    fit = FakeFit(job)
    return fit, [fit.run_epoch() for _ in range(epochs)]


@pytest.mark.parametrize("folds", [0, 3])
def test_what_was_written_comes_back(tmp_path: Path, folds: int) -> None:
    job = fit_job(tmp_path / "c", folds=folds)
    assert read_checkpoint(tmp_path / "c", job) is None
    for epochs in (2, 3):
        write_checkpoint(tmp_path / "c", job, *train(job, epochs), reported=1)
    saved = read_checkpoint(tmp_path / "c", job)
    assert saved is not None
    expected = train(job, 3)[1]
    assert [e.epoch for e in saved.epochs] == [1, 2, 3]
    assert [e.fold_val_accuracy for e in saved.epochs] == [e.fold_val_accuracy for e in expected]
    assert all(math.isnan(e.images_per_s) for e in saved.epochs)
    assert saved.reported == 1
    again = FakeFit(job)
    again.restore(saved.state)
    assert again.run_epoch().epoch == 4
    assert sorted(path.name[:12] for path in (tmp_path / "c").iterdir()) == ["epochs.json", "state-000003"]


def test_a_writer_killed_on_the_way_leaves_what_was_before(tmp_path: Path) -> None:
    job = fit_job(tmp_path)
    write_checkpoint(tmp_path, job, *train(job, 2))

    class Killed(FakeFit):
        def save(self, folder: Path) -> None:
            super().save(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path, job, Killed(job), train(job, 3)[1])
    saved = read_checkpoint(tmp_path, job)
    assert saved is not None
    assert len(saved.epochs) == 2


def damage_list(folder: Path) -> None:
    (folder / "epochs.json").write_text('{"state": "x", "epo')


def lose_state(folder: Path) -> None:
    (state,) = folder.glob("state-*")
    (state / "epoch").unlink()
    state.rmdir()


def lose_epoch(folder: Path) -> None:
    facts = json.loads((folder / "epochs.json").read_text())
    (folder / "epochs.json").write_text(json.dumps({**facts, "epochs": facts["epochs"][1:]}))


def foreign_list(folder: Path) -> None:
    (folder / "epochs.json").write_text("[1, 2]")


@pytest.mark.parametrize("damage", [damage_list, lose_state, lose_epoch, foreign_list])
def test_a_damaged_checkpoint_is_a_sentence(tmp_path: Path, damage: Any) -> None:
    job = fit_job(tmp_path)
    write_checkpoint(tmp_path, job, *train(job, 2))
    damage(tmp_path)
    with pytest.raises(TrainerError, match=r"its checkpoint in .* is damaged"):
        read_checkpoint(tmp_path, job)


def test_a_checkpoint_serves_the_same_fit_alone(tmp_path: Path) -> None:
    job = fit_job(tmp_path)
    write_checkpoint(tmp_path, job, *train(job, 1))
    same = [{"threads": 9}, {"cache": "elsewhere"}, {"gpu_memory_share": 0.5}, {"share": False}]
    other = [{"seed": 1}, {"config": TrialConfig(dropout=0.5)}, {"store_dtype": "float16"}, {"weights": "none"}]
    for changes in same:
        assert read_checkpoint(tmp_path, fit_job(tmp_path, **changes)) is not None
    for changes in other:
        with pytest.raises(TrainerError, match="belongs to other settings"):
            read_checkpoint(tmp_path, fit_job(tmp_path, **changes))


def test_saving_takes_a_small_part_of_the_time(tmp_path: Path) -> None:
    now = [0.0]

    class Slow(FakeFit):
        def save(self, folder: Path) -> None:
            super().save(folder)
            now[0] += 2.0

    job = fit_job(tmp_path / "c")
    fit, keeper, saved = Slow(job), CheckpointSaver(job, 10.0, lambda: now[0]), []
    for epoch in range(1, 101):
        now[0] += 3.0
        if keeper.note(fit, train(job, epoch)[1]):
            saved.append(epoch)
    assert saved == [4, 24, 44, 64, 84]  # 10 s of training, then 2 s of saving in 60
    remove_checkpoint(tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_without_a_folder_or_on_a_full_disk_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(FakeFit):
        def save(self, folder: Path) -> None:
            super().save(folder)
            raise OSError(28, "No space left on device")

    job = fit_job(tmp_path)
    assert not CheckpointSaver(job, 0.0).note(Full(job), train(job, 1)[1])
    assert "([Errno 28] No space left on device); training continues" in capsys.readouterr().out
    assert read_checkpoint(tmp_path, job) is None
    assert not list(tmp_path.iterdir()), "half a state would keep a full disk full"
    nowhere = dataclasses.replace(job, checkpoint="")
    assert not CheckpointSaver(nowhere, 0.0).note(Full(nowhere), train(job, 1)[1])
