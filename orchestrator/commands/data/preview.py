"""`orch data preview`: a contact sheet of what the network will see in training.

Shows training photos only. The data's seed decides which, and how they are mixed. What trials draw anew in each epoch
is shown as the first epoch draws it; if some trials draw a recipe's copies anew and others once, as the former.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from orchestrator.errors import DataError, SpecError
from orchestrator.spec.data_source import refuse_among_photos
from orchestrator.spec.gpu import with_gpu_memory
from orchestrator.spec.reachable import reachable, values_of
from orchestrator.spec.sweep import SweepSpec
from orchestrator.tracking.kept_splits import source_of
from trainers.backbones import backbone
from trainers.config import TrialConfig, parts_of
from trainers.data.build import build_manifest
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.files.suffixes import DRAWN
from trainers.images.augment import augment, plan_copies
from trainers.images.decode import square
from trainers.images.decoder import ImageCopy
from trainers.images.fresh_draws import FreshDraws

MOST_PICTURES, FEWEST_PHOTOS = 2400, 12
"""Maximum pictures on a sheet; a sheet of many columns gets fewer photos, but at least the second number."""
LARGEST_DRAWN = 192
"""Maximum side in pixels of a picture in memory; the sheet draws fewer."""
MOST_COPIES = 5
"""Maximum copies shown of one recipe."""
LONGEST_LABEL = 11
"""Maximum letters of a class name below a blend."""
BLENDS = 2
"""Number of blends shown of each mixture."""


def draw_preview(spec: SweepSpec, images: int, out: Path, progress: Callable[[str], None] | None = None) -> Path:
    """Draw ``images`` training photos as the trials of ``spec`` may see them, spread over the classes; returns ``out``.

    Columns: each view and decoding; copies 1 to k of every recipe at the largest multiplier it can have; mixup and
    cutmix at each alpha. A copy that the multiplier does not ask for stays empty. Reads every photo once (for the
    splits), decodes those shown, which are fewer if there are many columns. ``progress`` is called with a line for
    each step. A space that depends on the GPU's memory is that of this machine. Raises DataError if the photos
    cannot be used, SpecError if the suffix of ``out`` is no format of pictures, or ``out`` lies among the photos.
    """
    tell = progress or (lambda line: None)
    if out.suffix.lower() not in DRAWN:
        allowed = f"{', '.join(DRAWN[:-1])} or {DRAWN[-1]}"
        raise SpecError(f"--out: {out} is no picture's name; it must end in {allowed}.")
    refuse_among_photos("--out", out, spec.data.sources)
    spec = with_gpu_memory(spec)
    tell(f"reading {', '.join(spec.data.sources)}")
    try:
        manifest, report = build_manifest(source_of(spec))
        for sentence in report.kept:
            tell(f"splits: {sentence}")
        for sentence in report.warnings:
            tell(f"warning: {sentence}")
        sheet = _Sheet.of(manifest.split("train"), spec, images)
        tell(f"drawing {len(sheet.rows)} photos of the training split")
        return sheet.draw(out)
    except TrainerError as error:
        raise DataError(str(error)) from error


def choose_rows(manifest: Manifest, images: int) -> list[int]:
    """Choose ``images`` rows of ``manifest`` spread evenly over the classes, in order of class. Pure.

    The data's seed decides. With more classes than ``images``, some of the classes, from the first to the last.
    """
    labels = manifest.labels()
    there = np.unique(labels)
    images = max(images, 1)
    if len(there) > images:
        there = there[np.linspace(0, len(there) - 1, images).round().astype(int)]
    shuffled = {}
    for label in there:
        random = np.random.default_rng((manifest.seed, 1, int(label)))
        shuffled[label] = random.permutation(np.flatnonzero(labels == label))
    turns = [(turn, label) for label in there for turn in range(len(shuffled[label]))]
    taken = sorted(turns)[:images]  # a first photo of each class, then a second of each, and so on
    return sorted((int(shuffled[label][turn]) for turn, label in taken), key=lambda row: (labels[row], row))


def recipes_shown(spec: SweepSpec) -> dict[str, float]:
    """Map each recipe that a trial can have to its largest multiplier; none without copies."""
    found: dict[str, float] = {}
    for values in reachable(spec, "recipe", "multiplier"):
        multiplier = float(values["multiplier"])  # type: ignore[arg-type]  # a number by its field
        if multiplier > 1:
            recipe = str(values["recipe"])
            found[recipe] = max(multiplier, found.get(recipe, 1.0))
    return found


@dataclass(frozen=True)
class DrawnAnew:
    """What some trials draw anew in each epoch: the copies of ``recipes``, and with ``crops`` random crops."""

    recipes: frozenset[str]
    crops: bool

    @classmethod
    def of(cls, spec: SweepSpec) -> DrawnAnew:
        fields = ("draws", "recipe", "multiplier", "view", "unfrozen_layers", "mixup", "cutmix")
        fresh = [values for values in reachable(spec, *fields) if values["draws"] == "fresh"]
        recipes = {str(values["recipe"]) for values in fresh if float(values["multiplier"]) > 1}  # type: ignore[arg-type]
        return cls(frozenset(recipes), any(values["view"] == "random_crop" for values in fresh))


def framings_shown(spec: SweepSpec) -> dict[str, str]:
    """Map a title to each framing that a trial can have: its view, and ``decode`` where trials differ in that."""
    pairs = [(str(v["view"]), str(v["decode"])) for v in reachable(spec, "view", "decode")]
    one_decode = len({decode for _, decode in pairs}) == 1
    return {
        view if one_decode else f"{view}, decode {decode}": TrialConfig(view=view, decode=decode).framing
        for view, decode in pairs
    }


def largest_size(spec: SweepSpec) -> int:
    """Return the side in pixels of the largest image that a trial can have."""
    pairs = reachable(spec, "backbone", "image_size")
    return max(int(pair["image_size"] or backbone(str(pair["backbone"])).native_size) for pair in pairs)


def blend(
    first: np.ndarray, second: np.ndarray, kind: str, alpha: float, random: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Mix two images, uint8 (side, side, 3); return the mixture and the share of the first in the label.

    mixup: l x + (1 - l) y with l from Beta(alpha, alpha) (Zhang et al. 2018). cutmix: a rectangle of ``second``, of
    the share 1 - l before the edges clip it, at a uniformly drawn position (Yun et al. 2019).
    """
    share = float(random.beta(alpha, alpha))
    if kind == "mixup":
        mixed = share * first.astype(np.float64) + (1 - share) * second
        return np.round(mixed).astype(np.uint8), share
    side = first.shape[0]
    half = int(side * math.sqrt(1 - share)) // 2
    y, x = (int(v) for v in random.integers(0, side, 2))
    box = (slice(max(y - half, 0), y + half), slice(max(x - half, 0), x + half))
    mixed = first.copy()
    mixed[box] = second[box]
    return mixed, 1 - mixed[box][..., 0].size / side**2


@dataclass(frozen=True)
class _Sheet:
    """What the sheet shows: ``rows`` are photos of ``manifest``, which holds the training images only.

    ``views``: title -> framing. ``seed``: the trials'.
    """

    manifest: Manifest
    rows: list[int]
    size: int
    views: dict[str, str]
    recipes: dict[str, float]
    mixtures: list[tuple[str, float]]
    drawn_anew: DrawnAnew
    seed: int

    @classmethod
    def of(cls, manifest: Manifest, spec: SweepSpec, images: int) -> _Sheet:
        mixtures = [(kind, float(a)) for kind in ("mixup", "cutmix") for a in values_of(spec, kind) if a > 0]
        views, recipes = framings_shown(spec), recipes_shown(spec)
        columns = len(views) + MOST_COPIES * len(recipes) + BLENDS * len(mixtures)
        most = max(FEWEST_PHOTOS, MOST_PICTURES // columns)
        rows = choose_rows(manifest, min(images, most))
        drawn_anew = DrawnAnew.of(spec)
        return cls(manifest, rows, largest_size(spec), views, recipes, mixtures, drawn_anew, spec.budget.seed)

    def draw(self, out: Path) -> Path:
        from dashboards.contact_sheet import Cell, Row, Strip, contact_sheet  # matplotlib: half a second

        copies = {recipe: self._copies(multiplier) for recipe, multiplier in self.recipes.items()}
        columns = {recipe: min(MOST_COPIES, int(counts.max(initial=0))) for recipe, counts in copies.items()}
        strips = [Strip("view", tuple(self.views))]
        strips += [
            Strip(f"{recipe}, multiplier {self.recipes[recipe]:g}", tuple(f"copy {k}" for k in range(1, count + 1)))
            for recipe, count in columns.items()
            if count
        ]
        strips += [Strip(f"{kind}, alpha {alpha:g}", ("",) * BLENDS) for kind, alpha in self.mixtures]
        rows = []
        for place, row in enumerate(self.rows):
            cells: list[Cell | None] = [Cell(_small(self._square(row, view))) for view in self.views.values()]
            for recipe, count in columns.items():
                wanted = copies[recipe][place]
                cells += [
                    Cell(_small(self._copy(row, recipe, k))) if k <= wanted else None for k in range(1, count + 1)
                ]
            cells += [
                Cell(*self._blend(row, *mixture, number)) for mixture in self.mixtures for number in range(BLENDS)
            ]
            rows.append(Row(self._label(row), Path(self._of(row, "path")).name, tuple(cells)))
        gaps = any(cell is None for row in rows for cell in row.cells)
        more = any(counts.max(initial=0) > MOST_COPIES for counts in copies.values())
        note, classes = self._note(gaps, more), self.manifest.classes
        return contact_sheet("What the network will see in training", note, strips, rows, out, classes)

    def _note(self, gaps: bool, more: bool) -> str:
        classes = len(self.manifest.classes)
        shown = len({self._label(row) for row in self.rows})
        some = "" if shown == classes else f" {shown} of {classes} classes."
        empty = " Empty: the multiplier asks for no such copy of this photo." if gaps else ""
        rest = f" Some have more copies than the {MOST_COPIES} shown." if more else ""
        view = f" Copies are of the view {next(iter(self.views))}." if self.recipes and len(self.views) > 1 else ""
        fresh = " Other copies and crops in each epoch; here the first." if self._is_fresh else ""
        return f"{len(self.rows)} training photos at {self.size} x {self.size} pixels.{some}{view}{fresh}{empty}{rest}"

    @property
    def _is_fresh(self) -> bool:
        return self.drawn_anew.crops or not self.drawn_anew.recipes.isdisjoint(self.recipes)

    def _copies(self, multiplier: float) -> np.ndarray:
        return plan_copies(self.manifest.labels(), multiplier)[self.rows]

    def _of(self, row: int, column: str) -> str:
        return str(self.manifest.table[column].iloc[row])

    def _label(self, row: int) -> str:
        return self._of(row, "label")

    def _square(self, row: int, framing: str, copy: int = 0) -> np.ndarray:
        is_cropped = parts_of(framing)[0] == "random_crop"
        if is_cropped and self.drawn_anew.crops and not copy:
            return self._fresh("none", framing).image(self._picture(row, 0), 0)
        crop_seed = int(self._of(row, "sha256")[:8], 16) + copy if is_cropped else None
        return square(self._paths[row], self.size, framing, crop_seed)

    def _fresh(self, recipe: str, framing: str) -> FreshDraws:
        return FreshDraws(self.manifest.root, recipe, framing, self.size, self.seed)

    def _picture(self, row: int, copy: int) -> ImageCopy:
        return ImageCopy(self._of(row, "path"), self._of(row, "sha256"), copy)

    @cached_property
    def _paths(self) -> list[Path]:
        return self.manifest.paths()

    @cached_property
    def _first_view(self) -> str:
        return next(iter(self.views.values()))

    def _copy(self, row: int, recipe: str, k: int) -> np.ndarray:
        if recipe in self.drawn_anew.recipes:
            draws = self._fresh(recipe, self._first_view)
            decoded = None if draws.reads_files else self._square(row, self._first_view)
            return draws.image(self._picture(row, k), 0, decoded)
        image = self._square(row, self._first_view, k)
        return augment(image, self._of(row, "sha256"), k, recipe, self.manifest.seed)

    def _blend(self, row: int, kind: str, alpha: float, number: int) -> tuple[np.ndarray, str]:
        random = np.random.default_rng((self.manifest.seed, 2, row, number, kind == "cutmix", round(1000 * alpha)))
        others = [each for each in self.rows if each != row] or [row]
        other = others[int(random.integers(len(others)))]
        mixed, share = blend(
            self._square(row, self._first_view), self._square(other, self._first_view), kind, alpha, random
        )
        labels = [(share, self._label(row)), (1 - share, self._label(other))]
        return _small(mixed), "\n".join(f"{100 * part:.0f} % {label[:LONGEST_LABEL]}" for part, label in labels)


def _small(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[0] <= LARGEST_DRAWN:
        return pixels
    small = Image.fromarray(pixels).resize((LARGEST_DRAWN, LARGEST_DRAWN), Image.Resampling.LANCZOS)
    return np.asarray(small)
