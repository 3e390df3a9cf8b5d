"""Networks of small images on random weights, and what they are made of."""

from __future__ import annotations

import keras
import numpy as np

from trainers.backbones import backbone
from trainers.config import TrialConfig
from trainers.networks.network import Architecture, Network
from trainers.networks.prefix import Prefix

SIZES = {"small_cnn": 16, "mobilenet_0.25": 32, "mobilenet_v2": 32, "resnet50": 32, "vgg16": 32}
CLASSES = 4
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def architecture_of(name: str, unfrozen: int | str, **values) -> Architecture:
    size = SIZES.get(name, max(backbone(name).smallest_size, 16))
    chosen = TrialConfig(**{"backbone": name, "image_size": size, "unfrozen_layers": unfrozen} | values)
    return Architecture.of(chosen, "none", CLASSES)


def network_of(name: str, unfrozen: int | str, model: keras.Model | None = None, **values) -> tuple[Prefix, Network]:
    architecture = architecture_of(name, unfrozen, **values)
    prefix = Prefix(architecture.prefix, model)
    return prefix, Network(architecture, prefix)
