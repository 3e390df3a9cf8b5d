"""The compose file: complete, pinned, without secrets, and in words that the installed releases know."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.places import ROOT

VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")
SERVICES = ("postgres", "mlflow", "ray-head", "ray-worker")
GIVEN = {"POSTGRES_PASSWORD": "not-a-default", "ORCH_DATA": "/srv/photos"}


def fill(text: str, given: dict[str, str]) -> str:
    """``text`` as compose reads it: ``${NAME:-default}``, ``${NAME:?what to do}``, ``$$``."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if given.get(name):
            return given[name]
        if kind == "?":
            raise LookupError(rest)
        assert kind == "-", f"{name} has neither a default nor a sentence"
        return rest

    return VARIABLE.sub(value, text).replace("$$", "$")


def read(given: dict[str, str] = GIVEN) -> dict[str, Any]:
    return YAML(typ="safe").load(fill((ROOT / "docker-compose.yml").read_text(), given))


@pytest.fixture
def compose() -> dict[str, Any]:
    return read()


def options(command: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in command if word.startswith("--")}


def test_the_services(compose: dict[str, Any]) -> None:
    assert tuple(compose["services"]) == SERVICES


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_watched_and_comes_back(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= set(check)


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(compose: dict[str, Any], name: str) -> None:
    assert re.fullmatch(r"[a-z-]+:\d+\.\d+(\.\d+)?(-\w+)?", compose["services"][name]["image"])


@pytest.mark.parametrize("name", ["mlflow", "ray"])
def test_every_base_image_is_pinned(name: str) -> None:
    text = (ROOT / "docker" / f"{name}.Dockerfile").read_text()
    (base,) = re.findall(r"^FROM (\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
    assert "USER " in text


def test_each_waits_until_what_it_needs_is_healthy(compose: dict[str, Any]) -> None:
    needs = {name: service.get("depends_on", {}) for name, service in compose["services"].items()}
    assert {name: list(needed) for name, needed in needs.items()} == {
        "postgres": [],
        "mlflow": ["postgres"],
        "ray-head": ["mlflow"],
        "ray-worker": ["ray-head"],
    }
    conditions = {entry["condition"] for needed in needs.values() for entry in needed.values()}
    assert conditions == {"service_healthy"}


def test_volumes_are_declared_and_used(compose: dict[str, Any]) -> None:
    used = set()
    for service in compose["services"].values():
        for volume in service["volumes"]:
            if isinstance(volume, str):
                used.add(volume.partition(":")[0])
    assert used == set(compose["volumes"]) == {"postgres", "artifacts", "sweeps", "cache", "weights"}


def test_ports_are_open_to_this_machine_alone(compose: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert ports == {"mlflow": ["127.0.0.1:5000:5000"]}


@pytest.mark.parametrize("name", ["ray-head", "ray-worker"])
def test_every_node_sees_the_photos_under_the_same_path(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    (photos,) = [volume for volume in service["volumes"] if isinstance(volume, dict)]
    assert photos["source"] == photos["target"] == service["environment"]["ORCH_DATA"] == "/srv/photos"
    assert photos["read_only"]
    assert "sweeps:/sweeps" in service["volumes"]
    assert service["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"


def test_a_weights_folder_keeps_its_path_too() -> None:
    service = read(GIVEN | {"ORCH_WEIGHTS": "/srv/weights"})["services"]["ray-worker"]
    assert "/srv/weights:/srv/weights:ro" in service["volumes"]
    assert service["environment"]["ORCH_WEIGHTS"] == "/srv/weights"


@pytest.mark.parametrize("missing", ["POSTGRES_PASSWORD", "ORCH_DATA"])
def test_what_must_be_said_is_asked_for(missing: str) -> None:
    with pytest.raises(LookupError, match=f"copy docker/env.example to .env and set {missing}"):
        read({**GIVEN, missing: ""})


def test_the_example_names_every_variable_and_no_secret() -> None:
    used = {match[1] for match in VARIABLE.finditer((ROOT / "docker-compose.yml").read_text())}
    example = (ROOT / "docker" / "env.example").read_text()
    named = dict(re.findall(r"^(?:# )?([A-Z_]+)=(\S*)", example, re.MULTILINE))
    assert set(named) == used
    assert named["POSTGRES_PASSWORD"] == ""
    environment = read()["services"]
    assert "not-a-default" in environment["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
    assert "not-a-default" not in " ".join(environment["mlflow"]["command"])


def test_the_example_shows_the_real_defaults() -> None:
    defaults = {m[1]: m[3] for m in VARIABLE.finditer((ROOT / "docker-compose.yml").read_text()) if m[2] == "-"}
    example = (ROOT / "docker" / "env.example").read_text()
    shown = dict(re.findall(r"^# ((?:POSTGRES|MLFLOW)_[A-Z_]+)=(\S+)", example, re.MULTILINE))
    assert len(shown) == 5
    assert shown == {name: defaults[name] for name in shown}


def test_mlflow_knows_its_options(compose: dict[str, Any]) -> None:
    from mlflow.cli import server

    command = compose["services"]["mlflow"]["command"]
    assert command[:2] == ["mlflow", "server"]
    known = {name for option in server.params for name in option.opts}
    assert options(command) <= known
    assert any(option.envvar == "MLFLOW_BACKEND_STORE_URI" for option in server.params)


def test_mlflow_lets_the_ray_containers_in(compose: dict[str, Any]) -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    (allowed,) = [word.partition("=")[2] for word in compose["services"]["mlflow"]["command"] if "allowed" in word]
    for host, expected in (("mlflow:5000", True), ("localhost:5001", True), ("evil.example:5000", False)):
        assert is_allowed_host_header(allowed.split(","), host) is expected
        assert any(fnmatch.fnmatch(host, pattern) for pattern in allowed.split(",")) is expected


@pytest.mark.parametrize("name", ["ray-head", "ray-worker"])
def test_ray_knows_its_options(compose: dict[str, Any], name: str) -> None:
    from ray.scripts.scripts import cli

    service = compose["services"][name]
    for command in (service["command"], service["healthcheck"]["test"][1:]):
        assert command[0] == "ray"
        known = {opt for option in cli.commands[command[1]].params for opt in (*option.opts, *option.secondary_opts)}
        assert options(command) <= known


def test_the_images_hold_the_release_that_they_are_called_after(compose: dict[str, Any]) -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert compose["services"]["mlflow"]["image"] == f"orch-mlflow:{pins['mlflow']}"
    for name in ("mlflow", "ray"):
        assert re.search(
            r"pip install --constraint \S*constraints\.txt ", (ROOT / f"docker/{name}.Dockerfile").read_text()
        )


def test_the_ray_image_holds_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    dockerfile = (ROOT / "docker" / "ray.Dockerfile").read_text()
    copied = {
        word.rstrip("/") for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE) for word in line.split()
    }
    needed = {
        *(name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]),
        "pyproject.toml",
        "constraints.txt",
    }
    needed |= {project["project"]["readme"], *project["project"]["license-files"]}
    assert needed <= copied
    ignore = (ROOT / "docker" / "ray.Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in needed} <= set(ignore)
