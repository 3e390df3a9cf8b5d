"""The model registry: versions, their evidence, the champion."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchError, TrackingError
from orchestrator.ledger.kept import files_below, sha256_of
from orchestrator.paths import SweepPaths, command_line
from orchestrator.tracking.mlflow_store import connect, database_file, reaching, store_uri, without_password
from orchestrator.tracking.model_package import ModelDetails, load_model, pack_model, try_model
from trainers.files.lookup import obstacle

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.pyfunc import PyFuncModel

CHAMPION = "champion"
CHAMPIONSHIPS = "orch.champion"
"""Tag: a JSON list with a record for each time that the version became the champion, see ``tracking.champions``."""
MODEL_SHA256 = "orch.model_sha256"
"""Tag: one SHA-256 over the files of the model, see ``model_digest``."""
TEMPERATURE = "orch.temperature"
"""Tag: the temperature of the model's probabilities; versions from before 2026-12 lack it."""
MODEL_INDEX = "MLmodel"
"""Name of MLflow's description of a packed model."""
EVIDENCE = SweepPaths(Path()).evidence.name
"""Name of the file in a model's folder that lists the images it was trained, chosen and tested on, with its answers.
Columns ``sha256``, ``role`` (train, validation, test), ``label``, ``predicted``, ``correct``; since 2026-12 also
``group``, ``probability`` (the highest), ``descriptor``, ``descriptor_version``, and ``distance`` (of test images, from
the training images)."""


@dataclass(frozen=True)
class ChampionInfo:
    """The version under the alias ``champion``. ``source``: URI of its files."""

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str]
    source: str
    description: str = ""

    @property
    def championships(self) -> list[dict[str, Any]]:
        """Return the records of ``CHAMPIONSHIPS``, the oldest first; [] for a version from before them."""
        return list(json.loads(self.tags.get(CHAMPIONSHIPS, "[]")))


def check_model_name(name: str) -> str:
    """Return ``name`` if MLflow accepts it. Raises TrackingError."""
    if not re.fullmatch(r"[^\W_][\w .-]{0,199}", name) or name != name.strip():
        raise TrackingError(
            f"{name!r} cannot name a registered model: use at most 200 letters, digits, spaces, '_', '-' and '.', "
            "with a letter or digit first. Set tracking.model in the file."
        )
    return name


def champion(uri: str | None, model_name: str) -> ChampionInfo | None:
    """Return the champion of ``model_name``; None if there is none yet. Raises TrackingError."""
    uri, name = store_uri(uri), check_model_name(model_name)
    if missing_database(uri):
        return None
    client = connect(uri)
    with reaching(uri):
        version = champion_version(client, name)
        found = client.get_model_version(name, version) if version else None
    return version_info(found) if found else None


def missing_database(uri: str | None) -> Path | None:
    """Return the database file of the store at ``uri`` if nothing was ever written there, else None. Creates none."""
    path = database_file(store_uri(uri))
    if path is None or obstacle(path):  # connecting names the obstacle
        return None
    return None if path.exists() else path


def champion_version(client: MlflowClient, name: str) -> str | None:
    """Return the alias's version; None if there is no such model or alias."""
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    version = model.aliases.get(CHAMPION)
    return str(version) if version else None


def version_info(found: ModelVersion) -> ChampionInfo:
    return ChampionInfo(
        found.name, str(found.version), found.run_id or "", dict(found.tags), found.source, found.description or ""
    )


def register(
    uri: str | None,
    model_name: str,
    model_folder: Path,
    details: ModelDetails,
    check: Callable[[PyFuncModel], None] = lambda model: None,
) -> str:
    """Register ``model_folder`` as a new version of ``model_name`` and return its number; the champion stays.

    The folder is packed with the code that loads it, then loaded once and tried on the example: a model that does not
    predict one of its classes is not registered, nor one for which ``check`` raises. What comes back from the registry
    is compared with the folder. Raises TrackingError.
    """
    uri, name = store_uri(uri), check_model_name(model_name)
    if not model_folder.is_dir():
        raise TrackingError(f"there is no model in {model_folder}; a sweep writes it in its final stage.")
    client = connect(uri)
    with reaching(uri), tempfile.TemporaryDirectory(prefix="orch-model-") as folder:
        run = _run(client, details.run_id, uri, model_folder.parent)
        logged = client.create_logged_model(run.info.experiment_id, "winner", run.info.run_id, tags=details.tags())
        try:
            packed = Path(folder) / "model"
            pack_model(packed, model_folder, details, logged)
            check(try_model(packed, details))
            client.log_model_artifacts(logged.model_id, str(packed))
        except BaseException:
            client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        client.finalize_logged_model(logged.model_id, "READY")
        _link(client, run.info.run_id, logged.model_id)
        _ensure_model(client, name)
        version = client.create_model_version(
            name,
            logged.artifact_location,  # "models:/ID" would be looked up in the process's default store
            run.info.run_id,
            tags=details.tags(),
            description=details.description(),
            model_id=logged.model_id,
        )
        came_back = folder_hashes(_download_data(uri, logged.artifact_location, folder))
    differing = sorted(name for name, _ in came_back.items() ^ folder_hashes(model_folder).items())
    if differing:
        raise TrackingError(
            f"what came back of {name} version {version.version} from MLflow at {without_password(uri)} is not what "
            f"was sent: {', '.join(dict.fromkeys(differing))}. It is not the champion; check the disk of the artifact "
            "store and promote again."
        )
    return str(version.version)


def folder_hashes(folder: Path) -> dict[str, str]:
    """Return name -> SHA-256 of the files in a model's folder, without hidden ones."""
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files_below(folder)}


def model_digest(files: Mapping[str, str]) -> str:
    """Return one SHA-256 over a model's files, name -> SHA-256: that of the lines which ``sha256sum *`` prints."""
    lines = "".join(f"{sha}  {name}\n" for name, sha in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _run(client: MlflowClient, run_id: str, uri: str, sweep: Path) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise TrackingError(
                f"MLflow at {without_password(uri)} has no run {run_id or 'of this sweep'}. Type the command in the "
                "folder where the sweep ran, which has its mlflow.db, or send the sweep here with "
                f"`{command_line('sync', sweep)}` and promote again."
            ) from error
        raise


def _link(client: MlflowClient, run_id: str, model_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Best image classifiers found by `orch sweep`.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def no_champion(uri: str | None, model_name: str) -> OrchError:
    """Return the error for a model without a champion: which models have one, or how to make one."""
    uri = store_uri(uri)
    if path := missing_database(uri):
        return OrchError(
            f"there is no champion of {model_name}: there is no MLflow database {path}. Type the command in the folder "
            "where the sweep was promoted, which has its mlflow.db, or set MLFLOW_TRACKING_URI to it."
        )
    return OrchError(f"there is no champion of {model_name} yet; {_other_champions(uri)}")


def require_champion(uri: str | None, model_name: str) -> ChampionInfo:
    """Return the champion of ``model_name``. Raises OrchError if there is none yet, TrackingError."""
    uri = store_uri(uri)
    found = champion(uri, model_name)
    if found is None:
        raise no_champion(uri, model_name)
    return found


def load_version(uri: str | None, version: ChampionInfo) -> PyFuncModel:
    """Download and load a version. Raises TrackingError if MLflow cannot be reached, or if the files are not those that
    were registered."""
    uri = store_uri(uri)
    with reaching(uri), tempfile.TemporaryDirectory(prefix="orch-champion-") as folder:
        packed = _download(uri, version.source, folder)
        expected = version.tags.get(MODEL_SHA256)
        if expected and model_digest(folder_hashes(packed / _data_path(packed / MODEL_INDEX))) != expected:
            raise TrackingError(
                f"{version.name} version {version.version} is damaged: its files in MLflow at {without_password(uri)} "
                f"do not match the tag {MODEL_SHA256}. Return to the champion before it: "
                f"`{command_line('promote', '--rollback', '--model', version.name)}`, or promote its sweep again."
            )
        return load_model(packed)


def load_champion(uri: str | None, model_name: str) -> PyFuncModel:
    """Load the champion. Raises OrchError if there is none, TrackingError if MLflow cannot be reached."""
    return load_version(uri, require_champion(uri, model_name))


def _other_champions(uri: str) -> str:
    """Say which models have a champion, or how to make one."""
    with reaching(uri):
        names = [model.name for model in connect(uri).search_registered_models() if CHAMPION in (model.aliases or {})]
    return (
        f"{', '.join(sorted(names))} {'has' if len(names) == 1 else 'have'} one (--model NAME)."
        if names
        else "make one with `orch promote best`."
    )


def read_evidence(uri: str | None, model_name: str, version: str) -> pd.DataFrame | None:
    """Download only the evidence of a version; None if the version has none. Raises TrackingError."""
    import pandas as pd

    uri, name = store_uri(uri), check_model_name(model_name)
    client = connect(uri)
    with reaching(uri), tempfile.TemporaryDirectory(prefix="orch-evidence-") as folder:
        source = client.get_model_version(name, version).source
        data = _data_path(_download(uri, f"{source}/{MODEL_INDEX}", folder))
        if EVIDENCE not in _names(uri, f"{source}/{data}"):
            return None
        return pd.read_parquet(_download(uri, f"{source}/{data}/{EVIDENCE}", folder))


def _data_path(index: Path) -> str:
    """Return the model's own folder, relative to the packed one, from its file ``MLmodel``."""
    from mlflow.models import Model

    return str(Model.load(index).flavors["python_function"]["data"])


def _download_data(uri: str, source: str, folder: str) -> Path:
    """Download the model's own folder of the packed model in ``source``."""
    to = tempfile.mkdtemp(prefix="back-", dir=folder)
    data = _data_path(_download(uri, f"{source}/{MODEL_INDEX}", to))
    return _download(uri, f"{source}/{data}", to)


def _download(uri: str, artifact: str, folder: str) -> Path:
    from mlflow import artifacts

    found = artifacts.download_artifacts(artifact_uri=artifact, dst_path=folder, tracking_uri=uri, registry_uri=uri)
    return Path(found)


def _names(uri: str, artifact: str) -> set[str]:
    from mlflow import artifacts

    listed = artifacts.list_artifacts(artifact_uri=artifact, tracking_uri=uri)
    return {Path(entry.path).name for entry in listed}
