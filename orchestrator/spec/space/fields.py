"""Table of the fields of a search: their allowed values as a message, as a check, and as JSON Schema."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.spec.mistakes import quoted, unknown_value
from trainers.backbones import BACKBONES, backbone
from trainers.config import (
    BALANCES,
    BATCH_NORMS,
    DECODES,
    DRAWS,
    FUSIONS,
    LOSSES,
    OPTIMIZERS,
    OUTPUT_STRIDES,
    POOLINGS,
    SCHEDULES,
    SPREADS,
    STEPS,
    VIEWS,
)
from trainers.errors import TrainerError
from trainers.heads import HEADS, head

DOTTED_NAME = "[^:]+:[^:]+"
"""Pattern of ``my_module:NAME``, a custom backbone, head or recipe."""


@dataclass(frozen=True)
class Numbers:
    """A numeric field with values from ``low`` to ``high``, without the bounds ("low", "high") in ``open``.

    ``words`` are allowed too. ``null``: what null means; "" if null is not allowed.
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
        """Return None if ``value`` is allowed, else the message."""
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
        """Return an allowed value in the field's type: numbers become floats unless the field is whole."""
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
    """A field with one of a table's names, or one of a few integers.

    ``find`` imports a custom entry by its dotted name; None if the table is closed. ``refused``: name -> why it is not
    supported. ``yes`` and ``no``: names that YAML's true and false mean; "" for none.
    """

    description: str
    known: Callable[[], Iterable[str | int]]
    find: Callable[[str], object] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    yes: str = ""
    no: str = ""

    def problem(self, value: Any) -> str | None:
        """Return None if ``value`` is a known name, else the message. Imports a dotted name."""
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
        except Exception as error:  # importing the user's module can raise anything
            return f"found {quoted(value)}; importing it failed: {type(error).__name__}: {error}."
        return None

    def clean(self, value: Any) -> Any:
        """Return an allowed value in its canonical spelling."""
        return self._word(value) if isinstance(value, bool) else value

    def _word(self, value: bool) -> str:
        return self.yes if value else self.no

    def schema(self) -> dict[str, Any]:
        booleans = [value for value in (True, False) if self._word(value)]
        names = {"enum": [*self.known(), *booleans]}
        return {"anyOf": [names, {"type": "string", "pattern": f"^{DOTTED_NAME}$"}]} if self.find else names


def _recipes() -> Iterable[str]:
    from trainers.images.augment import RECIPES  # imports numpy: only if a recipe is named

    return RECIPES


def _find_recipe(name: str) -> object:
    from trainers.images.augment import find_recipe

    return find_recipe(name)


NO_BINARY_CROSSENTROPY = (
    "it treats every class as a separate yes/no question, although the output is a softmax over the classes, and the "
    "accuracy that Keras then reports is binary and far too high. Use categorical_crossentropy."
)
ADAMW_IS_ADAM = (
    "adam with weight_decay above 0 is AdamW here, because the decay is decoupled. Use adam and weight_decay."
)
HIGHEST_MARGIN = 4
"""Maximum margin of any head; each head has its own range below."""
GPU_MEMORY = Numbers("Minimum GPU memory per trial in GB for the case to apply.", 0, 10_000, ("low",))
"""Condition of a ``when`` on the machine, next to those on fields."""
FIELDS: dict[str, Numbers | Names] = {
    "backbone": Names("The network below the head.", lambda: BACKBONES, backbone),
    "unfrozen_layers": Numbers(
        "Number of the backbone's last layers to train; 0 trains the head alone.",
        *(0, 10_000),
        whole=True,
        words=("all",),
    ),
    "dropout": Numbers("Dropout rate of the features.", 0, 1, open=("high",)),
    "multiplier": Numbers("Augmented training set size over the original size; 1 = no augmentation.", 1, 100),
    "head": Names("Classifier on top of the backbone.", lambda: HEADS, head),
    "smoothing": Numbers("Label smoothing: fraction of the label spread over all classes.", 0, 1, open=("high",)),
    "image_size": Numbers(
        "Side of the square input image in pixels.", 8, 4096, whole=True, null="the backbone's native size"
    ),
    "view": Names("How a photo is made square.", lambda: VIEWS),
    "learning_rate": Numbers("Peak learning rate.", 0, 10, open=("low",)),
    "optimizer": Names("Optimiser.", lambda: OPTIMIZERS, refused={"adamw": ADAMW_IS_ADAM}),
    "weight_decay": Numbers("Decoupled weight decay of the kernels.", 0, 1),
    "batch_size": Numbers("Images per training step.", 1, 65_536, whole=True),
    "schedule": Names("Learning-rate schedule after the warm-up.", lambda: SCHEDULES),
    "warmup": Numbers("Fraction of all steps in which the learning rate rises to its peak.", 0, 1, open=("high",)),
    "clip_norm": Numbers("Maximum global norm of the gradient; 0 = no clipping.", 0, 1_000_000),
    "pooling": Names(
        "Global pooling of the feature map, or of a transformer's patches; token takes a transformer's class token.",
        lambda: POOLINGS,
    ),
    "hidden": Numbers("Units of a dense layer between pooling and head; 0 = no such layer.", 0, 65_536, whole=True),
    "scale": Numbers(
        "Scale of a normalised head.", 0, 1000, open=("low",), null="the default for the number of classes"
    ),
    "margin": Numbers(
        "Margin of a margin head, applied in training only.", 0, HIGHEST_MARGIN, null="the head's default"
    ),
    "loss": Names("Loss function.", lambda: LOSSES, refused={"binary_crossentropy": NO_BINARY_CROSSENTROPY}),
    "recipe": Names("How to augment the copies that a multiplier above 1 makes.", _recipes, _find_recipe),
    "output_stride": Names(
        "Side of the image over side of the last feature map; 16 doubles the map's resolution, if the backbone "
        "supports it.",
        lambda: OUTPUT_STRIDES,
    ),
    "feature_fusion": Names(
        "How to combine the pooled features of several stages: concat (or true) concatenates them, sum adds them after "
        "a dense layer each; none (or false) uses the last stage alone.",
        lambda: FUSIONS,
        yes="concat",
        no="none",
    ),
    "mixup": Numbers(
        "Alpha of the Beta distribution for mixing two images; 0 = no mixup. Above 0, frozen layers run in every step, "
        "because features of mixed images cannot be stored.",
        *(0, 10),
    ),
    "cutmix": Numbers(
        "Alpha of the Beta distribution for pasting a box of one image into another; 0 = no CutMix. Above 0, frozen "
        "layers run in every step.",
        *(0, 10),
    ),
    "balance": Names(
        "How to compensate for imbalanced classes, in addition to the multiplier: weights in the loss, or sampling.",
        lambda: BALANCES,
    ),
    "copies": Names(
        "How a multiplier spreads its copies: even gives the small classes more; proportional gives every class the "
        "same factor.",
        lambda: SPREADS,
    ),
    "steps": Names(
        "Steps of an epoch with a multiplier above 1: all takes every original and copy; originals takes as many of "
        "them as there are originals, so that trials of all multipliers train for equally many steps.",
        lambda: STEPS,
    ),
    "batch_norm": Names(
        "Moving statistics of the trained batch norms: inherited keeps the backbone's momentum, adapted takes one that "
        "fits the number of steps, measured takes them again over training images after each epoch, frozen keeps those "
        "of the weights, and the scales, too.",
        lambda: BATCH_NORMS,
    ),
    "bottom_rate": Numbers(
        "Learning rate of the lowest trained layer of the backbone over that of the head; between them the rate falls "
        "geometrically, layer by layer.",
        *(0, 1),
        open=("low",),
    ),
    "margin_warmup": Numbers("Fraction of all steps in which a margin grows from nothing.", 0, 1),
    "ema": Numbers(
        "Decay of the exponential moving average of the weights that is validated and kept; 0 = no average.",
        *(0, 1),
        open=("high",),
    ),
    "warm_head": Numbers(
        "Epochs in which the head alone is trained first, on the stored features of the frozen backbone; 0 = none.",
        *(0, 10_000),
        whole=True,
    ),
    "accumulation_steps": Numbers(
        "Parts of a batch that pass through the network one after another; their gradients are averaged before the "
        "step, so a batch needs the memory of one part.",
        *(1, 65_536),
        whole=True,
    ),
    "draws": Names(
        "Whether copies and random crops are drawn anew in each epoch (fresh) or once (fixed). Only where everything "
        "is trained or images are mixed; stored features need fixed ones.",
        lambda: DRAWS,
    ),
    "decode": Names("How small a large JPEG may be decoded before it is made square.", lambda: DECODES),
}
"""Fields of ``TrialConfig``, in the same order, without epochs, which belong to the budget."""
