"""Names of trials as people see them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from orchestrator.ledger.naming import legend, run_name
from tests.support.places import ROOT
from trainers.config import TrialConfig

CONFIG = TrialConfig(backbone="mobilenet_1.0", unfrozen_layers=13, head="cosface", multiplier=2.0).to_dict()


@pytest.mark.parametrize(
    ("number", "config", "given_name", "expected"),
    [
        (3, CONFIG, "", "003 mobilenet_1.0 n=13 x2 cosface"),
        (0, {}, "", "000 mobilenet_1.0"),
        (12, {"backbone": "vgg16", "unfrozen_layers": "all", "dropout": 0.25}, "", "012 vgg16 n=all drop=0.25"),
        (1, {"backbone": "small_cnn", "smoothing": 0.1, "learning_rate": 0.5}, "", "001 small_cnn smooth=0.1"),
        (1234, CONFIG, "step 4", "1234 step 4"),
    ],
)
def test_run_name(number: int, config: dict[str, Any], given_name: str, expected: str) -> None:
    assert run_name(number, config, given=given_name) == expected


def test_run_name_shows_what_the_sweep_varies() -> None:
    config = TrialConfig(learning_rate=0.0003, image_size=160, optimizer="sgd").to_dict()
    assert run_name(7, config, varied=("learning_rate", "image_size", "optimizer")) == (
        "007 mobilenet_1.0 lr=0.0003 160px sgd"
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["003 mobilenet_1.0 n=13 x2 cosface"], "n: unfrozen_layers, x: multiplier"),
        (
            ["000 xception n=all", "001 vgg16 drop=0.25 m=0.1 lr=1e-05"],
            "n: unfrozen_layers, lr: learning_rate, m: margin",
        ),
        (["007 mobilenet_1.0 160px sgd 5ep x1.5"], "x: multiplier, px: image_size, ep: epochs"),
        (["001 resnet50v2 mixup=0.2 hidden=64 balance=draw drop=0.2 batch=64 stride=16"], ""),
        (["000 mobilenet_1.0", "1234 step 4"], ""),
        ([], ""),
    ],
)
def test_what_abbreviations_in_names_stand_for(names: list[str], expected: str) -> None:
    assert legend(names) == expected


def test_every_field_of_a_name_is_its_own_word_or_explained() -> None:
    different = {
        "unfrozen_layers": 5,
        "dropout": 0.3,
        "multiplier": 3.0,
        "smoothing": 0.2,
        "image_size": 96,
        "epochs": 7,
    }
    different |= {
        "learning_rate": 0.2,
        "weight_decay": 0.1,
        "batch_size": 8,
        "clip_norm": 1.0,
        "hidden": 9,
        "scale": 4.0,
    }
    different |= {"margin": 0.2, "warmup": 0.2, "output_stride": 16, "mixup": 0.2, "cutmix": 0.2, "balance": "draw"}
    explained = {pair.split(": ")[1] for pair in legend([run_name(1, different, tuple(different))]).split(", ")}
    words = {word.partition("=")[0] for word in run_name(1, different, tuple(different)).split() if "=" in word}
    plain = {name for name in different if any(len(word) > 2 and word in name for word in words)}
    assert explained | plain == set(different)
    assert explained == {
        *("unfrozen_layers", "multiplier", "image_size", "epochs", "learning_rate", "weight_decay", "scale", "margin")
    }


def test_the_docs_explain_every_abbreviation() -> None:
    page = (ROOT / "docs" / "file.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| `([a-z_]+)` \|$", page, re.MULTILINE)
    explained = [pair.split(": ")[1] for pair in legend(example for example, _ in rows).split(", ")]
    assert sorted(explained) == sorted(field for _, field in rows)
    assert len(rows) == 8
