"""One table of backbones: name -> builder, preprocessing, sizes, weights.

Imports without TensorFlow, so that checking a file is quick. A backbone of your own joins by a dotted name:
``backbone: my_package.my_module:MY_BACKBONE``, where ``MY_BACKBONE`` is a ``Backbone``.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.contract import TrainerError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Backbone:
    """One row.

    ``builder``: dotted "module:function" called with ``input_shape``, ``include_top=False``, ``weights=None`` and
    ``arguments``; returns a ``keras.Model`` from float images to one feature map.
    ``preprocessing``: "tf" (x / 127.5 - 1) or "caffe" (BGR, ImageNet means subtracted); input is 0..255 RGB.
    ``layers``: the length of the model's ``layers``. ``imagenet``: Keras can download weights for it.
    ``files``: the pattern of a weight file's name in a weights folder.
    """

    name: str
    builder: str
    preprocessing: str
    native_size: int
    smallest_size: int
    layers: int
    imagenet: bool = True
    files: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


def _mobilenet(alpha: float) -> Backbone:
    name = f"mobilenet_{alpha}"
    return Backbone(
        name,
        "keras.applications:MobileNet",
        preprocessing="tf",
        native_size=224,
        smallest_size=32,
        layers=86,
        files=f"{name}_*_no_top.weights.h5",
        arguments={"alpha": alpha},
    )


BACKBONES: dict[str, Backbone] = {
    row.name: row
    for row in (
        Backbone(
            "small_cnn",
            "trainers.backbones:build_small_cnn",
            preprocessing="tf",
            native_size=32,
            smallest_size=8,
            layers=10,
            imagenet=False,
        ),
        *(_mobilenet(alpha) for alpha in (0.25, 0.5, 0.75, 1.0)),
        Backbone(
            "mobilenet_v2",
            "keras.applications:MobileNetV2",
            preprocessing="tf",
            native_size=224,
            smallest_size=32,
            layers=154,
            files="mobilenet_v2_1.0_*_no_top.weights.h5",
        ),
        Backbone(
            "resnet50",
            "keras.applications:ResNet50",
            preprocessing="caffe",
            native_size=224,
            smallest_size=32,
            layers=175,
            files="resnet50_*no_top*.h5",
        ),
        Backbone(
            "vgg16",
            "keras.applications:VGG16",
            preprocessing="caffe",
            native_size=224,
            smallest_size=32,
            layers=19,
            files="vgg16_*no_top*.h5",
        ),
    )
}


def backbone(name: str) -> Backbone:
    """The row called ``name``, or the ``Backbone`` at a dotted "module:attribute". Raises TrainerError."""
    if name in BACKBONES:
        return BACKBONES[name]
    return lookup(name, BACKBONES, Backbone)


def lookup(name: str, table: dict[str, Any], kind: type) -> Any:
    """A dotted "module:attribute" of type ``kind``; the sentence when there is none names the nearest of ``table``."""
    word = kind.__name__.lower()
    if ":" not in name:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise TrainerError(
            f"there is no {word} {name!r}{hint} Known are {', '.join(sorted(table))}, "
            f"or your own by its dotted name, my_module:my_{word}."
        )
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise TrainerError(f"the {word} {name!r} cannot be imported: {error}") from error
    if not isinstance(found, kind):
        raise TrainerError(f"{name!r} is a {type(found).__name__}, not a {word}.")
    return found


def weight_file(row: Backbone, folder: Path, image_size: int) -> Path:
    """The file in ``folder`` that holds ``row``'s weights; of several sizes, the nearest to ``image_size``.

    Raises TrainerError that says which pattern was looked for and what lies there.
    """
    if not folder.is_dir():
        raise TrainerError(f"the weights folder {folder} does not exist.")
    found = sorted(folder.glob(row.files)) if row.files else []
    if not found:
        there = ", ".join(sorted(p.name for p in folder.glob("*.h5"))) or "no .h5 file"
        raise TrainerError(
            f"no weights for {row.name} in {folder}: looked for {row.files or 'nothing'}, found {there}."
        )

    def distance(path: Path) -> int:
        sizes = [int(part) for part in path.name.replace(".", "_").split("_") if part.isdigit() and len(part) == 3]
        return min((abs(size - image_size) for size in sizes), default=0)

    return min(found, key=distance)


def build_small_cnn(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
    """Three convolutions for small pictures, trained from scratch in seconds."""
    import keras

    inputs = keras.Input(input_shape)
    x = inputs
    for block, filters in enumerate((16, 32, 64), start=1):
        x = keras.layers.Conv2D(
            filters, 3, strides=1 if block == 1 else 2, padding="same", use_bias=False, name=f"conv_{block}"
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"conv_{block}_bn")(x)
        x = keras.layers.ReLU(name=f"conv_{block}_relu")(x)
    return keras.Model(inputs, x, name="small_cnn")


def load_builder(row: Backbone) -> Any:
    """The function that ``row.builder`` names; imports TensorFlow. Raises TrainerError."""
    module, _, name = row.builder.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TrainerError(f"the builder {row.builder!r} of {row.name} cannot be imported: {error}") from error
