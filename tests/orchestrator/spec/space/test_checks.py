"""What the fields of a search must fit: backbones, heads, conditions and samplers."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.spec.space.checks import sampler_refusal
from orchestrator.spec.space.domains import Constant, IntRange, Uniform
from orchestrator.spec.space.section import read_search
from orchestrator.spec.space.space import Case, Space
from tests.support.spaces import DEPTHS, HEADS, MARGINS, mistakes
from trainers.heads import Head

TALL = Head("tall", normalised=True, margin_function="trainers.heads:cosface_margin", default_margin=0.2)
"""A head of one's own without a largest margin."""


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (
            {"backbone": ["vgg16", "convnext_tiny", "resnet50", "nasnet_mobile"], "output_stride": [16, 32]},
            [
                (
                    "output_stride",
                    "16 is not supported by convnext_tiny, nasnet_mobile; add a condition, such as "
                    "{choice: [16, 32], when: {backbone: [vgg16, resnet50]}}.",
                )
            ],
        ),
        (
            {"backbone": ["vgg16", "convnext_tiny"], "output_stride": {"value": 16, "when": {"dropout": 0}}},
            [
                (
                    "output_stride",
                    "16 is not supported by convnext_tiny; add a condition, such as "
                    "{choice: [16, 32], when: {backbone: vgg16}}.",
                )
            ],
        ),
    ],
)
def test_a_stride_that_a_backbone_cannot_do(raw: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert mistakes(raw) == found


def test_a_stride_that_no_backbone_here_can_do() -> None:
    ((place, text),) = mistakes({"backbone": "inception_v3", "output_stride": 16})
    assert place == "output_stride"
    assert text.startswith(
        "16 is not supported by inception_v3; leave it out, or add a backbone that supports it: mobilenet_0.25"
    )
    assert "resnet50, " in text
    assert "convnext" not in text


def test_strides_that_fit() -> None:
    backbones = ["vgg16", "convnext_tiny"]
    for stride in (
        32,
        {"choice": [16, 32], "when": {"backbone": "vgg16"}},
        [{"value": 32, "when": {"backbone": "convnext_tiny"}}, {"choice": [16, 32]}],
    ):
        read_search({"backbone": backbones, "output_stride": stride})
    # the first case leaves convnext_tiny to the second where the GPU is small
    first = {"value": 32, "when": {"backbone": "convnext_tiny", "gpu_memory_gb": 8}}
    ((place, _),) = mistakes({"backbone": backbones, "output_stride": [first, {"choice": [16, 32]}]})
    assert place == "output_stride.1"


VIT, DINO = "vit_small_16_deit", "vit_small_14_dinov2"


@pytest.mark.parametrize(
    ("raw", "place", "text"),
    [
        (
            {"backbone": VIT, "image_size": 230},
            "image_size",
            "vit_small_16_deit cuts images into patches of 16 px, so 230 px are not possible; the nearest sizes are "
            "224 and 240.",
        ),
        (
            {"backbone": [VIT, DINO, "vgg16"], "image_size": [224, 240]},
            "image_size",
            "vit_small_14_dinov2 cuts images into patches of 14 px, so 240 px are not possible; the nearest sizes are "
            "238 and 252. Give it sizes of its own with a condition, when: {backbone: vit_small_14_dinov2}.",
        ),
        (
            {"backbone": DINO, "image_size": 14},
            "image_size",
            "14 pixels are too few for vit_small_14_dinov2; use at least 28.",
        ),
        (
            {"backbone": "vgg16", "pooling": "token"},
            "pooling",
            "vgg16 is convolutional and has no class token; take pooling average or max.",
        ),
        (
            {"backbone": [VIT, "vgg16", "resnet50"], "pooling": ["token", "average"]},
            "pooling",
            "token is not possible with vgg16, resnet50; add an earlier case, such as "
            "{value: average, when: {backbone: [vgg16, resnet50]}}.",
        ),
        (
            {"backbone": [VIT, "vgg16"], "feature_fusion": ["none", "concat"]},
            "feature_fusion",
            "concat is not possible with vit_small_16_deit; add an earlier case, such as "
            "{value: none, when: {backbone: [vit_small_16_deit]}}.",
        ),
        (
            {"backbone": VIT, "feature_fusion": "sum"},
            "feature_fusion",
            "vit_small_16_deit is a transformer and has no stages to fuse; take feature_fusion none.",
        ),
    ],
)
def test_what_transformers_and_others_cannot_do(raw: dict[str, Any], place: str, text: str) -> None:
    assert mistakes(raw) == [(place, text)]


def test_what_transformers_can_do() -> None:
    sizes = [
        {"choice": [224, 256], "when": {"backbone": VIT}},
        {"choice": [224, 252], "when": {"backbone": DINO}},
        {"value": 200},
    ]
    pooling = [{"choice": ["average", "max"], "when": {"backbone": "vgg16"}}, {"choice": ["token", "average"]}]
    found = read_search({"backbone": [VIT, DINO, "vgg16"], "image_size": sizes, "pooling": pooling}).space
    assert {field.name for field in found.fields} == {"backbone", "image_size", "pooling"}


def test_a_named_transformer_is_checked_alike() -> None:
    named = [
        {"name": "a", "backbone": VIT, "image_size": 200},
        {"name": "b", "backbone": "vgg16", "pooling": "token"},
        {"name": "c", "backbone": DINO, "feature_fusion": "concat"},
    ]
    assert [(place, text.partition(":")[0]) for place, text in mistakes({"configurations": named})] == [
        ("configurations.0", "image_size is 200"),
        ("configurations.1", "pooling is token"),
        ("configurations.2", "feature_fusion is concat"),
    ]


@pytest.mark.parametrize(
    ("raw", "place", "text"),
    [
        (
            {"head": ["cosface", "sphereface"], "margin": {"uniform": [0.05, 0.4]}},
            "margin",
            "found a number from 0.05 to 0.4, but sphereface takes margins from 1 to 4; add an earlier case, "
            "such as {uniform: [1, 4], when: {head: sphereface}}.",
        ),
        (
            {
                "head": ["arcface", "sphereface"],
                "margin": [{"value": 0.5, "when": {"head": "sphereface"}}, {"value": 2}],
            },
            "margin.0",
            "found 0.5, but sphereface takes margins from 1 to 4; add an earlier case, such as "
            "{uniform: [1, 4], when: {head: sphereface}}.",
        ),
        (
            {"head": "cosface", "margin": [None, 0.2, 1.5]},
            "margin",
            "found one of null, 0.2, 1.5, but cosface takes margins from 0 to 1; add an earlier case, "
            "such as {uniform: [0, 1], when: {head: cosface}}.",
        ),
    ],
)
def test_a_margin_outside_its_heads_range(raw: dict[str, Any], place: str, text: str) -> None:
    assert mistakes(raw)[0] == (place, text)


def test_the_range_that_a_mistake_shows_is_itself_right() -> None:
    wrong = {"head": ["arcface", "softmax"], "margin": {"uniform": [0.1, 3]}}
    ((_, text),) = mistakes(wrong)
    assert "{uniform: [0, 1.57], when: {head: arcface}}" in text
    read_search({**wrong, "margin": {"uniform": [0, 1.57], "when": {"head": "arcface"}}})


def test_margins_by_head_fit() -> None:
    search = read_search(
        {
            "head": ["softmax", "sphereface", "cosface", "arcface", "tests.orchestrator.spec.space.test_checks:TALL"],
            "margin": [
                {"uniform": [1.1, 2], "when": {"head": "sphereface"}},
                {"uniform": [0.05, 0.4], "when": {"head": "cosface"}},
                {"value": 4, "when": {"head": "tests.orchestrator.spec.space.test_checks:TALL"}},
                {"uniform": [0.05, 0.5]},
            ],
        }
    )
    assert search.space.domains("margin")[-1] == Uniform(0.05, 0.5)


def test_sphereface_has_no_scale() -> None:
    found = mistakes({"head": "sphereface", "scale": 16})
    assert found == [("scale", "the head sphereface has no scale; leave it out, or add a head that has one.")]
    read_search({"head": ["sphereface", "cosface"], "scale": {"value": 16, "when": {"head": "cosface"}}})


def test_named_configurations_must_fit_too() -> None:
    found = mistakes(
        {
            "configurations": [
                {"name": "a", "backbone": "convnext_tiny", "output_stride": 16},
                {"name": "b", "backbone": "vgg16", "output_stride": 16},
                {"name": "c", "head": "sphereface", "margin": 0.2},
                {"name": "d", "head": "sphereface", "margin": 1.5},
                {"name": "e", "head": "sphereface", "scale": 16},
                {"name": "f", "feature_fusion": True},
                {"name": "g", "feature_fusion": "concat"},
                {"name": "h", "mixup": 0.2, "unfrozen_layers": 0},
            ]
        }
    )
    assert found == [
        ("configurations.0", "output_stride is 16, but convnext_tiny only takes 32."),
        ("configurations.2", "margin is 0.2, but sphereface takes 1 to 4."),
        ("configurations.4.scale", "the head sphereface has no scale; leave it out."),
        ("configurations.6", '"g" is the same configuration as "f", and would not be trained again.'),
    ]


RANGES = Space.of({"dropout": [Case(Uniform(0, 0.5))], "smoothing": [Case(Uniform(0, 0.2))]})

LISTS = Space.of({"head": [HEADS], "batch_size": [Case(IntRange(16, 64, 16))]})


@pytest.mark.parametrize(
    ("sampler", "space", "sentence"),
    [
        *((sampler, RANGES, None) for sampler in ("tpe", "random", "cmaes", "gp")),
        *((sampler, LISTS, None) for sampler in ("tpe", "random", "grid", "gp")),
        *((sampler, Space.of(DEPTHS), None) for sampler in ("tpe", "random")),
        ("grid", RANGES, "the grid sampler cannot enumerate dropout, a continuous range"),
        ("grid", Space.of(DEPTHS), "the grid sampler cannot enumerate learning_rate, a continuous range"),
        ("cmaes", LISTS, "the cmaes sampler supports numeric ranges only, and head is a list"),
        (
            "cmaes",
            Space.of({"dropout": [Case(Uniform(0, 0.5))]}),
            "the cmaes sampler needs at least two numeric ranges",
        ),
        ("cmaes", Space.of(DEPTHS), "the cmaes sampler does not support conditions"),
        ("gp", Space.of(DEPTHS), "the gp sampler does not support conditions"),
        ("gp", Space.of({"margin": [MARGINS], "head": [Case(Constant("softmax"))]}), None),
    ],
)
def test_what_samplers_take(sampler: str, space: Space, sentence: str | None) -> None:
    answer = sampler_refusal(sampler, space)
    assert answer is None if sentence is None else str(answer).startswith(sentence)
