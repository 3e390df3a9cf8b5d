"""A clean environment serves a champion over HTTP and answers a photo: ``make serve-test``.

Trains a small sweep on the digits (and, where ORCH_DATA and ORCH_WEIGHTS name photos and weights, one on a few photos
of TrashNet), promotes its winner, makes an environment that holds what the model's requirements.txt lists and nothing
else, and asks the champion there over HTTP and in Python, in every form it takes. Each answer must be the project's own
to 1e-5. Takes some minutes, most of them for the environment; needs a package index.

    python -m tests.support.serve_test [SWEEP]     a finished sweep's folder instead of the sweeps made here
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import artifacts
from PIL import Image

from orchestrator.ledger.folder import read_sweep
from orchestrator.paths import SweepPaths
from orchestrator.spec.load import load_spec
from orchestrator.tracking import registry
from orchestrator.tracking.settings import model_name
from tests.support.places import ROOT
from trainers.data.manifest import Manifest

CLOSE = 1e-5
STARTS_WITHIN_S = 240
PHOTOS_A_CLASS = 16
SMALL = {
    "budget": {"trials": 2, "epochs": 2, "scheduler": "none"},
    "final": {"runners_up": 0, "seeds": 2, "policies": ["whole", "flip", "random_2"]},
}
NOT_THERE = ("orchestrator", "trainers", "ray", "optuna", "typer")
"""Modules that the clean environment must not have."""

IN_PYTHON = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd
from PIL import Image
import mlflow
model = mlflow.pyfunc.load_model(f"models:/{sys.argv[1]}@champion")
path = sys.argv[2]
data, pixels = Path(path).read_bytes(), np.array(Image.open(path).convert("RGB"))
import base64
text = base64.b64encode(data).decode()
asked = {
    "a table of bytes": pd.DataFrame({"image": [data]}),
    "a table of base64 text": pd.DataFrame({"image": [text]}),
    "a table of Path": pd.DataFrame({"image": [Path(path)]}),
    "a table of pixels": pd.DataFrame({"image": [pixels]}),
    "a mapping": {"image": [data]},
    "bytes": data,
    "a list of base64 text": [text],
    "a data: URL": f"data:image/jpeg;base64,{text}",
    "a Path": Path(path),
    "one array": pixels,
    "an array of arrays": pixels[None],
}
answers = {name: model.predict(given)["probabilities"].tolist() for name, given in asked.items()}
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Champion:
    """A registered winner, a photo of its test split, and what the project says of it: class -> probability.

    ``of_pixels`` is what it says of the photo's full pixels: a JPEG file is decoded smaller where that is enough.
    """

    name: str
    version: str
    photo: Path
    expected: dict[str, float]
    of_pixels: dict[str, float]


def main() -> None:
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="orch-serve-test-") as name:
        folder = Path(name)
        store = f"sqlite:///{folder / 'mlflow.db'}"
        sweeps = [Path(sys.argv[1]).resolve()] if len(sys.argv) > 1 else make_sweeps(folder)
        champions = [promote(sweep, folder, store) for sweep in sweeps]
        python = clean_environment(folder, store, champions)
        asked = sum(ask(champion, python, folder, store) for champion in champions)
    print(
        f"serve-test: passed, {len(champions)} champion{'s' if len(champions) > 1 else ''} answered in {asked} ways, "
        f"{time.monotonic() - began_s:.0f} s"
    )


def tell(line: str) -> None:
    print(line, flush=True)


# --- champions ----------------------------------------------------------------------------------------------------


def make_sweeps(folder: Path) -> list[Path]:
    """The digits, and a few real photos where there are any."""
    specs = [digits(folder)]
    data, weights = os.environ.get("ORCH_DATA", ""), os.environ.get("ORCH_WEIGHTS", "")
    if data and weights and (Path(data) / "trashnet").is_dir():
        specs.append(trashnet(folder, Path(data) / "trashnet", Path(weights)))
    else:
        tell("note     ORCH_DATA and ORCH_WEIGHTS name no photos and weights; the digits alone are served")
    for spec in specs:
        tell(f"sweep    {spec.stem}")
        orch("sweep", str(spec), folder=folder)
    return [folder / "runs" / spec.stem for spec in specs]


def digits(folder: Path) -> Path:
    """Trained from scratch, with a head that is no softmax and an ensemble of two."""
    search = {"backbone": "small_cnn", "unfrozen_layers": "all", "head": "cosface", "learning_rate": [0.001, 0.003]}
    return write_spec(folder, "digits", {"data": {"source": "builtin:digits"}, "weights": "none", "search": search})


def trashnet(folder: Path, photos: Path, weights: Path) -> Path:
    """A pretrained backbone, part of it unfrozen, on a few photos of each class."""
    for kind in sorted(p for p in photos.iterdir() if p.is_dir()):
        (folder / "photos" / kind.name).mkdir(parents=True)
        for photo in sorted(kind.glob("*.jpg"))[:PHOTOS_A_CLASS]:
            shutil.copy(photo, folder / "photos" / kind.name)
    search = {
        "backbone": "mobilenet_0.25",
        "unfrozen_layers": [0, 6],
        "image_size": 64,
        "view": "centre_crop",
        "learning_rate": 0.001,
    }
    values = {"data": {"source": str(folder / "photos")}, "weights": str(weights), "search": search}
    return write_spec(folder, "trashnet", values)


def write_spec(folder: Path, name: str, values: dict[str, Any]) -> Path:
    """JSON is YAML."""
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({"name": name, "tracking": {"model": f"{name} served"}, **values, **SMALL}))
    return path


def orch(*words: str, folder: Path) -> None:
    """The command line, as a user has it."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    run([sys.executable, "-m", "orchestrator", *words], folder, environ)


def run(command: list[str], folder: Path, environ: dict[str, str], timeout_s: float = 1800) -> str:
    """What the command printed. Ends the test with what it said where it fails."""
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        sys.exit(f"serve-test: failed: {' '.join(command[:6])} ...\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def promote(sweep: Path, folder: Path, store: str) -> Champion:
    """Register the winner through the gate; the expected answer is what the sweep stored when it judged."""
    orch("promote", "best", str(sweep), folder=folder)
    paths = SweepPaths(sweep)
    name = model_name(load_spec(str(paths.spec), check_machine=False))
    found = registry.champion(store, name)
    if found is None:
        sys.exit(f"serve-test: failed: there is no champion of {name}.")
    manifest, winner = Manifest.read(paths.manifest), read_sweep(sweep).fact("winner")
    fits = json.loads((paths.winner / "model.json").read_text())["fits"]
    rows = [np.load(paths.probabilities(fit, "test", winner["policy"]))["probabilities"][0] for fit in fits]
    photo = manifest.split("test").paths()[0]
    expected = dict(zip(manifest.classes, np.mean(rows, 0).tolist(), strict=True))
    (text,) = registry.load_champion(store, name).predict(pixels(photo))["probabilities"]
    tell(f"champion {name} version {found.version}: {len(fits)} networks, crop policy {winner['policy']}")
    return Champion(name, found.version, photo, expected, json.loads(text))


def pixels(photo: Path) -> np.ndarray:
    return np.array(Image.open(photo).convert("RGB"))


# --- the clean environment ----------------------------------------------------------------------------------------


def clean_environment(folder: Path, store: str, champions: list[Champion]) -> Path:
    """The Python of an environment that holds what the models' requirements.txt list; they must list the same."""
    listed = {requirements(store, champion, folder) for champion in champions}
    if len(listed) != 1:
        sys.exit(f"serve-test: failed: the champions list different requirements:\n{'---'.join(sorted(listed))}")
    (text,) = listed
    (folder / "requirements.txt").write_text(text)
    tell(f"install  {', '.join(text.split())}")
    began_s = time.monotonic()
    run([sys.executable, "-m", "venv", str(folder / "clean")], folder, clean_environ(store))
    python = folder / "clean" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "-r", str(folder / "requirements.txt")]
    run(pip, folder, clean_environ(store) | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    code = f"import importlib.util as u; print([m for m in {NOT_THERE!r} if u.find_spec(m)])"
    there = run([str(python), "-c", code], folder, clean_environ(store)).strip()
    if there != "[]":
        sys.exit(f"serve-test: failed: the clean environment is not clean; it has {there}.")
    tell(f"clean    environment of {time.monotonic() - began_s:.0f} s, without {', '.join(NOT_THERE)}")
    return python


def requirements(store: str, champion: Champion, folder: Path) -> str:
    found = registry.champion(store, champion.name)
    assert found is not None
    listed = artifacts.download_artifacts(
        artifact_uri=f"{found.source}/requirements.txt", dst_path=str(folder), tracking_uri=store, registry_uri=store
    )
    return Path(listed).read_text()


def clean_environ(store: str) -> dict[str, str]:
    """This process's environment without what would lead back to the project."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {k: v for k, v in os.environ.items() if k not in ours and not k.startswith("ORCH_")}
    return kept | {"MLFLOW_TRACKING_URI": store, "TF_CPP_MIN_LOG_LEVEL": "3", "MLFLOW_DISABLE_TELEMETRY": "true"}


# --- asking -------------------------------------------------------------------------------------------------------


def ask(champion: Champion, python: Path, folder: Path, store: str) -> int:
    """Every form over HTTP and in Python; how many."""
    elsewhere = folder / f"elsewhere-{champion.name}"
    elsewhere.mkdir()
    with served(champion, python, elsewhere, store) as url:
        asked = ask_over_http(champion, url)
        refuse_over_http(champion, url)
    with served(champion, python, elsewhere, store, {"ORCH_SERVE_PATHS": "1"}) as url:
        asked += ask_by_path(champion, url)
    said = run([str(python), "-c", IN_PYTHON, champion.name, str(champion.photo)], elsewhere, clean_environ(store))
    answers = json.loads(said.splitlines()[-1])
    for form, (text,) in answers.items():
        check(champion, form, json.loads(text), "pixels" in form or "array" in form)
    tell(f"python   {champion.name}: {', '.join(answers)}")
    return asked + len(answers)


@contextlib.contextmanager
def served(
    champion: Champion, python: Path, folder: Path, store: str, variables: dict[str, str] | None = None
) -> Iterator[str]:
    """The address of ``mlflow models serve`` in the clean environment, once it answers."""
    port = free_port()
    command = [str(python), "-m", "mlflow", "models", "serve", "-m", f"models:/{champion.name}@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environ = clean_environ(store) | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"} | (variables or {})
    began_s, log = time.monotonic(), folder / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        while not answers_ping(url):
            if server.poll() is not None or time.monotonic() - began_s > STARTS_WITHIN_S:
                sys.exit(f"serve-test: failed: the server did not start.\n{log.read_text()[-4000:]}")
            time.sleep(0.5)
        tell(f"serving  {champion.name} at {url} after {time.monotonic() - began_s:.0f} s")
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers_ping(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask_over_http(champion: Champion, url: str) -> int:
    text = base64.b64encode(champion.photo.read_bytes()).decode()
    plain: dict[str, Any] = {
        "dataframe_split": {"dataframe_split": {"columns": ["image"], "data": [[text]]}},
        "dataframe_records": {"dataframe_records": [{"image": text}]},
        "inputs": {"inputs": [text]},
        "inputs by column": {"inputs": {"image": [text]}},
        "instances": {"instances": [{"image": text}]},
        "a data: URL": {"inputs": [f"data:image/jpeg;base64,{text}"]},
        "pixels": {"inputs": pixels(champion.photo).tolist()},
        "pixels in a table": {"dataframe_split": {"columns": ["image"], "data": [[pixels(champion.photo).tolist()]]}},
    }
    for form, body in plain.items():
        began_s = time.monotonic()
        status, said = post(url, json.dumps(body).encode(), "application/json")
        if status != 200:
            sys.exit(f"serve-test: failed: {form} was answered with {status}: {said[:2000]}")
        (row,) = json.loads(said)["predictions"]
        check(champion, form, json.loads(row["probabilities"]), "pixels" in form)
        if row["label"] != max(champion.expected, key=lambda name: champion.expected[name]) and "pixels" not in form:
            sys.exit(f"serve-test: failed: {form} was answered with the label {row['label']}.")
        tell(f"http     {form}: {row['label']} {row['probability']:.4f}, {1000 * (time.monotonic() - began_s):.0f} ms")
    table = io.StringIO()
    table.write(f"image\n{text}\n")
    status, said = post(url, table.getvalue().encode(), "text/csv")
    check(champion, "csv", json.loads(json.loads(said)["predictions"][0]["probabilities"]), False)
    several = {"inputs": [text] * 5}
    status, said = post(url, json.dumps(several).encode(), "application/json")
    if status != 200 or len(json.loads(said)["predictions"]) != 5:
        sys.exit(f"serve-test: failed: five photos were answered with {status}: {said[:2000]}")
    return len(plain) + 2


def ask_by_path(champion: Champion, url: str) -> int:
    """A file that the client names, of a server that was started with ORCH_SERVE_PATHS=1."""
    status, said = post(url, json.dumps({"inputs": [str(champion.photo)]}).encode(), "application/json")
    if status != 200:
        sys.exit(f"serve-test: failed: a path was answered with {status}: {said[:2000]}")
    check(champion, "a path", json.loads(json.loads(said)["predictions"][0]["probabilities"]), False)
    tell(f"http     a path, with ORCH_SERVE_PATHS=1: {status}")
    return 1


def refuse_over_http(champion: Champion, url: str) -> None:
    """What is no photo, or names one, is answered with 400 and a sentence, without a traceback."""
    for body, sentence in (
        ({"inputs": ["no such photo.jpg"]}, "image 1 of 1 is not base64 text: 'no such photo.jpg'."),
        ({"inputs": [str(champion.photo)]}, "image 1 of 1 is not base64 text: "),
        ({"inputs": ["AAAA"]}, "image 1 of 1 cannot be read: it is not an image of a known format."),
        ({"dataframe_records": [{"a": 1, "b": 2}]}, "the table needs a column image; it has a, b."),
        ({"inputs": [[[0.5, 0.5, 0.5]]]}, "image 1 of 1 holds float64 numbers; pixels must be whole numbers"),
    ):
        status, said = post(url, json.dumps(body).encode(), "application/json")
        told = json.loads(said)
        if status != 400 or not told["message"].startswith(sentence) or "stack_trace" in told:
            sys.exit(f"serve-test: failed: {body} was answered with {status}: {said[:2000]}")
        tell(f"http     {status}: {told['message']}")


def post(url: str, body: bytes, kind: str) -> tuple[int, str]:
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def check(champion: Champion, form: str, found: dict[str, float], from_pixels: bool) -> None:
    """Ends the test where an answer is not the project's own."""
    expected = champion.of_pixels if from_pixels else champion.expected
    if list(found) != list(expected):
        sys.exit(f"serve-test: failed: {form} was answered with the classes {list(found)}.")
    change = max(abs(found[name] - expected[name]) for name in expected)
    if not change <= CLOSE:
        sys.exit(f"serve-test: failed: {form} differs from the project's own probabilities by {change:.2g}.")


if __name__ == "__main__":
    main()
