"""timm's side of the comparison: its seresnet50 with random weights, and what each stage gives. Needs torch and timm.

``python -m tests.support.torch_senet`` writes the fixture of test_senet.py again: the same blocks, narrow and few.
With a folder it writes the whole network's there. Runs apart: torch after TensorFlow in one process crashes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.models.resnet import Bottleneck, ResNet

from tests.support.places import FIXTURES

DEPTHS, WIDTHS, SIZE = (2, 1, 1, 1), (4, 4, 8, 8), 48
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


def seresnet50() -> Any:
    return randomised(timm.create_model("seresnet50", pretrained=False))


def narrow() -> Any:
    return randomised(ResNet(Bottleneck, DEPTHS, channels=WIDTHS, block_args={"attn_layer": "se"}))


def randomised(model: Any, seed: int = 0) -> Any:
    """``model`` in inference mode with random weights, batch norms' statistics included.

    The statistics are those of random images, each then turned by a random factor: values stay of the size that they
    have in a trained network, and no array is one that a mistake would leave as it is.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 4:
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


def stages(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """float32 images (n, h, w, 3) -> the (n, h, w, c) output of the stem and of each of the four stages."""
    found = {}
    with torch.no_grad():
        x = model.maxpool(model.act1(model.bn1(model.conv1(torch.from_numpy(images).permute(0, 3, 1, 2)))))
        found["stem"] = x
        for name in STAGES[1:]:
            x = found[name] = getattr(model, name)(x)
    return {name: value.permute(0, 2, 3, 1).numpy() for name, value in found.items()}


def write(model: Any, size: int, folder: Path, name: str) -> None:
    """``name``.safetensors, the state dict, and ``name``_features.npz, two random images and what the stages give."""
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / f"{name}.safetensors")
    np.savez_compressed(folder / f"{name}_features.npz", images=images, **stages(model, images))
    for file in sorted(folder.glob(f"{name}*")):
        file.chmod(0o644)
        print(f"{file.name}: {file.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(seresnet50(), 224, Path(sys.argv[1]), "seresnet50")
    else:
        write(narrow(), SIZE, FIXTURES, "narrow_seresnet")
