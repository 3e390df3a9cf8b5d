"""Write the winner in other formats and measure what each answers; a job for a worker.

Whether an export may stay is decided by whoever gave the job: nothing is judged here.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.export.formats import FORMATS, ExportFormat
from trainers.files.arrays import write_arrays
from trainers.files.plain import read_plain
from trainers.images.policies import policy
from trainers.serving.model import ServedModel
from trainers.training import device

CALIBRATION_IMAGES = 200
ORIGINAL = "original"
SERVE_BYTES = "serve_bytes"
"""A SavedModel's signature from encoded photos, beside ``serving_default`` from pixels."""
OPSET = 18
"""Of ONNX: the oldest that says all that the backbones need and that both converter and runtime know well."""

Runner = Callable[[np.ndarray], np.ndarray]
"""uint8 crops (n, size, size, 3) -> float (n, classes)."""


def export(job: Mapping[str, Any]) -> dict[str, Any]:
    """Write formats, then ask each of them, and the model they come from, about every image of a split.

    ``job``: ``model`` (a served folder), ``outputs`` (format -> file or folder to write, replaced if there),
    ``answers`` (name -> .npz to write: each format, ``original`` and, with a SavedModel, ``serve_bytes``),
    ``manifest``, ``split``, ``threads``. Calibration reads images of the split "train" alone.

    Each .npz holds ``sha256`` (n,) and ``probabilities`` (n, classes), the mean over the crops of the model's policy.
    Returns ``measured`` (name -> ``latency_ms``, ``size_mb``), ``failed`` (format -> why), ``notes`` (format -> what
    else a person should know, in a sentence), and for who uses the files ``input`` and ``photo`` (what a crop is, and
    how a photo becomes crops, in words) and ``versions``. ``latency_ms`` is the median time a photo takes from its
    decoded crops to probabilities, on ``threads`` threads.

    Raises TrainerError.
    """
    device.prepare(job["threads"], 0.0, "float32")
    manifest, served = Manifest.read(Path(job["manifest"])), ServedModel(Path(job["model"]))
    failed: dict[str, str] = {}
    asked = [_Asked(ORIGINAL, _original(served), sum(size_mb(p) for p in Path(job["model"]).glob("*.npz")))]
    for name, place in job["outputs"].items():
        row, path = FORMATS[name], Path(place)
        try:
            _require(row)
            _WRITERS[name](served, manifest, _fresh(path))
            asked.append(_Asked(name, _OPENERS[name](path, job["threads"]), size_mb(path)))
        except TrainerError as error:
            failed[name] = str(error)
        except Exception as error:  # converters raise whatever their vendors do
            failed[name] = f"{row.name} could not be written: {_first_line(error)}"
    failed |= _ask(served, manifest.split(job["split"]), asked)
    asked = [one for one in asked if one.name not in failed]
    for one in asked:
        write_arrays(Path(job["answers"][one.name]), {"sha256": one.hashes, "probabilities": np.array(one.rows)})
    if "savedmodel" in job["outputs"] and "savedmodel" not in failed:
        _ask_bytes(job, manifest.split(job["split"]))
    return {
        "measured": {one.name: one.figures() for one in asked},
        "failed": failed,
        "notes": _notes(job["outputs"], failed),
        "input": f"pixels from 0 to 255, red, green, blue, of {served.image_size} x {served.image_size}",
        "photo": how_to_cut(served),
        "versions": _versions(row for name, row in FORMATS.items() if name in job["outputs"]),
    }


def _notes(outputs: Mapping[str, str], failed: Mapping[str, str]) -> dict[str, str]:
    notes: dict[str, str] = {}
    for name in outputs:
        path, said = Path(outputs[name]), []
        if name in failed or path.suffix != ".tflite":
            continue
        floats = float_tensors(path) if name == "tflite-int8" else 0
        if floats:
            said.append(f"{floats} of its tensors stay float32, so hardware of integers alone cannot run it.")
        if not takes_xnnpack(path):
            said.append("XNNPACK, the delegate for CPUs, cannot run it; run and timed without, which is slower.")
        if said:
            notes[name] = " ".join(said)
    return notes


def float_tensors(path: Path) -> int:
    """How many tensors of a .tflite file are float32; 0 for one that is integers throughout."""
    details = _interpreter(path, 1, delegate=False).get_tensor_details()  # a delegate adds tensors of its own
    return sum(tensor["dtype"] == np.float32 for tensor in details)


def takes_xnnpack(path: Path) -> bool:
    """Whether the interpreter's default delegate can run a .tflite file."""
    try:
        _interpreter(path, 1)
    except RuntimeError:
        return False
    return True


def how_to_cut(served: ServedModel) -> list[str]:
    """How a photo becomes what the network sees, step by step, as ``trainers.images.crops`` does it."""
    from trainers.images.crops import PYRAMID_SCALES, SMALLEST_RANDOM_CROP, ZOOM

    size, crops = served.image_size, policy(served.policy).crops
    side = size if served.policy in ("whole", "flip") else round(size / ZOOM)
    square = "" if served.view == "squash" else "take the central square, "
    steps = [
        "decode to 8-bit RGB; apply the EXIF orientation; lay transparency on white",
        f"{square}resize to {side} x {side}, bilinear with antialiasing",
    ]
    each = f"resized to {size} x {size}"
    scales = " and ".join(f"{scale:g}" for scale in PYRAMID_SCALES)
    cut = {
        "whole": "that is the only crop",
        "flip": "two crops: that, and its mirror image left to right",
        "centre": f"one crop: the central {size} x {size}",
        "ten_crop": f"ten crops: {size} x {size} in each corner and in the centre, and their mirror images",
        "pyramid": f"six crops: the central {scales} of the side, each {each}, and their mirror images",
    }
    at_random = f"{crops} crops at random places, each of {SMALLEST_RANDOM_CROP:g} to 1 times the side, {each}"
    steps.append(cut.get(served.policy, at_random))
    return [*steps, "the answer is the mean of the crops' probabilities"] if crops > 1 else steps


def _versions(rows: Iterable[ExportFormat]) -> dict[str, str]:
    """Of what wrote the files, by module name."""
    modules = dict.fromkeys(["tensorflow", "keras", "numpy", *(module for row in rows for module in row.needs)])
    found = {name: importlib.util.find_spec(name) for name in modules}
    return {name: metadata.version(name) for name, spec in found.items() if spec is not None}


def size_mb(path: Path) -> float:
    """Megabytes (10^6 bytes) of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files) / 1e6


@dataclass
class _Asked:
    """One form of the model, and what it has answered so far."""

    name: str
    run: Runner
    size_mb: float
    hashes: list[str] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        return {"latency_ms": 1000 * statistics.median(self.seconds), "size_mb": self.size_mb}


def _ask(served: ServedModel, part: Manifest, asked: Sequence[_Asked]) -> dict[str, str]:
    """Every image once: its crops are cut once for all forms. One call before the clock starts makes the traces.

    Returns the forms that could not be run, with why; they are not asked again.
    """
    from trainers.images.crops import crops

    failed: dict[str, str] = {}
    for path, sha256 in zip(part.paths(), part.table["sha256"], strict=True):
        cut = crops(path, served.image_size, served.view, served.policy, sha256)
        for one in asked:
            if one.name in failed:
                continue
            try:
                _ask_once(one, cut, sha256)
            except Exception as error:  # runtimes raise whatever their vendors do
                if one.name == ORIGINAL:
                    raise
                failed[one.name] = f"{one.name} was written and could not be run: {_first_line(error)}"
    return failed


def _ask_once(one: _Asked, cut: np.ndarray, sha256: str) -> None:
    if not one.rows:
        one.run(cut)
    started = time.perf_counter()
    row = one.run(cut).mean(0)
    one.seconds.append(time.perf_counter() - started)
    one.hashes.append(sha256)
    one.rows.append(row)


def _ask_bytes(job: Mapping[str, Any], part: Manifest) -> None:
    """What the SavedModel says of encoded photos; of those that TensorFlow does not decode there is no row."""
    import tensorflow as tf

    run = tf.saved_model.load(job["outputs"]["savedmodel"]).signatures[SERVE_BYTES]
    hashes, rows = [], []
    for path, sha256 in zip(part.paths(), part.table["sha256"], strict=True):
        try:
            row = run(photos=tf.constant([read_plain(path)]))["probabilities"].numpy()[0]
        except tf.errors.InvalidArgumentError:
            continue
        hashes.append(sha256)
        rows.append(row)
    answers = {"sha256": np.array(hashes, str), "probabilities": np.array(rows, np.float32)}
    write_arrays(Path(job["answers"][SERVE_BYTES]), answers)


def _original(served: ServedModel) -> Runner:
    def run(cut: np.ndarray) -> np.ndarray:
        features = served.prefix(cut)
        return np.mean([network.predict(features) for network in served.networks], 0)

    return run


def _require(row: ExportFormat) -> None:
    missing = [module for module in row.needs if importlib.util.find_spec(module) is None]
    if missing:
        raise TrainerError(
            f"{row.name} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; "
            f"pip install {' '.join(row.needs)}."
        )


def _fresh(path: Path) -> Path:
    """``path`` with its folder there and nothing at it."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


# --- writing ------------------------------------------------------------------------------------------------------


def _write_savedmodel(served: ServedModel, manifest: Manifest, path: Path) -> None:
    import tensorflow as tf

    from trainers.export.graph import bytes_graph, crop_graph

    holder = tf.Module()
    holder.pixels, holder.photos = crop_graph(served, tf.uint8, None), bytes_graph(served)
    signatures = {
        "serving_default": holder.pixels.get_concrete_function(),
        SERVE_BYTES: holder.photos.get_concrete_function(),
    }
    # The graph's variables belong to Keras models that are no part of ``holder``; a SavedModel wants them all named.
    holder.held = [variable for function in signatures.values() for variable in function.graph.variables]
    tf.saved_model.save(holder, str(path), signatures)


def _write_tflite(served: ServedModel, manifest: Manifest, path: Path) -> None:
    path.write_bytes(_converter(served, "uint8").convert())


def _write_tflite_fp16(served: ServedModel, manifest: Manifest, path: Path) -> None:
    import tensorflow as tf

    converter = _converter(served, "uint8")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())


def _write_tflite_int8(served: ServedModel, manifest: Manifest, path: Path) -> None:
    """Post-training quantisation of weights and activations (Jacob et al. 2018), integers from input to output."""
    import tensorflow as tf

    converter = _converter(served, "float32")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    converter.representative_dataset = lambda: _calibration(served, manifest)
    path.write_bytes(converter.convert())


def _converter(served: ServedModel, dtype: str) -> Any:
    """One crop a call: every runtime takes a fixed shape, and it is the quickest on most."""
    import tensorflow as tf

    from trainers.export.graph import crop_graph

    graph = crop_graph(served, tf.as_dtype(dtype), 1)
    return tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], graph)


def _calibration(served: ServedModel, manifest: Manifest) -> Iterator[list[np.ndarray]]:
    """Crops of training images, one an image, drawn by the manifest's seed; of each image another of the policy's."""
    from trainers.images.crops import crops

    part = manifest.split("train")
    paths, hashes = part.paths(), part.table["sha256"].tolist()
    if not paths:
        raise TrainerError("there is no training image to calibrate int8 with.")
    drawn = np.random.default_rng((manifest.seed, 8)).permutation(len(paths))[:CALIBRATION_IMAGES]
    for place, i in enumerate(drawn):
        cut = crops(paths[i], served.image_size, served.view, served.policy, hashes[i])
        yield [cut[place % len(cut)][None].astype(np.float32)]


def _write_onnx(served: ServedModel, manifest: Manifest, path: Path) -> None:
    import tensorflow as tf

    from trainers.export.graph import crop_graph

    convert = importlib.import_module("tf2onnx.convert")
    graph = crop_graph(served, tf.uint8, None)
    convert.from_function(graph, graph.input_signature, opset=OPSET, output_path=str(path))


# --- running ------------------------------------------------------------------------------------------------------


def _open_savedmodel(path: Path, threads: int) -> Runner:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # held by the closure: its variables live as long as it does
    return lambda cut: loaded.signatures["serving_default"](pixels=tf.constant(cut))["probabilities"].numpy()


def _interpreter(path: Path, threads: int, delegate: bool = True) -> Any:
    import tensorflow as tf

    kinds = tf.lite.experimental.OpResolverType
    kind = kinds.AUTO if delegate else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the interpreter will move to a package of its own
        interpreter = tf.lite.Interpreter(model_path=str(path), num_threads=threads, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    return interpreter


def _open_tflite(path: Path, threads: int) -> Runner:
    interpreter = _interpreter(path, threads, delegate=takes_xnnpack(path))
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(cut: np.ndarray) -> np.ndarray:
        rows = []
        for crop in cut:
            interpreter.set_tensor(taken["index"], _codes(crop[None], *taken["quantization"]))
            interpreter.invoke()
            rows.append(_values(interpreter.get_tensor(given["index"])[0], *given["quantization"]))
        return np.stack(rows)

    return run


def _codes(pixels: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Pixels as the codes of a quantised input; as they are where it is not quantised, or where both are the same."""
    if (scale, zero_point) in ((0.0, 0), (1.0, 0)):
        return pixels
    return np.clip(np.round(pixels / scale) + zero_point, 0, 255).astype(np.uint8)


def _values(codes: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    return codes if scale == 0 else (codes.astype(np.float32) - zero_point) * scale


def _open_onnx(path: Path, threads: int) -> Runner:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda cut: session.run(["probabilities"], {"pixels": cut})[0]


_WRITERS: dict[str, Callable[[ServedModel, Manifest, Path], None]] = {
    "savedmodel": _write_savedmodel,
    "tflite": _write_tflite,
    "tflite-fp16": _write_tflite_fp16,
    "tflite-int8": _write_tflite_int8,
    "onnx": _write_onnx,
}
_OPENERS: dict[str, Callable[[Path, int], Runner]] = {
    "savedmodel": _open_savedmodel,
    "tflite": _open_tflite,
    "tflite-fp16": _open_tflite,
    "tflite-int8": _open_tflite,
    "onnx": _open_onnx,
}
