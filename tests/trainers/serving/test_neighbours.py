"""Distances from the training photos: the k-th nearest, the same in the sweep and in the served model."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny_fits import CLASSES, job, write_manifest
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.networks.prefix import Prefix
from trainers.serving import _load_pyfunc, crop_predictor, neighbours
from trainers.serving.model import ServedModel, assemble
from trainers.serving.neighbours import NEIGHBOURS_FILE, K, Neighbours, served_distances, write_neighbours
from trainers.training.loop import open_fit

FITS: dict[str, dict[str, Any]] = {
    "one": {},
    "hidden": {"head": "arcface", "hidden": 8},
    "frozen": {"unfrozen_layers": 0, "view": "random_crop"},
    "all": {"unfrozen_layers": "all"},
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("pictures"))


def made(manifest: Path, folder: Path, name: str, policy: str = "flip") -> dict[str, Any]:
    """A finished fit and its served folder; the job that writes the neighbours."""
    fit = open_fit(job(manifest, folder / "cache", output=str(folder / "fit"), epochs=1, **FITS[name]))
    fit.run_epoch()
    fit.finish()
    served = {"fits": [str(folder / "fit")], "output": str(folder / "model"), "classes": [*CLASSES], "policy": policy}
    assemble(served | {"threads": 1, "precision": "float32"})
    paths = {"fit": str(folder / "fit"), "output": str(folder / "model"), "manifest": str(manifest)}
    return paths | {"threads": 1, "gpu_memory_share": 0.0, "cache": str(folder / "cache"), "share": True}


@pytest.mark.parametrize("name", FITS)
def test_a_served_model_measures_what_the_sweep_measured(manifest: Path, tmp_path: Path, name: str) -> None:
    asked = made(manifest, tmp_path, name)
    found = write_neighbours(asked)["distances"]
    served = _load_pyfunc(asked["output"])
    assert served.get_raw_model() is served
    assert served.neighbours is not None
    paths = Manifest.read(manifest).split("test").paths()
    images = [path.read_bytes() for path in paths]
    np.testing.assert_allclose(served_distances(served, images), found, atol=2e-3)
    trained = [path.read_bytes() for path in Manifest.read(manifest).split("train").paths()]
    assert len(served.neighbours.vectors) == len(trained)
    one = Neighbours(served.neighbours.vectors, 1)
    features = served.networks[0].head_input(served.prefix(np.concatenate([pixels(served, x) for x in trained])))
    np.testing.assert_allclose(one.distances(features), 0, atol=5e-3)


def pixels(served: ServedModel, image: bytes) -> np.ndarray:
    return neighbours.cut(image, served.image_size, served.view, ("whole",), "0" * 64)


def test_the_distance_is_that_of_the_kth_nearest() -> None:
    draw = np.random.default_rng(0)
    known, asked = draw.normal(size=(700, 12)), draw.normal(size=(600, 12))
    found = Neighbours.of(known, ["a"] * 700).distances(asked)
    unit, wanted = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (known, asked))
    plain = [sorted(np.linalg.norm(unit - row, axis=1))[K - 1] for row in wanted]
    np.testing.assert_allclose(found, plain, atol=2e-3)
    np.testing.assert_allclose(Neighbours.of(known, ["a"] * 700).distances(1000 * asked), found, atol=1e-5)
    few = Neighbours.of(known[:9], ["a"] * 6 + ["b"] * 3)
    assert few.k == 3
    assert np.isfinite(few.distances(np.zeros((1, 12)))).all()


def test_another_kind_of_photo_is_farther(manifest: Path, tmp_path: Path) -> None:
    asked = made(manifest, tmp_path, "all")
    tested = write_neighbours(asked)["distances"]
    with io.BytesIO() as file:
        Image.new("RGB", (24, 20), (5, 250, 250)).save(file, "PNG")
        strange = file.getvalue()
    assert served_distances(ServedModel(Path(asked["output"])), [strange])[0] > max(tested)


def test_of_many_photos_some_are_drawn_the_same_each_time(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = made(manifest, tmp_path, "one")
    monkeypatch.setattr(neighbours, "MOST_VECTORS", 17)
    write_neighbours(asked)  # later calls read stored rows, which other batches may round otherwise
    first = write_neighbours(asked)
    bytes_of_first = (Path(asked["output"]) / NEIGHBOURS_FILE).read_bytes()
    assert write_neighbours(asked) == first
    assert (Path(asked["output"]) / NEIGHBOURS_FILE).read_bytes() == bytes_of_first
    found = Neighbours.read(Path(asked["output"]))
    assert found is not None
    assert found.vectors.shape[0] == 17
    assert found.k == K  # of each class, so that no class is missing
    drawn = neighbours._drawn(Manifest.read(manifest), ["train"]).table
    assert drawn["label"].value_counts().min() == K
    assert found.vectors.dtype == np.float16


def test_stored_rows_are_not_computed_again(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop_predictor, "MAX_CROPS_WRITE_SHARE", 1e9)  # however fast a tiny network is
    asked, seen = made(manifest, tmp_path, "one"), list[int]()
    first, run = write_neighbours(asked), Prefix.__call__

    def counted(self: Prefix, images: np.ndarray) -> Any:
        seen.append(len(images))
        return run(self, images)

    monkeypatch.setattr(Prefix, "__call__", counted)
    again = write_neighbours(asked)
    np.testing.assert_allclose(again["distances"], first["distances"], atol=1e-5)
    assert seen == [crop_predictor.SAMPLE_CROPS] * 4  # that time the prefix, for training and test photos


def test_photos_that_are_gone_leave_the_model_as_it_is(manifest: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(manifest.parent, tmp_path / "pictures"))
    table = Manifest.read(manifest)
    Manifest(mine, table.classes, 0, table.table).write(mine / "manifest.parquet")
    asked = made(mine / "manifest.parquet", tmp_path, "one") | {"share": False}
    Manifest.read(mine / "manifest.parquet").split("train").paths()[0].unlink()
    found = write_neighbours(asked)
    assert [*found] == ["reason"]
    served = ServedModel(Path(asked["output"]))
    assert served.neighbours is None
    image = Manifest.read(manifest).split("test").paths()[0].read_bytes()
    assert np.isnan(served_distances(served, [image])).all()
    assert served.probabilities([image]).shape == (1, len(CLASSES))


def test_a_damaged_file_is_a_damaged_model(manifest: Path, tmp_path: Path) -> None:
    asked = made(manifest, tmp_path, "one")
    path = Path(asked["output"]) / NEIGHBOURS_FILE
    for arrays in ({"vectors": np.zeros((2, 3)), "k": 5}, {"vectors": np.full((6, 3), np.nan), "k": 5}, {"k": 5}):
        np.savez(path, **arrays)
        with pytest.raises(TrainerError, match="is damaged"):
            ServedModel(Path(asked["output"]))
    path.write_bytes(b"torn")
    with pytest.raises(TrainerError, match="is damaged"):
        ServedModel(Path(asked["output"]))
