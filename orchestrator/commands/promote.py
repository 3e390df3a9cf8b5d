"""`orch promote best`: from a finished sweep's folder to MLflow's registry.

Gathers the evidence for ``promotion_gate.decide`` and carries out its decision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.errors import PromotionRefused
from orchestrator.evaluation.promotion_gate import (
    ALREADY_CHAMPION,
    Contender,
    Decision,
    JudgedImages,
    decide,
)
from orchestrator.ledger.folder import Sweep, locked_sweep
from orchestrator.ledger.segments import EventKind
from orchestrator.machine.places import require_record
from orchestrator.spec.load import load_spec
from orchestrator.sweep.judged import JudgedWinner, judged_winner, not_judged
from orchestrator.tracking import registry
from orchestrator.tracking.cursor import parent_run
from orchestrator.tracking.model_package import ModelDetails
from orchestrator.tracking.settings import model_name, tracking_settings
from orchestrator.tracking.tracker import synchronise
from trainers.backbones import backbone
from trainers.data.manifest import Manifest
from trainers.files.plain import batches, read_plain

CHALLENGER = "the challenger"


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
    folder: Path, allow: frozenset[str] = frozenset(), tell: Callable[[str], None] = lambda line: None
) -> Promotion:
    """Register the winner of the sweep in ``folder`` and make it the champion, if the gate allows it.

    ``allow``: codes of refusals to override, which the registry and the ledger record. The sweep's lock is held
    throughout, so that every promotion reaches the ledger. Raises PromotionRefused with the figures, TrackingError if
    MLflow cannot be reached, OrchError if the sweep has no winner yet, is running, or was interrupted on the way to
    another winner.
    """
    require_record(folder)
    with locked_sweep(folder) as (sweep, ledger):
        judged = judged_winner(sweep)
        if not sweep.paths.evidence.is_file():
            raise not_judged(sweep)
        row = judged.row
        tell(f"{folder}: {row['model']} with the crop policy {row['policy']}, test accuracy {row['accuracy']:.3f}")
        spec = load_spec(str(sweep.paths.spec), check_machine=False)
        uri, name = spec.tracking.uri, registry.check_model_name(model_name(spec))
        run_id = parent_run(sweep) or synchronise(folder, tracking_settings(spec)).parent_run_id
        champion = registry.champion(uri, name)
        manifest = Manifest.read(sweep.paths.manifest)
        if champion is not None and _is_same(champion, judged, run_id):
            this = Contender(name, champion.version, manifest.classes, {}, frozenset())
            return Promotion(name, champion.version, decide(this, this, JudgedImages({}, {})))
        evidence = pd.read_parquet(sweep.paths.evidence)
        challenger = Contender(CHALLENGER, "", manifest.classes, _answers(evidence), _seen(evidence))
        opponent = None if champion is None else _champion_contender(uri, champion, manifest, tell)
        objective = spec.final.choose.best or spec.objective[0]
        decision = decide(challenger, opponent, _judged_images(manifest), allow, objective=objective)
        note: dict[str, Any] = {"promotion": "refused", "model": name, "text": decision.text}
        if not decision.allowed:
            ledger.append(EventKind.NOTE, payload=note)
            raise PromotionRefused(decision.text)
        overridden = [reason.code for reason in decision.reasons if reason.overridden]
        version = registry.register(uri, name, sweep.paths.winner, _details(sweep, judged, manifest, run_id))
        registry.set_champion(uri, name, version, overridden)
        note |= {"promotion": "champion", "version": version, "overridden": overridden}
        ledger.append(EventKind.NOTE, payload=note)
    return Promotion(name, version, decision)


def _is_same(champion: registry.ChampionInfo, judged: JudgedWinner, run_id: str) -> bool:
    """Whether the champion is made of the same networks, or of the same trial if it does not name them."""
    tags, winner = champion.tags, judged.winner
    if champion.run_id != run_id or tags.get("orch.policy") != winner["policy"]:
        return False
    if "orch.fits" in tags:
        return bool(json.loads(tags["orch.fits"]) == list(judged.fits))
    return tags.get("orch.trial") == winner["trial"]


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


def _champion_contender(
    uri: str | None, champion: registry.ChampionInfo, manifest: Manifest, tell: Callable[[str], None]
) -> Contender:
    """Return the champion on the challenger's test images: its answers in its own sweep, else those it gives now."""
    evidence = registry.read_evidence(uri, champion.name, champion.version)
    known = {} if evidence is None else _answers(evidence)
    seen = frozenset() if evidence is None else _seen(evidence)
    test = manifest.split("test")
    hashes = test.table["sha256"].tolist()
    asked = [i for i, h in enumerate(hashes) if h not in known]
    if asked:
        model = registry.load_champion(uri, champion.name)
        tell(f"asking the champion about {len(asked)} test images that it has not seen before")
        paths = test.paths()
        answers: list[str] = []
        for batch in batches(paths[i] for i in asked):
            answers += list(model.predict(pd.DataFrame({"image": [read_plain(path) for path in batch]}))["label"])
        known |= {hashes[i]: str(answer) for i, answer in zip(asked, answers, strict=True)}
    classes = tuple(json.loads(champion.tags.get("orch.classes", "[]")))
    return Contender(champion.name, champion.version, classes, known, seen)


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
    )


def own_modules(config: Mapping[str, Any]) -> tuple[str, ...]:
    """List the user's modules that a configuration's network needs: of its dotted names, and of their builders."""
    names = [str(config.get(field, "")) for field in ("backbone", "head")]
    dotted = [name for name in names if ":" in name]
    builders = [backbone(name).builder for name in names[:1] if name in dotted]
    modules = dict.fromkeys(name.partition(":")[0] for name in dotted + builders)
    return tuple(m for m in modules if m.partition(".")[0] not in ("trainers", "keras", "tensorflow"))
