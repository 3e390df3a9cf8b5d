"""timm's side of the comparison of vision transformers: random weights, and their tokens. Needs torch and timm.

``python -m tests.support.torch_vit`` writes the fixtures of test_vit.py again: two blocks of width 16. With a folder,
one of our backbones and image sizes it writes the whole network's there. Runs apart: torch after TensorFlow in one
process crashes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from tests.support.places import FIXTURES

NARROW = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
NARROWS: dict[str, dict[str, Any]] = {
    "narrow_vit": {},
    "narrow_vit_reg": {"init_values": 1e-5, "reg_tokens": 2, "no_embed_class": True},
}
"""Fixture -> what its network has besides ``NARROW``; the images that its weights are for have ``NARROW_SIZE`` px."""
NARROW_SIZE, NARROW_SIZES = 20, (20, 12, 32)


def randomised(model: Any, seed: int = 0) -> Any:
    """``model`` in inference mode with random weights under which every part of a block moves the output."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 2 or value.ndim == 4:
                value.normal_(std=value[0].numel() ** -0.5)
            elif value.ndim == 3:  # tokens and positions
                value.normal_(std=0.5)
            elif name.endswith("weight") or "gamma" in name:
                value.uniform_(0.5, 1.5)
            else:
                value.normal_(std=0.1)
    return model.eval()


def tokens_of(make: Callable[..., Any], size: int, state: dict[str, Any], images: np.ndarray) -> dict[str, np.ndarray]:
    """What the network of ``make``, made for ``size``, gives for images (n, size, size, 3) after loading ``state``."""
    found = {}
    for pooling in ("token", "avg"):
        model = make(img_size=size, global_pool=pooling, fc_norm=False)
        model.load_state_dict(checkpoint_filter_fn(dict(state), model))
        with torch.no_grad():
            tokens = model.eval().forward_features(torch.from_numpy(images).permute(0, 3, 1, 2))
            found |= {"tokens": tokens.numpy(), pooling: model.forward_head(tokens).numpy()}
    return found


def write(make: Callable[..., Any], state: dict[str, Any], sizes: Sequence[int], folder: Path, name: str) -> None:
    """``name``.safetensors and for each size ``name``_<size>.npz: images, tokens, and both ways to pool them."""
    save_file(state, folder / f"{name}.safetensors")
    (folder / f"{name}.safetensors").chmod(0o644)
    for size in sizes:
        images = np.random.default_rng(size).normal(size=(1, size, size, 3)).astype(np.float32)
        np.savez_compressed(folder / f"{name}_{size}.npz", images=images, **tokens_of(make, size, state, images))


def timms_name(ours: str) -> str:
    """vit_small_16_deit -> deit_small_patch16_224, vit_small_14_dinov2 -> vit_small_patch14_dinov2"""
    _, size, patch, rest = ours.split("_", 3)
    return f"deit_{size}_patch16_224" if rest == "deit" else f"vit_{size}_patch{patch}_{rest}"


def main(arguments: Sequence[str]) -> None:
    if not arguments:
        for name, more in NARROWS.items():
            make = functools.partial(VisionTransformer, **NARROW, **more)
            state = randomised(make(img_size=NARROW_SIZE)).state_dict()
            write(make, state, NARROW_SIZES, FIXTURES, name)
        return
    folder, ours, *sizes = arguments
    make = functools.partial(timm.create_model, timms_name(ours), pretrained=False, num_classes=0)
    write(make, randomised(make()).state_dict(), [int(size) for size in sizes], Path(folder), ours)


if __name__ == "__main__":
    main(sys.argv[1:])
