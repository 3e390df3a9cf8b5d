"""A person at a terminal: the installed console script, a folder and a home of their own, nothing of the checkout."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

KEPT = ("LANG", "TMPDIR", "RAY_TMPDIR", "SSL_CERT_FILE", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that belong to the machine; everything else is the person's own. pip's settings are kept, too."""
ENDS_WITHIN_S = 900
"""Maximum seconds that a command may take."""
ANSWERS_WITHIN_S = 180
"""Maximum seconds until a server answers."""
ANSWER_TIMEOUT_S = 60
"""Maximum seconds of one request; a busy server finishes it, and would do it anew for each shorter one."""
WATCHED_S = 6
"""Seconds after which a command that never ends (``watch``) is ended with Ctrl-C."""
SERVERS = {"orch ui": 5000, "mlflow server": 5000, "mlflow models serve": 5000}
"""Commands that serve until Ctrl-C, and their default port."""

_PORTS: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)


@dataclass
class Person:
    """Types lines in ``folder`` with the programs of the environment ``venv``; ``typed`` are the lines so far.

    ``variables`` are exported beforehand. The home is empty at first, the terminal 80 columns wide.
    """

    venv: Path
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    typed: list[str] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder.parent / f"{self.folder.name}-home"

    def environ(self) -> dict[str, str]:
        self.home.mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        return {
            **kept,
            **_settings_of_pip(),
            "HOME": str(self.home),
            "PATH": os.pathsep.join([str(self.venv / "bin"), "/usr/local/bin", "/usr/bin", "/bin"]),
            "VIRTUAL_ENV": str(self.venv),
            "COLUMNS": "80",
            "TERM": "xterm",
            **self.variables,
        }

    def types(
        self, line: str, *, ends_with: int | tuple[int, ...] = 0, answer: str = "", within_s: float = ENDS_WITHIN_S
    ) -> str:
        """Run ``line`` in bash; what it printed on both streams. ``answer``: the line typed when it asks.

        Raises AssertionError where it ends with another exit code or prints a traceback.
        """
        began_s = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environ(),
            input=answer,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=within_s,
            check=False,
        )
        self._print(line, began_s)
        codes = (ends_with,) if isinstance(ends_with, int) else ends_with
        assert done.returncode in codes, f"$ {line}\nexit {done.returncode} instead of {ends_with}\n{done.stdout}"
        assert "Traceback (most recent call last)" not in done.stdout, f"$ {line}\n{done.stdout}"
        return done.stdout

    def exports(self, line: str) -> None:
        """``export A=b C=d``: the variables hold for all lines to come."""
        began_s = time.monotonic()
        for word in shlex.split(line)[1:]:
            name, _, value = word.partition("=")
            self.variables[name] = value
        self._print(line, began_s)

    def watches(self, line: str) -> str:
        """Start a command that never ends, look at it for some seconds and end it with Ctrl-C."""
        with self._started(line) as (_, log):
            time.sleep(WATCHED_S)
        return log.read_text(errors="replace")

    @contextlib.contextmanager
    def keeps_running(self, line: str) -> Iterator[str]:
        """Start a server, wait until it answers, and end it with Ctrl-C afterwards; its address.

        Persons of this process wait for each other's ports. Raises AssertionError where it does not answer in time, or
        where a server of somebody else has the port.
        """
        url = address_of(line)
        with _PORTS[urlsplit(url).port or 0]:
            yield from self._kept_running(line, url)

    def _kept_running(self, line: str, url: str) -> Iterator[str]:
        assert not _answers(url), f"$ {line}\nsomething else answers at {url} already"
        began_s = time.monotonic()
        with self._started(line) as (server, log):
            while not _answers(url):
                late = time.monotonic() - began_s > ANSWERS_WITHIN_S
                if late or server.poll() is not None:
                    raise AssertionError(f"$ {line}\n{log.read_text(errors='replace')}")
                time.sleep(0.5)
            yield url

    @contextlib.contextmanager
    def _started(self, line: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        began_s, environ = time.monotonic(), self.environ()
        log = self.home / (re.sub("[^a-z]+", "-", line)[:40] + ".log")
        with log.open("wb") as output:
            server = subprocess.Popen(
                ["bash", "-c", line],
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield server, log
            self._print(line, began_s)
        finally:
            _interrupt(server)

    def _print(self, line: str, began_s: float) -> None:
        self.typed.append(line)
        print(f"{self.folder.name:11s} {time.monotonic() - began_s:6.1f} s  $ {line}", flush=True)


def is_server(line: str) -> bool:
    return line.startswith(tuple(SERVERS))


def address_of(line: str) -> str:
    """The address that the server started by ``line`` answers at."""
    port = next(port for start, port in SERVERS.items() if line.startswith(start))
    given = re.search(r"--port[ =](\d+)", line)
    path = "/ping" if line.startswith("mlflow models") else "/health"
    return f"http://127.0.0.1:{given[1] if given else port}{path}"


def _settings_of_pip() -> dict[str, str]:
    """Where this machine's pip finds packages: its variables, its file, its cache."""
    found = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    files = (Path.home() / ".config" / "pip" / "pip.conf", Path.home() / ".pip" / "pip.conf")
    for file in files:
        if file.is_file():
            found.setdefault("PIP_CONFIG_FILE", str(file))
    return {"PIP_CACHE_DIR": str(Path.home() / ".cache" / "pip"), **found}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _interrupt(server: subprocess.Popen[bytes]) -> None:
    """Ctrl-C to the whole process group, and SIGKILL where it is still there after 20 seconds."""
    stop: Callable[[int, int], None] = os.killpg
    for sent in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            stop(server.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
            return
