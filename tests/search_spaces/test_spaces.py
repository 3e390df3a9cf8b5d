"""What the shipped sweeps hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest

from orchestrator.spec.load import load_spec
from orchestrator.spec.schema import json_schema
from orchestrator.spec.shipped import shipped_spaces
from orchestrator.spec.space.domains import Constant
from trainers.backbones import BACKBONES
from trainers.heads import HEADS
from trainers.images.policies import valid_policy


def shipped_environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "trashnet").mkdir()
    (tmp_path / "trashnet" / "split.csv").touch()
    for row in BACKBONES.values():
        if row.files:
            (tmp_path / row.files.split()[0].replace("*", "224")).touch()
    names = ("ORCH_DATA", "ORCH_WEIGHTS", "ORCH_PHOTOS", "ORCH_SENET50")
    return dict.fromkeys(names, str(tmp_path))


def test_every_shipped_sweep_is_right(tmp_path):
    environ, validator = shipped_environment(tmp_path), jsonschema.Draft202012Validator(json_schema())
    seen = {name: load_spec(name, environ=environ) for name in shipped_spaces()}
    assert {"quick", "trashnet", "full"} <= seen.keys()
    for name, spec in seen.items():
        assert spec.name == name
        validator.validate(json.loads(json.dumps(spec.model_dump())))
        assert all(valid_policy(policy) is None for policy in spec.final.policies)


def test_quick_sweep_never_mirrors_a_digit():
    spec = load_spec("quick", environ={})
    assert spec.space.field("multiplier") is None  # no copies, so no recipe has an effect
    assert not {"flip", "ten_crop", "pyramid"} & set(spec.final.policies)
    assert spec.space.domains("unfrozen_layers") == (Constant("all"),)


@pytest.mark.parametrize("name", ["trashnet", "full"])
def test_the_six_parameters_of_the_card_vary(name, tmp_path):
    space = load_spec(name, environ=shipped_environment(tmp_path)).space
    for field in ("backbone", "unfrozen_layers", "dropout", "multiplier", "head", "smoothing"):
        options = [value for domain in space.domains(field) for value in domain.values() or ("low", "high")]
        assert len(options) >= 2, field


def test_full_sweep_holds_every_backbone_with_weights_and_every_head(tmp_path):
    space = load_spec("full", environ=shipped_environment(tmp_path)).space
    assert set(space.domains("backbone")[0].values()) == {row.name for row in BACKBONES.values() if row.files}
    assert set(space.domains("head")[0].values()) == set(HEADS)


def test_full_sweep_runs_on_small_data():
    settings = (
        "data.source=builtin:digits weights=none search.backbone=mobilenet_0.25 search.unfrozen_layers=all "
        "search.image_size=32 budget.trials=2 budget.epochs=2 search.head=[softmax,cosface]"
    )
    assert load_spec("full", settings.split(), {}).budget.trials == 2


def test_shipped_trashnet_finds_the_real_photos_and_weights():
    if not os.environ.get("ORCH_DATA") or not os.environ.get("ORCH_WEIGHTS"):
        pytest.skip("ORCH_DATA and ORCH_WEIGHTS name the real photos and weights")
    spec = load_spec("trashnet")
    assert spec.data.splits == "own"
    assert spec.budget.trials >= 16
