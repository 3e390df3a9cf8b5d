"""The loop: that stored features change nothing, that a fit depends on its job alone, and each of its parts."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tests.support.places import ROOT
from tests.support.tiny_fits import CLASSES, config, figures, job
from trainers.config import canonical
from trainers.contract import FitJob
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.data.manifest import Manifest
from trainers.errors import Diverged, TrainerError
from trainers.files.arrays import write_list
from trainers.heads import default_scale
from trainers.images.augment import augment
from trainers.images.decode import square
from trainers.networks.backbone import build_backbone
from trainers.training import steps
from trainers.training.examples import training_set
from trainers.training.loop import learning_rate, margin_share, open_fit, read_weights


def run(fit_job: FitJob, epochs: int | None = None) -> list[dict[str, float]]:
    fit = open_fit(fit_job)
    return [figures(fit.run_epoch()) for _ in range(epochs or fit_job.config.epochs)]


def run_by_hand(fit_job: FitJob) -> list[float]:
    """The losses of ``fit_job``, the whole network run on every batch: plain Keras, no store, no shared code."""
    trial, manifest = fit_job.config, Manifest.read(Path(fit_job.manifest)).split("train")
    examples = training_set(manifest, trial)
    images = np.stack(
        [
            augment(square(manifest.root / i.path, trial.image_size, trial.view), i.sha256, i.copy, trial.recipe, 0)
            for i in examples.images
        ]
    )
    labels = examples.labels
    body = build_backbone(trial.backbone, "none", trial.image_size, seed=fit_job.seed)
    for layer in body.layers[: len(body.layers) - trial.unfrozen_layers]:
        layer.trainable = False
    limit = math.sqrt(6 / (body.output.shape[-1] + len(CLASSES)))
    draw = np.random.default_rng((fit_job.seed, 1)).uniform(-limit, limit, (body.output.shape[-1], len(CLASSES)))
    kernel = keras.Variable(draw.astype(np.float32))
    bias = keras.Variable(np.zeros(len(CLASSES), np.float32))
    variables = [*body.trainable_variables, kernel] + ([bias] if trial.head == "softmax" else [])
    optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True, global_clipnorm=trial.clip_norm)
    optimizer.build(variables)

    def loss_of(x: np.ndarray, y: np.ndarray) -> tf.Tensor:
        pooled = tf.reduce_mean(body(x / 127.5 - 1, training=True), (1, 2))
        if trial.head == "softmax":
            logits = pooled @ kernel.value + bias.value
        else:
            unit_x = pooled / tf.norm(pooled, axis=1, keepdims=True)
            unit_w = kernel.value / tf.norm(kernel.value, axis=0, keepdims=True)
            logits = default_scale(len(CLASSES)) * (unit_x @ unit_w - 0.2 * tf.one_hot(y, len(CLASSES)))
        smooth = (1 - trial.smoothing) * tf.one_hot(y, len(CLASSES)) + trial.smoothing / len(CLASSES)
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(smooth, logits))

    batches, losses = math.ceil(len(labels) / trial.batch_size), []
    for epoch in range(trial.epochs):
        order, total = np.random.default_rng((fit_job.seed, 2, epoch)).permutation(len(labels)), 0.0
        for number, chosen in enumerate(np.array_split(order, batches)):
            optimizer.learning_rate = learning_rate(trial, epoch * batches + number, batches * trial.epochs)
            with tf.GradientTape() as tape:
                loss = loss_of(images[chosen].astype(np.float32), labels[chosen])
            optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
            total += float(loss) * len(chosen)
        losses.append(total / len(order))
    return losses


@pytest.mark.parity
@pytest.mark.parametrize("head", ["softmax", "cosface"])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_stored_features_change_nothing(manifest, cache, head, multiplier):
    fit_job = job(manifest, cache, head=head, multiplier=multiplier, optimizer="sgd", smoothing=0.1)
    by_hand, stored = run_by_hand(fit_job), [epoch["loss"] for epoch in run(fit_job)]
    assert by_hand[-1] < 0.8 * by_hand[0]
    np.testing.assert_allclose(stored, by_hand, rtol=1e-5)


@pytest.mark.parity
def test_stored_features_change_nothing_inside_a_residual_block(manifest, cache):
    """The last convolution of a block is open: stored is the block before, and frozen layers lie above that."""
    fit_job = job(manifest, cache, backbone="tests.support.tiny_fits:RESIDUAL", unfrozen_layers=4, optimizer="sgd")
    fit = open_fit(fit_job)
    open_layers = [layer.trainable for layer in fit.compiled.network.tail.layers if layer.weights]
    assert open_layers == [False, False, True, True]
    by_hand, stored = run_by_hand(fit_job), [epoch["loss"] for epoch in run(fit_job)]
    assert by_hand[-1] < 0.8 * by_hand[0]
    np.testing.assert_allclose(stored, by_hand, rtol=1e-5)


TRIALS = {
    "a": {"dropout": 0.3, "head": "arcface", "multiplier": 2, "hidden": 8, "smoothing": 0.1, "weight_decay": 0.01},
    "b": {"dropout": 0.6, "head": "arcface", "hidden": 8, "batch_size": 13, "margin": 0.5, "schedule": "constant"},
    "c": {"dropout": 0.0},
}


def test_a_fit_depends_on_its_job_alone(manifest, cache, tmp_path):
    """Alone, after others of the same architecture, in another process and order, and cut in two: equal to the bit."""
    alone = {name: run(job(manifest, cache, seed=3, **values)) for name, values in TRIALS.items()}
    steps._networks.clear()
    for name in ("b", "a", "c", "b"):
        assert run(job(manifest, cache, seed=3, **TRIALS[name])) == alone[name]

    halves = open_fit(job(manifest, cache, seed=3, **TRIALS["a"]))
    first = figures(halves.run_epoch())
    halves.save(tmp_path)
    run(job(manifest, cache, seed=4, **TRIALS["b"]), 2)
    resumed = open_fit(job(manifest, cache, seed=3, **TRIALS["a"]))
    resumed.restore(tmp_path)
    assert [first, figures(resumed.run_epoch()), figures(resumed.run_epoch())] == alone["a"]

    code = (
        "import sys, json; from pathlib import Path; "
        "from tests.trainers.training.test_loop import TRIALS, run, job, tf; "
        "where = [Path(p) for p in sys.argv[1:]]; "
        "said = {n: run(job(*where, seed=3, **TRIALS[n])) for n in ('c', 'b', 'a')}; "
        "print('said:' + json.dumps([said, tf.config.threading.get_intra_op_parallelism_threads()]))"
    )
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(ROOT)]}; {code}"]
    answer = subprocess.run([*command, str(manifest), str(cache)], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout.partition("said:")[2]) == [alone, 1]  # and held to one thread


def test_a_fresh_cache_gives_the_same_figures(manifest, cache, tmp_path):
    one, other = (run(job(manifest, folder, optimizer="sgd"), 2) for folder in (cache, tmp_path))
    for here, there in zip(one, other, strict=True):
        assert here == pytest.approx(there, rel=1e-5)


def test_seeds_differ(manifest, cache):
    losses = {run(job(manifest, cache, seed=seed), 1)[0]["loss"] for seed in (0, 1, 2)}
    assert len(losses) == 3


def test_restoring_from_nowhere_is_a_sentence(manifest, cache, tmp_path):
    with pytest.raises(TrainerError, match="there is no saved training in"):
        open_fit(job(manifest, cache)).restore(tmp_path)


@pytest.mark.parametrize("damage", ["cut short", "one byte", "no archive", "no epoch", "a list"])
def test_damaged_files_of_a_fit_are_sentences_that_name_the_folder(manifest, cache, tmp_path, damage):
    fit = open_fit(job(manifest, cache, output=str(tmp_path)))
    fit.finish()
    fit.save(tmp_path)
    before = fit.state()
    state, weights = tmp_path / "state.npz", tmp_path / "weights.npz"
    for file in (state, weights):
        data = bytearray(file.read_bytes())
        data[100] ^= 255
        spoilt = {"cut short": data[: len(data) // 2], "one byte": data, "no archive": b"\x93NUMPY\x01\x00"}
        file.write_bytes(bytes(spoilt.get(damage, file.read_bytes())))
    if damage == "no epoch":
        np.savez(state, *before)
        (tmp_path / "job.json").write_text("{}")
    if damage == "a list":
        np.savez(state, epoch=np.zeros(3))
        (tmp_path / "job.json").write_text("[1]")
    with pytest.raises(TrainerError, match=rf"the saved training in {tmp_path} is damaged \(.+\); train it again\."):
        fit.restore(tmp_path)
    assert fit.epoch == 0
    assert all(np.array_equal(a, b) for a, b in zip(fit.state(), before, strict=True))
    with pytest.raises(TrainerError, match=rf"the trained model in {tmp_path} is damaged \(.+\); train it again\."):
        read_weights(tmp_path)


@pytest.mark.parametrize(("one", "other"), [("float32", "mixed_bfloat16"), ("mixed_float16", "float32")])
def test_a_fit_does_not_resume_in_another_precision(manifest, cache, tmp_path, one, other):
    """``auto`` on a machine with a GPU and then on one without; an optimiser that scales losses has more values."""
    fits = [open_fit(dataclasses.replace(job(manifest, cache), precision=precision)) for precision in (one, other)]
    fits[0].save(tmp_path)
    with pytest.raises(TrainerError, match=rf"in {tmp_path} is in {one} and cannot be resumed in {other}; train it"):
        fits[1].restore(tmp_path)
    assert fits[1].epoch == 0


@pytest.mark.parametrize("change", ["fewer", "more", "another shape"])
def test_values_of_another_optimiser_are_a_sentence(manifest, cache, tmp_path, change):
    fit = open_fit(job(manifest, cache))
    state = fit.state()
    state = {"fewer": state[:-1], "more": [*state, state[-1]], "another shape": [*state[:-1], np.zeros((7, 3))]}[change]
    write_list(tmp_path / "state.npz", state, {"epoch": 2, "precision": "float32"})
    with pytest.raises(TrainerError, match=rf"the saved training in {tmp_path} is damaged \(.+\); train it again\."):
        fit.restore(tmp_path)
    assert fit.epoch == 0


def test_a_state_that_was_saved_before_it_said_its_precision_is_restored(manifest, cache, tmp_path):
    fit = open_fit(job(manifest, cache))
    write_list(tmp_path / "state.npz", fit.state(), {"epoch": 2})
    fit.restore(tmp_path)
    assert fit.epoch == 2


def test_an_epoch_reports_what_happened(manifest, cache):
    fit_job = job(manifest, cache, epochs=6)
    fit = open_fit(fit_job)
    epochs = [fit.run_epoch() for _ in range(6)]
    assert [e.epoch for e in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].val_accuracy == pytest.approx(1, abs=0.21)
    assert all(0 <= e.accuracy <= 1 and 0 <= e.val_macro_f1 <= 1 for e in epochs)
    assert all(e.seconds > 0 and e.train_images_per_s > 0 for e in epochs)
    assert all(math.isnan(e.images_per_s) and not e.fold_val_accuracy for e in epochs)  # neither was asked for
    assert epochs[0].learning_rate > epochs[-1].learning_rate > 0


def test_a_refit_is_not_validated_and_is_written(manifest, cache, tmp_path):
    fit_job = dataclasses.replace(
        job(manifest, cache, output=str(tmp_path / "fit"), epochs=1), train_splits=("train", "validation")
    )
    fit = open_fit(fit_job)
    metrics = fit.run_epoch()
    assert math.isnan(metrics.val_loss)
    assert math.isnan(metrics.val_accuracy)
    assert not metrics.diverged
    assert len(fit.train) == 45
    fit.finish()
    again, arrays = read_weights(tmp_path / "fit")
    assert again == fit_job
    assert all(np.array_equal(a, b) for a, b in zip(arrays, fit.compiled.network.state(), strict=True))
    assert sorted(p.name for p in (tmp_path / "fit").iterdir()) == ["job.json", "weights.npz"]


def test_without_an_output_nothing_is_written(manifest, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit = open_fit(job(manifest, cache))
    fit.finish()
    assert not list(tmp_path.iterdir())
    with pytest.raises(TrainerError, match="there is no trained model in"):
        read_weights(tmp_path)


@pytest.mark.parametrize("train_splits", [("train",), ("train", "validation")])
def test_a_diverged_fit_says_so(manifest, cache, tmp_path, train_splits):
    fit_job = job(manifest, cache, output=str(tmp_path), learning_rate=1e38, clip_norm=0, warmup=0, optimizer="sgd")
    fit = open_fit(dataclasses.replace(fit_job, train_splits=train_splits))
    sentence = r"diverged: the loss became (nan|inf) in epoch 1 at learning rate 9.\d+e\+37; a lower learning_rate or"
    with pytest.raises(Diverged, match=sentence):
        fit.run_epoch()
    with pytest.raises(Diverged, match="made weights non-finite"):
        fit.finish()
    assert not list(tmp_path.iterdir())
    assert math.isfinite(run(job(manifest, cache, optimizer="sgd", clip_norm=0), 1)[0]["loss"])


def test_a_network_that_tells_no_image_from_another_has_collapsed_after_its_last_epoch(manifest, cache):
    fit = open_fit(job(manifest, cache, unfrozen_layers=0, learning_rate=0.0))
    fit.compiled.network.kernel.assign(np.zeros(fit.compiled.network.kernel.shape, np.float32))
    assert [fit.run_epoch().epoch for _ in range(2)] == [1, 2]
    with pytest.raises(
        Diverged, match=r"^collapsed: after epoch 3 every validation image gets the same probabilities; "
    ):
        fit.run_epoch()


def test_weights_that_burst_in_the_last_step_are_seen_by_validation(manifest, cache):
    fit = open_fit(job(manifest, cache, batch_size=64, learning_rate=1e38, clip_norm=0, warmup=0, optimizer="sgd"))
    with pytest.raises(Diverged, match="diverged: the loss became nan in epoch 1"):
        fit.run_epoch()  # one step: its loss was still a number


def test_a_trial_after_a_mixed_one_is_as_before(manifest, cache):
    plain = run(job(manifest, cache), 2)
    for precision in ("mixed_bfloat16", "mixed_float16"):
        mixed = run(dataclasses.replace(job(manifest, cache), precision=precision), 2)
        assert all(math.isfinite(v) for epoch in mixed for v in epoch.values())
        assert mixed != plain
        assert [e["loss"] for e in mixed] == pytest.approx([e["loss"] for e in plain], rel=0.2)
    assert run(job(manifest, cache), 2) == plain


@pytest.mark.parametrize(
    ("values", "rates"),
    [
        ({"schedule": "constant", "warmup": 0.0}, {0: 1.0, 50: 1.0, 99: 1.0, 200: 1.0}),
        ({"schedule": "cosine", "warmup": 0.0}, {0: 1.0, 50: 0.5, 99: 0.000247, 100: 0.0, 150: 0.0}),
        ({"schedule": "cosine", "warmup": 0.1}, {0: 1 / 11, 9: 10 / 11, 10: 1.0, 55: 0.5, 100: 0.0}),
        ({"schedule": "constant", "warmup": 1.0}, {0: 1 / 101, 99: 100 / 101}),
    ],
)
def test_the_learning_rate_at_its_ends(values, rates):
    trial = config(learning_rate=2.0, **values)
    for step, expected in rates.items():
        assert learning_rate(trial, step, 100) == pytest.approx(2.0 * expected, abs=1e-5)


def test_a_margin_grows_to_its_whole_in_its_share_of_the_steps():
    shares = [margin_share(config(head="arcface", margin_warmup=0.5), step, 8) for step in range(8)]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])
    assert {margin_share(config(head="arcface"), step, 8) for step in range(8)} == {1.0}
    assert config(margin_warmup=0.5) == config()  # softmax has no margin


def test_an_average_of_the_weights_is_validated_and_kept(manifest, cache, tmp_path):
    """w' = d w' + (1 - d) w with d = (1 + t) / (10 + t), from the starting weights."""
    out = tmp_path / "fit"
    fit = open_fit(job(manifest, cache, unfrozen_layers=0, ema=0.9, epochs=1, batch_size=64, output=str(out)))
    assert fit.batches == 1
    before = [np.array(v) for v in fit.compiled.network.weights()]
    fit.run_epoch()
    after = [np.array(v) for v in fit.compiled.network.weights()]
    fit.finish()
    _, kept = read_weights(out)
    for first, last, average in zip(before, after, kept, strict=True):
        np.testing.assert_allclose(average, 2 / 11 * first + 9 / 11 * last, rtol=1e-5, atol=1e-7)
    assert all((np.array(v) == w).all() for v, w in zip(fit.compiled.network.weights(), after, strict=True))


@pytest.mark.parametrize("values", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}])
def test_mixed_pictures_are_learnt_from(manifest, cache, values):
    fit = open_fit(job(manifest, cache, epochs=12, batch_size=4, unfrozen_layers="all", **values))
    assert fit.train.rows.take(np.arange(2)).dtype == np.uint8
    epochs = [fit.run_epoch() for _ in range(12)]
    assert epochs[-1].val_accuracy > 0.79
    assert epochs[-1].loss < epochs[0].loss


def test_balanced_sampling_trains_on_every_class_equally_often(manifest, cache, monkeypatch):
    fit = open_fit(job(manifest, cache, balance="sampling", batch_size=30))
    drawn = []
    whole = fit.compiled.train
    monkeypatch.setattr(
        fit.compiled, "train", lambda x, labels, *rest: (drawn.append(labels), whole(x, labels, *rest))[1]
    )
    fit.run_epoch()
    assert np.bincount(np.concatenate(drawn)).tolist() == [10, 10, 10]
    assert fit.class_counts.tolist() == [6, 12, 12]


def test_real_photos_are_learnt_far_above_chance(orch_data, orch_weights, tmp_path):
    """Ten photos a class to learn from, five to be judged by; a frozen MobileNet 0.25 at 96 px."""
    folder = orch_data / "trashnet"
    table = pd.read_csv(folder / "split.csv")
    wanted = {"train": 10, "validation": 5, "test": 1}
    few = pd.concat(rows.head(wanted[split]) for (split, _), rows in table.groupby(["split", "label"]))
    for path in few["path"]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(folder / path, tmp_path / path)
    few.to_csv(tmp_path / "few.csv", index=False)
    manifest, _ = build_manifest(DataSource(str(tmp_path / "few.csv"), None, tmp_path / "cache"))
    manifest.write(tmp_path / "manifest.parquet")
    trial = canonical(
        {"backbone": "mobilenet_0.25", "image_size": 96, "learning_rate": 0.01, "epochs": 8, "batch_size": 16}
    )
    fit_job = FitJob("real", trial, 0, str(tmp_path / "manifest.parquet"), str(orch_weights), cache=str(tmp_path))
    epochs = run(fit_job)
    assert manifest.table["split"].value_counts().to_dict() == {"train": 60, "validation": 30, "test": 6}
    assert epochs[-1]["accuracy"] > 0.9
    assert epochs[-1]["val_accuracy"] > 0.45
