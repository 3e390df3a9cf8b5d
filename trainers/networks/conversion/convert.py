"""Convert a PyTorch state dict to a Keras weight file, checking every name and shape.

The networks here are built so that published weights fit as they are: arrays are transposed, never
computed, but for the position table of a transformer. A network of the same name with other arithmetic is refused with
the reason.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainers.backbones import backbone as row_of
from trainers.backbones import load_builder
from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write
from trainers.files.lookup import obstacle
from trainers.networks.conversion.published import PUBLISHED, REFUSED, Published, Tensor, fits
from trainers.networks.conversion.state_dict import listed, read_state_dict
from trainers.networks.weight_files import size_text


@dataclass(frozen=True)
class Conversion:
    """A written file: tensors ``used`` and ``ignored`` (the classifier) by their PyTorch names, and ``warnings``."""

    output: Path
    used: tuple[str, ...]
    ignored: tuple[str, ...]
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """The output of `orch weights convert`."""
        left = f"; left out: {', '.join(self.ignored)}" if self.ignored else ""
        return [f"{len(self.used)} tensors written to {self.output}{left}", *(f"warning: {w}" for w in self.warnings)]


def convert(source: Path, backbone: str, output: Path | None = None) -> Conversion:
    """Write the weights in ``source`` as a Keras file for ``backbone``.

    ``source``: what ``read_state_dict`` takes. ``output``: a file ending in .weights.h5, or a folder; None for the
    folder of ``source``. In a folder the name is <backbone>_<name of source>_no_top.weights.h5, a pattern that
    ``weight_file`` finds. Written atomically.

    Raises TrainerError with all mistakes at once: missing, unknown or repeated names, other shapes, values that are
    not finite.
    """
    published = _published(backbone)
    target = _output(source, backbone, output)
    tensors = read_state_dict(source)
    row = row_of(backbone)
    size = row.smallest_size
    _hide_gpus()
    model = load_builder(row)(input_shape=(size, size, 3), include_top=False, weights=None, **row.arguments)
    used, ignored, warnings = fill(model, tensors, f"{source} as {backbone}", published)
    _write(model, target)
    return Conversion(target, used, ignored, warnings)


def _hide_gpus() -> None:
    """Build the network without a GPU, whose memory TensorFlow would take; do nothing if TensorFlow is in use."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")


def _published(backbone: str) -> Published:
    if backbone in PUBLISHED:
        return PUBLISHED[backbone]
    reason = next((why for start, why in REFUSED.items() if backbone.startswith(start)), "")
    raise TrainerError(
        f"PyTorch weights cannot be converted for {backbone}{': ' + reason if reason else ''}. "
        f"Can be converted: {', '.join(PUBLISHED)}. Keras has weights of its own for the others: weights: imagenet."
    )


def _output(source: Path, backbone: str, output: Path | None) -> Path:
    """The file to write. Raises TrainerError if Keras could not read its name again, or if it exists."""
    for path in filter(None, (source, output)):
        if why := obstacle(path):
            raise TrainerError(f"{path} cannot be used: {why}.")
    if not source.is_file():
        raise TrainerError(f"there is no file {source}.")
    if output is None or output.is_dir():
        stem = source.stem.removeprefix(f"{backbone}_").replace(" ", "_")
        output = (output or source.parent) / f"{backbone}_{stem}_no_top.weights.h5"
    if not output.name.endswith(".weights.h5"):
        raise TrainerError(f"{output} must end in .weights.h5, from which Keras infers the format.")
    if output.exists():
        raise TrainerError(f"{output} exists; remove it, or name another file with --out.")
    return output


def fill(
    model: Any, tensors: Mapping[str, np.ndarray], what: str, published: Published
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Load ``tensors`` into ``model``, as ``published`` names them. Returns (used, ignored, warnings).

    Changes nothing unless everything fits. Raises TrainerError about ``what`` with every mistake.
    """
    tensors = published.prepare(tensors)
    places = [(layer, [published.tensor(layer, variable) for variable in layer.weights]) for layer in model.layers]
    needed = {tensor.name: tensor for _, layer_tensors in places for tensor in layer_tensors}
    _check(needed, tensors, what, published)
    for layer, layer_tensors in places:
        if layer_tensors:
            layer.set_weights([each.to_keras(tensors[each.name].reshape(each.shape)) for each in layer_tensors])
    ignored = sorted(set(tensors) - set(needed))
    return tuple(sorted(needed)), tuple(ignored), _folded(tensors)


def _check(needed: Mapping[str, Tensor], tensors: Mapping[str, np.ndarray], what: str, published: Published) -> None:
    """Raise TrainerError with everything that keeps ``tensors`` from filling what is ``needed``."""
    surplus = sorted(set(tensors) - set(needed))
    unknown = [name for name in surplus if not name.startswith(published.left_out)]
    shared = sorted(set(needed) & set(tensors))
    mistakes = [
        *listed("missing", sorted(set(needed) - set(tensors))),
        *listed("unknown", unknown),
        *listed(
            "of another shape",
            [
                f"{name} is {size_text(tensors[name].shape)}, not {size_text(needed[name].shape)}"
                for name in shared
                if not fits(needed[name], tensors[name])
            ],
        ),
        *listed("not finite", [name for name in shared if not np.isfinite(tensors[name]).all()]),
    ]
    if mistakes:
        hints = published.hints.items()
        hint = next((f" {text}" for start, text in hints if any(name.startswith(start) for name in unknown)), "")
        raise TrainerError(f"{what} does not fit: {'; '.join(mistakes)}.{hint}")


def _folded(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Warn if batch norms hold no statistics of their own."""
    means = [name for name in tensors if name.endswith("running_mean")]
    plain = [
        name for name in means if not tensors[name].any() and (tensors[name.removesuffix("mean") + "var"] == 1).all()
    ]
    if not plain:
        return ()
    return (
        f"{len(plain)} of {len(means)} batch norms have mean 0 and variance 1: they were folded into the convolutions, "
        "or never trained. Frozen layers are correct; unfrozen ones normalise by statistics that the weights were not "
        "trained with, and training starts from noise. Look for the original file.",
    )


def _write(model: Any, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output, suffix=".weights.h5") as path:  # Keras infers the format from the suffix
        model.save_weights(path)
