"""YAML -> ``SweepSpec``: frozen, complete, and every mistake told at once with its line.

``open_spec`` reads a file, lays ``--set`` over it, fills in ``${ENV}`` and checks it whole before anything starts.
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from orchestrator.errors import SpecError
from orchestrator.machine.quiet_stderr import without_chatter
from orchestrator.spec.budget import SAMPLER_PACKAGES
from orchestrator.spec.data import BUILTIN
from orchestrator.spec.mistakes import Mistake, mistakes_of
from orchestrator.spec.reachable import reachable
from orchestrator.spec.space.fields import CONDITION, condition_schema, configuration_schema, search_schema
from orchestrator.spec.space.section import KINDS, Search
from orchestrator.spec.space.space import DEFAULTS
from orchestrator.spec.sweep import SweepSpec, cross_mistakes, gpu_memories, with_trials
from orchestrator.spec.weight_places import Asked, Resolved, resolve
from orchestrator.spec.weights import OTHERS, WORDS
from orchestrator.spec.yaml_document import Document, SettingRules, escape, read_document
from trainers.backbones import backbone
from trainers.networks.weight_sources import IMAGENET, NONE
from trainers.wording import did_you_mean

SHIPPED = "search_spaces"
"""The package of the shipped files, and the folder by which the repository knows them."""
_RANGE_EXTRAS = {"step", "log"}
_SETTINGS = SettingRules(
    short_forms={("budget", "scheduler"): "name", ("budget", "sampler"): "name", ("weights",): OTHERS},
    replaced={
        "search": {kind: tuple({*KINDS} - {kind} | (set() if kind == "int" else _RANGE_EXTRAS)) for kind in KINDS}
    },
)
"""A new kind of range pushes out the old one, so that ``--set search.dropout.uniform=[0,0.5]`` is enough."""


@dataclass(frozen=True)
class OpenedSpec:
    """A sweep as it will run on this machine. ``notes``: lines for a person, on what the file did not say itself:
    which file it is, where weights come from, which optional backbones are left out."""

    spec: SweepSpec
    notes: tuple[str, ...] = ()


@without_chatter()  # a backbone of one's own imports TensorFlow
def open_spec(
    path_or_name: str,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    begun: SweepSpec | None = None,
    needs_weights: bool = True,
) -> OpenedSpec:
    """Read and check a sweep: a YAML file, or one that is shipped, by its name or as ``search_spaces/NAME.yaml``.

    ``overrides`` are ``--set`` texts, "budget.trials=5". A relative ``data.source`` or ``weights`` starts at the
    current folder and is absolute afterwards. Photos, weights and samplers must be here. ``weights: imagenet`` becomes
    the folder ORCH_WEIGHTS for backbones whose files lie there; optional backbones without weights are left out.
    ``begun``: a sweep that goes on, whose weights stay. ``needs_weights`` False: nothing will be trained.

    Raises SpecError; its text holds every mistake, one a line, as ``FILE:LINE:COLUMN: field: what to do``.
    """
    path, note = _find_file(path_or_name)
    document, spec, parts, mistakes = _read(path, overrides, environ)
    mistakes += machine_mistakes(parts)
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
    """The spec of ``open_spec``. ``check_machine`` False: as the file says it, whatever this machine has."""
    if check_machine:
        return open_spec(path_or_name, overrides, environ).spec
    document, spec, _, mistakes = _read(_find_file(path_or_name)[0], overrides, environ)
    if spec is None or mistakes or document.mistakes:
        raise document.error(mistakes)
    return spec


def _read(
    path: Path, overrides: Sequence[str], environ: Mapping[str, str]
) -> tuple[Document, SweepSpec | None, dict[str, Any], list[Mistake]]:
    """The document, and what ``_validate`` makes of it."""
    document = read_document(_text_of(path), str(path)).override(overrides, _SETTINGS).expand(environ)
    return document, *_validate(_with_absolute_paths(document.data))


def dump_spec(spec: SweepSpec) -> str:
    """YAML text that ``load_spec`` turns back into an equal ``SweepSpec``; environment variables stay filled in."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 10_000
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.representer.add_representer(str, _represent_text)
    yaml.representer.add_representer(float, _represent_number)
    text = io.StringIO()
    yaml.dump(_plain(spec.model_dump()), text)
    return text.getvalue()


def _represent_text(representer: Any, text: str) -> Any:
    """In double quotes but for plain words: ruamel writes a few other texts so that they do not read back."""
    plain = re.fullmatch(r"[\w/.]([\w/.+ -]*[\w/.+-])?", text, re.ASCII)
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


def _represent_number(representer: Any, number: float) -> Any:
    """With a point: 1e-05 is a number in YAML 1.2 and text in YAML 1.1, which most other tools read."""
    text = repr(number)
    if not math.isfinite(number) or "." in text:
        return representer.represent_float(number)
    return representer.represent_scalar("tag:yaml.org,2002:float", text.replace("e", ".0e"))


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the file, for editors. Describes the shape; ``load_spec`` checks more."""
    schema = SweepSpec.model_json_schema(mode="validation")
    schema["properties"]["search"] = search_schema()
    schema["$defs"][CONDITION] = condition_schema()
    budget = schema["$defs"]["BudgetSpec"]
    budget["properties"]["first"] |= {"type": "array", "items": configuration_schema()}
    budget["required"].remove("trials")  # counted where `configurations` are given
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **json.loads(json.dumps(schema))}


def shipped_spaces() -> dict[str, Path]:
    """Name -> file of the sweeps that come with the package."""
    folder = Path(str(resources.files(SHIPPED)))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def names_sweep(path_or_name: str) -> bool:
    """Whether it is a YAML file, or stands for a shipped one and for nothing else here."""
    path = Path(path_or_name)
    if path.suffix in (".yaml", ".yml"):
        return not path.is_dir()
    return not path.exists() and _shipped_name(path_or_name) is not None


def _shipped_name(path_or_name: str) -> str | None:
    """The shipped sweep that NAME, NAME.yaml or search_spaces/NAME.yaml stands for; None for anything else."""
    path = Path(path_or_name)
    stands = path.parent in (Path(), Path(SHIPPED)) and path.suffix in ("", ".yaml")
    return path.stem if stands and path.stem in shipped_spaces() else None


def _find_file(path_or_name: str) -> tuple[Path, tuple[str, ...]]:
    """The file, and a line where it is a shipped one under a path. A file of the person's own comes first."""
    path, shipped = Path(path_or_name), shipped_spaces()
    if path.is_file():
        return path, ()
    if path_or_name in shipped:
        return shipped[path_or_name], ()
    if path.is_dir():
        raise SpecError(f"{path_or_name} is a folder; name the YAML file in it.")
    if (name := _shipped_name(path_or_name)) is not None:
        note = f"file     there is no {path_or_name} here; this is the shipped {name}, {shipped[name]}"
        return shipped[name], (note,)
    hint = did_you_mean(path.stem, shipped)
    raise SpecError(f"there is no file {path_or_name}{hint} Shipped sweeps are {', '.join(shipped)}.")


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
    if "weights" in data:
        data["weights"] = absolute(data["weights"], lambda text: text in WORDS)
    return data


def _validate(data: dict[str, Any]) -> tuple[SweepSpec | None, dict[str, Any], list[Mistake]]:
    """The spec, or None; the parts that are right by themselves; every mistake among them."""
    try:
        spec = SweepSpec.model_validate(data)
        return spec, {name: getattr(spec, name) for name in SweepSpec.model_fields}, []
    except ValidationError as error:
        mistakes = mistakes_of(error, SweepSpec)
    parts = _sound_parts(with_trials(data), mistakes)
    return None, parts, [*mistakes, *cross_mistakes(parts)]


def _sound_parts(data: Mapping[str, Any], mistakes: Sequence[Mistake]) -> dict[str, Any]:
    """Each part without its wrong fields, as far as the rest says enough to check it against the others."""
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
            continue  # what is wrong with it is among the mistakes already
    return parts


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return escape(value) if isinstance(value, str) else value


def machine_mistakes(parts: Mapping[str, Any]) -> list[Mistake]:
    """What this machine lacks for ``parts``: photos, a sampler's package."""
    found = []
    data, budget = parts.get("data"), parts.get("budget")
    if data is not None:
        for i, source in enumerate(data.sources):
            if not source.startswith(BUILTIN) and not Path(source).exists():
                place = () if isinstance(data.source, str) else (i,)
                text = f"there is no file or folder {source}. Relative paths start at the current folder."
                found.append(Mistake(("data", "source", *place), text))
    name = "" if budget is None else budget.sampler.name
    package = SAMPLER_PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        text = f'the sampler {name} needs the package {package}, which is not installed: pip install "orch[{name}]".'
        found.append(Mistake(("budget", "sampler"), text))
    return found


def _resolved(
    parts: Mapping[str, Any], document: Document, environ: Mapping[str, str], begun: SweepSpec | None
) -> Resolved | None:
    """Where the weights of every backbone come from; None where what the file says of weights is wrong."""
    if (weights := parts.get("weights", IMAGENET if "weights" not in document.data else None)) is None:
        return None
    sizes = {} if (search := parts.get("search")) is None else sizes_of(search)
    variables = {
        str(keys[1]): name for keys, name in document.defaulted.items() if keys[0] == "weights" and len(keys) == 2
    }
    return resolve(Asked(weights, sizes, variables, None if begun is None else _begun(begun)), environ)


def _settled(spec: SweepSpec, resolved: Resolved) -> tuple[SweepSpec | None, list[Mistake]]:
    """``spec`` with the weights as they are here, and without the backbones that are left out."""
    gone = resolved.left_out
    changes: dict[str, Any] = {"weights": resolved.weights}
    if gone:
        search = spec.search.without(gone)
        if search is None:
            text = f"nothing is left to search: {', '.join(gone)} would be left out for want of weights."
            return None, [Mistake(("search", "backbone"), text)]
        first = tuple(
            values for values in spec.budget.first if values.get("backbone", DEFAULTS["backbone"]) not in gone
        )
        trials = min(spec.budget.trials, len(search.named)) if search.named else spec.budget.trials
        changes |= {"search": search, "budget": spec.budget.model_copy(update={"first": first, "trials": trials})}
    settled = spec.model_copy(update=changes)
    return settled, cross_mistakes({name: getattr(settled, name) for name in SweepSpec.model_fields}) if gone else []


def sizes_of(search: Search) -> dict[str, tuple[int, ...]]:
    """Each backbone that a trial can have, on a GPU of any memory -> its image sizes in pixels."""
    found: dict[str, set[int]] = {}
    for memory in gpu_memories(search):
        for values in reachable(search.on_gpu(memory), "backbone", "image_size"):
            name = str(values["backbone"])
            found.setdefault(name, set()).add(int(values["image_size"] or backbone(name).native_size))
    return {name: tuple(sorted(sizes)) for name, sizes in sorted(found.items())}


def _begun(spec: SweepSpec) -> dict[str, str]:
    """Where weights came from that a sweep did not name itself: a download, or a folder that ``resolve`` put there."""
    places = {name: spec.weights_for(name) for name in sizes_of(spec.search)}
    mapped = not isinstance(spec.weights, str)
    return {
        name: place
        for name, place in places.items()
        if place == IMAGENET or (mapped and place != NONE and not Path(place).is_file())
    }
