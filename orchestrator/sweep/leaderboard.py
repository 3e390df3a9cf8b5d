"""The stage ``leaderboard``: read the test split, and rank every final model under every crop policy."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.evaluation import per_class
from orchestrator.evaluation.calibration import LabelledAnswers, calibrate, calibration_lines, effect_on_test
from orchestrator.evaluation.leaderboard import ModelPredictions, ensemble, rank, write
from orchestrator.evaluation.variance import groups_of_hashes, photos_in_words
from orchestrator.ledger.folder import Sweep
from orchestrator.ledger.kept import FILES, checksums, files_below
from orchestrator.ledger.looks import TEST, fingerprint_of_test, looks_at, record_look
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import CALIBRATED, Stage
from orchestrator.paths import cache_folder
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.judged import JudgedWinner, judged_in
from orchestrator.sweep.probabilities import predict_missing, read_probabilities
from orchestrator.sweep.refit import WINNER, FinalModel
from orchestrator.sweep.select import Winner
from trainers.calibration import Calibration
from trainers.config import TrialConfig
from trainers.data.manifest import DESCRIPTOR, Manifest
from trainers.files.atomic import atomic_write
from trainers.images import descriptor
from trainers.serving.model import CALIBRATION, MODEL_FILE
from trainers.serving.neighbours import NEIGHBOURS_FILE

if TYPE_CHECKING:
    import pandas as pd

STATISTICS = 4
"""Version of the formulas of intervals, p, the choice of the policy and the calibration, for ``audit``, which has them
once more: increase it when one changes."""

DESCRIPTOR_VERSION = "descriptor_version"
"""Column of the evidence: the version of its descriptors, which are compared only with those of the same one."""


@dataclass(frozen=True)
class Leaderboard:
    """``frame``: the rows, best first. ``probabilities``: of the winner on the test images, calibrated, (images,
    classes); ``labels``: theirs, int (images,)."""

    frame: pd.DataFrame
    probabilities: np.ndarray
    labels: np.ndarray


def build_leaderboard(
    sweep: SweepContext, manifest: Manifest, winner: Winner, models: Sequence[FinalModel]
) -> Leaderboard:
    """Read the test split: rank every model under every policy, and write the files and the winner's folder."""
    reads = {"networks": len(models), "policies": len(sweep.spec.final.policies)}
    winners = [m for m in models if m.group == WINNER and not m.is_form]
    others = [m for m in models if m.group == WINNER and m.is_form and m.member == winner.form]
    members = others or (winners if winner.form == "ensemble" else winners[:1])
    calibration, facts = _calibrate(sweep, manifest, winner, members)

    def reads_test(jobs: int, again: bool) -> None:
        test = fingerprint_of_test(manifest.split("test").table["sha256"])
        payload = {"repeats_test" if again else "reads_test": jobs, **reads, TEST: test}
        sweep.record(EventKind.STAGE, stage=Stage.LEADERBOARD, state="BEGUN", payload=payload)
        if not again:
            record_look(sweep.paths, sweep.ledger.events(), test)

    prefixes: dict[Hashable, list[str]] = {}
    for model in models:
        prefixes.setdefault(_prefix_of(model.config), []).append(model.fit)
    predict_missing(sweep, list(prefixes.values()), "test", reads_test)

    predictions, labels, hashes = _predictions(sweep, models)
    winner_row = (f"{WINNER}/ensemble" if len(members) > 1 else members[0].name, winner.policy)
    test = manifest.split("test").table
    groups = groups_of_hashes(hashes, test["sha256"], test["group"])
    frame = rank(predictions, labels, winner_row, groups)
    probabilities = next(p.probabilities for p in predictions if (p.model, p.policy) == winner_row)
    facts |= effect_on_test(calibration, LabelledAnswers(probabilities, labels, groups))
    write(frame, sweep.paths, calibration_lines(facts))
    per_class.write(per_class.per_class(labels, probabilities.argmax(1), manifest.classes, groups), sweep.paths)
    _write_winner(sweep, manifest, winner, members, calibration)
    probabilities = calibration.apply(np.asarray(probabilities, np.float64))
    write_evidence(sweep, manifest, probabilities, _measure_neighbours(sweep, members[0]))

    row = frame[frame["winner"]].iloc[0].to_dict()
    answers = [read_probabilities(sweep.kept(), m.fit, "test", winner.policy) for m in members]
    fits = tuple(m.fit for m in members)
    judged = JudgedWinner(winner.to_dict(), row, fits, judged_in=judged_in(answers))
    payload = judged.to_dict() | {"rows": len(frame), "models": [_facts(m) for m in models]}
    payload |= {"statistics": STATISTICS, CALIBRATED: facts}
    before = [sweep.paths.name_of(path) for path in sweep.kept().below(sweep.paths.winner)]
    payload[FILES] = {**dict.fromkeys(before), **checksums(sweep.paths, _judged_files(sweep, models))}
    sweep.record(EventKind.STAGE, stage=Stage.LEADERBOARD, state="ENDED", payload=payload)
    _warn_of_looks(sweep)
    return Leaderboard(frame, probabilities, labels)


def _judged_files(sweep: SweepContext, models: Sequence[FinalModel]) -> list[Path]:
    """List the files behind the figures and the winner, whose checksums tie a promoted model to what was judged."""
    paths = sweep.paths
    files = [paths.leaderboard_csv, paths.leaderboard_parquet, paths.leaderboard_md, paths.per_class]
    for model in models:
        files += files_below(paths.fit(model.fit))
        files += [paths.probabilities(model.fit, "test", policy) for policy in sweep.spec.final.policies]
    return files + files_below(paths.winner)


def _calibrate(
    sweep: SweepContext, manifest: Manifest, winner: Winner, members: Sequence[FinalModel]
) -> tuple[Calibration, dict[str, Any]]:
    """Fit the winner's calibration to photos that the networks asked have not trained on; return what to record.

    Those are the final networks if they were trained without the validation photos, else the winning trial's own:
    docs/decisions/0013-temperature-on-validation.md. Either way these photos chose them among the trials: the first
    final network has the trial's seed, so that it is the trial again.
    """
    held_out = sweep.spec.final.refit == "train" and not manifest.folds
    fits = [member.fit for member in members] if held_out else [winner.trial]
    source, validation = "no photos", None
    if manifest.folds or len(manifest.split("validation").table):
        if held_out:
            predict_missing(sweep, [fits], "validation", policies=[winner.policy])
        kept = sweep.kept()
        stored = [read_probabilities(kept, fit, "validation", winner.policy) for fit in fits]
        groups = groups_of_hashes(stored[0]["sha256"], manifest.table["sha256"], manifest.table["group"])
        validation = LabelledAnswers(ensemble([s["probabilities"] for s in stored]), stored[0]["labels"], groups)
        whose = "the networks that are served" if held_out else "the winning trial, trained on fewer photos"
        source = f"{photos_in_words(len(groups), len({*groups}))} of validation as answered by {whose}"
    calibration, reason = calibrate(validation, winner.chosen_among)
    facts = {"fits": fits, "source": source, "reason": reason, "chosen_among": winner.chosen_among}
    return calibration, calibration.to_dict() | facts


def _write_winner(
    sweep: SweepContext,
    manifest: Manifest,
    winner: Winner,
    members: Sequence[FinalModel],
    calibration: Calibration,
) -> None:
    """Have a worker assemble the winner's folder from its networks."""
    from orchestrator.cluster.jobs import run_jobs  # Ray: seconds to import

    job = {
        "fits": [str(sweep.paths.fit(m.fit).resolve()) for m in members],
        "output": str(sweep.paths.winner.resolve()),
        "classes": list(manifest.classes),
        "policy": winner.policy,
        "threads": 1,
        "precision": "float32",
        CALIBRATION: calibration.to_dict(),
    }
    kept = sweep.kept()
    kept.require(*(file for member in members for file in kept.below(sweep.paths.fit(member.fit))))
    for name in (MODEL_FILE, NEIGHBOURS_FILE):  # a folder that is half written is no model
        (sweep.paths.winner / name).unlink(missing_ok=True)
    run_jobs("trainers.serving.model:assemble", [job], tell=sweep.warn)


def _measure_neighbours(sweep: SweepContext, member: FinalModel) -> np.ndarray | None:
    """Have a worker write the training photos' features into the winner's folder; return the test photos' distances.

    None, with a warning, where photos can no longer be read: neither the ranking nor a prediction needs them.
    """
    from orchestrator.cluster.jobs import run_jobs  # Ray: seconds to import

    cpus, gpus = sweep.spec.resources.cpus, sweep.gpus_per_trial()
    job = {
        "fit": str(sweep.paths.fit(member.fit).resolve()),
        "output": str(sweep.paths.winner.resolve()),
        "manifest": str(sweep.paths.manifest.resolve()),
        "cache": str(cache_folder()),
        "share": sweep.share,
        "threads": 1,
        "gpu_memory_share": min(1.0, gpus),
    }
    (found,) = run_jobs("trainers.serving.neighbours:write_neighbours", [job], cpus, gpus=gpus, tell=sweep.warn)
    if "distances" in found:
        return np.array(found["distances"])
    sweep.warn(f"how far new photos are from these cannot be told later: {found['reason']}")
    return None


def _warn_of_looks(sweep: SweepContext) -> None:
    """Warn if the test split was read before, by this sweep or by others."""
    events = sweep.ledger.events()
    if sentence := looks_at(Sweep(sweep.paths, tuple(events), sweep.state())).sentence():
        sweep.warn(sentence)


def _prefix_of(config: TrialConfig) -> Hashable:
    """Return what decides the frozen part and its input; models that agree in it share its work."""
    return config.prefix(), config.framing


def _facts(model: FinalModel) -> dict[str, str]:
    """Record which fit a name on the leaderboard stands for."""
    return {"model": model.name, "fit": model.fit, "configuration": model.configuration}


def _predictions(
    sweep: SweepContext, models: Sequence[FinalModel]
) -> tuple[list[ModelPredictions], np.ndarray, np.ndarray]:
    """Return the predictions of every model, and the labels and hashes of their images."""
    predictions: list[ModelPredictions] = []
    labels, hashes, kept = np.zeros(0, np.int32), np.zeros(0, str), sweep.kept()
    for name in sweep.spec.final.policies:
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for model in models:
            stored = read_probabilities(kept, model.fit, "test", name)
            labels, hashes = stored["labels"], stored["sha256"]
            seconds, given = float(stored["seconds"]), model.configuration
            predictions.append(ModelPredictions(model.name, name, stored["probabilities"], seconds, given))
            if not model.is_form:
                groups.setdefault(model.group, []).append(stored)
        for group, members in groups.items():
            if len(members) > 1:
                shared = max(float(m["shared_seconds"]) for m in members)
                seconds = shared + sum(float(m["seconds"]) - float(m["shared_seconds"]) for m in members)
                mean = ensemble([m["probabilities"] for m in members])
                given = next(model.configuration for model in models if model.group == group)
                predictions.append(ModelPredictions(f"{group}/ensemble", name, mean, seconds, given))
    return predictions, labels, hashes


def write_evidence(
    sweep: SweepContext, manifest: Manifest, probabilities: np.ndarray, distances: np.ndarray | None = None
) -> None:
    """Write which images the winner was trained, chosen and tested on, and its answers: for the promotion gate and for
    ``orch evaluate``, which also need what recognises a photo that was exported again.

    ``probabilities``: of the test images, calibrated as the served model's, (images, classes). ``distances``: of the
    test images from the training images, (images,), as ``trainers.serving.neighbours`` measures them.
    """
    import pandas as pd

    kept = [column for column in ("sha256", "split", "label", "group", DESCRIPTOR) if column in manifest.table]
    table = manifest.table[kept].rename(columns={"split": "role"}).reset_index(drop=True)
    test = table["role"] == "test"
    table["predicted"] = pd.Series([None] * len(table), dtype="object")
    table.loc[test, "predicted"] = [manifest.classes[i] for i in probabilities.argmax(1)]
    table["correct"] = (table["predicted"] == table["label"]).where(test).astype("boolean")
    table["probability"] = pd.Series(probabilities.max(1), index=table.index[test], dtype="float64")
    if distances is not None:
        table["distance"] = pd.Series(distances, index=table.index[test], dtype="float64")
    if DESCRIPTOR in table:
        table[DESCRIPTOR_VERSION] = descriptor.VERSION
    with atomic_write(sweep.paths.evidence) as temporary:
        table.to_parquet(temporary)
