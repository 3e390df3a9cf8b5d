"""What is predicted by whom: jobs for what is missing, images divided among workers, files written whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.cluster import jobs as cluster_jobs
from orchestrator.cluster import ray_session
from orchestrator.ledger.kept import DamagedFile
from orchestrator.ledger.ledger import Ledger
from orchestrator.paths import SweepPaths
from orchestrator.spec.load import load_spec
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.probabilities import missing_jobs, predict_missing, read_probabilities
from tests.support.tiny_fits import job, write_manifest
from trainers.serving.model import SERVED_PRECISION
from trainers.serving.predict import predict
from trainers.training.loop import open_fit

FILE = (
    "name: s\ndata: {source: 'builtin:digits'}\nweights: none\nsearch: {backbone: small_cnn}\n"
    "budget: {trials: 3, epochs: 2, scheduler: none}\nfinal: {seeds: 1, policies: [whole, flip, ten_crop]}\n"
)
POLICIES = ("whole", "flip", "ten_crop")


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepContext:
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "f.yaml").write_text(FILE)
    paths = SweepPaths(tmp_path / "sweep")
    spec = load_spec(str(tmp_path / "f.yaml"))
    return SweepContext(paths, spec, Ledger(paths.ledger), lambda event: None)


def have(sweep: SweepContext, fit: str, *policies: str) -> None:
    for policy in policies:
        path = sweep.paths.probabilities(fit, "test", policy)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, probabilities=np.eye(2), labels=np.arange(2))


def test_fits_that_lack_the_same_policies_are_one_job(sweep: SweepContext) -> None:
    have(sweep, "done", *POLICIES)
    have(sweep, "half", "whole")
    jobs = missing_jobs(sweep, ["new", "done", "half", "newer"], "test")
    assert [(list(j["models"]), j["policies"]) for j in jobs] == [
        (["new", "newer"], POLICIES),
        (["half"], ("flip", "ten_crop")),
    ]
    for j in jobs:
        assert tuple(j["outputs"]) == j["policies"]
        assert all(files.keys() == j["models"].keys() for files in j["outputs"].values())
        assert (j["share"], j["folds"]) == (True, 0)
        assert j["cache"].endswith("cache")
    assert missing_jobs(sweep, ["done"], "test") == []


def test_dozens_of_networks_are_predicted_a_few_at_a_time(sweep: SweepContext) -> None:
    fits = [f"fit{number:02d}" for number in range(20)]
    have(sweep, "fit03", *POLICIES)
    jobs = missing_jobs(sweep, fits, "test")
    assert [len(j["models"]) for j in jobs] == [8, 8, 3]
    assert [fit for j in jobs for fit in j["models"]] == [fit for fit in fits if fit != "fit03"]


@pytest.mark.parametrize("precision", ["auto", "mixed_float16", "mixed_bfloat16", "float32"])
def test_fits_are_judged_in_the_precision_in_which_they_are_served(sweep: SweepContext, precision: str) -> None:
    resources = sweep.spec.resources.model_copy(update={"precision": precision})
    trained = dataclasses.replace(sweep, spec=sweep.spec.model_copy(update={"resources": resources}))
    assert {job["precision"] for job in missing_jobs(trained, ["a"], "validation")} == {SERVED_PRECISION} == {"float32"}


def test_without_sharing_each_fit_and_policy_is_a_job_of_its_own(sweep: SweepContext) -> None:
    have(sweep, "b", "flip")
    jobs = missing_jobs(dataclasses.replace(sweep, share=False), ["a", "b"], "test")
    asked = {(fit, policy) for j in jobs for fit in j["models"] for policy in j["policies"]}
    assert len(jobs) == len(asked) == 5
    assert ("b", "flip") not in asked
    assert not any(j["share"] for j in jobs)


class FakeWorkers:
    """Runs jobs here, in the reverse order, and may stop in between, as a killed driver would."""

    def __init__(self, stop_after: int = 1000) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.stop_after = stop_after

    def run(
        self,
        function: str,
        jobs: Sequence[dict[str, Any]],
        cpus: float,
        on_done: Callable[[int, Any], None],
        gpus: float,
        tell: Any = None,
    ) -> None:
        assert (function, cpus, gpus) == ("trainers.serving.predict:predict", 1, 0)
        for index in reversed(range(len(jobs))):
            if len(self.jobs) == self.stop_after:
                raise KeyboardInterrupt
            self.jobs.append(jobs[index])
            on_done(index, predict(jobs[index]))


@pytest.fixture
def ready(sweep: SweepContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepContext:
    """A sweep with two finished fits on tiny pictures, on a machine of three workers."""
    made = write_manifest(tmp_path / "pictures")
    sweep.paths.manifest.parent.mkdir(exist_ok=True)
    made.rename(sweep.paths.manifest)
    for seed in (1, 2):
        output = str(sweep.paths.fit(f"fit-{seed}"))
        fit = open_fit(job(sweep.paths.manifest, tmp_path / "cache", seed, output, epochs=1))
        fit.run_epoch()
        fit.finish()
    monkeypatch.setattr(ray_session, "machine_resources", lambda: ray_session.Resources(3.0, 0.0))
    monkeypatch.setattr("orchestrator.sweep.probabilities.FEWEST_CROPS", 10)
    return sweep


def test_images_are_divided_and_files_are_whole(ready: SweepContext, monkeypatch: pytest.MonkeyPatch) -> None:
    fits, told = ["fit-1", "fit-2"], []
    for share in (True, False):
        sweep, workers = dataclasses.replace(ready, share=share), FakeWorkers()
        monkeypatch.setattr(cluster_jobs, "run_jobs", workers.run)
        predict_missing(sweep, [fits], "test", lambda jobs, again: told.append(jobs))
        assert {j["part"] for j in workers.jobs} >= ({(0, 4), (4, 8), (8, 12)} if share else {(0, 12)})
        assert told[-1] == (1 if share else 6)
        found = {(f, p): read_probabilities(sweep.kept(), f, "test", p) for f in fits for p in POLICIES}
        assert all(len(arrays["labels"]) == 12 for arrays in found.values())
        if share:
            shared = found
            for fit in fits:
                for policy in POLICIES:
                    sweep.paths.probabilities(fit, "test", policy).unlink()
    assert len(found) == 6
    for name, arrays in found.items():
        np.testing.assert_allclose(arrays["probabilities"], shared[name]["probabilities"], atol=1e-6)
        np.testing.assert_array_equal(arrays["sha256"], shared[name]["sha256"])
        assert arrays["seconds"] > 0
        assert shared[name]["seconds"] > shared[name]["shared_seconds"] > 0


def test_what_was_interrupted_is_not_there_and_is_made_again(
    ready: SweepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_jobs, "run_jobs", FakeWorkers(stop_after=2).run)
    with pytest.raises(KeyboardInterrupt):
        predict_missing(ready, [["fit-1"]], "test")
    assert not list(ready.paths.root.rglob("*.npz.*"))
    assert not (ready.paths.root / "probabilities").exists()
    workers = FakeWorkers()
    monkeypatch.setattr(cluster_jobs, "run_jobs", workers.run)
    predict_missing(ready, [["fit-1"]], "test")
    assert len(workers.jobs) == 3
    predict_missing(ready, [["fit-1"]], "test")
    assert len(workers.jobs) == 3, "nothing was missing any more"


def damage(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(bytes(content))


def predicted(sweep: SweepContext, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Predict what is missing; the jobs, and whether they only repeat."""
    told: list[tuple[int, bool]] = []
    monkeypatch.setattr(cluster_jobs, "run_jobs", FakeWorkers().run)
    predict_missing(sweep, [["fit-1"]], "test", lambda jobs, again: told.append((jobs, again)))
    return told


@pytest.mark.parametrize("bit", [3, 4099, 8 * 10**6 + 1])
def test_a_damaged_file_is_made_again_with_a_sentence(
    ready: SweepContext, monkeypatch: pytest.MonkeyPatch, bit: int
) -> None:
    assert predicted(ready, monkeypatch) == [(1, False)]
    path = ready.paths.probabilities("fit-1", "test", "flip")
    before = read_probabilities(ready.kept(), "fit-1", "test", "flip")
    damage(path, bit)
    with pytest.raises(DamagedFile, match=r"test-flip.npz is damaged: its .*`orch sweep --resume --out .* again"):
        read_probabilities(ready.kept(), "fit-1", "test", "flip")
    assert predicted(ready, monkeypatch) == [(1, True)]
    after = read_probabilities(ready.kept(), "fit-1", "test", "flip")
    np.testing.assert_allclose(after["probabilities"], before["probabilities"], atol=1e-6)
    assert all(after[name].tolist() == before[name].tolist() for name in ("labels", "sha256"))
    reasons = [event.reason for event in ready.ledger.events() if event.reason]
    assert reasons == [f"1 file of probabilities, {path.resolve()} first, cannot be used; made again"]
    assert predicted(ready, monkeypatch) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x00" * 4096])
def test_without_checksums_a_torn_file_is_made_again(
    ready: SweepContext, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    predicted(ready, monkeypatch)
    monkeypatch.setattr("orchestrator.ledger.kept.recorded_files", lambda events: {})
    path = ready.paths.probabilities("fit-1", "test", "whole")
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"test-whole.npz is damaged: it does not hold whole arrays"):
        read_probabilities(ready.kept(), "fit-1", "test", "whole")
    assert [jobs for jobs, _ in predicted(ready, monkeypatch)] == [1]
    assert len(read_probabilities(ready.kept(), "fit-1", "test", "whole")["labels"]) == 12


def test_a_file_that_a_killed_process_left_unrecorded_is_made_again(
    ready: SweepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.keep([ready.paths.manifest])  # as a sweep of today records at its beginning
    path = ready.paths.probabilities("fit-1", "test", "whole")
    path.parent.mkdir(parents=True)
    np.savez(path, probabilities=np.eye(2), labels=np.arange(2))
    assert predicted(ready, monkeypatch) == [(1, False)]
    assert len(read_probabilities(ready.kept(), "fit-1", "test", "whole")["labels"]) == 12


def test_a_damaged_network_is_not_predicted_with(ready: SweepContext, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = ready.paths.fit("fit-1") / "weights.npz"
    ready.keep([weights])
    damage(weights, 9001)
    with pytest.raises(DamagedFile, match=r"fit-1/weights.npz is damaged: .* Restore it from a copy; without one"):
        predicted(ready, monkeypatch)
