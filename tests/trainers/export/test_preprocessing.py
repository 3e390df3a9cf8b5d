"""The numbers from a photo to its crops; ``tests/docs/test_export_page.py`` cuts real photos by them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from trainers.calibration import Calibration, Level
from trainers.export.describe import how_to_cut
from trainers.export.preprocessing import preprocessing, usage
from trainers.images.policies import crop_names


def served(policy: str, view: str = "squash", size: int = 224) -> Any:
    return SimpleNamespace(
        classes=("b", "a"),
        image_size=size,
        view=view,
        policy=policy,
        crop_names=crop_names(policy),
        calibration=Calibration(0.5, (Level(0.2, 1.0, 0.9, 0.8),), 70),
    )


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("whole", [(224, 0, 0, 224, False)]),
        ("flip", [(224, 0, 0, 224, False), (224, 0, 0, 224, True)]),
        ("centre", [(256, 16, 16, 224, False)]),
        ("pyramid", [(256, 0, 0, 256, False), (256, 16, 16, 224, False), (256, 32, 32, 192, False)]),
        ("ten_crop", [(256, 0, 0, 224, False), (256, 0, 32, 224, False), (256, 32, 0, 224, False)]),
        ("tests.support.tiny_fits:OWN_POLICY", [(224, 0, 0, 224, False), (256, 0, 64, 128, False)]),
    ],
)
def test_crops_are_places_in_pixels(policy: str, expected: list[tuple[int, int, int, int, bool]]) -> None:
    crops = preprocessing(served(policy))["crops"]
    assert [crop["name"] for crop in crops] == list(crop_names(policy))
    found = [tuple(crop[key] for key in ("photo", "top", "left", "side", "mirrored")) for crop in crops]
    assert found[: len(expected)] == expected
    assert {crop["jpeg_at_least"] for crop in crops} == {int(2 * crop["photo"] / 0.7) for crop in crops}


@pytest.mark.parametrize("view", ["squash+needed", "random_crop+needed"])
def test_a_jpeg_is_decoded_as_in_training(view: str) -> None:
    found = preprocessing(served("ten_crop", view))
    assert {crop["jpeg_at_least"] for crop in found["crops"]} == {320}  # 1.25 * 256
    assert found["square"] == (None if "squash" in view else "centre")
    assert ("take the central square" in " ".join(how_to_cut(served("whole", view)))) == ("squash" not in view)


def test_a_random_crop_is_its_draw() -> None:
    crops = preprocessing(served("random_3"))["crops"]
    assert [(crop["draw"], crop["smallest"], crop["photo"]) for crop in crops] == [(i, 0.7, 256) for i in range(3)]


@pytest.mark.parametrize(("view", "square"), [("squash", None), ("centre_crop", "centre"), ("random_crop", "centre")])
def test_views_that_crop_take_the_central_square(view: str, square: str | None) -> None:
    assert preprocessing(served("whole", view))["square"] == square


def test_what_a_user_needs_is_plain_json_with_labels_in_order() -> None:
    model = served("flip")
    found = usage(model)
    assert json.loads(json.dumps(found)) == found
    assert (found["classes"], found["policy"], found["photo"]) == (["b", "a"], "flip", how_to_cut(model))
    assert found["preprocessing"] == preprocessing(model)
    assert found["calibration"] == model.calibration.to_dict()
    assert Calibration.from_dict(json.loads(json.dumps(found["calibration"]))) == model.calibration
