"""Small HTTP servers on loopback: one that answers as a test says, and what others are made of."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

__all__ = ["Answer", "Asked", "listening", "nobody", "server"]


@contextlib.contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server whose requests the handler answers, each in a thread."""
    one = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    one.daemon_threads = True
    threading.Thread(target=one.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{one.server_port}"
    finally:
        one.shutdown()
        one.server_close()


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """An answer.

    Args:
        wait_s: before it. pause_s: before each byte of the body.
        length: that its head tells; None: the body's.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    pause_s: float = 0.0
    length: int | None = None


@contextlib.contextmanager
def server(answer: Callable[[Asked], Answer]) -> Iterator[tuple[str, list[Asked]]]:
    """Its URL, and what it was asked so far."""
    asked: list[Asked] = []
    end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked.append(Asked(self.command, self.path, headers, self.rfile.read(length)))
            said = answer(asked[-1])
            end.wait(said.wait_s)
            with contextlib.suppress(OSError):
                self._say(said)

        do_POST = do_GET

        def _say(self, said: Answer) -> None:
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.body) if said.length is None else said.length))
            self.end_headers()
            parts = [said.body[place : place + 1] for place in range(len(said.body))] if said.pause_s else [said.body]
            for part in parts:
                end.wait(said.pause_s)
                self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        try:
            yield url, asked
        finally:
            end.set()


def nobody() -> str:
    """A URL where nobody listens."""
    one = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    one.server_close()
    return f"http://127.0.0.1:{one.server_port}"
