"""Load and validate a sweep's YAML file; every error names its line and column.

``open_spec`` applies ``--set``, expands ``${NAME}`` and validates the whole file before anything starts.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import SpecError
from orchestrator.machine.quiet_stderr import without_chatter
from orchestrator.paths import SweepPaths
from orchestrator.spec.batches import batch_mistakes
from orchestrator.spec.mistakes import Mistake, mistakes_of
from orchestrator.spec.practice import with_practice
from orchestrator.spec.reachable import reachable
from orchestrator.spec.sections.budget import SAMPLER_PACKAGES
from orchestrator.spec.sections.data import KEEP_WORDS
from orchestrator.spec.shipped import find_file
from orchestrator.spec.space.cases import KINDS
from orchestrator.spec.space.domains import DEFAULTS
from orchestrator.spec.space.fields import FIELDS
from orchestrator.spec.space.section import Search
from orchestrator.spec.sweep import SweepSpec, cross_mistakes, gpu_memories, with_trials
from orchestrator.spec.weight_places import Asked, Resolved, resolve
from orchestrator.spec.weights import OTHERS, WORDS
from orchestrator.spec.yaml_file.document import Document, SettingRules, read_document
from trainers.backbones import backbone
from trainers.data.sources.builtins import BUILTIN
from trainers.files.lookup import obstacle
from trainers.networks.weight_sources import IMAGENET, NONE

_RANGE_EXTRAS = {"step", "log"}
_SETTINGS = SettingRules(
    short_forms={("budget", "scheduler"): "name", ("budget", "sampler"): "name", ("weights",): OTHERS},
    replaced={
        "search": {kind: tuple({*KINDS} - {kind} | (set() if kind == "int" else _RANGE_EXTRAS)) for kind in KINDS}
    },
)
"""Setting one kind of range removes any other, so that ``--set search.dropout.uniform=[0,0.5]`` suffices."""


@dataclass(frozen=True)
class OpenedSpec:
    """A sweep's spec, resolved for this machine.

    ``notes``: lines to print about a shipped file, the source of the weights, and optional backbones left out.
    """

    spec: SweepSpec
    notes: tuple[str, ...] = ()


@without_chatter()  # importing a custom backbone imports TensorFlow
def open_spec(
    path_or_name: str,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    begun: SweepSpec | None = None,
    needs_weights: bool = True,
) -> OpenedSpec:
    """Load and validate a sweep: a YAML file, or a shipped one by its name or as ``search_spaces/NAME.yaml``.

    ``overrides``: arguments of ``--set``, such as "budget.trials=5". Relative paths in ``data.source`` and ``weights``
    start at the current folder and become absolute. Photos, weights and sampler packages must exist on this machine.
    ``weights: imagenet`` becomes the folder ORCH_WEIGHTS for backbones whose files it holds; optional backbones without
    weights are left out. Fields of the search that the file leaves out take today's practice, see ``practice``.
    ``begun``: spec of a resumed sweep, which keeps its weights and its practice. ``needs_weights``: False if nothing
    will be trained.

    Raises SpecError with every mistake, one per line, as ``FILE:LINE:COLUMN: field: what to do``.
    """
    path, note = find_file(path_or_name)
    document = _read(path, overrides, environ)
    search = None if begun is None else begun.search
    spec, parts, mistakes = _validate(with_practice(_with_absolute_paths(document.data), search))
    mistakes += machine_mistakes(parts) + _batch_mistakes(parts, begun)
    resolved = _resolved(parts, document, environ, begun) if needs_weights else None
    if resolved is not None:
        mistakes += resolved.mistakes
    if spec is not None and resolved is not None:
        spec, problem = _settled(spec, resolved)
        mistakes += problem
    if spec is None or mistakes or document.mistakes:
        raise document.error(mistakes)
    return OpenedSpec(spec, (*note, *(resolved.notes if resolved is not None else ())))


def load_spec(
    path_or_name: str,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    check_machine: bool = True,
) -> SweepSpec:
    """Return the spec of ``open_spec``. With ``check_machine`` False, photos, weights and packages can be missing, and
    the search is the file's alone, as for the ``spec.yaml`` of a sweep."""
    if check_machine:
        return open_spec(path_or_name, overrides, environ).spec
    document = _read(find_file(path_or_name)[0], overrides, environ)
    spec, _, mistakes = _validate(_with_absolute_paths(document.data))
    if spec is None or mistakes or document.mistakes:
        raise document.error(mistakes)
    return spec


def _read(path: Path, overrides: Sequence[str], environ: Mapping[str, str]) -> Document:
    return read_document(_text_of(path), str(path)).override(overrides, _SETTINGS).expand(environ)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not a text file in UTF-8: {error.reason} at byte {error.start}.") from error
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}.") from error


def _with_absolute_paths(data: dict[str, Any]) -> dict[str, Any]:
    def absolute(value: Any, is_word: Callable[[str], bool]) -> Any:
        if isinstance(value, list | tuple):
            return [absolute(item, is_word) for item in value]
        if isinstance(value, Mapping):
            return {name: absolute(item, is_word) for name, item in value.items()}
        if not isinstance(value, str) or not value or is_word(value):
            return value
        return os.path.abspath(os.path.expanduser(value))

    data = dict(data)
    if isinstance(data.get("data"), dict) and "source" in data["data"]:
        source = absolute(data["data"]["source"], lambda text: text.startswith(BUILTIN))
        data["data"] = {**data["data"], "source": source}
    if isinstance(data.get("data"), dict) and "keep_splits" in data["data"]:
        kept = absolute(data["data"]["keep_splits"], lambda text: text in KEEP_WORDS)
        data["data"] = {**data["data"], "keep_splits": kept}
    if "weights" in data:
        data["weights"] = absolute(data["weights"], lambda text: text in WORDS)
    return data


def _validate(data: dict[str, Any]) -> tuple[SweepSpec | None, dict[str, Any], list[Mistake]]:
    """Return the spec or None, the sections that are valid by themselves, and every mistake."""
    try:
        spec = SweepSpec.model_validate(data)
        return spec, {name: getattr(spec, name) for name in SweepSpec.model_fields}, []
    except ValidationError as error:
        mistakes = mistakes_of(error, SweepSpec, {name: f"search.{name}" for name in FIELDS})
    parts = _valid_sections(with_trials(data), mistakes)
    return None, parts, [*mistakes, *cross_mistakes(parts)]


def _valid_sections(data: Mapping[str, Any], mistakes: Sequence[Mistake]) -> dict[str, Any]:
    """Return the sections that can be checked against each other, without their invalid fields."""
    parts: dict[str, Any] = {}
    for name, field in SweepSpec.model_fields.items():
        wrong = [m.keys for m in mistakes if m.keys[:1] == (name,)]
        if name not in data or (name,) in wrong or (wrong and name not in ("data", "budget")):
            continue
        value = data[name]
        if wrong:
            value = {key: each for key, each in value.items() if not any(keys[1] == key for keys in wrong)}
        if wrong and name == "budget":
            kept = {key: value[key] for key in ("sampler", "first") if key in value}
            value = {"trials": max(len(kept.get("first", ())), 1), "epochs": 1, **kept}
        try:
            part: Any = Annotated[field.annotation, *field.metadata, "part"]
            parts[name] = TypeAdapter(part).validate_python(value)
        except ValidationError:
            continue  # already reported in ``mistakes``
    return parts


def machine_mistakes(parts: Mapping[str, Any]) -> list[Mistake]:
    """Return mistakes about photos and sampler packages that are missing on this machine."""
    found = []
    data, budget = parts.get("data"), parts.get("budget")
    if data is not None:
        for i, source in enumerate(data.sources):
            if source.startswith(BUILTIN):
                continue
            place = () if isinstance(data.source, str) else (i,)
            if why := obstacle(source):
                found.append(Mistake(("data", "source", *place), f"{source} cannot be read: {why}."))
            elif not Path(source).exists():
                text = f"there is no file or folder {source}. Relative paths start at the current folder."
                found.append(Mistake(("data", "source", *place), text))
    name = "" if budget is None else budget.sampler.name
    kept = data.keep_splits if data is not None and data.names_kept_splits else ""
    if kept and not any(path.is_file() for path in (Path(kept), SweepPaths(Path(kept)).manifest)):
        text = f"{kept} is no manifest and no sweep's folder that has one. Relative paths start at the current folder."
        found.append(Mistake(("data", "keep_splits"), text))
    package = SAMPLER_PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        text = f'the sampler {name} needs the package {package}, which is not installed: pip install "orch[{name}]".'
        found.append(Mistake(("budget", "sampler"), text))
    return found


def _batch_mistakes(parts: Mapping[str, Any], begun: SweepSpec | None) -> list[Mistake]:
    """Return ``batch_mistakes``, without those that the resumed sweep ``begun`` has had from its beginning."""
    search, resources = parts.get("search"), parts.get("resources")
    if search is None or resources is None:
        return []
    known = [] if begun is None else batch_mistakes(begun.search, begun.resources)
    return [mistake for mistake in batch_mistakes(search, resources) if mistake not in known]


def _resolved(
    parts: Mapping[str, Any], document: Document, environ: Mapping[str, str], begun: SweepSpec | None
) -> Resolved | None:
    """Resolve the weights of every backbone; return None if the file's ``weights`` are invalid."""
    if (weights := parts.get("weights", IMAGENET if "weights" not in document.data else None)) is None:
        return None
    sizes = {} if (search := parts.get("search")) is None else sizes_of(search)
    variables = {
        str(keys[1]): name for keys, name in document.defaulted.items() if keys[0] == "weights" and len(keys) == 2
    }
    return resolve(Asked(weights, sizes, variables, None if begun is None else _begun(begun)), environ)


def _settled(spec: SweepSpec, resolved: Resolved) -> tuple[SweepSpec | None, list[Mistake]]:
    """Return ``spec`` with the resolved weights and without the backbones left out, and the mistakes in the result."""
    gone = resolved.left_out
    changes: dict[str, Any] = {"weights": resolved.weights}
    if gone:
        search = spec.search.without(gone)
        if search is None:
            text = f"leaving out {', '.join(gone)}, whose weights are missing, leaves nothing to search."
            return None, [Mistake(("search", "backbone"), text)]
        first = tuple(
            values for values in spec.budget.first if values.get("backbone", DEFAULTS["backbone"]) not in gone
        )
        trials = min(spec.budget.trials, len(search.named)) if search.named else spec.budget.trials
        changes |= {"search": search, "budget": spec.budget.model_copy(update={"first": first, "trials": trials})}
    settled = spec.model_copy(update=changes)
    return settled, cross_mistakes({name: getattr(settled, name) for name in SweepSpec.model_fields}) if gone else []


def sizes_of(search: Search) -> dict[str, tuple[int, ...]]:
    """Return backbone -> image sizes in pixels, over the trials for every GPU memory."""
    found: dict[str, set[int]] = {}
    for memory in gpu_memories(search):
        for values in reachable(search.on_gpu(memory), "backbone", "image_size"):
            name = str(values["backbone"])
            found.setdefault(name, set()).add(int(values["image_size"] or backbone(name).native_size))
    return {name: tuple(sorted(sizes)) for name, sizes in sorted(found.items())}


def _begun(spec: SweepSpec) -> dict[str, str]:
    """Return backbone -> source of its weights, where ``resolve`` chose it: a download or a folder."""
    places = {name: spec.weights_for(name) for name in sizes_of(spec.search)}
    mapped = not isinstance(spec.weights, str)
    return {
        name: place
        for name, place in places.items()
        if place == IMAGENET or (mapped and place != NONE and not os.path.isfile(place))
    }
