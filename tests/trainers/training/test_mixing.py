"""Mixup and CutMix: the weight's distribution, the mixed picture, and that label and picture say the same."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from trainers.training.mixing import beta, cutmix_pair, mix, mixup_pair

CLASSES = 5
IMAGES = np.random.default_rng(0).integers(0, 256, (CLASSES, 12, 9, 3), np.uint8)
ONE_HOT = np.eye(CLASSES, dtype=np.float32)


@tf.function
def draws(alpha: tf.Tensor) -> tf.Tensor:
    seeds = tf.stack([tf.fill([4000], tf.constant(7, tf.int64)), tf.range(4000, dtype=tf.int64)], 1)
    return tf.map_fn(lambda seed: beta(alpha, seed), seeds, fn_output_signature=tf.float32)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 8.0, 1e4])
def test_the_weight_is_drawn_from_its_beta_distribution(alpha):
    drawn = draws(tf.constant(alpha)).numpy().astype(float)
    assert len(np.unique(drawn)) > 5
    assert ((drawn >= 0) & (drawn <= 1)).all()  # no NaN either, where both Gamma draws would underflow
    variance = 1 / (4 * (2 * alpha + 1))
    assert drawn.mean() == pytest.approx(0.5, abs=4 * np.sqrt(variance / 4000))
    assert drawn.var() == pytest.approx(variance, rel=0.08)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_the_weight_passes_a_kolmogorov_test(alpha):
    from scipy.stats import beta as reference
    from scipy.stats import kstest

    assert kstest(draws(tf.constant(alpha)).numpy().astype(float), reference(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_mixup_is_the_papers_sum(weight):
    partners = IMAGES[::-1].astype(np.float32)
    mixed = mixup_pair(IMAGES.astype(np.float32), partners, tf.constant(weight, tf.float32))
    expected = weight * IMAGES.astype(float) + (1 - weight) * partners
    np.testing.assert_allclose(mixed, expected, atol=1e-3)


def mixed_with(number: int, mixup: float, cutmix: float) -> tuple[np.ndarray, np.ndarray]:
    alphas = tf.constant(mixup, tf.float32), tf.constant(cutmix, tf.float32)
    images, target = mix(IMAGES, ONE_HOT, *alphas, tf.constant([3, number], tf.int64))
    return images.numpy(), target.numpy()


def parts(target: np.ndarray, row: int) -> tuple[int, float]:
    """The partner of ``row`` and the row's own weight; the row itself where it was paired with itself."""
    others = [c for c in np.flatnonzero(target[row] > 0) if c != row]
    return (others[0] if others else row), float(target[row, row])


def test_a_mixed_picture_and_its_label_have_the_same_parts():
    seen = 0
    for number in range(20):
        images, target = mixed_with(number, mixup=1.0, cutmix=0.0)
        assert images.dtype == np.float32
        np.testing.assert_allclose(target.sum(1), 1, atol=1e-6)
        partners = [parts(target, row)[0] for row in range(CLASSES)]
        assert sorted(partners) == list(range(CLASSES))  # a permutation
        for row, partner in enumerate(partners):
            own = parts(target, row)[1]
            expected = own * IMAGES[row].astype(float) + (1 - own) * IMAGES[partner]
            np.testing.assert_allclose(images[row], expected, atol=0.01)
            seen += partner != row
    assert seen > 50


def test_the_label_of_a_cut_picture_is_its_share_of_the_pixels():
    """Every pixel is one of the two pictures', whole, and the label's weight counts them exactly."""
    seen, shares = 0, []
    for number in range(30):
        images, target = mixed_with(number, mixup=0.0, cutmix=1.0)
        for row in range(CLASSES):
            partner, own = parts(target, row)
            if partner == row:
                np.testing.assert_array_equal(images[row], IMAGES[row])
                continue
            mine = (images[row] == IMAGES[row]).all(-1)
            assert (mine | (images[row] == IMAGES[partner]).all(-1)).all()
            assert own == pytest.approx(mine.mean(), abs=1e-6)
            theirs_rows, theirs_columns = np.flatnonzero(~mine.all(1)), np.flatnonzero(~mine.all(0))
            assert (~mine).sum() == len(theirs_rows) * len(theirs_columns)  # a box
            shares.append(own)
            seen += 1
    assert seen > 60
    assert min(shares) < 0.4
    assert max(shares) > 0.9


def numpy_box(height: int, width: int, weight: float, row: int, column: int) -> np.ndarray:
    """The authors' ``rand_bbox`` for a centre at (row, column): true within the box."""
    cut_h, cut_w = int(height * np.sqrt(1 - weight)), int(width * np.sqrt(1 - weight))
    y1, y2 = np.clip([row - cut_h // 2, row + cut_h // 2], 0, height)
    x1, x2 = np.clip([column - cut_w // 2, column + cut_w // 2], 0, width)
    box = np.zeros((height, width), bool)
    box[y1:y2, x1:x2] = True
    return box


def test_the_box_is_that_of_the_authors_for_some_centre_and_all_centres_occur():
    black, white = np.zeros((1, 6, 8, 1), np.float32), np.ones((1, 6, 8, 1), np.float32)
    for weight in (0.0, 0.36):
        allowed = {
            numpy_box(6, 8, weight, row, column).tobytes(): (row, column) for row in range(6) for column in range(8)
        }
        found = set()
        for number in range(600):
            seed = tf.constant([number, 1], tf.int64)
            images, own = cutmix_pair(black, white, tf.constant(weight, tf.float32), seed)
            box = images.numpy()[0, ..., 0].astype(bool)
            assert box.tobytes() in allowed
            assert float(own) == pytest.approx(1 - box.mean(), abs=1e-6)
            found.add(box.tobytes())
        assert len(found) == len(allowed)


def test_the_ends_of_the_weight_leave_one_picture():
    images, partners = IMAGES.astype(np.float32), IMAGES[::-1].astype(np.float32)
    kept, own = cutmix_pair(images, partners, tf.constant(1.0), tf.constant([0, 0], tf.int64))
    np.testing.assert_array_equal(kept, images)
    assert float(own) == 1


def test_with_both_half_of_the_batches_are_cut():
    cut = 0
    for number in range(200):
        images, target = mixed_with(number, mixup=1.0, cutmix=1.0)
        row = next(r for r in range(CLASSES) if parts(target, r)[0] != r or r == CLASSES - 1)
        cut += bool(np.isin(images[row], IMAGES).all() and (images[row] == images[row].round()).all())
    assert 70 < cut < 130


def test_smoothing_a_mixed_label_is_mixing_smoothed_ones():
    """As timm does: each of the two labels is smoothed, then they are mixed."""
    smoothing, (_, mixed) = 0.1, mixed_with(3, mixup=0.4, cutmix=0.0)
    partners = [parts(mixed, row)[0] for row in range(CLASSES)]
    own = np.array([parts(mixed, row)[1] for row in range(CLASSES)])[:, None]
    smooth = ONE_HOT * (1 - smoothing) + smoothing / CLASSES
    np.testing.assert_allclose(
        mixed * (1 - smoothing) + smoothing / CLASSES, own * smooth + (1 - own) * smooth[partners], atol=1e-6
    )


def test_the_same_seed_mixes_the_same_and_another_otherwise():
    one, again, other = (mixed_with(number, 0.4, 0.0)[0] for number in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
