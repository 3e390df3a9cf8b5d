"""Convert the ``data`` section to the ``DataSource`` that ``build_manifest`` takes; keep results out of its folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from orchestrator.errors import SpecError
from orchestrator.paths import cache_folder
from orchestrator.spec.sweep import SweepSpec
from trainers.data.data_source import DataSource
from trainers.data.manifest import Manifest
from trainers.data.sources.builtins import BUILTIN
from trainers.data.sources.read import names_of
from trainers.files.suffixes import is_archive, is_table


def data_source(spec: SweepSpec) -> DataSource:
    """Return the file's ``data`` section as a ``DataSource``; ``tracking.kept_splits`` finds what "auto" keeps."""
    data = spec.data
    splits: tuple[float, float, float] | Literal["auto"] | None
    if isinstance(data.splits, str):
        splits = "auto" if data.splits == "auto" else None
    else:
        splits = (data.splits.train, data.splits.validation, data.splits.test)
    return DataSource(
        source=data.source,
        splits=splits,
        seed=data.seed,
        duplicates=data.duplicates,
        cache=cache_folder(),
        folds=data.folds,
        encoding="" if data.encoding == "auto" else data.encoding,
        keep_splits=Path(data.keep_splits).expanduser() if data.names_kept_splits else None,
    )


def refuse_among_photos(option: str, out: Path, sources: Iterable[str | Path]) -> None:
    """Raise SpecError if ``out``, which ``option`` names, lies in one of ``sources`` that is a folder.

    The next reading of that folder would find it: pictures as photos, and a table as the one that labels them.
    """
    target = out.expanduser().resolve()
    for source in sources:
        folder = Path(source).expanduser()
        if folder.is_dir() and target.is_relative_to(folder.resolve()):
            raise SpecError(
                f"{option}: {out} lies in {source}, the folder of the photos, whose next reading would find it among "
                f"them; name a place outside, such as {option} {folder.resolve().parent / 'results' / target.name}."
            )


def photo_folders(manifest: Manifest) -> list[Path]:
    """Return the folders of which everything is read: not those of tables, archives and built-ins."""
    sources = names_of(manifest.source)
    places = zip(sources, manifest.folders or (manifest.root,) * len(sources), strict=True)
    kept = [(name, at) for name, at in places if not (name.startswith(BUILTIN) or is_archive(name) or is_table(name))]
    return [folder for name, at in kept for folder in (at, Path(name or at))]
