"""Every node of a cluster is asked for its weights, on a real cluster of two nodes with a cache each."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from orchestrator.cluster.jobs import ask_nodes
from orchestrator.cluster.ray_session import ray_session, stop_ray
from orchestrator.errors import OrchError
from orchestrator.spec.load import load_spec
from orchestrator.spec.sweep import SweepSpec
from orchestrator.sweep.node_weights import check_nodes, refusal

CACHED = "mobilenet_5_0_160_tf_no_top.h5"
OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}


def test_what_nodes_lack_is_said_by_their_names():
    answers = {
        "rich (10.0.0.1)": {"lacking": [], "reason": ""},
        "poor (10.0.0.2)": {"lacking": ["vgg16", "xception"], "reason": "no network."},
    }
    sentence = refusal(answers)
    assert "the node poor (10.0.0.2) has no weights of vgg16 and xception: no network. " in sentence
    assert "rich" not in sentence
    assert "docs/cluster.md" in sentence
    assert refusal({"rich": answers["rich (10.0.0.1)"]}) == ""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A head whose Keras cache holds a file, and a node with an empty one, both offline; the head's cache."""
    stop_ray()
    caches = [tmp_path_factory.mktemp(name) for name in ("head", "node")]
    (caches[0] / "models").mkdir()
    (caches[0] / "models" / CACHED).touch()
    made = Cluster()
    for cache in caches:
        made.add_node(num_cpus=1, env_vars={**OFFLINE, "KERAS_HOME": str(cache)}, include_dashboard=False)
    try:
        with ray_session(made.address):
            yield caches[0]
    finally:
        made.shutdown()


def spec_of(folder: Path, weights: str = "imagenet") -> SweepSpec:
    file = folder / "f.yaml"
    search = "{backbone: mobilenet_0.5, image_size: 160}"
    data, budget = '{source: "builtin:digits"}', "{trials: 1, epochs: 1}"
    file.write_text(f"name: f\ndata: {data}\nsearch: {search}\nbudget: {budget}\nweights: {weights}\n")
    return load_spec(str(file), environ={})


@pytest.mark.slow
def test_each_node_is_asked_once(cluster: Path):
    wanted = {"wanted": [["mobilenet_0.5", "imagenet", [160]]]}
    answers = ask_nodes("trainers.networks.weight_sources:lacking_here", wanted)
    assert len(answers) == len(ray.nodes()) == 2
    assert sorted(len(answer["lacking"]) for answer in answers.values()) == [0, 1]


@pytest.mark.slow
def test_a_node_without_weights_is_named_before_the_first_trial(cluster: Path, tmp_path: Path):
    with pytest.raises(OrchError) as error:
        check_nodes(spec_of(tmp_path))
    assert str(error.value).count("has no weights of mobilenet_0.5") == 1
    assert f"the node {socket.gethostname()} (" in str(error.value)
    check_nodes(spec_of(tmp_path, "none"))
    check_nodes(spec_of(tmp_path, str(cluster / "models")))  # a folder that both see
