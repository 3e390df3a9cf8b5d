"""Where a backbone's starting weights are on this machine: a folder, Keras' cache, or a download. Free of TensorFlow.

``weights: imagenet`` lets Keras take its file from a cache, or download it once. Whether that will work is answered
here before anything starts: by the names of Keras' files, and by one request to the host that it downloads from.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trainers.backbones import BACKBONES, Backbone, backbone, weight_file
from trainers.errors import TrainerError

IMAGENET, NONE = "imagenet", "none"
HOST = "storage.googleapis.com"
"""Where Keras downloads weights from."""
PROBE = f"https://{HOST}/tensorflow/keras-applications/mobilenet/mobilenet_2_5_128_tf_no_top.h5"
"""A file that is there for certain, as the smallest of them is; asked for its header alone."""
ANSWER_WITHIN_S = 3.0
"""Maximum seconds until the host counts as unreachable."""
LOCK_WITHIN_S = 1800.0
"""Maximum seconds to wait while another process downloads."""
KERAS_FAILS = "URL fetch failure"
"""How Keras' error begins for a download that fails; it has no type of its own."""
DOWNLOAD_SIZES = {
    "keras.applications:MobileNet": (128, 160, 192, 224),
    "keras.applications:MobileNetV2": (96, 128, 160, 192, 224),
}
"""Builder -> the image sizes for which Keras has a file each; for any other size it takes the one for 224 px."""


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
    if base.exists() and not os.access(base, os.W_OK):
        base = Path("/tmp/.keras")
    return base / "models"


def names_in(folder: Path) -> tuple[str, ...]:
    """The names of what lies in ``folder``; () where it cannot be listed."""
    try:
        return tuple(entry.name for entry in os.scandir(folder))
    except OSError:
        return ()


def fits(row: Backbone, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that ``weight_file`` would take for the backbone, at any size."""
    patterns = row.files.split()
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def is_cached(row: Backbone, sizes: Iterable[int], names: Iterable[str]) -> bool:
    """Whether ``names``, in Keras' cache, hold what Keras asks for at each of ``sizes``."""
    found = fits(row, names)
    own = DOWNLOAD_SIZES.get(row.builder)
    if own is None:
        return bool(found)
    asked = {size if size in own else 224 for size in sizes}
    return all(any(f"_{size}_" in name for name in found) for size in asked)


def lacking(wanted: Iterable[Wanted]) -> tuple[list[str], str]:
    """The backbones whose weights cannot be had on this machine, and why not ("" where none are lacking).

    The network is asked, for ``ANSWER_WITHIN_S`` at most, only where Keras' cache lacks a file.
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
    """Whether "imagenet" needs no download: Keras has the file, or nothing of it is asked for this backbone.

    A builder of the user's own (a dotted name) is left to itself.
    """
    row = backbone(wanted.backbone)
    return wanted.backbone not in BACKBONES or not row.imagenet or is_cached(row, wanted.sizes, cached)


@contextlib.contextmanager
def downloading(name: str, image_size: int) -> Iterator[None]:
    """While entered, this process alone downloads; nothing waits where Keras has the file already.

    Keras writes a download where another process looks for the finished file. Raises TrainerError for a download that
    fails, which another attempt at the same trial would only repeat.
    """
    cache, wanted = keras_cache(), Wanted(name, IMAGENET, (image_size,))
    lock = FileLock(cache / ".orch.lock", timeout=LOCK_WITHIN_S)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError, Timeout):  # a cache that cannot be written: Keras says what it makes of it
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
    """Why the folder or file does not give the weights; "" where it does, or where nothing is asked of it."""
    row, path = backbone(wanted.backbone), Path(wanted.place)
    if wanted.place == NONE or path.is_file() or not row.files:
        return ""
    try:
        weight_file(row, path, row.native_size)
    except TrainerError as error:
        return str(error)
    return ""


def lacking_here(job: Mapping[str, Any]) -> dict[str, Any]:
    """``lacking``, as a job on a node of a cluster. ``job``: ``wanted``, a list of (backbone, place, sizes)."""
    wanted = [Wanted(name, place, tuple(sizes)) for name, place, sizes in job["wanted"]]
    names, reason = lacking(wanted)
    return {"lacking": names, "reason": reason}


@functools.cache
def why_unreachable() -> str:
    """Why Keras could not download now, as a sentence; "" if it could. Asked once a process.

    One request for a header, through the proxy that the environment names, as Keras itself would go. In a thread, for
    the look-up of a name can take longer than any timeout.
    """
    found = [f"{HOST} does not answer within {ANSWER_WITHIN_S:g} s."]

    def ask() -> None:
        request = urllib.request.Request(PROBE, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S):
                found[0] = ""
        except urllib.error.HTTPError as error:
            found[0] = f"{HOST} answers {error.code}."
        except OSError as error:
            reason = getattr(error, "reason", error)
            found[0] = f"{HOST} cannot be reached ({getattr(reason, 'strerror', None) or reason})."

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    return found[0]
