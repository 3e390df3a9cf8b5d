"""The rows of one part of a manifest, as a fit reads them."""

from __future__ import annotations

from pathlib import Path

from trainers.config import TrialConfig
from trainers.data.manifest import Manifest
from trainers.networks.prefix import Prefix
from trainers.training.examples import evaluation_set, training_set
from trainers.training.features import LabelledRows, ReadSettings, read_sets


def training_examples(
    manifest: Manifest, config: TrialConfig, prefix: Prefix, cache: Path, reading: ReadSettings | None = None
) -> LabelledRows:
    """The examples of one epoch; ``manifest`` holds only training images."""
    return read_sets([training_set(manifest, config)], config, prefix, cache, reading)[0]


def evaluation_examples(
    manifest: Manifest, config: TrialConfig, prefix: Prefix, cache: Path, reading: ReadSettings | None = None
) -> LabelledRows:
    """Every image once, never augmented; a random crop becomes the centre crop."""
    return read_sets([evaluation_set(manifest, config)], config, prefix, cache, reading)[0]
