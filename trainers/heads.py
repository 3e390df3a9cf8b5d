"""The table of heads: how features become logits, exactly as in the papers' equations.

Let x be a feature vector, w_j the weights of class j, y the true class, s a scale, m a margin, and
cos t_j = <x, w_j> / (|x| |w_j|). Margins and priors act in training only; at inference a normalised head gives
s cos t_j (SphereFace |x| cos t_j) and every other one <x, w_j> + b_j.

If the target is a mixture of classes (mixup, cutmix: weights q_j that sum to 1), each class's margin acts in proportion
to its weight: cos t_j + q_j (turned_j - cos t_j).

The table imports without TensorFlow. Your own head is named by a dotted name, ``my_module:MY_HEAD``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from trainers.dotted import load_dotted, lookup


@dataclass(frozen=True)
class Head:
    """One row.

    ``normalised``: the weights of a class have unit length and there is no bias. ``normalise_features``: the features
    have unit length too and are multiplied by a scale; otherwise they keep their length (SphereFace).
    ``margin_function``: dotted "module:function" of (cosines, target, margin) -> cosines with the margin applied in
    proportion to the target; "" for none. Shapes (batch, classes), (batch, classes), scalar.
    ``smallest_margin`` and ``largest_margin``: the inclusive range in which the margin acts as its paper describes.
    ``centres``: weight vectors per class; the nearest one counts. ``prior_strength``: tau of logit adjustment, 0 for
    none.
    """

    name: str
    normalised: bool = False
    margin_function: str = ""
    default_margin: float | None = None
    normalise_features: bool = True
    smallest_margin: float = 0.0
    largest_margin: float = math.inf
    centres: int = 1
    prior_strength: float = 0.0

    @property
    def has_scale(self) -> bool:
        return self.normalised and self.normalise_features

    @property
    def has_margin(self) -> bool:
        return bool(self.margin_function)

    def apply_margin(self, cosines: Any, target: Any, margin: Any) -> Any:
        return load_dotted(self.margin_function)(cosines, target, margin)


_ARCFACE = Head(
    "arcface",
    normalised=True,
    margin_function="trainers.heads:arcface_margin",
    default_margin=0.2,
    largest_margin=math.pi / 2,
)

HEADS: dict[str, Head] = {
    row.name: row
    for row in (
        Head("softmax"),
        Head("normface", normalised=True),
        # m = 4 of the SphereFace paper needs a schedule that blends softmax in; ArcFace's authors train it with 1.35
        # and no schedule (Deng et al. 2019, table 2).
        Head(
            "sphereface",
            normalised=True,
            margin_function="trainers.heads:sphereface_margin",
            default_margin=1.35,
            normalise_features=False,
            smallest_margin=1.0,
            largest_margin=4.0,
        ),
        Head(
            "cosface",
            normalised=True,
            margin_function="trainers.heads:cosface_margin",
            default_margin=0.2,
            largest_margin=1.0,
        ),
        _ARCFACE,
        # Deng et al. 2020: three centres per class, so that wrong labels gather around a non-dominant one.
        replace(_ARCFACE, name="subcentre_arcface", centres=3),
        # Menon et al. 2021, equation 10, tau = 1.
        Head("logit_adjusted", prior_strength=1.0),
    )
}


def head(name: str) -> Head:
    """Return the row called ``name``, or the ``Head`` at a dotted name. Raises TrainerError."""
    return lookup(name, HEADS, Head)


def default_scale(classes: int, loss_bound: float = 1e-3) -> float:
    """The scale at which the loss of perfectly separated classes can fall to ``loss_bound``.

    NormFace (Wang et al. 2017, proposition 2): with features and weights of squared length s, the softmax loss of n
    balanced classes is bounded below by log(1 + (n - 1) exp(-s n / (n - 1))). Solved for s; without a scale (s = 1)
    the bound for 40 classes is 2.7, so nothing can be learnt.
    """
    n = max(classes, 2)
    return (n - 1) / n * math.log((n - 1) / math.expm1(loss_bound))


def loss_bound(classes: int, scale: float) -> float:
    """Lower bound of a normalised head's loss at this scale (NormFace, proposition 2; see ``default_scale``)."""
    n = max(classes, 2)
    return math.log1p((n - 1) * math.exp(-scale * n / (n - 1)))


def log_prior(counts: Any) -> Any:
    """log of each class's share of the training examples, float32 (classes,).

    A class without examples, whose logarithm would be infinite, counts as the smallest class with some.
    """
    import numpy as np

    counts = np.asarray(counts, np.float64)
    counts = np.where(counts > 0, counts, counts[counts > 0].min())
    return np.log(counts / counts.sum()).astype(np.float32)


def cosface_margin(cosines: Any, target: Any, margin: Any) -> Any:
    """CosFace (Wang et al. 2018, eq. 4): cos t_y - m at the true class."""
    return cosines - target * margin


def arcface_margin(cosines: Any, target: Any, margin: Any) -> Any:
    """ArcFace (Deng et al. 2019, eq. 3): cos(t_y + m) at the true class.

    cos(t + m) = cos t cos m - sin t sin m. Beyond t = pi - m it would rise again; there, as in the authors' code,
    cos t - m sin m continues it, so that it decreases everywhere.
    """
    from keras import ops

    sines = ops.sqrt(ops.maximum(1.0 - cosines * cosines, 1e-7))
    turned = cosines * ops.cos(margin) - sines * ops.sin(margin)
    falling = cosines - margin * ops.sin(margin)
    with_margin = ops.where(cosines > ops.cos(math.pi - margin), turned, falling)
    return cosines + target * (with_margin - cosines)


def sphereface_margin(cosines: Any, target: Any, margin: Any) -> Any:
    """A-Softmax (Liu et al. 2017, eq. 7): psi(t_y) at the true class, to be multiplied by |x|.

    psi(t) = (-1)^k cos(m t) - 2k for t in [k pi / m, (k + 1) pi / m], k = 0, 1, ...; it decreases from 1
    continuously. A fractional m ends within its last interval, at t = pi, and psi decreases there too.
    """
    from keras import ops

    # arctan2 instead of arccos, whose slope at 1 and -1 is infinite.
    angles = ops.arctan2(ops.sqrt(ops.maximum(1.0 - cosines * cosines, 1e-7)), cosines)
    k = ops.stop_gradient(ops.floor(margin * angles / math.pi))
    sign = 1.0 - 2.0 * ops.mod(k, 2.0)
    psi = sign * ops.cos(margin * angles) - 2.0 * k
    return cosines + target * (psi - cosines)
