"""Open a sweep's folder: a new one, or one to resume, perhaps with a larger budget."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import OrchError, SweepExists
from orchestrator.ledger.kept import FILES, KeptFiles, sha256_of
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind, read_events
from orchestrator.machine.places import make_folder, require_writable
from orchestrator.paths import RUNS, SweepPaths, command_line
from orchestrator.spec.data_source import refuse_among_photos
from orchestrator.spec.dump import dump_spec, texts_of
from orchestrator.spec.gpu import replace_memory, with_gpu_memory
from orchestrator.spec.load import load_spec, open_spec
from orchestrator.spec.sections.data import AUTO
from orchestrator.spec.sweep import SweepSpec
from trainers.files.atomic import atomic_write_text
from trainers.files.lookup import obstacle

EXTENDABLE = ("budget.trials", "budget.hours", "budget.target_accuracy", "budget.concurrent", "budget.retries")
"""Fields that may change when a sweep is resumed. Any other, above all epochs, makes another sweep."""
ELSEWHERE = ("tracking", "final", "resources.cpus", "resources.gpus")
"""Fields on where and how trials run, which may change too, except ``resources.precision`` and
``resources.store_dtype``, which change figures."""
SPEC_BEFORE = "spec_before"
"""Key of an event's payload: the checksum of ``spec.yaml`` before it is replaced."""
ELSEWHERE_ADVICE = "Type the command in another folder, or give the sweep another one with --out DIR."


@dataclass(frozen=True)
class OpenSweep:
    """A folder and the spec in force.

    ``resumed``: whether its ledger may hold events. ``notes``: of ``OpenedSpec``. ``changed``: whether ``spec.yaml``
    does not hold the spec yet; ``settle_spec`` writes it once this process holds the sweep's lock.
    """

    paths: SweepPaths
    spec: SweepSpec
    resumed: bool
    notes: tuple[str, ...] = ()
    changed: bool = False


def open_new(spec: SweepSpec, out: Path | None, fresh: bool, notes: tuple[str, ...] = ()) -> OpenSweep:
    """Make a sweep's folder. Raises SweepExists, which names the two ways out, if it holds anything,
    and SpecError if it lies among the photos.

    A space that depends on the GPU's memory is resolved here, so that the sweep stays the same on another machine.
    """
    root = out or Path(RUNS) / spec.name
    if fresh:
        root = next_free(root)
    paths = SweepPaths(root)
    if os.path.exists(paths.root) and (not paths.root.is_dir() or any(paths.root.iterdir())):
        if not paths.spec.is_file():
            raise SweepExists(f"{root} exists already and is no sweep's folder; name another one with `--out DIR`.")
        resume = command_line("sweep", "--resume", "--out", root)
        raise SweepExists(
            f"{root} exists already. Resume that sweep: `{resume}`; or start another with `--out DIR` or `--fresh`."
        )
    refuse_among_photos("--out", root, spec.data.sources)
    spec = with_gpu_memory(spec)
    make_folder(paths.root, ELSEWHERE_ADVICE)
    write_spec(paths, spec)
    return OpenSweep(paths, spec, resumed=False, notes=notes)


def next_free(root: Path) -> Path:
    """Return the first of ``root``, ``root-2``, ``root-3`` ... that does not exist."""
    number, candidate = 1, root
    while os.path.exists(candidate):
        number += 1
        candidate = root.with_name(f"{root.name}-{number}")
    return candidate


def open_existing(root: Path, source: str | None, overrides: Sequence[str], trials: str | None) -> OpenSweep:
    """Open the sweep in ``root`` to resume it.

    ``source``: a file instead of its own. ``trials``: "40" in all or "+20" more.
    Raises OrchError if ``root`` is no sweep, if its own file is damaged and ``source`` is not the same, or if more than
    ``EXTENDABLE`` and ``ELSEWHERE`` would change.
    """
    paths = SweepPaths(root)
    if why := obstacle(paths.spec):
        raise OrchError(f"{root} cannot be opened: {why}. Resume as the user that began the sweep.")
    _require_spec(paths, source, [*overrides, *([f"budget.trials={trials}"] if trials and trials[0] != "+" else [])])
    if not paths.spec.is_file():
        raise OrchError(f"{root} is not a sweep's folder: it has no {paths.spec.name}. Start one: `orch sweep FILE`.")
    require_writable(
        root, "Resume as the user that began the sweep, or copy its folder and give the copy with --out DIR."
    )
    before = load_spec(str(paths.spec), check_machine=False)
    overrides = [*overrides]
    if trials is not None:
        wanted = before.budget.trials + int(trials[1:]) if trials.startswith("+") else int(trials)
        overrides.append(f"budget.trials={wanted}")
    opened = open_spec(source or str(paths.spec), overrides, begun=before)
    spec = opened.spec
    if spec.data.splits == "auto":  # a file that leaves the splits out goes on with those of the sweep's manifest
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"splits": before.data.splits})})
    if spec.data.keep_splits == AUTO:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"keep_splits": before.data.keep_splits})})
    if spec.resources.gpu_memory_gb == "auto":
        spec = with_gpu_memory(replace_memory(spec, before.resources.gpu_memory_gb))
    changed = differences(with_gpu_memory(before), spec)
    if changed:
        raise OrchError(
            f"{', '.join(changed)} differ{'s' if len(changed) == 1 else ''} from the sweep in {root}, and would make "
            f"its trials incomparable. Only {', '.join(EXTENDABLE)} and {', '.join(ELSEWHERE)} may change; "
            "for anything else start another sweep with --out DIR."
        )
    return OpenSweep(paths, spec, resumed=True, notes=opened.notes, changed=spec != before)


def settle_spec(opened: OpenSweep, ledger: Ledger) -> None:
    """Write the spec in force, if it has changed; ``ledger`` is open, so no other process runs the sweep.

    The checksums of both texts are recorded first: whenever this process is killed, the file is one of them.
    """
    if not opened.changed:
        return
    paths, text = opened.paths, dump_spec(opened.spec)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    payload = {FILES: {paths.name_of(paths.spec): checksum}, SPEC_BEFORE: sha256_of(paths.spec)}
    ledger.append(EventKind.NOTE, payload=payload)
    ledger.flush()
    atomic_write_text(paths.spec, text)


def _require_spec(paths: SweepPaths, source: str | None, overrides: Sequence[str]) -> None:
    """Raise DamagedFile if the sweep's ``spec.yaml`` is not what it ran with; write it again if ``source`` gives it."""
    events = read_events(paths.ledger)
    kept = KeptFiles.of(paths, events)
    state = kept.state(paths.spec)
    if not state.is_damage:
        return
    before = [event.data[SPEC_BEFORE] for event in events if SPEC_BEFORE in event.data]
    if before and paths.spec.is_file() and sha256_of(paths.spec) == before[-1]:
        return  # the process that was to write the new one was killed
    if source is not None:
        new = with_gpu_memory(open_spec(source, overrides).spec)
        for text in texts_of(new, load_spec(source, overrides, check_machine=False).search):
            if hashlib.sha256(text.encode()).hexdigest() == kept.recorded(paths.spec):
                atomic_write_text(paths.spec, text)
                return
    raise kept.damaged(paths.spec, state)


def differences(before: SweepSpec, after: SweepSpec) -> list[str]:
    """List the fields of ``after`` that differ and may not, as "budget.epochs"."""
    old, new = before.model_dump(), after.model_dump()
    changed = []
    for part in old:
        if part in ELSEWHERE or part == "name" or old[part] == new[part]:
            continue
        mappings = isinstance(old[part], dict) and isinstance(new[part], dict)
        fields = dict.fromkeys([*old[part], *new[part]]) if mappings else {}
        names = [f"{part}.{f}" for f in fields if old[part].get(f) != new[part].get(f)] or [part]
        changed += [name for name in names if name not in (*EXTENDABLE, *ELSEWHERE)]
    return changed


def write_spec(paths: SweepPaths, spec: SweepSpec) -> None:
    """Write the spec in force."""
    atomic_write_text(paths.spec, dump_spec(spec))
