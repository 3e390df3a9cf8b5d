"""Decide whether a model may become the champion. Pure: two contenders in, a decision with its reasons out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import OrchError
from orchestrator.evaluation.leaderboard import PairedDifference, accuracy_interval, paired_difference, signed

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


@dataclass(frozen=True)
class Contender:
    """Challenger or champion.

    ``classes``: in the order of its outputs. ``correct``: sha256 -> whether the prediction is correct, at least for the
    challenger's test images. ``trained_on``: sha256 of every image of its training and validation.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    correct: Mapping[str, bool]
    trained_on: frozenset[str]

    @property
    def label(self) -> str:
        return f"{self.name} version {self.version}" if self.version else self.name


@dataclass(frozen=True)
class Reason:
    """One finding. ``code`` is one of ``REFUSALS``, ``NO_CHAMPION``, ``ALREADY_CHAMPION`` or ``NOT_LOWER``."""

    code: str
    sentence: str
    overridden: bool = False

    @property
    def refuses(self) -> bool:
        return self.code in REFUSALS and not self.overridden


@dataclass(frozen=True)
class Decision:
    """``allowed`` unless some reason refuses. ``comparison``: challenger minus champion; None without a champion."""

    allowed: bool
    reasons: tuple[Reason, ...]
    comparison: PairedDifference | None

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


def decide(challenger: Contender, champion: Contender | None, overrides: frozenset[str] = frozenset()) -> Decision:
    """Decide whether ``challenger`` may replace the champion; collect all reasons, not only the first.

    ``overrides``: codes of ``REFUSALS`` to ignore, or ``FORCE`` for all of them.
    Raises OrchError for an unknown override; ValueError if there is no test image or the champion lacks a prediction
    for one.
    """
    unknown = sorted(overrides - {*REFUSALS, FORCE})
    if unknown:
        raise OrchError(
            f"there is no override {', '.join(unknown)}; known are {', '.join(REFUSALS)}, and {FORCE} for all of them."
        )
    if not challenger.correct:
        raise ValueError(f"{challenger.label} has no test images")
    if champion is not None and (champion.name, champion.version) == (challenger.name, challenger.version):
        return Decision(True, (Reason(ALREADY_CHAMPION, f"{champion.label} is the champion already."),), None)

    comparison = None if champion is None else _compare(challenger, champion)
    found = [_trained_on_test(challenger), *_against(challenger, champion, comparison)]
    reasons = tuple(
        Reason(r.code, r.sentence, r.code in REFUSALS and bool(overrides & {r.code, FORCE})) for r in found if r
    )
    return Decision(not any(r.refuses for r in reasons), reasons, comparison)


def _against(
    challenger: Contender, champion: Contender | None, comparison: PairedDifference | None
) -> Sequence[Reason | None]:
    if champion is None or comparison is None:
        return [Reason(NO_CHAMPION, "There is no champion yet.")]
    return [
        _different_classes(challenger, champion),
        _champion_saw_test(challenger, champion),
        _accuracy(challenger, champion, comparison),
    ]


def _compare(challenger: Contender, champion: Contender) -> PairedDifference:
    images = sorted(challenger.correct)
    missing = [i for i in images if i not in champion.correct]
    if missing:
        raise ValueError(
            f"{champion.label} lacks predictions for {len(missing)} of {challenger.label}'s {len(images)} test images"
        )
    return paired_difference([champion.correct[i] for i in images], [challenger.correct[i] for i in images])


def _trained_on_test(challenger: Contender) -> Reason | None:
    seen = challenger.trained_on & challenger.correct.keys()
    if not seen:
        return None
    return Reason(
        TRAINED_ON_TEST,
        f"{challenger.label} was trained on {_of(len(seen), len(challenger.correct), 'its own')}, so its test "
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


def _champion_saw_test(challenger: Contender, champion: Contender) -> Reason | None:
    images = challenger.correct
    seen = champion.trained_on & images.keys()
    if not seen:
        return None
    sentence = (
        f"The champion {champion.label} was trained on {_of(len(seen), len(images))}, so the comparison favours it"
    )
    unseen = [i for i in images if i not in seen]
    if unseen:
        right = sum(images[i] for i in unseen), sum(champion.correct[i] for i in unseen)
        sentence += (
            f"; on the other {len(unseen)} the challenger has {_percent(right[0], len(unseen))} right "
            f"and the champion {_percent(right[1], len(unseen))}"
        )
    return Reason(CHAMPION_SAW_TEST, sentence + ".")


def _of(count: int, total: int, whose: str = "the") -> str:
    return f"{count} of {whose} {total} test images ({100 * count / total:.1f} %)"


def _accuracy(challenger: Contender, champion: Contender, comparison: PairedDifference) -> Reason:
    images = challenger.correct
    right = sum(images.values()), sum(champion.correct[i] for i in images)
    gap = f"{signed(comparison.difference)} points (95 % {signed(comparison.low)} to {signed(comparison.high)})"
    figures = (
        f"{challenger.label} has {_interval(right[0], len(images))}, the champion {champion.label} has "
        f"{_interval(right[1], len(images))} on the same {len(images)} test images: {gap}, p = {comparison.p_value:.3g}"
    )
    if right[0] < right[1]:
        return Reason(LOWER_ACCURACY, f"The accuracy is lower: {figures}.")
    return Reason(NOT_LOWER, f"The accuracy is {'higher' if right[0] > right[1] else 'the same'}: {figures}.")


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %"


def _interval(correct: int, total: int) -> str:
    low, high = accuracy_interval(correct, total)
    return f"{_percent(correct, total)} ({100 * low:.1f} to {100 * high:.1f})"
