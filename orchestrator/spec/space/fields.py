"""Table of the search's fields: what each may be, in words, as a check and as a JSON Schema."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.spec.mistakes import quoted, unknown_value
from trainers.backbones import BACKBONES, backbone
from trainers.config import BALANCES, FUSIONS, LOSSES, OPTIMIZERS, OUTPUT_STRIDES, POOLINGS, SCHEDULES, VIEWS
from trainers.errors import TrainerError
from trainers.heads import HEADS, head

DOTTED_NAME = "[^:]+:[^:]+"
"""Pattern of ``my_module:NAME``, a user's own backbone, head or recipe."""


@dataclass(frozen=True)
class Numbers:
    """A field that holds numbers from ``low`` to ``high``; ``open`` ends, of "low" and "high", are left out.

    ``words`` are allowed too. ``null`` says what null means; "" where it is not allowed.
    """

    description: str
    low: float
    high: float
    open: tuple[str, ...] = ()
    whole: bool = False
    words: tuple[str, ...] = ()
    null: str = ""

    @property
    def allowed(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"{'above' if 'low' in self.open else 'at least'} {quoted(self.low)}"
        high = f"{'below' if 'high' in self.open else 'at most'} {quoted(self.high)}"
        words = "".join(f', or "{word}"' for word in self.words)
        return f"{kind}, {low} and {high}{words}{f', or null for {self.null}' if self.null else ''}"

    def problem(self, value: Any) -> str | None:
        """None if ``value`` is allowed, else the sentence."""
        if (value is None and self.null) or (isinstance(value, str) and value in self.words):
            return None
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if number and not (self.whole and isinstance(value, float)) and self._inside(value):
            return None
        as_text = "the text " if isinstance(value, str) else ""
        return f"found {as_text}{quoted(value)}; allowed: {self.allowed}."

    def _inside(self, value: float) -> bool:
        above = value > self.low or (value == self.low and "low" not in self.open)
        return above and (value < self.high or (value == self.high and "high" not in self.open))

    def clean(self, value: Any) -> Any:
        """An allowed value in its one type: a float unless the field is whole."""
        return value if self.whole or value is None or isinstance(value, str) else float(value)

    def schema(self) -> dict[str, Any]:
        number: dict[str, Any] = {
            "type": "integer" if self.whole else "number",
            "exclusiveMinimum" if "low" in self.open else "minimum": self.low,
            "exclusiveMaximum" if "high" in self.open else "maximum": self.high,
        }
        others: list[dict[str, Any]] = [{"enum": list(self.words)}] if self.words else []
        others += [{"type": "null"}] if self.null else []
        return {"anyOf": [number, *others]} if others else number


@dataclass(frozen=True)
class Names:
    """A field that holds one of a table's names, or one of a few whole numbers.

    ``find`` looks up one's own by a dotted name; None for a closed table. ``refused`` holds names that have a reason of
    their own. ``yes`` and ``no`` are the names that YAML's true and false stand for; "" where they stand for none.
    """

    description: str
    known: Callable[[], Iterable[str | int]]
    find: Callable[[str], object] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    yes: str = ""
    no: str = ""

    def problem(self, value: Any) -> str | None:
        """None if ``value`` is a known name, else the sentence. A dotted name is imported."""
        known = tuple(self.known())
        if isinstance(value, bool) and self._word(value):
            return None
        if isinstance(value, str | int) and not isinstance(value, bool) and value in known:
            return None
        if isinstance(value, str) and value.lower() in self.refused:
            return f"found {quoted(value)}; {self.refused[value.lower()]}"
        if not any(isinstance(each, str) for each in known):
            as_text = "the text " if isinstance(value, str) else ""
            return f"found {as_text}{quoted(value)}; allowed: {' or '.join(map(str, known))}."
        if self.find is None or not isinstance(value, str) or not re.fullmatch(DOTTED_NAME, value):
            return unknown_value(value, [*map(str, known)], ", or your own as my_module:NAME" if self.find else "")
        try:
            self.find(value)
        except TrainerError as error:
            return str(error)
        except Exception as error:  # the module is the user's own: importing it can raise anything
            return f"found {quoted(value)}; importing it failed: {type(error).__name__}: {error}."
        return None

    def clean(self, value: Any) -> Any:
        """An allowed value in its one spelling."""
        return self._word(value) if isinstance(value, bool) else value

    def _word(self, value: bool) -> str:
        return self.yes if value else self.no

    def schema(self) -> dict[str, Any]:
        booleans = [value for value in (True, False) if self._word(value)]
        names = {"enum": [*self.known(), *booleans]}
        return {"anyOf": [names, {"type": "string", "pattern": f"^{DOTTED_NAME}$"}]} if self.find else names


def _recipes() -> Iterable[str]:
    from trainers.images.augment import RECIPES  # numpy: only where a recipe is named

    return RECIPES


def _find_recipe(name: str) -> object:
    from trainers.images.augment import find_recipe

    return find_recipe(name)


NO_BINARY_CROSSENTROPY = (
    "with a softmax over the classes it scores every class as a yes/no question of its own, and the accuracy that "
    "Keras then reports is binary and far too high. Use categorical_crossentropy."
)
ADAMW_IS_ADAM = "adam with weight_decay above 0 is AdamW here, for the decay is decoupled. Use adam and weight_decay."
HIGHEST_MARGIN = 4
"""What any margin head takes; each has a range of its own within."""
GPU_MEMORY = Numbers(
    "GPU memory of one trial in GB; the case applies where there is at least so much.", 0, 10_000, ("low",)
)
"""What a ``when`` may ask of the machine, next to the fields."""
FIELDS: dict[str, Numbers | Names] = {
    "backbone": Names("The network below the head.", lambda: BACKBONES, backbone),
    "unfrozen_layers": Numbers(
        "How many of the backbone's last layers are trained; 0 trains the head alone.",
        *(0, 10_000),
        whole=True,
        words=("all",),
    ),
    "dropout": Numbers("Share of features dropped in training.", 0, 1, open=("high",)),
    "multiplier": Numbers("Augmented training set size over the original size; 1 = no augmentation.", 1, 100),
    "head": Names("What turns features into classes.", lambda: HEADS, head),
    "smoothing": Numbers("Label smoothing: share of the label spread over all classes.", 0, 1, open=("high",)),
    "image_size": Numbers(
        "Side of the square image in pixels.", 8, 4096, whole=True, null="the backbone's native size"
    ),
    "view": Names("How a photo becomes square.", lambda: VIEWS),
    "learning_rate": Numbers("The peak learning rate.", 0, 10, open=("low",)),
    "optimizer": Names("The optimiser.", lambda: OPTIMIZERS, refused={"adamw": ADAMW_IS_ADAM}),
    "weight_decay": Numbers("Decoupled weight decay of the kernels.", 0, 1),
    "batch_size": Numbers("Images in one step.", 1, 65_536, whole=True),
    "schedule": Names("How the learning rate falls after the warm-up.", lambda: SCHEDULES),
    "warmup": Numbers("Share of all steps in which the learning rate rises to its peak.", 0, 1, open=("high",)),
    "clip_norm": Numbers("Largest global norm of the gradient; 0 = no clipping.", 0, 1_000_000),
    "pooling": Names("How a feature map becomes a vector.", lambda: POOLINGS),
    "hidden": Numbers("Units of a dense layer between pooling and head; 0 = none.", 0, 65_536, whole=True),
    "scale": Numbers(
        "The scale of a normalised head.", 0, 1000, open=("low",), null="the default for the number of classes"
    ),
    "margin": Numbers(
        "The margin of a margin head; acts in training only.", 0, HIGHEST_MARGIN, null="the head's default"
    ),
    "loss": Names("The loss.", lambda: LOSSES, refused={"binary_crossentropy": NO_BINARY_CROSSENTROPY}),
    "recipe": Names("How copies are augmented where the multiplier is above 1.", _recipes, _find_recipe),
    "output_stride": Names(
        "The image's side over the last feature map's; 16 keeps twice the detail a side, for the backbones that can.",
        lambda: OUTPUT_STRIDES,
    ),
    "feature_fusion": Names(
        "Pooled features of several stages, concatenated (true), or summed through a small neck; none (false) uses the "
        "last alone.",
        lambda: FUSIONS,
        yes="concat",
        no="none",
    ),
    "mixup": Numbers(
        "Alpha of the Beta distribution by which two images are blended; 0 = never. Frozen layers then run in every "
        "step, for a blend cannot be stored.",
        *(0, 10),
    ),
    "cutmix": Numbers(
        "Alpha of the Beta distribution by which a box of one image is pasted into another; 0 = never. Frozen layers "
        "then run in every step.",
        *(0, 10),
    ),
    "balance": Names(
        "What makes up for uneven classes next to the multiplier: weights in the loss, or how often each is drawn.",
        lambda: BALANCES,
    ),
}
"""The fields of ``TrialConfig`` but epochs, which belong to the budget, in the same order."""
