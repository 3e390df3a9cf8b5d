"""The code of docs/export.md, run on real exports of a tiny network: its answers are those of ``orch predict``.

The blocks run in a folder that holds the exported files, ``card.json`` and a photo.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from orchestrator.commands.export import ExportRequest, export_winner
from tests.support.exported_sweep import CALIBRATION, TFLITE, WITHOUT_EXTRAS, export_here, write_sweep
from tests.support.places import ROOT
from tests.support.tiny_fits import CLASSES
from trainers.export.formats import FORMATS
from trainers.export.preprocessing import preprocessing
from trainers.images.crops import crops
from trainers.images.pillow_reader import ORIENTATION
from trainers.images.policies import POLICIES, crop_names
from trainers.serving.model import ServedModel

PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
HAS_ONNX = all(importlib.util.find_spec(module) for module in FORMATS["onnx"].needs)
ALLOWED = {"hashlib", "io", "json", "zipfile", "numpy", "PIL", "tensorflow", "ai_edge_litert", "onnxruntime"}
"""What a person without this project has."""
ROWS = {
    row[0].strip("`/ "): float(row[-1]) for row in re.findall(r"^\| (`\S+`) \|(?:.*\|)? (\S+) \|$", PAGE, re.MULTILINE)
}
"""File -> the largest difference of a probability that the page states."""
FROM_BYTES = 0.001
"""The same of ``serve_bytes``."""


def blocks(heading: str) -> list[str]:
    """The code under ``heading``."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


(CROPS,) = blocks("Crops of a photo")


def run(folder: Path, *code: str) -> dict[str, Any]:
    """The names that ``code`` leaves behind, run in ``folder``."""
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in code:
            exec(compile(block, "docs/export.md", "exec"), names)
    return names


def encoded(image: Image.Image, kind: str, **values: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **values)
    return out.getvalue()


def photos() -> dict[str, bytes]:
    """Two sizes of JPEG, every EXIF orientation, and transparency."""
    draw = np.random.default_rng(3)
    colours = Image.fromarray(draw.integers(0, 200, (9, 12, 3)).astype(np.uint8)).resize(
        (60, 44), Image.Resampling.BICUBIC
    )
    colours = colours.filter(ImageFilter.GaussianBlur(2))
    colours.paste("blue", (0, 0, 30, 14))
    clear = colours.copy()
    clear.putalpha(Image.linear_gradient("L").resize(colours.size))
    found = {"rgba": encoded(clear, "PNG"), "large": encoded(colours.resize((900, 660)), "JPEG")}
    for value in range(1, 9):
        tags = Image.Exif()
        tags[ORIENTATION] = value
        found[f"exif {value}"] = encoded(colours, "JPEG", quality=95, exif=tags)
    return found


PHOTOS = photos()
FEW = ("rgba", "exif 6", "large")
"""Photos for runtimes that take a second to open a file."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ServedModel]:
    """The folder of the exports alone, and the model that was exported."""
    root = tmp_path_factory.mktemp("page")
    sweep = write_sweep(root / "sweep")
    with pytest.MonkeyPatch.context() as patch:
        export_here(patch)
        formats = (*WITHOUT_EXTRAS, *(["onnx"] if HAS_ONNX else []))
        export_winner(sweep.root, ExportRequest(formats=formats, out=root / "exports"))
    return root / "exports", ServedModel(sweep.winner)


def farthest(model: tuple[Path, ServedModel], names: Iterable[str], *code: str) -> float:
    """The largest difference of a probability from ``predict``'s, over the photos ``names``."""
    folder, served = model
    found = []
    for name in names:
        (folder / "photo.jpg").write_bytes(PHOTOS[name])
        expected = [*json.loads(served.predict([PHOTOS[name]])["probabilities"][0]).values()]
        found.append(np.abs(run(folder, CROPS, *code)["probabilities"] - expected).max())
    return float(max(found))


def test_the_page_states_a_tolerance_for_every_file() -> None:
    assert set(ROWS) == {row.file for row in FORMATS.values()}


def test_the_code_imports_nothing_of_this_project() -> None:
    everything = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(everything) == 7
    found = set()
    for node in (node for block in everything for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    assert found == ALLOWED


def test_orientation_and_transparency_change_the_answers_by_more_than_the_tolerances(
    model: tuple[Path, ServedModel],
) -> None:
    served = model[1]
    upright = served.probabilities([PHOTOS["exif 1"]])[0]
    flat = encoded(Image.open(io.BytesIO(PHOTOS["rgba"])).convert("RGB"), "PNG")
    others = [served.probabilities([PHOTOS[f"exif {value}"]])[0] for value in (3, 6, 8)]
    assert min(np.abs(other - upright).max() for other in others) > 10 * ROWS["model.tflite"]
    assert np.abs(served.probabilities([flat]) - served.probabilities([PHOTOS["rgba"]])).max() > FROM_BYTES


def test_calibration_changes_the_answers_by_more_than_the_tolerances(model: tuple[Path, ServedModel]) -> None:
    served = model[1]
    assert served.calibration == CALIBRATION
    before = served.probabilities([PHOTOS["exif 1"]])
    assert np.abs(served.calibration.apply(before) - before).max() > 10 * ROWS["model.tflite"]


def test_savedmodel(model: tuple[Path, ServedModel]) -> None:
    pixels, encoded_photos = blocks("SavedModel")
    assert farthest(model, FEW, pixels) < ROWS["savedmodel"]
    assert farthest(model, FEW[:2], encoded_photos) < FROM_BYTES
    assert f"at most {FROM_BYTES:g}" in PAGE


@pytest.mark.parametrize("name", TFLITE)
def test_tflite(model: tuple[Path, ServedModel], name: str) -> None:
    (code,) = blocks("TFLite")
    file = FORMATS[name].file
    code = code.replace('FILE = "model.tflite"', f'FILE = "{file}"')
    assert f'FILE = "{file}"' in code
    assert farthest(model, PHOTOS, code) < ROWS[file]


@pytest.mark.skipif(not HAS_ONNX, reason="the extra `onnx` is not installed")
def test_onnx(model: tuple[Path, ServedModel]) -> None:
    (code,) = blocks("ONNX")
    assert farthest(model, PHOTOS, code) < ROWS["model.onnx"]


def test_the_card_and_the_files_say_the_same(model: tuple[Path, ServedModel]) -> None:
    folder = model[0]
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    expected = {key: card[key] for key in ("classes", "policy", "photo", "preprocessing", "calibration")}
    tflite, onnx = blocks("Without `card.json`")
    for name in TFLITE:
        found = run(folder, tflite.replace("model.tflite", FORMATS[name].file))
        assert (found["labels"], found["usage"]) == (list(CLASSES), expected)
    assert json.loads((folder / "savedmodel" / "assets.extra" / "usage.json").read_text(encoding="utf-8")) == expected
    if HAS_ONNX:
        assert run(folder, onnx)["usage"] == expected


def test_the_page_lists_the_keys_of_the_card(model: tuple[Path, ServedModel]) -> None:
    card = json.loads((model[0] / "card.json").read_text(encoding="utf-8"))
    keys = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(keys) <= set(card)
    assert len(keys) == 7
    for name, entry in card["files"].items():
        assert {"signature", "inputs", "outputs", "note"} <= set(entry), name
    assert card["files"]["savedmodel"]["photos"]["policy"] == "flip"


@pytest.mark.parametrize("view", ["squash", "centre_crop"])
@pytest.mark.parametrize("policy", [*POLICIES, "random_3", "tests.support.tiny_fits:OWN_POLICY"])
def test_the_crops_are_those_of_predict(tmp_path: Path, policy: str, view: str) -> None:
    served: Any = SimpleNamespace(image_size=30, view=view, policy=policy, crop_names=crop_names(policy))
    (tmp_path / "card.json").write_text(json.dumps({"preprocessing": preprocessing(served)}))
    for data in PHOTOS.values():
        (tmp_path / "photo.jpg").write_bytes(data)
        names = run(tmp_path, CROPS)
        expected = crops(data, 30, view, policy, names["hashlib"].sha256(data).hexdigest())
        np.testing.assert_array_equal(names["crops"](data), expected)
