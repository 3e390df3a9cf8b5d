"""The sweeps that come with the package: each is right, and holds what its header promises."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.errors import SpecError
from orchestrator.spec.load import load_spec, open_spec
from orchestrator.spec.shipped import shipped_spaces
from orchestrator.spec.space.domains import Choice, Uniform
from tests.support.places import ROOT
from trainers.backbones import BACKBONES
from trainers.config import BALANCES, FUSIONS, LOSSES, POOLINGS, VIEWS, canonical
from trainers.heads import HEADS
from trainers.images.augment import RECIPES

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
    assert spec.weights_for("vgg16") == environ["ORCH_WEIGHTS"]
    assert load_spec("full", environ={"ORCH_PHOTOS": environ["ORCH_PHOTOS"]}).weights_for("vgg16") == "imagenet"


def test_full_starts_with_the_photos_alone(environ):
    opened = open_spec("full", environ={"ORCH_PHOTOS": environ["ORCH_PHOTOS"]})
    converted = {row.name for row in BACKBONES.values() if not row.imagenet}
    assert listed(opened.spec.space, "backbone") == set(BACKBONES) - converted
    others, senet = sorted(line for line in opened.notes if "left out" in line)
    assert "senet50 is left out" in senet
    assert "export ORCH_SENET50=FILE" in senet
    more = len(converted) - 2 - 6  # without small_cnn, senet50 and the six that are named
    assert f" and {more} more are left out: Keras has no weights of them to download" in others
    assert "--set weights.NAME=FILE" in others
    for name, expected in (("ORCH_SENET50", {"senet50"}), ("ORCH_WEIGHTS", converted - {"small_cnn"})):
        found = open_spec("full", environ={"ORCH_PHOTOS": environ["ORCH_PHOTOS"], name: environ[name]})
        assert listed(found.spec.space, "backbone") == set(BACKBONES) - converted | expected
        assert found.spec.weights_for("senet50") == environ[name]
        assert not any("senet50 is left out" in line for line in found.notes)


@pytest.mark.parametrize("name", ["small", "trashnet"])
def test_files_for_a_laptop_run_without_converted_weights(environ, tmp_path, name):
    assert listed(load_spec(name, environ=environ).space, "backbone") >= {"mobilenet_1.0", "efficientnet_lite0"}
    folder = tmp_path / "without"
    folder.mkdir()
    for alpha in (0.5, 0.75, 1.0):
        (folder / f"mobilenet_{alpha}_224_no_top.weights.h5").touch()
    opened = open_spec(name, environ={**environ, "ORCH_WEIGHTS": str(folder)})
    assert "efficientnet_lite0" not in listed(opened.spec.space, "backbone")
    assert opened.spec.weights_for("mobilenet_1.0") == str(folder)
    assert any("efficientnet_lite0 is left out" in line for line in opened.notes)


@pytest.mark.parametrize("variable", ["ORCH_PHOTOS", "ORCH_DATA", "ORCH_SENET50"])
def test_a_variable_that_is_not_set_says_what_it_should_name(variable, environ):
    seen = 0
    for name, file in shipped_spaces().items():
        body = file.read_text().partition("\nname: ")[2]
        if f"${{{variable}}}" not in body and f"${{{variable}:?" not in body:
            continue
        with pytest.raises(SpecError) as error:
            load_spec(name, environ={key: value for key, value in environ.items() if key != variable})
        (line,) = str(error.value).splitlines()
        assert f"the environment variable {variable} is not set; it should name " in line
        assert re.search(rf"Type: export {variable}=/path/to/\S+$", line)
        seen += 1
    assert seen == {"ORCH_PHOTOS": 3, "ORCH_DATA": 3, "ORCH_SENET50": 1}[variable]


def header_command(name: str, word: str) -> list[str]:
    """The command in a shipped file's header below the line that begins with ``word``, split as a shell does."""
    header = shipped_spaces()[name].read_text().partition("\nname: ")[0]
    found = re.search(rf"{word}.*?\n#   orch ((?:.*\\\n)*.*)\n", header)
    assert found
    return shlex.split(found[1].replace("\\\n", " ").replace("#", ""))


def test_the_dry_run_of_full_passes_the_check_without_any_variable(monkeypatch, tmp_path):
    verb, *line = header_command("full", "A dry run")
    assert (verb, line[0]) == ("sweep", "full")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))  # no weights, and none are needed
    for name in [name for name in os.environ if name.startswith("ORCH_")]:
        monkeypatch.delenv(name)
    ended = CliRunner().invoke(app, ["check", *line])
    assert ended.exit_code == 0, ended.output
    assert "2 trials of at most 2 epochs" in ended.output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_dry_run_of_full_ends_with_a_leaderboard_and_a_champion(monkeypatch, tmp_path):
    """In a process and a folder of its own, as a person types it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCH_")}
    environment = {**kept, "PYTHONPATH": str(ROOT), "ORCH_CACHE": str(tmp_path / "cache")}
    for line in (header_command("full", "A dry run"), ["promote", "best"]):
        command = [sys.executable, "-m", "orchestrator", *line]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "full" / "leaderboard.csv").is_file()
    assert "champion" in done.stdout


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
        for variable in set(re.findall(r"\$\{(\w+)(?:\}|:)", body)):
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


def test_no_two_depths_of_a_shipped_search_are_the_same_trial(environ):
    seen = 0
    for file in sorted(SHIPPED):
        spec = load_spec(file, environ=environ)
        field = spec.space.field("unfrozen_layers")
        for name in listed(spec.space, "backbone") if field else ():
            depths = field.active({"backbone": name})[1].values()
            trials = {canonical({"backbone": name, "unfrozen_layers": depth}).unfrozen_layers for depth in depths}
            assert len(trials) == len(depths), (file, name)
            seen += 1
    assert seen == 69 + 1 + 5 + 3  # backbones of full, quick, small and trashnet


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
    assert found == {Choice((32, 64, 128)): 23, Choice((8, 16, 32)): 16, Choice((32, 64)): 30}


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
    assert load_spec("ladder", ["weights.senet50=none"], environ).weights_for("senet50") == "none"


def test_the_small_ladder_differs_in_networks_and_sizes_alone(environ):
    large, small = (dict(load_spec(name, environ=environ).configurations) for name in ("ladder", "ladder_small"))
    differing = {field for name in STEPS for field in small[name] if small[name][field] != large[name].get(field)}
    assert differing == {"backbone", "image_size", "learning_rate", "multiplier"}


def test_every_step_and_ablation_is_retrained_and_judged(environ):
    for name, count in (("ladder", 16), ("ladder_small", 16), ("ablation", 39)):
        spec = load_spec(name, environ=environ)
        assert spec.budget.trials == count
        assert spec.final.runners_up >= count - 1
        assert spec.budget.scheduler.name == "none"
