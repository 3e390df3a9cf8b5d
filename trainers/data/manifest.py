"""The manifest, a value and its file: path, label, split, sha256, size, group and fold of every image."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from trainers.data.listing import name_some
from trainers.data.sources.read import Source, common_folder, is_made, names_of, source_folders
from trainers.data.stratify import SPLITS
from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write
from trainers.images import descriptor
from trainers.wording import count, first_line

COLUMNS = ("path", "label", "split", "sha256", "width", "height", "group")
FOLD = "fold"
DESCRIPTOR = "descriptor"
METADATA = b"orch"
MANIFEST = "manifest.parquet"
"""Name of the manifest in a sweep's folder."""


@dataclass(frozen=True, eq=False)
class Manifest:
    """The images of a data set. Two manifests are the same data where their fingerprints are equal.

    ``table``: path (posix, relative to ``root``), label, split, sha256 (of the file), width, height (px, after EXIF
    orientation), group (16 hex digits), fold, descriptor (``trainers.images.descriptor``; not in manifests written
    before it was); sorted by path. A row of fold 1, 2, ... has the split "train"; fold is
    0 for test, and for all where there are no folds. ``classes``: sorted; a label's index is its place there.
    ``seed``: the data's, of splits and augmentation. ``source`` and ``encoding``: as in ``DataSource``; ``folders``:
    where there are several sources, the folder of each.
    """

    root: Path
    classes: tuple[str, ...]
    seed: int
    table: pd.DataFrame
    source: Source = ""
    folders: tuple[Path, ...] = ()
    encoding: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the classes and the sorted (sha256, label, split), with folds also the fold; not over
        where the files lie."""
        columns = ("sha256", "label", "split", *((FOLD,) if self.folds else ()))
        rows = sorted(zip(*(self.table[c].tolist() for c in columns), strict=True))
        return hashlib.sha256(json.dumps([self.classes, rows]).encode()).hexdigest()[:16]

    def split(self, *names: str) -> Manifest:
        """The rows of these splits, with all the classes. Raises TrainerError for an unknown name."""
        unknown = sorted(set(names) - set(SPLITS))
        if unknown:
            raise TrainerError(f"there is no split {', '.join(map(repr, unknown))}; known are {', '.join(SPLITS)}.")
        rows = self.table[self.table["split"].isin(names)].reset_index(drop=True)
        return dataclasses.replace(self, table=rows)

    @cached_property
    def folds(self) -> int:
        """How many folds there are; 0 where the images are not divided into folds."""
        return int(self.table[FOLD].max()) if FOLD in self.table and len(self.table) else 0

    def fold(self, number: int) -> Manifest:
        """The same images, where those of fold ``number`` are "validation" and those of the other folds "train".

        Test stays as it is. Raises TrainerError for a fold that is not there.
        """
        if not 1 <= number <= self.folds:
            known = f"they are 1 to {self.folds}" if self.folds else "the data has none; set folds"
            raise TrainerError(f"there is no fold {number}; {known}.")
        split = self.table["split"].mask(self.table[FOLD] > 0, "train").mask(self.table[FOLD] == number, "validation")
        return dataclasses.replace(self, table=self.table.assign(split=split))

    def labels(self) -> np.ndarray:
        """int32 (images,): each label's place in ``classes``."""
        place = {label: i for i, label in enumerate(self.classes)}
        return np.array([place[label] for label in self.table["label"]], np.int32)

    def paths(self) -> list[Path]:
        """The absolute path of each image."""
        return [self.root / path for path in self.table["path"]]

    def write(self, path: Path) -> None:
        """Write one Parquet file; root, classes, seed and source in its metadata."""
        about = {
            "root": str(self.root),
            "classes": self.classes,
            "seed": self.seed,
            "source": self.source,
            "folders": [str(folder) for folder in self.folders],
            "encoding": self.encoding,
            "descriptor": descriptor.VERSION,
        }
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: json.dumps(about).encode()})
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def read(cls, path: Path, files: bool = True) -> Manifest:
        """What ``write`` wrote; without a column fold, as older ones are, no row is in a fold.

        Descriptors of another version are left out. Where ``files`` are wanted, what lay in the cache and is missing
        on this machine (a built-in, an archive's files) is put there again. Raises TrainerError for a missing file,
        for one that is not a manifest, and for an archive that is gone or has changed.
        """
        try:
            table = pq.read_table(path)
        except FileNotFoundError as error:
            raise TrainerError(f"there is no manifest {path}.") from error
        except (pa.ArrowException, OSError) as error:
            raise TrainerError(f"{path} cannot be read as a manifest: {first_line(error)}.") from error
        about = (table.schema.metadata or {}).get(METADATA)
        if about is None or not set(COLUMNS) <= set(table.column_names):
            raise TrainerError(f"{path} is a Parquet file but not a manifest of orch.")
        values = json.loads(about)
        source = values["source"]
        rows = table.to_pandas()
        if DESCRIPTOR in rows and values.get("descriptor") != descriptor.VERSION:
            rows = rows.drop(columns=DESCRIPTOR)
        manifest = cls(
            Path(values["root"]),
            tuple(values["classes"]),
            values["seed"],
            rows if FOLD in rows else rows.assign(fold=0),
            source if isinstance(source, str) else tuple(source),
            tuple(Path(folder) for folder in values.get("folders", ())),
            values.get("encoding", ""),
        )
        if files and manifest.source and is_made(manifest.source) and not all(p.exists() for p in manifest.paths()):
            return _made_again(manifest)
        return manifest


def _made_again(manifest: Manifest) -> Manifest:
    """Return ``manifest`` with its images' current paths; unpack archives and write built-ins again.

    The cache may be elsewhere than when the manifest was made, so each path is moved from its source's old folder to
    the new one.
    """
    old = manifest.folders or (manifest.root,)
    new = source_folders(manifest.source, _cache_folder(), manifest.encoding)
    moves = sorted(zip(map(str, old), map(str, new), strict=True), key=lambda move: -len(move[0]))
    root = common_folder(new)
    paths = [os.path.relpath(_moved(os.path.normpath(path), moves), root) for path in manifest.paths()]
    table = manifest.table.assign(path=pd.Series(paths, dtype=manifest.table["path"].dtype))
    found = dataclasses.replace(manifest, root=root, table=table, folders=new if manifest.folders else ())
    missing = [path.as_posix() for path in found.paths() if not path.exists()]
    if missing:
        raise TrainerError(
            f"{count(len(missing), 'image')} of the manifest cannot be found in {' + '.join(names_of(found.source))} "
            f"any more: {name_some(missing)}. Bring back the data as it was, or begin a new sweep."
        )
    return found


def _moved(path: str, moves: Sequence[tuple[str, str]]) -> str:
    for old, new in moves:
        if path.startswith(f"{old}/"):
            return new + path[len(old) :]
    return path


def _cache_folder() -> Path:
    """Folder for built-ins and unpacked archives: ``ORCH_CACHE``, or the user's cache."""
    given = os.environ.get("ORCH_CACHE")
    base = Path(given or os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return base.expanduser() if given else base.expanduser() / "orch"
    except RuntimeError as error:
        raise TrainerError("this user has no home folder, so set ORCH_CACHE to a folder for the cache.") from error
