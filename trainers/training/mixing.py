"""Mixup and CutMix: mix pairs of training images and their labels, inside the traced step.

l is drawn from Beta(alpha, alpha) once per batch, and a permutation of the batch gives each image its partner. Labels
are mixed before they are smoothed; both operations are linear and rows sum to 1, so the order does not matter.
"""

from __future__ import annotations

import tensorflow as tf

MIXING = 0x6D6978
"""Constant folded into a step's seed, so that draws here are independent of the step's dropout."""


def mix(
    images: tf.Tensor, target: tf.Tensor, mixup: tf.Tensor, cutmix: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Images (n, h, w, c) of any type, targets float32 (n, classes) -> (float32 pixels of that shape, targets).

    ``mixup`` and ``cutmix``: scalar alphas, 0 to disable; at least one is above 0. If both are, each batch uses one of
    them with probability 1/2. ``seed``: int64 (2,). A pure function of its arguments.
    """
    coin, partners, ratio, box = (_fold(seed, number) for number in range(4))
    either = (mixup > 0) & (cutmix > 0)
    cut = tf.where(either, tf.random.stateless_uniform((), coin) < 0.5, cutmix > 0)
    count = tf.shape(images)[0]
    partner = tf.argsort(tf.random.stateless_uniform((count,), partners))
    weight = beta(tf.where(cut, cutmix, mixup), ratio)
    pixels = tf.cast(images, tf.float32)

    def cut_out() -> tuple[tf.Tensor, tf.Tensor]:
        return cutmix_pair(pixels, tf.gather(pixels, partner), weight, box)

    def blend() -> tuple[tf.Tensor, tf.Tensor]:
        return mixup_pair(pixels, tf.gather(pixels, partner), weight), weight

    mixed, own = tf.cond(cut, cut_out, blend)
    return mixed, own * target + (1.0 - own) * tf.gather(target, partner)


def mixup_pair(images: tf.Tensor, partners: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """l x_i + (1 - l) x_j, float pixels (Zhang et al. 2018, section 2)."""
    return weight * images + (1.0 - weight) * partners


def cutmix_pair(
    images: tf.Tensor, partners: tf.Tensor, weight: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Paste a box of each partner into its image; return the images and the share of pixels kept.

    CutMix (Yun et al. 2019, eq. 1 and 2): the sides of the box are those of the image times sqrt(1 - l), and its centre
    is uniform over the image. The box is clipped to the image, so the label's weight is the share of pixels actually
    kept instead of l, as in the authors' code.
    """
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    side = tf.sqrt(1.0 - weight)
    rows = _side_mask(height, side, _fold(seed, 0))
    columns = _side_mask(width, side, _fold(seed, 1))
    theirs = (rows[:, None] & columns[None, :])[None, :, :, None]
    own = 1.0 - tf.reduce_mean(tf.cast(theirs, tf.float32))
    return tf.where(theirs, partners, images), own


def beta(alpha: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """One draw from Beta(alpha, alpha), alpha > 0, float32 in [0, 1].

    G / (G + G') of two Gamma draws, computed in logarithms: log G(a) = log G(a + 1) + log(U) / a (Marsaglia & Tsang
    2000, section 6), so that a small alpha gives 0 or 1 and never 0 / 0.
    """
    with tf.device("CPU:0"):  # not every device supports these two draws
        gamma = tf.random.stateless_gamma((2,), _fold(seed, 0), alpha + 1.0)
        uniform = tf.random.stateless_uniform((2,), _fold(seed, 1), minval=1e-30)
        logs = tf.math.log(gamma) + tf.math.log(uniform) / alpha
        return tf.sigmoid(logs[0] - logs[1])


def _side_mask(length: tf.Tensor, side: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """bool (length,): true inside the box along one axis."""
    cut = tf.cast(tf.cast(length, tf.float32) * side, tf.int32)
    centre = tf.random.stateless_uniform((), seed, maxval=length, dtype=tf.int32)
    places = tf.range(length)
    return (places >= centre - cut // 2) & (places < centre + cut // 2)


def _fold(seed: tf.Tensor, number: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, MIXING + number)
