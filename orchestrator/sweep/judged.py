"""The winner that the last finished leaderboard judged, as its stage recorded it; for promotion and export.

What is promoted or exported is what was judged: the winner's files are compared with the checksums that were recorded
with the figures, and the model predicts some of the test photos again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.errors import OrchError
from orchestrator.evaluation.leaderboard import ensemble
from orchestrator.ledger.folder import Sweep, leaderboards
from orchestrator.ledger.kept import FILES, FileState
from orchestrator.ledger.segments import Event
from orchestrator.ledger.stages import CALIBRATED
from orchestrator.paths import SweepPaths, command_line
from orchestrator.sweep.probabilities import read_probabilities
from trainers.calibration import Calibration, tempered
from trainers.data.manifest import Manifest
from trainers.files.arrays import DAMAGED
from trainers.files.plain import Unreadable, read_plain
from trainers.serving.model import MODEL_FILE

AGAIN_PHOTOS = 8
"""Number of test photos that a model predicts again before it is promoted."""
LOOK_AT_MOST = 200
"""Maximum test photos to look for on the disk until ``AGAIN_PHOTOS`` are found."""
TOLERANCE, HALF_TOLERANCE = 1e-3, 0.05
"""Maximum change of a probability between the leaderboard and now: judged in float32, as it is served, and in half
precision, as on GPUs before 2026-12. Machines differ by less than 1e-5 in float32, two swapped classes by up to 1."""
JUDGED_IN = "judged_in"
"""Key of the record: the precision and device in which the winner's networks predicted, and the tolerance of that."""


@dataclass(frozen=True)
class JudgedWinner:
    """``winner``: as selection recorded it (``Winner.to_dict``). ``row``: its row of the leaderboard. ``fits``: ids of
    the networks in its folder. ``files``: name in that folder -> SHA-256, {} in sweeps without checksums.
    ``judged_in``: as ``judged_in`` returns it, {} where that was not recorded. ``calibration``: of its probabilities,
    None in sweeps from before 2026-12."""

    winner: Mapping[str, Any]
    row: Mapping[str, Any]
    fits: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    judged_in: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    @property
    def temperature(self) -> float | None:
        """None in sweeps from before 2026-12, as 1."""
        return None if self.calibration is None else self.calibration.temperature

    def to_dict(self) -> dict[str, Any]:
        """The record, a part of the payload of the event that ends the leaderboard, which has the checksums itself."""
        record = {"judged": dict(self.winner), "winner_row": dict(self.row), "fits": list(self.fits)}
        return record | ({JUDGED_IN: dict(self.judged_in)} if self.judged_in else {})


@dataclass(frozen=True)
class JudgedAnswers:
    """Test photos and the winner's probabilities when it was judged, calibrated, float (photos, classes).

    ``wanted``: number of photos that were looked for. ``tolerance``: maximum change of a probability.
    """

    classes: tuple[str, ...]
    photos: tuple[bytes, ...]
    probabilities: np.ndarray
    wanted: int
    tolerance: float


def judged_winner(sweep: Sweep) -> JudgedWinner:
    """Return the winner of the last finished leaderboard, whatever was selected since.

    Raises OrchError if there is none, if a later run that did not finish left another model in the winner's folder, or
    if a file of that folder is not what was judged.
    """
    record = _last_record(sweep.events)
    path = sweep.paths.winner / MODEL_FILE
    if record is None or not path.is_file():
        raise not_judged(sweep)
    prefix = sweep.paths.name_of(sweep.paths.winner) + "/"
    files = {name.removeprefix(prefix): sha for name, sha in record.get(FILES, {}).items() if name.startswith(prefix)}
    fits, how = tuple(record["fits"]), record.get(JUDGED_IN) or {}
    calibration = Calibration.from_dict(record[CALIBRATED]) if CALIBRATED in record else None
    judged = JudgedWinner(record["judged"], record["winner_row"], fits, files, how, calibration)
    try:
        described = json.loads(path.read_text())
        found = described["fits"], described["policy"]
    except DAMAGED as error:
        raise sweep.kept.damaged(path, FileState.DIFFERENT, "is damaged: it does not describe a model") from error
    if found != (list(judged.fits), judged.winner["policy"]):
        raise OrchError(
            f"{sweep.paths.root} was given more to do after its last leaderboard and did not finish, so its model and "
            f"its figures are not of the same winner; {_resume(sweep)}"
        )
    sweep.kept.require(sweep.paths.manifest, *(sweep.paths.winner / name for name in judged.files))
    return judged


def _last_record(events: Sequence[Event]) -> dict[str, Any] | None:
    """Return the payload with which the last leaderboard ended; None if none recorded what it judged."""
    records = [e.data for e in leaderboards(events) if {"judged", "winner_row", "fits"} <= {*e.data}]
    return dict(records[-1]) if records else None


def judged_probabilities(sweep: Sweep, judged: JudgedWinner, manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """Return the winner's stored probabilities on the test photos before calibration, (photos, classes), and their
    labels.

    Raises OrchError if they are damaged, or not of the manifest's test photos.
    """
    members = [read_probabilities(sweep.kept, fit, "test", judged.winner["policy"]) for fit in judged.fits]
    hashes = manifest.split("test").table["sha256"].tolist()
    shape = (len(hashes), len(manifest.classes))
    if any(m["sha256"].tolist() != hashes or m["probabilities"].shape != shape for m in members):
        resume = command_line("sweep", "--resume", "--out", sweep.paths.root)
        raise OrchError(
            f"the probabilities in {sweep.paths.root} are not of the test photos of its manifest; "
            f"`{resume}` makes them again."
        )
    return ensemble([member["probabilities"] for member in members]), members[0]["labels"]


def judged_answers(sweep: Sweep, judged: JudgedWinner, manifest: Manifest) -> JudgedAnswers:
    """Return up to ``AGAIN_PHOTOS`` test photos that are still on the disk, drawn by a hash, and their probabilities.

    A photo whose content has changed counts as gone.
    """
    rows, _ = judged_probabilities(sweep, judged, manifest)
    test = manifest.split("test")
    hashes, paths = test.table["sha256"].tolist(), test.paths()
    drawn = sorted(range(len(hashes)), key=lambda i: hashlib.sha256(f"{judged.fits} {hashes[i]}".encode()).digest())
    found: dict[int, bytes] = {}
    for i in drawn[:LOOK_AT_MOST]:
        if len(found) < AGAIN_PHOTOS and (photo := _photo(paths[i], hashes[i])) is not None:
            found[i] = photo
    wanted = min(AGAIN_PHOTOS, len(hashes))
    temperature = judged.temperature or 1.0
    served = tempered(rows[list(found)], temperature)
    largest = tolerance(sweep, judged) / min(1.0, temperature)  # a change of a logit is divided by it
    return JudgedAnswers(manifest.classes, tuple(found.values()), served, wanted, largest)


def _photo(path: Path, sha256: str) -> bytes | None:
    try:
        content = read_plain(path)
    except Unreadable:
        return None
    return content if hashlib.sha256(content).hexdigest() == sha256 else None


def judged_in(members: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Return how the stored probabilities of the winner's networks came about: precision, device, tolerance.

    {} if one of them does not say, as in older sweeps. Where networks or workers differ, words are joined by commas.
    """
    found = {name: {str(member.get(name, "")) for member in members} for name in ("precision", "device")}
    if any("" in {word for words in said for word in words.split(",")} for said in found.values()):
        return {}
    words = {name: sorted({word for words in said for word in words.split(",")}) for name, said in found.items()}
    allowed = TOLERANCE if words["precision"] == ["float32"] else HALF_TOLERANCE
    return {**{name: ",".join(each) for name, each in words.items()}, "tolerance": allowed}


def tolerance(sweep: Sweep, judged: JudgedWinner) -> float:
    """Return the maximum change of a probability since the leaderboard, by the precision in which it was judged.

    As recorded then, whatever machine continued the sweep since; in older sweeps by its precision and last machine.
    """
    if judged.judged_in:
        return float(judged.judged_in["tolerance"])
    precision, machine = sweep.fact("precision") or "auto", sweep.fact("machine") or {}
    on_gpu = float(machine.get("gpus_per_trial", 0)) > 0
    return HALF_TOLERANCE if precision.startswith("mixed") or (precision == "auto" and on_gpu) else TOLERANCE


def difference(answers: JudgedAnswers, model: Any) -> str:
    """Return a sentence if ``model`` answers otherwise than it was judged, else "".

    ``model.predict``: takes a table with a column ``image``, returns one with ``probabilities``, JSON: class ->
    probability, as a registered model does.
    """
    import pandas as pd

    if not answers.photos:
        return ""
    given = [json.loads(text) for text in model.predict(pd.DataFrame({"image": answers.photos}))["probabilities"]]
    unknown = sorted({*answers.classes} ^ {*given[0]})
    if unknown:
        return f"its classes are not those that were judged: {', '.join(map(repr, unknown[:5]))} differ."
    rows = np.array([[row[name] for name in answers.classes] for row in given])
    return changed_by(np.abs(rows - answers.probabilities), answers.tolerance)


def changed_by(changes: np.ndarray, largest: float) -> str:
    """Return a sentence if one of ``changes`` of probabilities, (photos, classes), is above ``largest``, else ""."""
    worst = float(changes.max()) if changes.size else 0.0
    if worst <= largest:
        return ""
    photos = int((changes.max(1) > largest).sum())
    return (
        f"it does not answer as it was judged: a probability differs by {worst:.2g} from that of the leaderboard, on "
        f"{photos} of {len(changes)} test photos by more than {largest:g}."
    )


def not_as_judged(paths: SweepPaths, sentence: str) -> OrchError:
    """Return the error for a winner's folder that answers otherwise than it was judged."""
    resume = command_line("sweep", "--resume", "--out", paths.root)
    return OrchError(f"the model in {paths.winner} was changed: {sentence} `{resume}` writes and judges it again.")


def not_judged(sweep: Sweep) -> OrchError:
    """Return the error for a sweep without a winner."""
    return OrchError(f"{sweep.paths.root} has no finished leaderboard, so no winner; {_resume(sweep)}")


def _resume(sweep: Sweep) -> str:
    return f"resume it: `{command_line('sweep', '--resume', '--out', sweep.paths.root)}`"
