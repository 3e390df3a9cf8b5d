"""Where weights are: Keras' own names of files, its cache, and one quick question to the network."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from trainers.backbones import BACKBONES, backbone, load_builder
from trainers.errors import TrainerError
from trainers.networks import weight_sources
from trainers.networks.weight_sources import (
    Wanted,
    downloading,
    fits,
    is_cached,
    keras_cache,
    lacking,
    lacking_here,
    why_unreachable,
)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, as behind a proxy that is not there, and an empty Keras cache; the cache's folder."""
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    why_unreachable.cache_clear()
    yield tmp_path / "keras" / "models"
    why_unreachable.cache_clear()


def imagenet(*names: str, size: int = 224) -> list[Wanted]:
    return [Wanted(name, "imagenet", (size,)) for name in names]


class _AsksKeras(Exception):
    pass


CHEAP = [("mobilenet_0.25", 160), ("mobilenet_0.25", 150), ("mobilenet_v2", 96), ("mobilenet_v2_0.35", 300)]
CHEAP += [("mobilenet_v3_small", 224), ("vgg16", 224), ("resnet50", 224), ("efficientnet_v2_b0", 224)]
ALL = [(row.name, row.native_size) for row in BACKBONES.values() if row.imagenet]


@pytest.mark.parametrize(
    "cases", [CHEAP, pytest.param(ALL, marks=[pytest.mark.slow, pytest.mark.timeout(900)])], ids=["cheap", "all"]
)
def test_the_names_are_those_that_keras_asks_for(cases, monkeypatch):
    """What Keras' builders really ask for is what counts as cached; a file for another size is not."""
    from keras.src.utils import file_utils

    asked: list[str] = []

    def get_file(fname: str, *args: object, **values: object) -> str:
        asked.append(fname)
        raise _AsksKeras

    monkeypatch.setattr(file_utils, "get_file", get_file)
    for name, size in cases:
        row = backbone(name)
        with pytest.raises(_AsksKeras):
            load_builder(row)(input_shape=(size, size, 3), include_top=False, weights="imagenet", **row.arguments)
        assert is_cached(row, [size], asked[-1:]), (name, asked[-1])
        others = [other.name for other in BACKBONES.values() if fits(other, asked[-1:])]
        assert others == [name], asked[-1]
    assert len(asked) == len(cases) > 7


def test_a_file_for_another_size_is_not_what_keras_would_take():
    names = ["mobilenet_5_0_224_tf_no_top.h5"]
    row = backbone("mobilenet_0.5")
    assert [is_cached(row, [size], names) for size in (224, 300, 160)] == [True, True, False]
    assert not is_cached(row, [224, 160], names)
    assert is_cached(backbone("vgg16"), [160], ["vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"])


def test_without_a_network_what_is_not_cached_is_lacking(offline: Path):
    assert keras_cache() == offline
    began_s = time.monotonic()
    names, reason = lacking([*imagenet("mobilenet_0.5", "vgg16"), Wanted("resnet50", "none", (224,))])
    assert names == ["mobilenet_0.5", "vgg16"]
    assert "storage.googleapis.com cannot be reached" in reason
    assert time.monotonic() - began_s < weight_sources.ANSWER_WITHIN_S + 1
    offline.mkdir(parents=True)
    (offline / "mobilenet_5_0_224_tf_no_top.h5").touch()
    assert lacking(imagenet("mobilenet_0.5"))[0] == []
    assert lacking(imagenet("mobilenet_0.5", size=160))[0] == ["mobilenet_0.5"]


def test_the_network_is_not_asked_where_every_file_is_here(monkeypatch):
    monkeypatch.setattr(weight_sources, "why_unreachable", lambda: pytest.fail("the network was asked"))
    began_s = time.monotonic()
    assert lacking(imagenet(*BACKBONES)) == ([], "")  # conftest's cache
    assert time.monotonic() - began_s < 0.3


def test_a_host_that_accepts_and_never_answers_is_given_up(monkeypatch):
    """A real socket that says nothing; the limit holds, whatever the library's own timeouts are."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(weight_sources, "PROBE", f"http://127.0.0.1:{server.getsockname()[1]}/x")
        monkeypatch.setattr(weight_sources, "ANSWER_WITHIN_S", 0.3)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        why_unreachable.cache_clear()
        began_s = time.monotonic()
        assert "storage.googleapis.com" in why_unreachable()
        assert time.monotonic() - began_s < 1
    why_unreachable.cache_clear()


BROKEN_PROXIES = {
    "http://proxy:80a": "the proxy http://proxy:80a is not an address; correct HTTPS_PROXY",
    "http://me:secret@proxy:80a": "the proxy http://me:***@proxy:80a is not an address",
    "http://a b:80": "the proxy http://a b:80 is not an address",
    "http:/proxy:8080": "the proxy http:/proxy:8080 is not an address",
    "http://..:80": "the proxy http://..:80 is not an address",
    "http://127.0.0.1:1": "storage.googleapis.com cannot be reached through the proxy http://127.0.0.1:1 (Connection",
}


@pytest.mark.parametrize("proxy", BROKEN_PROXIES)
def test_a_broken_proxy_is_named(proxy, monkeypatch, capfd):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("https_proxy", proxy)
    why_unreachable.cache_clear()
    assert BROKEN_PROXIES[proxy] in why_unreachable()
    why_unreachable.cache_clear()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b""])
def test_what_is_no_proxy_is_named(answer, monkeypatch, capfd):
    """A real socket: a server of another kind, or one that closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(answer)
            connection.close()

        threading.Thread(target=speak, daemon=True).start()
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("https_proxy", proxy)
        why_unreachable.cache_clear()
        assert f"the proxy {proxy} does not answer as a proxy; correct HTTPS_PROXY" in why_unreachable()
    why_unreachable.cache_clear()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("status", "reachable"), [("200 OK", True), ("403 Forbidden", False)])
def test_only_an_answer_that_gives_the_file_is_a_network(status, reachable, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setattr(weight_sources, "PROBE", f"http://127.0.0.1:{server.getsockname()[1]}/x")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        why_unreachable.cache_clear()
        assert (why_unreachable() == "") == reachable
    why_unreachable.cache_clear()


def test_a_node_says_which_files_it_lacks(offline: Path, tmp_path: Path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "vgg16_x_no_top.weights.h5").touch()
    wanted = [
        ["vgg16", str(folder), [224]],
        ["resnet50", str(folder), [224]],
        ["vgg19", str(folder / "gone.h5"), [224]],
    ]
    answer = lacking_here({"wanted": wanted})
    assert answer["lacking"] == ["resnet50", "vgg19"]
    assert f"no weights for resnet50 in {folder}" in answer["reason"]
    assert "cannot be reached" not in answer["reason"]  # nothing was to be downloaded
    assert lacking_here({"wanted": wanted[:1]}) == {"lacking": [], "reason": ""}


def test_keras_looks_where_this_says(monkeypatch, tmp_path):
    """``keras_cache`` against Keras' own answer, in a home that can be written."""
    from keras.src.backend import config

    monkeypatch.delenv("KERAS_HOME")
    assert keras_cache().parent == Path(os.path.expanduser("~/.keras"))
    assert Path(config.keras_home()).name in (".keras", "keras-home")


def test_two_workers_never_download_at_once(offline: Path):
    """The second waits, and then finds the file; where it is there, nothing waits."""
    inside: list[str] = []
    both = threading.Barrier(2)

    def work() -> None:
        both.wait()
        with downloading("mobilenet_0.5", 224):
            inside.append("cached" if (offline / "mobilenet_5_0_224_tf_no_top.h5").exists() else "downloads")
            time.sleep(0.2)
            (offline / "mobilenet_5_0_224_tf_no_top.h5").touch()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == ["downloads", "cached"]
    with downloading("mobilenet_0.5", 224), downloading("mobilenet_0.5", 224):
        pass  # neither holds the lock


def test_a_download_that_fails_is_a_sentence_and_is_not_tried_again(offline: Path):
    """With Keras' own code: a TrainerError fails a trial at once, where any other exception counts as a crash."""
    from trainers.networks.backbone import build_backbone

    with pytest.raises(
        TrainerError, match=r"the weights of mobilenet_0\.25 could not be downloaded: URL fetch failure"
    ):
        build_backbone("mobilenet_0.25", "imagenet", 128)
