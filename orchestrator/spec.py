"""YAML -> ``SweepSpec``: frozen, complete, and every mistake told at once with its line.

``load_spec`` reads a file, lays ``--set`` over it, fills in ``${ENV}`` and checks it whole before anything starts.
"""

from __future__ import annotations

import difflib
import importlib.util
import io
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from orchestrator.errors import SpecError
from orchestrator.fields import CONDITION, condition_schema, configuration_schema, search_schema
from orchestrator.mistakes import Mistake, mistakes_of
from orchestrator.searchpart import KINDS, Search
from orchestrator.sections import (
    BUILTIN,
    SAMPLER_PACKAGES,
    BudgetSpec,
    ChooseSpec,
    DataSpec,
    FinalSpec,
    ResourcesSpec,
    SamplerSpec,
    SchedulerSpec,
    SplitRatios,
    SweepSpec,
    TrackingSpec,
    cross_mistakes,
    with_trials,
)
from orchestrator.space import DEFAULTS
from orchestrator.weightsection import OTHERS, WORDS, missing_weights
from orchestrator.yamlfile import SettingRules, escape, read_document

__all__ = [
    "BudgetSpec",
    "ChooseSpec",
    "DataSpec",
    "FinalSpec",
    "ResourcesSpec",
    "SamplerSpec",
    "SchedulerSpec",
    "SplitRatios",
    "SweepSpec",
    "TrackingSpec",
    "dump_spec",
    "json_schema",
    "load_spec",
    "shipped_spaces",
]

_RANGE_EXTRAS = {"step", "log"}
_SETTINGS = SettingRules(
    short_forms={("budget", "scheduler"): "name", ("budget", "sampler"): "name", ("weights",): OTHERS},
    replaced={
        "search": {kind: tuple({*KINDS} - {kind} | (set() if kind == "int" else _RANGE_EXTRAS)) for kind in KINDS}
    },
)
"""A new kind of range pushes out the old one, so that ``--set search.dropout.uniform=[0,0.5]`` is enough."""


def load_spec(
    path_or_name: str,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    check_machine: bool = True,
) -> SweepSpec:
    """Read and check a sweep: a YAML file, or one that is shipped, by its name.

    ``overrides`` are ``--set`` texts, "budget.trials=5". A relative ``data.source`` or ``weights`` starts at the
    current folder and is absolute afterwards. ``check_machine``: the photos, weight files and samplers must be here.

    Raises SpecError; its text holds every mistake, one a line, as ``FILE:LINE:COLUMN: field: what to do``.
    """
    file, text = _read_file(path_or_name)
    document = read_document(text, file).override(overrides, _SETTINGS).expand(environ)
    data = _with_absolute_paths(document.data)
    spec, parts, mistakes = _validate(data)
    if check_machine:
        mistakes += machine_mistakes(parts)
    if spec is None or mistakes or document.mistakes:
        raise document.error(mistakes)
    return spec


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
    folder = Path(str(resources.files("search_spaces")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _read_file(path_or_name: str) -> tuple[str, str]:
    """The file's name as shown in messages, and its text."""
    path = Path(path_or_name)
    shipped = shipped_spaces()
    if not path.is_file() and path_or_name in shipped:
        path = shipped[path_or_name]
    elif path.is_dir():
        raise SpecError(f"{path_or_name} is a folder; name the YAML file in it.")
    elif not path.is_file():
        near = difflib.get_close_matches(path.stem, shipped, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise SpecError(f"there is no file {path_or_name}{hint} Shipped sweeps are {', '.join(shipped)}.")
    try:
        return str(path), path.read_text(encoding="utf-8")
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
    """What this machine lacks for ``parts``: photos, weight files, a sampler's package."""
    found = []
    data, search, budget, weights = (parts.get(name) for name in ("data", "search", "budget", "weights"))
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
    if weights is not None:
        found += missing_weights(weights, _backbones(search))
    return found


def _backbones(search: Search | None) -> set[str]:
    """Every backbone that a trial can have; none where the search is wrong."""
    if search is None:
        return set()
    if search.named:
        names = {values.get("backbone", DEFAULTS["backbone"]) for _, values in search.configurations}
    else:
        names = {name for domain in search.space.domains("backbone") for name in domain.values() or ()}
    return {str(name) for name in names}
