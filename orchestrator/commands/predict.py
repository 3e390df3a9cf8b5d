"""`orch predict`: the label and probability of each photo from the champion, in memory of a fixed size."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.commands.named_photos import STANDARD_INPUT, NamedPhotos, shown
from orchestrator.commands.prediction_rows import Prediction, PredictionFile, json_parts, print_predictions
from orchestrator.errors import OrchError
from orchestrator.paths import SweepPaths
from trainers.calibration import PRECISION
from trainers.wording import count

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.tracking.registry import ChampionInfo

LARGEST_TOGETHER = 64 * 10**6
"""Maximum bytes of the photos of one batch, unless a single one is larger; two batches are in memory."""


@dataclass(frozen=True)
class Champion:
    """A registered version. ``uri``: MLflow's store. ``address``: MLflow's address of it, models:/NAME/VERSION."""

    uri: str | None
    version: ChampionInfo

    @property
    def address(self) -> str:
        return f"models:/{self.version.name}/{self.version.version}"

    def load(self) -> Any:
        """Return the model, an MLflow pyfunc. Raises TrackingError if MLflow does not answer."""
        from orchestrator.tracking.registry import load_version

        return load_version(self.uri, self.version)


def find_champion(model: str | None, command: str = "orch predict PATH --model NAME") -> Champion:
    """Look up the champion of ``model``, by default of the newest sweep's model.

    ``command``: with which a person names a model. Raises OrchError if there is no sweep or no champion, TrackingError
    if MLflow does not answer.
    """
    uri, name = model_of(model, command)
    from orchestrator.tracking.registry import require_champion

    return Champion(uri, require_champion(uri, name))


@dataclass(frozen=True)
class Asked:
    """The champion to ask. ``precision``: the wanted one, below whose threshold a photo is none of the classes; 0 for
    an answer to each. ``tell``: gets what is being done."""

    champion: Champion
    tell: Callable[[str], None]
    precision: float = 0.0

    def load(self) -> Any:
        """Load the model, which takes many seconds, and say so. Raises OrchError if it cannot reach the precision."""
        self.tell(f"loading  {self.champion.address}")
        model = self.champion.load()
        if self.precision:
            _require_precision(model, self.champion.address, self.precision)
        return model


def predict_to_csv(photos: NamedPhotos, asked: Asked, file: Path, resume: bool) -> int:
    """Append a row per photo to ``file``; return the number of rows with an error, older ones included.

    With ``resume`` the rows of an interrupted run are kept, and the file ends as if it had not been interrupted.
    Raises as ``PredictionFile`` and ``Asked.load`` do.
    """
    tell = asked.tell
    with PredictionFile(file, asked.champion.address, resume, asked.precision) as rows:
        done = rows.done.total()
        try:
            if done < len(photos.paths):
                loaded = asked.load()
                with progress_bar("predict", len(photos.paths), done) as advance:
                    for answers in predict_photos(photos, loaded, rows.done, asked.precision):
                        rows.write(answers)
                        done += len(answers)
                        advance(len(answers))
        except KeyboardInterrupt:
            tell(f"{count(done, 'row')} in {file}; type the same with --resume to continue.")
            raise
        tell(f"{count(done, 'row')} in {file}, {rows.errors:,} of them with an error.")
        return rows.errors


def predict_to_json(photos: NamedPhotos, asked: Asked, write: Callable[[bytes], None]) -> int:
    """Write one JSON array to stdout; return the number of photos without an answer."""
    failed = 0

    def answered() -> Iterator[list[Prediction]]:
        nonlocal failed
        with progress_bar("predict", len(photos.paths)) as advance:
            for answers in predict_photos(photos, asked.load(), precision=asked.precision):
                failed += sum(bool(one.error) for one in answers)
                yield answers
                advance(len(answers))

    for part in json_parts(answered()):
        write(part)
    return failed


def predict_to_terminal(photos: NamedPhotos, asked: Asked, console: Console) -> int:
    """Print a line per photo; return the number of photos without an answer."""
    failed = 0
    widest = max(len(path) for path in photos.paths)
    for answers in predict_photos(photos, asked.load(), precision=asked.precision):
        failed += sum(bool(one.error) for one in answers)
        print_predictions(answers, console, widest)
    return failed


def predict_photos(
    photos: NamedPhotos, model: Any, done: Mapping[str, int] | None = None, precision: float = 0.0
) -> Iterator[list[Prediction]]:
    """Yield the answers of ``model`` (an MLflow pyfunc) in order, a batch at a time, while the next batch is read.

    An unreadable photo gets an error of its own. ``done``: paths as ``shown`` writes them -> how many of their answers
    to leave out. Batches do not depend on ``done``, so that the others come out as in an undisturbed run, to the bit.
    ``precision``: the wanted one, 0 for an answer to each photo.
    """
    batches = _batches(photos, Counter(done or {}))
    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(_read_next, batches, photos)
        while (read := reading.result()) is not None:
            reading = reader.submit(_read_next, batches, photos)
            chosen, wanted, contents = read
            for place, at in enumerate(chosen):
                if photos.paths[at] == STANDARD_INPUT and at not in photos.errors:
                    contents[place] = _read_input()  # in this thread, which an interrupt ends: a pipe may never do so
            answers = _ask(model, [photos.paths[at] for at in chosen], contents, precision)
            yield [answer for answer, is_wanted in zip(answers, wanted, strict=True) if is_wanted]


def _require_precision(model: Any, address: str, precision: float) -> None:
    """Raise OrchError if ``model`` has no threshold for the wanted precision."""
    import pandas as pd

    from trainers.errors import TrainerError

    if model.metadata.get_params_schema() is None:
        raise OrchError(
            f"{address} has no thresholds for a wanted precision: it was registered before orch kept them, or had no "
            "validation photos. Predict without --precision, or run its sweep again and promote that."
        )
    try:
        model.predict(pd.DataFrame({"image": []}), params={PRECISION: precision})
    except TrainerError as error:
        raise OrchError(f"--precision: {error}") from error


def model_of(model: str | None, command: str) -> tuple[str | None, str]:
    """Return MLflow's URI and the model's name, by default those of the newest sweep that has trials.

    ``command``: with which a person names a model. Raises OrchError if there is neither a name nor a sweep.
    """
    from orchestrator.ledger.folder import Wanted, find_sweep
    from orchestrator.spec.load import load_spec
    from orchestrator.tracking.settings import model_name

    try:
        spec = load_spec(str(SweepPaths(find_sweep(None, Wanted.STARTED)).spec), check_machine=False)
    except OrchError as error:
        if model is not None:
            return None, model
        raise OrchError(f"which model? {error} Name one: `{command}`.") from error
    return spec.tracking.uri, model or model_name(spec)


def _batches(photos: NamedPhotos, done: Counter[str]) -> Iterator[tuple[range, list[bool]]]:
    """Yield positions of photos to predict together, and whether each has no answer yet; skip finished batches."""
    from trainers.files.plain import batches

    start = 0
    for together in batches(map(Path, photos.paths), LARGEST_TOGETHER):
        chosen = range(start, start + len(together))
        start = chosen.stop
        wanted = []
        for at in chosen:
            path = shown(photos.paths[at])
            wanted.append(done[path] <= 0)
            done[path] -= 1
        if any(wanted):
            yield chosen, wanted


def _read_next(
    batches: Iterator[tuple[range, list[bool]]], photos: NamedPhotos
) -> tuple[range, list[bool], list[bytes | str]] | None:
    """Read the next batch: the content of each photo, or why it cannot be read. None after the last."""
    found = next(batches, None)
    if found is None:
        return None
    return (*found, [_read(photos, at) for at in found[0]])


def _read(photos: NamedPhotos, at: int) -> bytes | str:
    """Return the content of a photo (nothing for standard input), or why it cannot be read."""
    from trainers.files.plain import Unreadable, read_plain

    if at in photos.errors:
        return f"{photos.errors[at]}."
    if photos.paths[at] == STANDARD_INPUT:
        return b""
    try:
        return read_plain(photos.paths[at])
    except Unreadable as error:
        return f"cannot be read: {error.reason}."


def _read_input() -> bytes | str:
    from trainers.files.plain import LARGEST_FILE

    content = sys.stdin.buffer.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        return f"cannot be read: it holds more than {LARGEST_FILE // 10**6} MB."
    return content


def _ask(model: Any, paths: Sequence[str], contents: Sequence[bytes | str], precision: float = 0.0) -> list[Prediction]:
    """Ask about all photos that could be read in one call, and once more without those that cannot be decoded."""
    found = {at: Prediction(paths[at], error=why) for at, why in enumerate(contents) if isinstance(why, str)}
    while left := [at for at in range(len(paths)) if at not in found]:
        photos = [bytes(contents[at]) for at in left]  # type: ignore[arg-type]
        answers = _answers(model, [paths[at] for at in left], photos, precision)
        found |= {left[place]: answer for place, answer in answers.items()}
    return [found[at] for at in range(len(paths))]


def _answers(model: Any, paths: Sequence[str], contents: Sequence[bytes], precision: float) -> dict[int, Prediction]:
    """Map positions to answers: of all, or of the unreadable ones alone if there are any."""
    import pandas as pd

    from trainers.errors import TrainerError

    wanted = {"params": {PRECISION: precision}} if precision else {}
    try:
        rows = model.predict(pd.DataFrame({"image": list(contents)}), **wanted).to_dict("records")
    except TrainerError as error:
        if reasons := getattr(error, "reasons", None):
            return {at: Prediction(paths[at], error=f"cannot be read: {why}.") for at, why in reasons.items()}
        if len(paths) == 1:
            return {0: Prediction(paths[0], error=_reason(error))}
        alone = (
            _answers(model, [path], [content], precision)[0] for path, content in zip(paths, contents, strict=True)
        )
        return dict(enumerate(alone))
    return {at: _prediction(path, row) for at, (path, row) in enumerate(zip(paths, rows, strict=True))}


def _prediction(path: str, row: Mapping[str, Any]) -> Prediction:
    reason = str(row.get("reason") or "")
    label = None if reason else str(row["label"])
    return Prediction(path, label, float(row["probability"]), json.loads(row["probabilities"]), reason=reason)


def _reason(error: Exception) -> str:
    """Return the error in one line, without the photo's index: the answer holds its path."""
    return " ".join(str(error).split()).removeprefix("image 1 of 1 ")


@contextlib.contextmanager
def progress_bar(verb: str, photos: int, answered: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr if that is a terminal; yield what advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn(verb), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=photos, completed=answered)
        yield lambda count: bar.advance(task, count)
