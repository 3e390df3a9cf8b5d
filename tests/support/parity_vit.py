"""Vision transformers against timm with the same random weights, at several image sizes: a part of ``make parity``.

The weights go the way that a person's go: a state dict in a file, converted, loaded from a weights folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.support.places import ROOT

SIZES = {
    "vit_tiny_16_deit": (224,),
    "vit_small_16_deit": (224, 160, 288),
    "vit_base_16_deit": (224,),
    "vit_small_14_dinov2": (518, 224, 70),
    "vit_base_14_dinov2": (224,),
    "vit_small_14_reg4_dinov2": (518, 224),
    "vit_base_14_reg4_dinov2": (224,),
}
"""Backbone -> the image sizes that are compared; at others than the native one the position table is resized."""


def differences(backbone: str) -> dict[str, tuple[float, float]]:
    """Of the tokens and both poolings at each size the largest absolute difference, and the largest value."""
    from trainers.backbones import backbone as row_of
    from trainers.networks.backbone import build_backbone
    from trainers.networks.conversion.convert import convert
    from trainers.networks.prefix import pool

    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "tests.support.torch_vit", name, backbone, *map(str, SIZES[backbone])]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        convert(folder / f"{backbone}.safetensors", backbone, folder)
        for size in SIZES[backbone]:
            expected = dict(np.load(folder / f"{backbone}_{size}.npz"))
            tokens = build_backbone(backbone, name, size)(expected["images"])
            leading = row_of(backbone).tokens
            ours = {"tokens": tokens, "token": pool(tokens, "token"), "avg": pool(tokens, "average", leading)}
            for what, values in ours.items():
                difference = float(np.abs(np.asarray(values) - expected[what]).max())
                found[f"{what} at {size} px"] = (difference, float(np.abs(expected[what]).max()))
    return found
