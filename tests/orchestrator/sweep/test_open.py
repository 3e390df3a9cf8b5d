"""Opening a sweep's folder: new, existing, extended, refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli import app
from orchestrator.errors import OrchError, SpecError, SweepExists
from orchestrator.ledger.kept import FILES, DamagedFile, checksums
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections.data import SplitRatios
from orchestrator.spec.sweep import SweepSpec
from orchestrator.sweep import open as open_module
from orchestrator.sweep.open import differences, next_free, open_existing, open_new, settle_spec
from orchestrator.tracking.settings import model_name
from tests.support.since_42b062d import unpack


def test_new_sweep_writes_its_spec_and_is_refused_the_second_time(tmp_path: Path) -> None:
    spec = load_spec("quick")
    opened = open_new(spec, tmp_path / "a sweep", fresh=False)
    assert not opened.resumed
    assert load_spec(str(opened.paths.spec)) == spec
    with pytest.raises(SweepExists, match=r"exists already\. Resume that sweep: `orch sweep --resume --out .*--fresh"):
        open_new(spec, tmp_path / "a sweep", fresh=False)


def test_a_folder_that_is_no_sweeps_is_not_offered_to_resume(tmp_path: Path) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    with pytest.raises(
        SweepExists, match=r"exists already and is no sweep's folder; name another one with `--out DIR`"
    ):
        open_new(load_spec("quick"), tmp_path / "photos", fresh=False)


def test_fresh_takes_the_next_free_folder(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        opened = open_new(load_spec("quick"), tmp_path / "quick", fresh=True)
        names.append(opened.paths.root.name)
    assert names == ["quick", "quick-2", "quick-3"]
    assert next_free(tmp_path / "quick").name == "quick-4"


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert open_new(load_spec("quick"), tmp_path / "empty", fresh=False).paths.spec.is_file()


@pytest.mark.parametrize(("trials", "expected"), [("+20", 30), ("12", 12), (None, 10)])
def test_more_trials_extend_a_sweep_and_are_kept(tmp_path: Path, trials: str | None, expected: int) -> None:
    root = open_new(load_spec("quick"), tmp_path / "quick", fresh=False).paths.root
    opened = open_existing(root, None, (), trials)
    assert opened.resumed
    assert opened.spec.budget.trials == expected
    with Ledger(opened.paths.ledger) as ledger:
        settle_spec(opened, ledger)
    assert load_spec(str(opened.paths.spec)).budget.trials == expected


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("budget.trials=99", True),
        ("budget.hours=2", True),
        ("budget.target_accuracy=0.9", True),
        ("final.seeds=7", True),
        ("resources.cpus=2", True),
        ("tracking.experiment=other", True),
        ("budget.epochs=9", False),
        ("budget.seed=9", False),
        ("search.dropout=0.5", False),
        ("data.seed=9", False),
        ("resources.precision=mixed_float16", False),
        ("resources.store_dtype=float16", False),
        ("budget.scheduler=none", False),
    ],
)
def test_only_the_budget_and_what_comes_after_may_change(tmp_path: Path, override: str, allowed: bool) -> None:
    root = open_new(load_spec("quick"), tmp_path / "quick", fresh=False).paths.root
    if allowed:
        assert open_existing(root, None, (override,), None).spec == load_spec("quick", (override,))
        return
    before = (root / "spec.yaml").read_text()
    with pytest.raises(OrchError, match=r"differs from the sweep in .* start another sweep with --out DIR"):
        open_existing(root, None, (override,), None)
    assert (root / "spec.yaml").read_text() == before


def test_differences_are_named_by_field() -> None:
    changed = load_spec("quick", ("budget.epochs=9", "data.seed=4", "budget.trials=3"))
    assert differences(load_spec("quick"), changed) == ["data.seed", "budget.epochs"]


def test_a_folder_without_a_spec_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(OrchError, match=r"is not a sweep's folder: it has no spec\.yaml"):
        open_existing(tmp_path, None, (), None)


def test_the_registered_model_is_called_after_the_data(tmp_path: Path) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    (tmp_path / "trashnet").mkdir()
    (tmp_path / "trashnet" / "split.csv").write_text("path,label\n")
    named = [
        model_name(load_spec("quick", overrides))
        for overrides in (
            (),
            (f"data.source={photos}",),
            (f"data.source={tmp_path / 'trashnet' / 'split.csv'}",),
            ("tracking.model=garbage",),
        )
    ]
    assert named == ["digits", "my-photos", "trashnet", "garbage"]


# --- the GPU's memory ---------------------------------------------------------------------------------------------

BY_MEMORY = (
    "name: demo\ndata: {source: 'builtin:digits'}\nweights: none\nbudget: {trials: 2, epochs: 1}\n"
    "search: {batch_size: [{choice: [64, 128], when: {gpu_memory_gb: 16}}, {choice: [8, 16]}]}\n"
)


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """A program of that name that says ``lines`` and is found first; none of them: it fails."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    body = "\n".join(f"echo '{line}'" for line in lines) or "echo 'no driver' >&2; exit 9"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("lines", "resources", "memory"),
    [
        (("15360",), "{}", 16.1),
        (("15360", "81920"), "{gpus: 1}", 16.1),
        (("24576",), "{gpus: 0.5}", 12.9),
        (("24576",), "{gpus: 2}", 25.8),
        (("24576",), "{gpus: 0}", 0.0),
        (("24576",), "{gpu_memory_gb: 7}", 7.0),
    ],
)
def test_the_memory_is_measured_at_opening_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...], resources: str, memory: float
) -> None:
    nvidia_smi(tmp_path / "bin", monkeypatch, *lines)
    (tmp_path / "f.yaml").write_text(f"{BY_MEMORY}resources: {resources}\n")
    opened = open_new(load_spec(str(tmp_path / "f.yaml")), tmp_path / "sweep", fresh=False)
    assert opened.spec.resources.gpu_memory_gb == memory
    sizes = (64, 128) if memory >= 16 else (8, 16)
    assert opened.spec.space.domains("batch_size")[0].values() == sizes

    nvidia_smi(tmp_path / "bin", monkeypatch, "4096")  # another machine goes on with it
    for source in (None, str(tmp_path / "f.yaml")):
        again = open_existing(tmp_path / "sweep", source, (), "+1")
        assert again.spec.resources.gpu_memory_gb == memory
        assert again.spec.space == opened.spec.space
    if memory != 7:
        with pytest.raises(OrchError, match=r"resources\.gpu_memory_gb differs from the sweep"):
            open_existing(tmp_path / "sweep", None, ("resources.gpu_memory_gb=3",), None)


def test_a_driver_that_fails_is_a_sentence_and_none_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path / "bin", monkeypatch)
    (tmp_path / "f.yaml").write_text(BY_MEMORY)
    spec = load_spec(str(tmp_path / "f.yaml"))
    with pytest.raises(OrchError, match=r"nvidia-smi does not report the GPU.s memory \(no driver\); repair the"):
        open_new(spec, tmp_path / "sweep", fresh=False)
    assert not (tmp_path / "sweep").exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert open_new(spec, tmp_path / "sweep", fresh=False).spec.resources.gpu_memory_gb == 0.0


@pytest.mark.parametrize(("lines", "first"), [((), 64), (("15360",), 16)])
def test_what_does_not_fit_the_measured_memory_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...], first: int
) -> None:
    nvidia_smi(tmp_path / "bin", monkeypatch, *lines)
    if not lines:
        monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "f.yaml").write_text(BY_MEMORY.replace("epochs: 1", f"epochs: 1, first: [{{batch_size: {first}}}]"))
    spec = load_spec(str(tmp_path / "f.yaml"))
    memory = "16.1" if lines else "0.0"
    with pytest.raises(
        SpecError, match=rf"^with resources\.gpu_memory_gb {memory}, as measured: budget\.first\.0: lies"
    ):
        open_new(spec, tmp_path / "sweep", fresh=False)
    assert not (tmp_path / "sweep").exists()


def test_what_does_not_fit_the_memory_of_a_sweep_is_refused_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path / "bin", monkeypatch, "15360")
    file = tmp_path / "f.yaml"
    file.write_text(BY_MEMORY)
    root = open_new(load_spec(str(file)), tmp_path / "sweep", fresh=False).paths.root
    before = (root / "spec.yaml").read_text()
    file.write_text(BY_MEMORY.replace("epochs: 1", "epochs: 1, first: [{batch_size: 16}]"))
    with pytest.raises(SpecError, match=r"gpu_memory_gb 16\.1, as measured: budget\.first\.0: lies outside the space"):
        open_existing(root, str(file), (), None)
    assert (root / "spec.yaml").read_text() == before


def test_the_check_says_that_it_did_not_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nvidia_smi(tmp_path / "bin", monkeypatch)  # would fail
    (tmp_path / "f.yaml").write_text(BY_MEMORY)
    said = []
    for more in ((), ("--set", "resources.gpu_memory_gb=16"), ("--set", "search.batch_size=[8,16,32]")):
        assert app.run(["check", str(tmp_path / "f.yaml"), *more]) == 0
        said.append(capsys.readouterr().out.partition(", out of ")[2])
    assert said == [
        "2 configurations without a GPU; its memory is measured when the sweep starts.\n",
        "2 configurations.\n",
        "3 configurations.\n",
    ]


def test_a_space_that_does_not_ask_for_memory_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path / "bin", monkeypatch)
    assert open_new(load_spec("quick"), tmp_path / "quick", fresh=False).spec.resources.gpu_memory_gb == "auto"


def test_new_words_do_not_change_an_older_sweep(tmp_path: Path) -> None:
    """Spec files of before know neither folds nor objectives nor the rule."""
    opened = open_new(load_spec("quick"), tmp_path / "quick", fresh=False)
    words = ("folds:", "objective:", "choose:", "best:", "at_least:", "at_most:")
    lines = [line for line in opened.paths.spec.read_text().splitlines() if not line.strip().startswith(words)]
    text = "\n".join(lines).replace("gpu_memory_gb: auto, ", "")
    assert "gpu_memory" not in text
    opened.paths.spec.write_text(text + "\n")
    assert open_existing(opened.paths.root, None, (), None).spec == opened.spec


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.folds=5", "data.folds differs"),
        ("objective=val_loss", "objective differs"),
        ("weights.vgg16=none", "weights differs"),
    ],
)
def test_what_makes_other_trials_may_not_change(tmp_path: Path, override: str, named: str) -> None:
    root = open_new(load_spec("quick"), tmp_path / "quick", fresh=False).paths.root
    with pytest.raises(OrchError, match=named):
        open_existing(root, None, (override,), None)
    assert open_existing(root, None, ("final.choose.best=val_loss",), None).spec.final.choose.best == "val_loss"


def test_several_sources_and_archives_name_the_model() -> None:
    values = {"name": "x", "search": {"dropout": 0.1}, "budget": {"trials": 1, "epochs": 1}}
    for source, name in ((("/a/paper", "/b/glass.tar.gz"), "paper-glass"), ("/a/Photos.ZIP", "Photos")):
        assert model_name(SweepSpec(**values, data={"source": source})) == name


def test_a_file_without_splits_resumes_a_sweep_that_was_written_with_the_old_default(tmp_path: Path) -> None:
    """Until 2026-11-30 a file without ``data.splits`` meant these ratios, which the sweep's spec.yaml holds."""
    text = "name: x\ndata: {source: 'builtin:digits'}\nsearch: {dropout: 0}\nbudget: {trials: 2, epochs: 1}\n"
    file = tmp_path / "my.yaml"
    file.write_text(text)
    root = open_new(load_spec(str(file)), tmp_path / "x", fresh=False).paths.root
    old = (root / "spec.yaml").read_text()
    assert "splits: auto" in old
    (root / "spec.yaml").write_text(old.replace(" splits: auto", " splits: {train: 0.7, validation: 0.15, test: 0.15}"))
    spec = open_existing(root, str(file), (), "+3").spec
    assert spec.budget.trials == 5
    assert spec.data.splits == SplitRatios()
    with pytest.raises(OrchError, match=r"data\.source, data\.splits differ from the sweep"):
        open_existing(root, str(file), ("data.splits=own", "data.source=."), None)


def test_a_changed_spec_is_refused_and_written_again_from_the_file_that_began_the_sweep(tmp_path: Path) -> None:
    paths = open_new(load_spec("quick"), tmp_path / "quick", fresh=False).paths
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING", payload={FILES: checksums(paths, [paths.spec])})
    text = paths.spec.read_text()
    for change in (lambda: paths.spec.write_text(text.replace("trials: 10", "trials: 11", 1)), paths.spec.unlink):
        change()
        with pytest.raises(DamagedFile, match=r"spec.yaml is .*: `orch sweep FILE --resume --out "):
            open_existing(paths.root, None, (), "+20")
        with pytest.raises(DamagedFile, match=r"spec.yaml is "):
            open_existing(paths.root, "quick", ["data.seed=5"], None)
        assert open_existing(paths.root, "quick", (), None).spec == load_spec("quick")
        assert paths.spec.read_text() == text


def test_the_damaged_spec_of_a_sweep_from_before_later_fields_is_written_again(tmp_path: Path) -> None:
    """42b062d wrote its ``spec.yaml``; a later version resumed it and recorded the checksum."""
    paths = SweepPaths(unpack(tmp_path, "killed") / "killed")
    text = paths.spec.read_text()
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING", payload={FILES: checksums(paths, [paths.spec])})
    file = tmp_path / "my.yaml"
    file.write_text(text.replace("  duplicates: group\n", ""))  # the default
    paths.spec.write_text("name: x\n")
    with pytest.raises(DamagedFile, match=r"spec.yaml is damaged"):
        open_existing(paths.root, str(file), ["budget.epochs=5"], None)
    opened = open_existing(paths.root, str(file), (), None)
    assert paths.spec.read_text() == text
    assert not opened.changed
    assert opened.spec.search.space.field("batch_norm") is None


def test_a_spec_is_written_under_the_lock_and_a_kill_on_the_way_leaves_a_sweep_that_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = open_new(load_spec("quick"), tmp_path / "quick", fresh=False).paths
    text = paths.spec.read_text()
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING", payload={FILES: checksums(paths, [paths.spec])})
        ledger.flush()
        assert open_existing(paths.root, None, (), "+20").changed  # typed while the sweep runs
        assert paths.spec.read_text() == text
    opened = open_existing(paths.root, None, (), "+20")

    class Killed(BaseException):
        pass

    def kill(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, Ledger(paths.ledger) as ledger:
        patch.setattr(open_module, "atomic_write_text", kill)
        with pytest.raises(Killed):
            settle_spec(opened, ledger)
    assert paths.spec.read_text() == text
    again = open_existing(paths.root, None, (), "+20")
    with Ledger(paths.ledger) as ledger:
        settle_spec(again, ledger)
    assert load_spec(str(paths.spec)).budget.trials == again.spec.budget.trials
    assert not open_existing(paths.root, None, (), None).changed
