"""senet50 against timm's seresnet50 with the same random weights, stage by stage: ``make parity``.

Prints the largest absolute difference of each stage, last the largest of all; exit code 1 where it is above 1e-4. The
weights go the way that a person's go: a state dict in a file, converted, loaded. Needs the extra "parity".
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.support.places import ROOT

BOUND = 1e-4
ENDS = {
    "stem": "stem_pool",
    "layer1": "stage1_block3_out",
    "layer2": "stage2_block4_out",
    "layer3": "stage3_block6_out",
    "layer4": "stage4_block3_out",
}
"""timm's name of a stage -> the Keras layer that ends it."""


def missing() -> list[str]:
    """Which of the extra's packages are not installed."""
    return [name for name in ("torch", "timm", "safetensors") if importlib.util.find_spec(name) is None]


def differences() -> dict[str, tuple[float, float]]:
    """Of each stage the largest absolute difference, and the largest value for comparison."""
    import keras

    from trainers.networks.convert import convert
    from trainers.networks.senet import build_senet50
    from trainers.networks.weight_files import load_weights

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "tests.support.torch_senet", name]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        expected = dict(np.load(folder / "seresnet50_features.npz"))
        model = build_senet50(expected["images"].shape[1:])
        load_weights(model, convert(folder / "seresnet50.safetensors", "senet50").output, "senet50")
    outputs = {stage: model.get_layer(layer).output for stage, layer in ENDS.items()}
    found = keras.Model(model.input, outputs)(expected["images"])
    return {
        stage: (float(np.abs(np.asarray(found[stage]) - expected[stage]).max()), float(np.abs(expected[stage]).max()))
        for stage in ENDS
    }


def main() -> int:
    if missing():
        print(f'no {" and no ".join(missing())}: this comparison needs pip install "orch[parity]".', file=sys.stderr)
        return 2
    found = differences()
    for stage, (difference, value) in found.items():
        print(f"{stage} {difference:.2e} of values up to {value:.1f}")
    largest = max(difference for difference, _ in found.values())
    print(f"largest {largest:.2e} (bound {BOUND:.0e})")
    return 0 if largest <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
