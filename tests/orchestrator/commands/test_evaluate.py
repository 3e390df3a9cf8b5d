"""`orch evaluate`: which photos are judged, by which model, and what is refused; nothing is trained."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator.cli import app
from orchestrator.commands import evaluate
from orchestrator.commands.evaluate import EvaluatedModel, judge
from orchestrator.errors import DataError, OrchError
from orchestrator.evaluation.new_photos import Judged
from orchestrator.report.new_photos import to_dict, write_rows
from orchestrator.sweep.leaderboard import DESCRIPTOR_VERSION
from tests.support.tiny_fits import CLASSES, job
from trainers.data import scan
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.images.descriptor import VERSION
from trainers.serving.model import ServedModel, assemble
from trainers.serving.neighbours import NEIGHBOURS_FILE, write_neighbours
from trainers.training.loop import open_fit


class ColourModel:
    """Answers the colour that is strongest; refuses what is no picture."""

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        rows = []
        for image in frame["image"]:
            mean = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), float).mean((0, 1))[::-1]
            rows.append(np.exp(mean / 10) / np.exp(mean / 10).sum())
        found = [dict(zip(CLASSES, map(float, row), strict=True)) for row in rows]
        return pd.DataFrame(
            {
                "label": [max(row, key=row.__getitem__) for row in found],
                "probability": [max(row.values()) for row in found],
                "probabilities": [json.dumps(row) for row in found],
            }
        )


def photo(path: Path, label: str, seed: int, answer: str = "") -> Path:
    """A smooth pattern, unlike that of any other seed, in the colour of ``answer``, by default of ``label``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((seed, CLASSES.index(label)))
    small = Image.fromarray(rng.integers(0, 150, (6, 6, 3)).astype(np.uint8))
    pixels = np.asarray(small.resize((96, 96), Image.Resampling.BICUBIC)).astype(int)
    pixels[..., 2 - CLASSES.index(answer or label)] += 90
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def photos(folder: Path, seeds: range, wrong: int = 0) -> Path:
    for label in CLASSES:
        for seed in seeds:
            answer = CLASSES[(CLASSES.index(label) + 1) % 3] if seed - seeds.start < wrong else label
            photo(folder / label / f"{seed}.png", label, seed, answer)
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Of photos 0 to 19 of each class; about half of them are the test split's."""
    folder = tmp_path_factory.mktemp("seen")
    source = DataSource(str(photos(folder / "old", range(20))), (0.25, 0.25, 0.5), folder / "cache")
    return build_manifest(source)[0]


def evidence(manifest: Manifest) -> pd.DataFrame:
    """As ``write_evidence`` writes it, of a model that is right about each test photo."""
    table = manifest.table[["sha256", "split", "label", "group", "descriptor"]].rename(columns={"split": "role"})
    test = table["role"] == "test"
    table["predicted"] = table["label"].where(test)
    table["correct"] = pd.Series(True, index=table.index, dtype="boolean").where(test)
    table["probability"] = np.where(test, 0.9, np.nan)
    return table.assign(**{DESCRIPTOR_VERSION: VERSION})


@pytest.fixture
def model(manifest: Manifest) -> EvaluatedModel:
    return EvaluatedModel("trash version 3", CLASSES, evidence(manifest), ColourModel)


EXPORTED = (("again", "jpg"), ("mirrored", "png"))


def judged(source: Path | str, model: EvaluatedModel, costs: Path | None = None) -> tuple[Judged, list[str]]:
    said: list[str] = []
    return judge([str(source)], model, costs, said.append), said


def test_new_photos_are_judged(tmp_path: Path, manifest: Manifest, model: EvaluatedModel) -> None:
    found, said = judged(photos(tmp_path / "new", range(100, 120), wrong=2), model)
    assert (found.evaluation.photos, found.evaluation.groups) == (60, 60)
    assert found.evaluation.accuracy.value == pytest.approx(0.9)
    assert (found.trained, found.tested, found.unreadable) == ([], [], {})
    assert found.evaluation.against_test is not None
    assert found.evaluation.against_test.test_photos == len(manifest.split("test").table)
    assert said == ["loading  trash version 3"]
    wrong = {f"{tmp_path}/new/{label}/{seed}.png" for label in CLASSES for seed in (100, 101)}
    assert {mistake["path"] for mistake in found.mistakes} == wrong
    confident = [mistake["probability"] for mistake in found.mistakes]
    assert confident == sorted(confident, reverse=True)


def test_what_the_model_has_seen_is_left_out_and_counted(
    tmp_path: Path, manifest: Manifest, model: EvaluatedModel
) -> None:
    """The same bytes, and photos that were exported again as JPEG at another size, or that are a mirrored copy of one
    of these."""
    new = photos(tmp_path / "new", range(100, 110))
    table = manifest.table
    trained = [manifest.root / path for path in table["path"][table["split"] != "test"]]
    tested = [manifest.root / path for path in table["path"][table["split"] == "test"]]
    for number, path in enumerate(trained[:6]):
        shutil.copy(path, new / path.parent.name / f"same-{number}.png")
    for path in (trained[10], tested[0]):
        with Image.open(path) as image:
            image.resize((72, 72)).save(new / path.parent.name / f"again-{path.stem}.jpg", quality=80)
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(new / path.parent.name / f"mirrored-{path.stem}.png")
    found, _ = judged(new, model)
    assert (found.evaluation.photos, len(found.trained), len(found.tested)) == (30, 8, 2)
    assert {Path(path).name for path in found.tested} == {f"{how}-{tested[0].stem}.{end}" for how, end in EXPORTED}
    assert all(path.startswith(f"{new}/") for path in (*found.trained, *found.tested))


def test_by_bytes_alone_what_was_exported_again_counts_as_new(
    tmp_path: Path, manifest: Manifest, model: EvaluatedModel
) -> None:
    assert model.seen is not None
    old = EvaluatedModel(model.name, CLASSES, model.seen.drop(columns="descriptor"), ColourModel)
    new = photos(tmp_path / "new", range(100, 103))
    with Image.open(manifest.root / "red" / "0.png") as image:
        image.resize((72, 72)).save(new / "red" / "again.jpg")
    shutil.copy(manifest.root / "red" / "1.png", new / "red")
    found, said = judged(new, old)
    assert (found.evaluation.photos, [*found.trained, *found.tested]) == (10, [f"{new}/red/1.png"])
    assert "warning  trash version 3 lists its photos by their bytes alone" in said[0]


def test_a_model_without_evidence_is_judged_with_a_warning(tmp_path: Path) -> None:
    found, said = judged(photos(tmp_path / "new", range(3)), EvaluatedModel("m", CLASSES, None, ColourModel))
    assert found.evaluation.photos == 9
    assert found.evaluation.against_test is None
    assert found.evaluation.less_certain is None
    assert "photos that it was trained on cannot be left out" in said[0]


def test_copies_are_one_object(tmp_path: Path, model: EvaluatedModel) -> None:
    new = photos(tmp_path / "new", range(100, 120))
    for seed in range(100, 105):
        with Image.open(new / "red" / f"{seed}.png") as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(new / "red" / f"mirrored-{seed}.png")
    found, _ = judged(new, model)
    assert (found.evaluation.photos, found.evaluation.groups) == (65, 60)


@pytest.mark.parametrize("packed", ["folder", "zip", "table"])
def test_every_kind_of_source_gives_the_same(packed: str, tmp_path: Path, model: EvaluatedModel) -> None:
    new = photos(tmp_path / "new", range(100, 112), wrong=1)
    expected = to_dict(judged(new, model)[0])
    source: Path | str = new
    if packed == "zip":
        source = shutil.make_archive(str(tmp_path / "packed"), "zip", new)
    if packed == "table":
        source = new / "labels.csv"
        rows = [f"{path.relative_to(new)},{path.parent.name}" for path in sorted(new.glob("*/*"))]
        source.write_text("\n".join(["path,label", *rows]) + "\n")
    found = to_dict(judged(source, model)[0])
    worst = [{**mistake, "path": Path(mistake["path"]).name} for mistake in found.pop("worst")]
    assert worst == [{**mistake, "path": Path(mistake["path"]).name} for mistake in expected.pop("worst")]
    assert str(found) == str(expected)


def test_one_class_alone_can_be_judged(tmp_path: Path, model: EvaluatedModel) -> None:
    for seed in range(100, 112):
        photo(tmp_path / "new" / "red" / f"{seed}.png", "red", seed)
    assert judged(tmp_path / "new", model)[0].evaluation.photos == 12


def test_labels_that_the_model_does_not_know_are_a_sentence(tmp_path: Path, model: EvaluatedModel) -> None:
    new = photos(tmp_path / "new", range(100, 103))
    (new / "red").rename(new / "Red")
    photo(new / "stone" / "1.png", "red", 1)
    with pytest.raises(DataError) as error:
        judged(new, model)
    assert str(error.value) == (
        "trash version 3 does not know 2 labels: 'Red' (3 photos), perhaps 'red', 'stone' (1 photo). Its classes are "
        "blue, green, red. Give the photos one of these names, or take them out."
    )


def test_bad_files_are_named_and_left_out(tmp_path: Path, model: EvaluatedModel) -> None:
    new = photos(tmp_path / "new", range(100, 105))
    (new / "red" / "bad.jpg").write_bytes(b"no picture")
    found, said = judged(new, model)
    assert found.evaluation.photos == 15
    assert list(found.unreadable) == ["red/bad.jpg"]
    assert said[0] == "warning  left out, because they cannot be read: 1 photo, red/bad.jpg."


def test_nothing_new_and_nothing_at_all_are_sentences(
    tmp_path: Path, manifest: Manifest, model: EvaluatedModel
) -> None:
    tested = len(manifest.split("test").table)
    seen = f"{60 - tested} of 60 are photos that it was trained or chosen on, {tested} of its test split"
    with pytest.raises(DataError, match=f"there is no new photo to judge trash version 3 by: {seen}"):
        judged(manifest.root, model)
    with pytest.raises(TrainerError, match="there is no folder, table or archive"):
        judged(tmp_path / "nowhere", model)
    (tmp_path / "bad" / "red").mkdir(parents=True)
    (tmp_path / "bad" / "red" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"there is no photo that can be read; red/a\.jpg: "):
        judged(tmp_path / "bad", model)


def test_a_model_with_other_classes_than_it_says_is_refused(tmp_path: Path) -> None:
    new = photos(tmp_path / "new", range(3))
    with pytest.raises(OrchError, match="answers with other classes than those it was registered with"):
        judged(new, EvaluatedModel("m", (*CLASSES, "violet"), None, ColourModel))


def test_the_table_has_a_row_for_each_photo(tmp_path: Path, model: EvaluatedModel) -> None:
    new = photos(tmp_path / "new", range(100, 110), wrong=1)
    odd = photo(new / "red" / 'a "b", c\n.png', "red", 200)
    found, _ = judged(new, model)
    assert write_rows(found, tmp_path / "a.csv") == f"31 rows in {tmp_path / 'a.csv'}."
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert str(odd) in {row["path"] for row in rows}
    assert np.mean([row["label"] == row["predicted"] for row in rows]) == pytest.approx(found.evaluation.accuracy.value)
    for row in rows:
        given = json.loads(row["probabilities"])
        assert max(given, key=given.__getitem__) == row["predicted"]
        assert float(row["probability"]) == max(given.values())


def test_older_evidence_takes_what_it_lacks_from_its_sweep(tmp_path: Path, manifest: Manifest) -> None:
    manifest.write(tmp_path / "sweep" / "manifest.parquet")
    full = evidence(manifest)
    old = full[["sha256", "role", "label", "predicted", "correct"]]
    found = evaluate._with_manifest(old, tmp_path / "sweep", manifest.fingerprint)
    assert found is not None
    assert found["descriptor"].tolist() == full["descriptor"].tolist()
    assert found["group"].tolist() == full["group"].tolist()
    for folder, fingerprint in (("sweep", "of other data"), ("nowhere", "")):
        same = evaluate._with_manifest(old, tmp_path / folder, fingerprint)
        assert same is not None
        assert "descriptor" not in same
    without = evaluate._with_manifest(None, tmp_path / "sweep", manifest.fingerprint)
    assert without is not None
    assert without["role"].tolist() == full["role"].tolist()
    other = evaluate._with_manifest(full.assign(**{DESCRIPTOR_VERSION: VERSION + 1}), tmp_path / "nowhere", "")
    assert other is not None
    assert "descriptor" not in other


@pytest.fixture(scope="module")
def served(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A real network on the manifest's photos: its served folder with the neighbours, and its evidence."""
    folder = tmp_path_factory.mktemp("served")
    manifest.write(folder / "manifest.parquet")
    fit = open_fit(job(folder / "manifest.parquet", folder / "cache", output=str(folder / "fit"), epochs=1))
    fit.run_epoch()
    fit.finish()
    served = {"fits": [str(folder / "fit")], "output": str(folder / "model"), "classes": [*CLASSES], "policy": "flip"}
    assemble(served | {"threads": 1, "precision": "float32"})
    paths = {"fit": str(folder / "fit"), "output": str(folder / "model"), "manifest": str(folder / "manifest.parquet")}
    more = {"threads": 1, "gpu_memory_share": 0.0, "cache": str(folder / "cache")}
    seen = evidence(manifest)
    seen.loc[seen["role"] == "test", "distance"] = write_neighbours(paths | more)["distances"]
    return folder / "model", seen


def test_photos_of_another_kind_are_far_and_named(tmp_path: Path, served: tuple[Path, pd.DataFrame]) -> None:
    folder, seen = served
    model = EvaluatedModel("m", CLASSES, seen, lambda: ServedModel(folder))
    new = photos(tmp_path / "new", range(100, 112))
    (new / "red" / "bad.png").write_bytes((new / "red" / "100.png").read_bytes()[:200])
    found, _ = judged(new, model)
    assert found.evaluation.farness is not None
    assert not found.evaluation.farness.are_far
    for path in sorted(new.glob("*/1??.png"))[::2]:  # every second one becomes its negative
        with Image.open(path) as image:
            Image.fromarray(255 - np.asarray(image)).save(path)
    found, _ = judged(new, model)
    assert found.evaluation.farness is not None
    assert found.evaluation.farness.are_far
    assert found.evaluation.farness.share.value >= 0.3
    assert len(found.farthest) == 10
    negatives = {str(path) for path in sorted(new.glob("*/1??.png"))[::2]}
    assert {row["path"] for row in found.farthest} <= negatives
    assert found.answers.distances is not None
    assert found.answers.distances.shape == (36,)


def test_a_registered_model_measures_too(tmp_path: Path, served: tuple[Path, pd.DataFrame]) -> None:
    from mlflow import pyfunc

    folder, seen = served
    pyfunc.save_model(path=str(tmp_path / "m"), loader_module="trainers.serving", data_path=str(folder))
    new = photos(tmp_path / "new", range(100, 104))
    packed = EvaluatedModel("m", CLASSES, seen, lambda: pyfunc.load_model(str(tmp_path / "m")))
    there, here = (judged(new, each)[0] for each in (packed, EvaluatedModel("m", CLASSES, seen, packed_of(folder))))
    assert there.answers.distances is not None
    assert here.answers.distances is not None
    np.testing.assert_allclose(there.answers.distances, here.answers.distances, atol=1e-4)


def test_a_registered_model_of_another_make_is_judged_without_distances(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import pyfunc

    (tmp_path / "data").mkdir()
    (tmp_path / "another_make.py").write_text(
        "from tests.orchestrator.commands.test_evaluate import ColourModel\n\n\n"
        "def _load_pyfunc(path):\n    return ColourModel()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    given = {"loader_module": "another_make", "data_path": str(tmp_path / "data"), "pip_requirements": ["pandas"]}
    pyfunc.save_model(path=str(tmp_path / "m"), **given)
    packed = EvaluatedModel("m", CLASSES, evidence(manifest), lambda: pyfunc.load_model(str(tmp_path / "m")))
    found, _ = judged(photos(tmp_path / "new", range(100, 104)), packed)
    assert (found.evaluation.photos, found.evaluation.farness, found.answers.distances) == (12, None, None)


def test_photos_that_were_read_before_are_not_decoded_again(
    tmp_path: Path, manifest: Manifest, model: EvaluatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their looks are in the cache folder."""
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    new, said = photos(tmp_path / "new", range(100, 104)), list[str]()
    first = evaluate.read_photos([str(new)], model, said.append)
    monkeypatch.setattr(scan, "look", lambda *given: pytest.fail("decoded"))
    again = evaluate.read_photos([str(new)], model, said.append)
    pd.testing.assert_frame_equal(again.table, first.table)


def packed_of(folder: Path) -> Callable[[], ServedModel]:
    return lambda: ServedModel(folder)


def test_a_model_without_neighbours_is_judged_all_the_same(tmp_path: Path, served: tuple[Path, pd.DataFrame]) -> None:
    folder = Path(shutil.copytree(served[0], tmp_path / "model"))
    (folder / NEIGHBOURS_FILE).unlink()
    found, said = judged(
        photos(tmp_path / "new", range(100, 104)), EvaluatedModel("m", CLASSES, served[1], packed_of(folder))
    )
    assert (found.evaluation.photos, found.evaluation.farness, found.answers.distances) == (12, None, None)
    assert said == ["loading  m"]


# --- as typed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 140])
def test_what_is_printed_fits(
    columns: int,
    tmp_path: Path,
    manifest: Manifest,
    model: EvaluatedModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(evaluate, "registered_model", lambda name, version: model)
    new = photos(tmp_path / "new", range(100, 120), wrong=2)
    shutil.copy(manifest.root / "red" / "0.png", new / "red")
    (tmp_path / "costs.csv").write_text("given,blue,green,red\nblue,0,1,1\ngreen,1,0,1\nred,9,1,0\n")
    out = tmp_path / "judged.csv"
    assert app.run(["evaluate", str(new), "--costs", str(tmp_path / "costs.csv"), "--csv", str(out)]) == 0
    printed = capsys.readouterr()
    text = re.sub("\x1b\\[[0-9;]*m", "", printed.out)
    too_long = [line for line in text.splitlines() if len(line) > columns]
    assert not too_long
    words = ["60 photos; left out: 1 photo", "90.0 % (95 % ", "mean cost", "the most confused", "most certain mistakes"]
    assert not [word for word in words if word not in " ".join(text.split())]
    assert "loading  trash version 3\n" in printed.err
    assert printed.err.endswith(f"60 rows in {out}.\n")
    assert app.run(["evaluate", str(new), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["per_class"][0]["support"] == 20
