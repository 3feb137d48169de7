"""The collector's HTTP service: batches of events in, an answer after they are durable."""

import asyncio
import contextlib
import hmac
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from understudy.logs.events import Batch, decode
from understudy.logs.flush import Flushed
from understudy.logs.intake import Intake, Limits
from understudy.logs.journal import Conflict, Journal
from understudy.logs.metrics import Metrics

__all__ = ["collector"]


def collector(
    journal: Callable[[], Journal], flush: Callable[[Journal], Flushed], token: str, *, flush_s: float, limits: Limits
) -> Starlette:
    """The ASGI application.

    Args:
        journal: opens the store; each thread has its own connection.
        flush: brings what waits to the lake.
        token: of the clients; never logged.
        flush_s: seconds between flushes; one more follows at the end.
    """
    service = _Service(journal, flush, token, flush_s, limits)
    routes = [
        Route("/v1/events", service.events, methods=["POST"]),
        Route("/healthz", service.health),
        Route("/metrics", service.report),
    ]
    return Starlette(routes=routes, lifespan=service.lifespan)


class _Service:
    intake: Intake

    def __init__(
        self,
        journal: Callable[[], Journal],
        flush: Callable[[Journal], Flushed],
        token: str,
        flush_s: float,
        limits: Limits,
    ) -> None:
        self.open_journal, self.flush, self.flush_s, self.limits = journal, flush, flush_s, limits
        self.expected = f"Bearer {token}".encode()
        self.metrics = Metrics()
        self.stopping = threading.Event()

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        written, flushed = self.open_journal(), self.open_journal()
        self.intake = Intake(written, self.limits, self.metrics)
        flusher = threading.Thread(target=self._flush_often, args=[flushed], name="flush", daemon=True)
        flusher.start()
        yield
        await self.intake.stop()
        self.stopping.set()
        await asyncio.to_thread(flusher.join)
        written.close()
        flushed.close()

    async def events(self, request: Request) -> Response:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, self.expected):
            return _refusal(401, "expected the header Authorization: Bearer <token>, found another token or none")
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdecimal() else self.limits.body_bytes
        if size > self.limits.body_bytes:
            return self._too_large()
        if not self.intake.admit(size):
            return _refusal(429, "expected fewer batches at once; send this one again", {"Retry-After": "1"})
        try:
            return await self._read_and_write(request)
        finally:
            self.intake.release(size)

    async def _read_and_write(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(self.limits.body_s):
                body = await self._body(request)
        except (TimeoutError, ClientDisconnect):
            reason = f"expected the whole batch within {self.limits.body_s:g} s, found a part; send it again"
            return _refusal(408, reason, {"Connection": "close"})
        if body is None:
            return self._too_large()
        try:
            batch = decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _refusal(400, f"expected batch_id, sent_at and events as JSON, found: {str(error)[:200]}")
        if len(batch.events) > self.limits.events:
            return _refusal(413, f"expected at most {self.limits.events} events, found {len(batch.events)}")
        return await self._write(batch)

    async def _body(self, request: Request) -> bytes | None:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.limits.body_bytes:
                return None
            parts.append(part)
        return b"".join(parts)

    async def _write(self, batch: Batch) -> Response:
        start = time.perf_counter()
        try:
            answer = await self.intake.write(batch)
        except Conflict:
            reason = f"batch_id {batch.batch_id!r}: expected the events that came with it before, found others"
            return _refusal(409, f"{reason}; give every batch an id of its own")
        except Exception:
            return _refusal(503, "expected to write to disk, could not; send this batch again", {"Retry-After": "5"})
        self.metrics.acknowledged.observe(time.perf_counter() - start)
        return Response(answer, media_type="application/json")

    def _too_large(self) -> Response:
        return _refusal(413, f"expected at most {self.limits.body_bytes} bytes; send smaller batches")

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def report(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    def _flush_often(self, journal: Journal) -> None:
        while not self.stopping.wait(self.flush_s):
            self._flush_once(journal)
        self._flush_once(journal)

    def _flush_once(self, journal: Journal) -> None:
        try:
            flushed = self.flush(journal)
        except Exception as error:
            self.metrics.failures.labels("lake").inc()
            line = " ".join(str(error).split())
            print(f"collect: a flush failed and is tried again: {line}", file=sys.stderr, flush=True)
            return
        self.metrics.rows.labels("impressions").inc(flushed.impressions)
        self.metrics.rows.labels("actions").inc(flushed.actions)
        self.metrics.flushed_at.set_to_current_time()


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    body = msgspec.json.encode({"error": reason})
    return Response(body, status_code=status, media_type="application/json", headers=headers)
