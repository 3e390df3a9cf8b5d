"""`orch promote best` on sweeps written in milliseconds, against a real registry; nothing is trained."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.cluster import jobs as cluster_jobs
from orchestrator.commands import evaluate
from orchestrator.commands.predict import Champion
from orchestrator.commands.promote import promote, require_there
from orchestrator.errors import DataError, OrchError, PromotionRefused, TrackingError
from orchestrator.ledger import folder
from orchestrator.ledger import ledger as ledger_module
from orchestrator.ledger.folder import read_per_class, read_sweep
from orchestrator.ledger.kept import FileState
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind, read_events
from orchestrator.paths import SweepPaths
from orchestrator.spec.load import load_spec
from orchestrator.sweep import leaderboard
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.judged import judged_winner
from orchestrator.sweep.leaderboard import build_leaderboard
from orchestrator.sweep.refit import FinalModel
from orchestrator.sweep.select import Winner
from orchestrator.tracking import registry
from orchestrator.tracking.champions import set_champion
from orchestrator.tracking.mlflow_store import connect
from orchestrator.tracking.model_package import ModelDetails
from tests.support.fake_store import new_store
from tests.support.places import SUPPORT
from tests.support.tiny_fits import CLASSES, config, write_manifest
from trainers.calibration import Calibration, Level
from trainers.data.manifest import Manifest
from trainers.files import plain
from trainers.serving.model import MODEL_FILE

POLICY = "whole"
TOO_FEW_IMAGES = frozenset({"lower-accuracy"})
"""Overrides the gate where 12 test images cannot show that a model is as good as the champion."""
SPEC = """
name: {name}
data: {{source: 'builtin:digits'}}
weights: none
search: {{backbone: small_cnn}}
budget: {{trials: 2, epochs: 3}}
final: {{policies: [whole, flip]}}
tracking: {{uri: '{store}', model: trash}}
"""


@dataclass(frozen=True)
class Made:
    """A sweep's folder, and what its real stages would do to it."""

    paths: SweepPaths

    @property
    def manifest(self) -> Manifest:
        return Manifest.read(self.paths.manifest)

    def choose(self, trial: str, form: str = "ensemble", policy: str = POLICY) -> Winner:
        """As ``select`` records it."""
        winner = Winner(trial, config(), policy, form, "it is the best.", ())
        with Ledger(self.paths.ledger) as ledger:
            ledger.append(EventKind.STAGE, stage="select", state="ENDED", payload={"winner": winner.to_dict()})
        return winner

    def judge(self, winner: Winner, *fits: str, wrong: int = 0) -> None:
        """``build_leaderboard`` itself, on networks that are wrong about the first ``wrong`` test images."""
        labels = self.manifest.split("test").labels()
        answers = np.where(np.arange(len(labels)) < wrong, (labels + 1) % len(CLASSES), labels)
        hashes = self.manifest.split("test").table["sha256"].to_numpy(str)
        arrays: dict[str, Any] = {"probabilities": np.eye(len(CLASSES))[answers], "labels": labels, "sha256": hashes}
        arrays |= {"seconds": 1, "shared_seconds": 0}
        self.paths.winner.mkdir(exist_ok=True)
        answered = dict(zip(hashes.tolist(), answers.tolist(), strict=True))
        (self.paths.winner / "answers.json").write_text(json.dumps(answered))
        for path in (self.paths.probabilities(fit, "test", name) for fit in fits for name in ("whole", "flip")):
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **arrays)
        models = [FinalModel(f"winner/seed-{i}", fit, winner.config) for i, fit in enumerate(fits)]
        with Ledger(self.paths.ledger) as ledger:
            spec = load_spec(str(self.paths.spec), check_machine=False)
            build_leaderboard(SweepContext(self.paths, spec, ledger, print), self.manifest, winner, models)

    def finished(self, trial: str, *fits: str, wrong: int = 0) -> Made:
        self.judge(self.choose(trial), *fits, wrong=wrong)
        return self


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry; a winner's folder is written without its networks, and loads as ``fake_model``."""
    monkeypatch.syspath_prepend(str(SUPPORT))
    register = registry.register

    def assemble(function: str, jobs: list[dict[str, Any]], **more: Any) -> None:
        assert function == "trainers.serving.model:assemble"
        for job in jobs:
            out = Path(job["output"])
            out.mkdir(exist_ok=True)
            said = {name: job[name] for name in ("classes", "policy", "calibration")}
            said["fits"] = [Path(fit).name for fit in job["fits"]]
            assert not (out / MODEL_FILE).exists()
            (out / MODEL_FILE).write_text(json.dumps(said))

    def register_fake(uri: str, name: str, folder: Path, details: ModelDetails, check: Any) -> str:
        return register(uri, name, folder, replace(details, loader="fake_model"), check)

    monkeypatch.setattr(cluster_jobs, "run_jobs", assemble)
    monkeypatch.setattr(leaderboard, "predict_missing", lambda *arguments: None)
    monkeypatch.setattr(leaderboard, "_measure_neighbours", lambda *arguments: None)
    monkeypatch.setattr(registry, "register", register_fake)
    return new_store(tmp_path / "store")


def make(root: Path, store: str) -> Made:
    paths = SweepPaths(root)
    root.mkdir(parents=True)
    write_manifest(root.parent / "pictures", {"train": 2, "test": 4}).rename(paths.manifest)
    paths.spec.write_text(SPEC.format(name=root.name, store=store))
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING", payload={"name": root.name})
    return Made(paths)


@pytest.fixture
def sweep(tmp_path: Path, store: str) -> Made:
    return make(tmp_path / "sweep", store)


def tags(store: str) -> dict[str, str]:
    found = registry.champion(store, "trash")
    assert found is not None
    return {name.removeprefix("orch."): value for name, value in found.tags.items()}


def test_the_model_that_was_judged_is_promoted_whatever_was_chosen_since(sweep: Made, store: str) -> None:
    sweep.finished("old", "a1", "a2", wrong=3)
    new = sweep.choose("new", policy="flip")  # and killed in the refit
    promotion = promote(sweep.paths.root)
    assert promotion.version == "1"
    found = tags(store)
    assert (found["trial"], found["policy"], found["test_accuracy"]) == ("old", POLICY, "0.7500")
    assert json.loads(found["fits"]) == ["a1", "a2"]
    sweep.judge(new, "b1", "b2")  # resumed: the new winner is another model, and taken
    with pytest.raises(PromotionRefused, match="may be lower by more than the margin of 3 points"):
        promote(sweep.paths.root)  # 12 test images, of which 3 differ, exclude nothing
    assert promote(sweep.paths.root, TOO_FEW_IMAGES).version == "2"
    assert (tags(store)["trial"], tags(store)["policy"]) == ("new", "flip")
    assert "is the champion already. Nothing was changed." in str(promote(sweep.paths.root))


def test_a_winner_that_was_retrained_otherwise_is_another_model(sweep: Made, store: str) -> None:
    sweep.finished("same", "a1")
    assert promote(sweep.paths.root).version == "1"
    assert "already" in str(promote(sweep.paths.root))
    sweep.finished("same", "a1", "a2", "a3")
    assert promote(sweep.paths.root, TOO_FEW_IMAGES).version == "2"
    assert json.loads(tags(store)["fits"]) == ["a1", "a2", "a3"]
    assert "already" in str(promote(sweep.paths.root))


def promote_without(monkeypatch: pytest.MonkeyPatch, left_out: tuple[str, ...], sweep: Made) -> None:
    """Promote as a version of orch did that did not write the tags ``left_out``."""
    with monkeypatch.context() as earlier:
        tags_of = ModelDetails.tags
        earlier.setattr(
            ModelDetails, "tags", lambda details: {k: v for k, v in tags_of(details).items() if k not in left_out}
        )
        promote(sweep.paths.root)


def test_the_same_networks_with_other_thresholds_are_a_new_version(
    sweep: Made, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after more trials, of which the same one wins: its thresholds hold for the best of more."""
    sweep.finished("same", "a1")
    promote(sweep.paths.root)
    of_more = Calibration(1.0, (Level(0.9, 0.5, 0.99, 0.95),), 400)
    monkeypatch.setattr(leaderboard, "calibrate", lambda answers, among: (of_more, ""))
    sweep.finished("same", "a1")
    text = str(promote(sweep.paths.root))
    assert "- Both are the same networks with the same crop policy and differ at most in the calibration" in text
    assert text.endswith("trash version 2 is the champion.")
    expected = registry.model_digest(registry.folder_hashes(sweep.paths.winner))
    assert tags(store)["model_sha256"] == expected
    assert "already" in str(promote(sweep.paths.root))


def test_a_version_that_does_not_name_its_networks_is_known_by_its_trial(
    sweep: Made, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.finished("same", "a1")
    promote_without(monkeypatch, ("orch.fits", registry.MODEL_SHA256), sweep)
    assert "fits" not in tags(store)
    sweep.finished("same", "a1", "a2")
    assert "already" in str(promote(sweep.paths.root))
    sweep.finished("other", "b1")
    assert promote(sweep.paths.root, TOO_FEW_IMAGES).version == "2"


def test_a_version_without_a_temperature_gives_way_to_the_calibrated_one(
    sweep: Made, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.finished("same", "a1")
    promote_without(monkeypatch, (registry.TEMPERATURE,), sweep)
    assert "temperature" not in tags(store)
    assert promote(sweep.paths.root).version == "2"
    assert tags(store)["temperature"] == "1.0"  # there are no validation photos
    assert "already" in str(promote(sweep.paths.root))


def test_the_same_networks_calibrated_are_promoted_though_own_splits_tear_a_copy(
    sweep: Made, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one of 12 test photos left out, equal answers of other networks are refused."""
    described(sweep)
    tear(sweep)
    sweep.finished("same", "a1")
    promote_without(monkeypatch, (registry.TEMPERATURE,), sweep)
    text = str(promote(sweep.paths.root))
    assert "Compared on 11 test photos that neither has seen; 1 more was left out" in text
    assert "- Both are the same networks with the same crop policy and differ at most in the calibration" in text
    assert (tags(store)["temperature"], "already" in str(promote(sweep.paths.root))) == ("1.0", True)
    sweep.finished("same", "b1")
    with pytest.raises(PromotionRefused, match="may be lower by more"):
        promote(sweep.paths.root)


def test_a_leaderboard_without_the_record_is_no_leaderboard(sweep: Made) -> None:
    """As sweeps from before 42b062d, which did not say what they judged."""
    sweep.finished("old", "a1")
    found = read_sweep(sweep.paths.root)
    events = [replace(e, payload=json.dumps({k: v for k, v in e.data.items() if k != "judged"})) for e in found.events]
    with pytest.raises(OrchError, match="has no finished leaderboard"):
        judged_winner(replace(found, events=tuple(events)))


def test_the_ledger_is_read_once(sweep: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep.finished("old", "a1")
    promote(sweep.paths.root)
    reads: list[Path] = []
    for module in (folder, ledger_module):
        monkeypatch.setattr(module, "read_events", lambda path: reads.append(path) or read_events(path))
    assert "already" in str(promote(sweep.paths.root))
    assert reads == [sweep.paths.ledger]


@pytest.mark.parametrize("said", [{"fits": ["b1"]}, {"policy": "flip"}])
def test_a_folder_that_a_killed_run_wrote_anew_is_refused(sweep: Made, store: str, said: dict[str, Any]) -> None:
    sweep.finished("old", "a1", "a2")
    path = sweep.paths.winner / MODEL_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    with pytest.raises(OrchError, match="did not finish, so its model and its figures are not of the same winner"):
        promote(sweep.paths.root)
    assert registry.champion(store, "trash") is None


def test_a_sweep_without_a_leaderboard(sweep: Made) -> None:
    sweep.choose("new")
    with pytest.raises(OrchError, match="has no finished leaderboard, so no winner; resume it: `orch sweep --resume"):
        promote(sweep.paths.root)
    sweep.finished("new", "a1")
    sweep.paths.evidence.unlink()
    with pytest.raises(OrchError, match=r"evidence.parquet is missing. `orch sweep --resume --out .*` makes it again"):
        promote(sweep.paths.root)


# --- what is promoted is what was judged --------------------------------------------------------------------------


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["model.json", "answers.json", "evidence.parquet"])
def test_a_changed_file_of_the_winner_is_refused_by_its_name(sweep: Made, store: str, name: str) -> None:
    sweep.finished("old", "a1")
    path = sweep.paths.winner / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(OrchError, match=rf"{name} is damaged: .*`orch sweep --resume --out .*` makes it again"):
        promote(sweep.paths.root)
    assert registry.champion(store, "trash") is None


def test_swapped_classes_are_refused(sweep: Made, store: str) -> None:
    sweep.finished("old", "a1")
    rewrite(sweep.paths.winner / MODEL_FILE, classes=[CLASSES[1], CLASSES[0], *CLASSES[2:]])
    with pytest.raises(OrchError, match=r"model.json is damaged: its bytes do not match the checksum"):
        promote(sweep.paths.root)


@pytest.mark.parametrize("junk", ["", "{", "[]", '{"policy": "whole"}'])
def test_junk_in_the_models_description_is_a_sentence(sweep: Made, junk: str) -> None:
    sweep.finished("old", "a1")
    (sweep.paths.winner / MODEL_FILE).write_text(junk)
    with pytest.raises(OrchError, match=r"winner/model.json is damaged: it does not describe a model"):
        promote(sweep.paths.root)


def forget_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in sweeps from before the checksums."""
    monkeypatch.setattr("orchestrator.ledger.kept.recorded_files", lambda events: {})


@pytest.mark.parametrize("swapped", ["classes", "answers"])
def test_without_checksums_the_answers_to_some_photos_decide(
    sweep: Made, store: str, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    sweep.finished("old", "a1")
    forget_checksums(monkeypatch)
    if swapped == "classes":
        rewrite(sweep.paths.winner / MODEL_FILE, classes=[*reversed(CLASSES)])
    else:
        known = json.loads((sweep.paths.winner / "answers.json").read_text())
        rewrite(sweep.paths.winner / "answers.json", **{sha: (answer + 1) % 3 for sha, answer in known.items()})
    with pytest.raises(OrchError, match=r"winner was changed: it does not answer as .* differs by 1 from"):
        promote(sweep.paths.root)
    assert registry.champion(store, "trash") is None
    assert connect(store).search_model_versions("name = 'trash'") == []


def test_photos_that_are_gone_are_said_and_do_not_stop_a_promotion(sweep: Made, store: str) -> None:
    sweep.finished("old", "a1")
    for path in sweep.manifest.split("test").paths()[1:]:
        path.write_bytes(b"another photo")
    told: list[str] = []
    assert promote(sweep.paths.root, tell=told.append).version == "1"
    assert [line for line in told if "only 1 of 8 test photos are still in" in line]


def test_the_registered_model_is_known_by_its_files(sweep: Made, store: str) -> None:
    sweep.finished("old", "a1")
    promote(sweep.paths.root)
    found = tags(store)
    assert found["model_sha256"] == registry.model_digest(judged_winner(read_sweep(sweep.paths.root)).files)
    assert found["test_photos"] == "12"
    info = registry.champion(store, "trash")
    assert info is not None
    (stored,) = Path(info.source.removeprefix("file://")).rglob("answers.json")
    stored.write_text(stored.read_text().replace("0", "1", 1))
    with pytest.raises(TrackingError, match=r"version 1 is damaged: .* do not match the tag orch.model_sha256"):
        registry.load_champion(store, "trash")


def test_what_the_registry_lost_on_the_way_is_no_champion(
    sweep: Made, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.finished("old", "a1")
    there = registry.folder_hashes

    def torn(folder: Path) -> dict[str, str]:
        found = there(folder)
        return found if folder == sweep.paths.winner else found | {"answers.json": "0" * 64}

    monkeypatch.setattr(registry, "folder_hashes", torn)
    with pytest.raises(TrackingError, match=r"what came back of trash version 1 .* is not what was sent: answers.json"):
        promote(sweep.paths.root)
    assert registry.champion(store, "trash") is None


# --- other processes, other folders -------------------------------------------------------------------------------


def test_another_champion_made_meanwhile_is_compared_with(sweep: Made, store: str, tmp_path: Path) -> None:
    """As by another machine, which no lock of this one holds off."""
    sweep.finished("worse", "a1", wrong=6)
    other = make(tmp_path / "other", store)
    other.finished("best", "b1")
    register, told = registry.register, []

    def meanwhile(*arguments: Any) -> str:
        version = register(*arguments)
        if version == "1":
            assert set_champion(store, "trash", register_other(), instead_of=None)
        return version

    def register_other() -> str:
        judged = judged_winner(read_sweep(other.paths.root))
        sample = other.manifest.split("test").paths()[0].read_bytes()
        run = connect(store).create_run("0").info.run_id
        details = ModelDetails(run, "other", "best", POLICY, "single", 1.0, 0.9, 1.0, "f", CLASSES, sample)
        return register(store, "trash", other.paths.winner, replace(details, fits=judged.fits), lambda model: None)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registry, "register", meanwhile)
        with pytest.raises(PromotionRefused, match="The accuracy is lower"):
            promote(sweep.paths.root, tell=told.append)
    assert "another champion of trash was made meanwhile; comparing with that one" in told
    info = registry.champion(store, "trash")
    assert info is not None
    assert info.version == "2"


def test_from_another_folder_no_store_is_made(
    sweep: Made, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.paths.spec.write_text(sweep.paths.spec.read_text().replace(f"uri: '{store}', ", ""))
    with monkeypatch.context() as there:
        there.setenv("MLFLOW_TRACKING_URI", store)
        sweep.finished("old", "a1")
        promote(sweep.paths.root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(TrackingError, match=r"there is no MLflow database .*elsewhere/mlflow.db, so no run of this sw"):
        promote(sweep.paths.root)
    with pytest.raises(OrchError, match=r"there is no champion of trash: there is no MLflow database .*elsewhere"):
        registry.load_champion(None, "trash")
    assert registry.champion(None, "trash") is None
    assert not list(elsewhere.iterdir())


def test_where_the_database_of_the_sweeps_runs_is_gone_the_sentence_says_so(sweep: Made, store: str) -> None:
    sweep.finished("old", "a1")
    promote(sweep.paths.root)
    Path(store.removeprefix("sqlite:///")).unlink()
    with pytest.raises(TrackingError, match=r"mlflow\.db is gone, and with it .* `orch sync .*` and promote again"):
        promote(sweep.paths.root)


def described(made: Made) -> None:
    """Write a descriptor of its own for every photo."""
    table = made.manifest.table.copy()
    random = np.random.default_rng(0)
    table["descriptor"] = [random.integers(0, 256, 256, np.uint8).tobytes() for _ in range(len(table))]
    replace(made.manifest, table=table).write(made.paths.manifest)


def grown(made: Made, tested: int, saved_again: int = 0) -> None:
    """Move all test photos but ``tested`` to train, and its train photos to test: another division of the same.

    ``saved_again``: of these, the number whose file is another one that shows the same.
    """
    table = made.manifest.table.copy()
    train, test = (table.index[table["split"] == split] for split in ("train", "test"))
    table.loc[test[tested:], "split"], table.loc[train, "split"] = "train", "test"
    table.loc[train[:saved_again], "sha256"] = table.loc[train[:saved_again], "sha256"].str[::-1]
    levels = [np.frombuffer(each, np.uint8) for each in table.loc[train[:saved_again], "descriptor"]]
    table.loc[train[:saved_again], "descriptor"] = [(np.maximum(each, 1) - 1).tobytes() for each in levels]
    replace(made.manifest, table=table).write(made.paths.manifest)


def tear(made: Made) -> None:
    """Let two test photos look like two of training, and one of them be of its group: that one is a copy."""
    table = made.manifest.table.copy()
    test, train = (table.index[table["split"] == split] for split in ("test", "train"))
    table.loc[test[:2], "descriptor"] = table.loc[train[:2], "descriptor"].to_numpy()
    table.loc[test[0], "group"] = table.loc[train[0], "group"]
    replace(made.manifest, table=table).write(made.paths.manifest)


@pytest.mark.parametrize("saved_again", [0, 3])
def test_only_photos_that_neither_has_seen_are_compared(
    sweep: Made, store: str, tmp_path: Path, saved_again: int
) -> None:
    """Photos that the champion trained on are known when they were saved again, and left out."""
    described(sweep)
    sweep.finished("old", "a1", wrong=12)
    promote(sweep.paths.root)
    other = make(tmp_path / "new", store)
    described(other)
    grown(other, 10, saved_again)
    told: list[str] = []
    other.finished("new", "b1")
    promotion = promote(other.paths.root, tell=told.append)
    assert promotion.version == "2"
    trained = len(sweep.manifest.split("train").table)
    assert trained == 5
    assert (
        f"- Compared on 10 test photos that neither has seen; {trained} more were left out, which trash version 1 "
        f"({trained}) was trained or chosen on." in str(promotion)
    )
    assert not [line for line in told if "asking the champion" in line]
    found = tags(store)
    assert (found["margin"], found["compared_photos"], found["seen_photos"]) == ("3", "10", "5")


def test_photos_to_ask_the_champion_about_that_are_gone_are_counted(tmp_path: Path) -> None:
    there = tmp_path / "a.png"
    there.touch()
    require_there([there])
    gone = [tmp_path / "b.png", tmp_path / "c.png"]
    with pytest.raises(
        DataError, match=r"2 of the 3 test photos .* gone, .*b\.png first\. Put them back, or .*--fresh`"
    ):
        require_there([there, *gone])


def test_too_few_unseen_photos_are_refused_with_the_flag(sweep: Made, store: str, tmp_path: Path) -> None:
    described(sweep)
    sweep.finished("old", "a1", wrong=12)
    promote(sweep.paths.root)
    other = make(tmp_path / "new", store)
    described(other)
    grown(other, 3)
    other.finished("new", "b1")
    with pytest.raises(
        PromotionRefused, match=r"Only 3 of the 8 test images were seen by neither(.|\n)*add `--allow c"
    ):
        promote(other.paths.root)


def test_a_photo_that_was_tested_on_is_unseen_though_it_looks_like_one_trained_on(
    sweep: Made, store: str, tmp_path: Path
) -> None:
    """As of thousands of photos of the same layout."""
    table = sweep.manifest.table.copy()
    one = np.random.default_rng(0).integers(0, 256, 256, np.uint8).tobytes()
    replace(sweep.manifest, table=table.assign(descriptor=one)).write(sweep.paths.manifest)
    sweep.finished("old", "a1", wrong=12)
    promote(sweep.paths.root)
    other = make(tmp_path / "new", store)
    replace(other.manifest, table=table.assign(descriptor=one)).write(other.paths.manifest)
    other.finished("new", "b1")
    assert "Compared on 12 test photos that neither has seen.\n" in str(promote(other.paths.root))


def test_copies_that_own_splits_tear_are_left_out(sweep: Made, store: str, tmp_path: Path) -> None:
    sweep.finished("old", "a1", wrong=12)
    promote(sweep.paths.root)
    other = make(tmp_path / "new", store)
    described(other)
    tear(other)
    other.finished("new", "b1")
    said = "Compared on 11 test photos that neither has seen; 1 more was left out, which the challenger (1) was trained"
    assert said in str(promote(other.paths.root))


def test_the_margin_is_the_persons_and_is_recorded(sweep: Made, store: str, tmp_path: Path) -> None:
    sweep.finished("old", "a1", wrong=4)
    promote(sweep.paths.root)
    assert "margin" not in tags(store)
    other = make(tmp_path / "new", store)
    other.finished("new", "b1", wrong=3)
    with pytest.raises(PromotionRefused, match="than the margin of 3 points"):
        promote(other.paths.root)
    text = str(promote(other.paths.root, margin=0.3))
    assert "not lower by more than the margin of 30 points" in text
    assert "the gate passes a model 30 points better in" in text
    assert tags(store)["margin"] == "30"
    notes = [event.data for event in read_events(other.paths.ledger) if "promotion" in event.data]
    assert [(note["promotion"], note["margin"]) for note in notes] == [("refused", 0.03), ("champion", 0.3)]


def test_the_champion_is_judged_by_the_challengers_labels(sweep: Made, store: str, tmp_path: Path) -> None:
    """The champion was right about all; since then half of the labels were put right."""
    sweep.finished("old", "a1")
    promote(sweep.paths.root)
    other = make(tmp_path / "again", store)
    manifest = other.manifest
    test = manifest.table.index[manifest.table["split"] == "test"]
    following = dict(zip(CLASSES, (*CLASSES[1:], CLASSES[0]), strict=True))
    changed = manifest.table.copy()
    changed.loc[test[:6], "label"] = changed.loc[test[:6], "label"].map(following)
    replace(manifest, table=changed).write(other.paths.manifest)
    other.finished("new", "b1", wrong=5)
    promotion = promote(other.paths.root, TOO_FEW_IMAGES)
    assert promotion.version == "2"
    assert promotion.decision.comparison is not None
    assert promotion.decision.comparison.difference == pytest.approx(1 / 12)
    assert "the champion trash version 1 has 50.0 %" in promotion.decision.text
    worse = make(tmp_path / "worse", store)
    worse.finished("worse", "c1", wrong=12)
    with pytest.raises(PromotionRefused, match="The accuracy is lower"):
        promote(worse.paths.root)


def test_the_champion_reads_new_photos_a_batch_at_a_time(
    sweep: Made, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.finished("old", "a1")
    promote(sweep.paths.root)
    other = make(tmp_path / "new", store)
    table = other.manifest.table.assign(sha256=lambda t: t["sha256"].str[::-1])
    replace(other.manifest, table=table).write(other.paths.manifest)
    sizes: list[int] = []
    load = registry.load_champion

    def recorded(uri: str | None, name: str) -> Any:
        model = load(uri, name)
        return SimpleNamespace(predict=lambda frame: (sizes.append(len(frame)), model.predict(frame))[1])

    monkeypatch.setattr(registry, "load_champion", recorded)
    monkeypatch.setattr(plain, "AT_ONCE", 5)
    other.finished("new", "b1")
    decision = promote(other.paths.root, TOO_FEW_IMAGES).decision
    assert sizes == [5, 5, 2]
    assert decision.comparison is not None


def test_the_leaderboard_keeps_each_class_and_what_recognises_its_photos(sweep: Made) -> None:
    sweep.finished("old", "a1", wrong=3)
    found = read_sweep(sweep.paths.root)
    rows = read_per_class(found.kept)
    assert [(row["class"], row["recall"], row["support"]) for row in rows] == [
        ("blue", 0.25, 4),
        ("green", 1.0, 4),
        ("red", 1.0, 4),
    ]
    assert found.kept.state(sweep.paths.per_class) == FileState.EQUAL
    evidence = pd.read_parquet(sweep.paths.evidence)
    test = evidence["role"] == "test"
    assert evidence["probability"].notna().tolist() == test.tolist()
    assert evidence["group"].tolist() == sweep.manifest.table["group"].tolist()
    sweep.paths.per_class.write_text("class\n")
    with pytest.raises(OrchError, match=r"per_class\.csv is damaged: its bytes do not match the checksum"):
        read_per_class(found.kept)


def test_a_promoted_version_is_evaluated_by_its_evidence(
    sweep: Made, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.finished("old", "a1", wrong=3)
    promote(sweep.paths.root)
    monkeypatch.setattr(evaluate, "model_of", lambda model, command: (store, model or "trash"))
    monkeypatch.setattr(
        evaluate, "find_champion", lambda model, command: Champion(store, registry.require_champion(store, "trash"))
    )
    for version in (None, "1"):
        model = evaluate.registered_model("trash", version)
        assert (model.name, model.classes) == ("trash version 1 of the sweep sweep", CLASSES)
        assert model.seen is not None
        assert model.seen["sha256"].tolist() == sweep.manifest.table["sha256"].tolist()
    with pytest.raises(OrchError, match="there is no version 7 of trash; there are 1"):
        evaluate.registered_model("trash", "7")
    winner = evaluate.sweep_winner(sweep.paths.root)
    assert winner.name == "the winner of sweep, winner/seed-0 with the crop policy whole"
    assert (winner.classes, len(winner.seen if winner.seen is not None else ())) == (CLASSES, 17)
    (sweep.paths.winner / "evidence.parquet").write_bytes(b"x")
    with pytest.raises(OrchError, match=r"evidence\.parquet is damaged"):
        evaluate.sweep_winner(sweep.paths.root)
