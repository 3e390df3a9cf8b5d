"""What the file says of folds, several sources, weights by backbone, objectives, the rule and the GPU's memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec.dump import dump_spec
from orchestrator.spec.load import load_spec
from orchestrator.spec.sweep import SweepSpec

Load = Callable[..., SweepSpec]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a YAML text with ``--set`` texts, from the folder of the file."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str) -> SweepSpec:
        Path("f.yaml").write_text(text)
        return load_spec("f.yaml", overrides, {})

    return load


DIGITS = "{source: 'builtin:digits'}"


def sweep(rest: str = "", search: str = "dropout: {uniform: [0, 0.2]}", data: str = DIGITS, budget: str = "") -> str:
    """A file whose data begins at 2:7, whose search at 3:9 and budget at 4:9; ``rest`` starts in line 5."""
    return f"name: demo\ndata: {data}\nsearch: {{{search}}}\nbudget: {{trials: 5, epochs: 3{budget}}}\n{rest}\n"


def mistakes(load: Load, text: str, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as error:
        load(text, *overrides)
    return [line.removeprefix("f.yaml:") for line in str(error.value).splitlines()]


def read_back(spec: SweepSpec, folder: Path) -> SweepSpec:
    (folder / "again.yaml").write_text(dump_spec(spec))
    return load_spec(str(folder / "again.yaml"), check_machine=False)


# --- data ---------------------------------------------------------------------------------------------------------


def test_several_sources_are_absolute_and_come_back(load: Load, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "three.tar.gz").touch()
    spec = load(sweep(data="{source: [one, ./two, three.tar.gz], splits: own, folds: 5}"))
    assert spec.data.source == tuple(str(tmp_path / name) for name in ("one", "two", "three.tar.gz"))
    assert spec.data.sources == spec.data.source
    assert spec.data.folds == 5
    assert read_back(spec, tmp_path) == spec
    single = load(sweep(data="{source: [one]}"))
    assert single.data.source == str(tmp_path / "one")
    assert single.data.sources == (str(tmp_path / "one"),)
    assert single.data.folds == 0


DATA = [
    ("{source: []}", "2:16: data.source: found an empty list; name at least one folder, table or archive."),
    ("{source: ''}", "2:16: data.source: is empty; name a folder, a table or an archive."),
    ("{source: [4]}", "2:17: data.source.0: found 4; allowed: a path."),
    ("{source: [., .]}", "2:20: data.source.1: found "),
    (
        "{source: [., 'builtin:digits']}",
        "2:20: data.source.1: builtin:digits cannot be merged with other data; remove ",
    ),
    ("{source: [., nowhere]}", "2:20: data.source.1: there is no file or folder "),
    ("{source: 'builtin:digits', folds: 1}", "2:41: data.folds: found 1; allowed: 0 for one validation split, or a "),
    ("{source: 'builtin:digits', folds: 21}", "2:41: data.folds: found 21; allowed: 0 for one validation split, or a "),
    ("{source: 'builtin:digits', folds: yes}", "2:41: data.folds: found "),
    (
        "{source: [t.csv, 'builtin:digits'], splits: own}",
        "2:24: data.source.1: builtin:digits cannot be merged with other data; remove it from the list.",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), DATA)
def test_a_mistake_in_sources_and_folds(load: Load, text: str, sentence: str) -> None:
    [found] = mistakes(load, sweep(data=text))
    assert found.startswith(sentence)


def test_folds_leave_nothing_to_refit_on_train_alone(load: Load) -> None:
    data = "{source: 'builtin:digits', folds: 5}"
    [found] = mistakes(load, sweep("final: {refit: train}", data=data))
    assert found == (
        "5:16: final.refit: found train, but with data.folds 5 there is no separate validation split to leave out: the "
        "folds cover every image outside the test split. Write train+validation, or remove this line."
    )
    assert load(sweep("final: {refit: train+validation}", data=data)).data.folds == 5
    assert load(sweep("final: {refit: train}")).final.refit == "train"


def test_folds_leave_nothing_to_choose_a_form_on(load: Load) -> None:
    data = "{source: 'builtin:digits', folds: 5}"
    [found] = mistakes(load, sweep("final: {forms: [ensemble, soup]}", data=data))
    assert found == (
        "5:16: final.forms: found [ensemble, soup], but with data.folds 5 every network is retrained on all photos "
        "outside the test split, so none is left to choose a form on. Remove this line, or data.folds."
    )


# --- weights ------------------------------------------------------------------------------------------------------

BACKBONES = "backbone: [mobilenet_0.5, vgg16, small_cnn]"


def test_weights_by_backbone(load: Load, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "vgg16_no_top.h5").touch()
    (tmp_path / "one.h5").touch()
    spec = load(sweep("weights: {mobilenet_0.5: one.h5, others: w}", BACKBONES))
    assert spec.weights_for("mobilenet_0.5") == str(tmp_path / "one.h5")
    assert spec.weights_for("vgg16") == str(tmp_path / "w")
    assert read_back(spec, tmp_path) == spec
    plain = load(sweep("weights: {vgg16: none}", BACKBONES))
    assert [plain.weights_for(name) for name in ("vgg16", "mobilenet_0.5")] == ["none", "imagenet"]
    assert load(sweep(), "weights=none").weights_for("vgg16") == "none"
    over = load(sweep("weights: none", BACKBONES), "weights.vgg16=one.h5")
    assert [over.weights_for(name) for name in ("vgg16", "mobilenet_0.5")] == [str(tmp_path / "one.h5"), "none"]


WEIGHTS = [
    (
        "weights: {}",
        "5:10: weights: found an empty mapping; allowed: imagenet, none, or a folder of weight files. Or a",
    ),
    ("weights: {vgg_16: none}", '5:11: weights.vgg_16: found "vgg_16"; did you mean "vgg16"? Allowed: '),
    ("weights: {vgg16: 5}", "5:18: weights.vgg16: found 5; allowed: imagenet, none, or a folder of weight files, or o"),
    ("weights: {vgg16: no.h5}", "5:18: weights.vgg16: there is no file or folder "),
    ("weights: {others: f.yaml}", "5:19: weights.others: there is no folder "),
    ("weights: {vgg16: .}", "5:18: weights.vgg16: no weights for vgg16 in "),
    ("weights: {others: ., vgg16: none}", "5:19: weights.others: no weights for mobilenet_0.5 in "),
]


@pytest.mark.parametrize(("text", "sentence"), WEIGHTS)
def test_a_mistake_in_the_weights(load: Load, text: str, sentence: str) -> None:
    [found] = mistakes(load, sweep(text, BACKBONES))
    assert found.startswith(sentence)


def test_weights_without_a_download_are_reported(load: Load) -> None:
    [found] = mistakes(load, sweep("", "backbone: [senet50, vgg16]"))
    assert "weights: Keras has no weights of senet50 to download; name a file or a folder of weight files." in found
    [found] = mistakes(load, sweep("weights: {senet50: imagenet}", "backbone: [senet50, vgg16]"))
    assert found.startswith("5:20: weights.senet50: Keras has no weights of senet50 to download")
    assert load(sweep("weights: {senet50: none}", "backbone: [senet50, vgg16]")).weights_for("vgg16") == "imagenet"


# --- objectives and the rule --------------------------------------------------------------------------------------


def test_objectives(load: Load, tmp_path: Path) -> None:
    assert load(sweep()).objective == ("val_accuracy",)
    assert not load(sweep()).measures_speed
    spec = load(
        sweep("objective: [val_macro_f1, images_per_s]\nfinal: {choose: {at_least: {images_per_s: 50}, at_most: {}}}")
    )
    assert spec.objective == ("val_macro_f1", "images_per_s")
    assert spec.measures_speed
    assert (spec.final.choose.best, spec.final.choose.at_least) == (None, {"images_per_s": 50.0})
    assert read_back(spec, tmp_path) == spec
    assert load(sweep("objective: val_loss")).objective == ("val_loss",)
    assert load(sweep("final: {choose: {best: images_per_s, at_least: {val_accuracy: 0.9}}}")).measures_speed


OBJECTIVES = [
    ("objective: accuracy", '5:12: objective: found "accuracy"; did you mean "val_accuracy"? Allowed: val_accuracy, '),
    ("objective: []", "5:12: objective: found an empty list; allowed: val_accuracy, "),
    ("objective: [val_loss, val_loss]", '5:23: objective.1: found "val_loss" twice in the list.'),
    (
        "objective: images_per_s",
        "5:12: objective: images_per_s cannot come first: the scheduler stops trials by the first ",
    ),
    ("objective: [images_per_s, val_loss]", "5:13: objective.0: images_per_s cannot come first: "),
    ("objective: [val_loss, 3]", "5:23: objective.1: found 3. Allowed: val_accuracy, "),
    ("final: {choose: {best: test_accuracy}}", '5:24: final.choose.best: found "test_accuracy"; did you mean "val_a'),
    ("final: {choose: {at_least: {speed: 1}}}", "5:29: final.choose.at_least.speed: no such field. Allowed: val_acc"),
    (
        "final: {choose: {at_least: {val_loss: 1}}}",
        "5:29: final.choose.at_least.val_loss: a lower val_loss is better, so its bound belongs in at_most.",
    ),
    (
        "final: {choose: {at_most: {images_per_s: 1}}}",
        "5:28: final.choose.at_most.images_per_s: a higher images_per_s is better, so its bound belongs in at_least",
    ),
    (
        "final: {choose: {at_least: {val_accuracy: 90}}}",
        "5:43: final.choose.at_least.val_accuracy: found 90; allowed: ",
    ),
    (
        "final: {choose: {at_least: {images_per_s: x}}}",
        '5:43: final.choose.at_least.images_per_s: found "x"; allowed: ',
    ),
    ("final: {choose: {at_least: 50}}", "5:28: final.choose.at_least: found 50; allowed: a mapping of metrics to bou"),
]


@pytest.mark.parametrize(("text", "sentence"), OBJECTIVES)
def test_a_mistake_in_objectives_and_rule(load: Load, text: str, sentence: str) -> None:
    [found] = mistakes(load, sweep(text))
    assert found.startswith(sentence)


def test_cmaes_is_refused_with_several_objectives(load: Load) -> None:
    search = "dropout: {uniform: [0, 0.2]}, smoothing: {uniform: [0, 0.2]}"
    file = sweep("objective: [val_accuracy, images_per_s]", search, budget=", sampler: cmaes")
    [found] = [line for line in mistakes(load, file) if "not installed" not in line]
    assert found == "4:41: budget.sampler: cmaes optimises one objective, but there are 2; use tpe, gp or random."


# --- the GPU's memory ---------------------------------------------------------------------------------------------

BY_MEMORY = "batch_size: [{choice: [64, 128], when: {gpu_memory_gb: 16}}, {choice: [8, 16]}]"


def test_the_space_is_that_of_the_gpus_memory(load: Load) -> None:
    sizes = {
        memory: load(sweep(f"resources: {{gpu_memory_gb: {memory}}}", BY_MEMORY))
        .space.domains("batch_size")[0]
        .values()
        for memory in (0, 15.9, 16, "auto")
    }
    assert sizes == {0: (8, 16), 15.9: (8, 16), 16: (64, 128), "auto": (8, 16)}
    [found] = mistakes(load, sweep("resources: {gpu_memory_gb: lots}", BY_MEMORY))
    assert (
        found
        == '5:28: resources.gpu_memory_gb: found "lots"; allowed: a number of GB, at least 0, or auto to measure it.'
    )


def test_a_first_trial_may_lie_in_the_space_of_any_memory_until_that_is_known(load: Load) -> None:
    first = ", first: [{batch_size: 128}]"
    assert load(sweep("", BY_MEMORY, budget=first)).budget.first == ({"batch_size": 128},)
    [found] = mistakes(load, sweep("resources: {gpu_memory_gb: 8}", BY_MEMORY, budget=first))
    assert found.startswith("4:40: budget.first.0: lies outside the space: ")


SAMPLERS = [
    (
        "gp",
        "dropout: [{uniform: [0, 0.1], when: {backbone: small_cnn, gpu_memory_gb: 8}}, {uniform: [0, 0.2]}]",
        "does not support",
    ),
    (
        "grid",
        "learning_rate: [{loguniform: [0.001, 0.01], when: {gpu_memory_gb: 16}}, {value: 0.001}]",
        "a continuous ran",
    ),
    (
        "grid",
        "learning_rate: [{value: 0.001, when: {gpu_memory_gb: 16}}, {loguniform: [0.001, 0.01]}]",
        "a continuous ran",
    ),
]


@pytest.mark.parametrize(("sampler", "search", "sentence"), SAMPLERS)
def test_the_sampler_must_take_the_space_of_every_memory(load: Load, sampler: str, search: str, sentence: str) -> None:
    search = f"backbone: [small_cnn, vgg16], {search}"
    found = mistakes(load, sweep("weights: none", search, budget=f", sampler: {sampler}"))
    found = [line for line in found if "not installed" not in line]
    assert len(found) == 1
    assert found[0].startswith("4:41: budget.sampler: the ")
    assert sentence in found[0]


def test_only_a_memory_that_is_given_narrows_what_the_sampler_must_take(load: Load) -> None:
    file = sweep("resources: {gpu_memory_gb: 8}", SAMPLERS[1][1], budget=", sampler: grid")
    assert load(file).space.size() == 1
    assert len(mistakes(load, file, "resources.gpu_memory_gb=16")) == 1
