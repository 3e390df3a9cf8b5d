"""One table of heads: how features become logits, exactly as the papers' equations.

Let x be a feature vector, w_j the weights of class j, y the true class, s a scale, m a margin, and
cos t_j = <x, w_j> / (|x| |w_j|). Margins act in training only; at inference every normalised head gives s cos t_j.

The table imports without TensorFlow. A head of your own joins by a dotted name, ``my_module:MY_HEAD``.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainers.backbones import lookup


@dataclass(frozen=True)
class Head:
    """One row.

    ``normalised``: features and weights have unit length and there is no bias.
    ``margin_function``: dotted "module:function" of (cosines, one_hot, margin) -> cosines with the margin applied
    at the true class; "" for none. Shapes (batch, classes), (batch, classes), scalar.
    """

    name: str
    normalised: bool = False
    margin_function: str = ""
    default_margin: float | None = None

    @property
    def has_scale(self) -> bool:
        return self.normalised

    @property
    def has_margin(self) -> bool:
        return bool(self.margin_function)

    def apply_margin(self, cosines: Any, one_hot: Any, margin: Any) -> Any:
        module, _, name = self.margin_function.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function(cosines, one_hot, margin)


HEADS: dict[str, Head] = {
    row.name: row
    for row in (
        Head("softmax"),
        Head("normface", normalised=True),
        Head("cosface", normalised=True, margin_function="trainers.heads:cosface_margin", default_margin=0.2),
        Head("arcface", normalised=True, margin_function="trainers.heads:arcface_margin", default_margin=0.2),
    )
}


def head(name: str) -> Head:
    """The row called ``name``, or the ``Head`` at a dotted "module:attribute". Raises TrainerError."""
    return HEADS[name] if name in HEADS else lookup(name, HEADS, Head)


def default_scale(classes: int, loss_bound: float = 1e-3) -> float:
    """The scale at which the loss of perfectly separated classes can fall to ``loss_bound``.

    NormFace (Wang et al. 2017, proposition 2): with features and weights of squared length s, the softmax loss of n
    balanced classes is bounded below by log(1 + (n - 1) exp(-s n / (n - 1))). Solved for s; without a scale (s = 1)
    the bound of 40 classes is 2.7 and nothing can be learnt.
    """
    n = max(classes, 2)
    return (n - 1) / n * math.log((n - 1) / math.expm1(loss_bound))


def cosface_margin(cosines: Any, one_hot: Any, margin: Any) -> Any:
    """CosFace (Wang et al. 2018, eq. 4): cos t_y - m at the true class."""
    return cosines - one_hot * margin


def arcface_margin(cosines: Any, one_hot: Any, margin: Any) -> Any:
    """ArcFace (Deng et al. 2019, eq. 3): cos(t_y + m) at the true class.

    cos(t + m) = cos t cos m - sin t sin m. Beyond t = pi - m it would rise again; there, as in the authors' code,
    cos t - m sin m continues it, so that it falls everywhere.
    """
    from keras import ops

    sines = ops.sqrt(ops.maximum(1.0 - cosines * cosines, 1e-7))
    turned = cosines * ops.cos(margin) - sines * ops.sin(margin)
    falling = cosines - margin * ops.sin(margin)
    with_margin = ops.where(cosines > ops.cos(math.pi - margin), turned, falling)
    return cosines + one_hot * (with_margin - cosines)
