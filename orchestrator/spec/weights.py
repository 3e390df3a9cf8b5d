"""The ``weights`` field: the initial weights of each backbone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.spec.mistakes import Mistake, Mistakes, nearest, quoted
from orchestrator.spec.space.fields import FIELDS
from trainers.backbones import backbone, weight_file
from trainers.errors import TrainerError
from trainers.files.lookup import obstacle
from trainers.networks.weight_sources import IMAGENET, NONE

OPTIONAL = "optional"
"""Like "imagenet", for one named backbone that the search leaves out if its weights are not available."""
WORDS = (IMAGENET, NONE, OPTIONAL)
OTHERS = "others"
"""Key for the backbones that the mapping does not name."""
ALLOWED = "imagenet, none, or a folder of weight files"
ONE_BACKBONE = f"{OPTIONAL} needs the name of a backbone, as in {{senet50: {OPTIONAL}, others: {IMAGENET}}}."

Weights = str | dict[str, str]


def read_weights(value: Any) -> Weights:
    """Validate a word, a folder, or a mapping of backbones to words, folders or files.

    Raises Mistakes or ValueError.
    """
    if value == OPTIONAL:
        raise ValueError(ONE_BACKBONE)
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, Mapping) or not value:
        also = "Or a mapping of backbones, as in {resnet50: my/file.h5, others: imagenet}."
        raise ValueError(f"found {quoted(value)}; allowed: {ALLOWED}. {also}")
    found = []
    for name, each in value.items():
        problem = None if name == OTHERS else FIELDS["backbone"].problem(name)
        if problem:
            found.append(Mistake((name,), f'{problem} "{OTHERS}" covers the rest.', at_key=True))
        if not isinstance(each, str) or not each:
            found.append(Mistake((name,), f"found {quoted(each)}; allowed: {ALLOWED}, or one weight file."))
        if name == OTHERS and each == OPTIONAL:
            found.append(Mistake((name,), ONE_BACKBONE))
    if found:
        raise Mistakes(found)
    return {str(name): str(each) for name, each in value.items()}


def weights_of(weights: Weights, name: str) -> str:
    """Return the initial weights of the backbone ``name``: "imagenet", "none", a folder or a file.

    Before ``weight_places.resolve`` also "optional".
    """
    if isinstance(weights, str):
        return weights
    return weights.get(name, weights.get(OTHERS, IMAGENET))


def missing_weights(weights: Weights, backbones: Iterable[str]) -> list[Mistake]:
    """Return mistakes about the folders and files of ``weights`` that lack the weights of ``backbones``."""
    if isinstance(weights, str):
        return _missing_in(weights, backbones, ("weights",), one_file=False)
    found = []
    for name, each in weights.items():
        covered = [b for b in backbones if b not in weights] if name == OTHERS else [name]
        found += _missing_in(each, covered, ("weights", name), one_file=name != OTHERS)
    return found


def _missing_in(place: str, backbones: Iterable[str], keys: tuple[str, ...], one_file: bool) -> list[Mistake]:
    """Return mistakes about weights of ``backbones`` missing in ``place``. ``one_file``: it can be a weight file."""
    folder = Path(place)
    if place not in WORDS and (why := obstacle(folder)):
        return [Mistake(keys, f"{place} cannot be read: {why}.")]
    if place in WORDS or (one_file and folder.is_file()):
        return []
    if not folder.is_dir():
        what, allowed = ("file or folder", f"{ALLOWED}, or one weight file") if one_file else ("folder", ALLOWED)
        return [Mistake(keys, f"there is no {what} {place}{nearest(folder.name, WORDS)} Allowed: {allowed}.")]
    lacking = []
    for row in map(backbone, sorted(backbones)):
        try:
            if row.files:
                weight_file(row, folder, row.native_size)
        except TrainerError as error:
            lacking.append(str(error))
    return [Mistake(keys, " ".join(lacking))] if lacking else []
