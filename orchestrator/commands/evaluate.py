"""`orch evaluate`: a champion, a version or a sweep's winner on new labelled photos.

Photos that the model was trained, chosen or tested on are left out: they are recognised by content among those that the
model's evidence lists. No photo of the test split is opened. The figures are in ``evaluation.new_photos``.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from orchestrator.commands.named_photos import NamedPhotos, shown
from orchestrator.commands.predict import Champion, find_champion, model_of, predict_photos, progress_bar
from orchestrator.commands.prediction_rows import Prediction
from orchestrator.errors import DataError, OrchError
from orchestrator.evaluation.costs import read_costs
from orchestrator.evaluation.new_photos import Answers, Judged, TestAnswers, evaluate
from orchestrator.ledger.folder import read_sweep
from orchestrator.paths import RUNS, SweepPaths, cache_folder
from orchestrator.sweep.judged import judged_winner
from orchestrator.sweep.leaderboard import DESCRIPTOR_VERSION
from trainers.errors import TrainerError
from trainers.wording import count, nearest

if TYPE_CHECKING:
    from trainers.data.duplicates import Duplicates
    from trainers.data.listing import Listing

TEST = "test"
NAMED = "orch evaluate PHOTOS --model NAME"
"""With what a person names the model."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class EvaluatedModel:
    """The model to judge. ``name``: in words. ``seen``: the photos that it was trained, chosen and tested on, as its
    evidence lists them (``tracking.registry.EVIDENCE``), None if that is not known. ``load``: gives the model."""

    name: str
    classes: tuple[str, ...]
    seen: pd.DataFrame | None
    load: Callable[[], Any]


@dataclass(frozen=True)
class NewPhotos:
    """Labelled photos. ``table``: path (absolute), label, sha256, group, descriptor. ``trained``, ``tested``: paths of
    those left out because the model was trained or chosen, or tested, on them or on copies of them. ``unreadable``:
    path -> why."""

    table: pd.DataFrame
    trained: Sequence[str] = ()
    tested: Sequence[str] = ()
    unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)


def judge(
    sources: Sequence[str], model: EvaluatedModel, costs: Path | None, tell: Tell, warn: Tell | None = None
) -> Judged:
    """Judge ``model`` on the labelled photos of ``sources``. ``tell`` gets what is being done, ``warn`` warnings.

    Raises DataError for labels that the model does not know, and if no photo is left; TrainerError as
    ``trainers.data.sources.read.read_source`` does.
    """
    warn = warn or (lambda sentence: tell(f"warning  {sentence}"))
    table = None if costs is None else read_costs(costs, model.classes)
    photos = read_photos(sources, model, warn)
    tell(f"loading  {model.name}")
    loaded, rows = _Measuring(model.load()), list[Prediction]()
    named = NamedPhotos(photos.table["path"].tolist(), {})
    with progress_bar("evaluate", len(named.paths)) as advance:
        for batch in predict_photos(named, loaded):
            rows += batch
            advance(len(batch))
    photos, answers = _answered(model, photos, rows, loaded.distances)
    return Judged(
        model=model.name,
        paths=[shown(path) for path in photos.table["path"]],
        answers=answers,
        evaluation=evaluate(answers, _test_answers(model.seen), table),
        trained=[shown(path) for path in photos.trained],
        tested=[shown(path) for path in photos.tested],
        unreadable={shown(path): why for path, why in photos.unreadable.items()},
    )


class _Measuring:
    """A model that also measures how far each photo that it answers is from its training photos."""

    def __init__(self, model: Any) -> None:
        """``model``: a ``ServedModel``, or an MLflow pyfunc of one; an older one, or one of another make, measures
        nothing."""
        from trainers.serving.model import ServedModel

        try:
            found = model.get_raw_model() if hasattr(model, "get_raw_model") else None
        except NotImplementedError:  # of MLflow's wrapper, whatever it wraps
            found = None
        self._model, self._served = model, found if isinstance(found, ServedModel) and found.neighbours else None
        self._found: list[np.ndarray] = []

    @property
    def can_measure(self) -> bool:
        return self._served is not None

    @property
    def distances(self) -> np.ndarray | None:
        """Of the photos that were answered, in order, float (photos,)."""
        return np.concatenate([np.zeros(0), *self._found]) if self.can_measure else None

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        from trainers.serving.neighbours import served_distances

        answers = self._model.predict(frame)
        if self._served is not None:
            self._found.append(served_distances(self._served, frame["image"].tolist()))
        return answers


def _answered(
    model: EvaluatedModel, photos: NewPhotos, rows: Sequence[Prediction], distances: np.ndarray | None
) -> tuple[NewPhotos, Answers]:
    """Leave out photos without an answer, and return the answers to the others. ``distances``: of the others."""
    has_answer = np.array([not row.error for row in rows], bool)
    failed = {row.path: row.error for row in rows if row.error}
    photos = dataclasses.replace(
        photos, table=photos.table[has_answer].reset_index(drop=True), unreadable={**photos.unreadable, **failed}
    )
    if photos.table.empty:
        path, why = next(iter(failed.items()))
        raise DataError(f"there is no photo to judge by: {shown(path)} {why}")
    given = [row.probabilities or {} for row in rows if not row.error]
    if any({*each} != {*model.classes} for each in given):
        raise OrchError(f"{model.name} answers with other classes than those it was registered with; promote it again.")
    probabilities = np.array([[each[name] for name in model.classes] for each in given])
    place = {name: k for k, name in enumerate(model.classes)}
    labels = np.array([place[label] for label in photos.table["label"]])
    return photos, Answers(model.classes, labels, probabilities, photos.table["group"].tolist(), distances)


def _test_answers(seen: pd.DataFrame | None) -> TestAnswers | None:
    """Return what the evidence holds of the test split; None if it holds no answers."""
    if seen is None or "correct" not in seen:
        return None
    test = seen[(seen["role"] == TEST) & seen["correct"].notna()]
    if test.empty:
        return None
    groups = test["group"].tolist() if "group" in test else None
    certainty = test["probability"].to_numpy(float) if "probability" in test else None
    distances = test["distance"].to_numpy(float) if "distance" in test else None
    return TestAnswers(test["correct"].to_numpy(bool), groups, certainty, distances)


# --- the model ----------------------------------------------------------------------------------------------------


def registered_model(model: str | None, version: str | None) -> EvaluatedModel:
    """Return the champion of ``model``, by default of the newest sweep's, or its version called ``version``.

    Raises OrchError if there is none, TrackingError.
    """
    from orchestrator.tracking.registry import read_evidence

    champion = find_champion(model, NAMED) if version is None else _version(model, version)
    found = champion.version
    classes = tuple(json.loads(found.tags.get("orch.classes", "[]")))
    if not classes:
        raise OrchError(f"{found.name} version {found.version} does not say its classes; promote its sweep again.")
    sweep = found.tags.get("orch.sweep_name", "")
    seen = _with_manifest(
        read_evidence(champion.uri, found.name, found.version), Path(RUNS) / sweep, found.tags.get("orch.data", "")
    )
    of_sweep = f" of the sweep {sweep}" if sweep else ""
    return EvaluatedModel(f"{found.name} version {found.version}{of_sweep}", classes, seen, champion.load)


def _version(model: str | None, version: str) -> Champion:
    from orchestrator.tracking.champions import versions

    uri, name = model_of(model, NAMED)
    known = {info.version: info for info in versions(uri, name)}
    if version not in known:
        there = f"there are {', '.join(known)}" if known else "it has no versions"
        raise OrchError(f"there is no version {version} of {name}; {there}.")
    return Champion(uri, known[version])


def sweep_winner(folder: Path) -> EvaluatedModel:
    """Return the winner of the sweep in ``folder``, as it was judged. Raises OrchError if there is none."""
    sweep = read_sweep(folder)
    judged = judged_winner(sweep)
    try:
        seen = pd.read_parquet(io.BytesIO(sweep.kept.read(sweep.paths.evidence)))
        classes = tuple(json.loads((sweep.paths.winner / "model.json").read_text())["classes"])
    except (OSError, ValueError, KeyError) as error:  # of a sweep without checksums
        raise OrchError(f"{sweep.paths.winner} is damaged: {error}.") from error

    def load() -> Any:
        from orchestrator.machine.quiet_stderr import hushed
        from trainers.serving.model import ServedModel

        with hushed():
            return ServedModel(sweep.paths.winner)

    name = f"the winner of {sweep.paths.name}, {judged.row['model']} with the crop policy {judged.row['policy']}"
    return EvaluatedModel(name, classes, _with_manifest(seen, folder, ""), load)


def _with_manifest(evidence: pd.DataFrame | None, sweep: Path, fingerprint: str) -> pd.DataFrame | None:
    """Add groups and descriptors to evidence written before it had them, from the manifest of its sweep if that is in
    the folder ``sweep``.

    ``fingerprint``: of the data that the manifest must have; "" for any.
    """
    from trainers.data.manifest import DESCRIPTOR, Manifest
    from trainers.images.descriptor import VERSION

    if evidence is not None and DESCRIPTOR in evidence:
        known = DESCRIPTOR_VERSION in evidence and evidence[DESCRIPTOR_VERSION].eq(VERSION).all()
        return evidence if known else evidence.drop(columns=DESCRIPTOR)
    try:
        manifest = Manifest.read(SweepPaths(sweep).manifest, files=False)
    except TrainerError:
        return evidence
    if fingerprint and manifest.fingerprint != fingerprint:
        return evidence
    columns = [column for column in ("sha256", "group", DESCRIPTOR) if column in manifest.table]
    if evidence is None:
        return manifest.table[[*columns, "split", "label"]].rename(columns={"split": "role"})
    there = manifest.table[columns].drop_duplicates("sha256")
    added = there.drop(columns=[c for c in columns if c != "sha256" and c in evidence])
    found = evidence.merge(added, on="sha256", how="left")
    return found.assign(group=found["group"].fillna(found["sha256"]))


# --- the photos ---------------------------------------------------------------------------------------------------


def read_photos(sources: Sequence[str], model: EvaluatedModel, warn: Tell) -> NewPhotos:
    """Read labelled photos as training does, group duplicates, and leave out what ``model`` has seen."""
    from trainers.data.duplicates import find_duplicates, make_groups
    from trainers.data.listing import name_some
    from trainers.data.near_duplicates import Looks
    from trainers.data.scan import scan
    from trainers.data.sources.read import read_source

    listing = read_source(sources[0] if len(sources) == 1 else tuple(sources), cache_folder())
    if listing.problems:
        raise TrainerError("\n".join(listing.problems))
    for sentence in listing.warnings:
        warn(sentence)
    if listing.has_splits:
        warn("these photos have splits of their own, which are not used: all of them are judged.")
    _check_labels(listing, model)
    with Looks(folder=cache_folder()) as looks, progress_bar("read", len(listing.rows)) as advance:
        found = scan(listing, looks, lambda done, total: advance(1), cache_folder())
        usable = np.array([not photo.reason for photo in found], bool)
        rows = listing.rows[usable].reset_index(drop=True)
        readable = [photo for photo in found if not photo.reason]
        rows = rows.assign(sha256=[p.sha256 for p in readable], descriptor=[p.descriptor for p in readable])
        same = find_duplicates(rows, looks, cache_folder())
    rows["group"] = make_groups(rows, same, near_too=True).names
    bad = {path: photo.reason for path, photo in zip(listing.rows["path"], found, strict=True) if photo.reason}
    if bad:
        named = name_some(shown(path) for path in bad)
        warn(f"left out, because they cannot be read: {count(len(bad), 'photo')}, {named}.")
    if same.conflicts:
        named = name_some(" = ".join(map(shown, rows["path"][members])) for members in same.conflicts)
        warn(f"{count(len(same.conflicts), 'set')} of duplicates with different labels: {named}.")
    return _new(rows, listing.root, same, model, bad, warn)


def _new(
    rows: pd.DataFrame, root: Path, same: Duplicates, model: EvaluatedModel, bad: Mapping[str, str], warn: Tell
) -> NewPhotos:
    """Leave out the photos that the model has seen, and the copies of them in ``same``."""
    roles = _roles(rows, same, model.seen)
    if model.seen is None:
        warn(f"{model.name} does not list its photos, so photos that it was trained on cannot be left out.")
    elif "descriptor" not in model.seen:
        warn(f"{model.name} lists its photos by their bytes alone: those that were exported again count as new.")
    rows = rows.assign(path=[str(root / path) for path in rows["path"]])
    tested = rows["path"][roles == TEST].tolist()
    trained = rows["path"][(roles != TEST) & (roles != "")].tolist()
    table = rows[roles == ""].reset_index(drop=True)
    if table.empty:
        seen = f"{len(trained):,} of {len(rows):,} are photos that it was trained or chosen on, "
        seen += f"{len(tested):,} of its test split"
        raise DataError(
            f"there is no new photo to judge {model.name} by: {seen}." if len(rows) else _none_readable(bad)
        )
    return NewPhotos(table, trained, tested, bad)


def _none_readable(bad: Mapping[str, str]) -> str:
    path, why = next(iter(bad.items()))
    return f"there is no photo that can be read; {shown(path)}: {why}."


def _roles(rows: pd.DataFrame, same: Duplicates, seen: pd.DataFrame | None) -> np.ndarray:
    """Return for each photo the split of the model's data that holds it or a copy of it, object (photos,); "" if none.

    Training and validation come before test, where copies of a photo are in both.
    """
    from trainers.data.duplicates import same_photos

    roles = np.full(len(rows), "", dtype=object)
    if seen is None or rows.empty:
        return roles
    ordered = seen.assign(last=seen["role"] == TEST).sort_values("last", kind="stable").reset_index(drop=True)
    found = same_photos(rows, ordered)
    roles[found >= 0] = ordered["role"].to_numpy(object)[found[found >= 0]]
    for members in same.sets:
        known = sorted({roles[i] for i in members} - {""}, key=lambda role: role == TEST)
        if known:
            roles[members] = known[0]
    return roles


def _check_labels(listing: Listing, model: EvaluatedModel) -> None:
    """Raise DataError for labels that are no classes of the model, with the number of photos of each."""
    from trainers.data.listing import name_some

    counts = listing.rows["label"].value_counts()
    unknown = sorted({*counts.index} - {*model.classes})
    if not unknown:
        return
    named = [f"{label!r} ({count(int(counts[label]), 'photo')}){_instead(label, model.classes)}" for label in unknown]
    raise DataError(
        f"{model.name} does not know {count(len(unknown), 'label')}: {name_some(named)}. Its classes are "
        f"{name_some(model.classes, 40)}. Give the photos one of these names, or take them out."
    )


def _instead(label: str, classes: Sequence[str]) -> str:
    found = nearest(label, classes)
    return f", perhaps {found!r}" if found else ""
