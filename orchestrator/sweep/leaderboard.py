"""The last stage: the test split is read, and every final model is ranked under every crop policy."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import OrchError
from orchestrator.evaluation.leaderboard import ModelPredictions, ensemble, rank, write
from orchestrator.ledger.folder import Sweep
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import SweepState, trials_frame
from orchestrator.paths import command_line
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.probabilities import predict_missing, read_probabilities
from orchestrator.sweep.refit import WINNER, FinalModel
from orchestrator.sweep.select import Winner
from trainers.config import TrialConfig
from trainers.data.manifest import Manifest
from trainers.serving.model import MODEL_FILE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class JudgedWinner:
    """The winner of the last finished leaderboard.

    ``winner``: as it was chosen (``Winner.to_dict``). ``row``: its row. ``fits``: the networks in its folder, which
    folders written by earlier versions do not name.
    """

    winner: Mapping[str, Any]
    row: Mapping[str, Any]
    fits: tuple[str, ...]


def build_leaderboard(
    sweep: SweepContext, manifest: Manifest, winner: Winner, models: Sequence[FinalModel]
) -> pd.DataFrame:
    """Read the test split: every model under every policy, ranked; the files, the figures and the winner's folder."""
    from orchestrator.cluster.ray_session import run_jobs

    policies = len(sweep.spec.final.policies)

    def reads_test(jobs: int) -> None:
        sweep.record(EventKind.STAGE, stage=Stage.LEADERBOARD, state="BEGUN", payload={"reads_test": jobs})
        sweep.tell(f"judge    {len(models)} networks under {policies} crop policies on the test split")

    prefixes: dict[Hashable, list[str]] = {}
    for model in models:
        prefixes.setdefault(_prefix_of(model.config), []).append(model.fit)
    predict_missing(sweep, list(prefixes.values()), "test", reads_test)

    predictions, labels = _predictions(sweep, models)
    winners = [m for m in models if m.group == WINNER]
    form = winner.form if len(winners) > 1 else "single"
    winner_row = (f"{WINNER}/ensemble" if form == "ensemble" else winners[0].name, winner.policy)
    frame = rank(predictions, labels, winner_row)
    write(frame, sweep.paths)

    members = winners if form == "ensemble" else winners[:1]
    job = {
        "fits": [str(sweep.paths.fit(m.fit).resolve()) for m in members],
        "output": str(sweep.paths.winner.resolve()),
        "classes": list(manifest.classes),
        "policy": winner.policy,
        "threads": 1,
        "precision": "float32",
    }
    (sweep.paths.winner / MODEL_FILE).unlink(missing_ok=True)  # a folder that is half written is no model
    run_jobs("trainers.serving.model:assemble", [job], tell=sweep.tell)
    chosen = next(p for p in predictions if (p.model, p.policy) == winner_row)
    write_evidence(sweep, manifest, chosen.probabilities.argmax(1))
    _draw(sweep, manifest, frame, chosen, labels)
    row = frame[frame["winner"]].iloc[0].to_dict()
    facts = {
        "winner_row": row,
        "judged": winner.to_dict(),
        "rows": len(frame),
        "models": [_facts(m) for m in models],
    }
    sweep.record(EventKind.STAGE, stage=Stage.LEADERBOARD, state="ENDED", payload=facts)
    looks = sum("reads_test" in event.data for event in sweep.ledger.events() if event.kind == EventKind.STAGE)
    if looks > 1:
        sweep.tell(f"warning  the test split was read {looks} times for this sweep; each look makes it less of a test")
    return frame


def judged_winner(sweep: Sweep) -> JudgedWinner:
    """What the last finished leaderboard judged, whatever was chosen since, and the folder holds.

    Raises OrchError where there is none, and where a later run that did not finish left another model in the folder.
    """
    ended = [e for e in sweep.events if e.kind == EventKind.STAGE and e.state == "ENDED"]
    boards = [e for e in ended if e.stage == Stage.LEADERBOARD and e.data.get("winner_row")]
    chosen = [e for e in ended if e.stage == Stage.SELECT and e.data.get("winner")]
    path = sweep.paths.winner / MODEL_FILE
    if not boards or not path.is_file():
        raise not_judged(sweep)
    facts, described = boards[-1].data, json.loads(path.read_text())
    winner, row = facts.get("judged"), facts["winner_row"]
    if winner is None:  # an earlier version wrote it down when it was chosen alone
        if not chosen or chosen[-1].seq > boards[-1].seq:
            raise _half_way(sweep)
        winner = chosen[-1].data["winner"]
    members = [m for m in facts.get("models", ()) if m["model"].partition("/")[0] == WINNER]
    whole = row["model"] == f"{WINNER}/ensemble"
    expected = [m["fit"] for m in members if whole or m["model"] == row["model"]]
    fits = described.get("fits", [])
    if (expected and fits and fits != expected) or described.get("policy", winner["policy"]) != winner["policy"]:
        raise _half_way(sweep)
    return JudgedWinner(winner, row, tuple(fits))


def not_judged(sweep: Sweep) -> OrchError:
    """The error that says that there is no winner yet."""
    return OrchError(f"{sweep.paths.root} has no finished leaderboard, so no winner; {_go_on(sweep)}")


def _half_way(sweep: Sweep) -> OrchError:
    return OrchError(
        f"{sweep.paths.root} was given more to do after its last leaderboard and did not finish, so its model and its "
        f"figures are not of the same winner; {_go_on(sweep)}"
    )


def _go_on(sweep: Sweep) -> str:
    resume = command_line("sweep", "--resume", "--out", sweep.paths.root)
    return f"go on with it: {resume}"


def _prefix_of(config: TrialConfig) -> Hashable:
    """What decides the frozen part and its input; models that agree in it share its work."""
    return config.prefix(), config.view


def _facts(model: FinalModel) -> dict[str, str]:
    """Which fit a name on the leaderboard stands for."""
    return {"model": model.name, "fit": model.fit, "configuration": model.configuration}


def _predictions(sweep: SweepContext, models: Sequence[FinalModel]) -> tuple[list[ModelPredictions], np.ndarray]:
    predictions: list[ModelPredictions] = []
    labels = np.zeros(0, np.int32)
    for name in sweep.spec.final.policies:
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for model in models:
            stored = read_probabilities(sweep.paths, model.fit, "test", name)
            labels = stored["labels"]
            seconds, given = float(stored["seconds"]), model.configuration
            predictions.append(ModelPredictions(model.name, name, stored["probabilities"], seconds, given))
            groups.setdefault(model.group, []).append(stored)
        for group, members in groups.items():
            if len(members) > 1:
                shared = max(float(m["shared_seconds"]) for m in members)
                seconds = shared + sum(float(m["seconds"]) - float(m["shared_seconds"]) for m in members)
                mean = ensemble([m["probabilities"] for m in members])
                given = next(model.configuration for model in models if model.group == group)
                predictions.append(ModelPredictions(f"{group}/ensemble", name, mean, seconds, given))
    return predictions, labels


def write_evidence(sweep: SweepContext, manifest: Manifest, predicted: np.ndarray) -> None:
    """Which images the winner was trained, chosen and tested on, and how it did; for the gate before promotion."""
    import pandas as pd

    table = manifest.table[["sha256", "split", "label"]].rename(columns={"split": "role"}).reset_index(drop=True)
    test = table["role"] == "test"
    table["predicted"] = pd.Series([None] * len(table), dtype="object")
    table.loc[test, "predicted"] = [manifest.classes[i] for i in predicted]
    table["correct"] = (table["predicted"] == table["label"]).where(test).astype("boolean")
    table.to_parquet(sweep.paths.evidence)


def _draw(
    sweep: SweepContext, manifest: Manifest, frame: pd.DataFrame, chosen: ModelPredictions, labels: np.ndarray
) -> None:
    """The pictures. A picture that cannot be drawn is said and costs nothing else."""
    from dashboards import figures, search_figures  # matplotlib: a second

    folder, classes = sweep.paths.figures, manifest.classes
    folder.mkdir(exist_ok=True)
    predicted = chosen.probabilities.argmax(1)
    test = manifest.split("test")
    paths = test.paths()
    state = sweep.state()
    try:
        search_figures.curves_figure(epochs_frame(state), folder / "curves.png")
        search_figures.parameters_figure(search_frame(state), folder / "parameters.png")
        figures.leaderboard_figure(frame, folder / "leaderboard.png")
        figures.confusion_figure(labels, predicted, classes, folder / "confusion.png")
        figures.mistakes_figure(
            paths,
            [classes[i] for i in labels],
            [classes[i] for i in predicted],
            chosen.probabilities.max(1),
            folder / "mistakes.png",
            classes=classes,
        )
    except (ValueError, OSError) as error:
        sweep.tell(f"warning  a figure could not be drawn: {error}")


def search_frame(state: SweepState) -> pd.DataFrame:
    """One row a trial of the search, a ``config_`` column for each field."""
    frame = trials_frame(state)
    return frame[frame["stage"] == Stage.SEARCH].reset_index(drop=True)


def epochs_frame(state: SweepState) -> pd.DataFrame:
    """One row an epoch of the search: id, epoch, val_accuracy and the trial's state."""
    import pandas as pd

    rows = [
        {"id": r.id, "epoch": epoch["epoch"], "val_accuracy": epoch["val_accuracy"], "state": str(r.state)}
        for r in state.trials.values()
        if r.stage == Stage.SEARCH
        for epoch in r.epochs
    ]
    return pd.DataFrame(rows, columns=["id", "epoch", "val_accuracy", "state"])
