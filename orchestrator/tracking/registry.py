"""The model registry: versions, their evidence, the champion."""

from __future__ import annotations

import base64
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchError, TrackingError
from orchestrator.machine.environment import package_versions
from orchestrator.machine.quiet_stderr import hushed
from orchestrator.paths import SweepPaths
from orchestrator.tracking.mlflow_store import connect, reaching, store_uri
from trainers.dotted import find_top_level, own_folder

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PyFuncModel

CHAMPION = "champion"
EVIDENCE = SweepPaths(Path()).evidence.name
"""Name of the file in a model's folder that lists the images it was trained, chosen and tested on, with its answers.
Columns ``sha256``, ``role`` (train, validation, test), ``label``, ``predicted``, ``correct``."""
INPUT = (
    "photos as encoded bytes, base64 text, `data:` URLs, or uint8 pixels (height, width, 3); in a column `image`, or "
    "as the whole input. File names are opened only if the server is started with ORCH_SERVE_PATHS=1. Over HTTP: "
    '`{"dataframe_split": {"columns": ["image"], "data": [["BASE64"]]}}` or `{"inputs": ["BASE64"]}`'
)
"""Description in Markdown of a registered model's input, which its MLflow signature omits, see ``signature``."""
SERVED_WITH = ("tensorflow", "keras", "numpy", "pandas", "pillow", "h5py", "pyarrow", "filelock", "cachetools")
"""Distributions that a registered model requires, at their installed versions."""


@dataclass(frozen=True)
class ChampionInfo:
    """The version under the alias ``champion``. ``source``: URI of its files."""

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str]
    source: str
    description: str = ""


@dataclass(frozen=True)
class ModelDetails:
    """Metadata of a registered version.

    ``run_id``: the sweep's run in MLflow. ``form``: for example "one network" or "ensemble of K". ``data``: the
    manifest's fingerprint. ``example``: one encoded image. ``loader``: the module with ``_load_pyfunc``, which is
    copied into the model with its package. ``modules``: other imports of the model (a user's own backbone); a module of
    an installed distribution becomes a requirement, any other is copied with its package. ``fits``: ids of the networks
    that the model consists of, () if unknown.
    """

    run_id: str
    sweep: str
    trial: str
    policy: str
    form: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    data: str
    classes: tuple[str, ...]
    example: bytes
    commit: str = ""
    loader: str = "trainers.serving"
    modules: tuple[str, ...] = ()
    fits: tuple[str, ...] = ()
    extra_tags: Mapping[str, str] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        tags = {
            "orch.sweep_name": self.sweep,
            "orch.trial": self.trial,
            "orch.policy": self.policy,
            "orch.form": self.form,
            "orch.test_accuracy": f"{self.accuracy:.4f}",
            "orch.test_accuracy_low": f"{self.accuracy_low:.4f}",
            "orch.test_accuracy_high": f"{self.accuracy_high:.4f}",
            "orch.data": self.data,
            "orch.classes": json.dumps(self.classes, ensure_ascii=False),
        }
        tags |= {"orch.git_commit": self.commit} if self.commit else {}
        tags |= {"orch.fits": json.dumps(self.fits)} if self.fits else {}
        return tags | dict(self.extra_tags)

    def description(self) -> str:
        """Return the description of the version, in Markdown."""
        return (
            f"Winner of the sweep **{self.sweep}** (trial `{self.trial}`), {self.form}, "
            f"crop policy `{self.policy}`.\n\n"
            f"Test accuracy **{self.accuracy:.3f}** "
            f"(95 % interval {self.accuracy_low:.3f} to {self.accuracy_high:.3f}) "
            f"on data `{self.data}` with {len(self.classes)} classes.\n\n"
            f"Input: {INPUT}. "
            "Output: `label`, `probability`, `probabilities` (JSON: class -> probability)."
        )


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
    client = connect(uri)
    with reaching(uri):
        version = _champion_version(client, name)
        found = client.get_model_version(name, version) if version else None
    return _info(found) if found else None


def _champion_version(client: MlflowClient, name: str) -> str | None:
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


def _info(found: ModelVersion) -> ChampionInfo:
    return ChampionInfo(
        found.name, str(found.version), found.run_id or "", dict(found.tags), found.source, found.description or ""
    )


def register(uri: str | None, model_name: str, model_folder: Path, details: ModelDetails) -> str:
    """Register ``model_folder`` as a new version of ``model_name`` and return its number; the champion stays.

    The folder is packed with the code that loads it, then loaded once and tried on the example: a model that does not
    predict one of its classes is not registered. Raises TrackingError.
    """
    uri, name = store_uri(uri), check_model_name(model_name)
    if not model_folder.is_dir():
        raise TrackingError(f"there is no model in {model_folder}; a sweep writes it in its final stage.")
    client = connect(uri)
    with reaching(uri), tempfile.TemporaryDirectory(prefix="orch-model-") as folder:
        run = _run(client, details.run_id)
        logged = client.create_logged_model(run.info.experiment_id, "winner", run.info.run_id, tags=details.tags())
        try:
            packed = Path(folder) / "model"
            _pack(packed, model_folder, details, logged)
            _try_out(packed, details)
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
    return str(version.version)


def _run(client: MlflowClient, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise TrackingError(
                f"MLflow has no run {run_id or 'of this sweep'}; send it with `orch sync DIR`, then promote again."
            ) from error
        raise


def _pack(packed: Path, model_folder: Path, details: ModelDetails, logged: Any) -> None:
    """Write the MLflow model: data, code, pinned requirements, signature, example."""
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import Model

    code, distributions = _dependencies([details.loader, *details.modules])
    pyfunc.save_model(
        path=str(packed),
        loader_module=details.loader,
        data_path=str(model_folder),
        code_paths=code,
        pip_requirements=[f"{n}=={v}" for n, v in package_versions((*SERVED_WITH, *distributions)).items()],
        signature=signature(),
        input_example=pd.DataFrame({"image": [base64.b64encode(details.example).decode()]}),  # as in JSON
        mlflow_model=Model(
            artifact_path=logged.artifact_location,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
            run_id=details.run_id,
        ),
        metadata={"sweep": details.sweep, "policy": details.policy, "classes": list(details.classes), "input": INPUT},
    )


def _dependencies(modules: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the paths to copy and the distributions to require so that ``modules`` can be imported elsewhere.

    The loader's package (the first module) is always copied, as is any package that no package index has.
    """
    tops = dict.fromkeys(module.partition(".")[0] for module in modules)
    installed = metadata.packages_distributions() if len(tops) > 1 else {}
    loader = modules[0].partition(".")[0]
    published = {top: [d for d in installed.get(top, []) if _is_published(d)] for top in tops if top != loader}
    required = [name for names in published.values() for name in names]
    copied = [str(_package_of(top)) for top in tops if not published.get(top)]
    return copied, tuple(dict.fromkeys(required))


def _is_published(distribution: str) -> bool:
    """Return whether ``distribution`` came from a package index; any other has a ``direct_url.json`` (PEP 610)."""
    return metadata.distribution(distribution).read_text("direct_url.json") is None


def _package_of(module: str) -> Path:
    """Return the folder of the package of ``module``, or the file of a plain module, without importing it.

    Raises TrackingError.
    """
    spec = find_top_level(module)
    if spec is None or not (spec.submodule_search_locations or spec.origin):
        raise TrackingError(
            f"the model needs the module {module!r}, which is neither installed nor in {own_folder()}. "
            "Run the command in the folder that holds it, or install it."
        )
    return Path(next(iter(spec.submodule_search_locations)) if spec.submodule_search_locations else str(spec.origin))


def signature() -> ModelSignature:
    """Return the signature of the output: ``label``, ``probability``, ``probabilities`` (JSON text).

    The input has no schema on purpose, since every type in MLflow rejects some accepted input: a binary column also
    base64-decodes paths and ``data:`` URLs and fails on pixels; an "any" column rejects everything but tables. The
    model itself validates its input.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    return ModelSignature(
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "probability"),
                ColSpec(DataType.string, "probabilities"),
            ]
        ),
    )


def _try_out(packed: Path, details: ModelDetails) -> None:
    """Raise TrackingError unless the packed model predicts one of its classes for the example."""
    import pandas as pd

    answer = _load(packed).predict(pd.DataFrame({"image": [details.example]}))
    label = answer["label"].iloc[0]
    if label not in details.classes:
        raise TrackingError(f"the packed model predicts {label!r}, not one of its classes; it is not registered.")


def _load(packed: Path) -> PyFuncModel:
    """Load a packed model without leaving its code folder on the import path."""
    from mlflow import pyfunc

    before = list(sys.path)
    try:
        with hushed():
            return pyfunc.load_model(str(packed), suppress_warnings=True)
    finally:
        sys.path[:] = before


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


def set_champion(uri: str | None, model_name: str, version: str, override: Sequence[str] = ()) -> None:
    """Move the alias to ``version``; record the codes of overridden refusals in a tag and the description.

    Raises TrackingError.
    """
    uri, name = store_uri(uri), check_model_name(model_name)
    client = connect(uri)
    with reaching(uri):
        before = _champion_version(client, name)
        if override:
            codes = ", ".join(override)
            client.set_model_version_tag(name, version, "orch.override", codes)
            description = client.get_model_version(name, version).description or ""
            note = f"Promoted although the gate refused: **{codes}**."
            if note not in description:
                client.update_model_version(name, version, f"{description}\n\n{note}".strip())
        if before and before != version:
            client.set_model_version_tag(name, version, "orch.replaces", before)
        client.set_registered_model_alias(name, CHAMPION, version)


def load_champion(uri: str | None, model_name: str) -> PyFuncModel:
    """Load the champion. Raises OrchError if there is none, TrackingError if MLflow cannot be reached."""
    uri = store_uri(uri)
    found = champion(uri, model_name)
    if found is None:
        raise OrchError(f"there is no champion of {model_name} yet; make one with `orch promote best`.")
    with reaching(uri), tempfile.TemporaryDirectory(prefix="orch-champion-") as folder:
        return _load(_download(uri, found.source, folder))


def read_evidence(uri: str | None, model_name: str, version: str) -> pd.DataFrame | None:
    """Download only the evidence of a version; None if the version has none. Raises TrackingError."""
    import pandas as pd
    from mlflow.models import Model

    uri, name = store_uri(uri), check_model_name(model_name)
    client = connect(uri)
    with reaching(uri), tempfile.TemporaryDirectory(prefix="orch-evidence-") as folder:
        source = client.get_model_version(name, version).source
        data = Model.load(_download(uri, f"{source}/MLmodel", folder)).flavors["python_function"]["data"]
        if EVIDENCE not in _names(uri, f"{source}/{data}"):
            return None
        return pd.read_parquet(_download(uri, f"{source}/{data}/{EVIDENCE}", folder))


def _download(uri: str, artifact: str, folder: str) -> Path:
    from mlflow import artifacts

    found = artifacts.download_artifacts(artifact_uri=artifact, dst_path=folder, tracking_uri=uri, registry_uri=uri)
    return Path(found)


def _names(uri: str, artifact: str) -> set[str]:
    from mlflow import artifacts

    listed = artifacts.list_artifacts(artifact_uri=artifact, tracking_uri=uri)
    return {Path(entry.path).name for entry in listed}
