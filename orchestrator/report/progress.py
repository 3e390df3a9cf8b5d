"""What a person reads while a sweep runs: its events, as lines."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.ledger.naming import label, legend, run_name, varied_fields
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import TrialState, derive
from orchestrator.objectives import ACCURACY, OBJECTIVES
from orchestrator.paths import SweepPaths, command_line
from orchestrator.report.stage_lines import line, stage_lines
from orchestrator.report.terminal import outlives_terminal, tell
from trainers.wording import count

if TYPE_CHECKING:
    from rich.console import Console

INDENT = 9
"""Width of the word that begins each line."""


class ProgressReporter:
    """Print the events of a running sweep to ``console``: the only place where a sweep speaks to a person.

    Keeps what a line needs of earlier events: names, and how many trials have ended.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._objectives: tuple[str, ...] = (ACCURACY,)
        self._names: dict[str, str] = {}
        self._logs: dict[str, str] = {}
        self._reported_unstored: set[str] = set()
        self._explained: set[str] = set()  # abbreviations in names
        self._last: dict[str, Event] = {}
        self._started: dict[str, float] = {}
        self._ended: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._root = Path()
        self._reported_first_epoch = False
        self._began_s = time.monotonic()

    def print_line(self, line: str) -> None:
        """Print a line; on a terminal it is wrapped between words, under its first word. A pipe gets it whole."""
        with outlives_terminal(self._console):
            tell(self._console, line, INDENT)

    def warn(self, sentence: str) -> None:
        """Print a warning that is no event of the sweep."""
        self.print_line(line("warning", sentence))

    def opened(self, name: str, root: Path, events: Sequence[Event], notes: Sequence[str], resumed: bool) -> None:
        """Print where the sweep is, and take in the ``events`` of earlier processes. ``notes``: lines on the file."""
        self._root = root
        for event in events:
            if event.kind == EventKind.EPOCH and not event.fold:
                self._last[event.trial] = event
        for record in derive(events).trials.values():
            self._names[record.id] = label(record)
            if record.state.is_final:
                self._ended[record.stage] = self._ended.get(record.stage, 0) + 1
        how = f"resumed with {count(self._ended.get(Stage.SEARCH, 0), 'trial')} done" if resumed else "new"
        self.print_line(line("sweep", f"{name} in {root} ({how})"))
        for note in notes:
            self.print_line(note)

    def on_event(self, event: Event) -> None:
        """Print the lines of an event, if it has any."""
        if event.kind == EventKind.SWEEP:
            self._sweep(event)
        elif event.kind == EventKind.EPOCH:
            self._epoch(event)
        elif event.kind == EventKind.TRIAL:
            self._trial(event)
        elif event.kind == EventKind.STAGE and event.stage == Stage.PREFILL:
            self._prefill(event)
        else:
            if event.kind == EventKind.STAGE and event.state == "BEGUN" and event.data.get("fits"):
                self._totals[event.stage] = event.data["fits"]
                self._ended[event.stage] = event.data.get("done", 0)
            for text in stage_lines(event):
                self.print_line(text)

    def _sweep(self, event: Event) -> None:
        data = event.data
        if event.state == "RUNNING":
            self._totals[Stage.SEARCH] = data.get("budget", {}).get("trials", 0)
            self._objectives = tuple(data.get("objectives", self._objectives))
        elif data.get("until") == Stage.SEARCH:
            resume = command_line("sweep", "--resume", "--out", self._root)
            text = f"after the search, as asked; test was not read. Resume with: `{resume}`"
            self.print_line(line("stopped", text))

    def _epoch(self, event: Event) -> None:
        if event.fold:
            return
        self._last[event.trial] = event
        if not self._reported_first_epoch and event.stage == Stage.SEARCH:
            self._reported_first_epoch = True
            self.print_line(line("search", f"first epoch after {time.monotonic() - self._began_s:.0f} s"))

    def _prefill(self, event: Event) -> None:
        """Print a prefill that computed something; warn once of each kind of rows that is not stored."""
        done = event.data
        if event.state == "FAILED":
            name = self._names.get(done["for"], done["for"])
            reason = event.reason.rstrip(".")
            self.warn(f"the store was not filled for {name}: {reason}; its trials start all the same")
            return
        images = done["features"] or done["images"]
        if images:
            self.print_line(f"prefill  {done['what']}: {count(images, 'image')} in {done['seconds']:.0f} s")
        if not done["stored"] and done.get("share", True) and done["what"] not in self._reported_unstored:
            self._reported_unstored.add(done["what"])
            why = done.get("refused") or "there is no room for all of it; orch cache explain says how much is taken"
            self.warn(f"{done['what']} is not kept and is computed in every epoch: {why.rstrip('.')}")

    def _trial(self, event: Event) -> None:
        data = event.data
        if "config" in data:
            given = data.get("name", "")
            given = "" if given == event.trial else given
            self._names[event.trial] = run_name(data["number"], data["config"], varied_fields(data), given)
        state = TrialState(event.state)
        if data.get("log"):
            self._logs[event.trial] = str(self._root / data["log"])
        if state == TrialState.RUNNING:
            self._started.setdefault(event.trial, event.time_s)
        if state == TrialState.PENDING and event.reason:
            self.print_line(f"         {self._names[event.trial]}: {event.reason}")
        if state.is_final:
            self._explain(self._names.get(event.trial, ""))
            self.print_line(self._final(event, state))

    def _explain(self, name: str) -> None:
        """Print what an abbreviation in a trial's name stands for, before the first name that has it."""
        new = [words for words in legend([name]).split(", ") if words and words not in self._explained]
        if new:
            self._explained.update(new)
            self.print_line(line("names", ", ".join(new)))

    def _final(self, event: Event, state: TrialState) -> str:
        stage = event.stage
        self._ended[stage] = self._ended.get(stage, 0) + 1
        done, total = self._ended[stage], self._totals.get(stage)
        place = f"{done}/{total}" if total else str(done)
        seconds = event.time_s - self._started.get(event.trial, event.time_s)
        name = self._names.get(event.trial, event.trial)
        last = self._last.get(event.trial)
        words = f"{stage:8s} {place:>6s}  {_accuracy(last)}{self._others(last)}  {state!s:9s} {name}"
        # Why a trial was pruned or stopped is in its state and its epochs; a failure needs its sentence.
        tail = f": {event.reason} (log: {self._logs.get(event.trial, 'none')})" if state == TrialState.FAILED else ""
        return f"{words}  ({count(event.epoch, 'epoch')}, {seconds:.0f} s){tail}"

    def _others(self, last: Event | None) -> str:
        """Format the objectives other than accuracy."""
        values = {name: last.metrics[name] for name in self._objectives if name != ACCURACY} if last else {}
        return "".join(f"  {OBJECTIVES[name].show(value)}" for name, value in values.items() if value is not None)

    def nothing_to_do(self) -> None:
        """Print that a resumed sweep is finished already, and what a person who wanted more types."""
        show = command_line("show", self._root)
        more = command_line("sweep", "--resume", "--out", self._root, "--trials", "+20")
        self.print_line(
            line(
                "finished",
                f"nothing is left to do; `{show}` prints the results. More trials: `{more}`. Photos that "
                "were added since take another sweep, which keeps the splits: `orch sweep FILE --fresh`.",
            )
        )

    def finished(self, paths: SweepPaths, seconds: float) -> None:
        """Print the leaderboard, and what to type next."""
        import pandas as pd

        from orchestrator.evaluation.leaderboard import to_rich

        frame = pd.read_parquet(paths.leaderboard_parquet)
        with outlives_terminal(self._console):
            self._console.print()
            to_rich(frame, "Leaderboard on the test split").print(self._console)
            self._console.print()
        row = frame[frame["winner"]].iloc[0]
        self.print_line(
            f"The winner, chosen on validation: {row['model']} with the crop policy {row['policy']}, test accuracy "
            f"{row['accuracy']:.3f} ({row['accuracy_low']:.3f} to {row['accuracy_high']:.3f}). "
            f"{seconds / 60:.1f} minutes; everything is in {paths.root}."
        )
        steps = [
            (command_line("promote", "best", paths.root), "put the winner into the registry"),
            ("orch ui", "browse the trials in MLflow"),
        ]
        if activation := _activation():
            steps.insert(0, (activation, "once per terminal: puts orch on PATH"))
        width = max(len(command) for command, _ in steps)
        with outlives_terminal(self._console):
            self._console.print("\nNext:", markup=False)
            for command, what in steps:
                line = f"  {command.ljust(width)}   # {what}"
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _activation() -> str:
    """Return the command that puts this ``orch`` on PATH; "" if it is there or in no virtual environment."""
    activate = Path(sys.prefix) / "bin" / "activate"
    found = shutil.which("orch")
    here = found is not None and Path(found).parent.resolve() == activate.parent.resolve()
    return "" if here or not activate.is_file() else f"source {shlex.quote(str(activate))}"


def _accuracy(last: Event | None) -> str:
    value: Any = last.val_accuracy if last is not None else None
    if value is None or not math.isfinite(value):
        return "  -  "
    return f"{value:.3f}"
