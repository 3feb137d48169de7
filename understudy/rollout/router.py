"""A small router for a laptop: the arm of a request by its bucket header, as an HTTPRoute's exact matches do it.

The route lies in a file, which is written whole and read again when it changes: ``{"urls": {arm: url}, "arms": {arm:
[buckets]}}``. What no arm names goes to ``stable``. A client that comes from outside must not choose its arm; here
nothing is outside, and the caller sets the header.
"""

import json
import os
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from understudy.experiments import Arms
from understudy.experiments.header import BUCKET, bucket_of

__all__ = ["router"]

_FORWARDED = ("authorization", "content-type", "x-request-id", BUCKET)
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
