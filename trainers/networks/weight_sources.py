"""Find a backbone's starting weights on this machine: a folder, Keras' cache, or a download. Free of TensorFlow.

With ``weights: imagenet`` Keras takes a file from its cache or downloads it once. Before anything starts, this module
checks whether that will work: by the names of Keras' files, and by one request to the host that it downloads from.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from trainers.backbones import BACKBONES, Backbone, backbone, weight_file
from trainers.errors import TrainerError

IMAGENET, NONE = "imagenet", "none"
HOST = "storage.googleapis.com"
"""Host that Keras downloads weights from."""
PROBE = f"https://{HOST}/tensorflow/keras-applications/mobilenet/mobilenet_2_5_128_tf_no_top.h5"
"""URL of Keras' smallest weight file; only its header is requested."""
ANSWER_WITHIN_S = 3.0
"""Maximum seconds until the host counts as unreachable."""
LOCK_WITHIN_S = 1800.0
"""Maximum seconds to wait while another process downloads."""
KERAS_FAILS = "URL fetch failure"
"""First words of Keras' error for a failed download, which has no type of its own."""
DOWNLOAD_SIZES = {
    "keras.applications:MobileNet": (128, 160, 192, 224),
    "keras.applications:MobileNetV2": (96, 128, 160, 192, 224),
}
"""Builder -> image sizes in pixels that have a weight file each; Keras uses the one for 224 px at other sizes."""


@dataclass(frozen=True)
class Wanted:
    """A backbone's weights at image ``sizes`` in pixels. ``place``: "imagenet", "none", a folder, or a file."""

    backbone: str
    place: str
    sizes: tuple[int, ...]


def keras_cache() -> Path:
    """The folder that Keras downloads weights into; it need not exist."""
    home = Path(os.path.expanduser("~"))
    base = Path(os.environ.get("KERAS_HOME") or (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras")
    if os.path.exists(base) and not os.access(base, os.W_OK):
        base = Path("/tmp/.keras")
    return base / "models"


def names_in(folder: Path) -> tuple[str, ...]:
    """Names of the entries of ``folder``; () if it cannot be listed."""
    try:
        return tuple(entry.name for entry in os.scandir(folder))
    except OSError:
        return ()


def fits(row: Backbone, names: Iterable[str]) -> list[str]:
    """The ``names`` that ``weight_file`` would accept for the backbone, at any size."""
    patterns = row.files.split()
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def is_cached(row: Backbone, sizes: Iterable[int], names: Iterable[str]) -> bool:
    """Whether ``names``, the files in Keras' cache, suffice for each of ``sizes``."""
    found = fits(row, names)
    own = DOWNLOAD_SIZES.get(row.builder)
    if own is None:
        return bool(found)
    asked = {size if size in own else 224 for size in sizes}
    return all(any(f"_{size}_" in name for name in found) for size in asked)


def lacking(wanted: Iterable[Wanted]) -> tuple[list[str], str]:
    """Return (backbones without available weights on this machine, the reason, "" if there are none).

    Makes a request, for at most ``ANSWER_WITHIN_S``, only if Keras' cache lacks a file.
    """
    cached = names_in(keras_cache())
    missing, to_download, reasons = [], [], []
    for each in wanted:
        if each.place == IMAGENET:
            to_download += [] if comes_without_download(each, cached) else [each.backbone]
        elif problem := _missing_file(each):
            missing.append(each.backbone)
            reasons.append(problem)
    if to_download and (reason := why_unreachable()):
        missing += to_download
        reasons.append(reason)
    return missing, " ".join(reasons)


def comes_without_download(wanted: Wanted, cached: Iterable[str]) -> bool:
    """Whether "imagenet" needs no download: Keras has the file, or the backbone has none to download.

    True for a user's own backbone (a dotted name), whose builder is not checked.
    """
    row = backbone(wanted.backbone)
    return wanted.backbone not in BACKBONES or not row.imagenet or is_cached(row, wanted.sizes, cached)


@contextlib.contextmanager
def downloading(name: str, image_size: int) -> Iterator[None]:
    """Hold the lock for downloads inside, unless Keras has the file already.

    Keras writes a download to the path where another process looks for the finished file. Raises TrainerError if the
    download fails, since retrying the trial would only repeat it.
    """
    cache, wanted = keras_cache(), Wanted(name, IMAGENET, (image_size,))
    lock = FileLock(cache / ".orch.lock", timeout=LOCK_WITHIN_S)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError, Timeout):  # Keras handles an unwritable cache
            cache.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock)
        if comes_without_download(wanted, names_in(cache)):
            held.close()
        try:
            yield
        except Exception as error:
            if not str(error).startswith(KERAS_FAILS):
                raise
            raise TrainerError(f"the weights of {name} could not be downloaded: {error}") from error


def _missing_file(wanted: Wanted) -> str:
    """Why the folder or file lacks the weights; "" if it has them or none are needed."""
    row, path = backbone(wanted.backbone), Path(wanted.place)
    if wanted.place == NONE or os.path.isfile(path) or not row.files:
        return ""
    try:
        weight_file(row, path, row.native_size)
    except TrainerError as error:
        return str(error)
    return ""


def lacking_here(job: Mapping[str, Any]) -> dict[str, Any]:
    """``lacking`` as a job on a node of a cluster. ``job``: ``wanted``, a list of (backbone, place, sizes)."""
    wanted = [Wanted(name, place, tuple(sizes)) for name, place, sizes in job["wanted"]]
    names, reason = lacking(wanted)
    return {"lacking": names, "reason": reason}


@functools.cache
def why_unreachable() -> str:
    """Why Keras could not download now, as a sentence; "" if it could. Cached per process.

    Requests one header through the proxy of the environment, like Keras. In a thread, because resolving the host's name
    can exceed any timeout.
    """
    proxy = _proxy()
    through = f" through the proxy {proxy}" if proxy else ""
    found = [f"{HOST} does not answer within {ANSWER_WITHIN_S:g} s{through}."]
    thread = threading.Thread(target=lambda: found.__setitem__(0, _ask(proxy, through)), daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    return found[0]


def _ask(proxy: str, through: str) -> str:
    """Request the header; return why that fails, as a sentence, or ""."""
    cannot = f"{HOST} cannot be reached{through}"
    try:
        request = urllib.request.Request(PROBE, method="HEAD")
        with urllib.request.build_opener().open(request, timeout=ANSWER_WITHIN_S):
            return ""
    except urllib.error.HTTPError as error:
        return f"{HOST} answers {error.code}{through}."
    except (http.client.InvalidURL, ValueError):
        if not proxy:
            return f"{cannot}; check the environment's proxy settings."
        return f"{HOST} cannot be reached: the proxy {proxy} is not an address; correct HTTPS_PROXY, or unset it."
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, http.client.HTTPException):
            who = (
                f"the proxy {proxy} does not answer as a proxy; correct HTTPS_PROXY" if proxy else "it is no web server"
            )
            return f"{HOST} cannot be reached: {who}."
        return f"{cannot} ({getattr(reason, 'strerror', None) or reason})."


def _proxy() -> str:
    """The environment's proxy for the host, with its password masked; "" if there is none."""
    if urllib.request.proxy_bypass(urlsplit(PROBE).netloc):
        return ""
    found = urllib.request.getproxies().get(urlsplit(PROBE).scheme, "")
    return re.sub(r"(:)[^:@/]*@", r"\1***@", found)
