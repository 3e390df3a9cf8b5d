"""The sweeps that come with the package: each is right, and holds what its header promises."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.space import Choice, Uniform
from orchestrator.spec import load_spec, shipped_spaces
from trainers.augment import RECIPES
from trainers.backbones import BACKBONES
from trainers.contract import BALANCES, FUSIONS, LOSSES, POOLINGS, VIEWS, canonical
from trainers.heads import HEADS

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = {"ablation", "full", "ladder", "ladder_small", "quick", "small", "trashnet"}
STEPS = [
    *("1-frozen", "2a-dropout", "2b-second-network", "3-third-network", "4-last-5-layers", "5a-first-network-again"),
    *("5b-multiplier", "5c-all-layers", "6a-sphereface", "6b-cosface", "6c-arcface", "6d-normface", "7a-smoothing"),
    *("7b-centre-crop", "8a-fusion", "8b-stride-16"),
]


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Everything that the shipped files name, empty."""
    (tmp_path / "trashnet").mkdir()
    (tmp_path / "trashnet" / "split.csv").touch()
    for row in BACKBONES.values():
        for pattern in row.files.split():
            (tmp_path / pattern.replace("*no*top*", "224_no_top").replace("*", "")).touch()
    (tmp_path / "senet50.weights.h5").touch()
    found = dict.fromkeys(("ORCH_DATA", "ORCH_WEIGHTS", "ORCH_PHOTOS"), str(tmp_path))
    found["ORCH_SENET50"] = str(tmp_path / "senet50.weights.h5")
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def test_full_runs_without_a_file_for_senet50(environ):
    spec = load_spec("full", environ={**environ, "ORCH_SENET50": "none"})
    assert spec.weights_for("senet50") == "none"
    assert spec.weights_for("vgg16") == "imagenet"


def listed(space, name) -> set:
    """Every value of a field's lists and constants."""
    return {value for domain in space.domains(name) for value in domain.values() or ()}


def test_every_shipped_file_passes_the_check(environ):
    assert shipped_spaces().keys() == SHIPPED
    seen = 0
    for name, file in shipped_spaces().items():
        ended = CliRunner().invoke(app, ["check", name])
        assert ended.exit_code == 0, ended.output
        assert f"{name}: all right. The sweep {name}: " in ended.output
        header = file.read_text().partition("\nname: ")[0]
        assert f"orch sweep {name}" in header  # the header holds the command
        seen += 1
    assert seen == len(list((ROOT / "search_spaces").glob("*.yaml"))) == 7


def test_headers_name_every_environment_variable():
    seen = 0
    for name, file in shipped_spaces().items():
        header, _, body = file.read_text().partition("\nname: ")
        for variable in set(re.findall(r"\$\{(\w+)\}", body)):
            assert f"{variable}=" in header, name
            seen += 1
    assert seen == 11


def test_full_holds_every_word(environ):
    space = load_spec("full", environ=environ).search.space
    assert listed(space, "backbone") == set(BACKBONES) - {"small_cnn"}
    assert listed(space, "head") == set(HEADS)
    assert listed(space, "recipe") == set(RECIPES)
    words = {"balance": BALANCES, "feature_fusion": FUSIONS, "loss": LOSSES, "pooling": POOLINGS, "view": VIEWS}
    assert {name: listed(space, name) for name in words} == {name: set(each) for name, each in words.items()}
    assert listed(space, "output_stride") == {16, 32}
    assert max(listed(space, "mixup")) > 0
    assert max(listed(space, "cutmix")) > 0
    with_margin = [top for top in HEADS.values() if top.has_margin]
    ranges = [domain for domain in space.domains("margin") if isinstance(domain, Uniform)]
    assert len(with_margin) == 4
    assert len(ranges) == 3  # arcface and subcentre_arcface share one


@pytest.mark.parametrize(
    ("gpu_memory_gb", "backbone", "sizes"),
    [
        (0, "resnet50", (16, 32)),
        (16, "resnet50", (32, 64)),
        (0, "mobilenet_1.0", (16, 32)),
        (8, "mobilenet_1.0", (32, 64, 128)),
        (16, "convnext_xlarge", (4, 8)),
        (24, "convnext_xlarge", (8, 16, 32)),
    ],
)
def test_fulls_batch_size_goes_by_backbone_and_gpu(environ, gpu_memory_gb, backbone, sizes):
    space = load_spec("full", [f"resources.gpu_memory_gb={gpu_memory_gb}"], environ).space
    _, domain = space.field("batch_size").active({"backbone": backbone})
    assert domain == Choice(sizes)


def test_every_backbone_of_full_has_a_batch_size_of_its_kind(environ):
    space = load_spec("full", ["resources.gpu_memory_gb=24"], environ).space
    found: dict[Choice, int] = {}
    for name in listed(space, "backbone"):
        _, domain = space.field("batch_size").active({"backbone": name})
        found[domain] = found.get(domain, 0) + 1
    assert found == {Choice((32, 64, 128)): 17, Choice((8, 16, 32)): 11, Choice((32, 64)): 20}


@pytest.mark.parametrize("name", ["ladder", "ladder_small"])
def test_each_step_of_the_ladder_is_one_change(name, environ):
    steps = load_spec(name, environ=environ).configurations
    assert [step for step, _ in steps] == STEPS
    changes = [
        {field for field in {*before, *after} if before.get(field) != after.get(field)}
        for (_, before), (_, after) in itertools.pairwise(steps)
    ]
    assert changes == [
        *({"dropout"}, {"backbone"}, {"backbone"}, {"unfrozen_layers"}, {"backbone"}, {"multiplier"}),
        *({"unfrozen_layers"}, {"head"}, {"head"}, {"head"}, {"head"}, {"smoothing"}, {"view"}),
        *({"feature_fusion"}, {"output_stride"}),
    ]
    assert len({canonical(values) for _, values in steps}) == 16


def test_the_ladder_has_the_contests_networks_and_numbers(environ):
    spec = load_spec("ladder", environ=environ)
    steps = dict(spec.configurations)
    assert [steps[name]["backbone"] for name in STEPS[:6]] == ["resnet50"] * 2 + ["vgg16"] + ["senet50"] * 2 + [
        "resnet50"
    ]
    assert {(v["learning_rate"], v["batch_size"], v["recipe"]) for v in steps.values()} == {(0.0001, 32, "contest")}
    assert steps["5b-multiplier"]["multiplier"] == 4.7
    assert steps["4-last-5-layers"]["unfrozen_layers"] == 5
    assert spec.budget.epochs == 10
    assert all(canonical(values).loss == "categorical_crossentropy" for values in steps.values())
    assert spec.weights_for("senet50") == environ["ORCH_SENET50"]
    assert spec.weights_for("resnet50") == "imagenet"


def test_the_small_ladder_differs_in_networks_and_sizes_alone(environ):
    large, small = (dict(load_spec(name, environ=environ).configurations) for name in ("ladder", "ladder_small"))
    differing = {field for name in STEPS for field in small[name] if small[name][field] != large[name].get(field)}
    assert differing == {"backbone", "image_size", "learning_rate", "multiplier"}


def test_every_step_and_ablation_is_retrained_and_judged(environ):
    for name, count in (("ladder", 16), ("ladder_small", 16), ("ablation", 23)):
        spec = load_spec(name, environ=environ)
        assert spec.budget.trials == count
        assert spec.final.runners_up >= count - 1
        assert spec.budget.scheduler.name == "none"
