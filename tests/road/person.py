"""A person at a terminal: the installed console script, a folder and a home of their own, nothing of the checkout."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

KEPT = ("LANG", "TMPDIR", "SSL_CERT_FILE", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that belong to the machine; everything else is the person's own."""
ENDS_WITHIN_S = 900
ANSWERS_WITHIN_S = 120


@dataclass
class Person:
    """Types lines in ``folder`` with the programs of the environment ``venv``; ``typed`` are the lines so far.

    ``variables`` are exported beforehand. The home is empty at first, the terminal 80 columns wide.
    """

    venv: Path
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    typed: list[str] = field(default_factory=list)

    def environ(self) -> dict[str, str]:
        home = self.folder.parent / f"{self.folder.name}-home"
        home.mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        return {
            **kept,
            "HOME": str(home),
            "PATH": os.pathsep.join([str(self.venv / "bin"), "/usr/local/bin", "/usr/bin", "/bin"]),
            "VIRTUAL_ENV": str(self.venv),
            "COLUMNS": "80",
            **self.variables,
        }

    def types(self, line: str, *, ends_with: int = 0, within_s: float = ENDS_WITHIN_S) -> str:
        """Run ``line`` in bash; what it printed on both streams. Raises AssertionError on any other exit code."""
        began_s = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within_s,
            check=False,
        )
        print(f"{time.monotonic() - began_s:6.1f} s  $ {line}", flush=True)
        assert done.returncode == ends_with, f"$ {line}\nexit {done.returncode} instead of {ends_with}\n{done.stdout}"
        assert "Traceback (most recent call last)" not in done.stdout, f"$ {line}\n{done.stdout}"
        self.typed.append(line)
        return done.stdout

    @contextlib.contextmanager
    def keeps_running(self, line: str, url: str) -> Iterator[None]:
        """Start ``line``, wait until ``url`` answers, and end it with Ctrl-C. Raises AssertionError if it does not."""
        began_s = time.monotonic()
        log = self.folder.parent / f"{self.folder.name}-server.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                ["bash", "-c", line],
                cwd=self.folder,
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            while not _answers(url):
                late = time.monotonic() - began_s > ANSWERS_WITHIN_S
                if late or server.poll() is not None:
                    raise AssertionError(f"$ {line}\n{log.read_text(errors='replace')}")
                time.sleep(0.5)
            print(f"{time.monotonic() - began_s:6.1f} s  $ {line}", flush=True)
            self.typed.append(line)
            yield
        finally:
            _interrupt(server)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _interrupt(server: subprocess.Popen[bytes]) -> None:
    """Ctrl-C to the whole process group, and SIGKILL if it is still there after 20 seconds."""
    for sent in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
            return
