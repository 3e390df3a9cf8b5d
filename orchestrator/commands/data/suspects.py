"""`orch data suspects`: photos of a sweep whose labels are probably wrong, as a table and as a sheet of photos.

Looks at training and validation photos only, so the test split stays unread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.commands.data.confident_learning import find_suspects
from orchestrator.errors import OrchError
from orchestrator.ledger.folder import Sweep, read_sweep
from orchestrator.paths import cache_folder, command_line
from orchestrator.spec.data_source import photo_folders, refuse_among_photos
from orchestrator.spec.gpu import with_gpu_memory
from orchestrator.spec.load import load_spec
from trainers.config import TrialConfig
from trainers.data.manifest import Manifest
from trainers.files.atomic import atomic_write, make_folders
from trainers.files.plain import Unreadable
from trainers.wording import count

SPLITS = ("train", "validation")
PICTURE_SIDE = 160
"""Side in pixels of a photo on the sheet."""
COLUMNS_ON_SHEET = 6


@dataclass(frozen=True)
class Suspects:
    """``table``: of ``find_suspects``, paths relative to ``source``. ``photos``: how many were looked at.

    ``agreement``: share of their labels that the classifier predicts."""

    table: pd.DataFrame
    source: Path
    photos: int
    agreement: float

    @property
    def sentence(self) -> str:
        share = len(self.table) / max(self.photos, 1)
        return (
            f"{count(len(self.table), 'label')} of {self.photos:,} photos ({share:.1%}) may be wrong. The classifier, "
            f"which did not see them, agrees with {self.agreement:.1%} of the labels: look before you change one."
        )


def suspects_of(folder: Path, address: str = "", tell: Callable[[str], None] = lambda line: None) -> Suspects:
    """Find photos of the sweep in ``folder`` that are probably labelled wrongly.

    Uses the backbone, the size and the view of the sweep's winner, or of its best trial so far, with nothing unfrozen,
    so that the features come from the store. Raises OrchError if no trial has a result.
    """
    sweep = read_sweep(folder)
    manifest = Manifest.read(sweep.paths.manifest).split(*SPLITS)
    config = _config(sweep)
    size = config.resolved_image_size
    tell(f"suspects {count(len(manifest.table), 'photo')}, features of {config.backbone} at {size} px")
    with tempfile.TemporaryDirectory(prefix="orch-suspects-") as temporary:
        output = Path(temporary) / "probabilities.npz"
        answer = _run(sweep, config, output, address, tell)
        with np.load(output) as stored:
            probabilities = stored["probabilities"]
    table = find_suspects(manifest.table["path"].tolist(), manifest.labels(), probabilities, manifest.classes)
    return Suspects(table, manifest.root, answer["photos"], answer["accuracy"])


def _config(sweep: Sweep) -> TrialConfig:
    winner = sweep.fact("winner")
    if winner:
        return TrialConfig(**winner["config"])
    best = sweep.best()
    if not best:
        resume = command_line("sweep", "--resume", "--out", sweep.paths.root)
        raise OrchError(f"{sweep.paths.root} has no trial with a result yet; resume it: `{resume}`")
    return TrialConfig(**best[0].config)


def _run(sweep: Sweep, config: TrialConfig, output: Path, address: str, tell: Callable[[str], None]) -> dict[str, Any]:
    from orchestrator.cluster.jobs import run_jobs  # Ray: seconds to import
    from orchestrator.cluster.ray_session import ray_session

    spec = with_gpu_memory(load_spec(str(sweep.paths.spec), check_machine=False))
    job = {
        "manifest": str(sweep.paths.manifest.resolve()),
        "splits": list(SPLITS),
        "config": config.to_dict(),
        "weights": spec.weights_for(config.backbone),
        "cache": str(cache_folder()),
        "threads": 1,
        "gpu_memory_share": 0.0,
        "precision": spec.resources.precision,
        "output": str(output),
    }
    with ray_session(address):
        (answer,) = run_jobs("trainers.training.out_of_fold:predict_out_of_fold", [job], tell=tell)
    return dict(answer)


def check_outputs(folder: Path, outputs: Mapping[str, Path]) -> None:
    """Raise SpecError if one of ``outputs``, option -> file, lies among the photos of the sweep in ``folder``."""
    folders = photo_folders(Manifest.read(read_sweep(folder).paths.manifest, files=False))
    for option, out in outputs.items():
        refuse_among_photos(option, out, folders)


def write_table(suspects: Suspects, path: Path) -> None:
    """Write the table as CSV."""
    make_folders(path.absolute().parent)
    with atomic_write(path) as temporary:
        suspects.table.to_csv(temporary, index=False)


def draw_sheet(suspects: Suspects, path: Path, photos: int) -> Path:
    """Draw the first ``photos`` suspects with their given and likely labels; a photo that is gone is left out."""
    from dashboards.contact_sheet import Cell, Row, Strip, contact_sheet  # matplotlib: half a second
    from trainers.images.decode import square

    cells: list[Cell] = []
    for row in suspects.table.head(photos).itertuples():
        try:
            pixels = square(suspects.source / str(row.path), PICTURE_SIDE, "squash")
        except Unreadable:
            continue
        cells.append(Cell(pixels, f"{row.label}?\n{row.likely_label} {row.likely_probability:.0%}"))
    rows = [
        Row("", "", tuple([*cells[i : i + COLUMNS_ON_SHEET], *[None] * COLUMNS_ON_SHEET][:COLUMNS_ON_SHEET]))
        for i in range(0, len(cells), COLUMNS_ON_SHEET)
    ]
    strips = [Strip("", ("",) * COLUMNS_ON_SHEET)]
    note = f"The {len(cells)} most suspicious of {len(suspects.table)}. Given label, then the likely one."
    return contact_sheet("Labels that may be wrong", note, strips, rows, path)
