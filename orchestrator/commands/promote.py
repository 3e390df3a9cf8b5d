"""`orch promote best`: from a finished sweep's folder to MLflow's registry.

Gathers the evidence for ``promotion_gate.decide`` and carries out its decision.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.commands.named_photos import shown
from orchestrator.errors import DataError, PromotionRefused, TrackingError
from orchestrator.evaluation.promotion_gate import (
    ALREADY_CHAMPION,
    MARGIN,
    Contender,
    Decision,
    JudgedImages,
    comparable,
    decide,
)
from orchestrator.ledger.folder import Sweep, locked_sweep
from orchestrator.ledger.kept import FileState
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.looks import looks_at
from orchestrator.ledger.segments import EventKind
from orchestrator.machine.places import require_record
from orchestrator.paths import command_line
from orchestrator.spec.load import load_spec
from orchestrator.sweep.judged import (
    JudgedAnswers,
    JudgedWinner,
    difference,
    judged_answers,
    judged_winner,
    not_as_judged,
    not_judged,
)
from orchestrator.sweep.leaderboard import DESCRIPTOR_VERSION
from orchestrator.tracking import registry
from orchestrator.tracking.champions import one_promotion, set_champion
from orchestrator.tracking.cursor import parent_run, read_cursor
from orchestrator.tracking.mlflow_store import without_password
from orchestrator.tracking.model_package import ModelDetails
from orchestrator.tracking.settings import model_name, tracking_settings
from orchestrator.tracking.tracker import synchronise
from trainers.backbones import backbone
from trainers.data import duplicates
from trainers.data.manifest import DESCRIPTOR, Manifest
from trainers.files.plain import batches, read_plain
from trainers.images.descriptor import VERSION

CHALLENGER = "the challenger"
MARGIN_TAG, COMPARED_TAG, SEEN_TAG = "orch.margin", "orch.compared_photos", "orch.seen_photos"
"""Tags of a champion: the gate's margin in points, the test photos that it compared on, those that it left out."""


@dataclass(frozen=True)
class Promotion:
    """The registered model, its version, and the gate's decision."""

    model: str
    version: str
    decision: Decision

    def __str__(self) -> str:
        if [reason.code for reason in self.decision.reasons] == [ALREADY_CHAMPION]:
            return f"{self.decision.reasons[0].sentence} Nothing was changed."
        return f"{self.decision.text}\n{self.model} version {self.version} is the champion."


def promote(
    folder: Path,
    allow: frozenset[str] = frozenset(),
    tell: Callable[[str], None] = lambda line: None,
    margin: float = MARGIN,
) -> Promotion:
    """Register the winner of the sweep in ``folder`` and make it the champion, if the gate allows it.

    ``allow``: codes of refusals to override, which the registry and the ledger record, as they do the ``margin``, a
    fraction. The sweep's lock is held throughout, so that every promotion reaches the ledger. Raises PromotionRefused
    with the figures, TrackingError if MLflow cannot be reached, OrchError if the sweep has no winner yet, is running,
    or was interrupted on the way to another winner, or if its files are not what was judged.
    """
    require_record(folder)
    with locked_sweep(folder) as (sweep, ledger):
        judged = judged_winner(sweep)
        if not sweep.paths.evidence.is_file():
            raise not_judged(sweep)
        row = judged.row
        tell(f"{folder}: {row['model']} with the crop policy {row['policy']}, test accuracy {row['accuracy']:.3f}")
        if looks := looks_at(sweep).sentence():
            tell(looks)
        sweep.kept.require(sweep.paths.spec)
        spec = load_spec(str(sweep.paths.spec), check_machine=False)
        uri, name = spec.tracking.uri, registry.check_model_name(model_name(spec))
        known_run = parent_run(sweep)
        if known_run:
            _require_store(sweep, uri)
        run_id = known_run or synchronise(folder, tracking_settings(spec)).parent_run_id
        manifest, objective = Manifest.read(sweep.paths.manifest), spec.final.choose.best or spec.objective[0]
        candidate = _Candidate(sweep, judged, manifest, uri, name, run_id, objective, tell)
        with one_promotion(uri, name):
            return _promote(candidate, ledger, allow, margin)


@dataclass(frozen=True)
class _Candidate:
    """The winner to promote: its sweep, and the registered model called ``name`` in the store at ``uri``."""

    sweep: Sweep
    judged: JudgedWinner
    manifest: Manifest
    uri: str | None
    name: str
    run_id: str
    objective: str
    tell: Callable[[str], None]


def _promote(candidate: _Candidate, ledger: Ledger, allow: frozenset[str], margin: float) -> Promotion:
    """Decide, register and move the alias; decide again if another machine has moved it meanwhile."""
    uri, name, judged, manifest = candidate.uri, candidate.name, candidate.judged, candidate.manifest
    challenger = _challenger(candidate)
    version = ""
    while True:
        champion = registry.champion(uri, name)
        if champion is not None and _is_same(champion, judged, candidate.run_id, candidate.sweep.paths.winner):
            this = Contender(name, champion.version, manifest.classes, {}, frozenset())
            return Promotion(name, champion.version, decide(this, this, JudgedImages({}, {})))
        images = _judged_images(manifest)
        opponent = None if champion is None else _champion_contender(candidate, champion, challenger, images)
        decision = decide(challenger, opponent, images, allow, objective=candidate.objective, margin=margin)
        note: dict[str, Any] = {"promotion": "refused", "model": name, "margin": margin, "text": decision.text}
        if not decision.allowed:
            ledger.append(EventKind.NOTE, payload=note)
            raise PromotionRefused(decision.text)
        version = version or _register(candidate)
        overridden = [reason.code for reason in decision.reasons if reason.overridden]
        decided_against = champion.version if champion is not None else None
        if set_champion(uri, name, version, overridden, instead_of=decided_against, facts=_facts(decision, margin)):
            note |= {"promotion": "champion", "version": version, "overridden": overridden}
            ledger.append(EventKind.NOTE, payload=note)
            return Promotion(name, version, decision)
        candidate.tell(f"another champion of {name} was made meanwhile; comparing with that one")


def _facts(decision: Decision, margin: float) -> dict[str, str]:
    """Return the tags that say what the gate decided on; none for a first champion, which was compared with none."""
    if decision.comparison is None:
        return {}
    counts = {COMPARED_TAG: str(decision.compared), SEEN_TAG: str(decision.left_out)}
    return {MARGIN_TAG: f"{100 * margin:g}", **counts}


def _register(candidate: _Candidate) -> str:
    """Register the winner if it answers as it was judged; return the version."""
    sweep, judged, manifest = candidate.sweep, candidate.judged, candidate.manifest
    answers = judged_answers(sweep, judged, manifest)
    if len(answers.photos) < answers.wanted:
        where = f"{len(answers.photos)} of {answers.wanted}"
        candidate.tell(f"warning  only {where} test photos are still in {manifest.root} to ask the model about again")
    details = _details(sweep, judged, manifest, candidate.run_id)
    return registry.register(candidate.uri, candidate.name, sweep.paths.winner, details, _check(sweep, answers))


def _check(sweep: Sweep, answers: JudgedAnswers) -> Callable[[Any], None]:
    def check(model: Any) -> None:
        if sentence := difference(answers, model):
            raise not_as_judged(sweep.paths, sentence)

    return check


def _require_store(sweep: Sweep, uri: str | None) -> None:
    """Raise TrackingError if the store to promote into was never written to; nothing is created."""
    path = registry.missing_database(uri)
    if path is None:
        return
    sent_to = read_cursor(sweep.paths.tracking_cursor).uri
    if registry.missing_database(sent_to) == path:
        raise TrackingError(
            f"the MLflow database {path} is gone, and with it the runs of this sweep, the registered models and their "
            "history. Put it back from a copy; or send the sweep again with "
            f"`{command_line('sync', sweep.paths.root)}` and promote again: its winner is then the first champion."
        )
    raise TrackingError(
        f"there is no MLflow database {path}, so no run of this sweep. Its runs are in {without_password(sent_to)}: "
        "set MLFLOW_TRACKING_URI to that, type the command in the folder where the sweep ran, or send the sweep here "
        f"with `{command_line('sync', sweep.paths.root)}` and promote again."
    )


def _challenger(candidate: _Candidate) -> Contender:
    sweep, manifest = candidate.sweep, candidate.manifest
    path = sweep.paths.evidence
    try:
        evidence = pd.read_parquet(io.BytesIO(sweep.kept.read(path)))
        copies = _torn_copies(manifest)
        answers, seen = _answers(evidence), _seen(evidence)
        return Contender(CHALLENGER, "", manifest.classes, answers, seen, copies, _networks(candidate))
    except (OSError, ValueError, KeyError) as error:  # of a sweep without checksums
        raise sweep.kept.damaged(path, FileState.DIFFERENT, "is damaged: it is not a table of photos") from error


def _is_same(champion: registry.ChampionInfo, judged: JudgedWinner, run_id: str, folder: Path) -> bool:
    """Whether the champion is made of the same networks, or of the same trial if it does not name them, has the same
    temperature, and, where its digest is known, is the model in ``folder`` (so that its thresholds are the same, too).
    """
    tags, winner = champion.tags, judged.winner
    if champion.run_id != run_id or tags.get("orch.policy") != winner["policy"]:
        return False
    if judged.temperature is not None and tags.get(registry.TEMPERATURE) != repr(judged.temperature):
        return False
    known = tags.get(registry.MODEL_SHA256)
    if known is not None and known != registry.model_digest(registry.folder_hashes(folder)):
        return False
    if "orch.fits" in tags:
        return bool(json.loads(tags["orch.fits"]) == list(judged.fits))
    return tags.get("orch.trial") == winner["trial"]


def _networks(candidate: _Candidate) -> tuple[str, ...]:
    """Return the challenger's ``Contender.networks``."""
    return (candidate.run_id, str(candidate.judged.winner["policy"]), *candidate.judged.fits)


def _networks_of(champion: registry.ChampionInfo) -> tuple[str, ...]:
    """Return the champion's ``Contender.networks``; () if it does not name its networks."""
    fits = json.loads(champion.tags.get("orch.fits", "[]"))
    return (champion.run_id, champion.tags.get("orch.policy", ""), *fits) if fits else ()


def _judged_images(manifest: Manifest) -> JudgedImages:
    """The labels and groups of the test images by content."""
    test = manifest.split("test").table
    return JudgedImages(
        dict(zip(test["sha256"], test["label"], strict=True)), dict(zip(test["sha256"], test["group"], strict=True))
    )


def _answers(evidence: pd.DataFrame) -> dict[str, str]:
    """Map the sha256 of a test image to the class that the model gave it."""
    test = evidence[(evidence["role"] == "test") & evidence["predicted"].notna()]
    return {str(sha): str(label) for sha, label in zip(test["sha256"], test["predicted"], strict=True)}


def _seen(evidence: pd.DataFrame) -> frozenset[str]:
    return frozenset(evidence.loc[evidence["role"] != "test", "sha256"])


def _shown_in(asked: pd.DataFrame, known: pd.DataFrame) -> frozenset[str]:
    """Return the sha256 of those photos of ``asked`` that ``known`` shows, by bytes or by content.

    The only place where photos are matched for the gate. Both have sha256 and, except for those written before 2026-12,
    a descriptor, by which a photo is known that was saved again at another size or quality.
    """
    if asked.empty or known.empty:
        return frozenset()
    return frozenset(asked["sha256"][duplicates.same_photos(asked, known) >= 0])


def _torn_copies(manifest: Manifest) -> frozenset[str]:
    """Return the sha256 of test photos that show a photo of training or validation, where own splits tear groups."""
    test, others = manifest.split("test").table, manifest.split("train", "validation").table
    return _shown_in(test[test["group"].isin(set(others["group"]))], others[others["group"].isin(set(test["group"]))])


def _seen_by(evidence: pd.DataFrame, test: pd.DataFrame) -> frozenset[str]:
    """Return the sha256 of the photos of ``test`` on which the model with this evidence was trained or chosen.

    A file that it was tested on is not compared by content: of photos that look alike, that one is known to be new.
    """
    trained = evidence["role"] != "test"
    before, tested = _comparable_descriptors(evidence[trained]), set(evidence.loc[~trained, "sha256"])
    return _shown_in(test[~test["sha256"].isin(tested - set(before["sha256"]))], before)


def _comparable_descriptors(evidence: pd.DataFrame) -> pd.DataFrame:
    """Return ``evidence`` without descriptors of another version, which cannot be compared."""
    known = DESCRIPTOR_VERSION in evidence and evidence[DESCRIPTOR_VERSION].eq(VERSION).all()
    return evidence if known else evidence.drop(columns=DESCRIPTOR, errors="ignore")


def _champion_contender(
    candidate: _Candidate, champion: registry.ChampionInfo, challenger: Contender, images: JudgedImages
) -> Contender:
    """Return the champion on the challenger's test images: its answers in its own sweep, else those it gives now.

    It is not asked about images that are left out of the comparison.
    """
    uri, test = candidate.uri, candidate.manifest.split("test")
    evidence = registry.read_evidence(uri, champion.name, champion.version)
    seen, known = frozenset[str](), dict[str, str]()
    if evidence is not None:
        seen, known = _seen_by(evidence, test.table), _answers(evidence)
    classes = tuple(json.loads(champion.tags.get("orch.classes", "[]")))
    found = Contender(champion.name, champion.version, classes, known, seen, networks=_networks_of(champion))
    compared, hashes = comparable(challenger, found, images), test.table["sha256"].tolist()
    asked = [i for i, h in enumerate(hashes) if h in compared.labels and h not in known]
    if asked:
        model = registry.load_champion(uri, champion.name)
        candidate.tell(f"asking the champion about {len(asked)} test images that it has not seen before")
        paths = test.paths()
        require_there([paths[i] for i in asked])
        given: list[str] = []
        for batch in batches(paths[i] for i in asked):
            given += list(model.predict(pd.DataFrame({"image": [read_plain(path) for path in batch]}))["label"])
        known |= {hashes[i]: str(answer) for i, answer in zip(asked, given, strict=True)}
    return replace(found, answers=known)


def require_there(paths: Sequence[Path]) -> None:
    """Raise DataError, with what to do, if photos to ask the champion about are gone."""
    gone = [path for path in paths if not path.is_file()]
    if gone:
        raise DataError(
            f"{len(gone)} of the {len(paths)} test photos to ask the champion about are gone, {shown(str(gone[0]))} "
            "first. Put them back, or sweep again without them, `orch sweep FILE --fresh`, and promote that."
        )


def _details(sweep: Sweep, judged: JudgedWinner, manifest: Manifest, run_id: str) -> ModelDetails:
    from orchestrator.machine.environment import git_commit

    winner, row = judged.winner, judged.row
    return ModelDetails(
        run_id=run_id,
        sweep=sweep.paths.name,
        trial=winner["trial"],
        policy=winner["policy"],
        form=row["model"],
        accuracy=row["accuracy"],
        accuracy_low=row["accuracy_low"],
        accuracy_high=row["accuracy_high"],
        data=manifest.fingerprint,
        classes=manifest.classes,
        example=read_plain(manifest.split("test").paths()[0]),
        commit=git_commit(),
        modules=own_modules(winner["config"]),
        fits=judged.fits,
        calibration=judged.calibration,
        extra_tags={
            registry.MODEL_SHA256: registry.model_digest(registry.folder_hashes(sweep.paths.winner)),
            "orch.test_photos": str(len(manifest.split("test").table)),
            **({} if judged.temperature is None else {registry.TEMPERATURE: repr(judged.temperature)}),
        },
    )


def own_modules(config: Mapping[str, Any]) -> tuple[str, ...]:
    """List the user's modules that a configuration's network needs: of its dotted names, and of their builders."""
    names = [str(config.get(field, "")) for field in ("backbone", "head")]
    dotted = [name for name in names if ":" in name]
    builders = [backbone(name).builder for name in names[:1] if name in dotted]
    modules = dict.fromkeys(name.partition(":")[0] for name in dotted + builders)
    return tuple(m for m in modules if m.partition(".")[0] not in ("trainers", "keras", "tensorflow"))
