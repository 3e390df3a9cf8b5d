"""PyTorch state dicts into Keras files: right ones, wrong ones, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support.places import FIXTURES
from trainers.backbones import backbone, weight_file
from trainers.errors import TrainerError
from trainers.networks.architectures.senet import build_se_resnet, build_senet50
from trainers.networks.conversion.convert import convert, fill
from trainers.networks.conversion.published import PUBLISHED
from trainers.networks.conversion.state_dict import read_state_dict
from trainers.networks.weight_files import load_weights

FIXTURE = FIXTURES / "narrow_seresnet.safetensors"
SENET = PUBLISHED["senet50"]


def narrow():
    return build_se_resnet((32, 32, 3), depths=(2, 1, 1, 1), widths=(4, 4, 8, 8))


@pytest.fixture(scope="module")
def full() -> dict[str, np.ndarray]:
    """A whole state dict of seresnet50, by names and shapes that timm's had on the day of the fixture."""
    draw = np.random.default_rng(0)

    def conv(name: str, out: int, into: int, size: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": draw.normal(size=(out, into, size, size)).astype(np.float32) * 0.05}

    def norm(name: str, width: int) -> dict[str, np.ndarray]:
        parts = ("weight", "bias", "running_mean", "running_var")
        found = {f"{name}.{part}": draw.uniform(0.5, 1.5, width).astype(np.float32) for part in parts}
        return found | {f"{name}.num_batches_tracked": np.array(7)}

    tensors = conv("conv1", 64, 3, 7) | norm("bn1", 64)
    into = 64
    for stage, (depth, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), start=1):
        for block in range(depth):
            name, out = f"layer{stage}.{block}", 4 * width
            tensors |= conv(f"{name}.conv1", width, into, 1) | norm(f"{name}.bn1", width)
            tensors |= conv(f"{name}.conv2", width, width, 3) | norm(f"{name}.bn2", width)
            tensors |= conv(f"{name}.conv3", out, width, 1) | norm(f"{name}.bn3", out)
            for part, (a, b) in {"fc1": (out // 16, out), "fc2": (out, out // 16)}.items():
                tensors |= conv(f"{name}.se.{part}", a, b, 1)
                tensors[f"{name}.se.{part}.bias"] = draw.normal(size=a).astype(np.float32)
            if block == 0:
                tensors |= conv(f"{name}.downsample.0", out, into, 1) | norm(f"{name}.downsample.1", out)
            into = out
    return tensors | {"fc.weight": np.ones((1000, 2048), np.float32), "fc.bias": np.ones(1000, np.float32)}


def test_a_whole_file_is_converted_found_and_read(tmp_path, full):
    assert len(full) == 384  # as many as timm's
    source = tmp_path / "seresnet50_ra2.safetensors"
    save_file(full, source)
    done = convert(source, "senet50")
    assert done.output == tmp_path / "senet50_seresnet50_ra2_no_top.weights.h5"
    assert (len(done.used), done.ignored, done.warnings) == (384 - 53 - 2, ("fc.bias", "fc.weight"), ())
    assert done.lines() == [f"329 tensors written to {done.output}; left out: fc.bias, fc.weight"]
    assert weight_file(backbone("senet50"), tmp_path, 224) == done.output
    model = build_senet50((32, 32, 3))
    load_weights(model, done.output, "senet50")
    kernel = model.get_layer("stage2_block1_conv2").get_weights()[0]
    np.testing.assert_array_equal(kernel, full["layer2.0.conv2.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(model.get_layer("stem_bn").get_weights()[3], full["bn1.running_var"])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    with pytest.raises(TrainerError, match=r"no_top.weights.h5 exists; remove it, or name another file with --out"):
        convert(source, "senet50")


def test_all_mistakes_come_at_once():
    tensors = read_state_dict(FIXTURE)
    del tensors["layer3.0.bn2.running_mean"]
    tensors["layer9.0.conv1.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    tensors["conv1.weight"] = np.zeros((64, 3, 3, 3), np.float32)
    tensors["layer1.1.se.fc1.bias"] = np.full_like(tensors["layer1.1.se.fc1.bias"], np.nan)
    model = narrow()
    before = model.get_weights()
    with pytest.raises(TrainerError) as error:
        fill(model, tensors, "the file as senet50", SENET)
    assert str(error.value) == (
        "the file as senet50 does not fit: 1 missing: layer3.0.bn2.running_mean; 1 unknown: layer9.0.conv1.weight; "
        "1 of another shape: conv1.weight is 64x3x3x3, not 64x3x7x7; 1 not finite: layer1.1.se.fc1.bias."
    )
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_many_mistakes_are_counted():
    tensors = {name: value for name, value in read_state_dict(FIXTURE).items() if not name.startswith("layer")}
    with pytest.raises(TrainerError, match=r"115 missing: layer1.0.bn1.bias, .* and 107 more\.$"):
        fill(narrow(), tensors, "half a file", SENET)


def test_cadenes_network_is_recognised():
    tensors = {"layer0.conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    with pytest.raises(
        TrainerError, match=r"looks like Cadene's se_resnet50 .*another network; take timm's seresnet50"
    ):
        fill(narrow(), tensors, "old", SENET)


def test_folded_batch_norms_are_warned_of():
    tensors = read_state_dict(FIXTURE)
    for name in [name for name in tensors if name.endswith("running_mean")]:
        tensors[name] = np.zeros_like(tensors[name])
        tensors[name.replace("mean", "var")] = np.ones_like(tensors[name])
    _, _, warnings = fill(narrow(), tensors, "folded", SENET)
    assert len(warnings) == 1
    assert warnings[0].startswith("20 of 20 batch norms have mean 0 and variance 1: they were folded into")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "resnet50",
            "resnet50: PyTorch's ResNets have the .* Their network is resnet50v1.5 .*. Can be converted",
        ),
        ("vgg16", r"cannot be converted for vgg16. Can be converted: senet50, resnet18, .* weights: imagenet"),
    ],
)
def test_other_networks_are_refused_with_the_reason(tmp_path, name, reason):
    with pytest.raises(TrainerError, match=reason):
        convert(tmp_path / "x.safetensors", name)


def test_wrong_files_are_sentences(tmp_path):
    with pytest.raises(TrainerError, match=r"there is no file .*x.safetensors"):
        convert(tmp_path / "x.safetensors", "senet50")
    (tmp_path / "x.safetensors").write_bytes(b"<html>")
    with pytest.raises(TrainerError, match=r"x.safetensors is not a whole .safetensors file"):
        convert(tmp_path / "x.safetensors", "senet50")
    with pytest.raises(TrainerError, match=r"y.h5 must end in .weights.h5"):
        convert(tmp_path / "x.safetensors", "senet50", tmp_path / "y.h5")
    (tmp_path / "x.onnx").touch()
    with pytest.raises(
        TrainerError, match=r"x.onnx is neither .safetensors nor PyTorch's .pth, .pt or .bin, nor a wheel"
    ):
        convert(tmp_path / "x.onnx", "senet50")
