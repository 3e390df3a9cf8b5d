"""Convert a PyTorch state dict to a Keras weight file, checking every name and shape.

The networks here are built so that published weights fit as they are: a convolution's kernel (out, in, h, w) becomes
(h, w, in, out), the rest is copied. A network of the same name with other arithmetic is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write
from trainers.files.lookup import obstacle
from trainers.networks.weight_files import size_text

SHOWN = 8
"""Maximum number of names that a message lists for each kind of mistake."""
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.")
CONVERTIBLE = ("senet50",)
REFUSED = {
    "resnet": "PyTorch's ResNets have the stride in the 3x3 convolution, no biases and batch norms with 1e-5, Keras' "
    "have it in the first 1x1, biases and 1.001e-5; the kernels would fit, the features would not",
}
"""Prefix of a backbone's name -> why PyTorch's weights do not fit it."""


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


@dataclass(frozen=True)
class _Target:
    """One array of a Keras layer: ``place`` among its weights, shape there, and shape in the state dict."""

    layer: str
    place: int
    shape: tuple[int, ...]
    source_shape: tuple[int, ...]


def convert(source: Path, backbone: str, output: Path | None = None) -> Conversion:
    """Write the weights in ``source`` (.safetensors, or PyTorch's .pth, .pt, .bin) as a Keras file for ``backbone``.

    ``output``: a file ending in .weights.h5, or a folder; None for the folder of ``source``. In a folder the name is
    <backbone>_<name of source>_no_top.weights.h5, a pattern that ``weight_file`` finds. Written atomically.

    Raises TrainerError with all mistakes at once: missing, unknown or repeated names, other shapes, values that are
    not finite.
    """
    _refuse(backbone)
    target = _output(source, backbone, output)
    tensors = read_state_dict(source)

    from trainers.backbones import backbone as row_of
    from trainers.backbones import load_builder

    row = row_of(backbone)
    size = (row.smallest_size, row.smallest_size, 3)
    model = load_builder(row)(input_shape=size, include_top=False, weights=None, **row.arguments)
    used, ignored, warnings = fill(model, tensors, f"{source} as {backbone}")
    _write(model, target)
    return Conversion(target, used, ignored, warnings)


def _refuse(backbone: str) -> None:
    if backbone in CONVERTIBLE:
        return
    reason = next((why for start, why in REFUSED.items() if backbone.startswith(start)), "")
    raise TrainerError(
        f"PyTorch weights cannot be converted for {backbone}{': ' + reason if reason else ''}. "
        f"Can be converted: {', '.join(CONVERTIBLE)}. Keras has weights of its own for the others: weights: imagenet."
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


def read_state_dict(source: Path) -> dict[str, np.ndarray]:
    """Read the state dict in ``source`` as name -> float32 array, without wrappers (state_dict, model) and prefixes.

    Skips PyTorch's counters (num_batches_tracked). Raises TrainerError for a file that cannot be read, and if two
    names are equal without their prefixes.
    """
    if source.suffix == ".safetensors":
        found = _read_safetensors(source)
    elif source.suffix in (".pth", ".pt", ".bin", ".tar"):
        found = _read_torch(source)
    else:
        raise TrainerError(f"{source} is neither .safetensors nor PyTorch's .pth, .pt or .bin.")
    named: dict[str, list[str]] = {}
    for name in found:
        if not name.endswith("num_batches_tracked"):
            named.setdefault(_plain(name), []).append(name)
    twice = [" and ".join(names) for names in named.values() if len(names) > 1]
    if twice:
        raise TrainerError(
            f"{source} holds several networks: some tensors have the same name once prefixes are removed: "
            f"{'; '.join(_listed('of them', twice))}. Save only the network to convert."
        )
    return {name: np.asarray(found[names[0]], np.float32) for name, names in named.items()}


def _plain(name: str) -> str:
    """Strip the prefixes that wrappers of a model put before a tensor's name."""
    while True:
        shorter = next((name[len(prefix) :] for prefix in PREFIXES if name.startswith(prefix)), name)
        if shorter == name:
            return name
        name = shorter


def _read_safetensors(source: Path) -> Mapping[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise TrainerError('reading .safetensors needs a package: `pip install "orch[convert]"`.') from error
    try:
        return load_file(source)
    except (SafetensorError, TypeError, KeyError) as error:
        raise TrainerError(f"{source} is not a whole .safetensors file of float tensors: {error}") from error


def _read_torch(source: Path) -> Mapping[str, Any]:
    """Unpickle tensors and plain containers only, so that a file cannot run code."""
    try:
        import torch  # heavy, and an extra: needed for this format alone
    except ImportError as error:
        raise TrainerError(
            f"reading {source.suffix}, PyTorch's format, needs torch: `pip install torch`; or give the weights as "
            ".safetensors, which needs only a small package."
        ) from error
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch passes on errors of pickle and zip
        reason = " ".join(str(error).split())[:200]
        raise TrainerError(f"{source} cannot be read as a PyTorch file of weights alone: {reason}") from error
    while isinstance(found, Mapping) and (inner := next((found[key] for key in WRAPPERS if key in found), None)):
        if not isinstance(inner, Mapping):
            break
        found = inner
    if not isinstance(found, Mapping) or not any(isinstance(value, torch.Tensor) for value in found.values()):
        raise TrainerError(f"{source} holds no state dict: a mapping of names to tensors.")
    return {name: value.detach().float().numpy() for name, value in found.items() if isinstance(value, torch.Tensor)}


def fill(
    model: Any, tensors: Mapping[str, np.ndarray], what: str
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Load ``tensors`` into ``model``, a network of ``trainers.networks.senet``. Returns (used, ignored, warnings).

    Changes nothing unless everything fits. Raises TrainerError about ``what`` with every mistake.
    """
    targets = _targets(model)
    ignored = tuple(sorted(name for name in tensors if name.startswith(("fc.", "head.", "classifier."))))
    missing = sorted(set(targets) - set(tensors))
    unknown = sorted(set(tensors) - set(targets) - set(ignored))
    shared = sorted(set(targets) & set(tensors))
    wrong = [
        f"{name} is {size_text(tensors[name].shape)}, not {size_text(targets[name].source_shape)}"
        for name in shared
        if tensors[name].shape != targets[name].source_shape
    ]
    broken = [name for name in shared if not np.isfinite(tensors[name]).all()]
    mistakes = [
        *_listed("missing", missing),
        *_listed("unknown", unknown),
        *_listed("of another shape", wrong),
        *_listed("not finite", broken),
    ]
    if mistakes:
        raise TrainerError(f"{what} does not fit: {'; '.join(mistakes)}.{_advice(unknown)}")
    arrays: dict[str, dict[int, np.ndarray]] = {}
    for name, target in targets.items():
        value = tensors[name].transpose(2, 3, 1, 0) if tensors[name].ndim == 4 else tensors[name]
        arrays.setdefault(target.layer, {})[target.place] = value
    for layer, values in arrays.items():
        model.get_layer(layer).set_weights([values[place] for place in sorted(values)])
    return tuple(sorted(targets)), ignored, _folded(tensors)


def _targets(model: Any) -> dict[str, _Target]:
    """timm's name of each tensor -> where it goes."""
    found = {}
    for layer in model.layers:
        for place, weight in enumerate(layer.weights):
            shape = tuple(weight.shape)
            source = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape
            found[f"{_timm_layer(layer.name)}.{_timm_part(weight.name)}"] = _Target(layer.name, place, shape, source)
    return found


def _timm_layer(name: str) -> str:
    """stage1_block2_se_fc1 -> layer1.1.se.fc1"""
    if name.startswith("stem_"):
        return {"stem_conv": "conv1", "stem_bn": "bn1"}[name]
    stage, block, rest = name.split("_", 2)
    rest = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(rest, rest.replace("se_", "se."))
    return f"layer{stage.removeprefix('stage')}.{int(block.removeprefix('block')) - 1}.{rest}"


def _timm_part(name: str) -> str:
    parts = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
    return (parts | {"moving_mean": "running_mean", "moving_variance": "running_var"})[name]


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


def _advice(unknown: list[str]) -> str:
    """Name the network that the unknown names belong to, "" if not recognised."""
    if any(name.startswith("layer0.") for name in unknown):
        return " It looks like Cadene's se_resnet50 (timm: legacy_seresnet50), another network; take timm's seresnet50."
    return ""


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}"]


def _write(model: Any, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output, suffix=".weights.h5") as path:  # Keras infers the format from the suffix
        model.save_weights(path)
