"""Resolve ``weights: imagenet`` and ``optional`` to the source of each backbone's weights on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.spec.mistakes import Mistake
from orchestrator.spec.weights import OPTIONAL, OTHERS, Weights, missing_weights, weights_of
from trainers.backbones import backbone
from trainers.files.lookup import obstacle
from trainers.networks.weight_sources import (
    IMAGENET,
    Wanted,
    comes_without_download,
    fits,
    keras_cache,
    names_in,
    why_unreachable,
)

FOLDER = "ORCH_WEIGHTS"
LISTED = 6
"""Maximum backbones that a message names; the rest are counted."""
PAGE = "docs/backbones.md"
UNPUBLISHED = "Keras has no weights of {} to download"


@dataclass(frozen=True)
class Asked:
    """Weights that a file asks for. ``sizes``: backbone -> image sizes in pixels of its trials.

    ``variables``: backbone -> environment variable that can name its weight file. ``begun``: in a resumed sweep,
    backbone -> source of its weights when the sweep began; None in a new one.
    """

    weights: Weights
    sizes: Mapping[str, Sequence[int]]
    variables: Mapping[str, str] = field(default_factory=dict)
    begun: Mapping[str, str] | None = None

    def keys_of(self, name: str) -> tuple[str, ...]:
        """Return the path of the backbone's entry in the file."""
        if isinstance(self.weights, str):
            return ("weights",)
        return ("weights", name if name in self.weights else OTHERS)


@dataclass(frozen=True)
class Resolved:
    """``weights`` without "optional", and with the folder ORCH_WEIGHTS instead of "imagenet" where it has the file.

    ``left_out``: optional backbones whose weights are not available. ``notes``: lines to print.
    """

    weights: Weights
    left_out: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    notes: tuple[str, ...] = ()


def resolve(asked: Asked, environ: Mapping[str, str] = os.environ) -> Resolved:
    """Look for weights in the folder ORCH_WEIGHTS, then in Keras' cache; if any are missing, check for a network once.

    A resumed sweep keeps its original sources.
    """
    words = {name: word for name in asked.sizes if (word := weights_of(asked.weights, name)) in (IMAGENET, OPTIONAL)}
    folder = Path(os.path.abspath(os.path.expanduser(environ[FOLDER]))) if environ.get(FOLDER) else None
    places = _places(words, folder, asked.begun)
    lacking = _Lacking.of({name: asked.sizes[name] for name, place in places.items() if place == IMAGENET})
    left_out = tuple(
        name for name, word in words.items() if word == OPTIONAL and (name not in places or name in lacking)
    )
    settled = {name: place for name, place in places.items() if name not in left_out}
    mistakes = [*missing_weights(asked.weights, asked.sizes), *_mistakes(asked, lacking, left_out, folder)]
    notes = _notes(asked, settled, lacking, folder) + _left_out(left_out, asked, lacking)
    weights = _merged(asked.weights, settled, left_out)
    if asked.begun is not None:
        mistakes += missing_weights(weights, [name for name, place in settled.items() if place != IMAGENET])
    return Resolved(weights, left_out, tuple(mistakes), tuple(notes))


def _places(words: Mapping[str, str], folder: Path | None, begun: Mapping[str, str] | None) -> dict[str, str]:
    """Return backbone -> "imagenet" or ``folder``; omit optional backbones that a resumed sweep began without."""
    names = () if folder is None else names_in(folder)
    found: dict[str, str] = {}
    for name, word in words.items():
        if begun is not None and (name in begun or word == OPTIONAL):
            found |= {name: begun[name]} if name in begun else {}
        else:
            found[name] = str(folder) if fits(backbone(name), names) else IMAGENET
    return found


@dataclass(frozen=True)
class _Lacking:
    """Backbones that start from "imagenet" and whose weights are not on this machine.

    ``unpublished``: Keras has none to download. ``unreachable``: they cannot be downloaded now, for ``reason``.
    ``to_download``: Keras downloads them at first use.
    """

    unpublished: tuple[str, ...]
    unreachable: tuple[str, ...]
    to_download: tuple[str, ...]
    reason: str

    @classmethod
    def of(cls, sizes: Mapping[str, Sequence[int]]) -> _Lacking:
        """Classify the backbones that start from "imagenet". ``sizes``: image sizes in pixels of each."""
        unpublished = tuple(name for name in sizes if not backbone(name).imagenet and backbone(name).files)
        cached = names_in(keras_cache())
        wanted = [Wanted(name, IMAGENET, tuple(each)) for name, each in sizes.items() if name not in unpublished]
        download = tuple(each.backbone for each in wanted if not comes_without_download(each, cached))
        reason = why_unreachable() if download else ""
        return cls(unpublished, download if reason else (), () if reason else download, reason)

    def __contains__(self, name: str) -> bool:
        return name in self.unpublished or name in self.unreachable


def _mistakes(asked: Asked, lacking: _Lacking, left_out: Sequence[str], folder: Path | None) -> list[Mistake]:
    """Return one mistake per entry of the file whose weights are not available."""
    found = []
    for keys in dict.fromkeys(asked.keys_of(name) for name in (*lacking.unpublished, *lacking.unreachable)):
        here = [name for name in asked.sizes if asked.keys_of(name) == keys and name not in left_out]
        unpublished = [name for name in here if name in lacking.unpublished]
        unreachable = [name for name in here if name in lacking.unreachable]
        texts = []
        if unpublished:
            texts.append(
                f"Keras has no weights of {listed(unpublished)} to download; name a file or a folder of weight files."
            )
        if unreachable:
            texts.append(_not_here(unreachable, lacking.reason, folder, asked.begun is not None))
        if texts:
            found.append(Mistake(keys, " ".join(texts)))
    return found


def _not_here(names: Sequence[str], reason: str, folder: Path | None, is_resumed: bool) -> str:
    looked = [] if folder is None else [f"{FOLDER} ({', '.join(filter(None, (str(folder), _problem_of(folder))))})"]
    where = " or ".join([*looked, str(keras_cache())])
    text = f"there are no weights of {listed(names)} in {where}, and they cannot be downloaded: {reason}"
    if is_resumed:
        return (
            f"{text} The sweep began with Keras' files; put them into {keras_cache()} ({PAGE}), or resume with a "
            "network connection."
        )
    return (
        f"{text} Type `export {FOLDER}=/path/to/weights`, or add `--set weights=/path/to/weights` ({PAGE} says "
        "where to get the files), or start from random weights: `--set weights=none`."
    )


def _problem_of(folder: Path) -> str:
    """Why no weights can be found in ``folder``, as part of a sentence; "" if it is a folder."""
    if why := obstacle(folder):
        return f"which cannot be read: {why}"
    return "" if folder.is_dir() else "which is not a folder"


def _notes(asked: Asked, settled: Mapping[str, str], lacking: _Lacking, folder: Path | None) -> list[str]:
    notes = []
    found = [name for name, place in settled.items() if folder is not None and place == str(folder)]
    to_download = [name for name in lacking.to_download if name in settled]
    if found:
        notes.append(f"weights  {listed(found)}: from {folder} (ORCH_WEIGHTS)")
    elif folder is not None and settled and asked.begun is None and (problem := _problem_of(folder)):
        notes.append(f"weights  {FOLDER} is {folder}, {problem}")
    if to_download:
        notes.append(f"weights  {listed(to_download)}: Keras downloads them at first use, into {keras_cache()}")
    return notes


def _left_out(names: Sequence[str], asked: Asked, lacking: _Lacking) -> list[str]:
    """Return a line for the backbones left out for one reason and included in one way."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        why, way = "as when the sweep began", ""
        if asked.begun is None or name in asked.begun:
            why = UNPUBLISHED if name in lacking.unpublished else lacking.reason.rstrip(".")
            variable = asked.variables.get(name)
            way = f"export {variable}=FILE" if variable else "--set weights.{}=FILE"
        groups.setdefault((why, way), []).append(name)
    return [_left_out_line(each, why, way) for (why, way), each in groups.items()]


def _left_out_line(names: Sequence[str], why: str, way: str) -> str:
    are, them, name = ("is", "it", names[0]) if len(names) == 1 else ("are", "them", "NAME")
    line = f"space    {listed(names)} {are} left out"
    if not way:
        return f"{line}, {why}"
    include = "it" if len(names) == 1 else "one"
    why = why.replace("{}", them)
    return f"{line}: {why}, and no weight file is given. To include {include}: {way.replace('{}', name)} ({PAGE})"


def _merged(weights: Weights, settled: Mapping[str, str], left_out: Sequence[str]) -> Weights:
    """Return ``weights`` with the resolved sources, in the file's own form if they agree with it."""
    found = {OTHERS: weights} if isinstance(weights, str) else dict(weights)
    for name in left_out:
        found.pop(name, None)
    for name in sorted(settled):
        if weights_of(found, name) != settled[name]:
            found[name] = settled[name]
    return weights if isinstance(weights, str) and len(found) == 1 else found or IMAGENET


def listed(names: Sequence[str]) -> str:
    """Join names for a message; beyond ``LISTED``, count the rest."""
    if len(names) > LISTED + 1:
        return f"{', '.join(names[:LISTED])} and {len(names) - LISTED} more"
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
