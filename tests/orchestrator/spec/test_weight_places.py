"""``weights: imagenet`` and ``optional``, with and without files and a network, and in a sweep that goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.commands.doctor import weights
from orchestrator.errors import OrchError, SpecError
from orchestrator.spec.dump import dump_spec
from orchestrator.spec.load import OpenedSpec, load_spec, open_spec
from orchestrator.sweep.open import open_existing, open_new
from tests.trainers.networks.test_weight_sources import offline  # noqa: F401  a fixture
from trainers.networks.weight_sources import why_unreachable

FILE = """
name: f
data: {{source: "builtin:digits"}}
search: {{backbone: {backbone}, learning_rate: 0.001}}
budget: {{trials: 2, epochs: 1}}
"""
FILES = {
    "mobilenet_0.5": "mobilenet_0.5_160_no_top.weights.h5",
    "vgg16": "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "senet50": "senet50_224_no_top.weights.h5",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of weight files, empty ones, of three backbones."""
    made = tmp_path / "weights"
    made.mkdir()
    for name in FILES.values():
        (made / name).touch()
    return made


def opened(tmp_path: Path, backbone: str, weights: str = "", environ: dict[str, str] | None = None) -> OpenedSpec:
    file = tmp_path / "f.yaml"
    file.write_text(FILE.format(backbone=backbone) + (f"weights: {weights}\n" if weights else ""))
    return open_spec(str(file), environ=environ or {})


def backbones(spec) -> tuple:
    return tuple(value for domain in spec.space.domains("backbone") for value in domain.values())


# With files


def test_the_folder_orch_weights_is_used_first(tmp_path, folder):
    found = opened(tmp_path, "[mobilenet_0.5, resnet50]", environ={"ORCH_WEIGHTS": str(folder)})
    assert found.spec.weights_for("mobilenet_0.5") == str(folder)
    assert found.spec.weights_for("resnet50") == "imagenet"  # in conftest's Keras cache
    (line,) = found.notes
    assert line.startswith("weights  mobilenet_0.5: from ")
    assert f"{folder} (ORCH_WEIGHTS)" in line


def test_a_folder_without_files_changes_nothing(tmp_path):
    found = opened(tmp_path, "mobilenet_0.5", environ={"ORCH_WEIGHTS": str(tmp_path)})
    assert (found.spec.weights, found.notes) == ("imagenet", ())


@pytest.mark.parametrize("weights", ["none", "{mobilenet_0.5: none, others: imagenet}"])
def test_what_the_file_says_otherwise_stays(weights, tmp_path, folder):
    found = opened(tmp_path, "mobilenet_0.5", weights, {"ORCH_WEIGHTS": str(folder)})
    assert found.spec.weights_for("mobilenet_0.5") == "none"
    assert found.notes == ()


def test_looking_takes_no_time_where_files_are_here(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("orchestrator.spec.weight_places.why_unreachable", lambda: pytest.fail("the network was asked"))
    began_s = time.monotonic()
    opened(tmp_path, "[mobilenet_0.5, vgg16, senet50]", environ={"ORCH_WEIGHTS": str(folder)})
    assert time.monotonic() - began_s < 0.3


def test_what_is_settled_reads_back(tmp_path, folder):
    found = opened(tmp_path, "[mobilenet_0.5, senet50]", "{senet50: optional}", {"ORCH_WEIGHTS": str(folder)})
    (tmp_path / "again.yaml").write_text(dump_spec(found.spec))
    assert load_spec(str(tmp_path / "again.yaml"), environ={}) == found.spec


# Without


def test_without_files_and_network_one_sentence_says_what_to_type(tmp_path, folder, offline):  # noqa: F811
    with pytest.raises(SpecError) as error:
        opened(tmp_path, "[mobilenet_0.5, resnet50, xception]", environ={"ORCH_WEIGHTS": str(folder)})
    (line,) = str(error.value).splitlines()
    assert "there are no weights of resnet50 and xception in " in line
    for part in (str(folder), str(offline), "storage.googleapis.com", "export ORCH_WEIGHTS=", "--set weights=/path"):
        assert part in line
    assert "docs/backbones.md" in line
    assert "--set weights=none" in line


def test_a_folder_that_is_not_there_is_named(tmp_path, offline):  # noqa: F811
    with pytest.raises(SpecError, match=r"ORCH_WEIGHTS \(/nowhere, which is not a folder\)"):
        opened(tmp_path, "resnet50", environ={"ORCH_WEIGHTS": "/nowhere"})


@pytest.mark.parametrize("verb", ["check", "plan", "sweep"])
def test_the_verbs_agree(verb, tmp_path, monkeypatch, offline):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORCH_WEIGHTS", raising=False)
    (tmp_path / "f.yaml").write_text(FILE.format(backbone="resnet50"))
    began_s = time.monotonic()
    ended = CliRunner().invoke(app, [verb, "f.yaml"])
    assert isinstance(ended.exception, SpecError)
    assert "there are no weights of resnet50" in str(ended.exception)
    assert time.monotonic() - began_s < 5  # no Ray, no photo
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.yaml"]
    finding = weights({})
    assert finding.level == "note"
    assert "the others cannot be downloaded" in finding.text
    assert "export ORCH_WEIGHTS=" in finding.advice


def test_a_picture_of_the_photos_needs_no_weights(tmp_path, monkeypatch, offline):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.yaml").write_text(FILE.format(backbone="mobilenet_0.25"))
    ended = CliRunner().invoke(app, ["data", "preview", "f.yaml", "--images", "1", "--set", "search.image_size=32"])
    assert ended.exit_code == 0, ended.output
    assert (tmp_path / "preview.png").is_file()


def test_doctor_counts_the_files(folder):
    finding = weights({"ORCH_WEIGHTS": str(folder)})
    assert (finding.level, why_unreachable.cache_info().currsize) == ("OK", 0)  # conftest's cache has the rest
    assert "of 69 backbones: 3 in ORCH_WEIGHTS, 45 in " in finding.text
    assert finding.text.endswith(", 21 to be converted first (docs/backbones.md)")


# Optional


def test_an_optional_backbone_without_weights_is_left_out(tmp_path):
    found = opened(tmp_path, "[resnet50, senet50]", "{senet50: optional, others: imagenet}")
    assert backbones(found.spec) == ("resnet50",)
    (line,) = found.notes
    assert "senet50 is left out: Keras has no weights of it" in line
    assert "--set weights.senet50=FILE" in line


def test_several_that_are_left_out_for_one_reason_are_one_line(tmp_path):
    some = "{senet50: optional, efficientnet_lite0: optional, resnet18: '${NET:-optional}'}"
    found = opened(tmp_path, "[resnet50, efficientnet_lite0, senet50, resnet18]", some)
    assert backbones(found.spec) == ("resnet50",)
    both, own = sorted(found.notes)
    assert "resnet18 is left out: Keras has no weights of it" in own
    assert "export NET=FILE" in own
    assert both == (
        "space    efficientnet_lite0 and senet50 are left out: Keras has no weights of them to download, and no weight "
        "file is given. To include one: --set weights.NAME=FILE (docs/backbones.md)"
    )


def test_an_optional_backbone_that_cannot_be_downloaded_is_left_out_and_others_are_not(tmp_path, folder, offline):  # noqa: F811
    environ = {"ORCH_WEIGHTS": str(folder)}
    found = opened(tmp_path, "[vgg16, xception]", "{xception: optional}", environ)
    assert backbones(found.spec) == ("vgg16",)
    with pytest.raises(SpecError, match="no weights of xception"):
        opened(tmp_path, "[vgg16, xception]", "{vgg16: optional}", environ)


@pytest.mark.parametrize("place", ["folder", "file"])
def test_an_optional_backbone_with_a_file_is_kept(place, tmp_path, folder):
    file = folder / FILES["senet50"]
    environ = {"ORCH_WEIGHTS": str(folder)} if place == "folder" else {"SENET": str(file)}
    found = opened(tmp_path, "[resnet50, senet50]", '{senet50: "${SENET:-optional}"}', environ)
    assert backbones(found.spec) == ("resnet50", "senet50")
    assert found.spec.weights_for("senet50") == str(folder if place == "folder" else file)


def test_a_file_that_is_named_and_not_there_is_a_mistake_and_not_left_out(tmp_path):
    with pytest.raises(SpecError, match="there is no file or folder /nowhere/senet50"):
        opened(tmp_path, "[resnet50, senet50]", '{senet50: "${SENET:-optional}"}', {"SENET": "/nowhere/senet50.h5"})


@pytest.mark.parametrize("weights", ["optional", "{others: optional}"])
def test_optional_is_said_of_one_backbone(weights, tmp_path):
    with pytest.raises(SpecError, match=r"optional needs the name of a backbone, as in \{senet50: optional"):
        opened(tmp_path, "resnet50", weights)


def test_where_nothing_is_left_that_is_a_mistake(tmp_path):
    with pytest.raises(SpecError, match="leaving out senet50, whose weights are missing, leaves nothing"):
        opened(tmp_path, "senet50", "{senet50: optional}")


def test_first_trials_conditions_and_named_trials_go_with_it(tmp_path):
    text = FILE.format(backbone="[resnet50, senet50]").replace(
        "learning_rate: 0.001", "dropout: [{value: 0.1, when: {backbone: senet50}}, {choice: [0, 0.2]}]"
    )
    text = text.replace("epochs: 1}", "epochs: 1, first: [{backbone: senet50}, {backbone: resnet50, dropout: 0.2}]}")
    (tmp_path / "f.yaml").write_text(text + "weights: {senet50: optional}\n")
    spec = load_spec(str(tmp_path / "f.yaml"), environ={})
    assert [values["backbone"] for values in spec.budget.first] == ["resnet50"]
    (tmp_path / "again.yaml").write_text(dump_spec(spec))
    assert load_spec(str(tmp_path / "again.yaml"), environ={}) == spec

    steps = "{configurations: [{name: a}, {name: b, backbone: senet50}, {name: c, backbone: vgg16}]}"
    head = 'name: f\ndata: {source: "builtin:digits"}\nbudget: {epochs: 1}\nweights: {senet50: optional}\n'
    (tmp_path / "f.yaml").write_text(f"{head}search: {steps}\n")
    spec = load_spec(str(tmp_path / "f.yaml"), environ={})
    assert [name for name, _ in spec.configurations] == ["a", "c"]
    assert spec.budget.trials == 2


# A sweep that goes on


def started(tmp_path: Path, found: OpenedSpec) -> Path:
    return open_new(found.spec, tmp_path / "sweep", fresh=False).paths.root


def test_a_sweep_goes_on_with_the_weights_it_began_with(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("ORCH_WEIGHTS", str(folder))
    began = opened(tmp_path, "[mobilenet_0.5, vgg16]", environ={"ORCH_WEIGHTS": str(folder)})
    root = started(tmp_path, began)
    monkeypatch.delenv("ORCH_WEIGHTS")
    for source in (None, str(tmp_path / "f.yaml")):
        assert open_existing(root, source, (), "+2").spec.weights_for("vgg16") == str(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / FILES["vgg16"]).touch()
    monkeypatch.setenv("ORCH_WEIGHTS", str(other))
    assert open_existing(root, str(tmp_path / "f.yaml"), (), None).spec.weights == began.spec.weights


def test_a_sweep_of_before_that_downloaded_goes_on_so(tmp_path, folder, monkeypatch, offline):  # noqa: F811
    """Its spec.yaml says imagenet; files that ORCH_WEIGHTS holds by now may be others."""
    offline.mkdir(parents=True)
    (offline / FILES["vgg16"]).touch()
    root = started(tmp_path, opened(tmp_path, "vgg16"))
    monkeypatch.setenv("ORCH_WEIGHTS", str(folder))
    for source in (None, str(tmp_path / "f.yaml")):
        assert open_existing(root, source, (), "+2").spec.weights == "imagenet"
    (offline / FILES["vgg16"]).unlink()
    with pytest.raises(SpecError, match="The sweep began with Keras' files; put them into "):
        open_existing(root, None, (), None)


def test_what_was_left_out_stays_out(tmp_path, folder, monkeypatch):
    monkeypatch.delenv("ORCH_WEIGHTS", raising=False)
    root = started(tmp_path, opened(tmp_path, "[resnet50, senet50]", "{senet50: optional}"))
    monkeypatch.setenv("ORCH_WEIGHTS", str(folder))
    again = open_existing(root, str(tmp_path / "f.yaml"), (), "+1")
    assert backbones(again.spec) == ("resnet50",)
    assert any("senet50 is left out, as when the sweep began" in line for line in again.notes)


def test_other_weights_in_the_file_are_still_refused(tmp_path, folder, monkeypatch):
    monkeypatch.delenv("ORCH_WEIGHTS", raising=False)
    root = started(tmp_path, opened(tmp_path, "vgg16", str(folder)))
    with pytest.raises(OrchError, match="weights differs from the sweep"):
        open_existing(root, str(tmp_path / "f.yaml"), ("weights=imagenet",), None)
