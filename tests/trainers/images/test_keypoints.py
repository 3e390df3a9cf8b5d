"""Codes survive what copies go through, and a mirrored picture has the complements."""

from __future__ import annotations

import threading

import numpy as np
from PIL import ImageOps

from tests.support.pictures import look_at, scene
from trainers.images.keypoints import CODE_BITS, KEYPOINTS, SAME_CODE, codes, keypoints, mirrored


def nearest_bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.bitwise_count(first[:, None] ^ second[None]).min(axis=1)


def test_a_mirrored_descriptor_has_the_complement_of_the_code() -> None:
    descriptors = np.random.default_rng(0).gamma(0.5, 30, (200, 128)).astype(np.float32)
    assert np.array_equal(mirrored(mirrored(descriptors)), descriptors)
    assert np.array_equal(codes(mirrored(descriptors)), ~codes(descriptors))


def test_a_mirrored_picture_has_the_complements_of_the_codes() -> None:
    plain, mirror = look_at(scene(0)).keypoints, look_at(ImageOps.mirror(scene(0))).keypoints
    plain, mirror = plain[plain["size"] > 0], mirror[mirror["size"] > 0]
    assert len(plain) > 60
    assert (nearest_bits(plain["code"], ~mirror["code"]) <= SAME_CODE).mean() > 0.7
    assert (nearest_bits(plain["code"], mirror["code"]) <= SAME_CODE).mean() < 0.4


def test_codes_of_random_descriptors_are_even() -> None:
    descriptors = np.random.default_rng(1).gamma(0.5, 30, (4000, 128)).astype(np.float32)
    bits = np.unpackbits(codes(descriptors).view(np.uint8)).reshape(-1, CODE_BITS)
    assert 0.45 < bits.mean(axis=0).min() <= bits.mean(axis=0).max() < 0.55


def test_an_empty_or_plain_image_has_no_keypoints() -> None:
    for grey in (np.zeros((0, 10), np.uint8), np.full((256, 200), 90, np.uint8)):
        found = keypoints(grey)
        assert found.shape == (KEYPOINTS,)
        assert not found["size"].any()


def test_every_thread_finds_the_same() -> None:
    grey = np.asarray(scene(3).convert("L"))
    expected, found = keypoints(grey), []
    threads = [threading.Thread(target=lambda: found.append(keypoints(grey))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(each, expected) for each in found)
