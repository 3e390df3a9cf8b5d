"""Decide whether a model may become the champion. Pure: two contenders in, a decision with its reasons out.

The challenger must not be worse by more than a margin (non-inferiority; Liu et al. 2002, Statistics in Medicine 21).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.errors import OrchError
from orchestrator.evaluation.gate_figures import GateFigures, compare_answers, exceeds_largest_class
from orchestrator.evaluation.intervals import MIN_GROUPS, PairedDifference
from orchestrator.evaluation.leaderboard import signed
from orchestrator.objectives import ACCURACY
from trainers.wording import count

LOWER_ACCURACY = "lower-accuracy"
DIFFERENT_CLASSES = "different-classes"
CHAMPION_SAW_TEST = "champion-saw-test"
TRAINED_ON_TEST = "trained-on-test"
REFUSALS = (LOWER_ACCURACY, DIFFERENT_CLASSES, CHAMPION_SAW_TEST, TRAINED_ON_TEST)
"""Codes of all refusals; ``--allow CODE`` overrides one."""
FORCE = "all"
"""Code that overrides every refusal; ``--force`` on the command line."""

NO_CHAMPION = "no-champion"
ALREADY_CHAMPION = "already-champion"
NOT_LOWER = "not-lower"
UNSEEN = "unseen"
"""How many test images the comparison rests on, and how many were left out."""
LARGEST_CLASS = "largest-class"
"""A warning: the model is not shown to be better than one that always answers the largest class."""

MARGIN = 0.03
"""Largest loss of accuracy or macro F1 that the gate does not exclude, as a fraction."""


@dataclass(frozen=True)
class Contender:
    """Challenger or champion.

    ``classes``: in the order of its outputs. ``answers``: sha256 -> the class that it gave, at least for the images
    that are compared. ``trained_on``: sha256 of every image of its training and validation. ``copies``: sha256 of those
    of the challenger's test images that show one of these photos in other bytes. ``networks``: what it is made of, as
    the sweep's run, the crop policy and the networks' ids; equal ones are the same networks, () is unknown.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    answers: Mapping[str, str]
    trained_on: frozenset[str]
    copies: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ()

    def saw(self, images: Mapping[str, str]) -> set[str]:
        """Return those of ``images`` that it was trained or chosen on, by their content."""
        return {image for image in images if image in self.trained_on or image in self.copies}

    @property
    def label(self) -> str:
        return f"{self.name} version {self.version}" if self.version else self.name


@dataclass(frozen=True)
class JudgedImages:
    """The challenger's test images: sha256 -> label, and sha256 -> group; an image without one is independent."""

    labels: Mapping[str, str]
    groups: Mapping[str, str]

    def without(self, seen: set[str]) -> JudgedImages:
        return JudgedImages({image: label for image, label in self.labels.items() if image not in seen}, self.groups)

    @property
    def objects(self) -> int:
        return len({self.groups.get(image, image) for image in self.labels})

    def right(self, contender: Contender) -> dict[str, bool]:
        return {image: contender.answers.get(image) == label for image, label in self.labels.items()}


@dataclass(frozen=True)
class Reason:
    """One finding. ``code``: of ``REFUSALS``, or NO_CHAMPION, ALREADY_CHAMPION, NOT_LOWER, LARGEST_CLASS, UNSEEN."""

    code: str
    sentence: str
    overridden: bool = False

    @property
    def refuses(self) -> bool:
        return self.code in REFUSALS and not self.overridden


@dataclass(frozen=True)
class Decision:
    """``allowed`` unless some reason refuses. ``comparison``: challenger minus champion; None without a champion.

    ``compared``: number of test images that it rests on. ``left_out``: number that a contender had seen.
    """

    allowed: bool
    reasons: tuple[Reason, ...]
    comparison: PairedDifference | None
    compared: int = 0
    left_out: int = 0

    @property
    def text(self) -> str:
        """The verdict, one reason per line, and the flags that override the refusals."""
        codes = [r.code for r in self.reasons if r.refuses]
        lines = ["The promotion is allowed." if self.allowed else "The promotion is refused."]
        lines += [f"- {r.sentence}{f' (overridden: {r.code})' if r.overridden else ''}" for r in self.reasons]
        if codes:
            flags = " ".join(f"--allow {code}" for code in codes)
            lines.append(f"To promote it anyway, add `{flags}` or `--force`. The override is recorded.")
        return "\n".join(lines)


def decide(
    challenger: Contender,
    champion: Contender | None,
    images: JudgedImages,
    overrides: frozenset[str] = frozenset(),
    *,
    objective: str = ACCURACY,
    margin: float = MARGIN,
) -> Decision:
    """Decide whether ``challenger`` may replace the champion; collect all reasons, not only the first.

    They are compared on the test images that neither has seen; on all of them only where too few of these remain, which
    is a refusal of its own.

    ``objective``: the sweep's; macro F1 is compared by macro F1, every other by accuracy. ``margin``: a fraction; the
    challenger is refused if it may be worse by more, or is significantly worse. ``overrides``: codes of ``REFUSALS`` to
    ignore, or ``FORCE`` for all of them.

    Raises OrchError for an unknown override; ValueError if there is no test image, a contender lacks an answer for one,
    or the margin is not between 0 and 1.
    """
    unknown = sorted(overrides - {*REFUSALS, FORCE})
    if unknown:
        raise OrchError(
            f"there is no override {', '.join(unknown)}; known are {', '.join(REFUSALS)}, and {FORCE} for all of them."
        )
    if not 0 < margin < 1:
        raise ValueError(f"the margin must be a fraction between 0 and 1; got {margin}")
    if champion is not None and (champion.name, champion.version) == (challenger.name, challenger.version):
        return Decision(True, (Reason(ALREADY_CHAMPION, f"{champion.label} is the champion already."),), None)
    if not images.labels:
        raise ValueError(f"{challenger.label} has no test images")
    _check_answers(challenger, images)
    found = [_trained_on_test(challenger, images)]
    comparison, compared, left_out = None, 0, 0
    if champion is None:
        found += [Reason(NO_CHAMPION, "There is no champion yet."), _largest_class(challenger, images)]
    else:
        unseen = comparable(challenger, champion, images)
        _check_answers(champion, unseen)
        compared, left_out = len(unseen.labels), len(images.labels) - len(unseen.labels)
        figures = _compare(challenger, champion, unseen, objective, margin)
        comparison = figures.difference
        found += [
            _different_classes(challenger, champion),
            _seen(challenger, champion, images, unseen),
            _lower(challenger, champion, figures),
        ]
    reasons = tuple(
        Reason(r.code, r.sentence, r.code in REFUSALS and bool(overrides & {r.code, FORCE})) for r in found if r
    )
    return Decision(not any(r.refuses for r in reasons), reasons, comparison, compared, left_out)


def comparable(challenger: Contender, champion: Contender, images: JudgedImages) -> JudgedImages:
    """Return the images that neither contender has seen; all of ``images`` if fewer than ``MIN_GROUPS`` objects remain.

    Needs no answers, so a champion need not be asked about the others.
    """
    unseen = images.without(challenger.saw(images.labels) | champion.saw(images.labels))
    return unseen if unseen.objects >= MIN_GROUPS or len(unseen.labels) == len(images.labels) else images


def _check_answers(contender: Contender, images: JudgedImages) -> None:
    missing = len(images.labels.keys() - contender.answers.keys())
    if missing:
        raise ValueError(f"{contender.label} lacks predictions for {missing} of the {len(images.labels)} test images")


def _compare(
    challenger: Contender, champion: Contender, images: JudgedImages, objective: str, margin: float
) -> GateFigures:
    order = sorted(images.labels)
    classes = sorted({*images.labels.values(), *challenger.answers.values(), *champion.answers.values()})
    place = {name: i for i, name in enumerate(classes)}
    labels, new, old = (
        np.array([place[answers[image]] for image in order])
        for answers in (images.labels, challenger.answers, champion.answers)
    )
    return compare_answers(labels, old, new, [images.groups.get(i, i) for i in order], objective, margin)


def _largest_class(challenger: Contender, images: JudgedImages) -> Reason | None:
    """Warn if the first model is not shown to be better than the most frequent label."""
    order = sorted(images.labels)
    labels = np.array([images.labels[image] for image in order])
    right = np.array([challenger.answers[image] for image in order]) == labels
    name, share, exceeds = exceeds_largest_class(labels, right, [images.groups.get(i, i) for i in order])
    if exceeds:
        return None
    return Reason(
        LARGEST_CLASS,
        f"Warning: {challenger.label} has {100 * right.mean():.1f} % right on {len(right)} test images, which is not "
        f"shown to be better than always answering {name!r} ({100 * share:.1f} %).",
    )


def _trained_on_test(challenger: Contender, images: JudgedImages) -> Reason | None:
    seen = challenger.trained_on & images.labels.keys()
    if not seen:
        return None
    return Reason(
        TRAINED_ON_TEST,
        f"{challenger.label} was trained on {_of(len(seen), len(images.labels), 'its own')}, so its test "
        "accuracy is not valid; the manifest's splits overlap.",
    )


def _different_classes(challenger: Contender, champion: Contender) -> Reason | None:
    if challenger.classes == champion.classes:
        return None
    added = [c for c in challenger.classes if c not in champion.classes]
    removed = [c for c in champion.classes if c not in challenger.classes]
    parts = []
    if added:
        parts.append(f"{_names(added)} {'was' if len(added) == 1 else 'were'} added")
    if removed:
        parts.append(f"{_names(removed)} {'was' if len(removed) == 1 else 'were'} removed")
    change = " and ".join(parts) if parts else "the same names are in another order"
    return Reason(
        DIFFERENT_CLASSES,
        f"The classes of {challenger.label} ({len(challenger.classes)}) differ from those of the champion "
        f"{champion.label} ({len(champion.classes)}): {change}.",
    )


def _names(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(repr(n) for n in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _seen(challenger: Contender, champion: Contender, images: JudgedImages, compared: JudgedImages) -> Reason:
    """Say how many images neither has seen; refuse if they are too few to compare on."""
    new, old = challenger.saw(images.labels), champion.saw(images.labels)
    unseen, total = images.without(new | old), len(images.labels)
    number = len(unseen.labels)
    by = [f"{who} ({len(seen)})" for who, seen in ((champion.label, old), (challenger.label, new - old)) if seen]
    who = f"{' and '.join(by)} {'was' if len(by) == 1 else 'were'} trained or chosen on"
    if number == len(compared.labels):
        sentence = f"Compared on {count(number, 'test photo')} that neither has seen"
        if number < total:
            sentence += f"; {total - number} more {'was' if total - number == 1 else 'were'} left out, which {who}"
        return Reason(UNSEEN, f"{sentence}.")
    sentence = (
        f"Only {number} of the {total} test images were seen by neither, too few to compare on: {who} the others. So "
        "the comparison is on all of them, which favours the one that saw more"
    )
    if number:
        right, before = unseen.right(challenger), unseen.right(champion)
        sentence += (
            f"; on those {number} the challenger has {_percent(sum(right.values()), number)} right and the champion "
            f"{_percent(sum(before.values()), number)}"
        )
    return Reason(CHAMPION_SAW_TEST, f"{sentence}.")


def _of(number: int, total: int, whose: str = "the") -> str:
    return f"{number} of {whose} {total} test images ({100 * number / total:.1f} %)"


def _lower(challenger: Contender, champion: Contender, found: GateFigures) -> Reason:
    margin, what = f"{100 * found.margin:g} points", found.words
    figures = (
        f"{challenger.label} has {found.challenger}, the champion {champion.label} has {found.champion} on the same "
        f"{found.size}: {found.difference_words}"
    )
    if found.same_answers and challenger.networks and challenger.networks == champion.networks:
        return Reason(
            NOT_LOWER,
            "Both are the same networks with the same crop policy and differ at most in the calibration of their "
            f"probabilities, which changes no answer: {figures}.",
        )
    if found.is_significantly_lower:
        return Reason(LOWER_ACCURACY, f"The {what} is lower: {figures}. {found.error_rates}")
    too_small = f" {_too_small(found)}" if found.is_too_small else ""
    if not found.is_known:
        return Reason(LOWER_ACCURACY, f"The {what} cannot be compared on so few objects: {figures}.{too_small}")
    figures += f", with {found.confidence} % confidence at least {signed(found.lower_bound)}"
    if not found.is_within_margin:
        sentence = f"The {what} may be lower by more than the margin of {margin}: {figures}."
        return Reason(LOWER_ACCURACY, f"{sentence}{too_small} {found.error_rates}")
    if found.same_answers:
        return Reason(NOT_LOWER, f"The {what} is the same, and so is every answer: {figures}. {found.error_rates}")
    return Reason(
        NOT_LOWER,
        f"The {what} is not lower by more than the margin of {margin}: {figures}. {found.error_rates}",
    )


def _too_small(found: GateFigures) -> str:
    """Say that equal answers would not pass, and what would do."""
    sentence = (
        f"On {found.size} even equal answers do not exclude a loss of {100 * found.margin:g} points, which takes "
        f"{found.photos_for_equal:,} such images"
    )
    if math.isfinite(found.margin_for_equal):
        sentence += f" or, on these, `--margin {100 * found.margin_for_equal:.1f}`"
    return f"{sentence}."


def _percent(number: int, total: int) -> str:
    return f"{100 * number / total:.1f} %"
