"""The collector's HTTP service: batches of events in, an answer after they are durable."""

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from understudy.http_requests import Refusal, as_json, body_of, check_token, refused, size_of
from understudy.logs.events import Batch, decode
from understudy.logs.flush import Flushed
from understudy.logs.intake import Intake, Limits
from understudy.logs.journal import Conflict, Journal
from understudy.logs.metrics import Metrics

__all__ = ["collector"]

_SMALLER = "send smaller batches"


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
        self.token = token
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
        most = self.limits.body_bytes
        try:
            check_token(request, self.token)
            size = size_of(request, most, _SMALLER)
            if not self.intake.admit(size):
                raise Refusal(429, "expected fewer batches at once; send this one again", {"Retry-After": "1"})
            try:
                return await self._write(self._batch(await body_of(request, most, self.limits.body_s, _SMALLER)))
            finally:
                self.intake.release(size)
        except Refusal as error:
            return refused(error)

    def _batch(self, body: bytes) -> Batch:
        try:
            batch = decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = f"expected batch_id, sent_at and events as JSON, found: {str(error)[:200]}"
            raise Refusal(400, reason) from error
        if len(batch.events) > self.limits.events:
            raise Refusal(413, f"expected at most {self.limits.events} events, found {len(batch.events)}")
        return batch

    async def _write(self, batch: Batch) -> Response:
        start = time.perf_counter()
        try:
            answer = await self.intake.write(batch)
        except Conflict as error:
            reason = f"batch_id {batch.batch_id!r}: expected the events that came with it before, found others"
            raise Refusal(409, f"{reason}; give every batch an id of its own") from error
        except Exception as error:
            reason = "expected to write to disk, could not; send this batch again"
            raise Refusal(503, reason, {"Retry-After": "5"}) from error
        self.metrics.acknowledged.observe(time.perf_counter() - start)
        return as_json(answer)

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
