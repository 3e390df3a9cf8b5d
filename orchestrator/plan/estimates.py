"""Estimate the speed of a part that was not measured from the nearest measured one. Pure.

A part's seconds are its work (``trainers.networks.costs``: multiplications, and the cost of writing the feature maps)
over the rate of a measured relative: one of the same backbone, otherwise of the same family, otherwise any; of several
the one of nearest work. Training uses a relative's training rate plus the overhead of a step, taken from measured
heads. Opening and tracing are proportional to the number of layers.
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
"""Backbone whose costs replace those of a user's own backbone that was not measured."""
UNKNOWN_RATE = 20e9
"""Work per second if nothing was measured: one core of a server."""
UNKNOWN_STEP_S = 3e-5
"""Seconds per image of a training step's overhead if no head was measured."""
UNKNOWN_LAYER_S = 0.01
"""Seconds to open or trace a layer if nothing was measured."""
GPU_STEP_S = 1e-3
"""Minimum seconds of a training step on a GPU, to launch its kernels."""
FEW_LAYERS = 10
"""Layers added to both counts when tracing times are scaled, since tracing has a constant part."""


def cost_of(key: PartKey) -> Cost:
    """Return the cost of an image in the architecture of ``key``; for an unknown backbone that of the stand-in."""
    name = key.backbone if layers_of(key.backbone) else STAND_IN
    found = cost(name, key.unfrozen_layers, key.image_size, key.output_stride, key.feature_fusion, key.mixes)
    assert found is not None
    return found


class Speeds:
    """The speed of every part on one worker of ``machine``, measured or estimated.

    ``estimated``: requested parts that were not measured.
    """

    def __init__(self, calibration: Calibration, machine: Machine) -> None:
        self.calibration, self.machine = calibration, machine
        self.estimated: set[PartKey] = set()
        self._known: dict[PartKey, PartSpeed] = {}
        self._relatives = [_Relative(key, speed, cost_of(key)) for key, speed in calibration.parts.items()]

    def of(self, key: PartKey) -> PartSpeed:
        """Return the speed of a part; ``exact`` if it was measured for this part on this machine."""
        if key not in self._known:
            speed = self.calibration.parts.get(key) or self._estimate(key)
            if not speed.exact:
                self.estimated.add(key)
            self._known[key] = self._on_machine(speed, key.batch_size)
        return self._known[key]

    def decode_s(self, view: str, size: int) -> float:
        """Return the seconds to decode one photo."""
        return self.calibration.decode(view, size)

    def augment_s(self, recipe: str, size: int) -> float:
        """Return the seconds of one copy, without decoding."""
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
        """Return measured parts, without unknown backbones other than ``key``'s: their work is the stand-in's."""
        return [r for r in self._relatives if layers_of(r.key.backbone) or r.key.backbone == key.backbone]

    def _rate(self, key: PartKey, work: float, rate: Callable[[_Relative], float]) -> float:
        """Return the work per second of the nearest relative with such a rate; 0 if none has one."""
        rates = [(r, found) for r in self._relatives_of(key) if (found := rate(r)) > 0]
        if not rates:
            return 0.0
        return min(rates, key=lambda pair: pair[0].distance(key, work))[1]

    def _step_s(self, key: PartKey, of: Callable[[PartSpeed], float]) -> float:
        """Return a training step's overhead in seconds per image: the fastest measured head over the batch size."""
        heads = [of(r.speed) * r.key.batch_size for r in self._relatives_of(key) if r.cost.train_work == 0]
        return min(heads, default=UNKNOWN_STEP_S * 32) / key.batch_size

    def _once(self, key: PartKey, own: Cost) -> tuple[float, float, float]:
        """Return the seconds to open, to trace the trainable part and to trace the prefix."""
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
        """Return a sort key, smaller is nearer: precision, backbone, family, then work."""
        own = self.cost.prefix_work + self.cost.tail_work
        return (
            self.key.precision != key.precision,
            self.key.backbone != key.backbone,
            family(self.key.backbone) != family(key.backbone),
            abs(math.log(max(work, 1.0) / max(own, 1.0))),
        )


def family(backbone: str) -> str:
    """Return the first word of a backbone's name: mobilenet, resnet, efficientnet ..."""
    found = re.match(r"[a-z]+", backbone)
    return found[0] if found else backbone


def _layers(key: PartKey) -> int:
    layers = layers_of(key.backbone) or layers_of(STAND_IN)
    assert layers is not None
    return len(layers)


def _forward_rate(relative: _Relative) -> float:
    """Return the rate of the prefix; without a prefix that of predicting."""
    if relative.speed.prefix_s > 0 and relative.cost.prefix_work > 0:
        return relative.cost.prefix_work / relative.speed.prefix_s
    return relative.cost.tail_work / relative.speed.predict_s if relative.speed.predict_s > 0 else 0.0


def _train_rate(relative: _Relative, seconds: float) -> float:
    return relative.cost.train_work / seconds if seconds > 0 and relative.cost.train_work > 0 else 0.0


def unknown_backbones(keys: Iterable[PartKey]) -> list[str]:
    """Return the backbones that are estimated as the stand-in."""
    return sorted({key.backbone for key in keys if layers_of(key.backbone) is None})
