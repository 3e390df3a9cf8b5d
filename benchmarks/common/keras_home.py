"""A Keras cache in which every backbone has a weight file, an empty one: files are checked without a download."""

from __future__ import annotations

from pathlib import Path


def fill_keras_home(home: Path) -> Path:
    """Create ``home``, to be named by ``KERAS_HOME``, unless it exists; return it."""
    if not home.exists():
        from trainers.backbones import BACKBONES
        from trainers.networks.weight_sources import DOWNLOAD_SIZES

        (home / "models").mkdir(parents=True)
        for row in BACKBONES.values():
            for size in DOWNLOAD_SIZES.get(row.builder, (224,)) if row.imagenet else ():
                pattern = row.files.split()[-1]
                (home / "models" / pattern.replace("*no*top*", f"{size}_notop").replace("*", "weights_")).touch()
    return home
