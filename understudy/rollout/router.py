"""A small router for a laptop: the arm of a request by its bucket header, as an HTTPRoute's exact matches do it.

The route lies in a file, which is written whole and read again when it changes: ``{"urls": {arm: url}, "arms": {arm:
[buckets]}}``. What no arm names goes to ``stable``. A client that comes from outside must not choose its arm; here
nothing is outside, and the caller sets the header.
"""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from understudy.errors import BadInput
from understudy.experiments import Arms
from understudy.experiments.header import BUCKET, NOW, bucket_of

__all__ = ["router", "routing"]

_FORWARDED = ("authorization", "content-type", "x-request-id", BUCKET, NOW)
_MOST_BYTES = 1 << 20


class _Router:
    def __init__(self, path: Path) -> None:
        self.path, self.seen = path, (0, 0)
        self.urls: dict[str, str] = {}
        self.arms = Arms()
        self.client = httpx.AsyncClient(timeout=30)

    def look(self) -> None:
        status = os.stat(self.path)
        if (status.st_mtime_ns, status.st_ino) != self.seen:
            value: dict[str, Any] = json.loads(self.path.read_text())
            arms = Arms({arm: tuple(buckets) for arm, buckets in value["arms"].items()})
            self.urls, self.arms, self.seen = value["urls"], arms, (status.st_mtime_ns, status.st_ino)

    async def forward(self, request: Request) -> Response:
        try:
            bucket = bucket_of(request.headers.get(BUCKET, ""))
        except ValueError:
            bucket = -1  # of no arm: stable, which says what is wrong with it
        body = await request.body()
        if len(body) > _MOST_BYTES:
            return JSONResponse({"error": f"body: expected at most {_MOST_BYTES} bytes"}, 413)
        self.look()
        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        url = f"{self.urls[self.arms.of(bucket)]}{request.url.path}"
        try:
            answer = await self.client.request(request.method, url, content=body, headers=headers)
        except httpx.HTTPError as error:
            return JSONResponse({"error": f"no answer: {type(error).__name__}"}, 502, {"Retry-After": "1"})
        kept = {name: answer.headers[name] for name in ("x-request-id", "retry-after") if name in answer.headers}
        return Response(answer.content, answer.status_code, kept, answer.headers.get("content-type"))


def router(path: Path) -> Starlette:
    """The ASGI application.

    Args:
        path: of the route's file.
    """
    return Starlette(routes=[Route("/{rest:path}", _Router(path).forward, methods=["GET", "POST"])])


@contextlib.contextmanager
def routing(path: Path, port: int) -> Iterator[str]:
    """The router on loopback, in a thread of this process; its URL.

    Args:
        port: 0: any free one.

    Raises:
        BadInput: the port is taken.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        raise BadInput(f"router, port {port}: expected a free port, found: {error.strerror}; name another") from error
    server = uvicorn.Server(uvicorn.Config(router(path), log_level="error", ws="none", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, args=[[listening]], daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
