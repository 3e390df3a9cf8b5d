"""Checksums of the files in a sweep's folder: recorded in its ledger when the files are written, verified when read.

The payload of any event may hold ``FILES``: path relative to the sweep's folder -> SHA-256 of the content, in hex. The
latest record of a path counts. Sweeps written before the checksums were recorded have none: their files are read
without verification, see ``FileState.UNRECORDED``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from orchestrator.errors import OrchError
from orchestrator.ledger.segments import Event
from orchestrator.paths import SweepPaths, command_line

FILES = "files"
"""Key of an event's payload that holds checksums."""


class FileState(StrEnum):
    """A file compared with its checksum in the ledger."""

    EQUAL = "equal"
    DIFFERENT = "different"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNRECORDED = "not recorded"

    @property
    def is_damage(self) -> bool:
        return self not in (FileState.EQUAL, FileState.UNRECORDED)


class DamagedFile(OrchError):
    """A file of a sweep's folder is not what was written; the message names it and the way out."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(paths: SweepPaths, files: Iterable[Path]) -> dict[str, str]:
    """Return the checksums of those of ``files`` that exist in the sweep's folder, for the payload of an event."""
    names = {path: paths.name_of(path) for path in files if path.is_file()}
    return {name: sha256_of(path) for path, name in names.items() if not name.startswith("../")}


def files_below(folder: Path) -> list[Path]:
    """Return the files in ``folder`` and its subfolders, sorted; hidden ones, such as temporary files, are left out."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts))


def recorded_files(events: Iterable[Event]) -> dict[str, str]:
    """Return path -> SHA-256, the latest record of each path; a record without a checksum is of a removed file."""
    found: dict[str, str | None] = {}
    for event in events:
        if f'"{FILES}"' in event.payload:  # parsing every payload of a large sweep takes a second
            record = json.loads(event.payload)
            files = record.get(FILES) if isinstance(record, dict) else None
            found |= files if isinstance(files, dict) else {}
    return {name: sha for name, sha in found.items() if sha is not None}


@dataclass(frozen=True)
class KeptFiles:
    """The files of a sweep's folder with their checksums: path relative to the folder -> SHA-256."""

    paths: SweepPaths
    hashes: Mapping[str, str]

    @classmethod
    def of(cls, paths: SweepPaths, events: Iterable[Event]) -> KeptFiles:
        return cls(paths, recorded_files(events))

    @property
    def since_checksums(self) -> bool:
        """Whether the sweep recorded checksums from its beginning, so that a file without one is a leftover."""
        return self.recorded(self.paths.manifest) is not None

    def recorded(self, path: Path) -> str | None:
        """Return the checksum of ``path`` in the ledger; None if there is none."""
        return self.hashes.get(self.paths.name_of(path))

    def below(self, folder: Path) -> list[Path]:
        """Return the recorded files in ``folder`` and its subfolders."""
        prefix = self.paths.name_of(folder) + "/"
        return [self.paths.named(name) for name in self.hashes if name.startswith(prefix)]

    def state(self, path: Path) -> FileState:
        """Compare the file at ``path`` with its checksum."""
        expected = self.recorded(path)
        if expected is None:
            return FileState.UNRECORDED
        try:
            return FileState.EQUAL if sha256_of(path) == expected else FileState.DIFFERENT
        except (FileNotFoundError, NotADirectoryError):
            return FileState.MISSING
        except OSError:
            return FileState.UNREADABLE

    def require(self, *files: Path) -> None:
        """Raise DamagedFile for the first of ``files`` that is not what was recorded; unrecorded ones pass."""
        for path in files:
            state = self.state(path)
            if state.is_damage:
                raise self.damaged(path, state)

    def read(self, path: Path) -> bytes:
        """Return the content of ``path``, compared with its checksum if it has one. Raises DamagedFile."""
        expected = self.recorded(path)
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.damaged(path, FileState.MISSING) from error
        except OSError as error:
            raise self.damaged(path, FileState.UNREADABLE) from error
        if expected is not None and hashlib.sha256(content).hexdigest() != expected:
            raise self.damaged(path, FileState.DIFFERENT)
        return content

    def damaged(self, path: Path, state: FileState, reason: str = "") -> DamagedFile:
        """Return the error for ``path``: what is wrong, and the way out. ``reason``: more than ``state`` says."""
        words = {
            FileState.MISSING: "is missing",
            FileState.UNREADABLE: "cannot be read; check the permissions and the disk",
            FileState.DIFFERENT: "is damaged: its bytes do not match the checksum in the sweep's ledger",
        }
        what = reason or words.get(state, "is damaged")
        return DamagedFile(f"{path} {what}. {self._way_out(path)}")

    def _way_out(self, path: Path) -> str:
        first = self.paths.name_of(path).partition("/")[0]
        if first == self.paths.spec.name:
            resume = command_line("sweep", "FILE", "--resume", "--out", self.paths.root)
            return f"Restore it from a copy, or resume with the file that the sweep was started with: `{resume}`."
        if first == self.paths.fit("x").parent.name:
            return "Restore it from a copy; without one, train again in another folder with --out DIR."
        if first == self.paths.exports.name:
            return f"`{command_line('export', self.paths.root)}` makes it again."
        return f"`{command_line('sweep', '--resume', '--out', self.paths.root)}` makes it again."
