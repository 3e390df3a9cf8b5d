"""Converted backbones against the PyTorch networks with the same weights, stage by stage: ``make parity``.

Prints the largest absolute difference of each stage; exit code 1 where one is above 1e-4 of the values' size. The
weights go the way that a person's go: a state dict in a file, converted, loaded. Needs the extra "parity".

python -m tests.support.parity [BACKBONE ...]      without names every backbone that can be converted
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.support import parity_vit
from tests.support.places import ROOT

BOUND = 1e-4
"""Largest absolute difference; of values above 10, in tenths of the largest value."""
NEEDED = ("torch", "timm", "safetensors", "efficientnet_lite_pytorch")


def missing() -> list[str]:
    """Which of the extra's packages are not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def ends(backbone: str, layers: list[str]) -> dict[str, str]:
    """PyTorch's name of a stage -> the Keras layer that ends it, of ``layers``, the names in order."""
    if backbone.startswith("efficientnet_lite"):
        return {"stem": "stem_relu", "features": "top_relu"}
    last = {f"stage{n}": [name for name in layers if name.startswith(f"stage{n}_block")][-1] for n in range(1, 5)}
    if backbone.startswith("convnext_v2"):
        stages = {f"stages.{n - 1}": last[f"stage{n}"] for n in range(1, 5)}
        return {"stem": "stem_norm", **stages, "norm": "norm"}
    return {"stem": "stem_pool", **{f"layer{n}": last[f"stage{n}"] for n in range(1, 5)}}


def differences(backbone: str) -> dict[str, tuple[float, float]]:
    """Of each stage the largest absolute difference, and the largest value for comparison."""
    import keras

    from trainers.networks.backbone import build_backbone
    from trainers.networks.conversion.convert import convert

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "tests.support.torch_models", name, backbone]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        expected = dict(np.load(folder / f"{backbone}_features.npz"))
        images = expected.pop("images")
        [source] = [file for file in folder.iterdir() if file.suffix in (".pth", ".safetensors")]
        convert(source, backbone, folder)
        model = build_backbone(backbone, name, images.shape[1])
    outputs = ends(backbone, [layer.name for layer in model.layers])
    assert sorted(outputs) == sorted(expected)
    found = keras.Model(model.input, {stage: model.get_layer(layer).output for stage, layer in outputs.items()})(images)
    return {
        stage: (float(np.abs(np.asarray(found[stage]) - values).max()), float(np.abs(values).max()))
        for stage, values in expected.items()
    }


def excess(found: dict[str, tuple[float, float]]) -> float:
    """The largest difference over what is allowed; above 1 the networks differ."""
    return max(difference / (BOUND * max(1.0, value / 10)) for difference, value in found.values())


def main(names: list[str]) -> int:
    if missing():
        print(f'no {" and no ".join(missing())}: this comparison needs pip install "orch[parity]".', file=sys.stderr)
        return 2
    from trainers.networks.conversion.published import PUBLISHED

    worst = 0.0
    for backbone in names or PUBLISHED:
        found = parity_vit.differences(backbone) if backbone in parity_vit.SIZES else differences(backbone)
        for stage, (difference, value) in found.items():
            print(f"{backbone} {stage} {difference:.2e} of values up to {value:.1f}", flush=True)
        worst = max(worst, excess(found))
    print(f"{len(names or PUBLISHED)} backbones, largest difference {worst:.2f} of what is allowed (bound {BOUND:.0e})")
    return 0 if worst <= 1 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
