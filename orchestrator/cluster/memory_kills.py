"""Parse the message of a kill by Ray's memory monitor, and time the attempts that follow. Pure.

The monitor kills the newest workers of a machine whose memory is nearly full, whichever program filled it. Trials are
retried by ``search.recorder.TrialRecorder``, after ``lost_workers`` has converted the error; jobs by ``jobs``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.errors import TransientError

OWN_SHARE = 0.5
"""Share of the machine's used memory above which the killed workers themselves are the cause."""
LONGEST_PAUSE_S = 30.0
"""Maximum seconds without new workers after a kill."""

_NODE = re.compile(r"was ([\d.]+)GB used / ([\d.]+)GB limit")
_KILLED = re.compile(r"^Selected to kill: .*actual memory used=([\d.]+)GB", re.MULTILINE)


@dataclass(frozen=True)
class MemoryKill:
    """Memory in GB when workers were killed: of the machine, and of those workers together. 0 if unknown."""

    used_gb: float = 0.0
    limit_gb: float = 0.0
    workers_gb: float = 0.0

    @property
    def is_own(self) -> bool:
        """Whether the killed workers held most of the memory in use, so that a retry would end the same way."""
        return self.used_gb > 0 and self.workers_gb > OWN_SHARE * self.used_gb

    def sentence(self) -> str:
        """Return why the worker was killed, without a full stop."""
        if not self.limit_gb:
            return "out of memory: Ray killed the worker to keep the machine alive"
        whose = f"{self.workers_gb:.1f} GB by the workers that Ray killed to keep it alive"
        return f"out of memory: {self.used_gb:.1f} of the machine's {self.limit_gb:.1f} GB were in use, {whose}"


def parse_kill(text: str) -> MemoryKill | None:
    """Parse the memory monitor's message (Ray 2.60); None if ``text`` is another error."""
    if "low on memory" not in text:
        return None
    node = _NODE.search(text)
    if node is None:
        return MemoryKill()
    workers_gb = sum(float(found) for found in _KILLED.findall(text))
    return MemoryKill(float(node.group(1)), float(node.group(2)), workers_gb)


@dataclass(frozen=True)
class PatienceSettings:
    """``max_rounds``: consecutive kills without progress before a stage gives up. ``first_pause_s``: seconds without
    new workers after the first kill; doubled with each further one, up to ``LONGEST_PAUSE_S``."""

    max_rounds: int = 8
    first_pause_s: float = 1.0


class Patience:
    """Count consecutive kills without progress. Workers killed at the same time count once."""

    def __init__(self, settings: PatienceSettings) -> None:
        self.rounds = 0
        self._settings = settings
        self._last: MemoryKill | None = None
        self._ready_s = 0.0

    def killed(self, kill: MemoryKill, now_s: float) -> None:
        """Record a kill and start a pause, during which ``ready`` is False."""
        if kill == self._last and now_s < self._ready_s:
            return
        self._last = kill
        self.rounds += 1
        pause_s = min(LONGEST_PAUSE_S, self._settings.first_pause_s * 2 ** (self.rounds - 1))
        self._ready_s = now_s + pause_s

    def progress(self) -> None:
        """Reset the count: an epoch, a prefill or a job has ended."""
        self.rounds = 0

    def ready(self, now_s: float) -> bool:
        """Return whether workers may start."""
        return now_s >= self._ready_s

    @property
    def is_exhausted(self) -> bool:
        return self.rounds >= self._settings.max_rounds


def gave_up(kill: MemoryKill, rounds: int, less: str = "") -> TransientError:
    """Return the error after ``rounds`` kills without progress. ``less``: see ``TransientError``."""
    used = f" ({kill.used_gb:.1f} of {kill.limit_gb:.1f} GB in use)" if kill.limit_gb else ""
    what = f"the machine's memory is full{used}: Ray killed workers {rounds} times without progress."
    return TransientError(what, "close other programs", less)
