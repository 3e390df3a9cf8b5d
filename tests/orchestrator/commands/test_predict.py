"""`orch predict`: what comes back, streamed, interrupted and resumed, with a champion that is no network."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console

from orchestrator.commands import predict
from orchestrator.commands.named_photos import NamedPhotos, list_photos
from orchestrator.commands.prediction_rows import Prediction
from orchestrator.errors import OrchError
from orchestrator.tracking import registry
from tests.support.asked_models import AskedModel, asked_champion, write_files
from tests.support.photos_on_disk import HOSTILE, write_hostile
from tests.support.places import ROOT
from tests.support.sweep_on_disk import write_sweep
from trainers.errors import TrainerError
from trainers.files.plain import AT_ONCE


def asked(folder: Path, *named: Path, model: AskedModel | None = None) -> list[Prediction]:
    photos = list_photos([str(folder), *map(str, named)])
    return [row for batch in predict.predict_photos(photos, model or AskedModel()) for row in batch]


def bad_photos(folder: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    (folder / "b.JPG").write_bytes(b"a long picture")
    (folder / "a.png").write_bytes(b"brief")
    (folder / "deep" / "c.webp").write_bytes(b"bad")
    (folder / "deep" / "d.webp").write_bytes(b"bad too")


@pytest.mark.timeout(20)
def test_what_is_no_plain_file_is_answered_with_its_reason(tmp_path: Path) -> None:
    write_hostile(tmp_path / "p")
    (tmp_path / "p" / "proc.jpg").symlink_to("/proc/kmsg")
    (tmp_path / "p" / "a.png").write_bytes(b"brief")
    named = [tmp_path / "p" / name for name in HOSTILE if name != "folder.jpg"]
    found = {one.path: one for one in asked(tmp_path / "p", *named)}
    assert len(found) == len(HOSTILE) + 2
    for name, reason in HOSTILE.items():
        error = found[str(tmp_path / "p" / name)].error
        assert error.startswith("cannot be read: it ")
        assert reason in error
    assert found[str(tmp_path / "p" / "a.png")].label == "short"


@pytest.mark.parametrize(("gives_reasons", "calls"), [(True, 2), (False, 5)])
def test_bad_photos_cost_the_others_nothing(gives_reasons: bool, calls: int, tmp_path: Path) -> None:
    bad_photos(tmp_path / "photos")
    model = AskedModel(gives_reasons)
    found = asked(tmp_path / "photos", tmp_path / "missing.jpg", model=model)
    said = "cannot be read: cannot decode\nan image." if gives_reasons else "cannot decode an image"
    assert [(Path(p.path).name, p.label, p.error) for p in found] == [
        ("a.png", "short", ""),
        ("b.JPG", "long", ""),
        ("c.webp", None, said),
        ("d.webp", None, said),
        ("missing.jpg", None, "there is no such file."),
    ]
    assert model.calls == calls
    assert found[1].to_dict() == {
        "path": str(tmp_path / "photos" / "b.JPG"),
        "label": "long",
        "probability": found[1].probability,
        "probabilities": {"long": 0.75, "short": 0.25},
    }


def test_good_photos_are_asked_about_together(tmp_path: Path) -> None:
    for i in range(AT_ONCE + 1):
        (tmp_path / f"{i:03}.png").write_bytes(b"x")
    model = AskedModel()
    assert len(asked(tmp_path, model=model)) == AT_ONCE + 1
    assert model.calls == 2


def test_a_batch_is_limited_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "LARGEST_TOGETHER", 25)
    for i in range(7):
        (tmp_path / f"{i}.png").write_bytes(b"x" * 10)
    model = AskedModel()
    assert len(asked(tmp_path, model=model)) == 7
    assert model.calls == 4


def test_only_two_batches_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading waits for the model: the third batch is read when the first is answered."""
    read: list[int] = []
    kept = predict._read
    monkeypatch.setattr(predict, "_read", lambda photos, at: (read.append(at), kept(photos, at))[1])
    write_files(tmp_path, 5 * AT_ONCE)
    answers = predict.predict_photos(list_photos([str(tmp_path)]), AskedModel(True))
    next(answers)
    time.sleep(0.2)
    assert len(read) == 2 * AT_ONCE
    assert sum(map(len, answers)) == 4 * AT_ONCE


def test_the_rest_comes_out_as_without_an_interruption(tmp_path: Path) -> None:
    """Floats of a network depend on the batch in their last digits, so batches must not move."""
    write_files(tmp_path, 3 * AT_ONCE)
    photos = list_photos([str(tmp_path)])
    whole = [row for batch in predict.predict_photos(photos, AskedModel(True)) for row in batch]
    for kept in (1, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE + 5, 3 * AT_ONCE):
        done = {row.path: 1 for row in whole[:kept]}
        rest = [row for batch in predict.predict_photos(photos, AskedModel(True), done) for row in batch]
        assert rest == whole[kept:]


def test_a_photo_that_is_named_twice_is_answered_twice(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    photos = NamedPhotos([str(tmp_path / "a.png")] * 3, {})
    (rest,) = predict.predict_photos(photos, AskedModel(), {str(tmp_path / "a.png"): 1})
    assert len(rest) == 2


def test_without_a_name_the_newest_sweep_says_which_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted: list[tuple[str | None, str]] = []

    def known(uri: str | None, name: str) -> registry.ChampionInfo:
        wanted.append((uri, name))
        return registry.ChampionInfo(name, "7", "", {}, "")

    monkeypatch.setattr(registry, "require_champion", known)
    with pytest.raises(OrchError, match=r"which model\? there is no sweep\. .*`orch predict PATH --model NAME`"):
        predict.find_champion(None)
    write_sweep(tmp_path / "runs" / "tiny")
    assert predict.find_champion(None).address == "models:/digits/7"
    assert predict.find_champion("garbage").address == "models:/garbage/7"
    assert wanted == [(None, "digits"), (None, "garbage")]


def test_the_ways_of_writing_agree(tmp_path: Path) -> None:
    write_files(tmp_path / "p", AT_ONCE + 6)
    parts: list[bytes] = []
    said: list[str] = []
    photos, asked = list_photos([str(tmp_path / "p"), "nowhere"]), predict.Asked(asked_champion(), said.append)
    failed = predict.predict_to_json(photos, asked, parts.append)
    rows = json.loads(b"".join(parts))
    assert predict.predict_to_csv(photos, asked, tmp_path / "a.csv", False) == failed
    with open(tmp_path / "a.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(r["path"], r.get("label", ""), r.get("error", "")) for r in rows] == [
        (r["path"], r["label"], r["error"]) for r in table
    ]
    assert failed == sum("error" in row for row in rows) >= AT_ONCE // 7
    out = io.StringIO()
    assert predict.predict_to_terminal(photos, asked, Console(file=out, width=300)) == failed
    assert len(out.getvalue().splitlines()) == len(rows) == AT_ONCE + 7
    assert said == [
        "loading  models:/garbage/1",
        "loading  models:/garbage/1",
        f"71 rows in {tmp_path / 'a.csv'}, {failed} of them with an error.",
        "loading  models:/garbage/1",
    ]


def test_a_finished_file_needs_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "p", 9)
    photos, champion = list_photos([str(tmp_path / "p")]), asked_champion()
    asked = predict.Asked(champion, print)
    failed = predict.predict_to_csv(photos, asked, tmp_path / "a.csv", False)
    monkeypatch.setattr(type(champion), "load", lambda self: pytest.fail("loaded"))
    assert predict.predict_to_csv(photos, asked, tmp_path / "a.csv", True) == failed > 0


class UnsureModel:
    """Sure of long files alone. ``schema``: None as of a model from before a precision could be asked."""

    def __init__(self, schema: object = "a schema") -> None:
        self.metadata = SimpleNamespace(get_params_schema=lambda: schema)

    def predict(self, frame: pd.DataFrame, params: dict[str, float] | None = None) -> pd.DataFrame:
        wanted = (params or {}).get("precision", 0.0)
        if wanted > 0.97:
            raise TrainerError("no threshold reaches it.")
        unsure = [len(image) < 10 and wanted > 0 for image in frame["image"]]
        said = [json.dumps({"long": 0.75, "short": 0.25})] * len(unsure)
        answer = {"label": ["" if u else "long" for u in unsure], "probability": 0.75, "probabilities": said}
        return pd.DataFrame(answer | ({"reason": ["unsure" if u else "" for u in unsure]} if wanted else {}))


def asked_for(model: UnsureModel, precision: float) -> predict.Asked:
    champion = SimpleNamespace(address="models:/garbage/1", load=lambda: model)
    return predict.Asked(champion, lambda line: None, precision)  # type: ignore[arg-type]


def test_a_wanted_precision_leaves_photos_without_a_label(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"brief")
    (tmp_path / "b.png").write_bytes(b"a long picture")
    photos, parts = list_photos([str(tmp_path)]), list[bytes]()
    assert predict.predict_to_json(photos, asked_for(UnsureModel(), 0.95), parts.append) == 0
    rows = json.loads(b"".join(parts))
    assert [(row["label"], row.get("reason")) for row in rows] == [(None, "unsure"), ("long", None)]
    predict.predict_to_csv(photos, asked_for(UnsureModel(), 0.95), tmp_path / "a.csv", False)
    with open(tmp_path / "a.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["label"], row["reason"], row["precision"]) for row in table] == [
        ("", "unsure", "0.95"),
        ("long", "", "0.95"),
    ]


def test_a_precision_that_the_model_cannot_give_stops_before_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"brief")
    photos = list_photos([str(tmp_path)])
    with pytest.raises(OrchError, match=r"--precision: no threshold reaches it\."):
        predict.predict_to_csv(photos, asked_for(UnsureModel(), 0.99), tmp_path / "a.csv", False)
    with pytest.raises(OrchError, match="models:/garbage/1 has no thresholds for a wanted precision: it was reg"):
        predict.predict_to_csv(photos, asked_for(UnsureModel(None), 0.9), tmp_path / "a.csv", False)
    assert not (tmp_path / "a.csv").exists()


# --- in a process of its own ---------------------------------------------------------------------------------------


def typed(*arguments: object, given: bytes | None = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tests.support.asked_models", "predict", *map(os.fspath, arguments)]  # type: ignore[call-overload]
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, timeout=60, check=False)


def test_standard_input_a_pipe_and_odd_names(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/gr\xfcn\n.png"
    with open(odd, "wb") as file:
        file.write(b"x" * 11)
    done = typed("-", odd, "https://example.org/a.jpg", "--json", given=b"brief")
    rows = json.loads(done.stdout.decode("utf-8", "strict"))
    assert [row.get("label") for row in rows] == ["short", "long", None]
    assert [row["path"] for row in rows] == ["-", f"file://{tmp_path}/gr%FCn%0A.png", "https://example.org/a.jpg"]
    assert rows[2]["error"].startswith(
        "it is an address, and only files are read; download it first: `curl -O https://"
    )
    assert (done.returncode, done.stderr) == (3, b"")


def test_killed_at_half_and_resumed_the_rows_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    write_files(tmp_path / "p", 3000)
    assert typed(tmp_path / "p", "--csv", tmp_path / "whole.csv").returncode == 3
    whole, file = (tmp_path / "whole.csv").read_bytes(), tmp_path / "a.csv"
    command = [sys.executable, "-m", "tests.support.asked_models", "predict", str(tmp_path / "p"), "--csv", str(file)]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while not file.exists() or file.stat().st_size < len(whole) // 2:
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    running.send_signal(signal.SIGKILL)
    running.wait()
    left = file.read_bytes()
    assert len(whole) // 2 <= len(left) < len(whole)
    file.write_bytes(left[:-9])  # as a power cut leaves it
    assert typed(tmp_path / "p", "--csv", file).returncode == 2
    done = typed(tmp_path / "p", "--csv", file, "--resume")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"loading  models:/garbage/1\n3,000 rows in " in done.stderr
    assert file.read_bytes() == whole


PEAK = """
import sys
from tests.support import asked_models
before = lambda: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))
try:
    asked_models.main()
finally:
    print(before(), file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_memory_hardly_grows_with_the_number_of_photos(tmp_path: Path) -> None:
    """100,000 names of 50 files of 0.5 MB, 50 GB if they were kept."""
    for i in range(50):
        (tmp_path / f"{i}.bin").write_bytes(os.urandom(500_000))
    peaks = {}
    for count in (1000, 100_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(count):
            os.link(tmp_path / f"{i % 50}.bin", folder / f"{i:06}.jpg")
        command = [sys.executable, "-c", PEAK, "predict", str(folder), "--csv", str(tmp_path / f"{count}.csv")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks[count] = int(done.stderr.split()[-1]) // 1024
    assert peaks[100_000] < peaks[1000] + 150
    assert peaks[100_000] < 600
    with open(tmp_path / "100000.csv") as file:
        assert sum(1 for _ in file) == 100_001
