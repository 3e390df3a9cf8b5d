"""`orch export`: write the winner of a finished sweep in formats that run without this project, each tested.

A worker writes the files and has them predict the test split; ``export_report.decide`` judges each, and what it refuses
is deleted.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import ExportRefused, SpecError
from orchestrator.evaluation.export_report import (
    Export,
    ExportReport,
    ExportState,
    Figures,
    as_json,
    decide,
    figures,
    how_to_read,
    remarks,
    to_markdown,
    to_rich,
)
from orchestrator.evaluation.leaderboard import signed
from orchestrator.evaluation.variance import Groups
from orchestrator.ledger.folder import Sweep, locked_sweep
from orchestrator.ledger.kept import FILES, checksums, files_below
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.machine.environment import describe_environment
from orchestrator.machine.places import require_record, require_writable
from orchestrator.paths import SweepPaths
from orchestrator.spec.data_source import photo_folders, refuse_among_photos
from orchestrator.sweep.judged import (
    JudgedWinner,
    changed_by,
    judged_probabilities,
    judged_winner,
    not_as_judged,
    tolerance,
)
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.export.formats import FORMATS, ExportFormat, export_formats
from trainers.files.atomic import atomic_write_text

if TYPE_CHECKING:
    from rich.console import Console

BOUND = 0.01
"""Test accuracy that an export may lose by default; 0.01 = one point."""
THREADS = 1
"""Threads with which the latency is measured."""
REPORT, REPORT_JSON, CARD = "report.md", "report.json", "card.json"
Truth = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The winner's probabilities on the test photos, (photos, classes), their labels, and the names of their groups."""
LATENCY_FACTS = ("machine.cores", "machine.system", "version.tensorflow")


@dataclass(frozen=True)
class ExportRequest:
    """``formats``: names of ``trainers.export.formats``; () for all that are installed.

    ``out``: default ``exports`` in the sweep's folder. ``bound``: test accuracy that an export may lose. ``force``:
    keep what loses more, and record it. ``address``: a Ray cluster, "" for this machine.
    """

    formats: tuple[str, ...] = ()
    out: Path | None = None
    bound: float = BOUND
    force: bool = False
    address: str = ""


def export_winner(
    folder: Path, request: ExportRequest, tell: Callable[[str], None] = lambda line: None
) -> ExportReport:
    """Write the winner of the sweep in ``folder`` in the formats requested; return the report, which is written too.

    The ledger records that the test split is read before it is, and the result after; the sweep's lock is held
    throughout. A format that is refused or fails is not in the folder, nor is its file of an earlier export;
    ``refusal`` turns the report into an error. Raises OrchError if the sweep has no winner yet, is running, or was
    interrupted on the way to another winner, if its model is not what was judged, or if a format does not exist,
    and SpecError if ``out`` lies among the photos.
    """
    formats = _formats(request)
    out = request.out or SweepPaths(folder).exports
    require_writable(out, "Give another folder with --out DIR.")
    require_record(folder)
    with locked_sweep(folder) as (sweep, ledger):
        judged = judged_winner(sweep)
        manifest = Manifest.read(sweep.paths.manifest)
        refuse_among_photos("--out", out, photo_folders(manifest))
        original, labels = judged_probabilities(sweep, judged, manifest)
        names = [f.name for f in formats]
        ledger.append(EventKind.STAGE, stage=Stage.EXPORT, state="BEGUN", payload={"reads_test": 1, "formats": names})
        tell(f"export   {', '.join(names)} of {judged.row['model']}, asked about {len(labels)} test photos")
        for name in FORMATS if not request.formats else ():
            if name not in names:
                tell(f"note     {name} is left out: `pip install {' '.join(FORMATS[name].needs)}`")
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as staging:
            answer = _run(sweep, formats, Path(staging), request.address, lambda line: tell(f"warning  {line}"))
            _require_as_judged(sweep, judged, original, Path(staging))
            truth = original, labels, manifest.split("test").table["group"].to_numpy()
            report = _judge(sweep, judged, request, truth, answer, Path(staging))
            _place(report, Path(staging), out)
        atomic_write_text(out / REPORT, to_markdown(report))
        atomic_write_text(out / REPORT_JSON, as_json(report.to_dict()))
        atomic_write_text(out / CARD, as_json(_card(report, manifest, answer)))
        became = {e.name: {"state": str(e.state), "reason": e.reason} for e in report.exports}
        written = [file for name in (REPORT, REPORT_JSON, CARD, *_kept(report)) for file in _files(out / name)]
        payload = {"exports": became, "bound": request.bound, "folder": os.path.relpath(out, sweep.paths.root)}
        replaced = [sweep.paths.name_of(file) for made in report.exports for file in sweep.kept.below(out / made.file)]
        replaced += [sweep.paths.name_of(out / made.file) for made in report.exports]
        payload[FILES] = {**dict.fromkeys(replaced), **checksums(sweep.paths, written)}
        ledger.append(EventKind.STAGE, stage=Stage.EXPORT, state="ENDED", payload=payload)
    tell(f"export   {out}: {REPORT}, {CARD}")
    return report


def refusal(report: ExportReport) -> ExportRefused | None:
    """Return the error that names the formats refused and why; None if there is none."""
    if not report.refusals:
        return None
    return ExportRefused("\n".join(report.refusals))


def print_report(report: ExportReport, console: Console) -> None:
    """Print the table, remarks on what was not simply kept, and how to read it."""
    to_rich(report).print(console)
    for line in remarks(report):
        console.print(line, markup=False)
    if report.from_photos:
        console.print(report.from_photos, markup=False)
    console.print(how_to_read(report, columns=False), markup=False)


def installed_formats() -> tuple[str, ...]:
    """Return the names of the formats that can be written here: ONNX is an extra."""
    return tuple(name for name, row in FORMATS.items() if all(find_spec(module) for module in row.needs))


def _formats(request: ExportRequest) -> tuple[ExportFormat, ...]:
    if not 0 <= request.bound <= 1:
        raise SpecError(f"--bound is a share of the test photos from 0 to 1, as 0.01; not {request.bound:g}.")
    try:
        return export_formats(request.formats or installed_formats())
    except TrainerError as error:
        raise SpecError(f"--to: {error}") from error


def _run(
    sweep: Sweep, formats: tuple[ExportFormat, ...], staging: Path, address: str, warn: Callable[[str], None]
) -> dict[str, Any]:
    """Have a worker export into ``staging``, files and probabilities; return its answer."""
    from orchestrator.cluster.jobs import run_jobs  # Ray: seconds to import
    from orchestrator.cluster.ray_session import ray_session

    names = [f.name for f in formats]
    job = {
        "model": str(sweep.paths.winner.resolve()),
        "outputs": {f.name: str((staging / f.file).resolve()) for f in formats},
        "answers": {name: str(_answers(staging, name).resolve()) for name in (*names, "original", "serve_bytes")},
        "manifest": str(sweep.paths.manifest.resolve()),
        "split": "test",
        "threads": THREADS,
    }
    with ray_session(address):
        (answer,) = run_jobs("trainers.export.export:export", [job], cpus=THREADS, tell=warn)
    return answer


def _require_as_judged(sweep: Sweep, judged: JudgedWinner, original: np.ndarray, staging: Path) -> None:
    """Raise OrchError if the winner's answers, as the worker wrote them, are not those of the leaderboard."""
    with np.load(_answers(staging, "original")) as stored:
        rows = stored["probabilities"]
    sentence = "its photos or classes are others." if rows.shape != original.shape else ""
    if sentence := sentence or changed_by(np.abs(rows - original), tolerance(sweep, judged)):
        raise not_as_judged(sweep.paths, sentence)


def _answers(staging: Path, name: str) -> Path:
    return staging / "answers" / f"{name}.npz"


def _judge(
    sweep: Sweep,
    judged: JudgedWinner,
    request: ExportRequest,
    truth: Truth,
    answer: Mapping[str, Any],
    staging: Path,
) -> ExportReport:
    original, labels, objects = truth
    winner, row, groups = judged.winner, judged.row, Groups.of(objects, len(labels))

    def found(name: str) -> Figures:
        measured = answer["measured"][name]
        with np.load(_answers(staging, name)) as stored:
            rows = stored["probabilities"]
        return figures(rows, original, labels, groups, (measured["latency_ms"], measured["size_mb"]))

    exports = []
    for f in _formats(request):
        if f.name in answer["failed"]:
            exports.append(Export(f.name, f.file, ExportState.FAILED, answer["failed"][f.name], None))
            continue
        its = found(f.name)
        state, reason = decide(its, request.bound, request.force)
        exports.append(Export(f.name, f.file, state, reason, its, answer["notes"].get(f.name, "")))
    # The original keeps the leaderboard's accuracy; its speed and its answers are measured again.
    again = found("original")
    asked = figures(original, original, labels, groups, (again.latency_ms, again.size_mb))
    facts = describe_environment()
    return ExportReport(
        sweep=sweep.paths.name,
        trial=winner["trial"],
        model=row["model"],
        policy=winner["policy"],
        crops=int(answer["crops"]),
        photos=groups.images,
        objects=groups.count,
        bound=request.bound,
        threads=THREADS,
        original=replace(asked, largest_change=again.largest_change),
        exports=tuple(exports),
        from_photos=_from_photos(sweep, staging, truth, answer, winner["policy"]),
        facts={name.partition(".")[2]: facts[name] for name in LATENCY_FACTS if name in facts},
    )


def _from_photos(sweep: Sweep, staging: Path, truth: Truth, answer: Mapping[str, Any], policy: str) -> str | None:
    """Return sentences on how the SavedModel's ``serve_bytes`` does; None if there is none."""
    path = _answers(staging, "serve_bytes")
    if not path.is_file():
        return None
    with np.load(path) as stored:
        hashes, rows = stored["sha256"].tolist(), stored["probabilities"]
    if not hashes:
        return "The SavedModel's serve_bytes decoded none of the test photos; send it pixels."
    original, labels, objects = truth
    place = {h: i for i, h in enumerate(Manifest.read(sweep.paths.manifest).split("test").table["sha256"])}
    chosen = [place[h] for h in hashes]
    groups = Groups.of(objects[chosen], len(chosen))
    its = figures(rows, original[chosen], labels[chosen], groups, (math.nan, math.nan))
    used = answer["serve_bytes"]["policy"]
    other = "" if used == policy else f", not {policy}; for that, send crops to serving_default"
    return (
        "The SavedModel's serve_bytes, which decodes a photo by itself, applies EXIF orientation, lays transparency on "
        f"white and cuts by the policy {used}{other}. {answer['serve_bytes']['limits']}. It answers "
        f"{len(hashes)} of {len(labels)} test photos, {100 * its.accuracy:.1f} % of them correctly "
        f"({signed(its.difference.difference)} points against the original), {100 * its.same_label:.1f} % with the "
        f"original's label; the largest change of a probability is {its.largest_change:.2g}."
    )


def _place(report: ExportReport, staging: Path, out: Path) -> None:
    """Move what is kept from ``staging`` to ``out``; delete earlier files of the same formats."""
    for made in report.exports:
        target = out / made.file
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        if made.state.is_there:
            os.replace(staging / made.file, target)


def _kept(report: ExportReport) -> list[str]:
    return [made.file for made in report.exports if made.state.is_there]


def _files(path: Path) -> list[Path]:
    """Return the files of an export, which is a file or a folder."""
    return files_below(path) if path.is_dir() else [path]


def _card(report: ExportReport, manifest: Manifest, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is needed to use the files: classes, preprocessing, crops, inputs and outputs (docs/export.md)."""
    return {
        "sweep": report.sweep,
        "trial": report.trial,
        "model": report.model,
        "data": manifest.fingerprint,
        "classes": list(manifest.classes),
        "input": answer["input"],
        "policy": report.policy,
        "photo": answer["usage"]["photo"],
        "preprocessing": answer["usage"]["preprocessing"],
        "calibration": answer["usage"]["calibration"],
        "files": {
            e.file: {
                "format": e.name,
                "takes": FORMATS[e.name].pixels,
                "gives": FORMATS[e.name].answer,
                **answer["interfaces"][e.name],
                "test_accuracy": e.figures.accuracy if e.figures else None,
                "state": str(e.state),
                "note": e.note,
            }
            for e in report.exports
            if e.state.is_there
        },
        "original_test_accuracy": report.original.accuracy,
        "versions": dict(answer["versions"]),
    }
