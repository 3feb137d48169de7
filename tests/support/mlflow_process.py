"""MLflow's own server for tests, and a proxy before it that loses answers."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
from http_server import listening
from waiting import eventually

__all__ = ["Proxy", "mlflow_server", "proxy"]

_PLAIN = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # or it starts eight processes more
}


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Its URI, on loopback; it keeps all in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", f"--backend-store-uri=sqlite:///{folder}/mlflow.db"]
    command += [f"--artifacts-destination={folder}/artifacts", f"--port={port}", "--workers=1"]
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | _PLAIN, stdout=out, stderr=out)
    uri = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: _answers(f"{uri}/health"), 120, process, log.read_text)
        yield uri
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


class Proxy:
    """Between a client and a server.

    Args:
        asked: method and path of each request so far, as ``POST runs/create``.
        credentials: that came with them.
        fate: of a request: ``""``; ``lost``: the server acts, its answer never comes; ``refused``: the server never
            hears of it; ``late``: nothing happens until the test ends; ``denied``: 401, with the credentials repeated.
    """

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self.credentials: list[str] = []
        self.fate: Callable[[str], str] = lambda _: ""
        self.end = threading.Event()
        self.port = port

    def writes(self) -> list[str]:
        return [one for one in self.asked if not one.startswith("GET") and not one.endswith("search")]


@contextlib.contextmanager
def proxy(uri: str) -> Iterator[tuple[str, Proxy]]:
    """Its URI, and itself."""
    state = Proxy(int(uri.rpartition(":")[2]))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            name = f"{self.command} {self.path.partition('?')[0].removeprefix('/api/2.0/mlflow/')}"
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.asked.append(name)
            state.credentials.append(self.headers.get("Authorization", ""))
            fate = state.fate(name)
            if fate == "late":
                state.end.wait()
            status, content = 401, state.credentials[-1].encode()
            if fate in ("", "lost"):
                status, content = _forward(state.port, self, body)
            if fate not in ("", "denied"):
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        try:
            yield url, state
        finally:
            state.end.set()


def _forward(port: int, asked: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        headers = {"Content-Type": asked.headers.get("Content-Type", "application/json")}
        connection.request(asked.command, asked.path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
