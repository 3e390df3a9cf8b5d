"""Writes trainers/costs.json: what each layer of every backbone of the table costs. ``make docs`` leaves it alone.

python docs/make_costs_table.py              every backbone anew: minutes, and 3 GB of memory
python docs/make_costs_table.py NAME ...     these alone
python docs/make_costs_table.py --check      whether the table of backbones has changed since; builds nothing
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from trainers.backbones import BACKBONES
from trainers.networks.costs import OF_TRANSFORMERS

FILE = ROOT / "trainers" / "costs.json"


def measure(name: str) -> dict[str, Any]:
    """One row, from the network itself at its native size."""
    from trainers.networks.backbone import build_backbone
    from trainers.networks.fusion import stage_layers
    from trainers.networks.graph import carries_all, edges, lasting_name

    size = BACKBONES[name].native_size
    model, stages = build_backbone(name, "none", size), ()
    if not BACKBONES[name].tokens:
        stages = stage_layers(model)
    places, model_edges = {layer.name: i for i, layer in enumerate(model.layers)}, edges(model)
    # From 2 on: the input alone is no boundary, and Keras may count its name.
    bounds = [q for q in range(2, len(model.layers) + 1) if carries_all(model_edges, q)]
    return {
        "name": name,
        "image_size": size,
        "macs": [macs(layer) for layer in model.layers],
        "trainable": [sum(math.prod(w.shape) for w in layer.trainable_weights) for layer in model.layers],
        "sides": _runs([_shape(layer)[0] for layer in model.layers]),
        "channels": _runs([_shape(layer)[-1] for layer in model.layers]),
        "boundaries": {str(q): lasting_name(model, model.layers[q - 1].name) for q in bounds},
        "stages": [places[stage] for stage in stages],
        **_of_transformer(model),
    }


def _of_transformer(model: Any) -> dict[str, Any]:
    """The fields that only transformers have, as ``trainers.networks.costs.Layers`` describes them; {} for others."""
    from trainers.networks.architectures.vit import Tokens, TransformerBlock

    first = next((layer for layer in model.layers if isinstance(layer, Tokens)), None)
    if first is None:
        return {}
    rows = []
    for layer in model.layers:
        is_block = isinstance(layer, TransformerBlock)
        tokens = first.count if is_block or layer is first else 0
        rows.append((tokens, *((layer.inner_values(), *layer.attention_costs()) if is_block else (0, 0, 0))))
    return {name: _runs(list(column)) for name, column in zip(OF_TRANSFORMERS, zip(*rows, strict=True), strict=True)}


def macs(layer: Any) -> int:
    """Multiplications with additions of a layer for one image; 0 for one that only normalises, adds or pools."""
    import keras

    from trainers.networks.architectures.vit import TransformerBlock

    if isinstance(layer, TransformerBlock):
        kernels = sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) == 2)
        return int(layer.output.shape[1]) * kernels + layer.attention_costs()[0]
    if isinstance(layer, keras.Model):
        return sum(macs(inner) for inner in layer.layers)
    places = math.prod(int(side) for side in layer.output.shape[1:-1])
    if isinstance(layer, keras.layers.SeparableConv2D):
        inner, outer = int(layer.input.shape[-1]), int(layer.output.shape[-1])
        return places * inner * layer.depth_multiplier * (math.prod(layer.kernel_size) + outer)
    if isinstance(layer, keras.layers.DepthwiseConv2D | keras.layers.Conv2D | keras.layers.Dense):
        # A kernel's weights are each used once for every place of the output (groups and channels are in its shape).
        return places * math.prod(layer.kernel.shape)
    return 0


def _shape(layer: Any) -> tuple[int, int]:
    """(side of the map or of the patches, 1 for a vector; channels) of what ``layer`` gives."""
    shape = layer.output.shape
    side = int(shape[1]) if len(shape) == 4 else math.isqrt(int(shape[1])) if len(shape) == 3 else 1
    return side, int(shape[-1])


def _runs(values: list[int]) -> list[list[int]]:
    """[value, how many in a row], one after the other."""
    found: list[list[int]] = []
    for value in values:
        if found and found[-1][0] == value:
            found[-1][1] += 1
        else:
            found.append([value, 1])
    return found


def stale(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Names whose row is missing, too many, or of another count of layers or size than the table of backbones says."""
    found = [name for name in rows if name not in BACKBONES]
    for name, backbone in BACKBONES.items():
        row = rows.get(name)
        if row is None or (len(row["macs"]), row["image_size"]) != (backbone.layers, backbone.native_size):
            found.append(name)
    return found


def write(rows: dict[str, dict[str, Any]]) -> None:
    """One line a backbone, in the table's order."""
    lines = [json.dumps(rows[name], separators=(",", ":")) for name in BACKBONES if name in rows]
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def main() -> int:
    """0 where all is well."""
    rows = {row["name"]: row for row in json.loads(FILE.read_text())} if FILE.is_file() else {}
    if "--check" in sys.argv:
        old = stale(rows)
        if old:
            names = " ".join(name for name in old if name in BACKBONES)
            print(f"trainers/costs.json is out of date: run python docs/make_costs_table.py {names}", file=sys.stderr)
        return bool(old)
    import keras

    for name in sys.argv[1:] or BACKBONES:
        rows[name] = measure(name)
        keras.backend.clear_session()
        print(f"{name}: {sum(rows[name]['macs']):,} MACs, {len(rows[name]['boundaries'])} boundaries", flush=True)
        write(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
