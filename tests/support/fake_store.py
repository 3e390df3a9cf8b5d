"""Fresh MLflow stores and servers for tests. Making a store's tables takes seconds: it is done once and copied."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from orchestrator.tracking.mlflow_store import connect, reachable, ui_command


@functools.cache
def _migrated() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="orch-test-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    connect(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


def new_store(folder: Path) -> str:
    """The URI of an empty store whose database lies in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_migrated(), folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running_server(folder: Path, port: int) -> Iterator[str]:
    """The URI of a real MLflow server on a store of its own; it answers when the block begins."""
    command = ui_command(port, new_store(folder))
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + 120
        while not reachable(uri)[0]:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, "the server did not start in two minutes"
            time.sleep(0.5)
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@contextmanager
def small_server(status: int | None) -> Iterator[str]:
    """The URI of an HTTP server that answers everything with ``status``; None: it takes connections and is silent."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status is None:
                silent.wait(120)
                return
            self.send_response(status)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"<html>")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *about: object) -> None:
            pass

    silent = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        silent.set()
        server.shutdown()
        server.server_close()
