"""How fast a part is that was not measured, from the nearest that was. Pure.

The rule. A part's seconds are its work (``trainers.networks.costs``: multiplications, and what writing the maps
costs) over the speed of a measured relative: one of the same backbone if there is one, else of the same family, else
any; of several the one of nearest work. Training takes the speed of a relative's training, and on top what a step
costs by itself, as the training of heads alone shows. Opening and tracing grow with the number of layers.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.plan.calibration import Calibration, Machine, PartKey, PartSpeed
from trainers.networks.costs import Cost, cost, layers_of

STAND_IN = "resnet50"
"""What a backbone of the user's own that was not measured counts as."""
UNKNOWN_RATE = 20e9
"""Work a second where nothing at all was measured: a core of a server."""
UNKNOWN_STEP_S = 3e-5
UNKNOWN_LAYER_S = 0.01
GPU_STEP_S = 1e-3
"""A training step on a GPU takes at least so long, however small the network: launching its kernels."""
FEW_LAYERS = 10


def cost_of(key: PartKey) -> Cost:
    """What an image costs the architecture of ``key``; of an unknown backbone what it would cost the stand-in."""
    name = key.backbone if layers_of(key.backbone) else STAND_IN
    found = cost(name, key.unfrozen_layers, key.image_size, key.output_stride, key.feature_fusion, key.mixes)
    assert found is not None
    return found


class Speeds:
    """The speed of every part on one worker of ``machine``, measured or estimated. Remembers what it was asked."""

    def __init__(self, calibration: Calibration, machine: Machine) -> None:
        self.calibration, self.machine = calibration, machine
        self.estimated: set[PartKey] = set()
        self._known: dict[PartKey, PartSpeed] = {}
        self._relatives = [_Relative(key, speed, cost_of(key)) for key, speed in calibration.parts.items()]

    def of(self, key: PartKey) -> PartSpeed:
        """``exact`` says whether it was measured for just this part on this machine."""
        if key not in self._known:
            speed = self.calibration.parts.get(key) or self._estimate(key)
            if not speed.exact:
                self.estimated.add(key)
            self._known[key] = self._on_machine(speed, key.batch_size)
        return self._known[key]

    def decode_s(self, view: str, size: int) -> float:
        """Seconds to decode one photo."""
        return self.calibration.decode(view, size)

    def augment_s(self, recipe: str, size: int) -> float:
        """Seconds of one copy beyond decoding."""
        return self.calibration.augment(recipe, size)

    def _on_machine(self, speed: PartSpeed, batch_size: int) -> PartSpeed:
        factor = self.machine.network_factor
        if factor == 1.0:
            return speed
        least_s = GPU_STEP_S / batch_size if self.machine.gpus else 0.0
        return dataclasses.replace(
            speed,
            prefix_s=speed.prefix_s / factor,
            train_s=max(speed.train_s / factor, least_s),
            predict_s=speed.predict_s / factor,
            floor_train_s=max(speed.floor_train_s / factor, least_s),
            exact=False,
        )

    def _estimate(self, key: PartKey) -> PartSpeed:
        twins = [r for r in self._relatives if dataclasses.replace(r.key, batch_size=key.batch_size) == key]
        if twins:
            nearest = min(twins, key=lambda r: abs(math.log(r.key.batch_size / key.batch_size)))
            return dataclasses.replace(nearest.speed, exact=False)
        own = cost_of(key)
        forward = self._rate(key, own.prefix_work + own.tail_work, _forward_rate)
        step_s = self._step_s(key, lambda speed: speed.train_s)
        bare_step_s = self._step_s(key, lambda speed: speed.bare_train_s)
        train = self._rate(key, own.train_work, lambda r: _train_rate(r, r.speed.train_s - step_s)) or forward
        bare = self._rate(key, own.train_work, lambda r: _train_rate(r, r.speed.bare_train_s - bare_step_s)) or train
        forward = forward or train or UNKNOWN_RATE
        train_s = step_s + own.train_work / (train or forward)
        open_s, trace_s, prefix_trace_s = self._once(key, own)
        return PartSpeed(
            prefix_s=own.prefix_work / forward,
            train_s=train_s,
            predict_s=own.tail_work / forward + min(step_s, UNKNOWN_STEP_S),
            floor_train_s=min(bare_step_s + own.train_work / (bare or forward), train_s),
            open_s=open_s,
            trace_s=trace_s,
            row_bytes=own.row_bytes(),
            exact=False,
            prefix_trace_s=prefix_trace_s,
        )

    def _relatives_of(self, key: PartKey) -> list[_Relative]:
        """Without backbones that no table knows, but for ``key``'s own: their work is that of another network."""
        return [r for r in self._relatives if layers_of(r.key.backbone) or r.key.backbone == key.backbone]

    def _rate(self, key: PartKey, work: float, rate: Callable[[_Relative], float]) -> float:
        """Work a second of the nearest relative that has such a rate; 0 where none has."""
        rates = [(r, found) for r in self._relatives_of(key) if (found := rate(r)) > 0]
        if not rates:
            return 0.0
        return min(rates, key=lambda pair: pair[0].distance(key, work))[1]

    def _step_s(self, key: PartKey, of: Callable[[PartSpeed], float]) -> float:
        """Seconds an image that a training step takes without any layer to train: of measured heads, the quickest.

        A step's own cost is shared by its batch.
        """
        heads = [of(r.speed) * r.key.batch_size for r in self._relatives_of(key) if r.cost.train_work == 0]
        return min(heads, default=UNKNOWN_STEP_S * 32) / key.batch_size

    def _once(self, key: PartKey, own: Cost) -> tuple[float, float, float]:
        """Opening, tracing the trainable part and tracing the prefix."""
        layers = _layers(key)
        above, below = layers - own.length + FEW_LAYERS, own.length + FEW_LAYERS
        relatives = self._relatives_of(key)
        if not relatives:
            return UNKNOWN_LAYER_S * layers, UNKNOWN_LAYER_S * above, UNKNOWN_LAYER_S * below
        near = min(relatives, key=lambda r: r.distance(key, own.prefix_work + own.tail_work))
        of_near = _layers(near.key)
        near_above, near_below = of_near - near.cost.length + FEW_LAYERS, near.cost.length + FEW_LAYERS
        return (
            near.speed.open_s * layers / of_near,
            near.speed.trace_s * above / near_above,
            near.speed.prefix_trace_s * below / near_below,
        )


@dataclass(frozen=True)
class _Relative:
    key: PartKey
    speed: PartSpeed
    cost: Cost

    def distance(self, key: PartKey, work: float) -> tuple[bool, bool, bool, float]:
        """The smaller, the nearer: precision, backbone, family, then work."""
        own = self.cost.prefix_work + self.cost.tail_work
        return (
            self.key.precision != key.precision,
            self.key.backbone != key.backbone,
            family(self.key.backbone) != family(key.backbone),
            abs(math.log(max(work, 1.0) / max(own, 1.0))),
        )


def family(backbone: str) -> str:
    """The word that a backbone's name begins with: mobilenet, resnet, efficientnet ..."""
    found = re.match(r"[a-z]+", backbone)
    return found[0] if found else backbone


def _layers(key: PartKey) -> int:
    layers = layers_of(key.backbone) or layers_of(STAND_IN)
    assert layers is not None
    return len(layers)


def _forward_rate(relative: _Relative) -> float:
    """By the prefix, and where there is none by the prediction of the whole."""
    if relative.speed.prefix_s > 0 and relative.cost.prefix_work > 0:
        return relative.cost.prefix_work / relative.speed.prefix_s
    return relative.cost.tail_work / relative.speed.predict_s if relative.speed.predict_s > 0 else 0.0


def _train_rate(relative: _Relative, seconds: float) -> float:
    return relative.cost.train_work / seconds if seconds > 0 and relative.cost.train_work > 0 else 0.0


def unknown_backbones(keys: Iterable[PartKey]) -> list[str]:
    """Names that stand for the stand-in because nobody knows them."""
    return sorted({key.backbone for key in keys if layers_of(key.backbone) is None})
