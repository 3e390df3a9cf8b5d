"""What users write into modules of their own keeps working: their imports, and the names in a sweep's file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.ledger.segments import read_events
from orchestrator.ledger.state import derive
from tests.support.since_42b062d import RECORDED, ROOT, environment, orch
from tests.support.tiny_fits import job
from trainers.training.loop import open_fit

SPEC = """\
name: mine
data: {source: "builtin:digits"}
search:
  backbone: ["my_nets:MINE", "my_nets:SMALL"]
  head: ["my_nets:HEAD", "my_nets:ARC"]
  unfrozen_layers: all
  image_size: 16
  multiplier: 2
  recipe: my_nets:DARKER
budget: {trials: 2, epochs: 1, concurrent: 1}
tracking: {enabled: false}
weights: none
"""


def write_module(folder: Path) -> Path:
    """The user's ``my_nets.py``, kept as text, so that no codemod rewrites it; returns ``folder``."""
    (folder / "my_nets.py").write_text((RECORDED / "my_nets.txt").read_text())
    (folder / "mine.yaml").write_text(SPEC)
    return folder


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("trainers.backbones", "Backbone"),
        ("trainers.backbones", "BACKBONES"),
        ("trainers.backbones", "build_small_cnn"),
        ("trainers.heads", "Head"),
        ("trainers.heads", "HEADS"),
        ("trainers.heads", "arcface_margin"),
        ("trainers.augment", "Recipe"),
        ("trainers.augment", "RECIPES"),
        ("trainers.serving", "_load_pyfunc"),
    ],
)
def test_a_name_that_users_and_registered_models_import_is_there(module: str, name: str, tmp_path: Path) -> None:
    script = (
        f"import sys; from {module} import {name}; print(sys.modules['{module}'].__file__, 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path / "cache"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    file, has_tensorflow = done.stdout.split()
    assert Path(file).is_relative_to(ROOT), "of another checkout, which an editable install names"
    assert has_tensorflow == "False", "a table that imports TensorFlow makes every command slow"


def test_orch_checks_a_file_that_names_them_in_an_empty_folder(tmp_path: Path) -> None:
    done = orch(write_module(tmp_path), tmp_path / "cache", "check", "mine.yaml")
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize(
    ("backbone", "head", "recipe"),
    [("my_nets:MINE", "my_nets:HEAD", "my_nets:DARKER"), ("my_nets:SMALL", "my_nets:ARC", "flips")],
)
def test_a_fit_trains_a_backbone_a_head_and_a_recipe_of_ones_own(
    backbone: str,
    head: str,
    recipe: str,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(write_module(tmp_path)))
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    values = {"backbone": backbone, "head": head, "multiplier": 2, "recipe": recipe, "unfrozen_layers": 2}
    fit = open_fit(job(manifest, tmp_path / "cache", **values))
    assert fit.run_epoch().val_loss > 0


@pytest.mark.slow
def test_a_sweep_trains_them_on_its_workers(tmp_path: Path) -> None:
    folder = write_module(tmp_path)
    done = orch(folder, tmp_path / "cache", "sweep", "mine.yaml", "--until", "search")
    assert done.returncode == 0, done.stderr + done.stdout
    trials = derive(read_events(folder / "runs" / "mine" / "ledger")).trials
    assert [str(record.state) for record in trials.values()] == ["COMPLETED"] * 2
    shown = json.loads(orch(folder, tmp_path / "cache", "show", "runs/mine", "--json").stdout)
    assert {trial["config"]["backbone"].partition(":")[0] for trial in shown["trials"]} == {"my_nets"}
